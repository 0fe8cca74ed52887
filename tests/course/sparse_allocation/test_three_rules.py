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
