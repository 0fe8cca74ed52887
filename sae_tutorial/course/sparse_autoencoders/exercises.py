"""Exercises of notebook 04: sparse autoencoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from sae_tutorial.course.judge import NotAnswered, Verdict, judge
from sae_tutorial.course.sparse_autoencoders import by_hand
from sae_tutorial.evaluation import ground_truth

# Exercise 1: an autoencoder, its loss, and a step of training.

PARTS = ("my_encode", "my_decode", "my_loss", "my_step")
COLUMNS = "you normalise the columns of W_dec, one for each dimension; a feature is a row"
NUMPY = "return a tensor: NumPy has no gradients, and without them nothing can be trained"
SHAPES = "the shapes do not fit. Given are {given}; asked for is {asked}. Mind the order, and which of them needs a .T"
SILENT = "your step trains, but returns nothing; return the loss as a number"
WHOLE = "you divide by the norm of the whole matrix; each row has its own: W_dec.norm(dim=1, keepdim=True)"
IN_PLACE = (
    "PyTorch forbids changing a parameter in place while it records gradients. Do it inside `with torch.no_grad():`, "
    "or change `W_dec.data`"
)


def check_sae(my_encode: Any, my_decode: Any, my_loss: Any, my_step: Any) -> Verdict:
    """What `by_hand` calls encode, decode, loss_of and train_step, each judged where those before it are right."""
    answers = (my_encode, my_decode, my_loss, my_step)
    lines: list[str] = []
    for part, answer, check in zip(PARTS, answers, (_check_encode, _check_decode, _check_loss, _check_step)):
        verdict = check(f"Exercise 1, {part}", answer)
        lines.append(verdict.message)
        if not verdict:
            return Verdict(False, "\n".join(lines))
    return Verdict(True, "\n".join(lines))


def _toy(n_features: int = 6, d: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """x (50, d), W_dec (F, d) with rows of norm 1, b_enc (F,)."""
    draw = torch.Generator().manual_seed(0)
    W_dec = normalize(torch.randn(n_features, d, generator=draw), dim=1)
    return torch.randn(50, d, generator=draw), W_dec, 0.3 * torch.randn(n_features, generator=draw)


def _check_encode(name: str, answer: Any) -> Verdict:
    x, W_dec, b_enc = _toy()

    def right(answer: Callable) -> str | None:
        z = by_hand.encode(x, W_dec, b_enc)
        try:
            got = answer(x, W_dec, b_enc)
        except (RuntimeError, ValueError) as error:
            return _misfit(error, given="x (50, 4), W_dec (6, 4) and b_enc (6,)", asked="the code, (50, 6)")
        if isinstance(got, np.ndarray):
            return NUMPY
        if not isinstance(got, Tensor) or got.shape != z.shape:
            shape = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
            return f"for 50 tokens and 6 features the code is (50, 6), yours is {shape}"
        if torch.allclose(got, z, atol=1e-5):
            return None
        if torch.allclose(got, torch.relu(x @ W_dec.T) + b_enc, atol=1e-5):
            return "the bias comes before the ReLU, else it cannot switch a feature off"
        if (got < -1e-6).any():
            return f"your code has negative entries ({got.min():.2f}); ReLU makes them 0"
        if torch.allclose(got, by_hand.encode(x, W_dec, 0 * b_enc), atol=1e-5):
            return "this is the code without a bias"
        if torch.allclose(got, by_hand.encode(x, W_dec, -b_enc), atol=1e-5):
            return "you subtract the bias; the formula adds it"
        return f"the first token's code is {_few(z[0])}; yours is {_few(got[0])}"

    hints = (
        "how strong is the direction W_dec[f] in x? That is a scalar product, for all tokens and features at once.",
        "the shapes say what to transpose: (B, D) times (D, F) is (B, F).",
    )
    return judge(name, answer, [right], hints, "right.")


def _check_decode(name: str, answer: Any) -> Verdict:
    x, W_dec, b_enc = _toy()
    z = by_hand.encode(x, W_dec, b_enc)

    def right(answer: Callable) -> str | None:
        x_hat = by_hand.decode(z, W_dec)
        try:
            got = answer(z, W_dec)
        except (RuntimeError, ValueError) as error:
            return _misfit(error, given="z (50, 6) and W_dec (6, 4)", asked="the reconstruction, (50, 4)")
        if isinstance(got, np.ndarray):
            return NUMPY
        got = torch.as_tensor(got)
        if got.shape != x_hat.shape:
            return f"a reconstruction has the shape of x, (50, 4); yours has {tuple(got.shape)}"
        if torch.allclose(got, x_hat, atol=1e-5):
            return None
        return f"the first token's reconstruction is {_few(x_hat[0])}; yours is {_few(got[0])}"

    hints = ("x̂ is a sum of rows of W_dec, each times its entry of z.", "(B, F) times (F, D) is (B, D).")
    return judge(name, answer, [right], hints, "right.")


def _misfit(error: Exception, *, given: str, asked: str) -> str:
    """What to say of an error about shapes, torch's or NumPy's; any other goes on to `judge`."""
    if not any(word in str(error) for word in ("shape", "size", "broadcast")):
        raise error
    return SHAPES.format(given=given, asked=asked)


def _check_loss(name: str, answer: Any) -> Verdict:
    x, W_dec, b_enc = _toy()

    def right(answer: Callable) -> str | None:
        z = by_hand.encode(x, W_dec, b_enc)
        error, price = (by_hand.decode(z, W_dec) - x).square(), z.sum(dim=1).mean()
        got, loss = answer(x, W_dec, b_enc, 0.5), by_hand.loss_of(x, W_dec, b_enc, 0.5)
        if isinstance(got, np.ndarray | np.generic):
            return NUMPY
        if getattr(got, "shape", ()) != ():
            return f"a loss is one number, yours has shape {tuple(got.shape)}: take the mean over tokens"
        likely = {
            "the squared error is missing λ · (sum of the code)": error.sum(dim=1).mean(),
            "the sum of the code is not multiplied by λ": error.sum(dim=1).mean() + price,
            "mse_loss and mean() also average over dimensions and features; the formula takes sums, and only then the "
            "mean over tokens": error.mean() + 0.5 * z.mean(),
            "you take the mean of the squared error over dimensions, the formula takes their sum": error.mean()
            + 0.5 * price,
            "you take the mean of the code over features, the formula takes their sum": error.sum(dim=1).mean()
            + 0.5 * z.mean(),
            "you sum over tokens; take their mean, or the loss depends on the size of the batch": 50 * loss,
            "the penalty is on the code, not on the weights": error.sum(dim=1).mean() + 0.5 * W_dec.abs().sum(),
            "the error is a sum of squares, without a root": error.sum(dim=1).sqrt().mean() + 0.5 * price,
            "L1 is the sum of the code, not of its squares": error.sum(dim=1).mean()
            + 0.5 * z.square().sum(dim=1).mean(),
            "you count the active features; a count has no gradient, and L1 is the sum of the code": error.sum(
                dim=1
            ).mean()
            + 0.5 * z.gt(0).sum(dim=1).float().mean(),
            "mse_loss and mean() also average over dimensions, and z.sum() also sums over tokens; sum both with dim=1, "
            "and then take the mean over tokens": error.mean() + 0.5 * z.sum(),
            "your sum of the code runs over tokens, too; take their mean": error.sum(dim=1).mean() + 0.5 * z.sum(),
        }
        for why, wrong in likely.items():
            if abs(float(got) - float(wrong)) < 1e-4:
                return why
        if abs(float(got) - float(loss)) > 1e-4:
            return f"here it is {loss:.3f}; yours is {float(got):.3f}"
        with torch.enable_grad():
            again = answer(x, W_dec.clone().requires_grad_(), b_enc.clone().requires_grad_(), 0.5)
        if isinstance(again, Tensor) and again.requires_grad:
            return None
        return (
            "the number is right, but it has lost its gradient, as `.item()`, `float()` and `.detach()` do. Return the "
            "tensor: the step needs the gradient"
        )

    hints = (
        "for each token, sum over its dimensions and over its features; then take the mean over tokens.",
        "two sums with dim=1, one mean at the end.",
    )
    return judge(name, answer, [right], hints, "right.")


def _check_step(name: str, answer: Any) -> Verdict:
    x, W_0, b_0 = _toy()

    def after(step: Callable, n: int, lam: float = 0.3) -> tuple[Tensor, Tensor, list]:
        W_dec, b_enc = W_0.clone().requires_grad_(), b_0.clone().requires_grad_()
        adam = torch.optim.Adam([W_dec, b_enc], lr=0.05)
        said = [step(x, W_dec, b_enc, lam, adam) for _ in range(n)]
        return W_dec.detach(), b_enc.detach(), said

    def same(one: tuple, other: tuple) -> bool:
        return all(torch.allclose(a, b, atol=1e-4) for a, b in zip(one[:2], other[:2]))

    def returns(_: Callable) -> str | None:
        try:
            W_dec, b_enc, said = after(answer, 1)
        except RuntimeError as error:
            return _forbidden(error)
        if said != [None]:
            return None
        if same((W_dec, b_enc), (W_0, b_0)):
            raise NotAnswered
        return SILENT

    no_lam = "this step does not depend on lam"

    def one_step(answer: Callable) -> str | None:
        W_dec, b_enc, said = after(answer, 1)
        if torch.allclose(W_dec, W_0, atol=1e-6) and torch.allclose(b_enc, b_0, atol=1e-6):
            return (
                "W_dec and b_enc are where they were: it takes loss.backward() and then adam.step(), with no "
                "zero_grad() between them"
            )
        if torch.allclose(b_enc, b_0, atol=1e-6):
            return "b_enc is where it was: both parameters are to be trained"
        norms = W_dec.norm(dim=1)
        if ((W_dec.norm(dim=0) - 1).abs() < 1e-4).all():
            return COLUMNS
        if abs(W_dec.norm() - 1) < 1e-4:
            return WHOLE
        if (norms - 1).abs().max() > 1e-4:
            return (
                f"after the step the rows of W_dec have norms from {norms.min():.3f} to {norms.max():.3f}; bring them "
                "back to 1 after adam.step(), and in place, or the caller never sees it"
            )
        if not any(same((W_dec, b_enc), after(one, 1)) for one in (by_hand.train_step, _plain_step)):
            if same((W_dec, b_enc), after(_plain_step, 1, lam=0.0)):
                return no_lam
            if torch.allclose(W_dec, W_0, atol=1e-6):
                return "W_dec is where it was: both parameters are to be trained"
            return "the rows have norm 1, but the step is not Adam's on this loss"
        if same(after(answer, 3, lam=0.3), after(answer, 3, lam=0.9)):  # Adam's first step is little more than a sign
            return no_lam
        value = said[0].detach() if isinstance(said[0], Tensor) else said[0]
        if abs(float(value) - float(by_hand.loss_of(x, W_0, b_0, 0.3))) > 1e-4:
            return "return the loss of this batch before the step"
        return None

    def two_steps(answer: Callable) -> str | None:
        if any(same(after(answer, 3), after(one, 3)) for one in (by_hand.train_step, _plain_step)):
            return None
        return "the first step is right, the next ones are not: gradients add up until somebody sets them to zero"

    hints = (
        "the order of PyTorch: loss, zero_grad, backward, step; then the norms.",
        "W_dec.data is the tensor behind the parameter; assign to it what torch.nn.functional.normalize returns.",
    )
    praise = "right. That is a sparse autoencoder. Set use_mine = True, and the notebook runs on yours."
    return judge(name, answer, [returns, one_step, two_steps], hints, praise)


def _forbidden(error: RuntimeError) -> str:
    """What to say of a parameter that was changed in place; any other error goes on to `judge`."""
    if "leaf Variable that requires grad" not in str(error):
        raise error
    return IN_PLACE


def _plain_step(x: Tensor, W_dec: Tensor, b_enc: Tensor, lam: float, adam: torch.optim.Optimizer) -> float:
    """The same step with the whole gradient, also its part along each row: as good an answer."""
    loss = by_hand.loss_of(x, W_dec, b_enc, lam)
    adam.zero_grad()
    loss.backward()
    adam.step()
    W_dec.data = normalize(W_dec.data, dim=1)
    return loss.item()


# Exercise 2: which dictionary is best?

DICTIONARIES = ("SAE", "k-means", "sampled tokens")


def note_prediction(best: str | None, error: float | None) -> Verdict:
    """Is this a prediction that can be compared later: one of `DICTIONARIES`, and a share between 0 and 1?"""
    name = "Exercise 2"
    if best is None or error is None:
        return Verdict(False, f"○ {name}: not answered yet.")
    if best not in DICTIONARIES:
        return Verdict(False, f"○ {name}: choose one of {', '.join(map(repr, DICTIONARIES))}.")
    if not isinstance(error, Real):
        return Verdict(False, f"○ {name}: give the share as a number, without quotes: 0.2 is 20%.")
    if not 0 < error < 1:
        return Verdict(False, f"○ {name}: a share lies between 0 and 1; 0.2 is 20%.")
    return Verdict(True, f"{name}: noted. You expect {best!r} to leave least, {error:.0%}. The next cell measures.")


def check_prediction(best: str | None, error: float | None, measured: Mapping[str, float]) -> Verdict:
    """`best`: what in `measured` leaves the least error; `error`: how much that is. A guess of it is only compared."""
    noted = note_prediction(best, error)
    if not noted:
        return noted
    assert error is not None
    names = ", ".join(f"{name} {share:.0%}" for name, share in sorted(measured.items(), key=lambda pair: pair[1]))
    winner = min(measured, key=lambda name: measured[name])
    least = measured[winner]
    guess = f"For the least error you said {error:.0%}: {_near(error, least, 0.03)}."
    if best == winner:
        return Verdict(True, f"✓ Exercise 2: error left: {names}. {guess}")
    return Verdict(False, f"✗ Exercise 2: the least is left by {winner}: {names}. {guess}")


def _near(guess: float, measured: float, within: float) -> str:
    return "close" if abs(guess - measured) <= within else "it is less" if measured < guess else "it is more"


# Exercise 3: what an L1 penalty does to one number.


def check_best_code(answer: Any) -> Verdict:
    """`answer(a, lam)`: the z ≥ 0 that minimises (a − z)² + lam · z."""

    def silent_below(answer: Callable) -> str | None:
        got = float(answer(0.1, 0.4))
        if got < 0:
            return f"for a = 0.1 and λ = 0.4 you answer {got:.2f}; a code is never negative"
        return None if got == 0 else f"for a = 0.1 and λ = 0.4 any code costs more than it saves; you say {got:.2f}"

    def best_elsewhere(answer: Callable) -> str | None:
        for a, lam in ((1.0, 0.4), (0.7, 0.1), (2.0, 1.0), (0.3, 0.4)):
            got, right = float(answer(a, lam)), solution_best_code(a, lam)
            if abs(got - right) > 1e-5:
                twice = abs(got - (a - lam)) < 1e-5
                why = ": the derivative of (a − z)² is −2 (a − z), so mind the 2" if twice else ""
                if abs(got - a) < 1e-5:
                    why = ": without a penalty a would be best, but each unit of z costs λ"
                if got > a + 1e-5:
                    why = ": a penalty makes codes smaller, not larger"
                if got == 0:
                    why = ": this feature is not lost, only one below λ/2 is"
                if abs(got - a * (1 - lam / 2)) < 1e-5:
                    why = ": what is lost does not grow with a"
                return f"for a = {a:g} and λ = {lam:g} the best code is {right:.2f}; you say {got:.2f}{why}"
        return None

    hints = ("where is the derivative of the loss with respect to z zero?", "and what if that z is negative?")
    praise = "Every code that survives is too small by λ/2, however large it is."
    return judge("Exercise 3", answer, [best_elsewhere, silent_below], hints, praise)


def solution_best_code(a: float, lam: float) -> float:
    """max(a − λ/2, 0)."""
    return max(a - lam / 2, 0.0)


# Exercise 4: find the bug.

HELD = "rows held at norm 1 reach 0.99"


def check_mended(answer: Any) -> Verdict:
    """`answer(x, W_enc, b_enc, W_dec, lam, adam)`: a step in which no row of W_dec can buy a smaller penalty by its
    norm. Whatever achieves that is right: rows at norm 1, before the step or after; rows at most that long; norms in
    the penalty, or taken out when decoding. Where the rows are not at norm 1, a step is also judged by what it finds:
    a penalty on something else can hold the norms, too, and miss the truth."""
    x, W_0, b_0 = _toy()
    found: list[float] = []  # filled where the norms are free

    def after(step: Callable, n: int = 5, lam: float = 0.3) -> tuple[list[Tensor], Any]:
        W_enc, b_enc, W_dec = (one.clone().requires_grad_() for one in (W_0.T, b_0, W_0))
        adam, said = torch.optim.Adam([W_enc, b_enc, W_dec], lr=0.05), None
        for _ in range(n):
            said = step(x, W_enc, b_enc, W_dec, lam, adam)
        return [W_enc.detach(), b_enc.detach(), W_dec.detach()], said

    def same(one: list[Tensor], other: list[Tensor]) -> bool:
        return all(torch.allclose(a, b, atol=1e-4) for a, b in zip(one, other))

    def returns(_: Callable) -> str | None:
        try:
            got, said = after(answer, 1)
        except RuntimeError as error:
            return _forbidden(error)
        if said is not None:
            return None
        if same(got, [W_0.T, b_0, W_0]):
            raise NotAnswered
        return SILENT

    def mended(answer: Callable) -> str | None:
        got, broken = after(answer)[0], after(by_hand.broken_step)[0]
        norms = got[2].norm(dim=1)
        told = f"the rows of W_dec have norms from {norms.min():.2f} to {norms.max():.2f} after five steps"
        if same(got, broken):
            return f"this trains exactly as before: {told}. A new tensor that is only called W_dec changes nothing"
        if same(got[:1], [W_0.T]):
            return "the encoder does not learn any more"
        if same(got[2:], [W_0]):
            return "the decoder does not learn any more"
        if ((got[2].norm(dim=0) - 1).abs() < 1e-4).all():
            return COLUMNS
        if abs(got[2].norm() - 1) < 1e-4:
            return WHOLE
        if torch.allclose(got[2], normalize(got[0].T, dim=1), atol=1e-4):
            return "W_enc and W_dec are copies of each other in yours: what one of them has learned is lost"
        held, encoder_held = (((size - 1).abs() < 1e-4).all() for size in (norms, got[0].norm(dim=0)))
        if same(got, after(answer, lam=0.9)[0]):
            return "your step does not depend on λ any more: you removed the penalty, not its loophole"
        if held:
            return None
        trades, cosines = encoder_held or _trades(answer), _cosines_with_the_truth(answer)
        if cosines[-1] >= 0.95:
            found[:] = cosines if trades else []
            return None
        if encoder_held:
            return (
                "you keep the encoder's norms at 1, and the decoder's are free. That often works, but not always: "
                f"{_of_starts(cosines)}; {HELD}. The exercise asks for rows of W_dec that cannot grow"
            )
        if trades:
            return f"{told}: they can still trade the size of codes for their own, and {_of_starts(cosines)}; {HELD}"
        return (
            f"longer rows no longer make the penalty smaller, but {_of_starts(cosines)}; {HELD}. Leave the "
            "penalty at λ times the sum of the code, and hold the norms"
        )

    hints = (
        "multiply the decoder by 10 and divide encoder and bias by 10. What happens to each term of the loss?",
        "your own my_step of Exercise 1 does one thing more.",
    )

    def praise(_: Callable) -> str:
        if not found:
            return "Now a code cannot shrink at the decoder's expense, and λ means what it says."
        return (
            f"It works on this data: {_of_starts(found)}. But rows of W_dec can still become longer while codes "
            "become shorter, so how much λ costs may change as training goes on. Rows kept at norm 1 rule that out."
        )

    return judge("Exercise 4", answer, [returns, mended], hints, praise)


def _cosines_with_the_truth(step: Callable) -> list[float]:
    """The notebook's experiment from three starts, or until one fails: how close the rows come to the truth."""
    truth = ground_truth.random_directions(64, 32, seed=0)
    x = ground_truth.sparse_strengths(40_000, 3 / 64, n=64, seed=1) @ truth
    x = x / x.square().sum(dim=1).mean().sqrt()
    cosines: list[float] = []
    for start in range(3):
        rows = by_hand.train_untied(step, x, 64, 0.1, 1_500, seed=start)[0]
        cosines.append(float(ground_truth.mean_max_cosine(truth, rows)))
        if not cosines[-1] >= 0.95:  # one failure is enough, and so is NaN
            break
    return cosines


