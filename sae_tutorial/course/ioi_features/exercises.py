"""Exercises of notebook 09: patching with features."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sae_tutorial.circuits.feature_patching import Edit, Loss
from sae_tutorial.course.judge import NotAnswered, Verdict, judge

# Exercise 1: the formula.


def check_patch(answer: Any) -> Verdict:
    """`answer(x, codes, wanted, directions, chosen)`: x' for tokens (N, D), codes (N, F), chosen a list of features."""
    generator = torch.Generator().manual_seed(0)
    x, directions = torch.randn(4, 6, generator=generator), torch.randn(5, 6, generator=generator)
    codes, wanted = (torch.rand(4, 5, generator=generator) for _ in range(2))

    def same(a: Any, b: Tensor) -> bool:
        got = torch.as_tensor(a)  # numpy counts in float64
        return got.shape == b.shape and torch.allclose(got.to(b.dtype), b, atol=1e-5)

    def returns(answer: Callable) -> str | None:
        given = [t.clone() for t in (x, codes, wanted, directions)]
        try:
            answer(*given, [0, 3])
        except NotAnswered:
            if torch.equal(given[0], x):
                raise
            return "x is changed, but the function returns None: return x"
        except RuntimeError as error:
            if "(2x5 and 2x6)" in str(error):
                return "`[chosen]` takes rows, and rows of the codes are tokens; features are columns: `[:, chosen]`"
            if "(4x2 and 5x2)" in str(error):
                return "`directions` has a row for each feature: `directions[chosen]`, not columns of it"
            if "tensor a (4) must match the size of tensor b (2)" in str(error):
                return "`[chosen]` takes rows, tokens 0 and 3 here; features are columns of the codes: `[:, chosen]`"
            if "(4x2 and 5x6)" in str(error):
                return "two columns of the codes, five directions: take the same rows of these, `directions[chosen]`"
            if "tensor a (4) must match the size of tensor b (6)" in str(error):
                return "a code for each token times one direction needs a column: `(…)[:, j, None] * directions[j]`"
            if "tensor a (6) must match the size of tensor b (5)" in str(error):
                return "`directions` has a row for each feature: `directions[chosen]`, and no transpose is needed"
            raise
        return None

    def nothing(answer: Callable) -> str | None:
        got = answer(*(t.clone() for t in (x, codes, wanted, directions)), [])
        if same(got, codes @ directions) or same(got, wanted @ directions):
            return "with no feature chosen x stays as it is; you return a reconstruction, so what it leaves out is lost"
        if same(got, x + (wanted - codes) @ directions):
            return "all features are patched, even for an empty list; only those in `chosen` may be"
        if same(got, torch.zeros_like(x)):
            return "you return the change alone; add it to x"
        if same(got, x - codes @ directions):
            return (
                "with no feature chosen x must stay as it is; you take all features out, and those not chosen are gone"
            )
        return None if same(got, x) else "with no feature chosen, x must stay as it is"

    def some(answer: Callable) -> str | None:
        chosen = [0, 3]
        right = solution_patch(x, codes, wanted, directions, chosen)
        got = answer(*(t.clone() for t in (x, codes, wanted, directions)), chosen)
        if same(got, right):
            return None
        if same(got, 2 * x - right):
            return "that leads away from the other sentence: the change is wanted − codes"
        if same(got, x + (wanted - codes) @ directions):
            return "all features are patched; only those in `chosen` may be"
        if same(got, x + wanted[:, chosen] @ directions[chosen]):
            return "the old part of the feature must go when the new one comes: wanted − codes"
        rows = torch.zeros(len(x), 1).index_fill(0, torch.tensor(chosen), 1)
        if same(got, x + rows * ((wanted - codes) @ directions)):
            return "all features are patched at tokens 0 and 3: rows are tokens, features are columns, `[:, chosen]`"
        for j in chosen:
            if same(got, solution_patch(x, codes, wanted, directions, [j])):
                return f"only feature {j} is patched: does the loop return, or begin again from x, at every feature?"
        if same(got, x.index_add(1, torch.tensor(chosen), (wanted - codes)[:, chosen])):
            return "`chosen` numbers features, not coordinates of x; a feature's part of x lies along its direction"
        if same(got, x):
            return "nothing is patched (is a copy changed, or the original? `n = codes` does not copy)"
        return "for chosen = [0, 3] the result is another"

    hints = (
        "What does one feature's code have to gain, and which vector carries this gain into the stream?",
        "Select the chosen columns of a difference of codes, and the same rows of the directions.",
    )
    praise = "What the dictionary cannot say stays in place: only so can good and bad dictionaries be compared."
    return judge("Exercise 1", answer, [returns, nothing, some], hints, praise)


