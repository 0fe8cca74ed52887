from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from sae_tutorial.circuits import heads
from sae_tutorial.course.transformers import measures


class Looking:
    """A stand-in for a language model whose single layer of heads has the given patterns, whatever it reads.

    On the meta device, where tensors have shapes and no numbers, a tensor of the CPU among them is an error."""

    training = False

    def __init__(self, patterns, device="cpu"):
        self.patterns = patterns  # (heads, positions, positions)
        self.cfg = SimpleNamespace(n_layers=1, n_heads=len(patterns), device=device)
        self.hook_dict = {"blocks.0.attn.hook_pattern": None}
        self.hooked = []

    @contextmanager
    def hooks(self, fwd_hooks):
        self.hooked = fwd_hooks
        yield

    def __call__(self, tokens, **kwargs):
        assert tokens.device.type == self.cfg.device
        for _, hook in self.hooked:
            hook(self.patterns.expand(len(tokens), -1, -1, -1), hook=None)

    def run_with_hooks(self, tokens, **kwargs):
        assert tokens.device.type == self.cfg.device
        return torch.empty(*tokens.shape, 100, device=self.cfg.device)


def test_tokens_are_moved_to_the_model():
    tokens = heads.repeated_tokens(2, 6, 100, start=0)
    elsewhere = Looking(torch.empty(2, 13, 13), device="meta")
    assert heads.attention_patterns(elsewhere, tokens).shape == (1, 2, 2, 13, 13)
    assert measures.losses_without(elsewhere, tokens, [(0, 1)]).device.type == "meta"
    assert measures.next_token_losses(torch.empty(2, 13, 100, device="meta"), tokens).shape == (2, 12)


@pytest.mark.gpu
def test_heads_are_measured_on_the_gpu_with_tokens_on_the_cpu(model):
    from sae_tutorial import load_language_model

    tokens = heads.repeated_tokens(2, 8, model.cfg.d_vocab, start=0)
    on_gpu = load_language_model("stories", device="cuda")
    ours, theirs = heads.head_scores(on_gpu, tokens).induction, heads.head_scores(model, tokens).induction
    assert ours.is_cuda and torch.allclose(ours.cpu(), theirs, atol=1e-3)
    ours, theirs = (measures.losses_without(m, tokens, [(0, 0)]) for m in (on_gpu, model))
    assert torch.allclose(ours.cpu(), theirs, atol=1e-2)


def looking_back(size, offset):
    """Row i puts all attention on position i - offset, and on position 0 where that does not exist."""
    pattern = torch.zeros(size, size)
    for i in range(size):
        pattern[i, max(i - offset, 0)] = 1
    return pattern


def test_repeated_tokens_repeat_after_a_start_token():
    tokens = heads.repeated_tokens(3, length=5, vocab_size=100, start=7, seed=1)
    assert tokens.shape == (3, 11)
    assert (tokens[:, 0] == 7).all()
    assert torch.equal(tokens[:, 1:6], tokens[:, 6:])
    assert torch.equal(tokens, heads.repeated_tokens(3, length=5, vocab_size=100, start=7, seed=1))
    with pytest.raises(ValueError, match="length=1"):
        heads.repeated_tokens(3, length=1, vocab_size=100, start=7)


def test_scores_are_one_for_the_head_that_each_names_and_zero_for_the_others():
    length = 6
    tokens = heads.repeated_tokens(2, length, 100, start=0)
    size = tokens.shape[1]
    model = Looking(torch.stack([looking_back(size, offset) for offset in (length - 1, 1, length)]))
    scores = heads.head_scores(model, tokens)
    assert scores.induction.tolist() == [[1, 0, 0]]
    assert scores.previous.tolist() == [[0, 1, 0]]
    assert scores.duplicate.tolist() == [[0, 0, 1]]


def test_a_stripe_must_lie_inside_the_pattern():
    pattern = torch.eye(4)
    assert heads.stripe(pattern, offset=0, first=0) == 1
    for offset, first in ((2, 1), (-1, 1), (1, 4)):
        with pytest.raises(ValueError, match="offset="):
            heads.stripe(pattern, offset=offset, first=first)


def test_patterns_of_the_embedded_model_divide_one(model):
    tokens = model.to_tokens("Once upon a time there was a")
    patterns = heads.attention_patterns(model, tokens)
    assert patterns.shape[:3] == (model.cfg.n_layers, 1, model.cfg.n_heads)
    assert torch.allclose(patterns.sum(-1), torch.ones(()), atol=1e-4)
    assert patterns.triu(1).abs().max() == 0


@pytest.mark.parametrize(("shared", "expected"), [(None, 7), (9, 7), (3, 2), (1, 0)])
def test_heads_of_a_group_use_the_keys_and_values_of_one(shared, expected):
    sizes = SimpleNamespace(n_layers=2, n_heads=9, n_key_value_heads=shared)
    assert heads.key_head(sizes, (1, 7)) == (1, expected)


class Repeating(Looking):
    """Its heads look at the token after the earlier place where their last 1, and their last 3, tokens stood."""

    needs = (1, 3)

    def __init__(self):
        super().__init__(torch.empty(2, 0, 0))
        self.cfg.d_vocab, self.tokenizer = 10_000, SimpleNamespace(bos_token_id=0)

    def __call__(self, tokens, **kwargs):
        self.read = tokens
        pattern = torch.zeros(len(tokens), 2, tokens.shape[1], tokens.shape[1])
        for row, ids in enumerate(tokens.tolist()):
            for head, n in enumerate(self.needs):
                twins = [i + n for i in range(len(ids) - n) if ids[i : i + n] == ids[-n:]]
                pattern[row, head, -1, twins[0] if twins else 0] = 1
        for _, hook in self.hooked:
            hook(pattern, hook=None)


def test_a_head_that_needs_a_longer_repetition_scores_with_longer_ones_only():
    model = Repeating()
    scores = heads.prefix_induction(model, [1, 2, 3, 5], n_sequences=16, context=30)
    assert scores.shape == (4, 1, 2)
    assert scores[:, 0, 0].min() > 0.9, "a twin of the last token is enough"  # chance may bring a second one
    assert scores[:, 0, 1].tolist() == [0, 0, 1, 1]
    ids = model.read[0].tolist()  # of the longest: a block of five, twice
    assert len(ids) == 35 and ids[0] == 0
    assert sum(ids[i : i + 5] == ids[-5:] for i in range(31)) == 2


@pytest.mark.parametrize("length", [0, 14])
def test_a_repetition_must_fit(length):
    with pytest.raises(ValueError, match=f"lengths holds {length}; with context=30 take 1 to 13"):
        heads.prefix_induction(Repeating(), [length], context=30)
