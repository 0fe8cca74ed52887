"""What a feature is, asked without reading it: a duplicate of another, found by another SAE too, about one token?"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.allocation.codes import SparseCodes
from sae_tutorial.evaluation.ground_truth import cosine_blocks


def nearest_other(dictionary: Float[Tensor, "features d"]) -> Float[Tensor, " features"]:
    """For each row, the largest cosine with another row of the same dictionary: near 1 for a duplicate."""
    best: list[Tensor] = []
    for cosines in cosine_blocks(dictionary, dictionary):
        cosines.diagonal(sum(map(len, best))).fill_(-1)  # itself
        best.append(cosines.amax(1))
    return torch.cat(best)


def token_purity(codes: SparseCodes, tokens: Int[Tensor, " tokens"], n: int = 10) -> Float[Tensor, " features"]:
    """The share of the `n` strongest matches of each feature at which the same token stands: 1 for a feature of one
    token. NaN for features with fewer than `n` matches."""
    strongest = codes.values.argsort(descending=True)
    by_feature = codes.features[strongest].argsort(stable=True)
    ids = tokens[codes.tokens[strongest[by_feature]]]
    count_F = torch.bincount(codes.features, minlength=codes.shape[1])
    first_F = count_F.cumsum(0) - count_F
    enough = torch.where(count_F >= n)[0]
    ids_FN = ids[first_F[enough, None] + torch.arange(n, device=ids.device)]
    same = (ids_FN[:, :, None] == ids_FN[:, None, :]).sum(2).amax(1)  # of the most frequent among them
    purity_F = torch.full((codes.shape[1],), torch.nan, device=ids.device)
    purity_F[enough] = same / n
    return purity_F
