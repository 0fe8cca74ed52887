"""Dictionaries held against PCA, sentence by sentence. Each is there once, or once for each seed of its training.

A `Span` is three numbers: that of the middle seed, and the lowest and highest end of the intervals of all seeds, so it
is as wide as sentences and seeds together make it. With one seed it is that seed's 95 % interval over sentences.

Letters of shapes: K seeds, B sentences, S stages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median_low
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.autoencoder.dictionaries import Dictionary, variance_explained
from sae_tutorial.circuits.feature_patching import Edit
from sae_tutorial.course.ioi_features.feature_order import Stages
from sae_tutorial.evaluation.intervals import bootstrap, paired_ratio
from sae_tutorial.figures.kinds import Span

NEVER = 1e6  # a ratio above this one is a division by "never gets there"
Needs = Float[Tensor, "seeds sentences"]
Orders = Mapping[str, Sequence[Stages]]  # of each dictionary, one for each seed
WAYS = ("patches, shared set", "patches, own", "edit, shared set", "edit, own")


def quality(
    name: str, trained: Sequence[Dictionary], x: Float[Tensor, "tokens d"]
) -> tuple[str, int, int, str, str, str]:
    """A row about one dictionary on tokens x: name, seeds, features, mean L0, mean FVU, and its range over seeds, where
    there are several."""
    codes = [one.encode(x) for one in trained]
    fvu = [1 - variance_explained(x, c @ one.directions + one.constant) for c, one in zip(codes, trained, strict=True)]
    l0 = sum(float((code != 0).float().sum(dim=1).mean()) for code in codes) / len(trained)
    apart = f"{max(fvu) - min(fvu):.4f}" if len(trained) > 1 else "–"
    return name, len(trained), codes[0].shape[1], f"{l0:.1f}", f"{sum(fvu) / len(fvu):.3f}", apart


def spanned(of_each: Sequence[Span]) -> Span:
    """One span for all seeds: the middle one's number, the lowest and the highest end."""
    middle, low, high = zip(*of_each)
    return median_low(middle), min(low), max(high)


def needed(stages: Sequence[Stages], part: float = 0.5) -> tuple[Needs, Needs]:
    """How many features, and how large an edit, bring the KL to `part` of what it is without a patch: for each seed and
    sentence, see `Stages.halfway`."""
    counts, sizes = zip(*(one.halfway(part) for one in stages))
    return torch.stack(counts), torch.stack(sizes)


def medians(needs: Needs) -> Span:
    """The median sentence: of the middle seed, of the lowest and of the highest."""
    return spanned([(float(m),) * 3 for m in needs.median(dim=1).values])


def against(mine: Needs, theirs: Float[Tensor, " sentences"]) -> Span:
    """Median over sentences of mine / theirs, with its interval."""
    return spanned([paired_ratio(one, theirs) for one in mine])


def against_pca(shared: Orders, alone: Orders, part: float = 0.5) -> dict[str, dict[str, Span]]:
    """How many features, and how large an edit, relative to PCA, with one set for all sentences and with own sets:
    for each of WAYS, dictionary -> span. All dictionaries but PCA and the supervised one."""
    one, own = ({name: needed(stages, part) for name, stages in orders.items()} for orders in (shared, alone))
    names = [name for name in shared if name not in ("PCA", "supervised")]
    return {
        way: {name: against(needs[name][what], needs["PCA"][what][0]) for name in names}
        for way, (what, needs) in zip(WAYS, ((0, one), (0, own), (1, one), (1, own)), strict=True)
    }


def intervals(levels: Sequence[Mapping[str, Mapping[str, Span]]], way: str, *names: str) -> str:
    """`in_words` without the verdict, for each name at each level: "PCA: 0.20 [0.17, 0.24], 0.30 [0.27, 0.33]; …"."""
    spans = {name: [in_words(level[way][name]).rsplit(" ", 1)[0] for level in levels] for name in names}
    return "; ".join(f"{name}: {', '.join(parts)}" for name, parts in spans.items())


def verdict(ratio: Span) -> str:
    """Is it less than the other's? "holds" or "fails" where the intervals of all seeds say so, else "open"."""
    return "holds" if ratio[2] < 1 else "fails" if ratio[1] > 1 else "open"


def overall(levels: Sequence[Mapping[str, Mapping[str, Span]]], way: str, *names: str) -> str:
    """Does the claim hold at all levels? "yes" or "no", "in part" where levels differ or are open; for each name."""
    found = ["/".join({verdict(level[way][name]) for level in levels}) for name in names]
    words = [{"holds": "yes", "fails": "no"}.get(one, "in part") for one in found]
    return words[0] if len(names) == 1 else "; ".join(f"{name}: {word}" for name, word in zip(names, words))


def answered(levels: Sequence[Mapping[str, Mapping[str, Span]]], way: str, *names: str) -> tuple[str, str]:
    """`intervals` and `overall`: the numbers and the answer of a closing table."""
    return intervals(levels, way, *names), overall(levels, way, *names)


def in_words(ratio: Span) -> str:
    """0.20 [0.17, 0.24] holds; ∞ where a sentence never gets there. An end near 1, which decides, has a third digit."""
    middle, low, high = (
        "∞" if v >= NEVER else f"{v:.3f}" if f"{v:.2f}" == "1.00" and v != 1 else f"{v:.2f}" for v in ratio
    )
    return f"{middle} [{low}, {high}] {verdict(ratio)}" if low != "∞" else "never there: fails"


def curve(stages: Sequence[Stages], across: Literal["count", "size"]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From few features to many: number of features (or size of the edit), mean KL, and the ends of its interval, each
    (S,). Of several seeds the mean, and the lowest and highest end; without a first stage that only some of them have.
    """
    n = min(len(one.sizes) for one in stages) - (len({len(one.sizes) for one in stages}) > 1)
    last = slice(-n, -1 if across == "count" else None)  # a logarithm of 0 features has no place
    xs = [(one.sizes if across == "count" else one.magnitude.mean(dim=1))[last] for one in stages]
    means, lows, highs = (torch.stack(part) for part in zip(*(bootstrap(one.loss[last]) for one in stages)))
    found = torch.stack(xs).mean(0), means.mean(0), lows.amin(0), highs.amax(0)
    return tuple(values.flip(0) for values in found)  # type: ignore[return-value]


@torch.no_grad()
def answers_with(
    run: Callable[[Tensor], Tensor],
    edits: Sequence[Edit],
    stages: Sequence[Stages],
    width: int,
    new: Int[Tensor, " sentences"],
    old: Int[Tensor, " sentences"],
) -> tuple[float, float]:
    """With at most `width` features of each sentence's own: how often the model says the new name, and how often it has
    that above the old one. Means over seeds."""
    rows, found = torch.arange(len(new)), []
    for edit, one in zip(edits, stages, strict=True):
        chosen = next(c for c in one.chosen if c.sum(dim=1).max() <= width)
        out = run(edit.patched(chosen))
        found.append(torch.stack([out.argmax(dim=1) == new, out[rows, new] > out[rows, old]]).float().mean(dim=1))
    said, above = torch.stack(found).mean(dim=0).tolist()
    return said, above
