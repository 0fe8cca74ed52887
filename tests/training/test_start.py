"""The start: a geometric median that shrugs at outliers, and reconstructions as long as the input."""

import pytest
import torch
from synthetic import superposed

from sae_tutorial import SAEConfig, SparseAutoencoder
from sae_tutorial.training.start import geometric_median, start_


def test_geometric_median_minimises_the_summed_distance():
    points = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)).double()
    points[:20] += 100
    median = geometric_median(points, tolerance=1e-12)
    assert median.norm() < 0.5 and points.mean(0).norm() > 10
    toward = (points - median) / (points - median).norm(dim=1, keepdim=True)
    assert toward.sum(0).norm() < 1e-3  # the pulls cancel


def test_geometric_median_survives_equal_points():
    assert torch.equal(geometric_median(torch.ones(5, 2)), torch.ones(2))
    points = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    assert geometric_median(points).norm() < 1e-2


@torch.no_grad()
@pytest.mark.parametrize("rule, k", [("token_choice", 3), ("mutual_choice", 3), ("feature_choice", 3), ("relu", None)])
def test_first_reconstructions_are_as_long_as_the_input(rule, k):
    x, _ = superposed(1000)
    sae = SparseAutoencoder(SAEConfig(16, 64, rule, k))
    sae.mean.copy_(x.mean(0))
    start_(sae, x)
    u = sae.normalise(x)
    part = sae.encode_normalised(u, batch_rule=True) @ sae.W_dec
    assert part.norm(dim=1).mean() == pytest.approx(float((u - sae.b_dec).norm(dim=1).mean()), rel=1e-2)
    torch.testing.assert_close(sae.b_dec.detach(), geometric_median(u))
    cosine = torch.nn.functional.cosine_similarity(sae.W_enc.T, sae.W_dec, dim=1)
    torch.testing.assert_close(cosine, torch.ones(64))  # encoder = decoderᵀ


@torch.no_grad()
def test_transcoders_start_small_and_tied_ones_keep_unit_rows():
    x, _ = superposed(1000)
    transcoder = SparseAutoencoder(SAEConfig(16, 64, "token_choice", 3, d_out=6))
    y = torch.randn(1000, 6, generator=torch.Generator().manual_seed(0)) + 2
    start_(transcoder, x, y)
    part = (transcoder.encode(x) @ transcoder.W_dec).norm(dim=1).mean()
    assert part == pytest.approx(0.1 * float((y - transcoder.b_dec).norm(dim=1).mean()), rel=0.01)
    tied = start_(SparseAutoencoder(SAEConfig(16, 64, "relu", tied=True)), x)
    torch.testing.assert_close(tied.W_dec.norm(dim=1), torch.ones(64))
