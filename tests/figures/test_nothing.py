"""A figure of nothing says that there is nothing: no data, values that are all NaN, a single token."""

import math

import pytest
import torch
from drawing import figure_functions, says_nothing_is_there

from sae_tutorial.circuits.transcoder_circuits import Node
from sae_tutorial.circuits.transcoder_graph import Graph
from sae_tutorial.evaluation.contexts import Context
from sae_tutorial.evaluation.intervals import Ratio
from sae_tutorial.figures import circuits, contexts, densities, feature_graph, grid, heads

NAN, EMPTY = torch.full((2, 2), math.nan), torch.zeros(0)
UNKNOWN = Ratio(math.nan, math.nan, math.nan, 1.0, 0, 0)
LAW = [math.nan] * 3
ALONE, OTHER = Node("logit", 2, 1), Node("feature", 0, 1)
UNKNOWN_GRAPH = Graph({ALONE: math.nan, OTHER: math.nan}, {(OTHER, ALONE): math.nan}, {})
NOTHING = {
    circuits: {
        "signed_maps": [({}, "t", [], "x", "u"), ({"a": NAN}, "t", ["x", "y"], "x", "u")],
        "by_depth": [({}, [], "t", "y"), ({"a": NAN[0]}, ["e", "0"], "t", "y")],
        "two_names": [(EMPTY, EMPTY, [], [], "t"), (NAN[0], NAN[0], ["a", "b"], ["x", "others"], "t")],
        "looks": [({}, [], "t"), ({"a": NAN[0]}, ["0.0", "0.1"], "t")],
        "bars": [({}, "t", "y"), ({"a": {}}, "t", "y"), ({"a": {"x": math.nan}}, "t", "y")],
        "completeness": [({}, "t"), ({"a": {"b": (EMPTY, EMPTY)}}, "t")],
    },
    contexts: {
        "feature_contexts": [([], "t", "x"), ({}, "t", "x"), ([Context("a", "b", "c", 0.0)], "t", "x")],
    },
    densities: {
        "rank_density": [({}, "t"), ({"dead": torch.zeros(5)}, "t"), ({"a": LAW}, "t"), ({"a": []}, "t")],
        "residuals": [({}, "t"), ({"a": (torch.zeros(0), torch.zeros(0))}, "t")],
    },
    feature_graph: {
        "feature_graph": [
            (Graph({}, {}, {}), [], "t"),
            (Graph({ALONE: 1.0}, {}, {}), ["a", "b"], "t"),
            (UNKNOWN_GRAPH, ["a", "b"], "t"),
        ],
    },
    grid: {
        "differences": [([], "t", "x"), ([("a", "k", UNKNOWN)], "t", "x")],
    },
    heads: {
        "attention_grid": [(torch.zeros(0, 0, 1, 1), "t"), (torch.full((1, 1, 2, 2), math.nan), "t")],
        "pattern_maps": [({}, [], "t")],
        "overlaps": [({}, 0.1, "t"), ({"a": EMPTY}, 0.1, "t")],
        "loss_by_position": [(EMPTY, 3, "t"), (NAN[0], 1, "t")],
        "head_maps": [({}, "t"), ({"a": NAN}, "t")],
        "knockouts": [({}, EMPTY, "t"), ({"a": math.nan}, EMPTY, "t")],
    },
}
CASES = [(module, name, case) for module, named in NOTHING.items() for name, cases in named.items() for case in cases]


@pytest.mark.parametrize("module", NOTHING, ids=lambda module: module.__name__.split(".")[-1])
def test_every_figure_is_tried(module):
    assert figure_functions(module) == set(NOTHING[module])


@pytest.mark.parametrize(("module", "name", "case"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_nothing_there_is_said_in_words(module, name, case):
    assert says_nothing_is_there(getattr(module, name)(*case))
