"""What SAEs leave out, for three rules, three sizes, three seeds and two models: the rows of notebook 11.

    python scripts/dark_matter.py           one line for each SAE, in the cache; goes on where it stopped
    python scripts/dark_matter.py --ship    puts them into the package

The SAEs of the embedded model are trained here, as those of `benchmarks/quality.py` are, but for their text: the last
512 rows are held out, the first 128 of these to fit maps on, the last 128 to ask them. Of SmolLM2 those that the
package ships are read.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import kept_lines
import torch
from torch import Tensor

from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder, load_language_model, reference_sae, story_tokens
from sae_tutorial.activations.files import cache_folder
from sae_tutorial.activations.shipped_text import TRAINED_ON
from sae_tutorial.autoencoder.shipped import HOOKS
from sae_tutorial.autoencoder.thresholds import scale_thresholds_
from sae_tutorial.course.dark_matter import study
from sae_tutorial.course.results import LEFT_OUT, load_runs
from sae_tutorial.evaluation.dark_matter import ErrorParts, reconstructed, split_error
from sae_tutorial.training import TrainSettings, train_many

K, STEPS, HELD_OUT, ROWS = 32, 1000, 512, 128
RULES: dict[str, dict[str, Any]] = {  # as the grid names them
    "token_choice": {"rule": "token_choice"},
    "mutual_choice": {"rule": "mutual_choice"},
    "feature_choice_zipf": {"rule": "feature_choice", "capacity": "zipf"},
}
WIDTHS = {"token_choice": (4, 16, 32), "mutual_choice": (16,), "feature_choice_zipf": (16,)}  # times d_in
READ = {"stories": 64, "smollm2": 16}  # rows on which losses are measured
SECOND_D_SAE, SECOND_STEPS = 1024, 600


class Place:
    """The text and the activations of the embedded model: to train on, to fit maps on, to ask them."""

    def __init__(self, cache: Path) -> None:
        self.model, self.cache = load_language_model("stories"), cache
        corpus = TRAINED_ON["stories"]
        tokens = story_tokens(corpus.n_tokens, 256, source=corpus.source)
        self.text = {"train": tokens[:-HELD_OUT], "fit": tokens[-HELD_OUT:][:ROWS], "ask": tokens[-ROWS:]}
        self.hook = HOOKS["stories"]

    def store(self, part: str, hook: str | None = None) -> ActivationStore:
        return ActivationStore.harvest(
            self.model, self.text[part], hook or self.hook, cache_dir=self.cache, progress=False
        )

    def acts(self, part: str, hook: str | None = None) -> Tensor:
        return self.store(part, hook).rows(slice(None)).float()

    def trained(self, names: list[tuple[str, int]], seed: int, hook: str | None = None) -> list[SparseAutoencoder]:
        """SAEs by rule and width, side by side, at the rates that the grid found best."""
        store = self.store("train", hook)
        rate = {row["method"]: row["lr"] for row in load_runs() if row["part"] == "main" and row["k"] == K}
        saes = [SparseAutoencoder(SAEConfig(store.d_in, w * store.d_in, k=K, **RULES[r]), seed=seed) for r, w in names]
        plain = TrainSettings(steps=STEPS, batch_size=2048, seed=seed, encoder_dtype="bfloat16")
        settings = [replace(plain, lr=rate[r]) for r, _ in names]
        checkpoint = self.cache / f"dark-{seed}-{'-'.join(f'{r}{w}' for r, w in names)}-{store.hook_name}.pt"
        train_many(saes, store, settings, checkpoint=checkpoint, checkpoint_every=250, resume="auto", progress=False)
        ask = self.acts("ask", hook).split(4096)
        for sae in saes:
            at_equal_l0_(sae, ask)
        return saes


def at_equal_l0_(sae: SparseAutoencoder, pieces: Sequence[Tensor]) -> None:
    """Thresholds, where there are any, such that this text has K features per token, as in the grid."""
    if sae.config.how.thresholds is not None:
        scale_thresholds_(sae, pieces, K)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=cache_folder("dark-matter"))
    parser.add_argument("--ship", action="store_true")
    args = parser.parse_args()
    kept = args.out / LEFT_OUT
    if args.ship:
        return kept_lines.ship(kept)
    place = Place(args.out)
    for seed in range(args.seeds):
        of_stories(place, seed, kept)
    of_smollm2(kept)


def of_stories(place: Place, seed: int, kept: Path) -> None:
    """The three rules and the three sizes of one seed; and, of Token Choice, what else can be asked of its error."""
    names = [(rule, width) for rule, widths in WIDTHS.items() for width in widths]
    key = {name: f"stories-{name[0]}-x{name[1]}-seed{seed}" for name in names} | {"more": f"stories-more-seed{seed}"}
    left = [name for name in key.values() if name not in kept_lines.done(kept, "key")]
    if not left:
        return
    saes = dict(zip(names, place.trained(names, seed)))
    x_fit, x = place.acts("fit"), place.acts("ask")
    text = place.text["ask"][: READ["stories"]]
    for name, sae in saes.items():
        if key[name] in left:
            about = {"key": key[name], "model": "stories", "rule": name[0], "width": name[1], "seed": seed}
            kept_lines.add(kept, about | study.measured(sae, place.model, x_fit, x, text))
    if key["more"] in left:
        kept_lines.add(kept, {"key": key["more"], "model": "stories", "seed": seed} | more_of(place, seed, saes))


def more_of(place: Place, seed: int, saes: dict[tuple[str, int], SparseAutoencoder]) -> dict[str, Any]:
    """Which tokens are hard, for which sizes; second SAEs on the parts of the error; what an earlier layer knows."""
    x_fit, x = place.acts("fit"), place.acts("ask")
    error = {name: (x - reconstructed(sae, x)).square().sum(1) for name, sae in saes.items()}
    pairs = {
        f"{a[0]} x{a[1]}, {b[0]} x{b[1]}": study.rank_correlation(error[a], error[b])
        for a in error
        for b in error
        if a < b
    }
    length = (x - x.mean(0)).square().sum(1)
    token = place.text["ask"][:, 1:].flatten()  # the store leaves the first of each row out
    small = {name: study.rank_correlation(error[name], length) for name in error}
    identity = {f"{r} x{w}": study.by_token_identity(error[r, w], token) for r, w in error}
    sae = saes["token_choice", 16]
    ask = split_error(sae, x_fit, x)
    fit = ErrorParts(x_fit, reconstructed(sae, x_fit), ask.A)  # one map for both: two would differ by a linear part
    sizes = (SECOND_D_SAE, K, SECOND_STEPS)
    halves = {name: (getattr(fit, name), getattr(ask, name)) for name in ("error", "linear", "nonlinear")}
    halves["activation"] = x_fit, x
    second, few = {}, slice(study.N_CONTROLS)
    for name, (part_fit, part) in halves.items():
        other = study.second_sae(part_fit, *sizes)
        second[name] = study.fvu(part, reconstructed(other, part))
        if name in ("nonlinear", "activation"):  # is it the features, or the search for them?
            second[f"{name}, its features searched"] = study.fvu(part[few], study.pursued(other, part[few]))
            random = study.covariant_directions_fvu(part_fit, part, SECOND_D_SAE, K)
            second[f"{name}, by 1,024 random directions"] = random
    before = "blocks.0.hook_resid_post"
    [early] = place.trained([("token_choice", 16)], seed, before)
    x0_fit, x0 = place.acts("fit", before), place.acts("ask", before)
    seen = {"the activation before": (x0_fit, x0)}
    seen["the SAE's output before"] = reconstructed(early, x0_fit), reconstructed(early, x0)
    named = {"same tokens": pairs, "length": {f"{r} x{w}": v for (r, w), v in small.items()}, "identity": identity}
    named |= {"second": second, "earlier": from_before((x_fit, fit.error), (x, ask.error), seen)}
    others = study.error_of_others(fit), study.error_of_others(ask)  # the control: they know nothing of the token
    return named | {"earlier, errors of others": from_before(*others, seen)}


def from_before(
    on_fit: tuple[Tensor, Tensor], on_ask: tuple[Tensor, Tensor], seen: dict[str, tuple[Tensor, Tensor]]
) -> dict[str, float]:
    """R² of an error from the activation that holds it, and from x̂, which does not: each alone and beside what is
    seen before; and from that alone."""
    (x_fit, error_fit), (x, error) = on_fit, on_ask
    given = {"x": (x_fit, x), "x̂": (x_fit - error_fit, x - error)}
    asked = {}
    for one, (fit, ask) in given.items():
        asked[f"{one} alone"] = fit, ask
        asked |= {f"{one} and {name}": (beside(fit, a), beside(ask, b)) for name, (a, b) in seen.items()}
    asked |= {f"{name}, alone": was for name, was in seen.items()}
    return {name: study.from_earlier(*halves, error_fit, error) for name, halves in asked.items()}


def beside(a: Tensor, b: Tensor) -> Tensor:
    return torch.cat([a, b], dim=1)


def of_smollm2(kept: Path) -> None:
    """The SAEs that are shipped for SmolLM2, on held-out rows of its text."""
    left = [rule for rule in ("token_choice", "mutual_choice", "feature_choice")
            if f"smollm2-{rule}" not in kept_lines.done(kept, "key")]  # fmt: skip
    if not left:
        return
    model, hook, corpus = load_language_model("smollm2"), HOOKS["smollm2"], TRAINED_ON["smollm2"]
    tokens = story_tokens(corpus.n_tokens, 256, source=corpus.source, model="smollm2")[-320:]  # that no SAE has seen
    stores = [ActivationStore.harvest(model, part, hook, cache_dir=kept.parent, progress=False)
              for part in (tokens[:160], tokens[160:])]  # fmt: skip
    x_fit, x = (store.rows(slice(None)).float() for store in stores)
    for rule in left:
        sae = reference_sae(rule, model="smollm2")
        at_equal_l0_(sae, x.split(4096))
        about = {"key": f"smollm2-{rule}", "model": "smollm2", "rule": rule, "width": 4, "seed": 0}
        found = study.measured(sae, model, x_fit, x, tokens[160 : 160 + READ["smollm2"]])
        kept_lines.add(kept, about | found)


if __name__ == "__main__":
    main()
