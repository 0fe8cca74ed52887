"""What part "gradient" of the grid says: SAEs that were trained with a strength β of the gradient, against β = 0."""

from __future__ import annotations

from typing import Any

from sae_tutorial.course.results import Evidence
from sae_tutorial.evaluation.intervals import Interval, Ratio

RULES = {  # methods of the grid, by whose budget the matches compete for
    "gradient_choice": "Gradient Choice",  # with β = 0 Token Choice
    "mutual_choice": "Mutual Choice",
    "feature_choice_zipf": "Feature Choice",
}


def cell(method: str, beta: float) -> dict[str, Any]:
    """The fields that name one cell of that part, of the embedded model."""
    return {"part": "gradient", "model": "stories", "method": method, "beta": beta}


def betas(evidence: Evidence) -> list[float]:
    """Those that were trained, 0 first."""
    return sorted({row["beta"] for row in evidence.runs.where(part="gradient", model="stories")})


def over_beta(evidence: Evidence, method: str, measure: str) -> dict[float, Ratio]:
    """How much more of the measure there is with each β than with 0, over seeds that both have, and rows of text."""
    found = {beta: evidence.between(measure, cell(method, beta), cell(method, 0.0)) for beta in betas(evidence)[1:]}
    return {beta: ratio for beta, ratio in found.items() if ratio is not None}


def on_smollm2(evidence: Evidence, measure: str) -> Ratio | None:
    """How much more of the measure Gradient Choice has in SmolLM2, with β = 1, than Token Choice of the same size: each
    at its own learning rate, over seeds and rows of text. None where it was not trained."""
    with_it = {"part": "gradient", "model": "smollm2", "method": "gradient_choice", "beta": 1.0}
    return evidence.between(measure, with_it, {"part": "smollm2", "method": "token_choice", "k": 32})


def of_rows(evidence: Evidence, method: str, measure: str) -> dict[float, Interval]:
    """A measure that is one number for each SAE, by β, over seeds."""
    found = {beta: evidence.runs.values(measure, **cell(method, beta)).values() for beta in betas(evidence)}
    return {beta: Interval.of(values) for beta, values in found.items() if values}


def relative(evidence: Evidence, method: str, measure: str) -> dict[float, Interval]:
    """The same over its value with β = 0 and the same seed, less 1."""
    without, found = evidence.runs.values(measure, **cell(method, 0.0)), {}
    for beta in betas(evidence)[1:]:
        with_it = evidence.runs.values(measure, **cell(method, beta))
        shared = [with_it[seed] / without[seed] - 1 for seed in with_it.keys() & without.keys()]
        if shared:
            found[beta] = Interval.of(shared)
    return found
