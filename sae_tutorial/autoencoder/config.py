"""SAEConfig: what a sparse autoencoder is; and the table of allocation rules that everything else asks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from sae_tutorial.activations.arguments import as_whole
from sae_tutorial.autoencoder.fields import NO_DEFAULT, check_fields, choice, described, flag, number, several, whole


@dataclass(frozen=True)
class Rule:
    """What sets an allocation rule apart. Code asks these fields, not names: a new rule is a row of RULES.

    owner       what has a budget of matches in training: a "token", the "batch", or a "feature". None: every match pays
                the penalty `penalty` instead
    thresholds  which decide at inference: "one" for all features, or "each" its own. None: the rule is one of single
                tokens already
    learned     thresholds are learned by gradients; else they are measured after training, where there is a budget
    penalty     the field of TrainSettings that weighs it
    gated       a gate decides whether a feature is on, and r_mag and b_mag how strongly
    nested      the features are groups, each of which must reconstruct together with those before it
    beta        how much gradients of the loss count in the comparison, where the config does not say
    """

    about: str
    owner: Literal["token", "batch", "feature"] | None = None
    thresholds: Literal["one", "each"] | None = None
    learned: bool = False
    penalty: str | None = None
    gated: bool = False
    nested: bool = False
    beta: float = 0.0

    @property
    def measured(self) -> bool:
        """Whether inference needs thresholds that are measured on batches."""
        return self.owner is not None and self.thresholds is not None


RULES = {
    "token_choice": Rule("TopK: k features for each token", owner="token"),
    "mutual_choice": Rule("the k·B strongest matches of the batch (what BatchTopK selects)", "batch", "one"),
    "feature_choice": Rule("each feature takes as many tokens as its capacity allows", "feature", "each"),
    "matryoshka": Rule("as mutual_choice, each prefix of groups must reconstruct alone", "batch", "one", nested=True),
    "gradient_choice": Rule(
        "as token_choice, by what gradients of the loss add to affinities", "token", "each", beta=1.0
    ),
    "relu": Rule("every positive affinity, made sparse by a penalty", penalty="l1"),
    "jumprelu": Rule(
        "every affinity above its feature's learned threshold", thresholds="each", learned=True, penalty="l0"
    ),
    "gated": Rule("a gate decides whether, a magnitude how strongly", penalty="l1", gated=True),
}
BUDGET_RULES = tuple(name for name, rule in RULES.items() if rule.owner is not None)
TAKE_BETA = tuple(name for name, rule in RULES.items() if rule.beta or rule.owner in ("batch", "feature"))
PENALTY_RULES = tuple(name for name, rule in RULES.items() if rule.owner is None)
CAPACITIES = ("uniform", "zipf", "fitted")
# With gradients each feature has a threshold of its own: one for all would forget which of them the loss listens to.
BY_GRADIENTS = {name: replace(rule, thresholds="each") for name, rule in RULES.items()}
FLOORS = ("uniform", "zipf")


@described
@dataclass(frozen=True)
class SAEConfig:
    """What a sparse autoencoder is; how it is trained is the business of `train`.

    Raises TypeError or ValueError that name the field, its value and what it may be.
    """

    d_in: int = whole(NO_DEFAULT, "width of the activations")
    d_sae: int = whole(NO_DEFAULT, "number of features")
    rule: str = choice(
        "mutual_choice",
        "who gets to use which feature. " + "; ".join(f'"{name}": {rule.about}' for name, rule in RULES.items()),
        tuple(RULES),
    )
    k: float | None = number(None, "mean number of features per token, for rules that have a budget", above=0)
    d_out: int | None = whole(None, "width of what is predicted, if that is not the input: a transcoder")
    tied: bool = flag(False, 'encoder = decoderᵀ, one matrix. With "relu" and b_dec=False: Cunningham et al. 2023')
    b_dec: bool = flag(True, "a decoder bias, which the encoder subtracts too (a transcoder's encoder does not)")
    skip: bool = flag(False, "a linear path from input to output beside the features, for transcoders")
    normalise: bool = flag(True, "`train` takes mean and scale from its store; False leaves activations as they are")
    groups: tuple[int, ...] | None = several(
        None,
        "matryoshka: sizes of the nested groups, summing to d_sae. None: 1/32, 1/16, 1/8, 1/4, the rest",
        partial(as_whole, least=1),
    )
    capacity: str = choice(
        "zipf",
        'feature_choice: how the budget is spread over the features\' ranks. "uniform": equally; "zipf": '
        '∝ (rank + zipf_offset)^−zipf_exponent; "fitted": the same, beginning there, with exponent and offset fitted '
        "again and again to the densities at which features would fire on their own (see `train`)",
        CAPACITIES,
    )
    zipf_exponent: float = number(1.0, "feature_choice: how fast capacities fall with the rank", least=0)
    zipf_offset: float = number(10.0, "feature_choice: flattens the first ranks of that law", above=-1)

    relative: bool = flag(
        False,
        "mutual_choice, matryoshka, feature_choice: compare affinities relative to the length of their token, "
        "z / |x − b_dec|, so that long tokens do not outbid short ones. What matches keeps its value z",
    )
    floor: float = number(
        0.0,
        "mutual_choice, matryoshka: least density of a feature, in parts of the mean k / d_sae. In training, a subsidy "
        "raises in the comparison what falls below it; the budget stays. 0: no floor. Ours: 0.1",
        least=0,
        below=1,
    )
    floor_shape: str = choice(
        "uniform",
        'the floor of each feature. "uniform": the same; "zipf": falling with its rank like capacities',
        FLOORS,
    )
    beta: float | None = number(
        None,
        "gradient_choice, mutual_choice, matryoshka, feature_choice: in training, compare z + β·z·|W_dec g| instead of "
        "affinities z, where g is the gradient of the model's loss with respect to what is reconstructed, in units of "
        "its root-mean-square coordinate. What matches keeps its value z. `train` takes g from the `gradients` of its "
        "store; at inference there are none, and each feature has a threshold. None: 1 for gradient_choice, else 0",
        least=0,
    )

    def __post_init__(self):
        check_fields(self)
        self._check_k()
        self._check_comparison()
        if self.groups is not None:
            if not self.how.nested:
                raise ValueError(f"groups are for rule='matryoshka', not for {self.rule!r}; leave groups out")
            if sum(self.groups) != self.d_sae:
                raise ValueError(f"groups must sum to d_sae={self.d_sae}, got {self.groups}")
        if self.tied and self.is_transcoder:
            raise ValueError(f"tied=True shares one matrix, so d_out={self.d_out} is not possible; leave d_out out")
        if self.skip and not self.is_transcoder:
            raise ValueError("skip=True would let the input through unchanged; it is for transcoders: give d_out")

    def _check_k(self) -> None:
        if self.how.owner is None and self.k is not None:
            raise ValueError(f"k={self.k!r} is a budget, but rule={self.rule!r} has none; set k=None")
        if self.how.owner is None:
            return
        if self.k is None:
            raise ValueError(f"rule={self.rule!r} needs k, the mean number of features per token, for example k=32")
        if self.k > self.d_sae:
            raise ValueError(f"k must be at most d_sae={self.d_sae}, got {self.k!r}")
        if self.how.owner == "token" and self.k != int(self.k):
            raise ValueError(f"k must be a whole number for {self.rule}, got {self.k!r}; mutual_choice takes fractions")

    def _check_comparison(self) -> None:
        if self.relative and (self.how.owner not in ("batch", "feature") or self.is_transcoder):
            kind = "a transcoder, which measures from no b_dec" if self.is_transcoder else f"rule={self.rule!r}"
            raise ValueError(f"relative=True compares tokens of a batch; it has no meaning for {kind}: leave it out")
        if self.beta and self.rule not in TAKE_BETA:
            fix = "'gradient_choice' is token_choice with it" if self.rule == "token_choice" else "leave it out"
            raise ValueError(f"beta={self.beta!r} has no meaning for rule={self.rule!r}; {fix}")
        if self.floor and self.how.owner != "batch":
            raise ValueError(
                f"floor={self.floor!r} is for mutual_choice and matryoshka, not for {self.rule!r}; leave it out"
            )
        if self.floor_shape != "uniform" and not self.floor:
            raise ValueError(
                f"floor_shape={self.floor_shape!r} shapes a floor, and floor is 0; set floor=0.1, for example"
            )

    @property
    def how(self) -> Rule:
        """The row of RULES that `rule` names."""
        return BY_GRADIENTS[self.rule] if self.beta else RULES[self.rule]

    @property
    def gradient_weight(self) -> float:
        """β: how much gradients count in what is compared. Where it is 0, none are needed."""
        return RULES[self.rule].beta if self.beta is None else self.beta

    @property
    def compares_bids(self) -> bool:
        """Whether the rule compares something else than affinities; see `SparseAutoencoder.bids`."""
        return self.relative or self.floor > 0

    @property
    def is_transcoder(self) -> bool:
        return self.d_out is not None

    @property
    def width_out(self) -> int:
        """d_out, or d_in where nothing else was specified."""
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
