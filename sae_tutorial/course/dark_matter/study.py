"""What is asked of an SAE's error, once for the notebook and `scripts/dark_matter.py`.

Letters of shapes: N tokens, D width of an activation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import nnls
from scipy.stats import spearmanr
from torch import Tensor

from sae_tutorial.activations import ActivationStore
from sae_tutorial.autoencoder import SAEConfig, SparseAutoencoder
from sae_tutorial.autoencoder.dictionaries import principal_directions
from sae_tutorial.autoencoder.pursuit import gradient_pursuit
from sae_tutorial.evaluation.dark_matter import (
    ErrorParts,
    Replace,
    length_predictors,
    linear_map,
    r_squared,
    reconstructed,
    spliced_losses,
    split_error,
)
from sae_tutorial.evaluation.intervals import Interval
from sae_tutorial.training import train

N_PURSUED = 4_000  # tokens of either half that are searched: it takes a while
N_CONTROLS = 2_000  # tokens that are searched with a second dictionary, or a random one


@torch.no_grad()
def pursued(sae: Any, x: Float[Tensor, "tokens d"], l0: int | Tensor | None = None) -> Float[Tensor, "tokens d"]:
    """x̂ with codes by gradient pursuit: l0 features for each token, or as many as the SAE's own encoder gives it."""
    many = sae.encode(x).l0() if l0 is None else l0
    return sae.decode(gradient_pursuit(sae.normalise(x) - sae.b_dec, sae.W_dec.detach().contiguous(), many))


def fvu(x: Float[Tensor, "tokens d"], x_hat: Float[Tensor, "tokens d"]) -> float:
    """Fraction of the variance about the mean that x̂ leaves."""
    return 1 - r_squared(x_hat, x)


def share(part: Float[Tensor, "tokens d"], x: Float[Tensor, "tokens d"]) -> float:
    """The squares of a part of x, as a fraction of the variance of x about its mean."""
    return float(part.square().sum() / (x - x.mean(0)).square().sum())


def shuffled_r_squared(
    x_fit: Float[Tensor, "n d"], error_fit: Float[Tensor, "n d"], parts: ErrorParts, seed: int = 0
) -> float:
    """The control: a map that is fitted on errors of other tokens, dealt out at random."""
    order = torch.randperm(len(x_fit), generator=torch.Generator().manual_seed(seed))
    return r_squared(parts.x @ linear_map(x_fit, error_fit[order]), parts.error)


def measured(
    sae: Any, model: Any, x_fit: Float[Tensor, "n d"], x: Float[Tensor, "m d"], text: Int[Tensor, "rows positions"]
) -> dict[str, Any]:
    """All that is asked of one SAE: its error's parts at `x`, with a map fitted on `x_fit`; losses on `text`, row by
    row, with each part put back; and the same parts when its codes are searched for instead."""
    error_fit = x_fit - reconstructed(sae, x_fit)
    parts = ErrorParts(x, reconstructed(sae, x), linear_map(x_fit, error_fit))
    found: dict[str, Any] = {
        "fvu": fvu(x, parts.reconstruction),
        "linear": r_squared(parts.linear, parts.error),
        "shuffled": shuffled_r_squared(x_fit, error_fit, parts),
        "arithmetic": by_arithmetic(x_fit, parts),
        "nonlinear": share(parts.nonlinear, x),
        "length": length_predictors(x_fit, error_fit, parts),
        "pursuit": searched(sae, x_fit[:N_PURSUED], x[:N_PURSUED]),
    }
    losses = spliced_losses(model, text, str(sae.hook_name), replacements(sae, parts.A))
    found["predictions"], found["clean"] = losses.predictions.int().tolist(), _short(losses.clean)
    found["spliced"] = {name: _short(sums) for name, sums in losses.spliced.items()}
    return found


