"""Losses with heads silenced, and overlaps of spaces."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_tutorial.circuits import heads
from sae_tutorial.course.transformers import measures


def test_losses_are_those_of_cross_entropy():
    logits, tokens = torch.randn(2, 5, 11), torch.randint(11, (2, 5))
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
    )
    assert torch.allclose(measures.next_token_losses(logits, tokens).flatten(), expected, atol=1e-5)


def test_all_overlaps_are_those_of_the_pairs():
    a, b = torch.randn(3, 4, 16), torch.randn(5, 2, 16)
    angles = [[scipy.linalg.subspace_angles(x.T.numpy(), y.T.numpy()) for y in b] for x in a]
    expected = torch.tensor([[float((np.cos(angle) ** 2).mean()) for angle in row] for row in angles])
    assert torch.allclose(measures.all_overlaps(a, b), expected, atol=1e-5)


def test_overlap_of_known_and_of_random_spaces():
    eye = torch.eye(8)
    assert overlap_of(eye[:3], eye[3:6]) == 0
    assert overlap_of(eye[:2], eye[1:3]) == pytest.approx(0.5)
    noise = torch.randn(2, 40, 8, 64, generator=torch.Generator().manual_seed(0))
    assert measures.all_overlaps(*noise).mean() == pytest.approx(8 / 64, rel=0.02)


def test_silencing_no_head_changes_nothing_and_silencing_all_does(model):
    tokens = heads.repeated_tokens(2, 8, model.cfg.d_vocab, start=0)
    intact = measures.losses_without(model, tokens, [])
    with torch.inference_mode():
        assert torch.allclose(intact, measures.next_token_losses(model(tokens), tokens), atol=1e-4)
    every = [(layer, head) for layer in range(model.cfg.n_layers) for head in range(model.cfg.n_heads)]
    assert (measures.losses_without(model, tokens, every) - intact).abs().max() > 0.01


@pytest.mark.parametrize("head", [(4, 0), (0, 8), (-1, 0), (0, -1)])
def test_heads_that_are_not_there(model, head):
    with pytest.raises(ValueError, match=f"head {head[0]}.{head[1]}: layers are 0 to 3, with heads 0 to 7"):
        measures.losses_without(model, torch.zeros(1, 4, dtype=torch.long), [(0, 0), head])


def test_several_heads_of_a_layer_are_silenced_together(model):
    tokens = heads.repeated_tokens(2, 4, model.cfg.d_vocab, start=0)

    def to_mean(z, hook):
        z = z.clone()
        z[:, :, [1, 5]] = z[:, :, [1, 5]].mean((0, 1))
        return z

    with torch.inference_mode():
        logits = model.run_with_hooks(tokens, fwd_hooks=[("blocks.2.attn.hook_z", to_mean)])
    found = measures.losses_without(model, tokens, [(2, 1), (2, 5)])
    assert torch.allclose(found, measures.next_token_losses(logits, tokens), atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(12, 24), st.integers(0, 1000))
def test_overlap_sees_the_space_and_not_the_basis(d, model, seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, d, model, generator=generator)
    mix = torch.eye(d) * 3 + torch.rand(d, d, generator=generator) / d
    overlap = overlap_of(a, b)
    assert 0 <= overlap <= 1 + 1e-5
    assert overlap_of(mix @ a, b) == pytest.approx(overlap, abs=1e-4)
    assert overlap_of(b, a) == pytest.approx(overlap, abs=1e-5)
    assert overlap_of(a, a) == pytest.approx(1, abs=1e-4)


def overlap_of(a, b):
    """Of two spaces."""
    return float(measures.all_overlaps(a[None], b[None]))


def test_heads_that_share_a_matrix_each_get_it():
    shared = torch.arange(2 * 2).view(2, 2, 1, 1)  # two layers, two matrices each
    assert measures.of_heads(shared, 4).flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert measures.of_heads(shared, 2).flatten().tolist() == [0, 1, 2, 3]


def test_parameters_are_counted_by_what_their_names_say():
    parameters = {"wte.weight": torch.zeros(3, 2), "h.0.attn.w": torch.zeros(2, 2), "h.1.attn.b": torch.zeros(2)}
    marks = {"tokens": ("wte", "embed"), "attention": ("attn.",), "MLP": ("mlp.",)}
    assert measures.count_by_mark(parameters, marks) == {"tokens": 6, "attention": 6, "MLP": 0}


def test_outside_all_random_ones():
    random = torch.tensor([0.2, 0.3])
    assert measures.outside(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]), random) == pytest.approx((0.2, 0.4))
