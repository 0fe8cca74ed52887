"""What makes a feature of a transcoder fire: earlier features, heads, embeddings, errors and biases, and nothing else.

A transcoder says what an MLP does as a sum of few features, and each of them is a linear function of the stream until
its ReLU. So once attention patterns, LayerNorm scales and the features that are on are taken as they were, all that
lies between two transcoders is linear. Feature i adds to the pre-activation of a feature j of a later layer

    z_i(x) · (W_dec_i · W_enc_j) / scale(x)      what it is here, times a weight that no input changes

and through head h, which looks from q at s with attention A, what a direction v finds at q is what A · W_V W_O v finds
in the stream at s. Every part that can be read further (a feature, a head, a skip path) is again a linear function of
the stream before it: `Trace.through`. Source: Dunefsky, Chlenski & Nanda 2024. That the sum is the model's own, with
what transcoders miss as parts of their own, and the skip path are our additions.

    trace = traced(model, transcoders, tokens)         one text; an MLP without a transcoder is one part
    reading = trace.feature(layer, position, feature)  or trace.logit(position, right, wrong)
    parts = trace.parts(reading)                       their sum is what is read there, in the model itself

Letters of shapes: S positions, M stream, F features, H heads, D dimension of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_tutorial.activations.forward import read_hooks
from sae_tutorial.activations.kept_text import KeptText, checked_tokens, special_ids
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.circuits.direct_effects import centred
from sae_tutorial.circuits.heads import for_each_head
from sae_tutorial.circuits.transcoder_weights import WRITES, constants, layer_of, reads, writes

FURTHER = ("feature", "head", "skip")  # what is a linear function of the stream before it


class Node(NamedTuple):
    """A part of what is read. `number` is that of a feature or a head; embeddings and biases have layer −1.

    kind: "feature", "head" (what it brings from this position), "skip" (a transcoder's path beside its features),
    "error" (what a transcoder misses of its MLP), "mlp" (all of one that none stands for: its layer has none, or the
    token is no text), "token" and "position" (embeddings), "bias" (all constants), "logit" (where a graph may begin).
    """

    kind: str
    layer: int
    position: int
    number: int = 0


@dataclass(frozen=True, eq=False)
class Reading:
    """A linear function of the residual stream at one position: its inner product with `direction`, plus `constant`.

    attentions, mlps: how many layers of either kind have written into the stream that is read.
    """

    position: int
    attentions: int
    mlps: int
    direction: Float[Tensor, " model"]
    constant: float = 0.0


@dataclass(frozen=True, eq=False)
class Parts:
    """A reading taken apart.

    features: layer -> (F,), what each feature of the transcoder there adds, at the position of the reading.
    heads: (layers, H, S), what each head brings from each source position.
    others: all that is one number.
    """

    position: int
    features: dict[int, Float[Tensor, " features"]]
    heads: Float[Tensor, "layers heads sources"]
    others: dict[Node, float]

    @property
    def total(self) -> float:
        """What is read."""
        of_features = sum(float(added_F.double().sum()) for added_F in self.features.values())
        return of_features + float(self.heads.double().sum()) + sum(self.others.values())

    def strongest(self, n: int) -> list[tuple[Node, float]]:
        """The `n` parts of the largest size, the largest first; nothing that is 0."""
        found = list(self.others.items())
        for layer, added_F in self.features.items():
            found += [(Node("feature", layer, self.position, f), float(added_F[f])) for f in _largest(added_F, n)]
        for place in _largest(self.heads, n):
            layer, h, s = (int(i) for i in torch.unravel_index(torch.tensor(place), self.heads.shape))
            found.append((Node("head", layer, s, h), float(self.heads[layer, h, s])))
        return sorted((one for one in found if one[1]), key=lambda one: -abs(one[1]))[:n]


@dataclass(frozen=True, eq=False)
class Attention:
    """An attention layer as it was in the run, and the weights of its heads."""

    scale: Float[Tensor, " positions"]
    pattern: Float[Tensor, "heads readers sources"]
    values: Float[Tensor, "sources heads d"]
    W_V: Float[Tensor, "heads model d"]
    b_V: Float[Tensor, "heads d"]
    W_O: Float[Tensor, "heads d model"]
    b_O: Float[Tensor, " model"]

    @staticmethod
    def of(model: Any, layer: int, found: dict[str, Tensor], W_V: Tensor, W_O: Tensor) -> Attention:
        own, (G, _, D) = model.blocks[layer].attn, W_V.shape
        b_GD = W_V.new_zeros(G, D) if own.b_V is None else own.b_V.view(G, D)
        n_heads, name = model.cfg.n_heads, f"blocks.{layer}."
        return Attention(
            scale=found[name + "ln1.hook_scale"][:, 0],
            pattern=found[name + "attn.hook_pattern"],
            values=for_each_head(found[name + "attn.hook_v"], n_heads, dim=1),
            W_V=for_each_head(W_V, n_heads),
            b_V=for_each_head(b_GD, n_heads),
            W_O=W_O,
            b_O=W_O.new_zeros(W_O.shape[2]) if own.b_O is None else own.b_O,
        )

    def wrote(self) -> Float[Tensor, "positions model"]:
        z_SHD = torch.einsum("hqs,shd->qhd", self.pattern, self.values)
        return torch.einsum("qhd,hdm->qm", z_SHD, self.W_O) + self.b_O


@dataclass(frozen=True, eq=False)
class StandIn:
    """What a transcoder says that its MLP wrote; all zero where it stands for nothing: at tokens that are no text."""

    transcoder: SparseAutoencoder
    codes: Float[Tensor, "positions features"]
    skip: Float[Tensor, "positions model"]
    bias: Float[Tensor, "positions model"]

    @staticmethod
    def of(transcoder: SparseAutoencoder, x: Float[Tensor, "positions model"], is_text: Tensor) -> StandIn:
        text_S1, u_SM = is_text[:, None].to(x), transcoder.normalise(x)
        codes_SF = transcoder.encode_normalised(u_SM).to_dense() * text_S1
        bias_SM = (transcoder.b_dec * transcoder.out_scale + transcoder.out_mean) * text_S1
        skip_SM = (transcoder.base(u_SM) - transcoder.b_dec) * transcoder.out_scale * text_S1
        return StandIn(transcoder, codes_SF, skip_SM, bias_SM)

    def wrote(self) -> Float[Tensor, "positions model"]:
        return self.codes @ writes(self.transcoder) + self.skip + self.bias


@dataclass(frozen=True, eq=False)
class MLP:
    """An MLP as it was in the run: its input's scale, its transcoder if it has one, and what that leaves over."""

    scale: Float[Tensor, " positions"]
    left: Float[Tensor, "positions model"]
    by: StandIn | None


@dataclass(frozen=True, eq=False)
class Trace:
    """One text as the model read it, with everything that is not linear taken as it was; made by `traced`.

    tokens: (S,). is_text: (S,), where transcoders stand for MLPs: neither BOS nor padding.
    embeddings: "token" and, where the model adds any, "position" -> (S, M).
    """

    model: Any
    tokens: Int[Tensor, " positions"]
    is_text: Bool[Tensor, " positions"]
    embeddings: dict[str, Float[Tensor, "positions model"]]
    attentions: tuple[Attention, ...]
    mlps: tuple[MLP, ...]
    final_scale: Float[Tensor, " positions"]

    def feature(self, layer: int, position: int, feature: int) -> Reading:
        """The pre-activation of a feature, in the transcoder's units; of a gated one, its magnitude.

        Raises ValueError for a layer without a transcoder, and a feature or position that there is not.
        """
        mlp, transcoder = self.mlps[layer], self._transcoder(layer)
        self._check(position)
        direction_M = reads(self.model, transcoder, [feature])[0] / mlp.scale[position]
        return Reading(position, layer + 1, layer, direction_M, float(constants(transcoder, [feature])))

    @torch.no_grad()
    def logit(self, position: int, right: int | Sequence[int], wrong: int | Sequence[int] | None = None) -> Reading:
        """The logit of token `right` above that of `wrong`; of several the mean. Without `wrong`: the logit itself."""
        self._check(position)
        W_UM, b_U = self.model.W_U.T, self.model.b_U
        direction_M, constant = torch.zeros_like(W_UM[0]), 0.0
        for sign, ids in ((1, right), (-1, wrong)):
            if ids is not None:
                which = torch.as_tensor(ids, device=W_UM.device).reshape(-1)
                direction_M = direction_M + sign * W_UM[which].mean(0)
                constant += sign * float(b_U[which].mean())
        direction_M = centred(self.model, direction_M) / self.final_scale[position]
        return Reading(position, len(self.attentions), len(self.mlps), direction_M, constant)

    @torch.no_grad()
    def parts(self, reading: Reading) -> Parts:
        """What every part of the model adds to what is read; nothing is left over."""
        q, v_M, bias = reading.position, reading.direction, reading.constant
        others = {Node(name, -1, q): float(x_SM[q] @ v_M) for name, x_SM in self.embeddings.items()}
        features, heads = {}, v_M.new_zeros(reading.attentions, *self.attentions[0].values.shape[1::-1])
        for layer, mlp in enumerate(self.mlps[: reading.mlps]):
            kind = "error" if mlp.by is not None and self.is_text[q] else "mlp"
            others[Node(kind, layer, q)] = float(mlp.left[q] @ v_M)
            if mlp.by is not None:
                features[layer] = mlp.by.codes[q].clone()
                on_N = features[layer].nonzero()[:, 0]
                features[layer][on_N] *= writes(mlp.by.transcoder, on_N) @ v_M
                others[Node("skip", layer, q)] = float(mlp.by.skip[q] @ v_M)
                bias += float(mlp.by.bias[q] @ v_M)
        for one, heads_HS in zip(self.attentions, heads):  # as many as have written
            heads_HS.copy_(torch.einsum("shd,hd->hs", one.values, one.W_O @ v_M) * one.pattern[:, q])
            bias += float(one.b_O @ v_M)
        return Parts(q, features, heads, others | {Node("bias", -1, q): bias})

    @torch.no_grad()
    def through(self, node: Node, reading: Reading) -> Reading:
        """What `node` adds to `reading`, as a reading of the stream before it.

        Raises ValueError for a node that is no linear function of the stream, and for a feature that is not on.
        """
        v_M, layer, s = reading.direction, node.layer, node.position
        if node.kind not in FURTHER:
            raise ValueError(f"{node} cannot be read further; a {', a '.join(FURTHER)} can")
        if node.kind == "head":
            one, h = self.attentions[layer], node.number
            back_D = one.pattern[h, reading.position, s] * (one.W_O[h] @ v_M)
            direction_M = centred(self.model, one.W_V[h] @ back_D) / one.scale[s]
            return Reading(s, layer, layer, direction_M, float(one.b_V[h] @ back_D))
        mlp, transcoder = self.mlps[layer], self._transcoder(layer)
        if node.kind == "skip":
            back_M = v_M @ transcoder.W_skip * (transcoder.out_scale / transcoder.scale)
            direction_M = centred(self.model, back_M) / mlp.scale[s]
            return Reading(s, layer + 1, layer, direction_M, -float(back_M @ transcoder.mean))
        if mlp.by is None or not mlp.by.codes[s, node.number]:
            raise ValueError(f"{node} is not on, so it adds nothing that could be read further")
        itself, weight = self.feature(layer, s, node.number), float(writes(transcoder, [node.number])[0] @ v_M)
        return Reading(s, layer + 1, layer, weight * itself.direction, weight * itself.constant)

    def _transcoder(self, layer: int) -> SparseAutoencoder:
        by = self.mlps[layer].by if 0 <= layer < len(self.mlps) else None
        if by is None:
            there = [i for i, mlp in enumerate(self.mlps) if mlp.by is not None]
            raise ValueError(f"layer={layer} has no transcoder in this trace; there are some for {there}")
        return by.transcoder

    def _check(self, position: int) -> None:
        if not 0 <= position < len(self.tokens):
            raise ValueError(f"position={position} does not exist; this text has 0 to {len(self.tokens) - 1}")


@torch.no_grad()
def traced(model: Any, transcoders: Sequence[SparseAutoencoder], tokens: Int[Tensor, " positions"]) -> Trace:
    """Run the model on one text, (S,) ids, and keep what later questions need. Hooks that are on the model act first:
    with transcoders in the place of MLPs, their errors are zero, and the trace is that of the model they make.

    Raises ValueError for transcoders that do not read an MLP's input and predict its output, for two of one layer, for
    tokens of several texts, and for a model whose stream is not the sum of embeddings, heads and MLPs, one by one.
    """
    by_layer = {layer_of(one): one for one in transcoders}
    if len(by_layer) < len(transcoders):
        raise ValueError(f"transcoders: {len(transcoders)} for layers {sorted(by_layer)}; give one for each layer")
    if tokens.dim() != 1:
        raise ValueError(f"tokens must be those of one text, (positions,), got {tuple(tokens.shape)}; take tokens[0]")
    if "blocks.0.hook_resid_mid" not in model.hook_dict:
        raise ValueError("model: its MLPs read the stream before the heads of their layer write; take another model")
    text = KeptText.of(checked_tokens(tokens[None], model), *special_ids(model, "auto", "auto"))
    is_text, layers = text.mask(0, 1)[0].to(model.cfg.device), range(model.cfg.n_layers)
    last, inside = f"blocks.{layers[-1]}.hook_resid_post", ("attn.hook_pattern", "attn.hook_v", "ln1.hook_scale")
    names = [f"blocks.{i}.{name}" for i in layers for name in (*inside, "ln2.hook_scale", "hook_mlp_out")]
    names += ["hook_embed", "blocks.0.hook_resid_pre", last, "ln_final.hook_scale"]
    with read_hooks(model, [*names, *(str(one.hook_name) for one in transcoders)], fused=False) as read:
        found = {name: acts[0] for name, acts in read(tokens[None]).items()}
    embeddings = {"token": found["hook_embed"]}
    if "hook_pos_embed" in model.hook_dict:
        embeddings["position"] = found["blocks.0.hook_resid_pre"] - found["hook_embed"]
    W_V, W_O = model.W_V, model.W_O  # stacked anew whenever they are asked for
    attentions = tuple(Attention.of(model, i, found, W_V[i], W_O[i]) for i in layers)
    mlps = []
    for i in layers:
        wrote_SM, one = found[WRITES.format(i)], by_layer.get(i)
        by = None if one is None else StandIn.of(one, found[str(one.hook_name)], is_text)
        left_SM = wrote_SM if by is None else wrote_SM - by.wrote()
        mlps.append(MLP(found[f"blocks.{i}.ln2.hook_scale"][:, 0], left_SM, by))
    wrote = [*embeddings.values(), *(one.wrote() for one in attentions), *(found[WRITES.format(i)] for i in layers)]
    off = (torch.stack(wrote).sum(0) - found[last]).abs().max() / found[last].abs().max()
    if not off < (1e-3 if found[last].dtype == torch.float32 else 5e-2):
        raise ValueError("model: what embeddings, heads and MLPs write does not add up to its stream; take another one")
    final_S = found["ln_final.hook_scale"][:, 0]
    return Trace(model, tokens.to(model.cfg.device), is_text, embeddings, attentions, tuple(mlps), final_S)


def _largest(x: Tensor, n: int) -> list[int]:
    return x.flatten().abs().topk(min(n, x.numel())).indices.tolist()