def searched(sae: Any, x_fit: Float[Tensor, "n d"], x: Float[Tensor, "m d"]) -> dict[str, float]:
    """What the search for codes leaves out of `x`, beside what the encoder does there.

    Both maps are fitted on `x_fit`: of few tokens a map learns less, and leaves more of the error nonlinear.
    """
    found = ErrorParts(x, pursued(sae, x), linear_map(x_fit, x_fit - pursued(sae, x_fit)))
    own = split_error(sae, x_fit, x)
    return {
        "fvu": fvu(x, found.reconstruction),
        "linear": r_squared(found.linear, found.error),
        "nonlinear": share(found.nonlinear, x),
        "own linear": r_squared(own.linear, own.error),
        "own fvu": fvu(x, own.reconstruction),
        "own nonlinear": share(own.nonlinear, x),
    }


@torch.no_grad()
def with_best_strengths(sae: Any, x: Float[Tensor, "tokens d"]) -> Float[Tensor, "tokens d"]:
    """x̂ with the features that the encoder chose, and those strengths, none below zero, that fit the token best: what a
    search could gain without a single other feature."""
    wanted_ND = (sae.normalise(x) - sae.b_dec).double().numpy()
    rows_FD, codes_NF = sae.W_dec.double().numpy(), sae.encode(x).to_dense()
    for wanted_D, codes_F in zip(wanted_ND, codes_NF, strict=True):
        chosen = codes_F.nonzero().flatten()
        if len(chosen):
            codes_F[chosen] = torch.from_numpy(nnls(rows_FD[chosen.numpy()].T, wanted_D)[0]).to(codes_F.dtype)
    return sae.decode(codes_NF)


