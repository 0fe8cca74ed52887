"""Drawings of notebook 05: three rules on one small table of affinities, and the same rules as thresholds."""

from __future__ import annotations

import torch
from torch import Tensor

from sae_tutorial.allocation import feature_choice, mutual_choice, token_choice
from sae_tutorial.figures.drawings import INK, Drawing
from sae_tutorial.figures.looks import look

TOKENS = ("the", "kangaroo", "hopped", "away", ".")
# Made up so that the three rules differ, no two affinities tie at a cut, and one feature has weak affinities only.
AFFINITIES = torch.tensor(
    [[9, 1, 0, 0, 0], [0, 8, 7, 6, 2], [0, 6, 0, 7, 1], [3, 5, 4, 2, 0], [6, 0, 1, 0, 0]], dtype=torch.float32
)
BUDGET = 2  # matches per token, and with as many features as tokens also per feature
RULES = {"Token Choice": "2 in every row", "Mutual Choice": "the 10 largest", "Feature Choice": "2 in every column"}


def codes() -> dict[str, Tensor]:
    """The small table filled by each rule, (5 tokens, 5 features)."""
    filled = {
        "Token Choice": token_choice(AFFINITIES, BUDGET),
        "Mutual Choice": mutual_choice(AFFINITIES, BUDGET * len(TOKENS)),
        "Feature Choice": feature_choice(AFFINITIES, BUDGET),
    }
    return {name: one.to_dense() for name, one in filled.items()}


def three_rules() -> Drawing:
    """The same table of affinities three times; coloured cells are the ten matches of a rule."""
    alt = (
        "A table of affinities, five tokens down and five features across, filled by three rules with ten matches each."
        " Token Choice takes two in every row, Feature Choice two in every column, Mutual Choice the ten largest."
    )
    drawing, side = Drawing(620, 254, alt), 30
    drawing.text(66, 58, "feature", size=12, anchor="end")
    for i, token in enumerate(TOKENS):
        drawing.text(66, 93 + i * side, token, anchor="end")
    for place, (name, code) in enumerate(codes().items()):
        x, colour = 74 + 184 * place, look(name).colour
        drawing.text(x + 75, 14, name, bold=True).text(x + 75, 33, RULES[name], size=12)
        taken = {(i, j): colour for i, j in (code > 0).nonzero().tolist()}
        written = [[f"{value:.0f}" if value else "" for value in row] for row in AFFINITIES.tolist()]
        drawing.table(x, 79, written, cell=(side, side), fills=taken)
        for i, (row, column) in enumerate(zip((code > 0).sum(1).tolist(), (code > 0).sum(0).tolist(), strict=True)):
            drawing.text(x + 14 + i * side, 58, str(i + 1), size=12)
            drawing.text(x + 158, 93 + i * side, str(row), size=12, bold=True)
            drawing.text(x + 14 + i * side, 240, str(column), size=12, bold=True)
    return drawing.text(66, 240, "matches", size=12, anchor="end")


def thresholds() -> Drawing:
    """Each rule as thresholds: dots are affinities along a line, filled where they are above the threshold."""
    alt = (
        "Three panels in which each row is a scale of affinities. Token Choice has a threshold for each token, Feature"
        " Choice one for each feature, Mutual Choice a single one. Filled dots, right of the threshold, are matches."
    )
    drawing, starts, tables = Drawing(620, 250, alt), (78, 262, 466), codes()
    for place, (name, told) in enumerate(
        {"Token Choice": "one per token", "Mutual Choice": "one for all", "Feature Choice": "one per feature"}.items()
    ):
        x, colour = starts[place], look(name).colour
        by_feature = name == "Feature Choice"
        z, chosen = (AFFINITIES.T, tables[name].T > 0) if by_feature else (AFFINITIES, tables[name] > 0)
        drawing.text(x + 68, 14, name, bold=True).text(x + 68, 33, told, size=12)
        cuts = between(z, chosen) if name != "Mutual Choice" else between(z.view(1, -1), chosen.view(1, -1)) * len(z)
        for i, (values, kept, cut) in enumerate(zip(z.tolist(), chosen.tolist(), cuts, strict=True)):
            y = 66 + 34 * i
            label = f"feature {i + 1}" if by_feature else TOKENS[i]
            if name != "Mutual Choice":
                drawing.text(x - 8, y, label, anchor="end", size=12)
                drawing.line([(x + 15 * cut, y - 12), (x + 15 * cut, y + 12)], colour, width=2.5)
            drawing.line([(x, y), (x + 142, y)], width=0.6)
            for value, match in zip(values, kept, strict=True):
                if value:
                    drawing.dot(x + 15 * value, y, 4.5, colour if match else INK, open=not match)
        if name == "Mutual Choice":
            drawing.line([(x + 15 * cuts[0], 50), (x + 15 * cuts[0], 216)], colour, width=2.5)
        drawing.arrow(x, 230, x + 142, 230)
    return drawing.text(starts[0] - 8, 230, "affinity", anchor="end", size=12)


def between(z: Tensor, chosen: Tensor) -> list[float]:
    """For each row a threshold halfway between the weakest match and the strongest affinity that is none."""
    weakest = z.masked_fill(~chosen, torch.inf).amin(1)
    strongest = z.masked_fill(chosen, 0).amax(1)
    return ((weakest + strongest) / 2).tolist()
