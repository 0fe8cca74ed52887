"""A lesson's figure of nothing says that there is nothing: no data, values that are all NaN, affinities of 0."""

import math

import pytest
import torch
from drawing import figure_functions, says_nothing_is_there

from sae_tutorial.course.directions import figures as directions
from sae_tutorial.course.ioi_features import figures as ioi_features
from sae_tutorial.course.reading_features import figures as reading_features
from sae_tutorial.course.sparse_allocation import figures as sparse_allocation
from sae_tutorial.course.sparse_autoencoders import figures as sparse_autoencoders
from sae_tutorial.course.start_here import figures as start_here
from sae_tutorial.course.superposition import figures as superposition
from sae_tutorial.course.transformers import figures as transformers
from sae_tutorial.evaluation.explanations import Statistics
from sae_tutorial.evaluation.feature_pages import Passage
from sae_tutorial.evaluation.intervals import Interval

NAN, NANS, EMPTY = math.nan, torch.full((2, 2), math.nan), torch.zeros(0)
NO_PANELS = torch.zeros(0, 2, 5)
NOTHING = {
    start_here: {"words_per_neuron": [(EMPTY, {"chance": 5.0}, "t"), (NANS[0], {"chance": 5.0}, "t")]},
    transformers: {
        "next_tokens": [([], EMPTY, "t"), (["a", "b"], NANS[0], "t")],
        "contributions": [([], EMPTY, "t", "x"), (["a", "b"], NANS[0], "t", "x")],
        "lens_table": [([], [], [], torch.zeros(0, 0), "t"), (["e", "f"], ["a", "b"], [["a", "b"]] * 2, NANS, "t")],
    },
    superposition: {
        "directions": [(NO_PANELS, [], "t")],
        "directions_slider": [(NO_PANELS, torch.zeros(0, 5, 5), [], [])],
        "gram_and_norms": [(torch.zeros(0, 5, 5), torch.zeros(0, 5), torch.zeros(0, 5), [], "t")],
        "dimensionality_cloud": [
            (torch.ones(2), NANS, NANS > 0, torch.ones(2), {}, "t"),
            (torch.ones(2), NANS.abs(), NANS > 0, torch.ones(2), {}, "t"),
        ],
        "dimensionality_histogram": [(EMPTY, {"1/2": 0.5}, "t"), (NANS[0], {}, "t")],
        "phase_diagram": [(NANS, torch.ones(2), torch.ones(2), None, "t")],
        "matrices": [([], [], "t"), ([NANS], ["a"], "t")],
    },
    directions: {
        "word_shares": [({}, {"random": 5.0}, "t"), ({"a": EMPTY}, {"random": 5.0}, "t")],
        "hit_rates": [({}, "t"), ({"a": {}}, "t"), ({"a": {"b": NAN}}, "t")],
        "number_line": [([], {}, "t"), ([], {"a": (EMPTY, EMPTY)}, "t")],
        "kurtosis_boxes": [({}, "t"), ({"dead": NANS[0]}, "t")],
        "explained_bars": [({}, 0.5, "level", "t"), ({"a": {}}, 0.5, "level", "t"), ({"a": {8: NAN}}, 0.5, "l", "t")],
        "staircase": [(NANS, ["a", "b"], ["c", "d"], [0, 1], "t")],
    },
    sparse_autoencoders: {
        "learning_plane": [(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0, 5, 2), [], "t")],
        "learned_against_true": [({}, {}, {}, "t"), ({"a": EMPTY}, {"a": EMPTY}, {"a": 0.1}, "t")],
        "curves": [({}, "t"), ({"panel": {}}, "t"), ({"panel": {"a": []}}, "t")],
        "pareto": [({}, "t"), ({"L1": []}, "t")],
        "recovery_map": [(NANS, [1, 2], [0.1, 0.2], "t")],
    },
    sparse_allocation: {
        "budget_explorer": [(torch.zeros(2, 3), {"Token Choice": [torch.zeros(2, 3)]}, [1], ["a", "b"], 1, ["t"])],
        "thresholds": [({}, 0.5, "t"), ({"Token Choice": EMPTY, "Feature Choice": NANS[0]}, 0.5, "t")],
        "by_kind": [({}, [], "t", "y"), ({"Mutual Choice": (NANS[0], NANS[0], NANS[0])}, ["a", "b"], "t", "y")],
        "by_decile": [({}, "t", "y", 1.0), ({"a": NANS[0]}, "t", "y", 1.0)],
        "trade": [
            ({}, [], "t", "x", "y"),
            ({"a": (EMPTY, EMPTY)}, [], "t", "x", "y"),
            ({"a": (NANS[0], NANS[0])}, ["a", "b"], "t", "x", "y"),
        ],
        "crossed": [({}, "a", "t"), ({"b": {"a": NAN}}, "a", "t")],
        "company": [([], 3, "t")],
        "capacity_explorer": [(EMPTY, {}, []), (torch.zeros(3), {0.0: torch.ones(3)}, ["t"])],
        "densities": [({}, 0.1, "t"), ({"Mutual Choice": EMPTY}, 0.1, "t"), ({"Mutual Choice": NANS[0]}, 0.1, "t")],
    },
    ioi_features: {
        "places": [(NANS, ["a", "b"], ["IO", "END"], "t")],
        "carried": [({}, {}, 4.0, "t"), ({"PCA": (EMPTY,) * 4}, {"PCA": (EMPTY,) * 4}, 4.0, "t")],
        "orders": [({}, "t"), ({"a": ([], [])}, "t")],
        "two_scores": [({}, ("one", "two"), "t", "y")],
        "name_patterns": [(NANS, ["a", "b"], [1, 2], "t")],
        "minds": [([], "a", "b", "c"), ([(0, "a", NAN, NAN)], "a", "b", "c")],
        "controlled": [({}, (), {}, {}, "t"), ({"a": {}}, (2,), {"a": 0.5}, {"a": 0.1}, "t")],
        "f1_map": [(NANS, ["a", "b"], ["c", "d"], "t")],
        "occlusion": [({}, {"a": 1.0}, "t"), ({"p": ((1,), {"a": [NAN]})}, {"a": 1.0}, "t")],
        "splitting": [([], {}, {}, "t"), ([], {"a": []}, {"b": []}, "t")],
    },
    reading_features: {
        "by_point": [({}, [], "t", "x", "y"), ({"a": NANS}, [1, 2], "t", "x", "y")],
        "real_and_simulated": [(Passage(EMPTY.long(), EMPTY, 0), Statistics("", "token", {}), lambda ids: [], "t")],
        "compared": [({}, "t", "x"), ({"a": {}}, "t", "x"), ({"a": {"b": Interval(NAN, NAN, NAN, 0)}}, "t", "x")],
    },
}
MORE = {"matrices": {"x": "x", "y": "y", "legend": "u"}}
CASES = [(module, name, case) for module, named in NOTHING.items() for name, cases in named.items() for case in cases]


@pytest.mark.parametrize("module", NOTHING, ids=lambda module: module.__name__.split(".")[-2])
def test_every_figure_is_tried(module):
    assert figure_functions(module) == set(NOTHING[module])


@pytest.mark.parametrize(("module", "name", "case"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_nothing_there_is_said_in_words(module, name, case):
    assert says_nothing_is_there(getattr(module, name)(*case, **MORE.get(name, {})))
