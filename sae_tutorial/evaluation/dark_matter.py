"""What an SAE leaves out: the part of its error that is a linear map of the activation, and the rest.

    parts = split_error(sae, acts_fit, acts)      the map is fitted on acts_fit, and asked on acts
    r_squared(parts.linear, parts.error)          how much of the error vector a linear map of the activation predicts
    length_predictors(acts_fit, error_fit, parts) the same of its squared length
    losses = spliced_losses(model, tokens, hook_name, {"x̂": partial(reconstructed, sae), …})

Protocol: Engels, Riggs & Tegmark 2024. error = x − x̂; linear error = x A, with A by least squares and without a bias;
nonlinear error = the rest. A is fitted on other tokens than it is asked on. What is summed row by row is ours.

Letters of shapes: N tokens, D width of an activation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.forward import check_hook_name, read_hooks
from sae_tutorial.activations.kept_text import KeptText, checked_tokens, special_ids
from sae_tutorial.activations.memory import at_once
from sae_tutorial.autoencoder.dictionaries import variance_explained
from sae_tutorial.evaluation import splicing

Replace = Callable[[Float[Tensor, "tokens d"]], Float[Tensor, "tokens d"]]


@torch.no_grad()
def reconstructed(sae: Any, x: Float[Tensor, "tokens d"]) -> Float[Tensor, "tokens d"]:
    """x̂ of each token, piece by piece."""
    size = at_once(x.device, 8 * sae.config.d_sae)
    return torch.cat([sae.decode(sae.encode(part)) for part in x.split(size)])


def linear_map(x: Float[Tensor, "tokens d"], y: Float[Tensor, "tokens e"]) -> Float[Tensor, "d e"]:
    """A of the least |x A − y|², in float64 and given back in the type of x.

    Raises ValueError for tables of different lengths, NaN or inf, and fewer tokens than x has numbers: a map that fits
    anything says nothing.
    """
    if x.dim() != 2 or y.dim() != 2 or len(x) != len(y):
        raise ValueError(f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; give two tables, a row for each token")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("x or y holds NaN or inf; leave such tokens out")
    if len(x) <= x.shape[1]:
        raise ValueError(f"x has {len(x)} tokens of {x.shape[1]} numbers; more tokens than numbers are needed")
    return torch.linalg.lstsq(x.double(), y.double()).solution.to(x.dtype)


def r_squared(predicted: Float[Tensor, "*shape"], y: Float[Tensor, "*shape"]) -> float:
    """One minus Σ|y − predicted|² over Σ|y − mean|²: 1 is perfect, 0 no better than the mean, below 0 is worse.

    All coordinates are summed before the division. (Engels et al. average R² over coordinates; on our activations the
    two differ in the third decimal.) Raises ValueError for different shapes, and where y does not vary.
    """
    if predicted.shape != y.shape or len(y) < 2:
        raise ValueError(f"predicted has shape {tuple(predicted.shape)}, y {tuple(y.shape)}; give two or more of each")
    if (y == y[0]).all():
        raise ValueError("y is the same for all tokens: there is nothing to predict")
    return variance_explained(y.double(), predicted.double())


@dataclass(frozen=True, eq=False)
class ErrorParts:
    """Of some tokens: x = x̂ + linear + nonlinear, each (N, D); `A` is the map that makes the linear part of x."""

    x: Float[Tensor, "tokens d"]
    reconstruction: Float[Tensor, "tokens d"]
    A: Float[Tensor, "d d"]

    @property
    def error(self) -> Float[Tensor, "tokens d"]:
        return self.x - self.reconstruction

    @property
    def linear(self) -> Float[Tensor, "tokens d"]:
        return self.x @ self.A

    @property
    def nonlinear(self) -> Float[Tensor, "tokens d"]:
        return self.error - self.linear


def split_error(sae: Any, x_fit: Float[Tensor, "tokens d"], x: Float[Tensor, "tokens d"]) -> ErrorParts:
    """The error at `x`, split by a map that is fitted on `x_fit`: other tokens, more than they have numbers.

    Raises what `linear_map` raises.
    """
    return ErrorParts(x, reconstructed(sae, x), linear_map(x_fit, x_fit - reconstructed(sae, x_fit)))


def length_predictors(
    x_fit: Float[Tensor, "n d"], error_fit: Float[Tensor, "n d"], parts: ErrorParts
) -> dict[str, float]:
    """R² of the error's squared length as a linear function, fitted on other tokens and with a constant, of the
    activation; of the activation's squared length alone; and of its squared distance from the mean."""

    def known(x: Tensor) -> dict[str, Tensor]:
        one = x.new_ones(len(x), 1)
        apart = x - x_fit.mean(0)
        given = {"activation": x, "its length": x.square().sum(1, keepdim=True)}
        given["its distance"] = apart.square().sum(1, keepdim=True)
        return {name: torch.cat([part, one], dim=1) for name, part in given.items()}

    y_fit, y = (error.square().sum(1, keepdim=True) for error in (error_fit, parts.error))
    here = known(parts.x)
    return {name: r_squared(here[name] @ linear_map(given, y_fit), y) for name, given in known(x_fit).items()}


@dataclass(frozen=True, eq=False)
class SplicedLosses:
    """Sums over each row of the text, in nats: of the loss with the model as it is, of the loss with each replacement,
    and how many predictions they are sums of."""

    predictions: Float[Tensor, " rows"]
    clean: Float[Tensor, " rows"]
    spliced: dict[str, Float[Tensor, " rows"]]

    def increase(self, name: str) -> float:
        """Mean loss with that replacement above the model's own, in nats a prediction."""
        return float((self.spliced[name] - self.clean).sum() / self.predictions.sum())


@torch.no_grad()
def spliced_losses(
    model: Any,
    tokens: Int[Tensor, "n context"],
    hook_name: str,
    instead: Mapping[str, Replace],
    *,
    max_norm: float | None = 10.0,
) -> SplicedLosses:
    """The model's loss on a text with the activations of a hook replaced: by what each function makes of them.

    As in `evaluate`, BOS, padding and tokens longer than `max_norm` times the median are left as they are. Raises what
    `evaluate` raises for the model, the tokens and the hook.
    """
    check_hook_name(model, hook_name)
    text = KeptText.of(checked_tokens(tokens, model), *special_ids(model, "auto", "auto"))
    size = at_once(model.cfg.device, 3 * 4 * text.context * model.cfg.d_vocab)
    surveyed = splicing.Surveyed.of(model, text, (hook_name,), max_norm, size)
    n = len(text.tokens)
    predictions, clean = torch.zeros(n).double(), torch.zeros(n).double()
    spliced = {name: torch.zeros(n).double() for name in instead}
    with read_hooks(model, (), fused=surveyed.fused):
        for part, rows in surveyed.pieces(model.cfg.device):
            seen: list[Tensor] = []
            keep = (hook_name, lambda acts, hook, rows=rows, seen=seen: seen.append(acts.flatten(2)[rows.replaced]))
            predictions[part] = rows.has_next.sum(1).double().cpu()
            clean[part] = _losses(model, rows, keep)
            for name, replace in instead.items():
                put = (hook_name, splicing.replacing(rows.replaced, replace(seen[0])))
                spliced[name][part] = _losses(model, rows, put)
    return SplicedLosses(predictions, clean, spliced)


def _losses(model: Any, rows: splicing.Rows, hook: Any) -> Float[Tensor, " rows"]:
    """Row by row the sum of the losses, with this hook in place."""
    return rows.sums(splicing.cross_entropies(splicing.log_probs(model, rows, [hook]), rows), rows.has_next)
