"""What part "gradient" of the grid says: SAEs that were trained with a strength β of the gradient, against β = 0."""

from __future__ import annotations

import torch

from sae_tutorial.course.results import Evidence
from sae_tutorial.evaluation.intervals import Interval, Ratio

RULES = {  # methods of the grid, by whose budget the matches compete for
    "gradient_choice": "Token Choice",
    "mutual_choice": "Mutual Choice",
    "feature_choice_zipf": "Feature Choice",
}


def betas(evidence: Evidence) -> list[float]:
    """Those that were trained, 0 first."""
    return sorted({row["beta"] for row in evidence.runs.where(part="gradient")})


def over_beta(evidence: Evidence, method: str, measure: str) -> dict[float, Ratio]:
    """How much more of the measure there is with each β than with 0, over seeds that both have, and rows of text."""
    found = {}
    for beta in betas(evidence)[1:]:
        with_it, without = (_seeds(evidence, method, one) for one in (beta, 0.0))
        seeds = [seed for seed in with_it if seed in without]
        if seeds:
            mine, theirs = (
                torch.stack([evidence.sums(measure, one[seed]) for seed in seeds]) for one in (with_it, without)
            )
            found[beta] = Ratio.of(mine, theirs)
    return found


def of_rows(evidence: Evidence, method: str, measure: str) -> dict[float, Interval]:
    """A measure that is one number for each SAE, by β, over seeds."""
    found = {}
    for beta in betas(evidence):
        rows = _seeds(evidence, method, beta)
        if rows:
            found[beta] = Interval.of(row[measure] for row in rows.values())
    return found


def relative(evidence: Evidence, method: str, measure: str) -> dict[float, Interval]:
    """The same over its value with β = 0 and the same seed, less 1."""
    without, found = _seeds(evidence, method, 0.0), {}
    for beta in betas(evidence)[1:]:
        pairs = [(row, without[seed]) for seed, row in _seeds(evidence, method, beta).items() if seed in without]
        if pairs:
            found[beta] = Interval.of(one[measure] / other[measure] - 1 for one, other in pairs)
    return found


def _seeds(evidence: Evidence, method: str, beta: float) -> dict[int, dict]:
    """Rows of one cell by their seed."""
    return {row["seed"]: row for row in evidence.runs.where(part="gradient", method=method, beta=beta)}
