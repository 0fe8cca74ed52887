"""The parts of a transformer as the library computes them: for models that notebook 01 does not build by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

Stream = Float[Tensor, "positions model"]


def is_gpt2_like(model: Any) -> bool:
    """Whether positions are added to the stream, heads share nothing, and LayerNorm centres, as notebook 01 does it."""
    cfg = model.cfg
    grouped = getattr(cfg, "n_key_value_heads", None) not in (None, cfg.n_heads)
    return cfg.positional_embedding_type == "standard" and not grouped and not model.ln_final.uses_rms_norm


@dataclass(frozen=True)
class Parts:
    """Functions of the residual stream of one text, with the names and shapes that notebook 01 gives its own."""

    model: Any

    def functions(self) -> tuple[Callable[..., Tensor], ...]:
        """attention, patterns, mlp, embed and unembed, for a notebook that uses these in place of its own."""
        return self.attention, self.patterns, self.mlp, self.embed, self.unembed

    def attention(self, x: Stream, layer: int) -> Stream:
        part, positions = self.model.blocks[layer], torch.arange(len(x), device=x.device)[None]
        inputs = {"hidden_states": part.ln1(x[None]), "attention_mask": None}
        if hasattr(self.model, "rotary_emb"):
            inputs["position_embeddings"] = self.model.rotary_emb(x[None], positions)
        return part.attn(**inputs)[0][0]

    def patterns(self, x: Stream, layer: int) -> Float[Tensor, "heads positions positions"]:
        name, seen = f"blocks.{layer}.attn.hook_pattern", []
        with self.model.hooks([(name, lambda acts, hook: seen.append(acts))]):
            self.attention(x, layer)
        return seen[0][0]

    def mlp(self, x: Stream, layer: int) -> Stream:
        part = self.model.blocks[layer]
        return part.mlp(part.ln2(x[None]))[0]

    def embed(self, tokens: Int[Tensor, " positions"]) -> Stream:
        return self.model.embed(tokens[None])[0]

    def unembed(self, x: Stream) -> Float[Tensor, "positions vocabulary"]:
        return self.model.unembed(self.model.ln_final(x[None]))[0]
