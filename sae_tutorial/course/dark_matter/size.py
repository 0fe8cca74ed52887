"""How many features are there? What SAEs of several sizes agree on; `scripts/size_by_stability.py` trains them.

Letters of shapes: N tokens, D dimensions, F features of an SAE.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.evaluation.ground_truth import (
    mean_max_cosine,
    mutual_neighbours,
    random_directions,
    sparse_strengths,
)

N_TRUE, D, N_TOKENS, N_ON = 128, 32, 200_000, 3  # the planted data: features, dimensions, tokens, features a token
SAME = 0.9  # cosine from which two decoder rows count as one feature
FREQUENCIES = {  # of the planted features: 3.4 a token on average
    "equal": torch.full((N_TRUE,), 3.4 / N_TRUE),
    "Zipf": (0.3 / torch.arange(1, N_TRUE + 1) ** 0.7).clamp(max=0.25),
}


def planted(frequencies: str) -> tuple[Float[Tensor, "features d"], Float[Tensor, "tokens d"]]:
    """128 directions in 32 dimensions, and tokens that are sums of a few of them."""
    truth = random_directions(N_TRUE, D)
    return truth, sparse_strengths(N_TOKENS, FREQUENCIES[frequencies], seed=1) @ truth


@torch.no_grad()
def agreement(
    dictionaries: Sequence[Float[Tensor, "features d"]], truth: Float[Tensor, "n d"] | None = None
) -> dict[str, Any]:
    """Of dictionaries of one size and several seeds: what each pair agrees on, what random ones would, and what share
    of the truth each has, where it is known."""
    pairs = list(combinations(dictionaries, 2))
    F, d = dictionaries[0].shape
    found: dict[str, Any] = {
        "agreed": [mutual_neighbours(*pair, SAME) for pair in pairs],
        "mmcs": [mean_max_cosine(*pair) for pair in pairs],
        "mmcs_random": mean_max_cosine(random_directions(F, d, 1), random_directions(F, d, 2)),
    }
    if truth is not None:
        found["true_found"] = [mutual_neighbours(truth, one, SAME) for one in dictionaries]
    return found
