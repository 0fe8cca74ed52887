"""What goes along with the number of features that a token gets: each quantity alone, and beside the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata, spearmanr
from torch import Tensor


def rank_effects(
    given: Float[Tensor, " tokens"], suspects: Mapping[str, Float[Tensor, " tokens"]]
) -> dict[str, tuple[float, float]]:
    """For each quantity its rank correlation with `given`, and its part when all others are held equal.

    The second number is the coefficient of a linear regression of the ranks of `given` on the ranks of all quantities,
    all with standard deviation 1: what is left of the first when the others have explained what they can. NaN for a
    quantity that is the same for all tokens.
    """
    flat = {name: _column(value) for name, value in suspects.items()}
    varied = [name for name in flat if np.ptp(flat[name]) > 0]
    y = _standard(_column(given))
    together = np.full(0, np.nan)
    if varied:
        together = np.linalg.lstsq(np.stack([_standard(flat[name]) for name in varied], axis=1), y, rcond=None)[0]
    beside = dict(zip(varied, together.tolist(), strict=True))
    return {
        name: (float(spearmanr(y, flat[name]).statistic), beside[name]) if name in beside else (np.nan, np.nan)
        for name in flat
    }


def tenths(given: Float[Tensor, " tokens"], value: Float[Tensor, " tokens"]) -> Float[Tensor, " tenths"]:
    """The mean of `given` in each tenth of the tokens, sorted by `value` from its lowest to its highest."""
    order = value.flatten().argsort(stable=True)
    return torch.stack([given.flatten()[part].mean() for part in order.chunk(10)])


def tenth_effects(
    given: Float[Tensor, " tokens"], suspects: Mapping[str, Float[Tensor, " tokens"]]
) -> dict[str, tuple[float, float]]:
    """As `rank_effects`, with the tenths of each quantity as categories, so that a U counts as much as a line: the
    share of the variance of the ranks of `given` that a quantity explains alone, and what it adds to all others."""
    y = _standard(_column(given))
    columns = {name: _categories(value) for name, value in suspects.items()}

    def explained(names: Iterable[str]) -> float:
        table = np.concatenate([np.ones((len(y), 1)), *(columns[name] for name in names)], axis=1)
        return 1 - float(np.square(y - table @ np.linalg.lstsq(table, y, rcond=None)[0]).mean())

    whole = explained(columns)
    return {name: (explained([name]), whole - explained(columns.keys() - {name})) for name in columns}


def _categories(value: Tensor) -> np.ndarray:
    """(tokens, 10): 1 in the column of the tenth to which a token belongs, as in `tenths`."""
    table = torch.zeros(value.numel(), 10, dtype=torch.float64)
    for i, part in enumerate(value.flatten().argsort(stable=True).chunk(10)):
        table[part, i] = 1
    return table.numpy()


def _column(values: Tensor) -> np.ndarray:
    return values.detach().double().flatten().numpy()


def _standard(values: np.ndarray) -> np.ndarray:
    ranks = rankdata(values)
    return (ranks - ranks.mean()) / max(float(ranks.std()), 1e-12)
