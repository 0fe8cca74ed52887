"""Exercises of notebook 04: sparse autoencoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge
from sae_tutorial.evaluation.ground_truth import mean_max_cosine, random_directions

# Exercise 1: what an L1 penalty does to one number.


def check_best_code(answer: Any) -> Verdict:
    """`answer(s, alpha)`: the c ≥ 0 that minimises (s − c)² + alpha · c."""

    def silent_below(answer: Callable) -> str | None:
        got = float(answer(0.1, 0.4))
        if got < 0:
            return f"for s = 0.1 and α = 0.4 you answer {got:.2f}; a code is never negative"
        return None if got == 0 else f"s = 0.1 is not worth its price at α = 0.4: the best code is 0, you say {got:.2f}"

    def best_elsewhere(answer: Callable) -> str | None:
        for s, alpha in ((1.0, 0.4), (0.7, 0.1), (2.0, 1.0)):
            got, right = float(answer(s, alpha)), solution_best_code(s, alpha)
            if abs(got - right) > 1e-5:
                twice = abs(got - (s - alpha)) < 1e-5
                why = ": the derivative of (s − c)² is −2 (s − c), so mind the 2" if twice else ""
                return f"for s = {s:g} and α = {alpha:g} the best code is {right:.2f}; you say {got:.2f}{why}"
        return None

    hint = "set the derivative, −2 (s − c) + α, to zero, and see what happens when that c is negative."
    praise = "A constant tax: every code that survives is too small by α/2, however large it is."
    return judge("Exercise 1", answer, [best_elsewhere, silent_below], hint, praise)


def solution_best_code(s: float, alpha: float) -> float:
    """max(s − α/2, 0)."""
    return max(s - alpha / 2, 0.0)


# Exercise 2: pay the tax back.


def check_refit(answer: Any) -> Verdict:
    """`answer(x, c, D)`: codes with the zeros of c that reconstruct x as well as they can. x (d,), c (F,), D (F, d)."""
    generator = torch.Generator().manual_seed(0)
    D = random_directions(12, 8, seed=1)
    truth = torch.zeros(12)
    truth[[1, 4, 10]] = torch.tensor([1.0, 0.6, 1.4])
    x = truth @ D + 0.05 * torch.randn(8, generator=generator)
    taxed = (truth - 0.2).clamp(min=0)
    best = solution_refit(x, taxed, D)

    def same_zeros(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(x, taxed.clone(), D))
        if got.shape != (12,):
            return f"you return shape {tuple(got.shape)}; one number for each of the 12 features is (12,)"
        extra = ((got.abs() > 1e-6) & (taxed == 0)).nonzero().flatten().tolist()
        return f"features {extra} were off and are now on; who is on is decided already" if extra else None

    def fits(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(x, taxed.clone(), D), dtype=torch.float32)
        before, after, floor = (float((x - c @ D).square().sum()) for c in (taxed, got, best))
        if after > floor + 1e-4:
            return f"the squared error was {before:.3f}, is {after:.3f} with yours, and could be {floor:.3f}"
        return None

    hint = "take the rows of D that are on, A = D[c > 0], and solve Aᵀ z ≈ x with torch.linalg.lstsq(A.T, x[:, None])."
    praise = "Selection from L1, strengths from least squares."
    return judge("Exercise 2", answer, [same_zeros, fits], hint, praise)


def solution_refit(x: Tensor, c: Tensor, D: Tensor) -> Tensor:
    """Least squares on the features that are on."""
    on = c > 0
    refitted = torch.zeros_like(c)
    if on.any():
        refitted[on] = torch.linalg.lstsq(D[on].T, x[:, None]).solution[:, 0]
    return refitted


# Exercise 3: dodge the penalty.


def check_dodge(answer: Any) -> Verdict:
    """`answer(W_enc, b_enc, W_dec, s)`: weights with the same reconstruction and codes s times smaller."""
    generator = torch.Generator().manual_seed(0)
    W_enc, W_dec = torch.randn(4, 6, generator=generator), torch.randn(6, 4, generator=generator)
    b_enc, x = torch.randn(6, generator=generator), torch.randn(50, 4, generator=generator)

    def run(W_enc: Tensor, b_enc: Tensor, W_dec: Tensor) -> tuple[Tensor, Tensor]:
        c = (x @ W_enc + b_enc).relu()
        return c, c @ W_dec

    def three_weights(answer: Callable) -> str | None:
        got = answer(W_enc.clone(), b_enc.clone(), W_dec.clone(), 10.0)
        if not isinstance(got, (tuple, list)) or len(got) != 3:
            return "return three things: the new W_enc, b_enc and W_dec"
        return None

    def smaller_codes(answer: Callable) -> str | None:
        for s in (10.0, 1000.0):
            c, _ = run(*answer(W_enc.clone(), b_enc.clone(), W_dec.clone(), s))
            right = run(W_enc, b_enc, W_dec)[0] / s
            if not torch.allclose(c, right, rtol=1e-3, atol=1e-6):
                ratio = float(right.sum() * s / c.sum().clamp(min=1e-12))
                forgot = torch.allclose(c, (x @ W_enc / s + b_enc).relu(), rtol=1e-3, atol=1e-6)
                why = ", and some have changed places: did you forget the bias?" if forgot else ""
                return f"with s = {s:g} the codes' sum should be {s:g} times smaller, it is {ratio:.3g} times{why}"
        return None

    def same_reconstruction(answer: Callable) -> str | None:
        _, x_hat = run(*answer(W_enc.clone(), b_enc.clone(), W_dec.clone(), 10.0))
        off = float((x_hat - run(W_enc, b_enc, W_dec)[1]).abs().max())
        return f"the codes are right, but the reconstruction moved by up to {off:.2f}" if off > 1e-3 else None

    hint = "relu(z / s) = relu(z) / s for positive s: divide on the way in, multiply on the way out."
    praise = "The L1 term fell to 1/s, nothing else happened. That is why the rows of the decoder are kept at norm 1."
    return judge("Exercise 3", answer, [three_weights, smaller_codes, same_reconstruction], hint, praise)


def solution_dodge(W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, s: float) -> tuple[Tensor, Tensor, Tensor]:
    """Divide what makes the code by s, multiply what reads it."""
    return W_enc / s, b_enc / s, W_dec * s


# Exercise 4: whom does a dead latent follow?


def check_draw(answer: Any) -> Verdict:
    """`answer(loss)`: the probability with which each token is drawn, proportional to its squared loss."""
    loss = torch.tensor([1.0, 2.0, 0.0, 4.0])

    def sums_to_one(answer: Callable) -> str | None:
        got = torch.as_tensor(answer(loss.clone()), dtype=torch.float32)
        if got.shape != (4,):
            return f"for four losses you return shape {tuple(got.shape)}; one probability each is (4,)"
        return None if abs(float(got.sum()) - 1) < 1e-5 else f"the probabilities sum to {got.sum():.3g}, not to 1"

    def squared(answer: Callable) -> str | None:
        got, right = torch.as_tensor(answer(loss.clone()), dtype=torch.float32), solution_draw(loss)
        if torch.allclose(got, right, atol=1e-5):
            return None
        if torch.allclose(got, loss / loss.sum(), atol=1e-5):
            return "these are proportional to the loss; twice the loss should be drawn four times as often"
        if torch.allclose(got, loss.softmax(0), atol=1e-5):
            return "that is a softmax: a token with loss 0 would still be drawn"
        numbers = [[round(value, 2) for value in p.tolist()] for p in (got, right)]
        return f"for losses 1, 2, 0, 4 you return {numbers[0]}; it should be {numbers[1]}"

    hint = "square the losses, then divide by their sum."
    praise = "The worst tokens get the new latents."
    return judge("Exercise 4", answer, [sums_to_one, squared], hint, praise)


def solution_draw(loss: Tensor) -> Tensor:
    """loss² / Σ loss²."""
    return loss.square() / loss.square().sum()


# Exercise 5: has the dictionary found the truth?


def check_mmcs(answer: Any) -> Verdict:
    """`answer(truth, dictionary)`: mean over true directions of the best cosine among the rows of the dictionary."""
    truth = random_directions(6, 5, seed=2)
    other = random_directions(9, 5, seed=3)

    def itself(answer: Callable) -> str | None:
        got = float(answer(truth, truth))
        return None if abs(got - 1) < 1e-5 else f"a dictionary that is the truth has an MMCS of 1; you say {got:.3f}"

    def norms(answer: Callable) -> str | None:
        got = float(answer(truth, 3 * truth))
        return (
            None
            if abs(got - 1) < 1e-5
            else f"a cosine does not care about norms: three times the truth is 1, not {got:.2f}"
        )

    def norms_of_the_truth(answer: Callable) -> str | None:
        got = float(answer(3 * truth, truth))
        right = abs(got - 1) < 1e-5
        return None if right else f"normalise the truth as well: with rows three times as long it is 1, not {got:.2f}"

    def signs(answer: Callable) -> str | None:
        got, right = float(answer(truth, -truth)), mean_max_cosine(truth, -truth)
        return (
            None if abs(got - right) < 1e-5 else "rows that point the other way have not found anything: keep the sign"
        )

    def others(answer: Callable) -> str | None:
        got, right = float(answer(truth, other)), mean_max_cosine(truth, other)
        if abs(got - right) < 1e-5:
            return None
        if abs(got - mean_max_cosine(other, truth)) < 1e-5:
            return "you asked for each row whether it is true; ask for each true direction whether some row has it"
        return f"for two unrelated sets it is {right:.3f}; you say {got:.3f}"

    hint = "normalise the rows of both, multiply truth @ dictionary.T, take the largest of each row, and the mean."
    praise = "Each truth looks for its best friend."
    return judge("Exercise 5", answer, [itself, norms, norms_of_the_truth, signs, others], hint, praise)


def solution_mmcs(truth: Tensor, dictionary: Tensor) -> float:
    """Mean over truths of the largest cosine."""
    unit = [torch.nn.functional.normalize(m, dim=1) for m in (truth, dictionary)]
    return float((unit[0] @ unit[1].T).amax(dim=1).mean())
