"""The grid of SAEs: what it holds, that nothing is trained twice, and what its files keep."""

import numpy as np
import pytest
import torch
from peer_quality import PEERS, activations_file
from quality import METHODS, PHASES, add, done, grid, line, together, train_together

from sae_tutorial import ActivationStore
from sae_tutorial.course.results import NAMES, load_densities, load_runs

RUNS = list(grid(steps=4, batch_size=64, d_in=8))


@pytest.fixture
def store():
    return ActivationStore.from_tensor(torch.randn(400, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1)


def test_every_method_has_three_seeds_and_three_budgets_and_three_seeds_at_four_times_the_size():
    for method in METHODS:
        main = {(run.k, run.seed) for run in RUNS if run.part == "main" and run.method == method}
        assert main == {(k, seed) for k in (16, 32, 64) for seed in (0, 1, 2)}
        wide = {(run.d_sae, run.seed) for run in RUNS if run.part == "wide" and run.method == method}
        assert wide == {(64 * 8, seed) for seed in (0, 1, 2)}
    assert {run.method for run in RUNS if run.part == "peers"} == set(PEERS)
    assert {run.method for run in RUNS} == {*METHODS, *PEERS, *PHASES} == set(NAMES), (
        "every method has a name for figures"
    )


def test_no_two_runs_share_a_key():
    assert len({run.key for run in RUNS}) == len(RUNS)


def test_runs_that_go_together_share_their_batches():
    groups = list(together(RUNS))
    assert sorted(run.key for group in groups for run in group) == sorted(run.key for run in RUNS)
    for group in groups:
        assert len({(run.d_sae, run.k, run.seed, run.steps, run.batch_size) for run in group}) == 1
        methods = {run.method for run in group}
        assert len(methods) == 1 or not methods & {"relu", *PEERS}, "slow ones keep nobody waiting"


def test_a_run_is_written_down_and_not_asked_for_again(store, tmp_path):
    class Found:
        __dataclass_fields__ = {}
        recovered = recovered_mean = 0.9

    group = next(together(RUNS))[:2]
    for run, trained in zip(group, train_together(group, store, tmp_path, "cpu")):
        assert set(trained.last) == {"train_fvu", "train_l0"}
        add(tmp_path / "out", line(run, trained, Found(), "stories", "hook"), np.array([0.1, 0.5, 0.2]))
    assert done(tmp_path / "out") == {run.key for run in group} and done(tmp_path / "nowhere") == set()
    assert load_runs(tmp_path / "out").rows[0]["method"] == group[0].method
    assert load_densities(tmp_path / "out")[group[1].key].tolist() == pytest.approx([0.5, 0.2, 0.1])
    assert not list(tmp_path.glob("*.pt")), "checkpoints of finished runs are gone"


def test_the_second_phase_starts_where_the_first_ended(store, tmp_path):
    runs = [run for run in RUNS if run.method in PHASES and run.seed == 1]
    trained = train_together(runs, store, tmp_path, "cpu")
    rules = ["feature_choice", "mutual_choice", "token_choice", "feature_choice"]
    assert [one.sae.config.rule for one in trained] == rules
    for one in trained:
        assert one.sae.tokens_seen == 4 * 64 and set(one.last) == {"train_fvu", "train_l0"}
    assert (trained[0].sae.threshold >= 0).all()
    mutual, feature = (one.sae.W_dec for one in (trained[1], trained[0]))
    assert torch.cosine_similarity(mutual, feature).mean() > 0.9, "both went on from one start"


def test_peers_get_the_activations_that_our_saes_see(store, tmp_path):
    acts = np.load(activations_file(store, tmp_path))
    assert torch.allclose(torch.from_numpy(acts), store.normalise(store.rows(slice(0, 400))), atol=1e-6)
    assert acts.shape == (400, 8) and not (tmp_path / "normalised.partial.npy").exists()
