"""The autoencoders of notebook 04 in plain torch: what its exercises ask for, and what it runs on otherwise.

Letters of shapes: B tokens, D dimensions, F features. A dictionary W_dec is (F, D), its rows are kept at norm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from sae_tutorial.evaluation.ground_truth import best_cosines

Step = Callable[[Tensor, Tensor, Tensor, float, torch.optim.Optimizer], float]
CROSS = (  # rows to start from that write any point of a plane, and biases: the fifth row is silent
    torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [1.0, 0.0]]),
    torch.tensor([0.0, 0.0, 0.0, 0.0, -3.0]),
)
ENDINGS = ("truth", "cross", "halfway", "other")
Fit = tuple[Float[Tensor, "features d"], Float[Tensor, " features"], list[Float[Tensor, "features d"]]]
UntiedStep = Callable[[Tensor, Tensor, Tensor, Tensor, float, torch.optim.Optimizer], float]


# ------------------------------------------------------------------ the tied autoencoder


def encode(
    x: Float[Tensor, "tokens d"], W_dec: Float[Tensor, "features d"], b_enc: Float[Tensor, " features"]
) -> Float[Tensor, "tokens features"]:
    """z = ReLU(W_dec x + b_enc)."""
    return torch.relu(x @ W_dec.T + b_enc)


def decode(z: Float[Tensor, "tokens features"], W_dec: Float[Tensor, "features d"]) -> Float[Tensor, "tokens d"]:
    """x̂ = W_decᵀ z."""
    return z @ W_dec


def loss_of(
    x: Float[Tensor, "tokens d"], W_dec: Float[Tensor, "features d"], b_enc: Float[Tensor, " features"], lam: float
) -> Float[Tensor, ""]:
    """Squared error + λ · sum of the code, averaged over tokens."""
    z = encode(x, W_dec, b_enc)
    error = (decode(z, W_dec) - x).square().sum(dim=1)
    return (error + lam * z.sum(dim=1)).mean()


def train_step(
    x: Float[Tensor, "tokens d"],
    W_dec: Float[Tensor, "features d"],
    b_enc: Float[Tensor, " features"],
    lam: float,
    adam: torch.optim.Optimizer,
) -> float:
    """One step of the optimiser, in place, after which the rows of W_dec have norm 1 again; returns the loss before.

    The part of the gradient along a row would only change its norm; it is taken out, so that Adam does not count it.
    """
    loss = loss_of(x, W_dec, b_enc, lam)
    adam.zero_grad()
    loss.backward()
    assert W_dec.grad is not None
    W_dec.grad -= (W_dec.grad * W_dec.data).sum(dim=1, keepdim=True) * W_dec.data
    adam.step()
    W_dec.data = normalize(W_dec.data, dim=1)
    return loss.item()


def random_rows(n_features: int, d: int, seed: int = 0) -> Float[Tensor, "features d"]:
    """A dictionary to start from: rows of norm 1 in random directions, ready to be trained."""
    rows = torch.randn(n_features, d, generator=torch.Generator().manual_seed(seed))
    return normalize(rows, dim=1).requires_grad_()


def fit(
    step: Step,
    x: Float[Tensor, "tokens d"],
    n_features: int,
    lam: float,
    steps: int,
    *,
    lr: float,
    seed: int = 0,
    moments: Collection[int] = (),
    batch_size: int = 256,
    start: tuple[Float[Tensor, "features d"], Float[Tensor, " features"]] | None = None,
) -> Fit:
    """Train with `step` from random rows, or from the rows and biases of `start`: the rows, the bias, and the rows
    before the steps named in `moments`."""
    draw = torch.Generator().manual_seed(seed)
    W_dec, b_enc = random_rows(n_features, x.shape[1], seed), torch.zeros(n_features, requires_grad=True)
    if start:
        W_dec, b_enc = (one.clone().requires_grad_() for one in start)
    adam, seen = torch.optim.Adam([W_dec, b_enc], lr=lr), []
    for now in range(steps + 1):
        if now in moments:
            seen.append(W_dec.detach().clone())
        step(x[torch.randint(len(x), (batch_size,), generator=draw)], W_dec, b_enc, lam, adam)
    return W_dec.detach(), b_enc.detach(), seen


def moments_to_show(steps: int) -> list[int]:
    """Steps worth a picture, 0 and the last among them: many while rows still turn fast, then every twentieth."""
    early = {0, 1, 2, 4, 7} | set(range(10, 60, 5)) | set(range(60, steps, 20))
    return sorted({moment for moment in early if moment < steps} | {steps})


def ending(rows: Float[Tensor, "features 2"], truth: Float[Tensor, "features 2"]) -> str:
    """Where training in the plane ended, one of `ENDINGS`. Names follow from cosines alone.

    "truth": each true direction has a row within a cosine of 0.99. "cross": two pairs of opposite rows at right angles,
    whatever else there is. "halfway": each row lies in the middle between two neighbouring directions.
    """
    cosine = rows @ rows.T
    opposite, upright = (cosine < -0.97).any(dim=1), (cosine.abs() < 0.2).sum(dim=1) >= 2
    nearest = (truth @ truth.T).fill_diagonal_(-1).max()
    middle = ((1 + nearest) / 2).sqrt()  # cos(angle / 2)
    if best_cosines(truth, rows).min() > 0.99:
        return "truth"
    if (opposite & upright).sum() >= 4:
        return "cross"
    return "halfway" if (best_cosines(rows, truth) - middle).abs().max() < 0.03 else "other"


@torch.no_grad()
def lowest_losses(
    fits: Iterable[Fit], x: Float[Tensor, "tokens 2"], truth: Float[Tensor, "features 2"], lam: float
) -> dict[str, float]:
    """Each ending of `fits`, and the lowest loss on x, penalty included, with which it was reached."""
    lowest: dict[str, float] = {}
    for W_dec, b_enc, _ in fits:
        end, loss = ending(W_dec, truth), float(loss_of(x, W_dec, b_enc, lam))
        lowest[end] = min(loss, lowest.get(end, loss))
    return lowest


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread inside: with tensors as small as here, several only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# ------------------------------------------------------------------ without ties, and what can go wrong


def untied_loss(
    x: Float[Tensor, "tokens d"],
    W_enc: Float[Tensor, "d features"],
    b_enc: Float[Tensor, " features"],
    W_dec: Float[Tensor, "features d"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, "tokens features"]]:
    """Mean squared error, mean sum of the code, and the code, of an autoencoder with an encoder of its own."""
    z = torch.relu(x @ W_enc + b_enc)
    return (z @ W_dec - x).square().sum(dim=1).mean(), z.sum(dim=1).mean(), z


def broken_step(
    x: Float[Tensor, "tokens d"],
    W_enc: Float[Tensor, "d features"],
    b_enc: Float[Tensor, " features"],
    W_dec: Float[Tensor, "features d"],
    lam: float,
    adam: torch.optim.Optimizer,
) -> float:
    """A step as the exercise shows it: nothing keeps the rows of W_dec from growing, and so λ from fading away."""
    error, penalty, _ = untied_loss(x, W_enc, b_enc, W_dec)
    loss = error + lam * penalty
    adam.zero_grad()
    loss.backward()
    adam.step()
    return loss.item()


def mended_step(
    x: Float[Tensor, "tokens d"],
    W_enc: Float[Tensor, "d features"],
    b_enc: Float[Tensor, " features"],
    W_dec: Float[Tensor, "features d"],
    lam: float,
    adam: torch.optim.Optimizer,
) -> float:
    """The same step, after which the rows of W_dec have norm 1 again."""
    loss = broken_step(x, W_enc, b_enc, W_dec, lam, adam)
    W_dec.data = normalize(W_dec.data, dim=1)
    return loss


def train_untied(
    step: UntiedStep,
    x: Float[Tensor, "tokens d"],
    n_features: int,
    lam: float,
    steps: int,
    *,
    lr: float = 2e-2,
    batch_size: int = 256,
    seed: int = 0,
) -> tuple[Float[Tensor, "features d"], Float[Tensor, "steps measures"], Float[Tensor, "some features"]]:
    """Train with `step` from random rows. Returns the decoder; per step the squared error, the sum of the code and the
    mean norm of the decoder's rows, each before that step; and the codes of the first 2,000 tokens at the end."""
    draw = torch.Generator().manual_seed(seed)
    W_dec = random_rows(n_features, x.shape[1], seed)
    W_enc = W_dec.detach().T.clone().requires_grad_()
    b_enc = torch.zeros(n_features, requires_grad=True)
    adam, history = torch.optim.Adam([W_enc, b_enc, W_dec], lr=lr), []
    with one_thread():
        for _ in range(steps):
            batch = x[torch.randint(len(x), (batch_size,), generator=draw)]
            with torch.no_grad():
                error, penalty, _ = untied_loss(batch, W_enc, b_enc, W_dec)
                history.append((error.item(), penalty.item(), W_dec.norm(dim=1).mean().item()))
            step(batch, W_enc, b_enc, W_dec, lam, adam)
    with torch.no_grad():
        codes = untied_loss(x[:2000], W_enc, b_enc, W_dec)[2]
    return W_dec.detach(), torch.tensor(history), codes


def mean_l0(codes: Float[Tensor, "tokens features"]) -> float:
    """The mean number of active features of a token."""
    return float(codes.gt(0).sum(dim=1).float().mean())
