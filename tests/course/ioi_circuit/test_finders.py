"""Methods that find heads."""

from functools import partial

from grouped_model import grouped_model

from sae_tutorial.circuits import ioi
from sae_tutorial.circuits.patching import all_heads
from sae_tutorial.course.ioi_circuit import finders


def test_they_find_the_heads_that_make_the_difference(model):
    sentences = ioi.ioi_sentences(model, 6, seed=0)
    swapped = ioi.counterfactual(model, sentences, "swapped")
    metric = partial(ioi.logit_difference, sentences=sentences)
    asked = {"difference": (swapped, metric)}
    found = finders.head_scores(model, sentences, asked, 1, ioi.counterfactual(model, sentences, "abc"), [2.0])
    assert list(found) == ["EAP, difference", "ACDC, KL, ABC"] and all(len(x) == 32 for x in found.values())
    area = finders.areas(found, all_heads(model), [[(0, 0), (2, 0)], [(0, 7)]])
    assert area["EAP, difference"][0] > 0.95 > area["EAP, difference"][1]


def test_nothing_where_edges_are_not_known(tmp_path):
    assert finders.head_scores(grouped_model(tmp_path), None, {}, 1, None, []) == {}