def by_search(saes: Mapping[str, Any], x: Float[Tensor, "tokens d"], n: int = 2_000) -> dict[str, dict[str, float]]:
    """What is left out of about `n` of the tokens with each SAE's dictionary: by its encoder; by the encoder's features
    with the best strengths; and by the search, with as many features for each token as the SAE's encoder gives it, with
    k for every token, and with as many as Mutual Choice's encoder gives it."""
    some = x[:: max(1, len(x) // n)][:n]
    mutual, search = saes["Mutual Choice"], "searched, {}".format
    ways: dict[str, Callable[[Any], Tensor]] = {
        "by the encoder": lambda sae: reconstructed(sae, some),
        "its features, best strengths": lambda sae: with_best_strengths(sae, some),
        search("as many features as encoded"): lambda sae: pursued(sae, some),
        search(f"{mutual.config.k} features each"): lambda sae: pursued(sae, some, int(mutual.config.k)),
        search("Mutual Choice's counts"): lambda sae: pursued(sae, some, mutual.encode(some).l0()),
    }
    return {way: {name: fvu(some, x_hat(sae)) for name, sae in saes.items()} for way, x_hat in ways.items()}


def replacements(sae: Any, A: Float[Tensor, "d d"]) -> dict[str, Replace]:
    """What can be put in the place of an activation: x̂; x̂ with either part of the error; x̂ by search."""
    return {
        "reconstruction": lambda x: reconstructed(sae, x),
        "with linear": lambda x: reconstructed(sae, x) + x @ A,
        "with nonlinear": lambda x: x - x @ A,
        "pursuit": lambda x: pursued(sae, x),
    }


def _short(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


# ---------------------------------------------------------------------- which tokens


def rank_correlation(a: Float[Tensor, " tokens"], b: Float[Tensor, " tokens"]) -> float:
    """Spearman's: 1 where the tokens stand in the same order."""
    return float(spearmanr(a.numpy(), b.numpy()).statistic)


def by_token_identity(error_N: Float[Tensor, " tokens"], token_N: Int[Tensor, " tokens"]) -> float:
    """How much of the variance of the log error the token alone explains, each token's mean made of the other half."""
    log_N, half = error_N.clamp(min=1e-12).log(), torch.arange(len(error_N)) % 2
    n = int(token_N.max()) + 1
    said = torch.zeros(len(log_N))
    for one in (0, 1):
        here, there = half == one, half != one
        count = token_N[there].bincount(minlength=n)
        total = torch.zeros(n).index_add_(0, token_N[there], log_N[there])
        mean = torch.where(count > 0, total / count.clamp(min=1), log_N[there].mean())
        said[here] = mean[token_N[here]]
    return r_squared(said, log_N)


# ---------------------------------------------------------------------- a second SAE


def second_sae(part: Float[Tensor, "tokens d"], d_sae: int, k: int, steps: int) -> SparseAutoencoder:
    """A fresh Token Choice SAE that is trained on a part of the error."""
    sae = SparseAutoencoder(SAEConfig(part.shape[1], d_sae, "token_choice", k), seed=0)
    train(sae, ActivationStore.from_tensor(part), steps=steps, lr=1e-3, batch_size=2048, progress=False)
    return sae


def covariant_directions_fvu(
    part: Float[Tensor, "n d"], test: Float[Tensor, "m d"], n: int, k: int, seed: int = 0, tokens: int = N_CONTROLS
) -> float:
    """The control: what n random directions with the covariance of `part` leave out of the first tokens of `test`, k
    for each by gradient pursuit. (A search, where an SAE has an encoder: it shows what needs no features.)"""
    covariance = torch.cov(part.T) + 1e-6 * part.var() * torch.eye(part.shape[1])
    drawn = torch.randn(n, part.shape[1], generator=torch.Generator().manual_seed(seed))
    directions = torch.nn.functional.normalize(drawn @ torch.linalg.cholesky(covariance).T, dim=1)
    x = test[:tokens] - part.mean(0)
    return fvu(x, gradient_pursuit(x, directions, k).to_dense() @ directions)


def error_of_others(parts: ErrorParts, seed: int = 0) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """x̂ with the error of another token in the place of its own, and that error: it has nothing to do with its token,
    and is contained in what it is asked from all the same."""
    error = parts.error[torch.randperm(len(parts.x), generator=torch.Generator().manual_seed(seed))]
    return parts.reconstruction + error, error


def white_noise(parts: ErrorParts, seed: int = 0) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """The same with noise, as long as the errors are and alike in all directions."""
    noise = torch.randn(parts.x.shape, generator=torch.Generator().manual_seed(seed))
    noise *= parts.error.square().mean().sqrt()
    return parts.reconstruction + noise, noise


# ---------------------------------------------------------------------- an earlier layer


def from_earlier(
    earlier_fit: Float[Tensor, "n d"], earlier: Float[Tensor, "m d"], error_fit: Tensor, error: Tensor
) -> float:
    """R² of an error vector from what lies in an earlier layer, by a linear map without a bias."""
    return r_squared(earlier @ linear_map(earlier_fit, error_fit), error)


def lengths(parts: ErrorParts) -> dict[str, np.ndarray]:
    """Squared lengths of each token's error and of its two parts, over the mean squared length of x about its mean."""
    spread = float((parts.x - parts.x.mean(0)).square().sum(1).mean())
    named = {"error": parts.error, "linear": parts.linear, "nonlinear": parts.nonlinear}
    return {name: (part.square().sum(1) / spread).numpy() for name, part in named.items()}


def by_component(
    x_fit: Float[Tensor, "n d"], parts: ErrorParts, edges: Sequence[int] = (0, 4, 16, 64, 128, 256)
) -> dict[str, tuple[float, float]]:
    """Groups of principal components of the activations, from the largest variance to the smallest: the share of their
    variance that is left out, and the share of what is left out there that is linear (an R²)."""
    axes_DD = principal_directions(x_fit)
    along = {name: getattr(parts, name) @ axes_DD.T for name in ("x", "error", "linear")}
    d, found = axes_DD.shape[1], {}
    for a, b in zip(edges, [*edges[1:-1], d], strict=False):
        x, error, linear = (along[name][:, a:b] for name in ("x", "error", "linear"))
        found[f"{a + 1} to {b}"] = share(error, x), r_squared(linear, error)
    return found


def hardest(parts: ErrorParts, tokens: Int[Tensor, "rows positions"], n: int = 10) -> list[tuple[int, int, float]]:
    """The n tokens with the largest errors, one a row of text: row, position, and the error as a share of the mean
    variance. The parts are those of all positions but the first of each row, in order."""
    error = torch.from_numpy(lengths(parts)["error"]).view(len(tokens), tokens.shape[1] - 1)
    best, at = error.max(dim=1)
    return [(int(row), int(at[row]) + 1, float(best[row])) for row in best.argsort(descending=True)[:n]]


def inside_words(
    tokens: Int[Tensor, "rows positions"], words: Callable[[list[int]], list[str]]
) -> Bool[Tensor, "rows positions-1"]:
    """Which tokens, of all but the first of each row, go on with a word: they begin with a letter, and the token before
    ends with one. `words` gives the text of each of a list of token ids."""
    ids, at = tokens.unique(return_inverse=True)
    texts = words(ids.tolist())
    begins, ends = (torch.tensor([text[part].isalpha() for text in texts])[at] for part in (slice(1), slice(-1, None)))
    return begins[:, 1:] & ends[:, :-1]


def increases(row: Mapping[str, Any]) -> dict[str, float]:
    """Of a shipped row: how much each replacement raises the loss, in nats a prediction."""
    clean, n = sum(row["clean"]), sum(row["predictions"])
    return {name: (sum(sums) - clean) / n for name, sums in row["spliced"].items()}


def by_arithmetic(x_fit: Float[Tensor, "n d"], parts: ErrorParts) -> float:
    """The R² that a matrix reaches because x = x̂ + error holds the error: ours.

    If x̂ tells nothing of the error, the best guess of the error along a principal component is s x, with s the share of
    the component that is left out, and it is right to a share of s. Over all components, that is Σ s² var / Σ s var.
    """
    axes_DD = principal_directions(x_fit)
    variance_D = ((parts.x - parts.x.mean(0)) @ axes_DD.T).double().square().mean(0)
    left_D = (parts.error @ axes_DD.T).double().square().mean(0)
    there = variance_D > 1e-6 * variance_D.max()  # a stream may have no variance at all along a direction
    return float((left_D[there].square() / variance_D[there]).sum() / left_D[there].sum())


def over_seeds(rows: Sequence[Mapping[str, Any]], ask: Callable[[Mapping[str, Any]], float], **wanted: Any) -> Interval:
    """The mean of what is asked of each shipped row of one cell, with its interval over seeds. Raises ValueError where
    no row is of that cell."""
    return Interval.of(ask(row) for row in rows if all(row[name] == value for name, value in wanted.items()))


def by_width(
    rows: Sequence[Mapping[str, Any]], ask: Callable[[Mapping[str, Any]], float], **wanted: Any
) -> dict[int, float]:
    """The same for each width there is, the smallest first."""
    widths = {row["width"] for row in rows if all(row[name] == value for name, value in wanted.items())}
    return {width: over_seeds(rows, ask, width=width, **wanted).mean for width in sorted(widths)}


def encoder_and_search(rows: Sequence[Mapping[str, Any]], **wanted: Any) -> dict[str, tuple[float, float]]:
    """Means over the seeds of one cell, the encoder's first and the search's second: the shares of the variance that
    are left out and that are nonlinear error, both on the tokens that were searched, and the rise in loss."""

    def left(name: str) -> float:
        return over_seeds(rows, lambda row: row["pursuit"][name], **wanted).mean

    def rise(name: str) -> float:
        return over_seeds(rows, lambda row: increases(row)[name], **wanted).mean

    return {
        "left out": (left("own fvu"), left("fvu")),
        "nonlinear error": (left("own nonlinear"), left("nonlinear")),
        "rise in loss": (rise("reconstruction"), rise("pursuit")),
    }


def linear_part(row: Mapping[str, Any]) -> float:
    """Of a shipped row: the share of the rise in loss that the linear error takes away when it is put back."""
    rises = increases(row)
    return 1 - rises["with linear"] / rises["reconstruction"]


COLUMNS: dict[str, Callable[[Mapping[str, Any]], float]] = {  # what the rules are compared by
    "left out": lambda row: row["fvu"],
    "linear (R²)": lambda row: row["linear"],
    "nonlinear": lambda row: row["nonlinear"],
    "length (R²)": lambda row: row["length"]["activation"],
    "rise in loss": lambda row: increases(row)["reconstruction"],
    "saved by linear": linear_part,
    "cost of linear": lambda row: increases(row)["with nonlinear"] / increases(row)["reconstruction"],
}
