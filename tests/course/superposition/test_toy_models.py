"""Toy models: closed forms, hand-written gradients against autograd, training, samplers, bad input."""

import pytest
import torch

from sae_tutorial.course.superposition import toy_models as sp


def test_closed_form_dimensionalities():
    for name, fraction in sp.SHAPES.items():
        W = sp.shape(name)
        assert torch.allclose(W.norm(dim=0), torch.ones(W.shape[1]))
        assert torch.allclose(sp.feature_dimensionality(W), torch.full((W.shape[1],), float(fraction)), atol=1e-5), name
        assert fraction == sp.Fraction(*W.shape), "what the features share is what there is"


def test_an_orthogonal_frame_is_undisturbed_and_a_dropped_feature_has_no_dimension():
    W = torch.tensor([[1.0, 0, 0], [0, 0.7, 0]])
    assert sp.feature_dimensionality(W).tolist() == pytest.approx([1, 1, 0])
    assert sp.interference(W).tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert sp.interference(sp.shape("digon")).tolist() == pytest.approx([1, 1])
    assert float(sp.dimensions_per_feature(sp.shape("pentagon"))) == pytest.approx(2 / 5)


def test_geometry_works_on_stacks():
    W = torch.randn(3, 4, 6)
    for measure in (sp.feature_norms, sp.interference, sp.feature_dimensionality, sp.dimensions_per_feature):
        assert torch.allclose(measure(W)[1], measure(W[1]), atol=1e-5)


