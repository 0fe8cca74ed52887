"""What makes a list of heads a circuit, on models that are made up and on the embedded one."""

from functools import partial

import pytest
import torch

from sae_tutorial.circuits import ioi
from sae_tutorial.circuits.patching import all_heads
from sae_tutorial.circuits.prompts import end_logits
from sae_tutorial.course.ioi_circuit import criteria, measures, names

VALUES = {(0, 0): (2.0, 0.0), (1, 0): (-0.5, 3.0), (1, 1): (0.0, 1.0)}


def made_up(kept):
    """Difference and lift add up over heads, but 1.0 and 1.1 do the same to the lift."""
    kept = list(kept)
    sums = [sum(VALUES.get(head, (0.25, 0.5))[i] for head in kept) for i in (0, 1)]
    sums[1] -= 1.0 * ({(1, 0), (1, 1)} <= set(kept))
    return torch.tensor([*sums, 1.0, 0.0])[:, None].expand(4, 3)


@pytest.fixture(scope="module")
def lab(model):
    sentences = ioi.ioi_sentences(model, 12, seed=0)
    pool = ioi.counterfactual(model, ioi.ioi_sentences(model, 480, seed=2), "abc", seed=2)
    hooks = [f"blocks.{i}.{end}" for i in range(4) for end in ("attn.hook_z", "hook_mlp_out")]
    return model, names.name_ids(model), ioi.TemplateMeans.over(model, pool, hooks), sentences


def test_with_all_heads_the_model_is_as_it_is(lab):
    model, ids, means, sentences = lab
    whole = measures.scores(end_logits(model, sentences), sentences, ids)
    alone = partial(criteria.alone, *lab)
    torch.testing.assert_close(alone(all_heads(model)), whole, atol=1e-3, rtol=1e-3)
    assert alone([])[0].mean().abs() < 1 < alone([(0, 0), (2, 0)])[0].mean()
    bare = alone(all_heads(model), mlps=range(4))
    assert (bare[0] < whole[0]).float().mean() > 0.9


def test_the_table_of_faithfulness_begins_with_no_heads(lab):
    alone, heads = partial(criteria.alone, *lab), all_heads(lab[0])
    lists = {"none": [], "all": heads}
    found = {name: alone(kept) for name, kept in lists.items()}
    none, all_ = criteria.faithful_table(found, lists, found["all"]).rows
    assert none[:4] == ("none", 0, "0% [0%, 0%]", "0% [0%, 0%]") and all_[:3] == ("all", 32, "100% [100%, 100%]")
    drawn = criteria.bars(found)
    assert list(drawn) == ["difference", "lift"] and list(drawn["lift"]) == ["none", "all"]
    middle, low, high = drawn["difference"]["all"]
    assert low <= middle <= high and middle == pytest.approx(float(found["all"][0].mean()))


def test_random_subsets_come_from_the_circuit_and_can_be_drawn_again():
    circuit = [(0, i) for i in range(8)]
    found = criteria.random_subsets(circuit, 200, seed=3)
    assert found == criteria.random_subsets(circuit, 200, seed=3) and len(found) == 200
    assert all(set(one) <= set(circuit) for one in found) and len({tuple(one) for one in found}) > 50
    assert 2.8 < sum(map(len, found)) / 200 < 3.6


def test_without_a_subset():
    found = criteria.without(made_up, list(VALUES), [[], [(0, 0)], [(1, 0), (1, 1)]])
    assert found.tolist() == [[1.5, 3.0], [-0.5, 3.0], [2.0, 0.0]]


def test_worth_is_signed_and_takes_the_larger_of_two_changes():
    found = criteria.worth(made_up, list(VALUES), [[(0, 0)], [(1, 0), (1, 1)]], [(3, 3)])
    assert all(low == mean == high for row in found.values() for mean, low, high in row.values())
    found = {measure: {head: span[0] for head, span in row.items()} for measure, row in found.items()}
    assert found["difference"] == {"0.0": 2.0, "1.0": -0.5, "1.1": 0.0, "+ 3.3": 0.25}
    assert found["lift"] == {"0.0": 0.0, "1.0": 3.0, "1.1": 1.0, "+ 3.3": 0.5}, "1.1 alone of its class adds 1"


def test_worth_beside_all_others_is_not_the_larger_change():
    found = criteria.worth(made_up, list(VALUES), [[(1, 0), (1, 1)]], beside=True)
    full, less = made_up(list(VALUES)), made_up([head for head in VALUES if head != (1, 1)])
    for i, measure in enumerate(("difference", "lift")):
        assert found[measure]["1.1"][0] == float((full - less)[i].mean())


def test_one_head_in_place_of_another():
    assert criteria.exchanged([(0, 0), (3, 2)], (3, 2), (1, 5)) == [(0, 0), (1, 5)]
    with pytest.raises(ValueError, match="not in the circuit"):
        criteria.exchanged([(0, 0)], (3, 2), (1, 5))


def test_again_says_each_result_with_its_interval(lab):
    heads = all_heads(lab[0])
    found = criteria.again(*lab, [(0, 0), (2, 0)], heads, (3, 2), [(3, 2)])
    assert len(found) == 11 and found["32 heads: share of the difference"] == "100% [100%, 100%]"
    assert found["3.2 in place of 3.2: change of the lift"] in ("+0.00 [+0.00, +0.00]", "-0.00 [-0.00, -0.00]")
    assert found["2 heads: right name on top"].startswith("0%")
