"""TrainSettings: how an SAE is trained. What it is, SAEConfig says."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from sae_tutorial.autoencoder.config import Rule, SAEConfig
from sae_tutorial.autoencoder.fields import (
    as_number,
    check_fields,
    choice,
    described,
    number,
    setting,
    whole,
)

ENCODER_DTYPES = ("auto", "float32", "bfloat16")


def _part_of_the_run(**more: Any) -> Any:
    return number(least=0, most=1, **more)


def _betas(name: str, value: Any) -> tuple[float, ...]:
    numbers = _numbers(name, value, "two numbers from 0 to below 1, for example (0.9, 0.999)")
    if len(numbers) != 2 or not all(0 <= beta < 1 for beta in numbers):
        raise ValueError(f"{name} must be two numbers from 0 to below 1, for example (0.9, 0.999), got {value!r}")
    return numbers


def _parts(name: str, value: Any) -> tuple[float, ...]:
    numbers = _numbers(name, value, "a list of parts of the run, for example (0.5,)")
    if not all(0 < part < 1 for part in numbers):
        raise ValueError(f"{name} are parts of the run between 0 and 1, got {value!r}")
    return numbers


def _numbers(name: str, value: Any, what: str) -> tuple[float, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be {what}, got {value!r}")
    return tuple(as_number(f"{name}[{i}]", one) for i, one in enumerate(value))


# Which rules a setting is for; the others refuse it.
def _with_budget(rule: Rule) -> bool:
    return rule.owner is not None


def _by_feature(rule: Rule) -> bool:
    return rule.owner == "feature"


def _pays(penalty: str) -> Callable[[Rule], bool]:
    return lambda rule: rule.penalty == penalty


@described
@dataclass(frozen=True)
class TrainSettings:
    """Numbers of a training run. Defaults are ours where no source is named.

    Raises TypeError or ValueError that name the field, its value and what it may be.
    """

    steps: int = whole(default=1000, help="how many steps")
    batch_size: int = whole(default=2048, help="tokens in each step")
    seed: int = whole(least=0, default=0, help="order of the activations")
    lr: float | None = number(
        above=0, default=None, optional=True, help="peak learning rate; None: 4e-3 · sqrt(2048 / d_sae), at most 3e-3"
    )
    warmup: float = _part_of_the_run(default=0.05, help="part of the run in which the rate rises from 0, linearly")
    decay: float = _part_of_the_run(default=0.2, help="part of the run in which it falls to 0 at the end, linearly")
    betas: tuple[float, float] = setting(_betas, default=(0.9, 0.999), help="Adam's")
    eps: float = number(above=0, default=6.25e-10, help="Adam's; this one is that of Gao et al. 2024")
    clip: float = number(
        above=0, finite=False, default=1.0, help="largest norm of the gradient of all parameters together"
    )
    l1: float = number(
        least=0,
        default=0.0,
        rules=_pays("l1"),
        help="relu, gated: coefficient of the penalty Σ|z| per token, counted as if E|x|² = 1",
    )
    l0: float = number(
        least=0,
        default=0.0,
        rules=_pays("l0"),
        help="jumprelu: coefficient of the number of matches per token (Rajamanoharan et al. 2024b)",
    )
    bandwidth: float = number(
        above=0,
        default=1e-3,
        rules=_pays("l0"),
        help="jumprelu: width of the window around a threshold in which it learns, counted as if E|x|² = 1",
    )
    p_end: float | None = number(
        least=0,
        below=1,
        default=None,
        optional=True,
        rules=lambda rule: rule.penalty == "l1" and not rule.gated,
        help="relu: anneal the penalty's exponent from 1 towards this (`penalties.annealed_p`); None: stays 1",
    )
    penalty_warmup: float = _part_of_the_run(
        default=0.1, rules=lambda rule: rule.owner is None, help="part of the run in which penalties rise from 0"
    )
    aux_k: float = number(
        least=0,
        default=1 / 32,
        rules=_with_budget,
        help="budget rules: weight of the loss that revives dead latents (Gao et al. 2024: 1/32)",
    )
    aux_zipf: float = number(
        least=0,
        default=0.0,
        rules=_with_budget,
        help="budget rules: weight of its generalisation to underused latents, dead ones included: set aux_k=0 with it",
    )
    aux_latents: int | None = whole(
        least=0,
        default=None,
        optional=True,
        rules=_with_budget,
        help="how many of them a token may use; None: half of d_in",
    )
    dead_after: int = whole(
        default=200_000,
        help="tokens without a match after which a latent counts as dead; Gao et al. 2024 wait for 10 million, in runs "
        "of billions",
    )
    resample_at: tuple[float, ...] = setting(
        _parts,
        default=(),
        help="parts of the run, for example (0.25, 0.5): after each, dead latents start again, on tokens of that batch "
        "(`resampling.resample_`)",
    )
    underused_below: float = number(
        above=0,
        most=1,
        default=0.5,
        rules=_with_budget,
        help="aux_zipf: a latent is underused below this part of its target density",
    )
    density_window: int = whole(default=100, help="batches over which running densities are averaged")
    rerank_every: int = whole(
        default=100,
        rules=_with_budget,
        help="feature_choice: steps between two decisions about which feature has which rank. Decisions are made at "
        "steps 1, 2, 4, … until there, and none once the rate decays. aux_zipf fits its law then",
    )
    encoder_dtype: str = choice(
        ENCODER_DTYPES,
        default="auto",
        rules=_with_budget,
        help='precision of the product that makes the affinities of budget rules: "float32", "bfloat16" (the strongest '
        'are computed again in float32, and these decide), "auto": bfloat16 if it is fast here',
    )
    threshold_batches: int = whole(
        default=16,
        rules=_with_budget,
        help="how many of the last batches the inference thresholds are measured on; more where capacities rotate and "
        "it takes more for every feature to have its turn",
    )

    def __post_init__(self):
        check_fields(self)
        if self.warmup + self.decay > 1:
            raise ValueError(f"warmup={self.warmup} and decay={self.decay} are more than the whole run; lower one")

    def check_for(self, config: SAEConfig) -> None:
        """ValueError that names a setting which this SAE's rule has no use for."""
        for field in dataclasses.fields(self):
            meant_for, value = field.metadata.get("rules"), getattr(self, field.name)
            if meant_for is not None and not meant_for(config.how) and value != field.default:
                raise ValueError(
                    f"{field.name}={value!r} is no setting of rule={config.rule!r}, which would ignore it; leave it "
                    f"away. It means: {field.metadata['help']}"
                )

    def lr_at(self, step: int, d_sae: int) -> float:
        """The learning rate of this step, the first being 0: up, level, down to almost nothing."""
        peak = self.lr if self.lr is not None else min(3e-3, 4e-3 * math.sqrt(2048 / d_sae))
        rising = (step + 1) / max(1, round(self.warmup * self.steps))
        falling = (self.steps - step) / max(1, round(self.decay * self.steps))
        return peak * min(1.0, rising, falling)

    def penalty_at(self, step: int) -> float:
        """The part of a penalty's coefficient that holds at this step."""
        return min(1.0, (step + 1) / max(1, round(self.penalty_warmup * self.steps)))

    def resamples_after(self, step: int) -> bool:
        """Whether dead latents start again after this step, the first being 0."""
        return step + 1 in [round(part * self.steps) for part in self.resample_at]

    def reranks_at(self, step: int) -> bool:
        """Whether ranks are decided anew before this step."""
        if step < 1 or step >= self.steps - round(self.decay * self.steps):
            return False
        return step % self.rerank_every == 0 or (step < self.rerank_every and step & (step - 1) == 0)


def encoder_dtype_here(name: str, device: torch.device) -> torch.dtype:
    """The dtype of the encoder's product. "auto": bfloat16 on GPUs that have it, and on CPUs with instructions for it;
    elsewhere it is emulated, many times slower than float32."""
    if name != "auto":
        return getattr(torch, name)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float32
    asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    fast = device.type == "cpu" and any(getattr(torch.cpu, ask, bool)() for ask in asks)
    return torch.bfloat16 if fast else torch.float32