def solution_patch(x: Tensor, codes: Tensor, wanted: Tensor, directions: Tensor, chosen: Sequence[int]) -> Tensor:
    """x + Σ_{j∈J} (z*_j − z_j) f_j."""
    return x + (wanted - codes)[:, chosen] @ directions[chosen]


# Exercise 2: which features first?


class _Toy:
    """An edit of 6 prompts, 3 positions and 8 features, and a loss with its minimum where all of it is done, but for
    the features that do harm."""

    def __init__(self, harmful: Sequence[int] = (7,)) -> None:
        generator = torch.Generator().manual_seed(0)
        directions = torch.eye(12)[:8]
        directions[1] = directions[0]  # these two do the same: one is worth little when the other is there
        directions = directions * torch.linspace(1, 2, 8)[:, None]  # a change tells less than change times direction
        changes = torch.rand(6, 3, 8, generator=generator) + 0.2
        changes[..., 1] = 0.9 * changes[..., 0]
        changes[0, :, 5] = 0  # not used in this prompt
        x = torch.randn(6, 3, 12, generator=generator)  # halfway to x' is not half of x'
        self.edit = Edit(x, changes, directions, torch.full((6,), 2))
        added = self.edit.added(self.edit.used)
        added[..., list(harmful)] *= -1
        noise = 0.01 * torch.randn(added.shape, generator=generator)  # no slope is exactly 0: no ties
        self.goal = x + added + noise
        self.weight = torch.linspace(0.5, 3, 12)

    def loss(self, x: Tensor) -> Tensor:
        return (0.3 + (self.weight * (x - self.goal).square()).sum(2)).log().sum(1)


def _by_slope(changes: Tensor, along: Tensor) -> Tensor:
    """Worth, (prompts, features), of changes (prompts, positions, features) and the slope along each direction."""
    return -(changes * along).sum(1)


def _of_all(changes: Tensor, along: Tensor) -> Tensor:
    """The same, at −inf where a prompt does not use a feature: what a sum over prompts meets after the mask."""
    return _by_slope(changes, along).masked_fill(~(changes != 0).any(1), -math.inf)


# What is likeliest to be done instead, and how `_kept` does it.
THINNED: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "the features of *most* worth were left out: a feature is worth what it lowers the loss by",
        {"weigh": lambda changes, along: -_by_slope(changes, along)},
    ),
    (
        "features rank by the size of their worth; one that does harm has a worth below 0, and should go first",
        {"weigh": lambda changes, along: _by_slope(changes, along).abs()},
    ),
    ("the gradient is taken at x′, where the loss is smallest and its slope says nothing; go halfway", {"at": 1.0}),
    ("the gradient is taken at x, as if nothing were patched yet; go halfway from x to x′", {"at": 0.0}),
    ("halfway from x to x′ is x + added / 2; x itself was halved, too", {"of_x": 0.5}),
    (
        "features are weighed once, with all of them patched; at every stage weigh those that are left again, halfway "
        "to *their* x′",
        {"again": False},
    ),
    ("a feature that was left out comes back later; choose among those that are left", {"back": True}),
    (
        "features rank by their slope alone; a feature is worth its *change* times that",
        {"weigh": lambda changes, along: -along.sum(1)},
    ),
    (
        "features rank by their change alone, and the loss has no say; multiply by the slope along their direction",
        {"weigh": lambda changes, along: changes.abs().sum(1)},
    ),
    (
        "worth is a sum over positions; yours looks at the last one alone",
        {"weigh": lambda changes, along: -(changes * along)[:, -1]},
    ),
    (
        "all sentences keep the same features; each is to choose its own, so do not sum over sentences",
        {"weigh": lambda changes, along: _by_slope(changes, along).mean(0).expand(len(changes), -1)},
    ),
    (
        "all sentences keep the same features, and none that one of them does not use; do not sum over sentences",
        {"weigh": lambda changes, along: _of_all(changes, along).sum(0).expand(len(changes), -1)},
    ),
)


