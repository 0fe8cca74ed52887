"""TrainSettings: how an SAE is trained. What it is, SAEConfig says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import torch

from sae_tutorial.allocation.rules import check_count

NUMBERS = (
    *("warmup", "decay", "eps", "clip", "l1", "l0", "bandwidth", "penalty_warmup"),
    *("aux_k", "aux_zipf", "underused_below"),
)
ENCODER_DTYPES = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class TrainSettings:
    """Numbers of a training run. Defaults are ours where no source is named.

    steps, batch_size  how many steps, and tokens in each
    seed               order of the activations
    lr                 peak learning rate; None: 4e-3 · sqrt(2048 / d_sae), at most 3e-3
    warmup, decay      parts of the run, at its beginning and end, in which the rate rises from and falls to 0, linearly
    betas, eps         Adam's; this eps is that of Gao et al. 2024
    clip               largest norm of the gradient of all parameters together
    l1                 relu, gated: coefficient of the penalty Σ|z| per token, counted as if E|x|² = 1
    l0                 jumprelu: coefficient of the number of matches per token (Rajamanoharan et al. 2024b)
    bandwidth          jumprelu: width of the window around a threshold in which it learns, counted as if E|x|² = 1
    p_end              relu: anneal the penalty's exponent from 1 towards this (`objectives.annealed_p`); None: stays 1
    penalty_warmup     part of the run in which penalties rise from 0
    aux_k              budget rules: weight of the loss that revives dead latents (Gao et al. 2024: 1/32)
    aux_zipf           budget rules: weight of its generalisation to underused latents, dead ones included: set aux_k=0
                       with it
    aux_latents        how many of them a token may use; None: half of d_in
    dead_after         tokens without a match after which a latent counts as dead; Gao et al. 2024 wait for 10 million,
                       in runs of billions
    resample_at        parts of the run, for example (0.25, 0.5): after each, dead latents start again, on tokens
                       of that batch (`resampling.resample_`)
    underused_below    aux_zipf: a latent is underused below this part of its target density
    density_window     batches over which running densities are averaged
    rerank_every       feature_choice: steps between two decisions about which feature has which rank. Decisions are
                       made at steps 1, 2, 4, … until there, and none once the rate decays. aux_zipf fits its law then
    encoder_dtype      precision of the product that makes the affinities of budget rules: "float32", "bfloat16" (the
                       strongest are computed again in float32, and these decide), "auto": bfloat16 if it is fast here
    threshold_batches  how many of the last batches the inference thresholds are measured on; more where capacities
                       rotate and it takes more for every feature to have its turn
    """

    steps: int = 1000
    batch_size: int = 2048
    seed: int = 0
    lr: float | None = None
    warmup: float = 0.05
    decay: float = 0.2
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 6.25e-10
    clip: float = 1.0
    l1: float = 0.0
    l0: float = 0.0
    bandwidth: float = 1e-3
    p_end: float | None = None
    penalty_warmup: float = 0.1
    aux_k: float = 1 / 32
    aux_zipf: float = 0.0
    aux_latents: int | None = None
    dead_after: int = 200_000
    resample_at: tuple[float, ...] = ()
    underused_below: float = 0.5
    density_window: int = 100
    rerank_every: int = 100
    encoder_dtype: str = "auto"
    threshold_batches: int = 16

    def __post_init__(self):
        for name in ("steps", "batch_size", "dead_after", "density_window", "rerank_every", "threshold_batches"):
            check_whole(name, getattr(self, name))
        for name in ("seed",) + (("aux_latents",) if self.aux_latents is not None else ()):
            check_whole(name, getattr(self, name), least=0)
        optional = tuple(name for name in ("lr", "p_end") if getattr(self, name) is not None)
        for name in NUMBERS + optional:
            if not isinstance(getattr(self, name), Real):
                raise TypeError(f"{name} must be a number, got {getattr(self, name)!r}")
        for name in ("l1", "l0", "aux_k", "aux_zipf"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a finite number, 0 or more, got {getattr(self, name)!r}")
        for name in ("eps", "clip", "bandwidth"):
            if not 0 < getattr(self, name) <= math.inf:
                raise ValueError(f"{name} must be greater than 0, got {getattr(self, name)!r}")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be greater than 0 and finite, got {self.lr!r}")
        if not isinstance(self.betas, Sequence) or len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            raise ValueError(
                f"betas must be two numbers from 0 to below 1, for example (0.9, 0.999), got {self.betas!r}"
            )
        for name in ("warmup", "decay", "penalty_warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a part of the run, 0 to 1, got {getattr(self, name)!r}")
        if self.warmup + self.decay > 1:
            raise ValueError(f"warmup={self.warmup} and decay={self.decay} are more than the whole run; lower one")
        if isinstance(self.resample_at, Real | str):
            raise TypeError(
                f"resample_at must be a list of parts of the run, for example (0.5,), got {self.resample_at}"
            )
        object.__setattr__(self, "resample_at", tuple(self.resample_at))  # a list is welcome
        if not all(0 < part < 1 for part in self.resample_at):
            raise ValueError(f"resample_at are parts of the run between 0 and 1, got {self.resample_at}")
        if self.p_end is not None and not 0 <= self.p_end < 1:
            raise ValueError(f"p_end must be at least 0 and less than 1 (None for plain L1), got {self.p_end!r}")
        if not 0 < self.underused_below <= 1:
            raise ValueError(f"underused_below must be greater than 0 and at most 1, got {self.underused_below!r}")
        if self.encoder_dtype not in ENCODER_DTYPES:
            raise ValueError(f"encoder_dtype must be one of {', '.join(ENCODER_DTYPES)}, got {self.encoder_dtype!r}")

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


def check_whole(name: str, number: int, least: int = 1) -> None:
    """Raise TypeError or ValueError that name what is not a whole number of at least `least`."""
    if check_count(name, number) < least:
        raise ValueError(f"{name} must be {least} or more, got {number!r}")


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
