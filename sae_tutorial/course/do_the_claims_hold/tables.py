"""What the tables of the notebook hold: the grid's contents, its rules side by side, dead features, random rows."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from sae_tutorial.course.results import Evidence
from sae_tutorial.figures.looks import NAMES
from sae_tutorial.figures.tables import Table

# Measures of a run under the names of the table, and how they are written.
MEASURES = {
    "FVU": ("fvu", ".4f"),
    "L0": ("l0", ".1f"),
    "KL": ("kl", ".4f"),
    "CE recovered": ("recovered", ".2%"),
    "dead": ("dead", ".1%"),
    "rare": ("rare", ".1%"),
    "spread": ("l0_std", ".1f"),
}


def parts(evidence: Evidence) -> Table:
    """What was trained: a row for each part of the grid, sweeps of the learning rate left out."""
    trained = [row for row in evidence.runs if "kl" in row]
    by_part: dict[tuple, list[dict[str, Any]]] = {}
    for row in trained:
        by_part.setdefault((row["part"], row["model"], row["d_sae"], row["steps"]), []).append(row)
    rows = []
    for (part, model, d_sae, steps), runs in by_part.items():
        budgets = ", ".join(str(k) for k in sorted({row["k"] for row in runs}))
        noise = ", ".join(f"{share:.0%}" for share in sorted({row["noise"] for row in runs}))
        rows.append((part, model, d_sae, steps, noise, budgets, max(row["n_tokens"] for row in runs), len(runs)))
    return Table(["part", "model", "features", "steps", "random rows", "k", "tokens measured on", "SAEs"], rows)


def shared(evidence: Evidence, **fields: Any) -> float | None:
    """Mean over pairs of seeds of the share of features that they have in common; None without a pair."""
    pairs = [row["mutual"] for row in evidence.stability.where(**fields)]
    return sum(pairs) / len(pairs) if pairs else None


def shared_of_live(evidence: Evidence, **fields: Any) -> float | None:
    """`shared` of the features that fire in the last tokens of training, more text than is held out: what never fires
    cannot be found again, and a rule with many dead features is not worse at finding the others. None without a pair.
    Of SAEs whose training the grid did not see, those that fire on held-out text.
    """
    runs = evidence.runs.where(**fields)
    share, dead = shared(evidence, **fields), [row.get("train_dead", row["dead"]) for row in runs]
    return None if share is None or not dead else share / (1 - sum(dead) / len(dead))


def rules(evidence: Evidence, **fields: Any) -> dict[str, dict[str, float | None]]:
    """MEASURES of each rule of one cell of the grid, means over its seeds, and how many these are: least error first.
    "shared" is what two seeds have in common."""
    here = evidence.runs.where(**fields)
    summaries = {name: here.summary(key) for name, (key, _) in MEASURES.items()}
    found: dict[str, dict[str, float | None]] = {}
    for cell in sorted(here.cells(), key=lambda cell: summaries["FVU"][cell].mean):
        found[NAMES[cell[0]]] = {name: of[cell].mean for name, of in summaries.items()}
        agree, seeds = shared(evidence, method=cell[0], **fields), summaries["FVU"][cell].n
        found[NAMES[cell[0]]] |= {"shared": agree, "seeds": seeds}
    return found


def of_rules(found: Mapping[str, Mapping[str, float | None]], folded: str = "") -> Table:
    """`rules`, as a table, folded under a line if there is one."""
    forms = {name: form for name, (_, form) in MEASURES.items()} | {"shared": ".0%", "seeds": "d"}

    def written(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    rows = [(name, *(written(one[column], form) for column, form in forms.items())) for name, one in found.items()]
    return Table(["rule", *forms], rows, folded)


def most_dead(
    evidence: Evidence, settings: Mapping[str, Mapping[str, Any]], methods: Sequence[str], measure: str = "dead"
) -> dict[tuple[str, str], float]:
    """The share of dead features by setting and method, the largest of the seeds: on held-out text, or with
    "train_dead" at the end of training. What was not trained is left out."""
    found = {}
    for (name, fields), method in itertools.product(settings.items(), methods):
        shares = [row[measure] for row in evidence.runs.where(method=method, **fields) if measure in row]
        if shares:
            found[name, method] = max(shares)
    return found


def crossed(found: Mapping[tuple[str, str], float], corner: str, form: str = ".1%") -> Table:
    """Values by (row, method) as a table with a column for each method; "–" where one is not there."""
    names, methods = (list(dict.fromkeys(key[i] for key in found)) for i in (0, 1))

    def cell(name: str, method: str) -> str:
        return format(found[name, method], form) if (name, method) in found else "–"

    rows = [(name, *(cell(name, method) for method in methods)) for name in names]
    return Table([corner, *(NAMES.get(method, method) for method in methods)], rows)


def of_shared(evidence: Evidence, methods: Sequence[str], settings: Mapping[str, Mapping[str, Any]]) -> Table:
    """What two seeds have in common, a row for each method: the share of all features, and in brackets of those that
    fire. "–" without a pair; settings in which no method has one are left out."""

    def cell(method: str, fields: Mapping[str, Any]) -> str:
        of_all, of_live = (share(evidence, method=method, **fields) for share in (shared, shared_of_live))
        return "–" if of_all is None or of_live is None else f"{of_all:.0%} ({of_live:.0%})"

    columns = {name: [cell(method, fields) for method in methods] for name, fields in settings.items()}
    columns = {name: cells for name, cells in columns.items() if set(cells) != {"–"}}
    rows = [(NAMES[method], *cells) for method, *cells in zip(methods, *columns.values())]
    return Table(["shared by two seeds (of live)", *columns], rows)


def recovered(
    evidence: Evidence, methods: tuple[str, str], fields: Mapping[str, Any], measure: str = "recovered"
) -> tuple[float, float]:
    """The loss recovered by two methods, means over the seeds that both have; "recovered_mean" counts from the mean."""
    one, other = (evidence.runs.values(measure, method=method, **fields) for method in methods)
    seeds = one.keys() & other.keys()
    return sum(one[seed] for seed in seeds) / len(seeds), sum(other[seed] for seed in seeds) / len(seeds)


def random_rows(
    evidence: Evidence, methods: Sequence[str], text: slice, random: slice
) -> dict[tuple, dict[str, float]]:
    """By share of random rows in training and method: features per token on rows of text and on random rows, and the
    error against Token Choice on either and on all, with its seeds. What was trained without random rows was measured
    without, too."""
    trained = sorted({row["noise"] for row in evidence.runs.where(part="noise")})
    places = {0.0: {"part": "main", "model": "stories", "k": 32}}
    places |= {noise: {"part": "noise", "noise": noise, "k": 32} for noise in trained}
    found: dict[tuple, dict[str, float]] = {}
    for (noise, fields), method in itertools.product(places.items(), methods):
        matches = evidence.table("matches", method, **fields).mean(dim=0) / 255  # tokens of a row, BOS left out
        parts = {"text": text, "random rows": random, "all rows": slice(None)} if noise else {"text": text}
        one = {f"L0 on {name}": float(matches[lines].mean()) for name, lines in parts.items()}
        for name, lines in parts.items():
            ratio = evidence.ratio("error", method, "token_choice", lines, **fields)
            one[f"error on {name}"] = ratio.mean if ratio else float("nan")
            one["seeds"] = ratio.seeds if ratio else 0
        found[noise, method] = one
    return found


RANDOM_ROWS = {
    "L0 on text": ".1f",
    "L0 on random rows": ".1f",
    "error on text": "+.1%",
    "error on random rows": "+.1%",
    "error on all rows": "+.1%",
    "seeds": ".0f",
}


def of_random_rows(found: Mapping[tuple, Mapping[str, float]]) -> Table:
    """`random_rows`, as a table."""
    rows = [
        (f"{noise:.0%}", NAMES[method], *(format(one[m], form) if m in one else "–" for m, form in RANDOM_ROWS.items()))
        for (noise, method), one in found.items()
    ]
    return Table(["random in training", "k = 32; error is against Token Choice", *RANDOM_ROWS], rows)