def check_thin_out(answer: Any) -> Verdict:
    """`answer(edit, loss, sizes)`: masks of the features that are left, all of them first, then as many as `sizes`."""
    toy, sizes = _Toy(), [6, 4, 2, 1, 0]
    right = solution_thin_out(toy.edit, toy.loss, sizes)

    def asked(answer: Callable) -> list[Tensor]:
        try:
            return [torch.as_tensor(c) for c in answer(toy.edit, toy.loss, list(sizes))]
        except RuntimeError as error:
            if "does not require grad" in str(error):
                raise AssertionError("a gradient with respect to x needs x.requires_grad_() before loss(x)") from error
            if "only for scalar outputs" in str(error):
                raise AssertionError("`loss(x)` is one KL for each sentence: take the gradient of its sum") from error
            raise

    def as_many(answer: Callable) -> str | None:
        got = asked(answer)
        if len(got) == len(sizes) and got[0].shape == right[0].shape:
            return "the first mask is that of all features, `edit.used`, before any is left out"
        if len(got) != len(sizes) + 1 or any(c.shape != right[0].shape for c in got):
            shape = tuple(right[0].shape)
            return f"return {len(sizes) + 1} masks of shape (prompts, features), {shape} here, not numbers of features"
        left = [int(c.bool().sum(1).max()) for c in got]
        if left != [8, *sizes] and len({c.data_ptr() for c in got}) < len(got):
            return "several of your masks are one tensor, which changed after it was appended: append a clone of it"
        if left[:-1] == [8, *sizes[:-1]] and left[-1] > 0:
            return f"for size 0 you leave {left[-1]}, not 0; `[-size:]` with a size of 0 is the whole list"
        if left != [8, *sizes] and _same([c.bool() for c in got], _kept(toy.edit, toy.loss, sizes, out=math.inf)):
            return (
                f"yours leave {left}: features that are out are chosen again, and so too few are left; "
                "a minus after `masked_fill` turns −inf into +inf"
            )
        return None if left == [8, *sizes] else f"8 features, then {sizes} are to be left; yours leave {left}"

    def the_best(answer: Callable) -> str | None:
        got = [c.bool() for c in asked(answer)]
        if _same(got, right):
            return None
        if not torch.equal(got[0], right[0]):
            return "the first mask is `edit.used`: not every feature changes in every sentence"
        for told, how in THINNED:
            if _same(got, _kept(toy.edit, toy.loss, sizes, **how)):
                return told
        first = next(i for i, (a, b) in enumerate(zip(got, right)) if not torch.equal(a, b))
        return f"from {int(right[first].sum(1).max())} features on others are kept than those of most worth"

    def much_harm(answer: Callable) -> str | None:
        harm = _Toy(harmful=range(2, 8))
        got = [torch.as_tensor(c).bool() for c in answer(harm.edit, harm.loss, list(sizes))]
        if _same(got, solution_thin_out(harm.edit, harm.loss, sizes)):
            return None
        told = "where most features do harm, too few are left, or others than those of most worth"
        return f"{told}: those that are out already must rank below all, at −inf; a worth of 0 is above that of harm"

    hints = (
        "edit.x + edit.added(chosen) / 2 is halfway; torch.autograd.grad(loss(x).sum(), x)[0] is the gradient there.",
        "A feature's worth is summed over positions: its change times (direction · gradient), with a minus.",
    )
    praise = "One forward and one backward pass for each stage, where the paper's order takes one for each feature."
    return judge("Exercise 2", answer, [as_many, the_best, much_harm], hints, praise)


def solution_thin_out(edit: Edit, loss: Loss, sizes: Sequence[int]) -> list[Tensor]:
    """Each prompt keeps features of its own: those of most worth halfway, weighed again at every stage."""
    return _kept(edit, loss, sizes)


