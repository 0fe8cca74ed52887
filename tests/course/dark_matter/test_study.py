"""What notebook 11 asks of an error, on errors that are known."""

import numpy as np
import pytest
import torch

from sae_tutorial import reference_sae, story_tokens
from sae_tutorial.activations.forward import read_hook
from sae_tutorial.course.dark_matter import drawings, study, viewer
from sae_tutorial.evaluation.dark_matter import ErrorParts, r_squared, reconstructed, split_error


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def read(model):
    sae, text = reference_sae("mutual_choice"), story_tokens(12_800, 256, seed=0)
    with read_hook(model, str(sae.hook_name)) as hook:
        x = torch.cat([hook(rows)[:, 1:].flatten(0, 1) for rows in text.split(10)])
    return sae, text, x


def test_measured_tells_what_the_parts_are(read, model):
    sae, text, x = read
    n = len(x) // 2
    found = study.measured(sae, model, x[:n], x[n : n + 2_000], text[:20])
    parts = split_error(sae, x[:n], x[n : n + 2_000])
    assert found["linear"] == pytest.approx(r_squared(parts.linear, parts.error), abs=1e-4)
    assert found["shuffled"] < 0.05 < found["linear"]
    assert found["nonlinear"] == pytest.approx(study.share(parts.nonlinear, parts.x), abs=1e-4)
    assert found["pursuit"]["fvu"] < found["pursuit"]["own fvu"] == pytest.approx(found["fvu"], abs=1e-4)
    rises = study.increases(found)
    assert rises["with linear"] < rises["reconstruction"] and rises["with nonlinear"] < rises["reconstruction"]
    assert len(found["clean"]) == 20 and sum(found["predictions"]) == 20 * 254


def test_a_search_that_finds_what_the_encoder_finds_changes_nothing(read, monkeypatch):
    """Few tokens to fit on, and many: a map of few finds less, whoever made the error."""
    sae, _, x = read
    monkeypatch.setattr(study, "pursued", reconstructed)
    for n in (400, 4_000):
        found = study.searched(sae, x[:n], x[-2_000:])
        for name in ("fvu", "linear", "nonlinear"):
            assert found[name] == pytest.approx(found[f"own {name}"], rel=1e-3), (n, name)


def test_pursuit_keeps_the_number_of_features(read):
    sae, _, x = read
    codes = sae.encode(x[:50])
    better = study.pursued(sae, x[:50])
    assert (x[:50] - better).square().sum() < (x[:50] - sae.decode(codes)).square().sum()


def test_components_with_a_planted_error():
    """The error is a tenth of the small axes, and noise along the large ones."""
    scale = torch.tensor([8.0, 4.0, 1.0, 0.5])
    x_fit, x = normal(4_000, 4) * scale, normal(4_000, 4, 1) * scale
    error = torch.cat([normal(4_000, 2, 2), 0.1 * x[:, 2:]], dim=1)
    A = torch.diag(torch.tensor([0.0, 0.0, 0.1, 0.1]))
    found = study.by_component(x_fit, ErrorParts(x, x - error, A), edges=(0, 2, 4))
    (large, of_large), (small, of_small) = found.values()
    assert list(found) == ["1 to 2", "3 to 4"]
    assert large == pytest.approx(2 / 80, rel=0.1) and small == pytest.approx(0.01, rel=0.1)
    assert abs(of_large) < 0.02 and of_small == pytest.approx(1, abs=0.02)


def test_the_hardest_tokens_are_found_where_they_are():
    tokens = torch.arange(12).view(3, 4)
    x = normal(9, 2)
    error = torch.full((9, 2), 0.01)
    error[4], error[8] = 5.0, 3.0  # row 1, position 2; row 2, position 3
    found = study.hardest(ErrorParts(x, x - error, torch.zeros(2, 2)), tokens, n=2)
    assert [(row, at) for row, at, _ in found] == [(1, 2), (2, 3)]


def test_a_token_that_decides_the_error_explains_it():
    token = torch.randint(5, (1_000,), generator=torch.Generator().manual_seed(0))
    assert study.by_token_identity(torch.tensor([1.0, 2, 4, 8, 16])[token], token) == pytest.approx(1, abs=1e-6)
    assert study.by_token_identity(normal(1_000, 1)[:, 0].abs(), token) < 0.02


def test_earlier_layers_and_ranks():
    x, y = normal(200, 3), normal(100, 3, 1)
    M = normal(3, 2, 2)
    assert study.from_earlier(x, y, x @ M, y @ M) == pytest.approx(1, abs=1e-4)
    assert study.rank_correlation(torch.tensor([1.0, 2, 3]), torch.tensor([2.0, 30, 400])) == pytest.approx(1)


def test_a_second_sae_learns_what_is_sparse():
    codes = torch.relu(normal(4_096, 16) - 1)
    data = codes @ torch.nn.functional.normalize(normal(16, 8, 3), dim=1)
    sae = study.second_sae(data[:3_000], d_sae=32, k=4, steps=60)
    assert study.fvu(data[3_000:], reconstructed(sae, data[3_000:])) < 0.5


def test_the_viewer_shows_the_parts_of_a_text(read, model):
    sae, _, x = read
    A = split_error(sae, x, x[:10]).A
    words, sizes = viewer.parts_of_text(sae, model, A, "She ran home.", spread=1.0)
    assert len(words) == len(sizes["error"]) == len(sizes["nonlinear"]) and (sizes["nonlinear"] > 0).all()
    sizes = {"error": [0.2, 0.3], "nonlinear": [0.1, 0.3]}
    page = viewer.as_html(["a<b", "c"], {name: np.array(values) for name, values in sizes.items()})
    assert "a&lt;b" in page and "20.0%" in page and "30.0%" in page
    assert viewer.as_html([], {}) == "<p>Type a text.</p>"
    assert viewer.error_viewer(sae, model, A, 1.0).children[1].value.count("<tr>") > 5


