"""Heads are sorted by what they do."""

import pytest
import torch

from sae_tutorial.circuits import ioi
from sae_tutorial.circuits.direct_effects import attention_between
from sae_tutorial.circuits.patching import activations
from sae_tutorial.circuits.prompts import end_logits
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
        "suppression heads": [(0, 1)],
        "name movers": [(0, 2)],
        "indirect name movers": [(1, 2)],
    }


def test_where_there_is_none_the_nearest_is_taken():
    nothing = {role: torch.zeros(2, 3) for role in ("IO", "S1", "S2")}
    found = heads.Seen(zeros(h01=0.01), zeros(h01=0.02, h10=-0.01), nothing, zeros(h12=0.1))
    assert heads.sort_heads(found)["name-carrying"] == [(1, 2)]
    assert heads.sort_heads(found)["suppression heads"] == [(1, 0)]
    assert heads.sort_heads(found)["name movers"] == [(0, 1)]


def test_the_embedded_model_has_the_heads_of_the_drawing(model):
    from sae_tutorial.course.ioi_circuit.drawings import NAMED

    sentences = ioi.ioi_sentences(model, 12, seed=0)
    found = heads.seen(model, sentences, names.name_ids(model))
    assert found.right.shape == found.look["S2"].shape == found.back.shape == (4, 8)
    groups = heads.sort_heads(found)
    assert {kind: "  ".join(f"{layer}.{head}" for layer, head in groups[kind]) for kind in NAMED} == NAMED


def test_a_map_has_values_where_heads_are_and_zeros_elsewhere(model):
    grid = heads.on_map(model, torch.tensor([0.5, -1.0]), [(3, 7), (0, 2)])
    assert grid.shape == (4, 8) and grid[3, 7] == 0.5 and grid[0, 2] == -1 and int((grid != 0).sum()) == 2


def test_what_the_writer_writes_is_replaced_at_s2_alone(model):
    sentences = ioi.ioi_sentences(model, 4, seed=0)
    swapped = ioi.counterfactual(model, sentences, "swapped")
    found = heads.rewritten(model, sentences, [(0, 0)], {"itself": sentences, "swapped": swapped})
    own = ioi.logit_difference(found["is as it is"], sentences)
    differences = [ioi.logit_difference(logits, sentences) for logits in found.values()]
    _, itself, turned, from_s1, alone = differences
    assert torch.allclose(itself, own, atol=1e-3) and (turned < 0).all()
    name, each, s2 = "blocks.0.attn.hook_z", torch.arange(4), sentences.positions["S2"]

    def as_at_s1(z, hook):
        z = z.clone()
        z[each, s2, 0] = z[each, sentences.positions["S1"], 0]
        return z

    by_hand = ioi.logit_difference(end_logits(model, sentences, [(name, as_at_s1)]), sentences)
    assert torch.allclose(from_s1, by_hand, atol=1e-3)

    def at_itself(pattern, hook):
        pattern = pattern.clone()
        pattern[each, 0, s2] = torch.nn.functional.one_hot(s2, pattern.shape[-1]).float()
        return pattern

    by_hand = ioi.logit_difference(end_logits(model, sentences, [("blocks.0.attn.hook_pattern", at_itself)]), sentences)
    assert torch.allclose(alone, by_hand, atol=1e-3)


def test_heads_are_named_and_ordered():
    grid = zeros(h01=2.0, h12=-1.0, h10=1.0)
    assert heads.strongest(grid, 2) == [(0, 1), (1, 0)] and heads.strongest(grid, 1, negative=True) == [(1, 2)]
    assert heads.listed(heads.strongest(grid, 2)) == "0.1, 1.0"
    labels, kinds = heads.kinds_of({"a": [(1, 0)], "b": [(0, 2)]}, (2, 3))
    assert labels == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]
    assert kinds == ["others", "others", "b", "a", "others", "others"]


def test_looks_add_up_to_all_of_the_attention(model):
    sentences = ioi.ioi_sentences(model, 12, seed=0)
    found = heads.looks_of(heads.seen(model, sentences, names.name_ids(model)), [(2, 0), (3, 4)])
    assert list(found)[-2:] == ["comma or full stop before S2", "elsewhere"]
    torch.testing.assert_close(sum(found.values()), torch.ones(2))
    assert found["S2"][0] > 0.9 < found["comma or full stop before S2"][1]
    runs = {"once": sentences, "again": sentences}
    (row,) = heads.look_table(model, runs, [((2, 0), "END", "S2")]).rows
    assert row == ("attention of 2.0 from END to S2", *[f"{found['S2'][0]:.0%}"] * 2)
    assert heads.look_table(model, runs, [], {"said": ["a", "b"]}).rows == [("said", "a", "b")]


def test_the_name_at_s2_is_read_at_the_end(model):
    sentences, ids = ioi.ioi_sentences(model, 6, seed=0), names.name_ids(model)
    logits = end_logits(model, sentences) - model.b_U  # as in all direct attribution
    rows = []
    for b, row in enumerate(sentences.tokens.tolist()):
        absent = [i for i in ids.tolist() if i not in row]
        rows.append(float(logits[b, sentences.wrong[b]] - logits[b, absent].mean()))
    assert heads.about_to_say(model, sentences, ids, -1).tolist() == pytest.approx(rows, abs=0.01)