def _same(got: Sequence[Tensor], wanted: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def _kept(
    edit: Edit,
    loss: Loss,
    sizes: Sequence[int],
    weigh: Callable[[Tensor, Tensor], Tensor] = _by_slope,
    at: float = 0.5,
    of_x: float = 1.0,
    again: bool = True,
    back: bool = False,
    out: float = -math.inf,
) -> list[Tensor]:
    """The solution; or what comes out if features are weighed otherwise, at another point of the way, from a share of x
    alone, once only, or among all features at every stage; or if what is out already has another worth."""
    chosen, worth = edit.used, None
    stages = [chosen]
    for size in sizes:
        if worth is None or again:
            x = (of_x * edit.x + at * edit.added(chosen)).requires_grad_()
            slope = torch.autograd.grad(loss(x).sum(), x)[0]
            worth = weigh(edit.changes, slope @ edit.directions.T)
        open_to = edit.used if back else chosen
        best = worth.masked_fill(~open_to, out).topk(size, dim=1).indices
        chosen = torch.zeros_like(chosen).scatter(1, best, True) & open_to
        stages.append(chosen)
    return stages


# Exercise 3: how many to half the way?


def check_halfway(answer: Any) -> Verdict:
    """`answer(counts, losses)`: the count at which the loss is half of that at count 0, on straight lines; or inf."""

    def plain(answer: Callable) -> str | None:
        got = float(answer([0, 1, 2, 6, 12], [8.0, 7.0, 5.0, 3.6, 0.8]))
        if math.isclose(got, 2 + 4 * 1.0 / 1.4, abs_tol=1e-4):
            return None
        if got == 6:
            return "6 is the first count that was tried at which half is reached; the line from 2 to 6 is there earlier"
        if got == 2:
            return "with 2 features the loss is 5.0, not yet half of 8.0"
        if got == 3:
            return "3 is a position in the list, the first at which half is reached; a number of features is asked for"
        if got == 12:
            return "12 is the last count; if you use np.interp, it wants rising x, and losses fall (and may rise again)"
        if math.isclose(got, 4):
            return "4 is the middle of 2 and 6; the loss falls from 5.0 to 3.6 between them, and is at 4.0 later"
        if math.isclose(got, 2 + 4 * 0.4 / 1.4, abs_tol=1e-4):
            return "3.14 is as far from 2 as the crossing is from 6: the way begins at the loss of 2 features, 5.0"
        if math.isclose(got, 2 + 1.0 / 1.4, abs_tol=1e-4):
            return "2.71 is a position in the list; the count is asked for, and from 2 to 6 there are four"
        if math.isclose(got, 2 + 4 * 0.6 / 1.4, abs_tol=1e-4):
            return "half of the first loss, 8.0, is 4.0; yours is the middle between the first loss and the last one"
        told = "losses 8, 7, 5, 3.6, 0.8 for 0, 1, 2, 6, 12 features: the line from 2 to 6 crosses 4.0 at 4.86"
        return f"{told}, you say {got:.3g}"

    def exactly(answer: Callable) -> str | None:
        got = float(answer([0, 3, 5], [6.0, 3.0, 0.0]))
        return None if math.isclose(got, 3, abs_tol=1e-6) else "exactly half counts as half: 3"

    def bumpy(answer: Callable) -> str | None:
        got = float(answer([0, 1, 2, 4], [4.0, 1.5, 2.5, 1.0]))
        return (
            None
            if math.isclose(got, 0.8, abs_tol=1e-4)
            else ("a loss may rise again after it first reached half; the smallest count is asked for")
        )

    def rising(answer: Callable) -> str | None:
        got = float(answer([0, 1, 2, 4], [4.0, 6.0, 2.5, 1.5]))
        return (
            None
            if math.isclose(got, 3.0, abs_tol=1e-4)
            else ("the first loss is the measure, even where a bad patch makes it larger than that")
        )

    def never(answer: Callable) -> str | None:
        try:
            got = float(answer([0, 1, 1000], [9.0, 8.0, 6.0]))
        except NotAnswered:
            return "yours returns None where half is never reached; infinity is asked for"
        return (
            None if math.isinf(got) else "a dictionary whose floor lies above half never gets there: say float('inf')"
        )

    hints = (
        "Walk through the pairs of neighbours: at which pair is the loss first at half or below?",
        "Within that pair the share of the way in counts is the share of the way in losses; did you return the result?",
    )
    praise = "One number for each sentence, so two dictionaries can be compared sentence by sentence, as pairs."
    return judge("Exercise 3", answer, [plain, exactly, bumpy, rising, never], hints, praise)


def solution_halfway(counts: Sequence[float], losses: Sequence[float]) -> float:
    """On a straight line between the first count that is there and the one before."""
    half = losses[0] / 2
    for i in range(1, len(counts)):
        if losses[i] <= half:
            part = (losses[i - 1] - half) / (losses[i - 1] - losses[i])
            return counts[i - 1] + part * (counts[i] - counts[i - 1])
    return math.inf


# Exercise 4: find the bug: does one feature stand for one value?


def f1(active: Tensor, has: Tensor) -> Tensor:
    """F1, the harmonic mean of precision and recall, of each feature (B, F) for a value that is there in `has` (B,)."""
    both = (active & has[:, None]).sum(0)
    return 2 * both / (active.sum(0) + has.sum()).clamp(min=1)


def best_feature_with_a_bug(active: Tensor, has: Tensor) -> float:
    """How well the best single feature stands for the value."""
    return float(f1(active, has).max())


def check_best_feature(answer: Any) -> Verdict:
    """`answer(active, has)`: F1 of the best feature, chosen on the first half of the sentences, scored on the rest."""
    generator = torch.Generator().manual_seed(0)
    noises = torch.rand(8, 400, 2000, generator=generator) < 0.05
    has, noise = torch.rand(400, generator=generator) < 0.05, noises[0]
    real = noise.clone()
    real[:, 7] = has ^ (torch.rand(400, generator=generator) < 0.01)

    def by_chance(answer: Callable) -> str | None:
        scores = [float(answer(one, has)) for one in noises]  # one alone may be high by luck of the halves
        got, bug = sum(scores) / len(scores), best_feature_with_a_bug(noise, has)
        if got > 1:
            return f"an F1 is at most 1, you return {got:.0f}: the score of the best feature, not its number"
        if got > 0.7 * bug:
            return f"for pure noise you find an F1 of {got:.2f}: the best of 2,000 is scored where it was chosen"
        half = [float(f1(noise[part], has[part]).max()) for part in (slice(200), slice(200, None))]
        if any(math.isclose(scores[0], one, abs_tol=1e-6) for one in half):
            return f"for pure noise you find {got:.2f}: choose on one half, and score on the *other*"
        return None

    def still_found(answer: Callable) -> str | None:
        got, right = float(answer(real, has)), solution_best_feature(real, has)
        return (
            None
            if abs(got - right) < 0.08
            else f"feature 7 is there with the value, F1 {right:.2f} on the second half; you say {got:.2f}"
        )

    hints = (
        "Try it on labels in random order. What should come out, and what does?",
        "The choice among many features is made on the same sentences as the score.",
    )
    praise = "Choosing the best of many is a fit, and a fit is scored on what it has not seen."
    return judge("Exercise 4", answer, [by_chance, still_found], hints, praise)


def solution_best_feature(active: Tensor, has: Tensor) -> float:
    """Chosen on the first half, scored on the second."""
    half = len(has) // 2
    best = int(f1(active[:half], has[:half]).argmax())
    return float(f1(active[half:], has[half:])[best])


# Exercise 5: predict what is hidden.


def check_gain(answer: Any) -> Verdict:
    """`answer(norm, penalty)`: what a feature of its own saves (error² + penalty · code) for a vector so long."""

    def strong(answer: Callable) -> str | None:
        got = float(answer(2.0, 1.0))
        if math.isclose(got, 4.0):
            return "4 is the error without the feature; with it there is still a penalty to pay"
        if math.isclose(got, 2.0):
            return "2 is what codes of 2 and of 1 save; the best lies between them, norm − penalty/2, and saves more"
        if math.isclose(got, 1.75):
            return (
                "1.75 is what there is to pay with the best code; without it there are 4, and the gain is between them"
            )
        if math.isclose(got, 1.5):
            return "1.5 is the best code, not what it saves: how much lower is the loss with it than with z = 0?"
        return (
            None
            if math.isclose(got, 2.25, abs_tol=1e-6)
            else f"norm 2, penalty 1: the best code is 1.5 and saves 2.25; you say {got:.4g}"
        )

    def weak(answer: Callable) -> str | None:
        got = float(answer(0.4, 1.0))
        if abs(got) < 1e-6:
            return None
        if math.isclose(got, 0.01, abs_tol=1e-6):
            return "norm 0.4, penalty 1: 0.01 is what a code of −0.1 saves, and a code cannot be negative"
        return f"norm 0.4, penalty 1: no feature is cheapest, so nothing is saved; you say {got:.3g}"

    def searched(answer: Callable) -> str | None:
        if float(answer(1.0, 1.5)) == 0:
            return (
                "norm 1, penalty 1.5: a code of 0.25 still saves 0.06; it stops paying at penalty 2 · norm, not at norm"
            )
        codes = torch.linspace(0, 3, 30_001)
        for norm, penalty in ((1.0, 1.0), (1.0, 1.5), (1.5, 0.6), (0.9, 2.5)):
            best = norm**2 - float(((norm - codes) ** 2 + penalty * codes).min())
            if not math.isclose(float(answer(norm, penalty)), best, abs_tol=1e-3):
                return f"norm {norm}, penalty {penalty}: a search over codes saves {best:.3f}"
        return None

    hints = (
        "At which z does the derivative of the loss vanish?",
        "May z be there? It cannot be negative.",
    )
    praise = "(norm − λ/2)₊²: half the length is worth far less than half, so the weaker attribute is lost first."
    return judge("Exercise 5", answer, [strong, weak, searched], hints, praise)


def solution_gain(norm: float, penalty: float) -> float:
    """The square of what is left of the norm after the penalty."""
    return max(0.0, norm - penalty / 2) ** 2
