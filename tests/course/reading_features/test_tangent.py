"""The tangent-space lasso: against a plain solver, and with features that were planted."""

import numpy as np
import pytest
import torch

from sae_tutorial import reference_sae
from sae_tutorial.allocation import SparseCodes
from sae_tutorial.course.reading_features import tangent
from sae_tutorial.evaluation.ground_truth import random_directions


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plainly(X, penalty, steps=20_000):
    """Proximal gradient descent on all columns, without acceleration or screening."""
    B, steep = torch.zeros(X.shape[1], len(X)), 2 * torch.linalg.matrix_norm(X, 2) ** 2
    for _ in range(steps):
        B = B - 2 * X.T @ (X @ B - torch.eye(len(X))) / steep
        B = B * (1 - penalty / steep / B.norm(dim=1, keepdim=True).clamp(min=1e-30)).clamp(min=0)
    return B


def test_screening_leaves_the_solution_as_it_is():
    X = normal(3, 40)
    for penalty in (4.0, 1.0):
        quick = tangent._solution(X, penalty, torch.zeros(40, 3))
        assert torch.allclose(quick, plainly(X, penalty), atol=2e-3)


def test_axes_that_are_there_are_picked():
    X = 0.7 * torch.nn.functional.normalize(normal(4, 50), dim=0)  # shorter: at one length, frames serve as well
    X[:, 10:14] = torch.eye(4)
    assert set(tangent.few_that_span(X, 4).tolist()) == {10, 11, 12, 13}


def test_more_than_there_are_is_refused():
    with pytest.raises(ValueError, match="n=5, but there are 4 features"):
        tangent.few_that_span(normal(3, 4), 5)


def test_planted_directions_of_variation_are_found():
    """Every position lies near one of two centres, and varies along three features of its own."""
    sae = reference_sae("mutual_choice")
    own = {0: (5, 600, 1_300), 1: (77, 2_000, 3_111)}
    centres, noise = 50 * random_directions(2, sae.config.d_in), 0.001 * normal(400, sae.config.d_in, seed=1)
    columns = torch.nn.functional.normalize(sae.W_enc.detach().T, dim=1)
    x = torch.cat([centres[i] + normal(200, 3, seed=i) @ columns[list(own[i])] for i in own]) + noise
    around = tangent.Around.of(x, torch.tensor([3, 250]), n_near=100, n_tangent=3)
    assert (around.near[0] < 200).all() and (around.near[1] >= 200).all() and 3 not in around.near[0].tolist()
    picked = tangent.features_along(around, sae, torch.arange(sae.config.d_sae))
    assert [set(row) for row in picked.tolist()] == [set(own[0]), set(own[1])]
    assert around.covered(around.tangents) > 0.99
    assert around.covered(columns[picked]) > 0.98 > 0.2 > around.covered(columns[picked.roll(1, 0)])


def test_scores_of_tables_are_correlations():
    token = torch.randint(5, (300,), generator=torch.Generator().manual_seed(0))
    z = (normal(300, 4) + 2 * (token[:, None] == torch.arange(4))).clamp(min=0) * (normal(300, 4, seed=1) > 0)
    z[:, 3] = 0
    shown = torch.arange(300) % 2 == 0
    found = tangent.token_scores(SparseCodes.from_dense(z), token, shown)
    for feature in range(3):
        mean = [z[shown & (token == t), feature].mean() for t in range(5)]
        said = [float(mean[t]) for t in token[~shown]]
        assert float(found[feature]) == pytest.approx(np.corrcoef(said, z[~shown, feature])[0, 1], abs=1e-4)
    assert found[3] == 0


def test_what_is_active_is_looked_up():
    sae = reference_sae("mutual_choice")
    dense = torch.zeros(6, sae.config.d_sae)
    dense[0, 7], dense[2, 9], dense[3, 7] = 1.0, 2.0, 1.0
    codes = SparseCodes.from_dense(dense)
    around = tangent.Around(torch.tensor([[2, 3], [4, 5]]), normal(2, 2, sae.config.d_in), None)
    here, near, _ = tangent.described(around, sae, codes, torch.tensor([0, 1]), torch.tensor([[7, 9], [7, 8]]))
    assert here == 0.25 and near == 0.5