def _of_starts(cosines: list[float]) -> str:
    told = "the true directions are found with a mean cosine of " + ", ".join(f"{cosine:.3f}" for cosine in cosines)
    return told + (", one number for each random start" if len(cosines) > 1 else "")


def _trades(step: Callable, n_features: int = 64, lam: float = 0.1) -> bool:
    """Does the loss fall if one row of W_dec becomes longer or shorter, and its code shorter or longer by as much?

    Where nothing holds the norms, the reconstruction stays perfect and only the penalty changes. The optimiser's
    learning rate is 0: what a step does to the norms is all that moves. Many features, so that a bound on the norm of
    the whole matrix does not pass for one on each row.
    """
    rows = torch.linalg.qr(torch.randn(n_features, n_features, generator=torch.Generator().manual_seed(0))).Q
    x = torch.full((20, n_features), 2.0) @ rows

    def loss(stretch: float) -> float:
        sizes = torch.ones(n_features)
        sizes[0] = stretch
        W_enc, W_dec = (rows / sizes[:, None]).T.clone().requires_grad_(), (rows * sizes[:, None]).requires_grad_()
        b_enc = torch.zeros(n_features, requires_grad=True)
        adam = torch.optim.Adam([W_enc, b_enc, W_dec], lr=0.0)
        return [float(step(x, W_enc, b_enc, W_dec, lam, adam)) for _ in range(2)][-1]

    return min(map(loss, (0.8, 1.25, 2.0))) < loss(1.0) - 1e-3


