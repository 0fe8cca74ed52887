"""How much faster is patching a batch of sentences than one sentence at a time?

    python benchmarks/patching.py      results/patching.json (2 minutes)

The same work twice: heads' outputs patched one by one, and heads path-patched to the answer, on indirect-object
sentences of the embedded model. Once all sentences run as one batch (what sae_tutorial.patching does), once each
sentence runs by itself, with the very same functions. Both find the same numbers, which is checked first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import common
import torch

from sae_tutorial import load_language_model
from sae_tutorial.circuits.ioi import Sentences, counterfactual, ioi_sentences, logit_difference
from sae_tutorial.circuits.patching import Site, activations, all_heads, head_site, patch_each, path_patch

SENTENCES = {"quick": 3, "cpu": 24, "cuda": 192}


def heads_patched(model, clean: Sentences, other: Sentences, heads) -> torch.Tensor:
    """(heads, sentences): logit differences with one head's output put into the swapped run."""
    sites = [head_site("z", head) for head in heads]
    donor = activations(model, clean, {site.hook_name for site in sites})
    return patch_each(model, other, sites, donor, lambda logits: logit_difference(logits, clean))


def paths_patched(model, clean: Sentences, other: Sentences, heads) -> torch.Tensor:
    """(heads, sentences): the same when one head speaks to the answer alone."""
    last = Site(f"blocks.{model.cfg.n_layers - 1}.hook_resid_post")
    return path_patch(model, clean, other, heads, [last], lambda logits: logit_difference(logits, clean))


WORK: dict[str, Callable[..., torch.Tensor]] = {
    "heads, each patched": heads_patched,
    "paths to the answer": paths_patched,
}


def one_by_one(work: Callable[..., torch.Tensor], model, clean: Sentences, other: Sentences, heads) -> torch.Tensor:
    """Each sentence by itself, without its padding."""
    parts = []
    for i in range(len(clean)):
        width = int(clean.positions["END"][i]) + 1
        alone = [cut(run[i : i + 1], width) for run in (clean, other)]
        parts.append(work(model, *alone, heads))
    return torch.cat(parts, dim=1)


def cut(run: Sentences, width: int) -> Sentences:
    return dataclasses.replace(run, tokens=run.tokens[:, :width])


def main() -> None:
    args = common.parser(__doc__).parse_args()
    device = common.device_of(args)
    described = common.machine(device)
    torch.set_grad_enabled(False)
    model = load_language_model("stories", device=device)
    n = SENTENCES["quick" if args.quick else device]
    clean = ioi_sentences(model, n, seed=0)
    other = counterfactual(model, clean, "swapped")
    heads = all_heads(model)[:: 16 if args.quick else 8]
    where = f"{n} sentences, {len(heads)} heads"

    targets, rows, raw, apart = [], [], {}, {}
    for name, work in WORK.items():
        batch = {"batch": lambda work=work: work(model, clean, other, heads)}
        single = {"one by one": lambda work=work: one_by_one(work, model, clean, other, heads)}
        apart[name] = float((batch["batch"]() - single["one by one"]()).abs().max())
        if apart[name] > 0.01:
            raise SystemExit(f"{name}: the two differ by {apart[name]:.3g} logits")
        runs = {label: common.timed(run, device) for label, run in (batch | single).items()}
        taken = common.take_turns(runs, 2 if args.quick else args.rounds, name)
        faster = common.ratio(taken["one by one"], taken["batch"])
        targets.append(common.target(f"{name}: a batch, faster than one by one", where, faster, at_least=5))
        middle = [common.spread(taken[label])["median"] for label in taken]
        rows.append([name, *(f"{value:.0f}" for value in middle), f"{faster['median']:.1f}×"])
        raw[name] = taken
    columns = ["what", "batch, ms", "one by one, ms", "ratio"]
    settings = {"rounds": args.rounds, "sentences": n, "heads": len(heads), "largest_difference_in_logits": apart}
    question = "how much faster a batch of sentences is patched than one sentence at a time"
    tables = [common.table(f"Patching {where}", columns, rows)]
    common.finish(args, "patching", question, described, raw=raw, settings=settings, tables=tables, targets=targets)


if __name__ == "__main__":
    main()
