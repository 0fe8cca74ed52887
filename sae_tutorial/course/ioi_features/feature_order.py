"""Which features first? Orders in which a dictionary's features are left out of a patch, and what is lost on the way.

    thin_out           the weakest are left out, in stages, and the rest is weighed again by gradients: ours, quick
    remove_greedily    Cunningham et al. 2023: one forward pass for each feature and threshold, slow

Letters of shapes: S stages, B sentences, P positions, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from sae_tutorial.activations.arguments import as_whole
from sae_tutorial.circuits.feature_patching import Chosen, Edit, Loss


@dataclass(frozen=True)
class Stages:
    """What was left, stage by stage, from all features down to none.

    Attributes:
        sizes: (S,) features that are patched, on average over sentences.
        loss, magnitude: (S, B) KL and size of the edit.
        chosen: S masks, (B, F) or (1, F).
    """

    sizes: Float[Tensor, " stages"]
    loss: Float[Tensor, "stages sentences"]
    magnitude: Float[Tensor, "stages sentences"]
    chosen: tuple[Chosen, ...]

    def halfway(self, part: float = 0.5) -> tuple[Float[Tensor, " sentences"], Float[Tensor, " sentences"]]:
        """For each sentence, the number of patched features and the size of the edit at which KL has fallen to
        `part` of what it is without a patch; inf where it never does, 0 where there is nothing to lose.

        From few features to many, the first stage that is there; between it and the one before, on a straight line.
        """
        counts = torch.stack([c.sum(1).float().expand(self.loss.shape[1]) for c in self.chosen])
        by_count, by_size = (_first_below(x.flip(0), self.loss.flip(0), part) for x in (counts, self.magnitude))
        return by_count, by_size


def _first_below(x_SB: Tensor, loss_SB: Tensor, part: float) -> Tensor:
    """x where the loss first reaches `part` of its first value, by straight lines between stages."""
    there = loss_SB <= part * loss_SB[0]
    found = torch.full_like(x_SB[0], torch.inf)
    for b in there.any(0).nonzero()[:, 0].tolist():
        s = int(there[:, b].float().argmax())
        if s == 0:  # the loss is 0 without any patch
            found[b] = x_SB[0, b]
            continue
        (x0, x1), (y0, y1) = x_SB[s - 1 : s + 1, b], loss_SB[s - 1 : s + 1, b]
        found[b] = x0 + (x1 - x0) * (y0 - part * loss_SB[0, b]) / (y0 - y1)
    return found


def recorded(edit: Edit, loss: Loss, chosen: Sequence[Chosen]) -> Stages:
    """Loss and magnitude for each choice of features."""
    with torch.no_grad():
        added = [edit.added(c) for c in chosen]
        losses = torch.stack([loss(edit.x + step) for step in added])
        magnitudes = torch.stack([edit.size_of(step) for step in added])
    sizes = torch.stack([c.sum(1).float().mean() for c in chosen])
    return Stages(sizes, losses, magnitudes, tuple(chosen))


def worth(edit: Edit, loss: Loss, chosen: Chosen, points: int = 1) -> Float[Tensor, "sentences features"]:
    """By how much each chosen feature lowers the loss, to first order: −Σ_p change · (f_j · gradient).

    The gradient is taken on the way from x to x', at `points` places evenly spread, and averaged (integrated
    gradients, Sundararajan et al. 2017: with many points the worths of all chosen features sum to what they achieve
    together). At x' itself it would show nothing: where the loss is smallest, it is flat.

    Raises ValueError for no points.
    """
    points = as_whole("points", points, least=1)
    added = edit.added(chosen)
    slope = torch.zeros_like(added)
    for i in range(points):
        x_BPD = (edit.x + (i + 0.5) / points * added).requires_grad_()
        with torch.enable_grad():
            slope += torch.autograd.grad(loss(x_BPD).sum(), x_BPD)[0] / points
    some, found_BF = chosen.any(0), torch.zeros_like(edit.changes[:, 0])
    found_BF[:, some] = -(edit.changes[..., some] * (slope @ edit.directions[some].T)).sum(1)
    return found_BF * chosen


def thin_out(
    edit: Edit, loss: Loss, sizes: Sequence[int], shared: bool, points: int = 1, progress: str | None = None
) -> Stages:
    """From all features down to none: at each stage those of least worth are left out, and the rest is weighed again.

    Args:
        sizes: how many are left after each stage, in falling order; those above what changes at all are skipped.
        shared: one choice for all sentences, by mean worth (as Cunningham et al. 2023 have it); or each sentence for
            itself.
    """
    used = edit.used
    chosen = used.any(0, keepdim=True) if shared else used
    stages = [chosen]
    bar = tqdm([size for size in sizes if size < chosen.sum(1).max()], desc=progress, leave=False, disable=not progress)
    for size in bar:
        left = torch.zeros_like(chosen)
        if size:  # to keep none, nothing needs to be weighed
            value = worth(edit, loss, chosen, points)
            value = value.mean(0, keepdim=True) if shared else value
            best = value.masked_fill(~chosen, -torch.inf).topk(size, dim=1).indices
            left = left.scatter_(1, best, True) & chosen
        chosen = left
        stages.append(chosen)
    return recorded(edit, loss, stages)


def remove_greedily(
    edit: Edit, loss: Loss, thresholds: Sequence[float], seed: int = 0, start: Chosen | None = None
) -> Stages:
    """Cunningham et al. 2023: try features in random order, leave out each that costs less than a threshold; raise it.

    One choice for all sentences. A feature is left out if the mean KL rises by less than the threshold, so the sum of
    what is lost can be much more. One forward pass for each feature that is tried.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = edit.used.any(0, keepdim=True) if start is None else start.clone()
    stages = [chosen.clone()]
    with torch.no_grad():
        before = float(loss(edit.patched(chosen)).mean())
        for threshold in sorted(thresholds):
            left = chosen[0].nonzero()[:, 0]
            for j in left[torch.randperm(len(left), generator=generator)].tolist():
                chosen[0, j] = False
                now = float(loss(edit.patched(chosen)).mean())
                if now - before < threshold:
                    before = now
                else:
                    chosen[0, j] = True
            stages.append(chosen.clone())
    return recorded(edit, loss, stages)


def quick_and_slow(
    edit: Edit, loss: Loss, sizes: Sequence[int], thresholds: Sequence[float]
) -> tuple[dict[int, float], dict[int, float], float]:
    """Both orders from the same features down: mean loss by number of features, of `thin_out` and of `remove_greedily`,
    and the largest difference between them. The slow one begins with what the quick one has left at `sizes[0]`."""
    quick = thin_out(edit, loss, sizes, shared=True)
    start = next(chosen for chosen in quick.chosen if chosen.sum() <= sizes[0])
    slow = remove_greedily(edit, loss, thresholds, start=start)
    mine, theirs = ({int(n): float(kl) for n, kl in zip(s.sizes, s.loss.mean(1)) if n} for s in (quick, slow))
    between = np.interp(list(theirs), sorted(mine), [mine[n] for n in sorted(mine)])  # on lines between stages
    return mine, theirs, float(np.abs(between - np.array(list(theirs.values()))).max())
