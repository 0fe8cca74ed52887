"""What a feature is, asked without reading it: a duplicate of another, found by another SAE too, about one token?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.allocation.codes import SparseCodes
from sae_tutorial.evaluation.contexts import around
from sae_tutorial.evaluation.ground_truth import cosine_blocks
from sae_tutorial.figures import kinds
from sae_tutorial.figures.kinds import Curve
from sae_tutorial.figures.looks import GREY, SKY, VERMILION, Look
from sae_tutorial.figures.tables import Table

# Kinds of questions, not methods: none of the colours of the rules.
GREY_DOTS, SQUARES, DOTS, DASHES = Look(GREY), Look(SKY, marker="square"), Look(VERMILION), Look(GREY, "dash")
DOTTED = Look(GREY, "dot")
NEAR = 0.7  # the cosine from which two features count as the same, as in the table of seeds


def nearest_other(
    dictionary: Float[Tensor, "features d"], among: Float[Tensor, "features d"] | None = None
) -> Float[Tensor, " features"]:
    """For each row, the largest cosine with a row of another number, in the same dictionary: near 1 for a duplicate.
    Or `among` the rows of a second one: two SAEs that began with the same weights have features alike for that reason
    alone, and these have the same number."""
    best: list[Tensor] = []
    for cosines in cosine_blocks(dictionary, dictionary if among is None else among):
        cosines.diagonal(sum(map(len, best))).fill_(-1)  # the same number
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


def purity_of(
    directions: Float[Tensor, "directions d"],
    x: Float[Tensor, "tokens d"],
    tokens: Int[Tensor, " tokens"],
    copied_from: Int[Tensor, " directions"] | None = None,
) -> float:
    """Mean `token_purity` of directions that are nobody's features, read at centred activations. A direction that was
    copied from the activation of one of the tokens is not asked about that one, where it is strongest for no merit."""
    strengths = ((x - x.mean(dim=0)) @ directions.T).relu()
    if copied_from is not None:
        strengths[copied_from, torch.arange(len(copied_from), device=x.device)] = 0
    return float(token_purity(SparseCodes.from_dense(strengths), tokens).nanmean())


def figure(
    asked: Mapping[str, Float[Tensor, " features"]],
    density: Float[Tensor, " features"],
    single: tuple[float, float],
    random: float,
) -> Any:
    """Of tenths of the features, the densest first: the shares that have a neighbour in the same and in another SAE,
    and the mean share of the strongest matches that are at one token. Beside them what the activations of `single`
    tokens have of either, and `random` directions of the last."""
    tenths = density.argsort(descending=True).chunk(10)
    (same, to_same), (other, to_other), (share, purity) = (
        (name, [float(values[tenth].nanmean()) for tenth in tenths])
        for name, values in zip(asked, _shares(*asked.values()))
    )
    at = range(1, 11)
    near, at_one = (Curve(at, [value] * 10, look=DOTTED, mode="lines") for value in single)
    panels = {
        f"a feature within a cosine of {NEAR}": {
            same: Curve(at, to_same, look=GREY_DOTS),
            other: Curve(at, to_other, look=SQUARES),
            "activations of single tokens": near,
        },
        "strongest ten at one token": {
            share: Curve(at, purity, look=DOTS),
            "activations of single tokens": at_one,
            "random directions": Curve(at, [random] * 10, look=DASHES, mode="lines"),
        },
    }
    title = (
        f"At a cosine of {NEAR}, {to_other[-1]:.0%} of the rarest features are found elsewhere, {to_same[-1]:.0%} in "
        f"their own SAE, of single tokens' activations {single[0]:.0%}"
    )
    x = "tenth of the features, the densest first"
    fig = kinds.lines(panels, title, x, ["share of features", "mean share of matches"])
    return fig.update_yaxes(rangemode="tozero")


def _shares(same: Tensor, other: Tensor, purity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (same >= NEAR).float(), (other >= NEAR).float(), purity


def strongest_contexts(
    code: SparseCodes, features: Sequence[int], tokens: Int[Tensor, "rows positions"], tokenizer: Any, n: int = 4
) -> Table:
    """The `n` strongest matches of each feature, with the text around them; `code` has a row for each of `tokens`."""
    rows = []
    for feature in features:
        mine = code.features == feature
        at, values = code.tokens[mine], code.values[mine]
        strengths = torch.zeros(code.shape[0]).index_put((at,), values).view(tokens.shape)
        for c in around(tokenizer, tokens, strengths, at[values.argsort(descending=True)[:n]].tolist(), width=7):
            texts = (text.replace("\n", "↵") for text in (c.before, c.token, c.after))
            rows.append((feature, f"{c.activation:.1f}", *texts))
    return Table(["feature", "strength", "before", "token", "after"], rows)
