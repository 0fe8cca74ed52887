"""A question, and the features that are chosen to answer it."""

import pytest
import torch

from sae_tutorial import reference_sae, story_tokens
from sae_tutorial.course.judged_by_tasks import drawings, viewer
from sae_tutorial.evaluation.examples import Examples
from sae_tutorial.evaluation.feature_evidence import feature_evidence


@pytest.fixture(scope="module")
def sae():
    return reference_sae("token_choice")


@pytest.fixture(scope="module")
def planted(sae):
    """Activations that hold feature 7 where the property is true, and none of it elsewhere."""
    generator = torch.Generator().manual_seed(0)
    label, test = torch.arange(200) % 2 == 0, torch.arange(200) % 4 > 1
    noise = 0.05 * torch.randn(200, 256, generator=generator)
    with torch.no_grad():
        one = noise + label[:, None] * sae.W_dec[7] * 8 * sae.scale + sae.mean
    return Examples.of("planted <i>", one, label, test)


def test_a_planted_feature_is_the_first_choice(sae, planted):
    of = viewer.chosen(sae, planted)
    assert of.features[0] == 7 and len(of.features) == viewer.MOST and of.accuracy == 1
    codes = sae.encode(planted.x).to_dense().detach()
    train = ~planted.test
    assert of.means[0][0] == pytest.approx(float(codes[train & planted.label, 7].mean()), rel=1e-4)
    assert of.means[1][0] == pytest.approx(float(codes[train & ~planted.label, 7].mean()), abs=1e-4)
    html = viewer.chosen_html(of)
    assert "planted &lt;i&gt;" in html and "<td>7</td>" in html and "100%" in html
    assert viewer.means_of(of).data[0].y[0] == pytest.approx(of.means[0][0], rel=1e-3)


def test_another_question_shows_another_page(sae, planted, model):
    evidence = feature_evidence(sae, model, story_tokens(4000, 128), n_sampled=10, progress=False)
    other = Examples.of("turned round", planted.x, ~planted.label, planted.test)
    box = viewer.probe_viewer(sae, [planted, other], evidence, model)
    menu, page = box.children
    before = page.value
    assert "feature 7" in before.lower()
    menu.value = "turned round"
    assert page.value != before and "turned round" in page.value


def test_the_drawings_say_what_they_show():
    assert "the name should change, the place stay" in drawings.read_remove_swap().alt
    assert "holds the letter s as well" in drawings.absorbed().alt
