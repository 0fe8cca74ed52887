"""What the grid of `benchmarks/quality.py` found: one row per trained SAE, and what each row of text contributed.

    evidence = load_evidence()
    evidence.runs.where(part="main", k=32).summary("fvu")       {("token_choice", 4096, 32): Interval, …}
    evidence.ratio("error", "mutual_choice", "token_choice", part="main", k=16)      Ratio(mean=-0.02, low=…, …)

The grid is trained piece by piece, so everything here reports how many seeds it rests on.
"""

from __future__ import annotations

import io
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.activations.files import ASSETS, path_of, read_asset
from sae_tutorial.evaluation.intervals import Interval, Ratio
from sae_tutorial.figures.looks import NAMES

EVIDENCE = ASSETS / "evidence"
RUNS, ARRAYS, STABILITY = "runs.jsonl", "arrays.npz", "stability.jsonl"
# Of notebook 10, from `scripts/`; of 11; of 13 and 14; of transcoders; and of tasks.
EXPLAINED, COMPARED, SCORED = "explanations.jsonl", "directions.jsonl", "model_scores.jsonl"
LEFT_OUT, SIZES = "dark_matter.jsonl", "sizes.jsonl"
GATHERED, COUNTED = "attention_outputs.jsonl", "discrete_circuits.jsonl"
TRANSCODED, JUDGED = "transcoders.jsonl", "tasks.jsonl"
# What is summed over the tokens of each row of the text that was measured on: of a run, and of the text itself.
OF_A_RUN = ("error", "matches", "ce_spliced", "kl")
OF_A_TEXT = ("tokens", "predictions", "spread", "ce_clean", "ce_zero", "ce_mean", "kl_zero", "kl_mean")

CELL = ("method", "d_sae", "k")  # runs that agree in these differ only in their seed (within one part of the grid)


@dataclass(frozen=True)
class Runs:
    """Rows of the grid: dictionaries, as `benchmarks/quality.py` wrote them."""

    rows: tuple[dict[str, Any], ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __repr__(self) -> str:
        seeds = sorted({row["seed"] for row in self})
        return f"Runs({len(self)} SAEs, {len(self.cells())} cells, seeds {seeds})"

    def where(self, **fields: Any) -> Runs:
        """The rows that have all these values."""
        return Runs(tuple(row for row in self if all(row.get(name) == value for name, value in fields.items())))

    def cells(self) -> list[tuple]:
        """(method, d_sae, k) of the rows, methods in the order of `NAMES`."""
        found = {tuple(row[name] for name in CELL) for row in self}
        known = {method: place for place, method in enumerate(NAMES)}
        return sorted(found, key=lambda cell: (cell[1], cell[2], known.get(cell[0], len(known)), cell[0]))

    def values(self, measure: str, **fields: Any) -> dict[int, float]:
        """The measure of each seed. Raises ValueError if two rows share a seed: then `fields` do not name one cell."""
        found: dict[int, float] = {}
        for row in self.where(**fields):
            if row["seed"] in found:
                raise ValueError(
                    f"seed {row['seed']} comes twice for {fields}; name one cell (part, method, d_sae, k, …)"
                )
            found[row["seed"]] = float(row[measure])
        return found

    def summary(self, measure: str) -> dict[tuple, Interval]:
        """Mean and interval of each (method, d_sae, k), rows without a finite value left out."""
        found = {}
        for cell in self.cells():
            values = [v for v in self.values(measure, **dict(zip(CELL, cell))).values() if math.isfinite(v)]
            if values:
                found[cell] = Interval.of(values)
        return found


def load_runs(folder: Path | str | None = None) -> Runs:
    """All rows of the committed grid, or of the `runs.jsonl` in another folder.

    Raises FileNotFoundError, with the command that makes one, if that folder has none, and ValueError that names a
    damaged file and the remedy.
    """
    return _lines(*_read(RUNS, folder))


def file_name(model: str) -> str:
    """A model in names of files, which have no slash: it may be a folder, or one on the hub."""
    return model.replace("/", "--").strip("-")


def text_name(model: str, noise: float) -> str:
    """What the text that was measured on is called."""
    return f"{file_name(model)}-noise{noise:g}"


def _lines(path: Path | str, content: bytes) -> Runs:
    rows = []
    for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
        try:
            rows += [dict(json.loads(line))] if line.strip() else []
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: damaged ({error}); delete it, and train that SAE again") from None
    return Runs(tuple(rows))


def _arrays(path: Path | str, content: bytes) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(content)) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except Exception as error:  # numpy and zipfile notice damage in many ways
        raise ValueError(f"{path}: damaged ({error}); delete it, and train the grid again") from None


