"""SmolLM2's sampler: what the model itself computes and draws, and nothing else."""

import numpy as np
import pytest
import sample_smollm2
import torch
from transformers import LlamaConfig, LlamaForCausalLM


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "max_position_embeddings": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=40, **sizes, **heads, initializer_range=0.3)
    return LlamaForCausalLM(config).eval()


def test_writer_computes_what_the_model_computes(model):
    tokens_BS = torch.randint(40, (5, 20))
    writer = sample_smollm2.Writer(model, batch=5, length=20)
    with torch.inference_mode():
        logits = torch.stack([writer.logits(tokens_BS[:, i], i) for i in range(20)], dim=1)
        torch.testing.assert_close(logits, model(tokens_BS).logits, atol=1e-4, rtol=1e-4)


def test_rows_are_what_the_model_writes_after_the_prompt(model):
    """The first token has the model's probabilities without the banned ones; prompts are left out."""
    prompts = torch.tensor([[1, 7, 9]]).expand(4000, 3)
    banned = torch.tensor([0, 5])
    writer = sample_smollm2.Writer(model, batch=4000, length=6)
    with sample_smollm2.tqdm(disable=True) as bar:
        rows = sample_smollm2.sample_rows(writer, prompts, banned, seed=0, index=0, bar=bar)
    assert rows.shape == (4000, 4) and rows.dtype == np.uint16
    assert not np.isin(rows, banned.numpy()).any()
    with torch.inference_mode():
        logits = model(prompts[:1]).logits[0, -1]
        logits[banned] = -torch.inf
    frequencies = torch.bincount(torch.from_numpy(rows[:, 0].astype(int)), minlength=40) / 4000
    torch.testing.assert_close(frequencies, logits.softmax(0), atol=0.03, rtol=0)


def test_prompts_are_of_books_and_each_row_has_its_own():
    prompts = sample_smollm2.prompts(bos=1, n=50, seed=0)
    assert prompts.shape == (50, 64) and (prompts[:, 0] == 1).all()
    assert len(prompts.unique(dim=0)) == 50
    assert torch.equal(prompts, sample_smollm2.prompts(bos=1, n=50, seed=0))
