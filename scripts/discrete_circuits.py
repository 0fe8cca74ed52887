"""Circuits found by codes of heads' outputs, and by rivals, ten trials each: the rows of notebook 14.

    python scripts/discrete_circuits.py           one line for each task, trial and number of examples, in the cache;
                                                  goes on where it stopped
    python scripts/discrete_circuits.py --ship    puts them into the package

A trial has prompts, and a start of the SAE, of its own; the circuit of a task is measured once, on other prompts.
Seconds are those of one processor, so that they do not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import kept_lines
import torch

from sae_tutorial import load_language_model
from sae_tutorial.activations.files import cache_folder
from sae_tutorial.circuits.discrete import L1, codes_of, different, expected_scores, fit, node_scores, untrained
from sae_tutorial.circuits.edges import edge_attribution, greedy_removal
from sae_tutorial.circuits.feature_patching import divergence
from sae_tutorial.circuits.patching import Site, all_heads, path_patch
from sae_tutorial.circuits.prompts import end_logits
from sae_tutorial.course.discrete_circuits import study, tasks
from sae_tutorial.course.discrete_circuits.tasks import TASKS, Task
from sae_tutorial.course.results import COUNTED

MODEL, EXAMPLES, N_CIRCUIT, N_PATHS = "stories", (10, 5, 20), 48, 24
CIRCUIT_SEED, TRIAL_SEED, FRESH_SEED = 123, 1_000, 5_000
COUNTED_ON = 250  # prompts of either kind, in the setting of the paper's code
THRESHOLD, SLOW = 0.05, "indirect object"  # of ACDC, nats; it takes minutes, so it is timed on one task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--examples", type=int, nargs="+", default=EXAMPLES)
    parser.add_argument("--few", type=int, default=5, help="trials of what is only tried beside")
    parser.add_argument("--out", type=Path, default=cache_folder("discrete-circuits"))
    parser.add_argument("--ship", action="store_true")
    args = parser.parse_args()
    kept = args.out / COUNTED
    if args.ship:
        return kept_lines.ship(kept)
    torch.set_grad_enabled(False)
    model = load_language_model(MODEL)
    for name, make in TASKS.items():
        if f"{name}-circuit" not in kept_lines.done(kept, "key"):
            found = circuit(model, make)
            rows = {what: values.double().round(decimals=4).tolist() for what, values in found.items()}
            kept_lines.add(kept, {"key": f"{name}-circuit", "model": MODEL, "circuit": name} | rows)
    circuits = {row["circuit"]: row for row in map(json.loads, kept.read_text().splitlines()) if "circuit" in row}
    for n in args.examples:  # ten of each kind first
        for trial, name in itertools.product(range(args.trials), TASKS):
            if f"{name}-{trial}-{n}" not in kept_lines.done(kept, "key"):
                about = {"key": f"{name}-{trial}-{n}", "model": MODEL, "task": name, "trial": trial, "n": n}
                kept_lines.add(kept, about | measured(model, TASKS[name], n, trial, circuits[name]))
        if n == args.examples[0]:
            timed(model, kept)
    for trial, name in itertools.product(range(args.few), TASKS):
        if f"{name}-{trial}-averaged" not in kept_lines.done(kept, "key"):
            about = {"key": f"{name}-{trial}-averaged", "model": MODEL, "averaged": name, "trial": trial}
            kept_lines.add(kept, about | averaged(model, TASKS[name], trial, circuits[name]))
        if f"{name}-{trial}-varied" not in kept_lines.done(kept, "key"):
            about = {"key": f"{name}-{trial}-varied", "model": MODEL, "varied": name, "trial": trial}
            kept_lines.add(kept, about | varied(model, TASKS[name], trial, circuits[name]))
    for trial, name in itertools.product(range(args.trials), TASKS):
        if f"{name}-{trial}-source" not in kept_lines.done(kept, "key"):
            about = {"key": f"{name}-{trial}-source", "model": MODEL, "source": name, "trial": trial}
            kept_lines.add(kept, about | as_in_the_source(model, TASKS[name], trial, circuits[name]))


def timed(model: Any, kept: Path) -> None:
    for name in TASKS:
        if f"{name}-seconds" not in kept_lines.done(kept, "key"):
            found = seconds(model, name)
            kept_lines.add(kept, {"key": f"{name}-seconds", "model": MODEL, "timed": name, "seconds": found})


def circuit(model: Any, make: Callable[..., Task]) -> dict[str, torch.Tensor]:
    """What patching each head costs at END, and everywhere; and each path between heads that cost enough everywhere."""
    task, few = make(model, N_CIRCUIT, CIRCUIT_SEED), make(model, N_PATHS, CIRCUIT_SEED)
    end, everywhere = tasks.patched(model, task), tasks.patched(model, task, None)
    some = [head for head, matters in zip(all_heads(model), tasks.members(everywhere).tolist()) if matters]
    return {"end": end, "everywhere": everywhere, "paths": tasks.paths(model, few, some)}


def measured(model: Any, make: Callable[..., Task], n: int, trial: int, circuit: dict[str, Any]) -> dict[str, Any]:
    task, other = make(model, n, TRIAL_SEED + trial), make(model, n, FRESH_SEED + trial)
    read = study.Read.of(model, task, trial)
    scores, edges = study.head_scores(model, task, read, other, trial), study.edge_scores(read.codes, read.positive)
    at_random = study.labels_at_random(2 * n, n, trial)
    by_codes = partial(node_scores, read.codes)
    found: dict[str, Any] = {}
    end, everywhere = (tasks.members(torch.tensor(circuit[where])) for where in ("end", "everywhere"))
    found["nodes"] = study.table_of(scores, end)
    found["nodes"][study.SHUFFLED] = study.area_over(by_codes, at_random, end)
    found["everywhere"] = study.table_of(scores, everywhere)
    for least in (0.02, 0.05):
        found[f"nodes, {least}"] = study.table_of(scores, tasks.members(torch.tensor(circuit["end"]), least))
    right = tasks.members(study.of_pairs(model, torch.tensor(circuit["paths"])))
    lists = {name: study.of_pairs(model, table) for name, table in edges.items()}
    found["edges"] = study.table_of(lists, right)
    if n == EXAMPLES[0]:  # head by head and point by point only there, to keep the file small
        swapped, by_means = study.labels_swapped(n, trial), partial(study.mean_difference, model, read.outputs)
        found["nodes"][study.SWAPPED] = study.area_over(by_codes, swapped, end)
        found["nodes"][study.MEAN_SHUFFLED] = study.area_over(by_means, at_random, end)
        found["nodes"][study.MEAN_SWAPPED] = study.area_over(by_means, swapped, end)
        scores[study.SPREAD] = study.spread(model, read.outputs)
        found["nodes"][study.SPREAD] = study.area(scores[study.SPREAD], end)
        more = study.read(model, other)[0]
        again = codes_of(untrained(read.outputs, seed=trial), more)
        found["same kind"] = study.table_of(study.same_kind(read.at_random, again, n), end)
        kinds = {"positives": slice(n), "negatives": slice(n, 2 * n)}
        within = {
            kind: study.spread(model, torch.cat([x[at] for x in (read.outputs, more)])) for kind, at in kinds.items()
        }
        found["spread of a kind"] = study.table_of(within, end)
        found["scores"] = {name: rounded(values) for name, values in scores.items()}
        found["different"] = rounded(different(read.codes))
        found["curves"] = {
            "nodes": {name: rounded(study.curve(scores[name], end)) for name in (study.SAE, study.CHANCE)},
            "edges": {name: rounded(study.curve(lists[name], right)) for name in (study.SAE, study.CHANCE)},
        }
    return found


def averaged(model: Any, make: Callable[..., Task], trial: int, circuit: dict[str, Any]) -> dict[str, Any]:
    """Areas for the circuit at all positions, of outputs that are averaged over them."""
    means = study.Read.of(model, make(model, 10, TRIAL_SEED + trial), trial, None)
    scores = {study.SAE: node_scores(means.codes, means.positive)}
    scores[study.MEAN] = study.mean_difference(model, means.outputs, means.positive)
    return {"nodes": study.table_of(scores, tasks.members(torch.tensor(circuit["everywhere"])))}


def varied(model: Any, make: Callable[..., Task], trial: int, circuit: dict[str, Any]) -> dict[str, Any]:
    """Areas with stronger penalties, and with each head centred and scaled by itself."""
    outputs, positive = study.read(model, make(model, 10, TRIAL_SEED + trial))
    own = outputs - outputs.mean(0)
    own = own / own.square().mean((0, 2), keepdim=True).sqrt()
    end, found = tasks.members(torch.tensor(circuit["end"])), {}
    for name, acts, l1 in (("l1 = 1", outputs, 1.0), ("l1 = 5", outputs, 5.0), ("each head scaled", own, L1)):
        sae = untrained(acts, seed=trial)
        scores = {study.RANDOM: node_scores(codes_of(sae, acts), positive)}
        codes = codes_of(fit(sae, acts, l1=l1), acts)
        scores |= {study.SAE: node_scores(codes, positive), study.CHANCE: expected_scores(codes, 10)}
        active = (sae.affinities(acts.flatten(0, 1)) > 0).sum(1).float().mean()
        found[name] = study.table_of(scores, end) | {"l0": float(active)}
    return {"variants": found}


def as_in_the_source(model: Any, make: Callable[..., Task], trial: int, circuit: dict[str, Any]) -> dict[str, Any]:
    """Areas for the circuit at all positions, in the source's setting, with its penalty and with ours."""
    everywhere, many = tasks.members(torch.tensor(circuit["everywhere"])), make(model, COUNTED_ON, TRIAL_SEED + trial)
    found = {}
    for l1 in (study.THEIRS, L1):
        found[f"l1 = {l1:g}"] = study.table_of(study.as_in_the_source(model, many, seed=trial, l1=l1), everywhere)
    return {"settings": found}


