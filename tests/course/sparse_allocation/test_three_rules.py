"""One SAE for each rule, shipped or trained here."""

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