def test_looks_are_told_apart_by_what_the_model_is_about_to_say(model):
    sentences, ids = ioi.ioi_sentences(model, 12, seed=0), names.name_ids(model)
    found = heads.looks_by_lens(model, {"a": sentences, "b": sentences}, ids, (2, 0))
    assert all(one == other for one, other in found.values())
    mean, above, here, elsewhere = (values[0] for values in found.values())
    said = heads.about_to_say(model, sentences, ids, 2)
    assert mean == f"{said.mean():+.2f}" and above == f"{(said > 0).float().mean():.0%}"
    share = (said > 0).float().mean()
    whole = heads.attention_between(model, sentences, "END", ["S2"])["S2"][2, 0]
    parts = [float(value.rstrip("%")) / 100 for value in (here, elsewhere)]
    assert share * parts[0] + (1 - share) * parts[1] == pytest.approx(float(whole), abs=0.01)


def test_shares_have_mlps_in_the_last_column(model):
    sentences = ioi.ioi_sentences(model, 4, seed=0)
    writes = heads.direct_writes(model, sentences)
    found = heads.with_mlps(writes, model, sentences.io, sentences.wrong)
    assert found.shape == (4, 9)
    torch.testing.assert_close(found[:, 8], heads.towards(writes.mlps, model, sentences.io, sentences.wrong))


def test_a_path_map_is_a_change_of_the_mean(model):
    sentences = ioi.ioi_sentences(model, 6, seed=0)
    swapped = ioi.counterfactual(model, sentences, "swapped")

    def difference(logits):
        return ioi.logit_difference(logits, sentences)

    receivers = [heads.Site("blocks.3.hook_resid_post")]
    found = heads.path_map(model, sentences, swapped, [(2, 0), (0, 7)], receivers, difference)
    whole = difference(end_logits(model, sentences)).mean()
    by_hand = heads.path_patch(model, sentences, swapped, [(2, 0)], receivers, difference).mean() / whole - 1
    assert (
        abs(found[2, 0] - by_hand) < 1e-4 and found[2, 0] < -0.5 < abs(found[0, 7]) + 0.5 and found[1].abs().sum() == 0
    )
    with_frozen = heads.path_map(model, sentences, swapped, [(2, 0)], receivers, difference, True)
    assert found[2, 0] < with_frozen[2, 0] < 0


def test_changes_without_heads_add_up_to_what_is_left(model):
    sentences = ioi.ioi_sentences(model, 12, seed=0)
    pool = ioi.counterfactual(model, ioi.ioi_sentences(model, 24, seed=2), "abc", seed=2)
    means = ioi.TemplateMeans.over(model, pool, [f"blocks.{i}.attn.hook_z" for i in range(4)])
    left, by_head, by_mlp = heads.changes_without(model, sentences, means, [(2, 0)])
    before = ioi.logit_difference(end_logits(model, sentences), sentences).mean()
    assert abs(before + by_head.sum() + by_mlp.sum() - left.mean()) < 0.3, "but for embeddings, whose scale changes"
    assert by_head[2, 0] < -0.5 and by_head[:2].abs().max() < 0.1


def test_the_rise_without_heads_is_parted_from_the_last_scale(model):
    sentences = ioi.ioi_sentences(model, 12, seed=0)
    pool = ioi.counterfactual(model, ioi.ioi_sentences(model, 24, seed=2), "abc", seed=2)
    means = ioi.TemplateMeans.over(model, pool, [f"blocks.{i}.attn.hook_z" for i in range(4)])
    assert heads.rise_without(model, sentences, means, []).abs().max() < 1e-3
    movers = [(1, 3), (2, 6), (3, 0), (3, 5)]
    rise, at_old_scale, scale = heads.rise_without(model, sentences, means, movers)
    before = ioi.logit_difference(end_logits(model, sentences), sentences)
    left, by_head, by_mlp = heads.changes_without(model, sentences, means, movers)
    assert torch.allclose(rise, left - before, atol=1e-2) and scale.mean() < 0, "what is shorter is divided by less"
    of_stream = left - (model.b_U[sentences.io] - model.b_U[sentences.wrong])
    assert torch.allclose(rise - at_old_scale, -scale * of_stream, atol=1e-2), "the rest: what is left, enlarged"


def test_nothing_ablated_changes_no_name(model):
    sentences, ids = ioi.ioi_sentences(model, 6, seed=0), names.name_ids(model)
    pool = ioi.counterfactual(model, ioi.ioi_sentences(model, 12, seed=2), "abc", seed=2)
    means = ioi.TemplateMeans.over(model, pool, [f"blocks.{i}.attn.hook_z" for i in range(4)])
    change, left = heads.name_without(model, sentences, means, [], ids)
    assert change == 0 and left == pytest.approx(float(names.lift(end_logits(model, sentences), sentences, ids).mean()))
    _, fewer = heads.name_without(model, sentences, means, [(1, 3), (2, 6), (3, 0), (3, 5)], ids)
    assert fewer < left


def test_looking_with_one_s_own_queries_is_looking(model):
    sentences = ioi.ioi_sentences(model, 6, seed=0)
    own = activations(model, sentences, ["blocks.0.attn.hook_q"])
    found = heads.looks_with_queries(model, sentences, own, (0, 0), "S2", "S1")
    expected = attention_between(model, sentences, "S2", ["S1"])["S1"][0, 0]
    assert found == pytest.approx(float(expected), abs=1e-4)
    swapped = ioi.counterfactual(model, sentences, "swapped")
    other = activations(model, swapped, ["blocks.0.attn.hook_q"])
    assert heads.looks_with_queries(model, sentences, other, (0, 0), "S2", "S1") != pytest.approx(found, abs=0.05)
