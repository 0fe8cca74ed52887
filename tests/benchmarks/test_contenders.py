"""Our own contenders at tiny sizes, and what the benchmark of steps makes of everybody's times."""

import contender_process
import contenders
import pytest
import torch
import training_step

SHAPE = (8, 64, 32, 4)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    path = tmp_path_factory.mktemp("task") / "task.pt"
    training_step.make_task(SHAPE, path, n_batches=2)
    return path


def test_the_task_has_batches_with_mean_0_and_variance_1(task):
    content = torch.load(task, weights_only=True)
    assert content["batches"].shape == (2, 32, 8)
    assert content["batches"].mean((0, 1)).abs().max() < 1e-5
    assert float(content["batches"].square().mean()) == pytest.approx(1, abs=1e-4)
    assert all(weight.is_contiguous() for weight in content["weights"].values())


@pytest.mark.parametrize("rule", training_step.RULES)
def test_our_step_is_a_training_step(rule, task):
    process = contender_process.Process(contenders.make)
    name = f"ours {rule} float32"
    seen = process.answer({"do": "prepare", "name": name, "task": str(task), "device": "cpu"})
    assert 0 < seen["fvu"] and seen["l0"] == pytest.approx(4, rel=0.01) and seen["loss"] == seen["fvu"]
    before = process.contenders[name].trainee.sae.W_dec.detach().clone()
    times = process.answer({"do": "turn", "name": name, "at_least_s": 0.0, "most_steps": 1})
    assert len(times) == (10 if rule == "feature_choice" else 1)
    trainee = process.contenders[name].trainee
    assert trainee.step == contenders.STEADY + 1 + len(times), "behind the steps with one-time work"
    assert not torch.equal(before, trainee.sae.W_dec)


@pytest.mark.parametrize("part", ["product", "adam"])
def test_the_limit_has_two_parts(part, task):
    process = contender_process.Process(contenders.make)
    name = f"limit {part} float32"
    assert process.answer({"do": "prepare", "name": name, "task": str(task), "device": "cpu"}) == {}
    assert len(process.answer({"do": "turn", "name": name, "at_least_s": 0.0, "most_steps": 1})) == 1
    if part == "product":
        content, limit = torch.load(task, weights_only=True), process.contenders[name]
        expected = content["batches"][1] @ content["weights"]["W_enc"].T + content["weights"]["b_enc"]
        torch.testing.assert_close(limit.out_BF, expected)


def test_who_computes_something_else_is_found():
    ours, other = "ours mutual_choice float32", "saelens BatchTopK"
    same = {ours: {"fvu": 0.5, "l0": 32.0}, other: {"fvu": 0.5001, "l0": 32.0}}
    assert training_step.disagreements(same, precise=True) == []
    wrong = same | {other: {"fvu": 0.51, "l0": 32.0}}
    assert training_step.disagreements(wrong, precise=True) == ["saelens BatchTopK has fvu 0.51, mutual_choice 0.5"]


def test_targets_are_ratios_of_rounds_or_say_what_is_missing():
    ours = {f"ours {rule} float32": [10.0, 20.0] for rule in training_step.RULES}
    taken = ours | {"limit product float32": [7.0, 14.0], "limit adam float32": [1.0, 2.0]}
    taken |= {"saelens BatchTopK": [60.0, 120.0]}
    missing = {"dictionary_learning": "left out", "sparsify TopK adam": "too large"}
    found = training_step.targets_of(taken, "here", ["float32", "bfloat16"], True, missing, "emulated")
    by_name = {one["what"]: one for one in found}
    fast = by_name["mutual_choice, float32 product, faster than saelens BatchTopK"]
    assert fast["measured"]["median"] == 6 and fast["at_least"] == 5 and fast["met"]
    assert by_name["mutual_choice, float32 product, faster than dictionary_learning BatchTopK"]["note"] == "left out"
    assert by_name["token_choice, float32 product, faster than sparsify TopK adam"]["note"] == "too large"
    assert by_name["token_choice against its limit, float32 product"]["measured"]["median"] == 1.25
    assert by_name["feature_choice against mutual_choice, float32 product"]["met"]
    emulated = by_name["mutual_choice against its limit, bfloat16 product"]
    assert emulated["measured"] is None and emulated["met"] is None and emulated["note"] == "emulated"
