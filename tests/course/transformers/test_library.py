"""The library's parts add up to the library's model, whatever its kind."""

import pytest
import torch
from grouped_model import grouped_model
from tiny_model import VOCAB

from sae_tutorial.circuits.heads import attention_patterns
from sae_tutorial.course.transformers.library import Parts, is_gpt2_like


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_parts_add_up(kind, model, tmp_path):
    model, alike = (model, True) if kind == "gpt2" else (grouped_model(tmp_path), False)
    assert is_gpt2_like(model) == alike
    parts, tokens = Parts(model), torch.randint(2, min(VOCAB, model.cfg.d_vocab), (9,))
    with torch.no_grad():
        x = parts.embed(tokens) + (model.W_pos[:9] if alike else 0)
        patterns = []
        for layer in range(model.cfg.n_layers):
            patterns.append(parts.patterns(x, layer))
            x = x + parts.attention(x, layer)
            x = x + parts.mlp(x, layer)
        torch.testing.assert_close(parts.unembed(x), model(tokens[None])[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        torch.stack(patterns), attention_patterns(model, tokens[None])[:, 0], rtol=1e-4, atol=1e-5
    )