# Exercise 5: how many features may be on at once before k-means loses them?

FAR = 0.2  # of MMCS


def note_fall(on: int | None, choices: Sequence[int]) -> Verdict:
    """Is this one of the numbers of features that will be tried?"""
    name = "Exercise 5"
    if on is None:
        return Verdict(False, f"○ {name}: not answered yet.")
    if not isinstance(on, Real) or on not in choices:
        return Verdict(False, f"○ {name}: choose one of {', '.join(map(str, choices))}, without quotes.")
    return Verdict(True, f"{name}: noted. You expect k-means to be far behind first at {on:g}. The next cell measures.")


def check_fall(on: int | None, closeness: Mapping[int, tuple[float, float]]) -> Verdict:
    """`on`: where k-means is first more than FAR behind; `closeness`: on -> MMCS of SAE and of k-means."""
    noted = note_fall(on, list(closeness))
    if not noted:
        return noted
    assert on is not None
    told = {n: f"{sae:.2f} against {k_means:.2f}" for n, (sae, k_means) in closeness.items()}
    first = next((n for n, (sae, k_means) in closeness.items() if sae - k_means > FAR), None)
    if first is None:
        return Verdict(False, f"✗ Exercise 5: k-means is far behind at none of them; at {on:g} it is {told[on]}.")
    if on == first:
        return Verdict(True, f"✓ Exercise 5: SAE against k-means, at {on:g} it is {told[on]}, and before that closer.")
    return Verdict(False, f"✗ Exercise 5: SAE against k-means, at {on:g} it is {told[on]}, at {first} {told[first]}.")


