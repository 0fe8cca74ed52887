"""What `quality.py` trains: methods, places, and the parts of the grid, the most wanted first.

A run is one SAE. Its learning rate is that of the sweep of its method (part "rates"), which therefore comes first: five
rates a factor of two apart, and more where the best one would be at the end. Rates of other widths are scaled alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from peer_quality import PEERS

from sae_tutorial import SAEConfig
from sae_tutorial.autoencoder.config import PENALTY_RULES
from sae_tutorial.autoencoder.config import RULES as RULES_OF_SAES
from sae_tutorial.autoencoder.shipped import STEPS
from sae_tutorial.course.results import file_name
from sae_tutorial.training.settings import TrainSettings


@dataclass(frozen=True)
class Method:
    """How an SAE is made: fields of its SAEConfig and TrainSettings, and the method of a first half that it goes on
    from, where there is one."""

    sae: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    after: str | None = None


ZIPF_AUX = {"aux_k": 0.0, "aux_zipf": 1 / 32}
METHODS = {
    "token_choice": Method({"rule": "token_choice"}),
    "mutual_choice": Method({"rule": "mutual_choice"}),
    "feature_choice_zipf": Method({"rule": "feature_choice", "capacity": "zipf"}),
    "feature_choice_uniform": Method({"rule": "feature_choice", "capacity": "uniform"}),
    "feature_choice_fitted": Method({"rule": "feature_choice", "capacity": "fitted"}),
    "relative": Method({"rule": "mutual_choice", "relative": True}),
    "floor": Method({"rule": "mutual_choice", "floor": 0.1}),
    "relative_floor": Method({"rule": "mutual_choice", "relative": True, "floor": 0.1}),
    "relative_floor_zipf": Method({"rule": "mutual_choice", "relative": True, "floor": 0.1, "floor_shape": "zipf"}),
    "relative_aux_zipf": Method({"rule": "mutual_choice", "relative": True}, ZIPF_AUX),
    "feature_choice_relative": Method({"rule": "feature_choice", "capacity": "zipf", "relative": True}),
    "matryoshka": Method({"rule": "matryoshka"}),
    "gradient_choice": Method({"rule": "gradient_choice"}),
    "mutual_choice_twice": Method({"rule": "mutual_choice"}, after="mutual_choice"),
    "token_choice_twice": Method({"rule": "token_choice"}, after="token_choice"),
    "feature_choice_after_mutual": Method({"rule": "feature_choice", "capacity": "zipf"}, after="mutual_choice"),
    "relu": Method({"rule": "relu"}),
    "gated": Method({"rule": "gated"}),
    "jumprelu": Method({"rule": "jumprelu"}),
}
RULES = ("token_choice", "mutual_choice", "feature_choice_zipf", "relative_floor")  # of the sweeps over everything else
PENALISED = tuple(name for name, method in METHODS.items() if method.sae["rule"] in PENALTY_RULES)

SEEDS, MORE_SEEDS, BUDGETS = (0, 1, 2), (3,), (16, 32, 64)
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the rate that TrainSettings takes by default
FEWER_FACTORS = (0.5, 1.0, 2.0)
BETTER_PEERS = (
    "dictionary_learning_batchtopk",
    "saelens_topk",
)  # each library's trainer with the lower error, by rates
PEER_FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0)  # of the same rate; their own defaults are about an eighth
MOST_FACTORS = 8
BETAS = (0.0, 1.0, 4.0, 0.25)  # of part "gradient", the most wanted first, each with the learning rate of its method
NOISE = (0.01, 0.05, 0.1)  # share of rows that are random tokens
LENGTHS = (3, 10)  # times the steps of the usual run; the first has sweeps of its own, the second its rates
REFERENCE = {  # methods of the SAEs that the package ships, by their rule
    "token_choice": "token_choice",
    "mutual_choice": "mutual_choice",
    "feature_choice_zipf": "feature_choice",
    "matryoshka": "matryoshka",
}


@dataclass(frozen=True)
class Run:
    """One SAE to train: what is written into its line beside the results."""

    part: str
    method: str
    k: int
    seed: int
    model: str = "stories"
    width: int = 16  # features per input
    steps: int = 1000
    batch_size: int = 2048
    factor: float | None = None  # of the learning rate; None: the best of the sweep of its method
    noise: float = 0.0
    precision: str = "bfloat16"  # of the product that nominates candidates; float32 decides in any case
    beta: float | None = None  # of the config; None: what its rule takes

    @property
    def key(self) -> str:
        parts = [
            file_name(self.model),
            self.method,
            f"x{self.width}",
            f"k{self.k}",
            f"seed{self.seed}",
        ]
        parts += [f"{self.steps}x{self.batch_size}", f"lr{'best' if self.factor is None else format(self.factor, 'g')}"]
        parts += ["finer"] * (self.part == "finer")
        parts += [f"noise{self.noise:g}"] * (self.noise > 0) + [self.precision] * (self.precision != "bfloat16")
        parts += [] if self.beta is None else [f"beta{self.beta:g}"]
        return "-".join(parts)

    @property
    def like(self) -> str:
        """The method whose sweep of learning rates is its own: phases take that of their last rule."""
        same = (name for name, one in METHODS.items() if not one.after and one.sae == METHODS[self.method].sae)
        return self.method if self.is_peer or not METHODS[self.method].after else next(same)

    @property
    def is_peer(self) -> bool:
        return self.method in PEERS

    @property
    def is_penalised(self) -> bool:
        return self.method in PENALISED

    @property
    def wants_gradients(self) -> bool:
        return not self.is_peer and bool(self.config(d_in=self.k).gradient_weight)

    @property
    def is_searched(self) -> bool:
        """Whether the coefficient of its penalty must be searched for: a penalty on matches has the L0 as its aim."""
        return self.is_penalised and RULES_OF_SAES[METHODS[self.method].sae["rule"]].penalty == "l1"

    def config(self, d_in: int, method: str | None = None) -> SAEConfig:
        fields = METHODS[method or self.method].sae
        k = None if fields["rule"] in PENALTY_RULES else self.k
        return SAEConfig(d_in=d_in, d_sae=self.width * d_in, k=k, **{"beta": self.beta} | fields)

    def train_settings(self, d_in: int, factor: float, coefficient: float | None = None) -> TrainSettings:
        method = METHODS[self.method]
        fields: dict[str, Any] = dict(method.settings)
        if coefficient is not None:
            fields[str(self.config(d_in).how.penalty)] = coefficient
        elif self.is_penalised:
            fields["target_l0"] = self.k
        else:
            fields["encoder_dtype"] = self.precision
        settings = TrainSettings(steps=self.steps, batch_size=self.batch_size, seed=self.seed, **fields)
        return replace(settings, lr=factor * settings.lr_at(self.steps // 2, self.width * d_in))


def best_factor(rows: Sequence[Mapping[str, Any]], run: Run) -> float | None:
    """The factor of the learning rate that was best for this run's method on rows that none is measured on, on the same
    model and with the same number of steps: rates carry over to neither. None while the sweep is not done: not all of
    it is there, or the best one is at its end and fewer than MOST_FACTORS are."""
    swept = _swept(rows, run.like, run.model, run.steps)
    wanted = _factors(run.like, swept, is_short(run))
    return min(swept, key=swept.__getitem__) if wanted and set(wanted) <= set(swept) else None


def is_short(run: Run) -> bool:
    """Whether the sweep begins with three rates: other models, and longer runs, cost several times as much."""
    return run.model == "smollm2" or run.part == "length" or (run.part == "rates" and run.k != 32)


def _swept(rows: Sequence[Mapping[str, Any]], method: str, model: str, steps: int) -> dict[float, float]:
    """Of each rate that was tried, the error that it is chosen by: infinite where training diverged."""
    same = {"part": "rates", "method": method, "model": model, "steps": steps}
    mine = [row for row in rows if all(row[name] == value for name, value in same.items())]
    return {row["factor"]: math.inf if row.get("diverged") else row["validation_fvu"] for row in mine}


def _factors(method: str, swept: Mapping[float, float], short: bool = False) -> list[float]:
    """Those to try: five, or three, and further ones as long as the best so far is at the end."""
    factors = list(PEER_FACTORS if method in PEERS else FEWER_FACTORS if short else FACTORS)
    while set(factors) <= set(swept) and len(factors) < MOST_FACTORS:
        best = min(factors, key=swept.__getitem__)
        if best not in (factors[0], factors[-1]):
            break
        factors = [best / 2, *factors] if best == factors[0] else [*factors, 2 * best]
    return factors


def _sweep(rows: Sequence[Mapping[str, Any]], first: Run) -> Iterator[Run]:
    """This run at every learning rate that is to be tried, given those that were."""
    swept = _swept(rows, first.method, first.model, first.steps)
    return (replace(first, factor=factor) for factor in _factors(first.method, swept, is_short(first)))


def grid_of(rows: Sequence[Mapping[str, Any]], model: str, steps: int, width: int) -> Iterator[Run]:
    """What is to be trained on a model of one's own: rates on that model, then its main part, three seeds."""
    own: dict[str, Any] = {"model": model, "width": width, "steps": steps}
    core = (*RULES, "feature_choice_uniform", "floor")
    for method in core:
        yield from _sweep(rows, Run("rates", method, 32, 0, **own))
    for k in (32, 16, 64):
        for seed in SEEDS:
            yield from (Run("main", method, k, seed, **own) for method in core)


