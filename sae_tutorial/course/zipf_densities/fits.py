"""The fits that the lesson compares: over which ranks, with or without an offset, and for the budget's sake."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.store import ActivationStore
from sae_tutorial.allocation.zipf import fit_zipf, middle_law
from sae_tutorial.course.zipf_densities.density_laws import Law, fit_law
from sae_tutorial.evaluation.ground_truth import generator_of_data

DEFAULT = 1.0, 10.0  # exponent and offset that SAEConfig begins with


def middle(n: int) -> tuple[int, int]:
    """The middle of n ranks: from 100 (in short lists from a twentieth) to 80 % of all. The limits are ours."""
    return min(100, n // 20 + 1), int(0.8 * n)


class Line(NamedTuple):
    """A Zipf–Mandelbrot law fitted by least squares, without its scale."""

    exponent: float
    offset: float
    r_squared: float


# Ranks and the values there, in falling order -> exponent, offset and R²: Exercise 1 builds one.
Fit = Callable[[np.ndarray, np.ndarray], tuple[float, float, float]]


def least_squares(ranks: Int[np.ndarray, " n"], values: Float[np.ndarray, " n"]) -> tuple[float, float, float]:
    """Exponent, offset and R² by the package's `fit_zipf`: least squares of log value on log(rank + offset). `ranks`
    follow each other, values fall."""
    first, last = int(ranks[0]), int(ranks[-1])
    before = np.full(first - 1, values[0])  # ranks that are not fitted, but counted
    found = fit_zipf(torch.from_numpy(np.concatenate([before, values])), (first, last))
    return found.exponent, found.offset, found.r_squared


def whole_and_middle(density: Float[np.ndarray, " features"], fit: Fit = least_squares) -> tuple[Line, Line]:
    """Least squares over all ranks that fired, and over the middle ones."""
    falling = np.sort(density[density > 0])[::-1]
    ranks, (first, last) = np.arange(1, len(falling) + 1), middle(len(falling))
    return Line(*fit(ranks, falling)), Line(*fit(ranks[first - 1 : last], falling[first - 1 : last]))


def curve(line: Line, density: Float[np.ndarray, " features"], n_fitted: int) -> Float[np.ndarray, " ranks"]:
    """The law at every rank that fired; its scale is the one that fits the first `n_fitted` ranks best."""
    falling = np.sort(density[density > 0])[::-1]
    log_law = -line.exponent * np.log(np.arange(1, len(falling) + 1) + line.offset)
    return np.exp(log_law + (np.log(falling) - log_law)[:n_fitted].mean())


def straight(density: Float[np.ndarray, " features"], ranks: tuple[int, int] | None = None) -> Line:
    """Plain Zipf, a straight line without offset, in the middle ranks or these."""
    falling = np.sort(density[density > 0])[::-1]
    first, last = ranks or middle(len(falling))
    log_rank, log_density = np.log(np.arange(first, last + 1)), np.log(falling[first - 1 : last])
    slope, _ = np.polyfit(log_rank, log_density, 1)
    return Line(-float(slope), 0.0, float(np.corrcoef(log_rank, log_density)[0, 1] ** 2))


def power_law(exponent: float, offset: float, n_features: int, n_tokens: int) -> Law:
    """Zipf–Mandelbrot as a way to share out a budget, so without a scale."""
    numbers = {"scale": 1.0, "exponent": exponent, "offset": offset}
    return Law("zipf_mandelbrot", numbers, 0.0, n_features, n_tokens)


def fitted_as_training_does(counts: Int[np.ndarray, " features"], n_tokens: int) -> Law:
    """Least squares on ranks 1 % to 50 %, which is the fit of capacity="fitted"."""
    found = middle_law(torch.from_numpy(counts / n_tokens))
    if found is None:
        raise ValueError(f"counts: {(counts > 0).sum()} features fired, too few to have middle ranks; give more tokens")
    return power_law(found.exponent, found.offset, int((counts > 0).sum()), n_tokens)


def budget_laws(counts: Int[np.ndarray, " features"], n_tokens: int) -> dict[str, Law]:
    """Laws that could share out a budget like that of these counts: the default, which saw none, and three fits."""
    return {
        "default: s = 1, q = 10": power_law(*DEFAULT, int((counts > 0).sum()), n_tokens),
        "Zipf–Mandelbrot by likelihood": fit_law(counts, n_tokens),
        "least squares, ranks 1 to 50%": fitted_as_training_does(counts, n_tokens),
        "log-normal by likelihood": fit_law(counts, n_tokens, "log_normal"),
    }


def controls(
    n_features: int, n_tokens: int, k: int = 32, width: float = 1.5
) -> dict[str, Int[np.ndarray, " features"]]:
    """Counts of features whose law is known, a test of tests: of the default power law, and of log-normal densities
    whose logarithms have this standard deviation. `k` matches per token on average."""
    rng = np.random.default_rng(0)
    ranks = np.arange(1, n_features + 1)
    drawn = {
        "drawn from the default law": power_law(*DEFAULT, n_features, n_tokens).density(ranks),
        "drawn from a log-normal": np.exp(rng.normal(0, width, n_features)),
    }
    return {name: rng.poisson((n_tokens * k * one / one.sum()).clip(max=n_tokens)) for name, one in drawn.items()}


def middle_of_log_normal(
    n: int, fit: Fit = least_squares, draws: int = 12, of: Callable[[list[float]], float] = np.mean
) -> float:
    """R² over the middle ranks of `n` sorted log-normal numbers, by default the mean of some draws: the control for an
    SAE with as many live features. How wide their bell is does not matter."""
    first, last = middle(n)
    rngs = (np.random.default_rng(seed) for seed in range(draws))
    falling = (np.exp(np.sort(rng.normal(size=n))[::-1])[first - 1 : last] for rng in rngs)
    return float(of([fit(np.arange(first, last + 1), values)[2] for values in falling]))


def gaussian_like(store: ActivationStore, n: int, seed: int, round_: bool = False) -> Float[Tensor, "n d_in"]:
    """Vectors with the mean of the store and its covariance, or, if round_, as wide in every direction."""
    d_in = store.mean.numel()
    noise = torch.randn(n, d_in, generator=generator_of_data(seed))
    if round_:
        return store.mean + store.scale * noise
    covariance = torch.cov(store.rows(slice(None)).T)
    factor = torch.linalg.cholesky(covariance + 1e-4 * store.scale**2 * torch.eye(d_in))
    return store.mean + noise @ factor.T
