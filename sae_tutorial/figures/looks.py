"""The colour and the mark of each method, the same in every figure."""

from __future__ import annotations

from sae_tutorial.figures.style import PALETTE, TEXT

# One colour and one marker for each rule or method, the same in every figure of the notebook.
LOOKS = {
    "ReLU + L1": (PALETTE[6], "x"),
    "Token Choice": (PALETTE[0], "circle"),
    "Mutual Choice": (PALETTE[1], "square"),
    "Mutual Choice, no help": (PALETTE[7], "square-open"),
    "Mutual Choice, aux_k": (PALETTE[1], "square"),
    "Mutual Choice, aux_zipf": (PALETTE[3], "diamond"),
    "Feature Choice": (PALETTE[2], "triangle-up"),
    "Feature Choice, Zipf": (PALETTE[2], "triangle-up"),
    "Feature Choice, uniform": (PALETTE[4], "triangle-down"),
}


def look(name: str) -> tuple[str, str]:
    """Colour and marker."""
    return LOOKS.get(name, (TEXT, "circle"))


def below() -> dict:
    return {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"}
