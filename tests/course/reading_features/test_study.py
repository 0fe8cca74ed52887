"""Many features at once: what is counted is what it is said to be."""

import math

import numpy as np
import pytest
import torch

from sae_tutorial import reference_sae, story_tokens
from sae_tutorial.activations.forward import read_hook
from sae_tutorial.course.reading_features import figures, study
from sae_tutorial.course.reading_features.rivals import Read, as_rare_as, rivals
from sae_tutorial.evaluation.explanations import Explanation, Material, Scores, Statistics, materials
from sae_tutorial.evaluation.feature_pages import Passage
from sae_tutorial.figures.feature_report import words_of


@pytest.fixture(scope="module")
def read(model):
    sae, text = reference_sae("mutual_choice"), story_tokens(8_192, 64, source="books")
    return sae, text, study.evidence_of(sae, model, text)


def passage(tokens, activations, at=0):
    return Passage(torch.tensor(tokens), torch.tensor(activations), at)


def test_features_are_drawn_from_those_with_enough_matches(read):
    _, _, evidence = read
    found = study.drawn(evidence, 50)
    assert len(set(found)) == 50 and (evidence.counts[found] >= study.ENOUGH).all()
    assert found == study.drawn(evidence, 50) != study.drawn(evidence, 50, seed=1)
    everything = study.drawn(evidence, 10**6)
    assert len(everything) == int((evidence.counts >= study.ENOUGH).sum())


def test_the_same_word_by_strength():
    """Two strong matches at the word of the strongest shown passages, two weak ones elsewhere."""
    top = [passage([7, 1], [9.0, 0.0])]
    shown = [*top, *(passage([2], [0.0]) for _ in range(study.N_NAMED))]  # ten are named by
    sampled = [passage([7], [8.0]), passage([7], [6.0]), passage([3], [2.0]), passage([4], [1.0])]
    material = Material(0, 9.0, shown, [], sampled[::-1], [])
    assert study.same_word_by_strength([material], n_groups=2).tolist() == [[1.0, 0.0]]
    few = Material(0, 9.0, top, [], sampled[:1], [])
    assert math.isnan(study.same_word_by_strength([few], n_groups=2)[0, 1])


def test_all_of_the_text_keeps_everything_and_little_of_it_less(read, model):
    sae, text, evidence = read
    places = {f: evidence.top(f, 4) for f in study.drawn(evidence, 6)}
    left = study.kept_by_last(sae, model, evidence, places, lengths=(1, 4, 40))
    known = [any(place % 64 >= 40 for place in its) for its in places.values()]
    assert left.shape == (6, 3) and np.isnan(left[np.logical_not(known)]).all()
    assert (left[known] <= 1).all() and left[known, 2].mean() > left[known, 0].mean()
    none = study.kept_by_last(sae, model, evidence, places, lengths=(1, 64))
    assert np.isnan(none).all()


def test_a_feature_of_the_token_alone_needs_no_other(model, read):
    """Read at the embedding, where nothing has been moved: one token is all there is."""
    _, text, _ = read
    directions = torch.nn.functional.normalize(model.W_E[[300, 400]].detach(), dim=1)
    sae = Read("hook_embed", directions)
    evidence = study.evidence_of(sae, model, text)
    left = study.kept_by_last(sae, model, evidence, {0: evidence.top(0, 5), 1: evidence.top(1, 5)}, lengths=(1, 4))
    assert np.nanmin(left) == pytest.approx(1, abs=1e-4)


def test_means_and_kinds_of_what_was_explained():
    nan = math.nan
    found = study.Explained(
        [1, 2, 3],
        [Statistics("", kind, {}) for kind in ("token", "pair", "token")],
        [Scores(0.5, nan, 1, 1), Scores(1.0, 0.25, 1, 1), Scores(0.0, 0.75, 1, 1)],
    )
    assert found.kinds() == {"token": 2, "pair": 1}
    assert (found.mean("simulation").mean, found.mean("simulation").n) == (0.5, 3)
    assert (found.mean("at_random").mean, found.mean("at_random").n) == (0.5, 2)
    assert study.correlations(found, ["simulation", "at_random"]) == {("simulation", "at_random"): pytest.approx(-1)}