def grid(rows: Sequence[Mapping[str, Any]], steps: int = 1000) -> Iterator[Run]:
    """Everything that is to be trained on the models that the package brings, given what is known already."""
    swept = [name for name, method in METHODS.items() if method.after is None]
    quick = [name for name in swept if name not in PENALISED]

    def rates(methods: Sequence[str], k: int = 32, **more: Any) -> Iterator[Run]:
        for method in methods:
            yield from _sweep(rows, Run("rates", method, k, 0, **{"steps": steps} | more))

    def cells(
        part: str, methods: Sequence[str], seeds: Sequence[int], budgets: Sequence[int], **more: Any
    ) -> Iterator[Run]:
        for seed in seeds:
            for k in budgets:
                yield from (Run(part, method, k, seed, **{"steps": steps} | more) for method in methods)

    core, new = [*RULES, "feature_choice_uniform"], ["relative", "floor"]
    rest = [name for name in METHODS if name not in (*core, *new, *PENALISED)]
    smollm2: dict[str, Any] = {"model": "smollm2", "width": 8}
    noisy = ("token_choice", "mutual_choice", "relative_floor")
    yield from rates(core)
    yield from cells("main", core, SEEDS, (32, 16, 64))
    for k in (16, 64, 32):  # is the rate of k = 32 that of other budgets, and what lies between two steps of the sweep?
        for factor in (1.0, 2**0.5):
            yield from cells("finer", RULES[:2], SEEDS[:1], (k,), factor=factor)
    yield from rates(new)
    yield from cells("main", new, SEEDS, (32, 16))
    yield from rates(RULES[:3], **smollm2)
    yield from cells("smollm2", RULES[:3], SEEDS, (32,), **smollm2)
    yield from rates(RULES[:3], 16, steps=LENGTHS[0] * steps)
    yield from cells("length", RULES[:3], SEEDS, (16,), steps=LENGTHS[0] * steps)
    yield from cells("noise", noisy, SEEDS[:2], (32,), noise=0.05)
    yield from cells("wide", core, SEEDS, (32,), width=64)
    yield from rates([name for name in quick if name not in (*core, *new)])
    yield from cells("main", rest, SEEDS, (32,))
    yield from rates(PENALISED)
    yield from cells("main", PENALISED, SEEDS, (32,))
    yield from cells("main", new, SEEDS, (16, 64))
    yield from cells("main", [*rest, *PENALISED], SEEDS[:1], (16, 64))  # fronts to draw: no verdict is spoken on them
    yield from cells("smollm2", RULES[:3], SEEDS, (16, 64), **smollm2)
    yield from rates([*core, *new][3:], **smollm2)
    yield from cells("smollm2", [*core, *new][3:], SEEDS, (32,), **smollm2)
    for beta in BETAS:
        yield from cells("gradient", [*RULES[1:3], "gradient_choice"], SEEDS, (32,), beta=beta)
    yield from cells("precision", RULES, SEEDS[:1], (32,), precision="float32")  # a check: no verdict is spoken on it
    yield from cells("main", RULES, MORE_SEEDS, BUDGETS)
    yield from (run for share in NOISE for run in cells("noise", noisy, SEEDS[:2], (32,), noise=share))
    yield from rates(list(PEERS))
    yield from cells("peers", BETTER_PEERS, SEEDS, (32,))
    yield from cells("smollm2", RULES[3:], SEEDS, (16, 64), **smollm2)
    yield from rates(RULES[3:], 16, steps=LENGTHS[0] * steps)
    yield from cells("length", RULES[3:], SEEDS, (16,), steps=LENGTHS[0] * steps)
    for method in RULES:  # a sweep of the longest would cost more than everything above: the rates of the long runs
        long = Run("length", method, 16, SEEDS[0], steps=LENGTHS[0] * steps)
        factor = best_factor(rows, long)
        if factor is not None:
            yield from (replace(long, seed=seed, steps=LENGTHS[1] * steps, factor=factor) for seed in SEEDS)
    yield from rates(["gradient_choice"], **smollm2)
    yield from cells("gradient", ["gradient_choice"], SEEDS, (32,), beta=1.0, **smollm2)
    for model, width in (("stories", 16), ("smollm2", 4)):  # what is shipped, measured like everything else
        shipped: dict[str, Any] = {"model": model, "width": width, "steps": STEPS[model], "factor": 1.0}
        yield from cells("reference", list(REFERENCE), SEEDS[:1], (32,), **shipped)