@pytest.mark.parametrize("relu_hidden", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_gradients_equal_autograd(relu_hidden, tied):
    torch.manual_seed(0)
    x = torch.rand(3, 8, 5)
    encoder = torch.randn(3, 2, 5, requires_grad=True)
    decoder = encoder.mT if tied else torch.randn(3, 5, 2, requires_grad=True)
    bias = torch.randn(3, 5, requires_grad=True)
    weight = torch.rand(3, 1, 5)
    y = sp.ToyModels(encoder, decoder, bias, torch.zeros(3), relu_hidden)(x)
    ((y - x.abs()).square() * weight).sum(dim=2).mean(dim=1).sum().backward()
    d_encoder, d_decoder, d_bias = sp._gradients(
        x, x.abs(), encoder.detach(), decoder.detach(), bias.detach(), weight, relu_hidden
    )
    if tied:
        d_encoder = d_encoder + d_decoder.mT
    else:
        assert torch.allclose(d_decoder, decoder.grad, atol=1e-5)
    assert torch.allclose(d_encoder, encoder.grad, atol=1e-5)
    assert torch.allclose(d_bias, bias.grad, atol=1e-5)


def slow_reference(probability, importance, n_hidden, steps, batch_size, learning_rate, seed):
    """One instance, plain autograd, no batching tricks: what train_toy_models must agree with."""
    generator = torch.Generator().manual_seed(seed)
    n = len(probability)
    W = ((2 / (n + n_hidden)) ** 0.5 * torch.randn(1, n_hidden, n, generator=generator))[0].requires_grad_()
    b = (probability / 2).clone().requires_grad_()
    optimizer = torch.optim.Adam([W, b], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    for _ in range(steps):
        x = torch.relu(torch.rand(batch_size, n, generator=generator) - (1 - probability)) / probability
        loss = (importance * (x - torch.relu(x @ W.T @ W + b)) ** 2).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return W.detach(), b.detach()


def test_one_instance_equals_the_slow_reference():
    probability, importance = torch.tensor([0.3, 0.2, 0.5, 0.4]), torch.tensor([1.0, 0.9, 0.5, 0.2])
    W, b = slow_reference(probability, importance, 2, steps=60, batch_size=32, learning_rate=1e-2, seed=3)
    models = sp.train_toy_models(probability[None], importance[None], 2, steps=60, batch_size=32, seed=3)
    assert torch.allclose(models.encoder[0], W, atol=1e-3)
    assert torch.allclose(models.bias[0], b, atol=1e-3)
    assert torch.equal(models.decoder, models.encoder.mT)


def test_dense_models_reach_the_closed_form_loss():
    """Always-on features have variance 1/12, and M of N can be kept: the loss is (N − M)/N/12."""
    models = sp.train_toy_models(torch.ones(2, 5), torch.ones(1, 5), 2, steps=600, learning_rate=2e-2)
    assert models.loss.tolist() == pytest.approx([3 / 5 / 12] * 2, rel=0.05)


def test_sparse_models_find_the_digon_and_training_is_reproducible():
    p = torch.full((3, 2), 0.05)
    first, again = (sp.train_toy_models(p, torch.ones(1, 2), 1, steps=500, restarts=6, seed=1) for _ in range(2))
    assert torch.equal(first.encoder, again.encoder) and torch.equal(first.loss, again.loss)
    assert first.encoder.shape == (3, 1, 2) and first.loss.shape == (3,)
    assert torch.allclose(sp.feature_dimensionality(first.encoder), torch.tensor(0.5), atol=0.05)
    assert (first.gram()[:, 0, 1] < -0.8).all()


def test_restarts_keep_the_best():
    p = torch.full((2, 3), 0.2)
    one = sp.train_toy_models(p, torch.ones(1, 3), 2, steps=40, restarts=1)
    many = sp.train_toy_models(p, torch.ones(1, 3), 2, steps=40, restarts=6)
    assert many.loss.max() <= one.loss.max() + 1e-3


def test_a_diverged_restart_is_never_kept(monkeypatch):
    """NaN is no number to be smallest; if nothing else is there, the learning rate is to blame."""
    real = sp._held_out_loss

    def with_nan(which):
        def loss(*arguments):
            found = real(*arguments)
            found[which] = torch.nan
            return found

        return loss

    rows = torch.full((2, 3), 0.2), torch.ones(1, 3), 2
    intact = sp.train_toy_models(*rows, steps=20, restarts=3)
    monkeypatch.setattr(sp, "_held_out_loss", with_nan([0, 4]))  # one restart of each row
    models = sp.train_toy_models(*rows, steps=20, restarts=3)
    assert models.loss.isfinite().all() and (models.loss >= intact.loss).all()
    monkeypatch.setattr(sp, "_held_out_loss", with_nan([3, 4, 5]))
    with pytest.raises(ValueError, match=r"learning_rate=0.01: .*rows \[1\]"):
        sp.train_toy_models(*rows, steps=20, restarts=3)


def test_samplers():
    p = torch.tensor([[0.3, 0.3, 0.1, 0.1], [1.0, 1.0, 0.5, 0.5]])
    generator = torch.Generator().manual_seed(0)
    x = sp.independent_features(p, 20_000, generator)
    assert torch.allclose((x > 0).float().mean(dim=1), p, atol=0.02)
    assert torch.allclose(x.sum(dim=1) / (x > 0).sum(dim=1), torch.full_like(p, 0.5), atol=0.02)
    assert x.max() <= 1 + 1e-5
    signed = sp.signed_features(p, 20_000, generator)
    assert torch.allclose((signed != 0).float().mean(dim=1), p, atol=0.02) and signed.mean().abs() < 0.02
    together = sp.correlated_pairs(p, 20_000, generator) > 0
    assert torch.equal(together[..., 0], together[..., 1]) and not torch.equal(together[..., 0], together[..., 2])
    apart = sp.anticorrelated_pairs(p / 2, 20_000, generator) > 0
    assert not (apart[..., 0] & apart[..., 1]).any()
    assert torch.allclose(apart.float().mean(dim=1), p / 2, atol=0.02)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"probability": torch.tensor([0.1, 0.2])}, r"probability has shape \(2,\).*value\[None\]"),
        ({"importance": torch.ones(1, 3)}, r"importance has shape \(1, 3\), probability \(1, 2\)"),
        ({"probability": torch.tensor([[0.0, 0.5]])}, r"probability spans \[0, 0.5\].*\(0, 1\]"),
        ({"probability": torch.tensor([[float("nan"), 0.5]])}, "probability spans"),
        ({"importance": -torch.ones(1, 2)}, r"importance spans \[-1, -1\]"),
        ({"importance": torch.full((1, 2), torch.inf)}, r"importance spans \[inf, inf\]; it must be finite"),
        ({"n_hidden": 0}, "n_hidden must be a whole number, 1 or more, got 0"),
        ({"restarts": 0}, "restarts must be a whole number, 1 or more, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number, greater than 0, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number"),
        ({"learning_rate": 1e9}, "learning_rate=1000000000.0: training diverged.* such as 1e-02"),
        ({"sampler": sp.anticorrelated_pairs, "probability": torch.full((1, 2), 0.7)}, "probability reaches 0.7.*0.5"),
        (
            {"sampler": sp.correlated_pairs, "probability": torch.full((1, 3), 0.2), "importance": torch.ones(1, 3)},
            "3 features; pairs need an even number",
        ),
    ],
)
def test_bad_input_names_the_argument(change, says):
    arguments = {"probability": torch.full((1, 2), 0.2), "importance": torch.ones(1, 2), "n_hidden": 1, "steps": 2}
    with pytest.raises(ValueError, match=says):
        sp.train_toy_models(**(arguments | change))


