"""Discrete circuits: codes of heads' outputs, counted; on a toy in which two heads are known to do something."""

import itertools

import pytest
import torch
from tiny_model import tiny_model
from torch.testing import assert_close

from sae_tutorial.circuits import discrete
from sae_tutorial.circuits.edges import roc
from sae_tutorial.circuits.prompts import Prompts

H, D, PLANTED = 12, 16, (3, 8)


def planted(n, seed, heads=PLANTED, words=2):
    """Outputs (2n, H, D) and labels: each head says one of its `words` directions, at random; on positives the planted
    heads say others, and both of them the same one."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(H, 2 * words, D, generator=generator)
    said = torch.randint(words, (2 * n, H), generator=generator)
    positive = torch.arange(2 * n) < n
    for head in heads:
        said[:n, head] = said[:n, heads[0]] % words + words
    outputs = directions[torch.arange(H), said] + 0.05 * torch.randn(2 * n, H, D, generator=generator)
    return outputs, positive


def codes_on(outputs, seed=0, **more):
    return discrete.codes_of(discrete.fit(discrete.untrained(outputs, seed=seed), outputs, **more), outputs)


def area(scores, heads=PLANTED):
    return roc(scores, [head in heads for head in range(H)]).area


def test_two_planted_heads_are_found_with_ten_examples():
    for seed in range(3):
        outputs, positive = planted(10, seed)
        codes = codes_on(outputs, seed)
        assert area(discrete.node_scores(codes, positive)) > 0.95
        assert area(discrete.node_scores(codes, positive, share=True)) > 0.95
        scores = discrete.pair_scores(codes, positive)
        scores.fill_diagonal_(0)
        others = [head for head in range(H) if head not in PLANTED]
        with_one = scores[others][:, list(PLANTED)]
        assert scores[PLANTED] >= 2 and scores[others][:, others].max() <= with_one.max()


def test_shuffled_labels_find_nothing_where_heads_say_equally_much():
    outputs, positive = planted(10, 0)
    codes = codes_on(outputs)
    # the planted heads have twice as many codes, so heads must be made equal for labels to be all that matters
    same, _ = planted(10, 0, heads=())
    same = codes_on(same)
    generator = torch.Generator().manual_seed(0)
    shuffles = [positive[torch.randperm(20, generator=generator)] for _ in range(60)]
    null = torch.tensor([area(discrete.node_scores(same, labels)) for labels in shuffles]).mean()
    assert abs(null - 0.5) < 0.08
    # … and where they are not, labels drawn at random find those that say more
    biased = torch.tensor([area(discrete.node_scores(codes, labels)) for labels in shuffles]).mean()
    assert biased > 0.6


def test_scores_by_hand():
    codes = torch.tensor([[1, 4], [2, 4], [2, 5], [1, 4], [3, 6], [3, 6]])
    positive = [True, True, True, False, False, False]
    assert discrete.node_scores(codes, positive).tolist() == [1, 1]  # 2, and 5
    assert_close(discrete.node_scores(codes, positive, share=True), torch.tensor([1 / 3, 1 / 3]))
    assert discrete.pair_scores(codes, positive).tolist() == [[1, 2], [2, 1]]  # (2, 4) and (2, 5); (1, 4) is both
    assert discrete.different(codes).tolist() == [3, 3]
    assert discrete.different(discrete.pairs(codes)).tolist() == [[3, 4], [4, 3]]


def test_silence_is_a_code_of_its_own():
    outputs, _ = planted(4, 0)
    sae = discrete.untrained(outputs)
    sae.b_enc.data.fill_(-1e4)
    assert (discrete.codes_of(sae, outputs) == discrete.SILENT).all()
    positive = torch.arange(8) < 4
    assert discrete.node_scores(torch.tensor([[-1]] * 4 + [[0]] * 4), positive).tolist() == [1]


@pytest.mark.parametrize("n_positive", [1, 3, 5])
def test_the_expected_score_is_the_mean_over_all_labels(n_positive):
    codes = torch.tensor([[0, 7, 1], [1, 7, 1], [2, 7, 2], [3, 7, 2], [4, 7, -1], [5, 7, 1]])
    every = list(itertools.combinations(range(6), n_positive))
    labels = [torch.tensor([i in chosen for i in range(6)]) for chosen in every]
    nodes = torch.stack([discrete.node_scores(codes, one) for one in labels]).mean(0)
    assert_close(discrete.expected_scores(codes, n_positive), nodes)
    assert_close(nodes[:2], torch.tensor([float(n_positive), 0.0]))  # a new code each time, and always the same
    both = torch.stack([discrete.pair_scores(codes, one) for one in labels]).mean(0)
    assert_close(discrete.expected_scores(discrete.pairs(codes), n_positive), both)


def test_training_explains_the_outputs_and_keeps_unit_rows():
    outputs, _ = planted(10, 1)
    sae = discrete.untrained(outputs, seed=3)

    def unexplained():
        u = sae.normalise(outputs.flatten(0, 1))
        z = sae.preactivations(u).relu()
        return ((z @ sae.W_dec + sae.b_dec - u).square().mean().item(), (z > 0).float().sum(1).mean().item())

    assert float(sae.normalise(outputs.flatten(0, 1)).square().mean()) == pytest.approx(1, abs=1e-4)
    (before, _), kept = unexplained(), sae.W_dec.detach().clone()
    assert discrete.fit(sae, outputs) is sae
    error, active = unexplained()
    assert error < 0.05 < before and not torch.equal(kept, sae.W_dec)
    assert_close(sae.W_dec.norm(dim=1), torch.ones(200))
    discrete.fit(sae, outputs, l1=20.0)
    assert unexplained()[1] < active / 2
    assert sae.W_dec.grad is not None and not discrete.codes_of(sae, outputs).is_inference()


def test_the_same_seed_gives_the_same_codes_also_without_gradients():
    outputs, _ = planted(5, 2)
    first = codes_on(outputs, 1, steps=20)
    with torch.no_grad():
        assert torch.equal(first, codes_on(outputs, 1, steps=20))
    assert not torch.equal(first, codes_on(outputs, 2, steps=20))


def test_outputs_are_z_at_the_position_that_is_named(tmp_path):
    model = tiny_model(tmp_path)
    tokens = torch.tensor([[0, 5, 6, 7, 0], [0, 8, 9, 10, 11]])
    where = {"END": torch.tensor([3, 4]), "first": torch.tensor([1, 1])}
    prompts = Prompts(("a", "b"), tokens, where, torch.zeros(2, dtype=torch.int64))
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(2)]
    _, cache = model.run_with_cache(tokens, names_filter=names)
    z = torch.stack([cache[name] for name in names], 2).flatten(2, 3).detach()  # (2, P, layers · heads, d)
    assert_close(discrete.head_outputs(model, prompts), z[[0, 1], [3, 4]])
    assert_close(discrete.head_outputs(model, prompts, "first"), z[:, 1])
    means = torch.stack([z[0, :4].mean(0), z[1].mean(0)])
    assert_close(discrete.head_outputs(model, prompts, None), means)
    with pytest.raises(ValueError, match="where='S2': these prompts name END, first"):
        discrete.head_outputs(model, prompts, "S2")


OUTPUTS, CODES = torch.randn(4, 3, 2), torch.zeros(4, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: discrete.untrained(OUTPUTS[0]), r"outputs must be \(examples, heads, d\), got shape \(3, 2\)"),
        (lambda: discrete.untrained(OUTPUTS[:0]), r"got shape \(0, 3, 2\)"),
        (lambda: discrete.untrained(torch.full((4, 3, 2), 0.3)), "nothing to encode"),
        (lambda: discrete.untrained(OUTPUTS.index_fill(0, torch.tensor(2), torch.nan)), r"outputs\[2, 0\] holds NaN"),
        (lambda: discrete.untrained(OUTPUTS, latents=0), "latents must be a whole number, 1 or more"),
        (lambda: discrete.fit(discrete.untrained(OUTPUTS), OUTPUTS, l1=-1), "l1=-1"),
        (lambda: discrete.fit(discrete.untrained(OUTPUTS), OUTPUTS, lr=0), "lr=0"),
        (lambda: discrete.fit(discrete.untrained(OUTPUTS), OUTPUTS, steps=-1), "steps must be"),
        (lambda: discrete.codes_of(discrete.untrained(OUTPUTS), OUTPUTS[..., :1]), "x must be"),
        (lambda: discrete.node_scores(CODES, [True] * 4), "4 of 4 are; some of both"),
        (lambda: discrete.node_scores(CODES, [False] * 4), "0 of 4"),
        (lambda: discrete.pair_scores(CODES, [True, False]), r"positive has shape \(2,\); give a label for each of 4"),
        (lambda: discrete.node_scores(CODES.float(), [True] * 4), "codes must be whole numbers"),
        (lambda: discrete.node_scores(CODES[0], [True] * 4), "codes must be whole numbers"),
        (lambda: discrete.expected_scores(CODES, 4), "n_positive=4: of 4 examples take 1 to 3"),
        (lambda: discrete.expected_scores(CODES, 0), "n_positive=0"),
    ],
)
def test_what_makes_no_sense_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