def test_shown_passages_score_higher_than_new_ones(read, model):
    sae, _, evidence = read
    found = materials(evidence, sae, model, study.drawn(evidence, 20), n_random=20)
    explained = study.explained(found, lambda ids: [str(int(i)) for i in ids])
    shown = np.nanmean([study.score_on_shown(e, m) for e, m in zip(explained.explanations, found)])
    assert shown > explained.mean("simulation").mean > 0.3


class Yes:
    """A judge that is sure of everything with token 5."""

    def simulate(self, explanation, passage):
        return (passage.tokens == 5).float()

    def active(self, explanation, passage):
        return float((passage.tokens == 5).any())

    def right(self, explanation, passage, marked):
        return float((passage.tokens[marked] == 5).any())


def test_another_judge_gives_the_same_scores_as_numbers():
    on, off = [passage([5, 1, 2], [1.0, 0.0, 0.0])] * 3, [passage([3, 1, 2], [0.0, 0.0, 0.0])] * 3
    material = Material(0, 1.0, [], on, on, off)
    assert study.judged(Explanation("five"), material, Yes()) == {
        "simulation": pytest.approx(1),
        "detection": 1,
        "fuzzing": 1,
    }
    assert math.isnan(study.judged(Explanation("five"), material, Yes(), 0)["simulation"])


def test_rivals_are_read_above_zero_about_the_mean(model, read):
    sae, text, _ = read
    with read_hook(model, sae.hook_name) as hook:
        acts = hook(text[:64]).flatten(0, 1)
    found = rivals(acts, sae.hook_name, ("blocks.1.mlp.hook_post", model.cfg.d_mlp), n=8)
    assert list(found) == ["MLP neurons", "ICA", "PCA", "own axes", "random directions"]
    for name, one in found.items():
        assert torch.allclose(one.W_dec.norm(dim=1), torch.ones(len(one.W_dec)), atol=1e-4)
        if name != "MLP neurons":
            codes = one.encode(acts).to_dense()
            assert torch.allclose(codes, ((acts - acts.mean(0)) @ one.W_dec.T).clamp(min=0), atol=1e-4)
            assert len(one.W_dec) == 8 and one.config.d_sae == 8
    principal = found["PCA"].W_dec
    assert torch.allclose(principal @ principal.T, torch.eye(8), atol=1e-3)


def test_figures_hold_their_data():
    table = np.array([[1.0, 0.5], [0.0, math.nan]])
    assert [one.mean for one in figures.means(table)] == [0.5, 0.5] and figures.means(table)[1].n == 1
    fig = figures.by_point({"a": table}, [1, 2], "t", "x", "y")
    assert list(fig.data[-1].y) == [0.5, 0.5]
    one = passage([1, 2, 3], [0.0, 1.0, 0.0], 1)
    fig = figures.real_and_simulated(one, Statistics("", "token", {2: 0.5}), lambda ids: [f"w{i}" for i in ids], "t")
    assert list(fig.data[0].y) == [0, 1, 0] and list(fig.data[1].y) == [0, 0.5, 0]
    fig = figures.compared({"g": {"a": figures.means(table)[0]}}, "t", "x")
    assert list(fig.data[0].x) == [0.5]


def test_rivals_are_cut_to_the_densities_that_are_given():
    x = torch.randn(4_000, 6, generator=torch.Generator().manual_seed(0))
    dense = Read("a hook", torch.eye(6), torch.full((6,), 0.5))
    rare = as_rare_as(dense, x, torch.tensor([0.01, 0.2]))
    codes = rare.encode(x)
    share = codes.features.bincount(minlength=6) / len(x)
    assert torch.allclose(share, torch.tensor([0.01, 0.2]).repeat(3), atol=0.002)
    assert torch.equal(codes.values, dense.along(x)[codes.tokens, codes.features])  # values are what they were


def test_rivals_that_are_rarer_already_stay_above_zero():
    x = -torch.rand(100, 2, generator=torch.Generator().manual_seed(0))
    assert (as_rare_as(Read("a hook", torch.eye(2)), x, torch.tensor([0.5])).above == 0).all()


def test_the_control_judges_each_feature_by_the_next_explanation(read, model):
    sae, _, evidence = read
    words = words_of(model)
    found = materials(evidence, sae, model, study.drawn(evidence, 4), n_random=10)
    ours = study.explained(found, words)
    control = study.scores_of_others(ours, found)
    assert [one.text for one in control.explanations] == [ours.explanations[i].text for i in (1, 2, 3, 0)]
    assert control.mean("simulation").mean < ours.mean("simulation").mean
