"""Heads are sorted by what they do."""

import torch

from sae_tutorial.circuits import ioi
from sae_tutorial.course.ioi_circuit import heads, names


def zeros(**cells):
    """(2, 3) zeros with some cells set."""
    found = torch.zeros(2, 3)
    for name, value in cells.items():
        found[int(name[1]), int(name[2])] = value
    return found


def test_each_kind_has_its_own_signs():
    found = heads.Seen(
        right=zeros(h02=0.4, h12=0.3),
        wrong=zeros(h01=-0.5, h02=0.3, h12=0.4, h11=-0.5),
        look={"IO": zeros(h02=0.3), "S1": zeros(h02=0.2), "S2": zeros(h01=0.9, h11=0.1)},
        back=zeros(h00=0.7),
    )
    assert heads.sort_heads(found) == {
        "name-carrying": [(0, 0)],
        "copy suppression": [(0, 1)],
        "name movers": [(0, 2)],
        "indirect name movers": [(1, 2)],
    }


def test_where_there_is_none_the_nearest_is_taken():
    nothing = {role: torch.zeros(2, 3) for role in ("IO", "S1", "S2")}
    found = heads.Seen(zeros(h01=0.01), zeros(h01=0.02, h10=-0.01), nothing, zeros(h12=0.1))
    assert heads.sort_heads(found)["name-carrying"] == [(1, 2)]
    assert heads.sort_heads(found)["copy suppression"] == [(1, 0)]
    assert heads.sort_heads(found)["name movers"] == [(0, 1)]


def test_the_embedded_model_has_the_heads_of_the_drawing(model):
    from sae_tutorial.course.ioi_circuit.drawings import NAMED

    sentences = ioi.ioi_sentences(model, 12, seed=0)
    found = heads.seen(model, sentences, names.name_ids(model))
    assert found.right.shape == found.look["S2"].shape == found.back.shape == (4, 8)
    groups = heads.sort_heads(found)
    assert {kind: "  ".join(f"{layer}.{head}" for layer, head in groups[kind]) for kind in NAMED} == NAMED
