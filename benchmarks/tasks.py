"""Does the SAE that reconstructs best serve best? Rules of the grid, judged by tasks at the same L0.

    python benchmarks/tasks.py                       three seeds of each rule on both models; goes on where it stopped.
                                                     With OMP_NUM_THREADS=1, one for each core with --seeds of its own
    python benchmarks/tasks.py --models stories --methods token_choice matryoshka
    python benchmarks/tasks.py --ship                puts what is there into the package

Each SAE is trained as in part "main" of `quality.py` with k = 32, at the learning rate that its sweep has found, and
read at that L0. What it is asked stands in `course/judged_by_tasks/study.py`; beside that, how well its features are
told by explanations from statistics (detection). The same is asked of SAEs with random weights, of the coordinates of
the activation, of probes on all of it, and of directions that are made of the labels.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import common
import torch
from grid import PENALISED, RULES, SEEDS, Run, best_factor
from quality import HERE, Place, at_equal_l0, fvu_and_l0, rows_of, train_together

from sae_tutorial import SparseAutoencoder, story_tokens
from sae_tutorial.activations.files import cache_folder
from sae_tutorial.course.judged_by_tasks.study import Questions, answers, dense
from sae_tutorial.course.reading_features.study import explained_directions
from sae_tutorial.course.results import JUDGED
from sae_tutorial.evaluation.examples import coordinates, random_sae
from sae_tutorial.figures.feature_report import words_of

sys.path.insert(0, str(HERE.parent / "scripts"))
import kept_lines  # noqa: E402

JUDGES = (*RULES, "feature_choice_uniform", "matryoshka", "gradient_choice", *PENALISED)
SMOLLM2 = (*RULES, "feature_choice_uniform", "floor")  # those that the grid has learning rates of
K, WIDTHS = 32, {"stories": 16, "smollm2": 8}
N_TOKENS = {"stories": 90_000, "smollm2": 60_000}
READ, EXPLAINED, AT_RANDOM = 32_000, 150, 50  # tokens, features, and passages of each that are drawn at random


def detection(sae: SparseAutoencoder, model: Any, name: str) -> list[float]:
    """Mean and 95 % interval over drawn features."""
    text = story_tokens(READ, 128, source="books", model=name)
    found = explained_directions(sae, model, text, words_of(model), EXPLAINED, AT_RANDOM).mean("detection")
    return [found.mean, found.low, found.high]


def rows_without_training(place: Place, questions: Questions, sae: SparseAutoencoder, kept: Path) -> None:
    """What everything is compared with, of one model; random SAEs are as large as `sae`, with its L0."""
    name = place.model_name
    for seed in SEEDS:
        other = random_sae(sae, questions.x, seed)
        other.hook_name = place.hook
        row = {"key": f"{name}-random-{seed}", "model": name, "method": "random", "seed": seed}
        kept_lines.add(kept, row | answers(other, questions) | {"detection": detection(other, place.model, name)})
    row = {"key": f"{name}-coordinates-0", "model": name, "method": "coordinates", "seed": 0}
    kept_lines.add(kept, row | answers(coordinates(sae.config.d_in), questions))
    kept_lines.add(kept, {"key": f"{name}-dense-0", "model": name, "method": "dense", **dense(questions)})


def judge_one(
    run: Run, place: Place, questions: Questions, grid_rows: list[dict[str, Any]], kept: Path
) -> SparseAutoencoder | None:
    """Trains it, asks it, writes its line; None while its learning rate is not known."""
    factor = best_factor(grid_rows, run)
    if factor is None:
        print(f"{run.method} on {run.model} has no sweep of learning rates: see quality.py", flush=True)
        return None
    [trained] = train_together([run], [factor], place, grid_rows)
    at_equal_l0(trained, place, "measured")
    fvu, l0 = fvu_and_l0(trained.sae, place.others["measured"])
    trained.sae.hook_name = place.hook
    about = {"key": key_of(run), "model": run.model, "method": run.method, "seed": run.seed, "fvu": fvu, "l0": l0}
    about |= answers(trained.sae, questions) | {"detection": detection(trained.sae, place.model, run.model)}
    kept_lines.add(kept, about)
    print(f"{key_of(run)}: FVU {fvu:.4f}, L0 {l0:.1f}", flush=True)
    return trained.sae


def key_of(run: Run) -> str:
    return f"{run.model}-{run.method}-{run.seed}"


def main() -> None:
    parser = common.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(WIDTHS), choices=list(WIDTHS))
    parser.add_argument("--methods", nargs="+", choices=dict.fromkeys((*JUDGES, *SMOLLM2)))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--out", type=common.folder, default=cache_folder("tasks"))
    parser.add_argument("--cache", type=common.folder, default=cache_folder("training"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--ship", action="store_true")
    args = parser.parse_args()
    kept = args.out / JUDGED
    if args.ship:
        return kept_lines.ship(kept)
    grid_rows = rows_of(cache_folder("evidence"))
    for name in args.models:
        place = Place(name, 0.0, args.cache, args.device)
        questions = Questions.read(place.model, name, place.hook, N_TOKENS[name])
        for seed in args.seeds:
            for method in args.methods or (JUDGES if name == "stories" else SMOLLM2):
                run = Run("main", method, K, seed, model=name, width=WIDTHS[name])
                if key_of(run) in kept_lines.done(kept, "key"):
                    continue
                sae = judge_one(run, place, questions, grid_rows, kept)
                if sae is not None and f"{name}-dense-0" not in kept_lines.done(kept, "key") and seed == args.seeds[0]:
                    rows_without_training(place, questions, sae, kept)


if __name__ == "__main__":
    main()