def test_unknown_shape():
    with pytest.raises(ValueError, match="'square'; the shapes are digon, triangle"):
        sp.shape("square")


@pytest.mark.parametrize(
    "change",
    [{"steps": 2.5}, {"n_hidden": 1.5}, {"restarts": True}, {"probability": [[0.2]]}, {"batch_size": "8"}],
)
def test_what_is_of_another_type_is_named(change):
    arguments = {"probability": torch.full((1, 2), 0.2), "importance": torch.ones(1, 2), "n_hidden": 1, "steps": 2}
    with pytest.raises(TypeError, match=f"{next(iter(change))} must be a"):
        sp.train_toy_models(**(arguments | change))


def test_a_probability_with_a_gradient_is_read_as_numbers():
    plain = {"probability": torch.full((1, 2), 0.2), "importance": torch.ones(1, 2), "n_hidden": 1, "steps": 2}
    traced = plain | {name: plain[name].clone().requires_grad_() for name in ("probability", "importance")}
    assert torch.equal(sp.train_toy_models(**traced).loss, sp.train_toy_models(**plain).loss)


def test_a_step_of_ones_own_is_for_plain_models():
    how = {"steps": 2, "step": sp.training_step}
    for other in ({"relu_hidden": True}, {"tied": False}, {"target": torch.abs}):
        with pytest.raises(ValueError, match="step trains tied models"):
            sp.train_toy_models(torch.full((1, 2), 0.2), torch.ones(1, 2), 1, **how, **other)


def test_the_loss_of_a_given_shape_is_what_algebra_says():
    """Two features on one axis: dropped costs the variance, an opposite pair p²/6 each; no bias can help the pair."""
    p = torch.tensor([0.05, 0.3])
    often, equal = p[:, None].expand(2, 2), torch.ones(1, 2)
    how = {"batch_size": 100_000, "steps": 200}
    dropped = sp.loss_of_shape(torch.tensor([[1.0, 0.0]]), often, equal, **how)
    assert dropped.tolist() == pytest.approx((p / 3 - p**2 / 4).tolist(), rel=0.02)
    pair = sp.loss_of_shape(sp.shape("digon"), often, equal, **how)
    assert pair.tolist() == pytest.approx((p**2 / 3).tolist(), rel=0.1)
    weighted = sp.loss_of_shape(torch.tensor([[1.0, 0.0]]), often, torch.tensor([[1.0, 0.5]]), **how)
    assert weighted.tolist() == pytest.approx((dropped / 2).tolist(), rel=0.01)


def test_shapes_that_share_no_dimension_are_groups_of_their_own():
    W = torch.block_diag(sp.shape("pentagon"), sp.shape("digon"), sp.shape("square antiprism"))
    shuffled = torch.randperm(15, generator=torch.Generator().manual_seed(0))
    groups = sp.groups_of_features(W[:, shuffled], least=0.25)
    assert sorted(sorted(shuffled[group].tolist()) for group in groups) == [[*range(5)], [5, 6], [*range(7, 15)]]
    chain = torch.stack(
        [torch.tensor([0.0, 40, 80, 120]).deg2rad().cos(), torch.tensor([0.0, 40, 80, 120]).deg2rad().sin()]
    )
    assert sp.groups_of_features(chain, least=0.7) == [[0, 1, 2, 3]], "neighbours at 40° connect the ends"
    assert sp.groups_of_features(torch.eye(3), least=0.25) == [[0], [1], [2]]
    assert sp.groups_of_features(torch.zeros(2, 0), least=0.25) == []


def test_a_shape_is_known_however_it_is_turned_and_sorted():
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0))).Q
    for name in sp.SHAPES:
        W = sp.shape(name)
        turned = 1.1 * turn[:, : len(W)] @ W.flip(1)
        assert sp.distance_from_shape(turned, name) < 1e-5
    flat = torch.tensor([[1.0, 0.0, 0.0, -1.0], [0.0, 1.0, -1.0, 0.0]])
    assert sp.distance_from_shape(flat, "tetrahedron") == pytest.approx(2 / 3), "−1 where the tetrahedron has −1/3"
    with pytest.raises(ValueError, match="4 features, a pentagon has 5"):
        sp.distance_from_shape(flat, "pentagon")
