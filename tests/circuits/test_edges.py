"""Edges against the model's own forward pass, against path patching, and against a circuit that is known."""

import pytest
import torch

from sae_tutorial.circuits import edges as finding
from sae_tutorial.circuits import ioi, patching, prompts

HEADS = 8


@pytest.fixture(scope="module")
def clean(model):
    return ioi.ioi_sentences(model, 4, seed=3)


@pytest.fixture(scope="module")
def other(model, clean):
    return ioi.counterfactual(model, clean, "abc")


def difference(sentences):
    return lambda logits: ioi.logit_difference(logits, sentences)


def test_every_sender_is_read_by_what_comes_after_it(model):
    graph = finding.wiring(model)
    assert len(graph.senders) == 1 + 4 * 9 and len(graph.receivers) == 4 * 25 + 1
    assert graph.allowed.shape == (37, 101) and graph.allowed[:, -1].all()
    read_by = {
        name: {graph.receivers[i] for i in row.nonzero().flatten()} for name, row in zip(graph.senders, graph.allowed)
    }
    assert "0.0 q" not in read_by["0.3"] and {"mlp 0", "1.0 q", "3.7 v", "logits"} <= read_by["0.3"]
    assert read_by["mlp 3"] == {"logits"} and read_by["3.1"] == {"mlp 3", "logits"}
    assert graph.senders[graph.sender((2, 5))] == "2.5"
    assert [n for n, _ in graph.stages] == [1, 9, 10, 18, 19, 27, 28, 36, 37]
    reading = [graph.receivers[columns] for _, columns in graph.stages]
    assert reading[2][HEADS : 2 * HEADS] == tuple(f"1.{h} k" for h in range(HEADS)) and len(reading[2]) == 3 * HEADS
    assert reading[3] == ("mlp 1",) and reading[-1] == ("logits",) and sum(reading, ()) == graph.receivers


def test_all_edges_are_the_model_and_no_edges_the_other_sentence(model, clean, other):
    counterfactual = finding.run_apart(model, other)
    assert torch.allclose(finding.run_apart(model, clean).logits, prompts.end_logits(model, clean), atol=1e-3)
    every = finding.wiring(model).allowed.float()
    assert torch.allclose(
        finding.edge_logits(model, clean, counterfactual, every), prompts.end_logits(model, clean), atol=1e-3
    )
    none = finding.edge_logits(model, clean, counterfactual, torch.zeros_like(every))
    assert torch.allclose(none, prompts.end_logits(model, other), atol=1e-3)


@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_an_edge_between_heads_is_path_patching_with_mlps_held(model, clean, other, part):
    sender, receiver = (0, 2), (2, 5)
    graph, site = finding.wiring(model), patching.head_site(part, receiver)
    path = patching.path_patch(model, clean, other, [sender], [site], difference(clean), freeze_mlps=True)[0]
    keep = graph.allowed.float()
    keep[graph.sender(sender), graph.receivers.index(f"2.5 {part}")] = 0
    edge = difference(clean)(finding.edge_logits(model, clean, finding.run_apart(model, other), keep))
    assert torch.allclose(edge, path, atol=2e-3)


def test_what_is_known_already_need_not_be_computed_again(model, clean, other):
    graph, own, counterfactual = finding.wiring(model), finding.run_apart(model, clean), finding.run_apart(model, other)
    keep = graph.allowed.float()
    keep[graph.sender((1, 2)), [graph.receivers.index(f"3.{h} v") for h in range(HEADS)]] = 0
    slow = finding.edge_logits(model, clean, counterfactual, keep)
    for first in (0, *(n for n, _ in graph.stages[:7])):  # up to the attention of layer 3
        fast = finding.edge_logits(model, clean, counterfactual, keep, own.wrote[:first])
        assert torch.allclose(fast, slow, atol=1e-4)
    with pytest.raises(ValueError, match="known holds 5 senders: it must end before a stage"):
        finding.edge_logits(model, clean, counterfactual, keep, own.wrote[:5])


def test_edge_attribution_is_the_effect_of_a_small_step(model, clean, other):
    """An edge removed by a hundredth changes the metric by a hundredth of its score."""
    graph, counterfactual, metric = finding.wiring(model), finding.run_apart(model, other), difference(clean)
    scores = finding.edge_attribution(model, clean, other, metric)
    assert scores.shape == graph.allowed.shape and (scores[~graph.allowed] == 0).all()
    keep, step = graph.allowed.float(), 0.01
    for edge in scores.abs().flatten().topk(3).indices.tolist():
        sender, receiver = divmod(edge, len(graph.receivers))
        ends = []
        for sign in (1, -1):
            moved = keep.clone()
            moved[sender, receiver] -= sign * step
            ends.append(metric(finding.edge_logits(model, clean, counterfactual, moved)).double().mean())
        found = (ends[0] - ends[1]) / (2 * step)
        assert found == pytest.approx(float(scores[sender, receiver]), rel=0.05, abs=0.02)


def test_edge_scores_take_the_largest_edge(model):
    graph = finding.wiring(model)
    edges = torch.zeros(37, 101)
    edges[graph.sender((1, 1)), [3, 50]] = torch.tensor([0.5, -2.0])
    assert finding.edge_scores(graph, edges, [(0, 0), (1, 1)]).tolist() == [0, 2]
    assert finding.edge_scores(graph, edges != 0, [(0, 0), (1, 1)]).tolist() == [0, 1]


def test_roc():
    best = finding.roc(torch.tensor([3.0, 2.0, 1.0, 0.0]), [True, True, False, False])
    assert best.area == 1 and best.right[0] == best.wrong[0] == 0 and best.right[-1] == best.wrong[-1] == 1
    assert finding.roc(torch.tensor([0.0, 1.0]), [True, False]).area == 0
    assert finding.roc(torch.zeros(6), [True, False] * 3).area == 0.5  # ties: chance
    scores, members = torch.rand(40, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3 == 0
    pairs = (scores[members][:, None] > scores[~members][None]).float().mean()
    assert finding.roc(scores, members).area == pytest.approx(float(pairs), abs=1e-6)
    with pytest.raises(ValueError, match="0 of 2"):
        finding.roc(torch.zeros(2), [False, False])


def test_another_architecture_is_refused(model):
    class Other:
        class cfg:
            act_fn = "silu"

    with pytest.raises(ValueError, match="act_fn='silu'"):
        finding.wiring(Other)


def test_edges_to_keep_are_those_of_the_model(model, clean, other):
    with pytest.raises(ValueError, match=r"keep has shape \(3, 3\), not \("):
        finding.edge_logits(model, clean, finding.run_apart(model, other), torch.ones(3, 3))