def _read(name: str, folder: Path | str | None) -> tuple[Path, bytes]:
    if folder in (None, EVIDENCE):
        return EVIDENCE / name, read_asset(EVIDENCE / name)
    path = path_of("folder", folder) / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; `python benchmarks/quality.py` trains the grid and writes it")
    return path, path.read_bytes()


@dataclass(frozen=True)
class Evidence:
    """The runs of `benchmarks/quality.py` with what each row of the text contributed to their measures. `stability` has
    a row for two seeds of a cell: "mutual", the share of features that are each other's nearest in the two
    dictionaries, with a cosine of 0.7 or more, and "mmcs", the mean best cosine.

    Measures are "error" (what FVU counts), "kl", and "lost": nats of loss more than without the SAE.
    """

    runs: Runs
    arrays: dict[str, np.ndarray]
    stability: Runs

    def where(self, **fields: Any) -> Evidence:
        return Evidence(self.runs.where(**fields), self.arrays, self.stability)

    def sums(self, measure: str, row: dict[str, Any], lines: slice | Tensor = slice(None)) -> Float[Tensor, " rows"]:
        """The measure of one run, summed over the tokens of each row of text, or of these (a slice, or a mask)."""
        of_run = self._named(OF_A_RUN, f"{row['key']}/rows")
        found = of_run["ce_spliced"] - self.text(row)["ce_clean"] if measure == "lost" else of_run[measure]
        return found[lines]

    def text(self, row: dict[str, Any]) -> dict[str, Float[Tensor, " rows"]]:
        """What this run's text is without an SAE: OF_A_TEXT by name."""
        return self._named(OF_A_TEXT, text_name(row["model"], row["noise"]) + "/text")

    def density(self, row: dict[str, Any]) -> Float[np.ndarray, " features"] | None:
        """How often the features match, the most frequent first; kept of seed 0."""
        return self.arrays.get(f"{row['key']}/density")

    def table(self, measure: str, method: str, **fields: Any) -> Float[Tensor, "seeds rows"]:
        """`sums` of each seed of one cell, in their order."""
        return torch.stack([self.sums(measure, row) for _, row in sorted(self._by_seed(method, **fields).items())])

    def ratio(
        self, measure: str, method: str, other: str, lines: slice | Tensor = slice(None), **fields: Any
    ) -> Ratio | None:
        """How much more `method` has of the measure than `other`, over seeds that both have and rows of text, all or
        those in `lines`; None if they share no seed. Raises ValueError where two runs of a method share a seed: name
        one cell."""
        return self.between(measure, {"method": method} | fields, {"method": other} | fields, lines)

    def between(
        self, measure: str, cell: Mapping[str, Any], other: Mapping[str, Any], lines: slice | Tensor = slice(None)
    ) -> Ratio | None:
        """`ratio` for two cells that may differ in other fields than their method."""
        mine, theirs = (self._by_seed(**fields) for fields in (cell, other))
        shared = sorted(mine.keys() & theirs.keys())
        if not shared:
            return None
        a, b = (torch.stack([self.sums(measure, one[seed], lines) for seed in shared]) for one in (mine, theirs))
        return Ratio.of(a, b)

    def ratios(
        self,
        measures: Iterable[str],
        methods: Iterable[str],
        other: str,
        settings: Mapping[str, Mapping[str, Any]],
        lines: Mapping[str, slice | Tensor] | None = None,
    ) -> dict[tuple[str, str, str], Ratio]:
        """`ratio` of each method to `other`, by measure, method and setting (a name -> fields of its rows), in this
        order. What was not trained is left out. A setting that `lines` names is read on these rows of text alone."""
        found = {}
        for m, name, setting in itertools.product(measures, methods, settings):
            of_text = (lines or {}).get(setting, slice(None))
            found[m, name, setting] = self.ratio(m, name, other, of_text, **settings[setting])
        return {key: ratio for key, ratio in found.items() if ratio is not None}

    def _by_seed(self, method: str, **fields: Any) -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        for row in (row for row in self.runs.where(method=method, **fields) if f"{row['key']}/rows" in self.arrays):
            if found.setdefault(row["seed"], row) is not row:
                raise ValueError(f"seed {row['seed']} comes twice for {method}, {fields}; name one cell (part, k, …)")
        return found

    def _named(self, names: tuple[str, ...], key: str) -> dict[str, Tensor]:
        return dict(zip(names, torch.from_numpy(self.arrays[key]).double()))


