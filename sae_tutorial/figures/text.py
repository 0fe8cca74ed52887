"""How tokens, text and numbers are written in figures. Plotly reads a little HTML: what a model or a reader wrote is
escaped before it becomes a label."""

from __future__ import annotations

import math
import re
from html import unescape
from typing import Any

import numpy as np
from torch import Tensor

from sae_tutorial.evaluation.contexts import Context

# Widths of Arial's letters in parts of their size; what is not listed is as wide as a digit.
WIDTHS = {"ijl'|": 0.24, " !,./:;fItr()-[]·": 0.3, "cksvxyzJ": 0.5, "ABEKPSVXY&CDHNRUwGOQ": 0.7, "mMW%@—…": 0.9}


def visible(token: str) -> str:
    """A token with what cannot be seen: a dot for a space, an arrow for a line break."""
    return token.replace(" ", "·").replace("\n", "↵").replace("<|endoftext|>", "⟨end⟩")


def plain(text: str) -> str:
    """Text as plotly shows it letter by letter: neither HTML nor LaTeX."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")


def label(token: str) -> str:
    """A token as a label in a figure: what cannot be seen is made visible, and nothing in it is read as HTML."""
    return plain(visible(token))


def quoted(token: str) -> str:
    """A token as a word in a title, in quotation marks."""
    return f"“{label(token.strip() or token)}”"


def before(context: Context, width: int = 40) -> str:
    """The words before the token, at most `width` characters of them, and the token in bold."""
    text = _one_line(context.before)
    if len(text) > width:
        text = "… " + text[-width:].partition(" ")[2]
    gap = " " if context.token.startswith(" ") or not context.before[-1:].strip() else ""
    return f"{plain(text)}{gap}<b>{label(context.token.strip() or context.token)}</b>"


def after(context: Context, width: int = 40) -> str:
    """The words after the token, cut between words to at most `width` characters."""
    text = _one_line(context.after)
    if len(text) > width:
        kept = text[: max(0, width - 2)].rpartition(" ")[0]
        text = f"{kept} …" if kept else ""
    return plain(text)


def _one_line(text: str) -> str:
    """Without line breaks and broken characters, and with a bar where one story ends and another begins."""
    lead = " " if text[:1].isspace() else ""
    return lead + " ".join(text.replace("<|endoftext|>", " | ").replace("\ufffd", "").split())


def numbers(values: Any, digits: int = 5) -> Any:
    """(Nested) lists of plain numbers with this many significant digits, which is what a stored figure needs.

    Takes tensors, arrays, lists or a number. NaN and inf become None, which plotly leaves out; text stays as it is.
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu().tolist()
    if isinstance(values, np.ndarray | np.generic):
        values = values.tolist()
    if isinstance(values, bool | int | str) or values is None:
        return values
    if isinstance(values, float):
        return float(f"{values:.{digits}g}") if math.isfinite(values) else None
    return [numbers(value, digits) for value in values]


def packed(values: Any) -> np.ndarray:
    """A numpy array, which plotly stores as bytes: for maps, where plain numbers would fill a notebook."""
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float32)


def on(colour: str) -> str:
    """Near black or white, whichever reads better on `colour`."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#111111" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "#FFFFFF"


def width_of(text: str, size: float) -> float:
    """About how many px wide `text` is in Arial of this size; tags have no width."""
    letters = unescape(re.sub(r"<[^>]+>", "", text))
    return size * sum(next((width for group, width in WIDTHS.items() if c in group), 0.56) for c in letters)


def wrap(text: str, room: float, size: float) -> str:
    """Break `text` into lines of at most `room` px, joined by plotly's `<br>`; breaks that are there stay.

    There are as few lines as possible, and the last one is no orphan: at least a third as long as there is room, if
    that can be.
    """
    return "<br>".join("<br>".join(_lines(paragraph.split(), room, size)) for paragraph in text.split("<br>"))


def _lines(words: list[str], room: float, size: float) -> list[str]:
    fewest = _filled(words, room, size)
    narrower = (_filled(words, part * room, size) for part in (1, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5))
    as_few = [lines for lines in narrower if len(lines) == len(fewest)]
    whole = [lines for lines in as_few if len(lines) == 1 or width_of(lines[-1], size) > 0.35 * room]
    return whole[0] if whole else max(as_few, key=lambda lines: width_of(lines[-1], size))


def _filled(words: list[str], room: float, size: float) -> list[str]:
    lines = [""]
    for word in words:
        if lines[-1] and width_of(f"{lines[-1]} {word}", size) > room:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
