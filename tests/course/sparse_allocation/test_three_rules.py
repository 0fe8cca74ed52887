"""One SAE for each rule, shipped or trained here."""

import pytest
import torch

from sae_tutorial import ActivationStore
from sae_tutorial.course.sparse_allocation import three_rules


def test_shipped_saes_are_of_their_rules():
    saes = three_rules.shipped()
    assert {name: sae.config.rule for name, sae in saes.items()} == three_rules.RULES
    assert len({sae.config.k for sae in saes.values()}) == 1


def test_trained_saes_share_sizes_and_batches():
    x = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    saes = three_rules.trained(ActivationStore.from_tensor(x), 16, 2, steps=3, batch_size=32)
    assert {name: sae.config.rule for name, sae in saes.items()} == three_rules.RULES
    assert {(sae.config.d_sae, sae.config.k) for sae in saes.values()} == {(16, 2)}


def test_a_massive_activation_is_counted_by_itself_alone():
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    saes = three_rules.trained(ActivationStore.from_tensor(x), 16, 2, steps=3, batch_size=32)
    kinds = torch.arange(64) % 2
    bare = three_rules.compared(saes, x, kinds, [0, 1])
    massive = three_rules.compared(saes, torch.cat([x, 1000 * x[:1]]), torch.cat([kinds, kinds[:1]]), [0, 1])
    for name, numbers in bare.items():
        assert numbers["L0"] == (numbers["0"] + numbers["1"]) / 2 and 0 < numbers["FVU"]
        for what in ("FVU", "L0", "std", "0", "1"):
            assert abs(massive[name][what] - numbers[what]) < 1e-5, (name, what)
    assert bare["Token Choice"]["longest"] == massive["Token Choice"]["longest"] == 2
    assert massive["Mutual Choice"]["longest"] > bare["Mutual Choice"]["L0"]


def test_at_a_budget_the_usual_tokens_have_it_and_the_sae_is_as_it_was():
    sae, x = three_rules.shipped("stories")["Mutual Choice"], torch.randn(300, 256)
    x[7] *= 1_000
    was = sae.threshold.clone()
    lowered = three_rules.at_budget(sae, x, 20)
    usual = torch.arange(300) != 7
    assert abs(float(lowered.encode(x[usual]).l0().float().mean()) - 20) < 0.2
    assert torch.equal(sae.threshold, was) and not torch.equal(lowered.threshold, was)


def small():
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    return three_rules.trained(ActivationStore.from_tensor(x), 16, 2, steps=3, batch_size=32), x


def test_worth_is_what_one_cell_changes():
    saes, x = small()
    sae = saes["Mutual Choice"]
    u = sae.normalise(x) - sae.b_dec
    A = sae.preactivations(sae.normalise(x)).relu()
    filled = A * (A > A.median())
    found = three_rules.worth(sae, u, A, filled)
    for b, f in ((0, 3), (5, int(filled[5].argmax())), (9, int(filled[9].argmax()))):
        with_, without = filled.clone(), filled.clone()
        with_[b, f], without[b, f] = A[b, f], 0
        with torch.no_grad():
            lost = [float((u - table @ sae.W_dec).square().sum()) for table in (without, with_)]
        assert abs(float(found[b, f]) - (lost[0] - lost[1])) < 1e-3


def test_a_table_filled_by_its_own_code_has_the_error_of_the_sae():
    saes, x = small()
    sae = saes["Mutual Choice"]
    with torch.no_grad():
        codes = sae.encode(x)
        own = float((x - sae.decode(codes)).square().sum() / (x - x.mean(dim=0)).square().sum())
    fvu = three_rules.filled_fvu(sae, x, lambda A, u, one: A * (codes.to_dense() > 0))
    assert abs(fvu - own) < 1e-4 and three_rules.filled_fvu(sae, x, lambda A, u, one: A * 0) > fvu


def test_a_change_over_rows_is_one_of_sums_and_sure_where_rows_agree():
    lost = torch.tensor([[1.0, 3], [2, 2], [5, 3]])
    assert three_rules.change_over_rows(1.5 * lost, lost) == pytest.approx((0.5, 0.5, 0.5))
    ratio, low, high = three_rules.change_over_rows(torch.tensor([[6.0], [1]]), torch.tensor([[1.0], [3]]))
    assert ratio == 0.75 and low < 0 < ratio < high


def test_an_error_ratio_is_one_of_sums_and_leaves_massive_activations_out():
    saes, x = small()
    mine, theirs = saes["Token Choice"], saes["Mutual Choice"]
    with torch.no_grad():
        lost = [float((x - sae(x)).square().sum()) for sae in (mine, theirs)]
    ratio, low, high = three_rules.error_ratio(mine, theirs, x, 8)
    assert abs(ratio - (lost[0] / lost[1] - 1)) < 1e-4 and low <= ratio <= high
    longer = torch.cat([x, x[:8]])
    longer[-8:] *= 1_000
    assert three_rules.error_ratio(mine, theirs, longer, 8)[0] == ratio
