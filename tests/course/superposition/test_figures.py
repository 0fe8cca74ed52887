"""Figures of the toy models: right data in the right place, labelled axes, nothing lost on the way."""

import pytest
import torch

from sae_tutorial.course.superposition import figures as plots
from sae_tutorial.course.superposition.toy_models import shape

PENTAGONS = torch.stack([shape("pentagon"), 0.5 * shape("pentagon")])
GRAM = PENTAGONS.mT @ PENTAGONS


def test_directions_draw_every_feature_of_every_model():
    fig = plots.directions(PENTAGONS, ["a", "b"], "title", columns=2)
    assert len(fig.data) == 10
    assert fig.data[1].x[1] == pytest.approx(float(PENTAGONS[0, 0, 1]))
    assert sum(bool(trace.showlegend) for trace in fig.data) == 5, "each feature once in the legend"


def test_each_step_of_the_slider_shows_one_model():
    fig = plots.directions_slider(PENTAGONS, GRAM, ["dense", "sparse"], "title")
    slider = fig.layout.sliders[0]
    shown = [step.args[0]["visible"] for step in slider.steps]
    assert [step.label for step in slider.steps] == ["dense", "sparse"]
    assert all(sum(flags) == 6 and len(flags) == len(fig.data) for flags in shown)
    assert not any(a and b for a, b in zip(*shown, strict=True))
    assert [bool(trace.visible) for trace in fig.data] == shown[slider.active], "the default is a step of the slider"


def test_dimensionality_cloud_keeps_what_is_represented():
    D = torch.tensor([[0.5, 0.5, 0.1], [0.4, 0.3, 0.2]])
    kept = torch.tensor([[True, True, False], [True, True, True]])
    fig = plots.dimensionality_cloud(torch.tensor([1.0, 10.0]), D, kept, {"1/2": 0.5}, "title")
    assert list(fig.data[0].y) == pytest.approx([0.5, 0.5, 0.2, 0.3, 0.4])
    assert "1/2" in [note.text for note in fig.layout.annotations]


@pytest.mark.parametrize(
    "fig",
    [
        plots.dimensions_per_feature(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.5]), "title"),
        plots.dimensionality_histogram(torch.tensor([0.5, 0.4]), {"1/2": 0.5}, "title"),
        plots.phase_diagram(torch.rand(2, 2), torch.tensor([0.1, 1]), torch.tensor([0.1, 1]), torch.ones(2), "title"),
        plots.matrices([torch.eye(2)] * 2, ["a", "b"], "title", x="feature", y="neuron", legend="weight", numbers=True),
        plots.matrices([torch.eye(2)], [""], "title", x="feature", y="p", legend="share", share=True),
        plots.directions_slider(PENTAGONS, GRAM, ["dense", "sparse"], "title"),
    ],
    ids=lambda fig: fig.data[0].type,
)
def test_titles_and_axis_labels(fig):
    assert fig.layout.title.text == "title"
    assert fig.layout.xaxis.title.text and fig.layout.yaxis.title.text


def test_gram_and_norms_has_a_map_and_bars_per_model():
    fig = plots.gram_and_norms(GRAM, torch.ones(2, 5), torch.rand(2, 5), ["a", "b"], "title")
    assert [trace.type for trace in fig.data] == ["heatmap", "bar"] * 2
