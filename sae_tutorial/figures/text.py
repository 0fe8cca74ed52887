"""How tokens and numbers are written in figures."""

from __future__ import annotations

import numpy as np
from torch import Tensor


def label(token: str) -> str:
    """A token as figures show it: a dot for a space, an arrow for a line break."""
    return token.replace(" ", "·").replace("\n", "↵").replace("<|endoftext|>", "⟨end⟩")


def floats(values: Tensor, digits: int = 4) -> list:
    """Rounded plain numbers: a stored figure need not carry sixteen digits."""
    return (values.detach().cpu().double() * 10**digits).round().div(10**digits).tolist()


def packed(values: Tensor) -> np.ndarray:
    """A numpy array, which plotly stores as bytes: for maps, where plain numbers would fill a notebook."""
    return values.detach().cpu().float().numpy()


def on(colour: str) -> str:
    """Near black or white, whichever reads better on `colour`."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#111111" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "#FFFFFF"
