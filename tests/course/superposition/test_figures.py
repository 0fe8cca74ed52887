"""Figures of the toy models draw what they are given, where it belongs."""

import math

import pytest
import torch
from drawing import cells, drawn, plain, says_nothing_is_there, written

from sae_tutorial.course.superposition import figures as plots
from sae_tutorial.course.superposition.toy_models import shape

PENTAGONS = torch.stack([shape("pentagon"), 0.5 * shape("pentagon")])
GRAM = PENTAGONS.mT @ PENTAGONS


def test_directions_draw_every_feature_of_every_model():
    fig = plots.directions(PENTAGONS, ["a", "b"], "title", columns=2)
    assert len(fig.data) == 10 and written(fig) == ["a", "b"]
    assert drawn(fig)["0"] == ([0, float(PENTAGONS[0, 0, 0])], [0, float(PENTAGONS[0, 1, 0])])
    assert drawn(fig)["3 2"] == ([0, float(PENTAGONS[1, 0, 3])], [0, float(PENTAGONS[1, 1, 3])])
    assert sum(bool(trace.showlegend) for trace in fig.data) == 5, "each feature once in the legend"


def test_each_step_of_the_slider_shows_one_model():
    fig = plots.directions_slider(PENTAGONS, GRAM, ["dense", "sparse"], ["first", "second"])
    slider = fig.layout.sliders[0]
    shown = [step.args[0]["visible"] for step in slider.steps]
    assert [step.label for step in slider.steps] == ["dense", "sparse"]
    assert [step.args[1]["title.text"] for step in slider.steps] == ["first", "second"]
    assert fig.layout.title.text == "second", "the title of the step that is shown"
    assert all(sum(flags) == 6 and len(flags) == len(fig.data) for flags in shown)
    assert not any(a and b for a, b in zip(*shown, strict=True))
    assert [bool(trace.visible) for trace in fig.data] == shown[slider.active], "the default is a step of the slider"
    assert cells(fig, 1) == [[round(v, 4) for v in row] for row in GRAM[1].tolist()]
    assert drawn(fig)["2"] == ([0, float(PENTAGONS[0, 0, 2])], [0, float(PENTAGONS[0, 1, 2])])


def test_gram_and_norms_has_a_map_and_bars_per_model():
    norms, interference = torch.rand(2, 5), torch.rand(2, 5)
    fig = plots.gram_and_norms(GRAM, norms, interference, ["a", "b"], "title")
    assert [trace.type for trace in fig.data] == ["heatmap", "bar"] * 2
    assert cells(fig, 1) == [[round(v, 4) for v in row] for row in GRAM[1].tolist()]
    assert drawn(fig)["4"] == (pytest.approx(norms[1].tolist()), [0, 1, 2, 3, 4])
    assert plain(fig.data[3].marker.color) == pytest.approx(interference[1].tolist())
    assert [trace.xaxis for trace in fig.data] == ["x", "x3", "x2", "x4"], "maps above, bars below"


def test_dimensionality_cloud_keeps_what_is_represented():
    D = torch.tensor([[0.5, 0.5, 0.1], [0.4, 0.3, 0.2]])
    kept = torch.tensor([[True, True, False], [True, True, True]])
    fig = plots.dimensionality_cloud(torch.tensor([1.0, 0.1]), D, kept, torch.tensor([0.5, 0.3]), {"1/2": 0.5}, "title")
    x, y = drawn(fig)["one feature"]
    assert y == [0.5, 0.5, 0.4, 0.3, 0.2]
    assert x[:2] == pytest.approx([1, 1], rel=0.05) and x[2:] == pytest.approx([0.1] * 3, rel=0.05)
    assert drawn(fig)["average, m / ‖W‖²"] == ([1, 0.1], pytest.approx([0.5, 0.3]))
    left, right = fig.layout.xaxis.range
    assert left > right, "rarer features stand to the right"
    assert "1/2" in written(fig) and fig.layout.shapes[0].y0 == 0.5


def test_dots_of_one_model_show_no_trend_of_their_own():
    """They are spread at random: sorted values in a row would look like a slope."""
    D = torch.linspace(0, 1, 400)[None]
    x, y = drawn(plots.dimensionality_cloud(torch.ones(1), D, D > -1, torch.ones(1), {}, "title"))["one feature"]
    assert abs(torch.corrcoef(torch.tensor([x, y]))[0, 1]) < 0.2


def test_the_histogram_counts_in_hundredths():
    fig = plots.dimensionality_histogram(torch.tensor([0.502, 0.508, 0.413]), {"1/2": 0.5}, "title")
    ((x, y),) = drawn(fig).values()
    assert {round(at, 3): count for at, count in zip(x, y) if count} == {0.415: 1, 0.505: 2}
    assert fig.layout.shapes[0].x0 == 0.5


def test_fractions_that_are_close_have_their_names_at_two_heights():
    fig = plots.dimensionality_histogram(torch.rand(9), {"2/5": 0.4, "3/8": 0.375, "1/3": 1 / 3}, "title")
    assert {note.text: note.yshift for note in fig.layout.annotations} == {"1/3": 0, "3/8": 14, "2/5": 0}


def test_the_phase_diagram_has_importance_across_and_probability_up():
    share = torch.tensor([[0.0, 0.5], [1.0, 0.25]])
    boundary = torch.tensor([0.5, 0.75])
    fig = plots.phase_diagram(share, torch.tensor([0.1, 1]), torch.tensor([0.25, 4]), boundary, "title")
    assert cells(fig) == [[0, 0.5], [1, 0.25]]
    assert drawn(fig) == {
        "1": ([0.25, 4], pytest.approx([0.1, 1])),
        "closed form": ([0.25, 4], [0.5, 0.75]),
    }
    assert fig.layout.yaxis.autorange == "reversed"
    assert len(plots.phase_diagram(share, torch.ones(2), torch.ones(2), None, "t").data) == 1


def test_a_tie_of_equal_importances_has_no_colour():
    share = torch.tensor([[0.2, 0.2], [0.5, 0.5]])
    fig = plots.phase_diagram(share, torch.tensor([0.9, 0.1]), torch.tensor([1.0, 4.0]), None, "title")
    blank = [[math.isnan(value) for value in row] for row in fig.data[0].z.tolist()]
    assert blank == [[True, False], [False, False]], "equal importances, and no sharing"
    assert "tie" in written(fig)


def test_matrices_share_a_scale():
    panels = [torch.eye(2), torch.tensor([[0.0, -2.0], [0.0, 0.0]])]
    fig = plots.matrices(panels, ["a", "b"], "t", x="feature", y="neuron", legend="weight", numbers=True)
    assert cells(fig, 1) == [[0, -2], [0, 0]] and fig.data[1].text[0][1] == "-2.00" and fig.data[1].text[0][0] == "0.00"
    assert (fig.layout.coloraxis.cmin, fig.layout.coloraxis.cmax) == (-2, 2)
    fig = plots.matrices([torch.eye(2)], [""], "t", x="x", y="p", legend="share", y_ticks=["0.1", "1"], share=True)
    assert (fig.layout.coloraxis.cmin, fig.layout.coloraxis.cmax) == (0, 1) and plain(fig.data[0].y) == ["0.1", "1"]


def test_a_cloud_of_nothing_says_why():
    fig = plots.dimensionality_cloud(
        torch.ones(1), torch.ones(1, 3), torch.zeros(1, 3, dtype=torch.bool), torch.ones(1), {}, "t"
    )
    assert says_nothing_is_there(fig) and "represented" in written(fig)[0]
