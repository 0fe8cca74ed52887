"""SparseAutoencoder: an encoder, an allocation rule and a decoder, as SAEConfig specifies.

    affinities = relu((x − b_dec) W_enc + b_enc)       how strongly each feature answers to each token
    codes      = rule(affinities)                      who gets to use which feature; some compare `bids` instead, and
                                                       some `scores`, which know the gradient of the model's loss
    x̂          = codes W_dec + b_dec                   each token, as a sum of a few directions

Raw activations go in and raw reconstructions come out: the input's mean and scale travel with the weights. Codes, and
the thresholds that gate them, are in the units inside, where E|x|² = d_in.

Letters of shapes: B tokens, D = d_in, F = d_sae, O = d_out, N matches.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sae_tutorial import allocation
from sae_tutorial.activations.arguments import as_part
from sae_tutorial.activations.memory import at_once
from sae_tutorial.allocation import SparseCodes, encode_matches, stack_tokens
from sae_tutorial.allocation.checks import FLOATING, WHOLE, check_tensor
from sae_tutorial.autoencoder.config import SAEConfig

ALL = slice(None)
DRAWN_ROWS = 4096  # random rows that are drawn at a time, of which a part of an SAE keeps its own
OPERAND_ROWS = 1024  # encoder rows that are scaled and rounded at a time
UNSET = -1.0  # a threshold, or a unit of gradients, that has not been measured yet
ORIGIN = ("model_name", "hook_name", "target_hook_name", "imported")  # attributes that are not in the state dict


class SparseAutoencoder(nn.Module):
    """A sparse autoencoder, or a transcoder where the config has d_out.

        sae.encode(x)       (B, D) -> SparseCodes (B, F)
        sae.decode(codes)   -> (B, O)
        sae(x)              (..., D) -> (..., O)
        sae.affinities(x)   (B, D) -> (B, F), what the rule chooses from

    Weights: W_enc (D, F), b_enc (F,), W_dec (F, O) with rows of unit norm, b_dec (O,); gated adds r_mag and b_mag (F,),
    skip adds W_skip (O, D). W_enc is laid out feature by feature (W_enc.T is contiguous), for the sparse products.

    Buffers: mean (D,) and scale of the input, and of the output (out_mean, out_scale) in a transcoder; threshold, one
    number for mutual_choice and matryoshka, (F,) for feature_choice and jumprelu (which learns it), in the units
    inside, and below 0 until it has been measured; rank (F,), the place of each feature in the order of capacities,
    0 first; zipf_law (exponent, offset); tokens_seen, how many tokens `train` has trained it on; subsidy (F,), 1 or
    more, where the config has a floor; gradient_scale, the unit of gradients, where it has a beta (below 0
    until `train` has taken it from a store).

    Attributes, saved with it: model_name and hook_name, the activations that it reads, and target_hook_name, those that
    a transcoder predicts (None: not known); imported, whether another library trained it.

    `part`, (rank, world), makes some of the features alone: those of one of several processes that train one SAE (see
    `distributed`). Its weights are these features' rows of the whole SAE of the same seed; `features` is their range.
    What needs all features (encode, decode, save_sae) wants the whole: `parts.joined`.

    Training and inference differ on purpose. Mutual and Feature Choice look at a whole batch, so a trained SAE carries
    thresholds measured on many batches, and `encode` uses them: a token's code does not depend on its neighbours.
    `encode(x, batch_rule=True)` lets the tokens of x compete as in training. Nor are there gradients at inference: each
    feature's threshold lets in as many tokens as it got in training, so one that the loss listens to has a low one.
    """

    model_name: str | None = None
    hook_name: str | None = None
    target_hook_name: str | None = None
    imported: bool = False
    mean: Tensor
    scale: Tensor
    rank: Tensor
    zipf_law: Tensor
    subsidy: Tensor
    gradient_scale: Tensor
    tokens_seen: Tensor

    def __init__(self, config: SAEConfig, seed: int = 0, part: tuple[int, int] = (0, 1)):
        super().__init__()
        self.config, self.part = config, as_part(part, "d_sae", config.d_sae)
        self.features = features_of(self.part, config.d_sae)
        D, F, d_out = config.d_in, len(self.features), config.width_out
        generator = torch.Generator().manual_seed(seed)
        W_dec = _random_directions(config.d_sae, d_out, generator, self.features)
        self.W_dec = nn.Parameter(W_dec)
        self.b_enc = nn.Parameter(torch.zeros(F))
        self.b_dec = nn.Parameter(torch.zeros(d_out), requires_grad=config.b_dec)
        if not config.tied:
            rows_FD = W_dec.clone()
            if config.is_transcoder:
                rows_FD = _random_directions(config.d_sae, D, generator, self.features)
            self.W_enc = nn.Parameter(rows_FD.T)
        if config.how.gated:
            self.r_mag = nn.Parameter(torch.zeros(F))
            self.b_mag = nn.Parameter(torch.zeros(F))
        if config.skip:
            self.W_skip = nn.Parameter(torch.zeros(d_out, D))
        if config.how.learned:
            self.threshold = nn.Parameter(torch.full((F,), 1e-3 * math.sqrt(D)))
        for name, buffer in fresh_buffers(config, self.features).items():
            self.register_buffer(name, buffer)

    # ------------------------------------------------------------------ in raw activations

    def encode(
        self,
        x: Float[Tensor, "tokens d_in"],
        batch_rule: bool = False,
        *,
        gradients: Float[Tensor, "tokens d_out"] | None = None,
    ) -> SparseCodes:
        """The features of each token of `x`, each token by itself; differentiable at the matches.

        batch_rule=True allocates as in training: the tokens of `x` share one budget. token_choice does not care. An SAE
        with a beta then needs the `gradients` of the model's loss, row by row, as its store had them.
        Raises ValueError for an x that is not (tokens, d_in) or that holds NaN or inf, where the rule needs a threshold
        that has not been measured yet, and for gradients that are missing, or not wanted.
        """
        u_BD = _finite("x", x, self.normalise(x))
        if gradients is None:
            return self.encode_normalised(u_BD, batch_rule)
        if not batch_rule or not self.config.gradient_weight:
            raise ValueError("gradients are for batch_rule=True and an SAE with a beta; leave them away")
        return self.encode_normalised(u_BD, True, _finite("gradients", gradients, self.in_units(gradients)))

    def decode(self, codes: SparseCodes) -> Float[Tensor, "tokens d_out"]:
        """The reconstruction that these codes stand for. A skip path needs the input: `forward` adds it."""
        self.must_be_whole("decode")
        if not isinstance(codes, SparseCodes | Tensor):
            raise TypeError(f"codes must be SparseCodes, as encode returns them, got {type(codes).__name__}")
        if codes.shape[-1] != self.config.d_sae:
            raise ValueError(f"codes have {codes.shape[-1]} features, this SAE has d_sae={self.config.d_sae}")
        return self.denormalise(codes @ self.W_dec + self.b_dec)

    def forward(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        """encode, then decode; any number of leading dimensions."""
        x_ND = x.flatten(0, -2) if _real("x", x).dim() > 1 else x[None]  # `normalise` refuses what is neither
        u_ND = _finite("x", x_ND, self.normalise(x_ND))
        x_hat_NO = self.denormalise(self.decode_normalised(self.encode_normalised(u_ND), u_ND))
        return x_hat_NO.view(*x.shape[:-1], self.config.width_out)

    def affinities(self, x: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens features"]:
        """How strongly each feature answers to each token: relu((x − b_dec) W_enc + b_enc)."""
        return self.preactivations(self.normalise(x)).relu()

    def normalise(self, x: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens d_in"]:
        """(x − mean) / scale: raw activations to the units inside, checked."""
        if _real("x", x).dim() != 2 or x.shape[1] != self.config.d_in:
            hint = "; flatten the positions first: x.flatten(0, -2)" if x.dim() > 2 else ""
            raise ValueError(f"x must be (tokens, {self.config.d_in}), got shape {tuple(x.shape)}{hint}")
        if x.device != self.W_dec.device:
            raise ValueError(f"x is on {x.device}, the SAE on {self.W_dec.device}; move one: x.to(sae.W_dec.device)")
        return (x.to(self.W_dec.dtype) - self.mean) / self.scale

    def normalise_target(self, y: Float[Tensor, "tokens d_out"]) -> Float[Tensor, "tokens d_out"]:
        """(y − out_mean) / out_scale: what a transcoder predicts, to the units inside."""
        return (_real("y", y).to(self.W_dec.dtype) - self.out_mean) / self.out_scale

    def in_units(self, gradients: Float[Tensor, "tokens d_out"]) -> Float[Tensor, "tokens d_out"]:
        """Gradients of the loss with respect to raw activations (a transcoder's: outputs), in their own units: about 1
        per coordinate."""
        if _real("gradients", gradients).shape[1:] != (self.config.width_out,):
            got = tuple(gradients.shape)
            raise ValueError(f"gradients must be (tokens, {self.config.width_out}), a row for each token, got {got}")
        if self.gradient_scale < 0:
            raise ValueError("this SAE has no unit of gradients yet; `train` takes it from its store")
        return gradients.to(self.W_dec.dtype) / self.gradient_scale

    def denormalise(self, u: Float[Tensor, "tokens d_out"]) -> Float[Tensor, "tokens d_out"]:
        """Reconstructions back to raw units."""
        if self.config.is_transcoder:
            return u * self.out_scale + self.out_mean
        return u * self.scale + self.mean

    # ------------------------------------------------------------------ in the units inside

    def __getattr__(self, name: str):
        """A tied autoencoder's W_enc is no parameter of its own."""
        if name == "W_enc" and self.config.tied:
            return self.W_dec.T
        return super().__getattr__(name)

    def must_be_whole(self, what: str) -> None:
        """ValueError if it is a part, which `what` cannot do with."""
        if self.part[1] > 1:
            some = f"features {self.features.start} to {self.features.stop - 1} of {self.config.d_sae}"
            raise ValueError(f"{what} needs all features, and this part of an SAE has {some}; use parts.joined(sae)")

    @property
    def started(self) -> bool:
        """Whether it has been trained, here or elsewhere: otherwise `train` gives it its start."""
        return self.imported or bool(self.tokens_seen > 0)

    def take_origin(self, other: SparseAutoencoder) -> None:
        """Note that it reads, and where it was trained, what and where `other` does."""
        for name in ORIGIN:
            setattr(self, name, getattr(other, name))

    @property
    def centre(self) -> Float[Tensor, " d_in"] | None:
        """What the encoder subtracts: b_dec, and nothing in a transcoder, whose b_dec lives in another space."""
        return self.b_dec if self.config.b_dec and not self.config.is_transcoder else None

    def preactivations(
        self,
        u: Float[Tensor, "tokens d_in"],
        dtype: torch.dtype | None = None,
        *,
        features: slice | Int[Tensor, " some"] = ALL,
        out: Tensor | None = None,
    ) -> Float[Tensor, "tokens features"]:
        """Affinities before their ReLU, which no rule needs: only positive entries match. One matrix product, in
        `dtype`, for all features or some; `out` is memory to put them into, without a graph."""
        centred_BD = _real("u", u) if self.centre is None else _real("u", u) - self.centre
        if out is None and not torch.is_grad_enabled():
            out = self.table_memory(len(u), len(self.b_enc[features]), dtype or self.W_dec.dtype)
        tensors = (self.b_enc[features], centred_BD, self.W_enc[:, features])
        return torch.addmm(*(tensors if dtype is None else (t.to(dtype) for t in tensors)), out=out)

    # ------------------------------------------------------------------ what the rule compares

    def bids(
        self,
        u: Float[Tensor, "tokens d_in"],
        dtype: torch.dtype | None = None,
        *,
        features: slice | Int[Tensor, " some"] = ALL,
        out: Tensor | None = None,
        operand: Tensor | None = None,
    ) -> Float[Tensor, "tokens features"]:
        """What matches are chosen by; arguments as for `preactivations`, which bids are unless the config says more:

            bid = z · √D / |u − b_dec| · subsidy    a factor of the token (relative), and one of the feature (floor)

        Both factors go into the product's operands, so that bids cost one matrix product like affinities. `operand` is
        memory for the encoder's side (`operand_memory`), which one who calls often does not want to ask for each time.
        """
        if not self.config.compares_bids:
            return self.preactivations(u, dtype, features=features, out=out)
        dtype, D = dtype or self.W_dec.dtype, self.config.d_in
        W_FD, b_F = self.W_enc[:, features].T, self.b_enc[features]
        if out is None and not torch.is_grad_enabled():
            out = self.table_memory(len(u), len(b_F), dtype)
        operand_FC = self.operand_memory(len(b_F), dtype) if operand is None else operand
        subsidy_F1 = self.subsidy[features, None] if self.config.floor else torch.ones_like(b_F[:, None])
        for rows in torch.arange(len(b_F)).split(OPERAND_ROWS):  # what is rounded lies in the cache when it is
            some = slice(int(rows[0]), int(rows[-1]) + 1)
            operand_FC[some, :D] = W_FD[some] * subsidy_F1[some] if self.config.floor else W_FD[some]
        centred_BD, bias_F = (
            _real("u", u) if self.centre is None else _real("u", u) - self.centre,
            b_F * subsidy_F1[:, 0],
        )
        if not self.config.relative:
            return torch.addmm(bias_F.to(dtype), centred_BD.to(dtype), operand_FC.T, out=out)
        # The bias is one more input, which is as long as the token's factor.
        operand_FC[:, D] = bias_F
        left_BC = torch.zeros(len(u), operand_FC.shape[1], dtype=dtype, device=u.device)
        near_B1 = self.nearness(u)[:, None]
        left_BC[:, :D], left_BC[:, D : D + 1] = centred_BD * near_B1, near_B1
        return torch.mm(left_BC, operand_FC.T, out=out)

    def operand_memory(self, n_features: int, dtype: torch.dtype) -> Tensor:
        """For `bids`: encoder rows, where bids are relative with their bias, and zeros up to a multiple of 16, as
        products over an odd number of inputs are slow in half precision."""
        D = self.config.d_in
        width = -(-(D + 1) // 16) * 16 if self.config.relative else D
        memory_FC = torch.empty(n_features, width, dtype=dtype, device=self.W_dec.device)
        memory_FC[:, D:] = 0
        return memory_FC

    def nearness(self, u: Float[Tensor, "tokens d_in"]) -> Float[Tensor, " tokens"]:
        """The token's factor, √D / |u − b_dec|: about 1 for a token of usual length. It is 0 for b_dec itself, up to
        rounding: that has nothing to say, and would outbid everybody."""
        centre_D = u.new_zeros(u.shape[1]) if self.centre is None else self.centre
        length_B, rounding_B = (u - centre_D).norm(dim=1), 1e-6 * (u.norm(dim=1) + centre_D.norm())
        return torch.where(length_B > rounding_B, math.sqrt(u.shape[1]) / length_B, 0.0)

    def to_bids(self, u: Float[Tensor, "tokens d_in"], codes: SparseCodes) -> SparseCodes:
        """Matches with their bids, from those with affinities."""
        return self._priced(u, codes, 1)

    def from_bids(self, u: Float[Tensor, "tokens d_in"], codes: SparseCodes) -> SparseCodes:
        """Matches with their affinities, from those with bids."""
        return self._priced(u, codes, -1)

    def _priced(self, u: Tensor, codes: SparseCodes, power: int) -> SparseCodes:
        values_N = codes.values
        if self.config.relative:
            values_N = values_N * self.nearness(u)[codes.tokens] ** power
        if self.config.floor:
            values_N = values_N * self.subsidy[codes.features] ** power
        return codes.with_values(values_N) if self.config.compares_bids else codes

    def scores(
        self,
        bids: Float[Tensor, "tokens features"],
        gradients: Float[Tensor, "tokens d_out"],
        *,
        features: slice | Int[Tensor, " some"] = ALL,
        out: Tensor | None = None,
    ) -> Float[Tensor, "tokens features"]:
        """What bids are worth in training where the config has a beta, and `gradients` (`in_units`) are known:

            score = bid + β · bid · |W_dec g|

        in the bids' precision, without a graph, and into the memory of `out` if there is some.
        """
        with torch.no_grad():
            out = self.table_memory(len(bids), bids.shape[1], bids.dtype) if out is None else out
            torch.mm(gradients.to(bids.dtype), self.W_dec[features].T.to(bids.dtype), out=out)
            return torch.addcmul(bids, bids, out.abs_(), value=self.config.gradient_weight, out=out)

    def scores_at(self, codes: SparseCodes, gradients: Float[Tensor, "tokens d_out"]) -> Float[Tensor, " matches"]:
        """The same for listed matches, whose values are bids."""
        sensitivity_N = allocation.sensitivity_at(codes, gradients, self.W_dec)
        return allocation.scores(codes.values, sensitivity_N, self.config.gradient_weight)

    def table_memory(self, n_tokens: int, n_features: int, dtype: torch.dtype) -> Tensor:
        """Memory for a table of affinities (tokens, features). On a CPU, a product into memory ordered by features is a
        tenth faster; for Token Choice, which reads a token's features in one go, order by tokens is worth as much."""
        if self.W_dec.device.type == "cpu" and self.config.how.owner != "token":
            return torch.empty(n_features, n_tokens, dtype=dtype).T
        return torch.empty(n_tokens, n_features, dtype=dtype, device=self.W_dec.device)

    def budget(self, n_tokens: int, step: int = 0, slack: float = 0.0) -> tuple[str, int | Int[Tensor, " features"]]:
        """What has a budget in a batch of training, and how many matches: ("token", k), ("batch", k·B) or ("feature",
        capacities). `slack` widens it by that share and a few more, to see the runners-up, too."""
        owner = self.config.how.owner
        assert owner is not None, f"{self.config.rule} has no budget"
        if owner == "feature":
            capacity_F = self.capacity(n_tokens, step)
            return owner, capacity_F + 4 + (capacity_F * slack).long() if slack else capacity_F
        n_matches = self.config.n_matches(1 if owner == "token" else n_tokens)
        return owner, n_matches + 4 + int(n_matches * slack) if slack else n_matches

    def allocate(
        self,
        bids: Float[Tensor, "tokens features"],
        step: int = 0,
        slack: float = 0.0,
        guess: float | None = None,
        gradients: Float[Tensor, "tokens d_out"] | None = None,
        out: Tensor | None = None,
    ) -> SparseCodes:
        """The matches of a batch by the rule of training (penalty rules have but one), with their bids as values;
        `guess` is that of `match`. With `gradients`, `scores` are compared, which go into the memory of `out`."""
        if self.config.how.owner is None:
            return self.allocate_by_threshold(bids)
        bids = self._table(bids)
        budget = self.budget(len(bids), step, slack)
        if gradients is None:
            return allocation.fast.by_owner(bids, *budget, guess=guess)
        codes = allocation.fast.by_owner(self.scores(bids, gradients, out=out), *budget)
        return codes.with_values(bids[codes.tokens, codes.features])

    def allocate_by_threshold(self, bids: Float[Tensor, "tokens features"]) -> SparseCodes:
        """The matches of each token by itself, with their bids as values: by `threshold`, or by the rule of training
        where that is one of single tokens already."""
        bids = self._table(bids)
        if self.config.how.owner == "token" and not self.config.how.measured:
            return allocation.token_choice(bids, self.config.n_matches(1))
        if self.config.how.measured and (self.threshold < 0).any():
            raise ValueError(
                f"this {self.config.rule} SAE has no inference threshold yet: `train` measures it at its end, "
                "`measure_thresholds(sae, batches)` at any time; encode(x, batch_rule=True) needs none"
            )
        return allocation.threshold_choice(bids, self.threshold.detach())

    def _table(self, bids: Any) -> Tensor:
        """Bids with a column for each feature; the rules check the rest."""
        n_features = len(self.features)
        if _real("bids", bids).dim() == 2 and bids.shape[1] != n_features:
            raise ValueError(f"bids must be (tokens, {n_features}), got shape {tuple(bids.shape)}")
        return bids

    def capacity(self, n_tokens: int, step: int = 0) -> Int[Tensor, " features"]:
        """feature_choice: how many of `n_tokens` tokens each feature may take. `step` rotates a budget below F."""
        exponent, offset = self.zipf_law.tolist()
        n_matches = self.config.n_matches(n_tokens)
        by_rank = allocation.zipf_capacity(self.config.d_sae, n_matches, n_tokens, exponent, offset, step)
        return by_rank.to(self.rank.device)[self.rank]

    def encode_normalised(
        self,
        u: Float[Tensor, "tokens d_in"],
        batch_rule: bool = False,
        gradients: Float[Tensor, "tokens d_out"] | None = None,
    ) -> SparseCodes:
        """`encode`, for input that is normalised already, and gradients that are in their units."""
        self.must_be_whole("encode")
        if batch_rule and self.config.gradient_weight and gradients is None:
            raise ValueError(
                f"batch_rule=True chooses as in training, where this {self.config.rule} SAE looks at gradients of the "
                "loss: give gradients=…, or leave batch_rule away"
            )
        with torch.no_grad():
            if batch_rule:
                codes = self.allocate(self.bids(u), gradients=gradients)
            else:  # each token by itself, so as many at a time as memory likes
                pieces = _real("u", u).split(at_once(u.device, u.element_size() * self.config.d_sae))
                codes = stack_tokens([self.allocate_by_threshold(self.bids(piece)) for piece in pieces])
            codes = self.from_bids(u, codes)
        return self.strengths(u, codes)

    def strengths(self, u: Float[Tensor, "tokens d_in"], codes: SparseCodes) -> SparseCodes:
        """The chosen matches, with values that gradients flow through. `codes.values` must be their affinities."""
        if torch.is_grad_enabled():
            codes = encode_matches(u, self.W_enc, self.b_enc, codes, self.centre, rescore=False)
        if not self.config.how.gated:
            return codes
        magnitudes_N = self.magnitudes(codes.values, codes.features)
        on = magnitudes_N > 0
        return SparseCodes(magnitudes_N[on], codes.tokens[on], codes.features[on], codes.shape)

    def magnitudes(self, gate: Tensor, features: Tensor | slice = ALL) -> Tensor:
        """Gated: relu(exp(r_mag) · (x − b_dec) W_enc + b_mag), from the gate's affinities, which share the product."""
        return ((gate - self.b_enc[features]) * self.r_mag[features].exp() + self.b_mag[features]).relu()

    def decode_normalised(
        self, codes: SparseCodes, u: Float[Tensor, "tokens d_in"] | None = None
    ) -> Float[Tensor, "tokens d_out"]:
        """`decode` in the units inside, with the skip path, where there is one, from `u`."""
        self.must_be_whole("decode")
        return codes @ self.W_dec + (self.b_dec if u is None else self.base(u))

    def base(self, u: Float[Tensor, "tokens d_in"]) -> Float[Tensor, "tokens d_out"] | Float[Tensor, " d_out"]:
        """What a reconstruction starts from, without any feature: b_dec, and the skip path where there is one."""
        return self.b_dec + u @ self.W_skip.T if self.config.skip else self.b_dec

    def extra_repr(self) -> str:
        c = self.config
        budget = f", k={c.k:g}" if c.k is not None else ""
        trained = "trained elsewhere, " * self.imported + f"{int(self.tokens_seen):,} tokens seen"
        return f"{c.rule}{budget}, {c.d_in} → {c.d_sae} → {c.width_out}, {trained}"


def features_of(part: tuple[int, int], d_sae: int) -> range:
    """Which features a part has: as many as the others, or one more. `Tensor.tensor_split` cuts like this."""
    rank, (size, more) = part[0], divmod(d_sae, part[1])
    return range(rank * size + min(rank, more), (rank + 1) * size + min(rank + 1, more))


def feature_dim(name: str, tensor: Tensor) -> int | None:
    """Along which dimension a tensor of the state dict has features, if any."""
    by_feature = ("W_dec", "b_enc", "r_mag", "b_mag", "rank", "subsidy") + ("threshold",) * tensor.dim()
    return 1 if name == "W_enc" else 0 if name in by_feature else None


def _random_directions(n: int, width: int, generator: torch.Generator, some: range) -> Float[Tensor, "some width"]:
    """`some` of n random rows of unit norm, which are the same whether the others are kept or not."""
    rows, last = torch.empty(len(some), width), max(0, n // DRAWN_ROWS - 1)
    for i in range(last + 1):  # torch draws 16 numbers at a time, so only the last block may be of any size
        first, stop = i * DRAWN_ROWS, n if i == last else (i + 1) * DRAWN_ROWS
        drawn = torch.randn(stop - first, width, generator=generator)
        a, b = (min(max(end, first), stop) for end in (some.start, some.stop))
        rows[a - some.start : b - some.start] = drawn[a - first : b - first]
    return nn.functional.normalize(rows, dim=1, out=rows)


def fresh_buffers(config: SAEConfig, features: range | None = None) -> dict[str, Tensor]:
    """What an SAE, or the part of it with these features, holds beside its weights, before it has been trained."""
    features = range(config.d_sae) if features is None else features
    F = len(features)
    law = (0.0, 0.0) if config.capacity == "uniform" else (config.zipf_exponent, config.zipf_offset)
    buffers = {"mean": torch.zeros(config.d_in), "scale": torch.tensor(1.0)}
    if config.floor:
        buffers["subsidy"] = torch.ones(F)
    if config.gradient_weight:
        buffers["gradient_scale"] = torch.tensor(UNSET)
    if config.is_transcoder:
        buffers |= {"out_mean": torch.zeros(config.width_out), "out_scale": torch.tensor(1.0)}
    if not config.how.learned:
        shape = (F,) if config.how.thresholds == "each" else ()
        buffers["threshold"] = torch.full(shape, UNSET if config.how.measured else 0.0)
    buffers["rank"] = torch.arange(features.start, features.stop)
    return buffers | {"zipf_law": torch.tensor(law), "tokens_seen": torch.tensor(0)}


def _real(name: str, value: Any) -> Tensor:
    """`value`, if it is a tensor of real numbers."""
    check_tensor(name, value, "real numbers", (*FLOATING, *WHOLE, torch.bool), "real")
    return value


def _finite(name: str, x: Tensor, u: Tensor) -> Tensor:
    """`u`, x in the units inside: an affinity of −inf is like any other negative one, so no rule would notice."""
    if not u.isfinite().all():
        place = (~u.isfinite()).nonzero()[0].tolist()
        what = "activations" if name == "x" else name
        wanted = f"{what} must be finite numbers in the precision of the SAE, {u.dtype}; leave such rows out"
        raise ValueError(f"{name}{place} is {float(x[tuple(place)])}: {wanted}")
    return u
