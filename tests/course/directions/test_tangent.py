import math

import pytest
import torch

from sae_tutorial.course.directions import tangent


def wheel_functions(sensors_D4):
    def rim(x):
        return sensors_D4.T @ x

    return {
        "u": lambda x: torch.atan2(rim(x)[1], rim(x)[0]),
        "v": lambda x: torch.atan2(rim(x)[3], rim(x)[2]),
        "cos u": lambda x: rim(x)[0],
        "product": lambda x: rim(x)[0] * rim(x)[2],
        "sensor": lambda x: x[0],
        "length": lambda x: x.norm(),
    }


def random_gradients(n=12, d=2, p=5, seed=0):
    return torch.randn(n, d, p, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_wheels_turn_as_their_angles_say():
    angles, points, sensors = tangent.two_wheels(50, noise=0.0)
    assert torch.allclose(sensors.T @ sensors, torch.eye(4), atol=1e-5)
    rims = points @ sensors
    assert torch.allclose(torch.atan2(rims[:, 1], rims[:, 0]), angles[:, 0], atol=1e-4)
    assert torch.allclose(torch.atan2(rims[:, 3], rims[:, 2]), angles[:, 1], atol=1e-4)
    assert torch.equal(tangent.two_wheels(50, seed=5)[2], sensors)  # other states, the same sensors


def test_tangent_frames_of_a_plane_and_of_the_wheels():
    generator = torch.Generator().manual_seed(0)
    plane = torch.linalg.qr(torch.randn(6, 2, generator=generator)).Q
    frames = tangent.tangent_frames(torch.randn(100, 2, generator=generator) @ plane.T, 2, 10)
    inside = torch.linalg.svdvals(frames.mT @ plane)
    assert torch.allclose(inside, torch.ones(100, 2), atol=1e-3)

    angles, points, sensors = tangent.two_wheels(1500, noise=0.0)
    at = [3, 50, 700]
    frames = tangent.tangent_frames(points, 2, 40, at)
    for row, (u, v) in enumerate(angles[at].tolist()):
        rims = torch.tensor([[-math.sin(u), math.cos(u), 0, 0], [0, 0, -math.sin(v), math.cos(v)]])
        assert torch.linalg.svdvals(rims @ sensors.T @ frames[row]).min() > 0.98
    with pytest.raises(ValueError, match="n_neighbours=2"):
        tangent.tangent_frames(points, 2, 2)


def test_gradients_are_scaled_outside_and_seen_inside():
    points = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    frames = torch.eye(3)[:, :2].expand(40, 3, 2)  # the surface is the plane z = 0
    X = tangent.tangent_gradients(points, frames, [lambda x: 5 * x[0], lambda x: x[1] + x[2], lambda x: x[2] ** 2])
    assert X.shape == (40, 2, 3)
    assert torch.allclose(X[:, :, 0], torch.tensor([1.0, 0]).expand(40, 2), atol=1e-5)
    assert torch.allclose(X[:, :, 1], torch.tensor([0, 0.5**0.5]).expand(40, 2), atol=1e-5)
    assert X[:, :, 2].abs().max() < 1e-6


def test_shrinking_switches_whole_functions_off():
    B = torch.zeros(3, 2, 2)
    B[:, 0], B[0, 1] = 1.0, torch.tensor([0.3, 0.4])
    short = tangent.shrink_groups(B, 0.5)
    assert short[:, 1].abs().max() == 0
    assert tangent.group_lengths(short)[0] == pytest.approx(6**0.5 - 0.5, abs=1e-5)


def test_group_lasso_of_orthonormal_columns_has_a_closed_form():
    X = torch.linalg.qr(random_gradients(10, 4, 4)).Q  # X_iᵀ X_i = I: B = shrunk X_iᵀ
    for penalty in (0.5, 2.0, 5.0):
        found = tangent.group_lasso(X, penalty, tolerance=1e-12)
        assert torch.allclose(found, tangent.shrink_groups(X.mT, penalty / 2), atol=1e-6)


@pytest.mark.parametrize("share", [0.7, 0.3, 0.05])
def test_group_lasso_meets_its_optimality_conditions(share):
    X = random_gradients()
    penalty = share * tangent.largest_penalty(X)
    B = tangent.group_lasso(X, penalty, steps=20_000, tolerance=1e-13)
    slope = 2 * X.mT @ (X @ B - torch.eye(2, dtype=X.dtype))  # of the loss
    lengths, pull = tangent.group_lengths(B), tangent.group_lengths(slope)
    for j in range(5):
        if lengths[j] > 0:
            assert torch.allclose(slope[:, j], -penalty * B[:, j] / lengths[j], atol=1e-4)
        else:
            assert pull[j] <= penalty + 1e-6


def test_the_largest_penalty_is_where_the_first_function_enters():
    X = random_gradients()
    largest = tangent.largest_penalty(X)
    assert tangent.group_lasso(X, 1.001 * largest).abs().max() == 0
    assert tangent.group_lasso(X, 0.98 * largest).abs().max() > 0


def test_a_path_equals_its_single_solutions():
    X = random_gradients()
    penalties = [share * tangent.largest_penalty(X) for share in (0.8, 0.4, 0.1)]
    path = tangent.group_lasso_path(X, penalties, steps=5000)
    for penalty, lengths in zip(penalties, path):
        alone = tangent.group_lengths(tangent.group_lasso(X, penalty, steps=5000))
        assert torch.allclose(lengths, alone, atol=1e-3)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_angles_of_the_wheels_are_found(seed):
    _, points, sensors = tangent.two_wheels(1500, seed=seed)
    at = list(range(60))
    functions = wheel_functions(sensors)
    X = tangent.tangent_gradients(points[at], tangent.tangent_frames(points, 2, 40, at), list(functions.values()))
    lengths = tangent.group_lengths(tangent.group_lasso(X, 0.1 * tangent.largest_penalty(X), steps=500))
    assert [list(functions)[j] for j in tangent.used(lengths)] == ["u", "v"]