# Exercise 6: who agrees with another run of itself?


def note_shares(saes: float | None, k_means: float | None) -> Verdict:
    """Are these two shares, of features that two SAEs share and of centres that two runs of k-means share?"""
    name = "Exercise 6"
    if saes is None or k_means is None:
        return Verdict(False, f"○ {name}: not answered yet.")
    if not all(isinstance(share, Real) and 0 <= share <= 1 for share in (saes, k_means)):
        return Verdict(False, f"○ {name}: give two shares, numbers from 0 to 1: 0.2 is 20%.")
    said = f"two SAEs to share {saes:.0%} and two runs of k-means {k_means:.0%}"
    return Verdict(True, f"{name}: noted. You expect {said}. The next cell measures.")


def check_shares(saes: float | None, k_means: float | None, measured: tuple[float, float]) -> Verdict:
    """Is the one that shares more in `measured` (SAEs, k-means) expected to? The sizes are only compared."""
    noted = note_shares(saes, k_means)
    if not noted:
        return noted
    assert saes is not None and k_means is not None
    pairs = zip(("SAEs", "runs of k-means"), (saes, k_means), measured)
    told = "; ".join(
        f"two {who} share {share:.0%}, you said {guess:.0%}: {_near(guess, share, 0.1)}" for who, guess, share in pairs
    )
    right = bool((saes < k_means) == (measured[0] < measured[1]))
    return Verdict(right, f"{'✓ Exercise 6' if right else '✗ Exercise 6, who shares more'}: {told}.")


def _few(values: Tensor) -> list[float]:
    return [round(value, 2) for value in values.tolist()]