def load_evidence(folder: Path | str | None = None) -> Evidence:
    """What the package ships, or what `benchmarks/quality.py --ship` wrote to another folder. Raises what `load_runs`
    raises."""
    return Evidence(load_runs(folder), _arrays(*_read(ARRAYS, folder)), _lines(*_read(STABILITY, folder)))


def load_explanations(folder: Path | str | None = None) -> tuple[dict[str, Any], ...]:
    """What `scripts/explain_by_smollm2.py` found, a row for each feature. Raises what `load_runs` raises."""
    return tuple(_lines(*_read(EXPLAINED, folder)))


def load_directions(folder: Path | str | None = None) -> tuple[dict[str, Any], ...]:
    """What `scripts/compare_directions.py` found on SmolLM2, a row for each kind. Raises what `load_runs` raises."""
    return tuple(_lines(*_read(COMPARED, folder)))


def load_model_scores(folder: Path | str | None = None) -> tuple[dict[str, Any], ...]:
    """What `scripts/score_by_smollm2.py` found, a row for each feature. Raises what `load_runs` raises."""
    return tuple(_lines(*_read(SCORED, folder)))


def load_dark_matter(folder: Path | str | None = None) -> tuple[dict[str, Any], ...]:
    """What `scripts/dark_matter.py` found, a row for each SAE and one for each seed. Raises what `load_runs` raises."""
    return tuple(_lines(*_read(LEFT_OUT, folder)))


def load_attention_outputs(folder: Path | str | None = None) -> tuple[dict[str, Any], ...]:
    """What `scripts/attention_outputs.py` found, a row for each SAE and one for each model's heads. Raises what
    `load_runs` raises."""
    return tuple(_lines(*_read(GATHERED, folder)))


def load_sizes(folder: Path | str | None = None) -> tuple[dict[str, Any], ...]:
    """What `scripts/size_by_stability.py` found, a row for each size of SAE. Raises what `load_runs` raises."""
    return tuple(_lines(*_read(SIZES, folder)))


def load_discrete_circuits(folder: Path | str | None = None) -> tuple[dict[str, Any], ...]:
    """What `scripts/discrete_circuits.py` found: each task's circuit, a row for each trial and number of examples, and
    seconds. Raises what `load_runs` raises."""
    return tuple(_lines(*_read(COUNTED, folder)))


def load_transcoders(folder: Path | str | None = None) -> tuple[dict[str, Any], ...]:
    """What `scripts/transcoders.py` found, a row for each transcoder or SAE of an MLP, and one for each kind and seed
    with all MLPs replaced. Raises what `load_runs` raises."""
    return tuple(_lines(*_read(TRANSCODED, folder)))


def load_judged(folder: Path | str | None = None) -> tuple[dict[str, Any], ...]:
    """What `benchmarks/tasks.py` found, a row for each SAE, and for what SAEs are compared with. Raises what
    `load_runs` raises."""
    return tuple(_lines(*_read(JUDGED, folder)))
