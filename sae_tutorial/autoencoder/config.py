"""SAEConfig: what a sparse autoencoder is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

# These spend a budget of k matches per token; the other rules pay for every match by a penalty in the loss.
BUDGET_RULES = ("token_choice", "mutual_choice", "feature_choice", "matryoshka")
PENALTY_RULES = ("relu", "jumprelu", "gated")
CAPACITIES = ("uniform", "zipf", "fitted")


@dataclass(frozen=True)
class SAEConfig:
    """What a sparse autoencoder is; how it is trained is the business of `train`.

    d_in, d_sae     width of the activations, number of features
    rule            who gets to use which feature:
                    "token_choice"    TopK: k features for each token
                    "mutual_choice"   the k·B strongest matches of the batch (what BatchTopK selects)
                    "feature_choice"  each feature takes as many tokens as its capacity says
                    "matryoshka"      as mutual_choice, with nested dictionaries: each prefix must reconstruct alone
                    "relu"            every positive affinity, made sparse by a penalty (L1)
                    "jumprelu"        every affinity above its feature's learned threshold
                    "gated"           a gate decides whether, a magnitude how strongly
    k               mean number of features per token, the budget of the first four rules; None for the last three.
                    Whole for token_choice
    d_out           width of what is predicted, if that is not the input: a transcoder
    tied            encoder = decoderᵀ, one matrix. With rule="relu" and b_dec=False: Cunningham et al. 2023
    b_dec           whether there is a decoder bias, which the encoder subtracts too (a transcoder's encoder does not)
    skip            a linear path from input to output beside the features, for transcoders
    normalise       `train` takes the input's mean and scale from its store; False leaves activations as they are
    groups          matryoshka: sizes of the nested groups, summing to d_sae. None: 1/32, 1/16, 1/8, 1/4 and the rest
    capacity        feature_choice: how the budget is spread over the features' ranks. "uniform": equally; "zipf":
                    ∝ (rank + zipf_offset)^−zipf_exponent; "fitted": the same, beginning there, with exponent and offset
                    fitted again and again to the densities at which features would fire on their own (see `train`)
    """

    d_in: int
    d_sae: int
    rule: str = "mutual_choice"
    k: float | None = None
    d_out: int | None = None
    tied: bool = False
    b_dec: bool = True
    skip: bool = False
    normalise: bool = True
    groups: tuple[int, ...] | None = None
    capacity: str = "zipf"
    zipf_exponent: float = 1.0
    zipf_offset: float = 10.0

    def __post_init__(self):
        for name in ("d_in", "d_sae") + (("d_out",) if self.d_out is not None else ()):
            size = getattr(self, name)
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} must be a whole number, 1 or more, got {size!r}")
        if self.rule not in BUDGET_RULES + PENALTY_RULES:
            raise ValueError(f"rule must be one of {', '.join(BUDGET_RULES + PENALTY_RULES)}, got {self.rule!r}")
        self._check_k()
        self._check_groups()
        if self.capacity not in CAPACITIES:
            raise ValueError(f"capacity must be one of {', '.join(CAPACITIES)}, got {self.capacity!r}")
        if not 0 <= self.zipf_exponent < math.inf:
            raise ValueError(f"zipf_exponent must be a finite number, 0 or more, got {self.zipf_exponent!r}")
        if not -1 < self.zipf_offset < math.inf:
            raise ValueError(f"zipf_offset must be a finite number greater than -1, got {self.zipf_offset!r}")
        if self.tied and self.is_transcoder:
            raise ValueError(f"tied=True shares one matrix, so d_out={self.d_out} is not possible; leave d_out away")
        if self.skip and not self.is_transcoder:
            raise ValueError("skip=True would let the input through unchanged; it is for transcoders: give d_out")

    def _check_k(self) -> None:
        if self.rule in PENALTY_RULES:
            if self.k is not None:
                raise ValueError(f"k={self.k!r} is a budget, but rule={self.rule!r} has none; set k=None")
            return
        if self.k is None:
            raise ValueError(f"rule={self.rule!r} needs k, the mean number of features per token, for example k=32")
        if not isinstance(self.k, Real) or isinstance(self.k, bool):
            raise TypeError(f"k must be a number, got {self.k!r}")
        if not 0 < self.k <= self.d_sae:
            raise ValueError(f"k must be between 0 and d_sae={self.d_sae}, got {self.k!r}")
        if self.rule == "token_choice" and self.k != int(self.k):
            raise ValueError(
                f"k must be a whole number for token_choice, got {self.k!r}; mutual_choice takes fractions"
            )

    def _check_groups(self) -> None:
        if self.groups is None:
            return
        object.__setattr__(self, "groups", tuple(self.groups))  # a list, from JSON for example, is welcome
        if self.rule != "matryoshka":
            raise ValueError(f"groups are for rule='matryoshka', not for {self.rule!r}; leave groups away")
        if not all(isinstance(size, int) for size in self.groups):
            raise TypeError(f"groups must be whole numbers, got {self.groups}")
        if not self.groups or min(self.groups) < 1 or sum(self.groups) != self.d_sae:
            raise ValueError(f"groups must be positive and sum to d_sae={self.d_sae}, got {self.groups}")

    @property
    def is_transcoder(self) -> bool:
        return self.d_out is not None

    @property
    def width_out(self) -> int:
        """d_out, or d_in where nothing else was said."""
        return self.d_in if self.d_out is None else self.d_out

    @property
    def group_sizes(self) -> tuple[int, ...]:
        """Matryoshka's groups, the innermost first."""
        if self.groups is not None:
            return self.groups
        inner = [size for size in (self.d_sae // 32, self.d_sae // 16, self.d_sae // 8, self.d_sae // 4) if size]
        return (*inner, self.d_sae - sum(inner))

    def n_matches(self, n_tokens: int) -> int:
        """The budget of a batch: k per token."""
        assert self.k is not None
        return round(self.k * n_tokens)
