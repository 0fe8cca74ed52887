"""TrainSettings: how an SAE is trained. What it is, SAEConfig describes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from sae_tutorial.activations.arguments import as_number
from sae_tutorial.autoencoder.config import Rule, SAEConfig
from sae_tutorial.autoencoder.fields import check_fields, choice, described, number, several, whole

ENCODER_DTYPES = ("auto", "float32", "bfloat16")
PENALTIES = {"l1": 0.18, "l0": 0.0015}  # what None means; their help says which L0 they gave


# Which rules a setting is for; the others refuse it.
FOR: dict[str, Callable[[Rule], bool]] = {
    "budgets": lambda rule: rule.owner is not None,
    "penalties": lambda rule: rule.owner is None,
    "l0": lambda rule: rule.penalty == "l0",
    "l1": lambda rule: rule.penalty == "l1",
    "annealed": lambda rule: rule.penalty == "l1" and not rule.gated,
}


@described
@dataclass(frozen=True)
class TrainSettings:
    """Numbers of a training run. Defaults are ours where no source is named.

    Raises TypeError or ValueError that name the field, its value and what it may be.
    """

    steps: int = whole(1000, "how many steps")
    batch_size: int = whole(2048, "tokens in each step")
    seed: int = whole(0, "order of the activations", least=0)
    lr: float | None = number(None, "peak learning rate; None: 4e-3 · sqrt(2048 / d_sae), at most 3e-3", above=0)
    warmup: float = number(0.05, "part of the run in which the rate rises from 0, linearly", least=0, most=1)
    decay: float = number(0.2, "part of the run in which it falls to 0 at the end, linearly", least=0, most=1)
    betas: tuple[float, float] = several((0.9, 0.999), "Adam's", as_number)
    eps: float = number(6.25e-10, "Adam's; this one is that of Gao et al. 2024", above=0)
    clip: float = number(1.0, "largest norm of the gradient of all parameters together", above=0, finite=False)
    l1: float | None = number(
        None,
        "relu, gated: coefficient of the penalty Σ|z| per token, counted as if E|x|² = 1. None: 0.18, with which SAEs "
        "of the embedded model have an L0 of 22 to 35 (2,048 and 4,096 features of layer 1, 1,000 steps, one seed)",
        least=0,
        rules="l1",
    )
    l0: float | None = number(
        None,
        "jumprelu: coefficient of the matches per token (Rajamanoharan et al. 2024b). None: 0.0015, an L0 of 31 to 35",
        least=0,
        rules="l0",
    )
    target_l0: float | None = number(
        None,
        "jumprelu: matches per token to come to. The penalty is then ((L0 - target_l0) / target_l0)², as in "
        "dictionary_learning, and l0 its coefficient, if None 1: the larger, the nearer",
        above=0,
        rules="l0",
    )
    bandwidth: float = number(
        1e-3, "jumprelu: width of the window in which a threshold learns, as if E|x|² = 1", above=0, rules="l0"
    )
    p_end: float | None = number(
        None, "relu: anneal the penalty's exponent from 1 towards this; None: no", least=0, below=1, rules="annealed"
    )
    penalty_warmup: float = number(
        0.1, "part of the run in which penalties rise from 0", least=0, most=1, rules="penalties"
    )
    aux_k: float = number(
        1 / 32, "weight of the loss that revives dead latents (Gao et al. 2024: 1/32)", least=0, rules="budgets"
    )
    aux_zipf: float = number(
        0.0, "the same for underused latents, dead ones included: set aux_k=0 with it", least=0, rules="budgets"
    )
    aux_latents: int | None = whole(
        None, "how many of them a token may use; None: half of d_in", least=0, rules="budgets"
    )
    dead_after: int = whole(
        200_000, "tokens without a match after which a latent is dead; Gao et al. 2024: 10 million, in runs of billions"
    )
    resample_at: tuple[float, ...] = several(
        (), "parts of the run, as (0.25, 0.5), after which dead latents start again (`resampling.resample_`)", as_number
    )
    underused_below: float = number(
        0.5, "aux_zipf: a latent is underused below this part of its target", above=0, most=1, rules="budgets"
    )
    density_window: int = whole(100, "batches over which running densities are averaged")
    rerank_every: int = whole(
        100,
        "feature_choice: steps between two decisions about which feature has which rank. Decisions are made at steps "
        "1, 2, 4, … until there, and none once the rate decays. aux_zipf fits its law then",
        rules="budgets",
    )
    encoder_dtype: str = choice(
        "auto",
        'precision of the product that makes affinities: "float32", "bfloat16" (the strongest are computed again in '
        'float32, and these decide), "auto": bfloat16 if it is fast here',
        ENCODER_DTYPES,
        rules="budgets",
    )
    threshold_batches: int = whole(
        16,
        "last batches on which the inference thresholds are measured; more where capacities rotate over more",
        rules="budgets",
    )

    def __post_init__(self):
        check_fields(self)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers from 0 to below 1, as (0.9, 0.999), got {self.betas!r}")
        if not all(1 <= round(part * self.steps) < self.steps for part in self.resample_at):
            what = f"parts of the run, after its first and before its last of {self.steps} steps"
            raise ValueError(f"resample_at are {what}, got {self.resample_at!r}")
        if self.warmup + self.decay > 1:
            raise ValueError(f"warmup={self.warmup} and decay={self.decay} are more than the whole run; lower one")

    def check_for(self, config: SAEConfig) -> None:
        """ValueError that names a setting which this SAE's rule has no use for."""
        for field in dataclasses.fields(self):
            rules, value = field.metadata.get("rules"), getattr(self, field.name)
            if rules and not FOR[rules](config.how) and value != field.default:
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

    def penalty_at(self, step: int, config: SAEConfig) -> float:
        """The coefficient of this SAE's penalty at this step."""
        name = str(config.how.penalty)
        default = PENALTIES[name] if self.target_l0 is None else 1.0
        coefficient = default if getattr(self, name) is None else getattr(self, name)
        return coefficient * min(1.0, (step + 1) / max(1, round(self.penalty_warmup * self.steps)))

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
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        fast = device.type == "cpu" and any(getattr(torch.cpu, ask, bool)() for ask in asks)
    return torch.bfloat16 if fast else torch.float32
