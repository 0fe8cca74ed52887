"""Text that a language model writes while something is added at one of its hooks."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.forward import fused_forward


@torch.no_grad()
def write(
    model: Any,
    tokens: Int[Tensor, "texts positions"],
    hook_name: str,
    add_BD: Float[Tensor, "texts d"],
    n_tokens: int,
    n_texts: int,
    generator: torch.Generator,
) -> Int[Tensor, "texts longer"]:
    """Each row of tokens, which begins with BOS, and the `n_tokens` that the model goes on with at temperature 1 while
    its row of `add_BD` is added at every position but BOS; rows i and i + n_texts draw with the same random numbers."""
    from transformers import DynamicCache

    cache, new = DynamicCache(), tokens

    def hook(acts: Tensor, hook: Any) -> Tensor:
        added = add_BD[:, None].expand_as(acts).clone()
        added[:, : int(new is tokens)] = 0  # the first pass reads the prompt, and that begins with BOS
        return acts + added

    with fused_forward(model), model.hooks(fwd_hooks=[(hook_name, hook)]):
        for _ in range(n_tokens):
            logits_BV = model(new, return_type="logits", past_key_values=cache, use_cache=True)[:, -1].float()
            u_B1 = torch.rand(n_texts, 1, generator=generator).to(logits_BV).repeat(len(tokens) // n_texts, 1)
            chosen_B1 = torch.searchsorted(logits_BV.softmax(-1).cumsum(-1), u_B1)
            new = chosen_B1.clamp(max=logits_BV.shape[1] - 1)
            tokens = torch.cat([tokens, new], dim=1)
    return tokens
