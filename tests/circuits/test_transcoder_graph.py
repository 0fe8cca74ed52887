"""The circuit behind a reading: nothing is lost when paths are followed and merged, and a planted path is found."""

import pytest
import torch
from tiny_model import exact_transcoder, rows, tiny_model

from sae_tutorial.circuits.transcoder_circuits import Node, traced
from sae_tutorial.circuits.transcoder_graph import Step, merged, strongest_paths

POSITION = 9
START = Node("logit", 2, POSITION, 7)


@pytest.fixture(scope="module")
def relu(tmp_path_factory):
    """A model whose MLPs are sums of features."""
    return tiny_model(tmp_path_factory.mktemp("tokenizer"), activation_function="relu")


@pytest.fixture(scope="module")
def trace(relu):
    return traced(relu, [exact_transcoder(relu, layer) for layer in (0, 1)], rows()[0])


@pytest.fixture(scope="module")
def steps(trace):
    return strongest_paths(trace, trace.logit(POSITION, 7, 3), START, expand=30, branches=6)


def test_every_step_is_the_sum_of_its_parts_and_its_rest(trace, steps):
    assert steps[0].node == START
    assert steps[0].value == pytest.approx(trace.parts(trace.logit(POSITION, 7, 3)).total, abs=1e-4)
    assert sum(step.rest is not None for step in steps) == 30
    for i, step in enumerate(steps):
        parts = [other.value for other in steps if other.parent == i]
        assert (step.rest is None) == (not parts) and len(parts) <= 6
        if parts:
            assert step.value == pytest.approx(sum(parts) + step.rest, abs=1e-5)
    assert {step.node.kind for step in steps} >= {"feature", "head", "logit"}


def test_the_largest_that_is_known_is_read_further_next(trace):
    """Those that are read further among the first n are the first n - 1 and one that is no smaller than any left."""
    before: set[int] = set()
    for n in range(1, 8):
        steps = strongest_paths(trace, trace.logit(POSITION, 7, 3), START, expand=n, branches=6)
        read = {i for i, step in enumerate(steps) if step.rest is not None}
        (new,) = read - before
        known = [i for i, s in enumerate(steps) if i not in before and (s.parent is None or s.parent in before)]
        could = [abs(steps[i].value) for i in known if steps[i].node.kind in ("feature", "head", "skip", "logit")]
        assert abs(steps[new].value) == max(could)
        before = read


def test_with_every_branch_there_is_no_rest(trace):
    steps = strongest_paths(trace, trace.feature(1, POSITION, 5), Node("feature", 1, POSITION, 5), branches=10_000)
    assert max(abs(step.rest) for step in steps if step.rest is not None) < 1e-4


def test_merging_adds_up_what_is_the_same(steps):
    graph = merged(steps)
    assert list(graph.nodes)[0] == START and len(graph.nodes) < len(steps)
    for node, value in graph.nodes.items():
        assert value == pytest.approx(sum(step.value for step in steps if step.node == node), abs=1e-5)
    for (there, here), value in graph.edges.items():
        same = [s.value for s in steps if s.node == there and s.parent is not None and steps[s.parent].node == here]
        assert value == pytest.approx(sum(same), abs=1e-5)
    behind = sum(value for (_, here), value in graph.edges.items() if here == START)
    assert behind + graph.rest[START] == pytest.approx(graph.nodes[START], abs=1e-5)


def test_small_steps_go_to_the_rest():
    a, b, c = (Node("feature", layer, 0, 1) for layer in (2, 1, 0))
    steps = [Step(a, 3.0, None, 0.5), Step(b, 2.4, 0, 0.3), Step(c, 0.1, 0, 0.0), Step(c, 2.1, 1), Step(b, 0.1, 2)]
    graph = merged(steps, least=0.2)
    assert graph.nodes == {a: 3.0, b: 2.4, c: 2.1}
    assert graph.edges == {(b, a): 2.4, (c, b): 2.1}
    assert graph.rest == {a: pytest.approx(0.6), b: 0.3}


def test_a_planted_path_is_found(relu):
    """A token's embedding, through one neuron of each layer, to a logit: all else is silenced."""
    relu_model, tokens = relu, rows()[0]
    both = [exact_transcoder(relu_model, layer) for layer in (0, 1)]
    trace = traced(relu_model, both, tokens)
    first = int(trace.mlps[0].by.codes[POSITION].argmax())
    with torch.no_grad():
        for sae, keep in zip(both, (first, 11)):
            silent = torch.arange(128) != keep
            sae.W_dec[silent] = 0
        both[1].W_enc[:, 11] = 40 * both[0].W_dec[first]
        both[1].b_enc[11] = 10.0
        both[1].W_dec[11] = 30 * (relu_model.W_U[:, 7] - relu_model.W_U[:, 3])
    trace = traced(relu_model, both, tokens)
    steps = strongest_paths(trace, trace.logit(POSITION, 7, 3), START, expand=6, branches=4)
    graph = merged(steps)
    later, earlier = Node("feature", 1, POSITION, 11), Node("feature", 0, POSITION, first)
    assert (later, START) in graph.edges and (earlier, later) in graph.edges


def test_numbers_that_make_no_sense(trace):
    for wrong in ({"expand": 0}, {"branches": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            strongest_paths(trace, trace.logit(POSITION, 7), START, **wrong)
