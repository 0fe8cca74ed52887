"""What notebooks of the gallery share: a data set, differences over seeds, and the box with the verdict.

Each notebook states one claim of one paper, tries it at toy scale, and says what was found. The algorithm stands in the
notebook; the module of its family, `decoding` for decoding_speculative_jacobi.ipynb, has the check of its one exercise.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.files import ASSETS, read_asset
from sae_tutorial.evaluation.intervals import Interval

N_TEST = 297  # of the 1,797 digits


@dataclass(frozen=True, eq=False)
class Digits:
    """Images of 64 pixels, 0 to 1, row after row, and which digit each shows."""

    train: Float[Tensor, "1500 64"]
    test: Float[Tensor, "297 64"]
    train_label: Int[Tensor, " 1500"]
    test_label: Int[Tensor, " 297"]


def digits(seed: int = 0) -> Digits:
    """Handwritten digits of 8 × 8 pixels, of Alpaydin and Kaynak (1998). `seed` shuffles which are for testing."""
    kept = np.load(io.BytesIO(read_asset(ASSETS / "digits" / "digits.npz")))
    x, label = torch.from_numpy(kept["pixels"]).float() / 16, torch.from_numpy(kept["label"]).long()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    train, test = order[:-N_TEST], order[-N_TEST:]
    return Digits(x[train], x[test], label[train], label[test])


def paired(ours: Iterable[float], theirs: Iterable[float]) -> Interval:
    """The mean difference over seeds, ours less theirs, with its 95% interval. ValueError where they are not pairs."""
    return Interval.of([a - b for a, b in zip(ours, theirs, strict=True)])


def said(interval: Interval, digits: int = 2) -> str:
    """An interval in words: "5.2 [5.0, 5.4]"."""
    return f"{interval.mean:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


@dataclass(frozen=True)
class Verdict:
    """What a notebook ends with, as a table: the last line of its last code cell.

    claim    the paper's, in a sentence
    setting  ours: data, sizes, seeds
    number   what was measured, with its interval
    found    "holds", "holds when …" or "not seen here", and why that may be
    """

    claim: str
    setting: str
    number: str
    found: str

    def _repr_markdown_(self) -> str:
        rows = "\n".join(f"| **{name.capitalize()}** | {text} |" for name, text in vars(self).items())
        return f"| | |\n|---|---|\n{rows}"
