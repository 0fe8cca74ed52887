"""The dense way is the sparse way written down plainly: the same steps, up to rounding. And what is made of runs."""

import dense
import memory
import oracle
import pytest
import scaling
import torch
from dense import DenseTrainee

from sae_tutorial import SAEConfig, SparseAutoencoder
from sae_tutorial.training.settings import TrainSettings
from sae_tutorial.training.start import start_
from sae_tutorial.training.step import Trainee


@pytest.mark.parametrize("rule", oracle.RULES)
def test_a_few_dense_steps_equal_sparse_ones(rule):
    x = torch.randn(5, 64, 8, generator=torch.Generator().manual_seed(0))
    trainees = []
    for kind in (Trainee, DenseTrainee):
        sae = start_(SparseAutoencoder(SAEConfig(8, 64, rule, 2)), x[0])
        # Dead after one batch without a match: AuxK works, too.
        settings = TrainSettings(100, 64, warmup=0.0, dead_after=64, encoder_dtype="float32")
        trainees.append(kind(sae, settings, variance=1.0))
        for u in x:
            trainees[-1].advance(u, u)
    sparse, plain = trainees
    assert type(plain.optimiser) is dense.PlainDescent
    torch.testing.assert_close(sparse.history.values[:, :5], plain.history.values[:, :5], atol=1e-4, rtol=1e-3)
    assert plain.history.at(4)["aux"] > 0 or rule == "feature_choice", "AuxK had nothing to do"  # there nobody is dead
    for name, weight in sparse.sae.named_parameters():
        torch.testing.assert_close(weight, dict(plain.sae.named_parameters())[name], atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("way", oracle.WAYS)
def test_one_run_trains_and_looks_at_held_out_activations(way):
    acts = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    run = oracle.one_run("mutual_choice", way, 0, (64, 32, 4, 3, 0, 0), acts, acts, "cpu")
    assert run["fvu"] > 0 and run["l0"] == pytest.approx(4, rel=0.5)


def test_runs_that_are_kept_are_not_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(oracle, "activations", lambda *_: (torch.zeros(1), torch.zeros(1)))
    (tmp_path / "token_choice dense 0.json").write_text('{"fvu": 1.0}')
    runs = oracle.all_runs([("token_choice", "dense", 0)], oracle.SIZES["quick"], "cpu", tmp_path)
    assert runs == {"token_choice dense 0": {"fvu": 1.0}}


def test_the_claim_is_that_ways_differ_less_than_seeds():
    values = {"sparse": [0.30, 0.31, 0.32], "dense": [0.304, 0.314, 0.324]}
    runs = {
        f"{rule} {way} {seed}": {"fvu": values[way][seed], "l0": 32.0, "dead": 0.0}
        for rule in oracle.RULES
        for way in oracle.WAYS
        for seed in range(3)
    }
    rows, targets = oracle.compare(runs, 3, "here")
    assert rows[0][:3] == ["token_choice", "sparse", "0.3100 ± 0.0100"]
    assert all(one["met"] and one["measured"]["median"] == pytest.approx(0.4) for one in targets)


def test_memory_is_that_of_the_steps():
    found = memory.inside("sparse", (8, 512, 64, 4), steps=2, device="cpu")
    assert found["needed_gb"] == pytest.approx(16 * (2 * 8 * 512 + 512 + 8) / 1e9)
    assert found["table_gb"] == pytest.approx(4 * 64 * 512 / 1e9) and found["l0"] > 0


def test_scaling_moves_one_size_at_a_time():
    shapes = scaling.varied((8, 100, 10, 4), (0.5, 2))
    assert shapes["F"] == [(8, 50, 10, 4), (8, 100, 10, 4), (8, 200, 10, 4)]
    assert shapes["k"] == [(8, 100, 10, 2), (8, 100, 10, 4), (8, 100, 10, 8)]


def test_the_picture_has_a_panel_for_each_size():
    sizes = {"F": [1, 2], "B": [3, 4], "k": [5, 6]}
    medians = {name: {"select: a": [1.0, 2.0], "step: b": [2.0, 3.0]} for name in sizes}
    fig = scaling.figure(medians, sizes, "A title")
    assert len(fig.data) == 6 and fig.layout.xaxis3.title.text == "mean L0, k"
    assert fig.layout.yaxis.title.text == "milliseconds" and fig.layout.xaxis.title.text == "features F"