def seconds(model: Any, name: str) -> dict[str, float]:
    """Processor time of each method on the same ten pairs of prompts."""
    task = TASKS[name](model, 10, TRIAL_SEED)
    outputs, positive = study.read(model, task)
    stream = [Site(f"blocks.{model.cfg.n_layers - 1}.hook_resid_post")]
    run, other, heads = task.positive, task.negative, all_heads(model)
    sae, damage = untrained(outputs), partial(divergence, target=end_logits(model, run))
    ways: dict[str, Callable[[], Any]] = {
        "mean difference": lambda: study.mean_difference(model, *study.read(model, task)),
        "attribution": lambda: tasks.attributed(model, task),
        "discrete SAE: outputs": lambda: study.read(model, task),
        "discrete SAE: training": lambda: fit(sae, outputs),
        "discrete SAE: codes and scores": lambda: study.edge_scores(codes_of(sae, outputs), positive),
        "patching each head": lambda: tasks.patched(model, task),
        "path patching to the answer": lambda: path_patch(model, run, other, heads, stream, task.metric),
        "EAP": lambda: edge_attribution(model, run, other, task.metric),
    }
    if name == SLOW:
        ways["ACDC"] = lambda: greedy_removal(model, run, other, lambda logits: damage(logits).mean(), THRESHOLD)
    found = {}
    for name, way in ways.items():
        start = time.process_time()
        way()
        found[name] = round(time.process_time() - start, 3)
    return found


def rounded(values: Any) -> list[float]:
    return [round(float(value), 4) for value in values]


if __name__ == "__main__":
    main()