def test_the_drawing_says_what_it_shows():
    assert "nonlinear error" in drawings.three_parts().alt


def test_what_a_matrix_must_know_by_arithmetic():
    """x̂ and an error that are drawn apart: the error is a quarter of one axis and a twentieth of the other."""
    hat, error = normal(20_000, 2) * torch.tensor([3.0, 1.0]), normal(20_000, 2, 1) * torch.tensor([0.7, 0.58])
    x_fit, x = (hat + error)[:10_000], (hat + error)[10_000:]
    parts = split_error_of(x_fit, error[:10_000], x, error[10_000:])
    assert study.by_arithmetic(x_fit, parts) == pytest.approx(r_squared(parts.linear, parts.error), abs=0.02)
    assert 0.1 < study.by_arithmetic(x_fit, parts) < 0.2


def split_error_of(x_fit, error_fit, x, error):
    return ErrorParts(x, x - error, study.linear_map(x_fit, error_fit))


def test_rows_of_one_cell_are_averaged_over_seeds():
    rows = [{"rule": "a", "seed": seed, "fvu": value} for seed, value in ((0, 1.0), (1, 3.0))] + [{"rule": "b"}]
    found = study.over_seeds(rows, lambda row: row["fvu"], rule="a")
    assert (found.mean, found.n) == (2.0, 2)
    with pytest.raises(ValueError, match="empty"):
        study.over_seeds(rows, lambda row: row["fvu"], rule="c")


def test_widths_come_in_order():
    rows = [{"width": width, "fvu": float(width)} for width in (16, 4, 16)]
    assert study.by_width(rows, lambda row: row["fvu"]) == {4: 4.0, 16: 16.0}


def test_errors_of_other_tokens_are_as_linear_as_by_arithmetic():
    """Noise that is added to x̂ is predicted from the sum, to the share that it has of it."""
    hat, error = normal(8_000, 4), 0.5 * normal(8_000, 4, 1)
    halves = [ErrorParts(hat[i] + error[i], hat[i], torch.zeros(4, 4)) for i in (slice(4_000), slice(4_000, None))]
    (x_fit, e_fit), (x, e) = map(study.error_of_others, halves)
    assert torch.equal(e.sort(dim=0).values, halves[1].error.sort(dim=0).values) and not torch.equal(e, halves[1].error)
    assert r_squared(x @ study.linear_map(x_fit, e_fit), e) == pytest.approx(0.25 / 1.25, abs=0.03)


def test_white_noise_is_as_long_as_the_errors_and_alike_in_all_directions():
    hat, error = normal(8_000, 4), 0.5 * normal(8_000, 4, 1) * torch.tensor([2.0, 0.0, 0.0, 0.0])
    noisy, noise = study.white_noise(ErrorParts(hat + error, hat, torch.zeros(4, 4)))
    assert torch.allclose(noisy - noise, hat, atol=1e-5)
    each = noise.square().mean(0)
    assert float(each.sum()) == pytest.approx(float(error.square().sum(1).mean()), rel=0.03)
    assert float(each.max() / each.min()) < 1.1


def test_random_directions_leave_something():
    x = normal(3_000, 16)
    few, many = (study.covariant_directions_fvu(x, x, 64, k, tokens=200) for k in (1, 8))
    assert 0 < many < few < 1


def test_the_best_strengths_change_no_features(read):
    sae, _, x = read
    some = x[:100]
    best = study.with_best_strengths(sae, some)
    assert study.fvu(some, best) < study.fvu(some, reconstructed(sae, some))
    few = sae.encode(some).to_dense()[0].nonzero().flatten()
    written = (sae.normalise(best[:1]) - sae.b_dec)[0]
    strengths = torch.linalg.lstsq(sae.W_dec[few].T, written[:, None]).solution.flatten()
    assert (sae.W_dec[few].T @ strengths - written).norm() < 1e-3 * written.norm() and strengths.min() > -1e-3


def test_each_way_to_search_leaves_what_it_says(read):
    _, _, x = read
    saes = {"Token Choice": reference_sae("token_choice"), "Mutual Choice": reference_sae("mutual_choice")}
    found = study.by_search(saes, x, n=200)
    own, best, as_encoded, each, counts = found.values()
    assert all(as_encoded[name] < best[name] < own[name] for name in saes)
    assert counts["Mutual Choice"] == as_encoded["Mutual Choice"] and "searched, 32 features each" in found
    assert each["Token Choice"] == pytest.approx(as_encoded["Token Choice"], abs=1e-3)  # its encoder gives about 32


def test_a_token_is_inside_a_word_between_letters():
    texts = ["<s>", "Mr", "s", ".", " P", "rest", "--", "no"]
    tokens = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7], [7, 1, 4, 2]])
    inside = study.inside_words(tokens, lambda ids: [texts[i] for i in ids])
    assert inside.tolist() == [[False, True, False], [True, False, False], [True, False, True]]


def test_encoder_and_search_are_read_from_one_cell():
    spliced = {"reconstruction": [3.0, 5.0], "pursuit": [2.0, 4.0]}
    row = {"width": 4, "clean": [1.0, 2.0], "predictions": [5, 5], "spliced": spliced}
    row["pursuit"] = {"own fvu": 0.4, "fvu": 0.2, "own nonlinear": 0.3, "nonlinear": 0.1}
    found = study.encoder_and_search([row, row | {"width": 16, "pursuit": {}}], width=4)
    assert found["left out"] == (0.4, 0.2) and found["nonlinear error"] == (0.3, 0.1)
    assert found["rise in loss"] == pytest.approx((0.5, 0.3))
