"""Drawings of notebook 02 say in words what they show, and follow the model that they are given."""

import re

import pytest
import torch

from sae_tutorial.course.superposition import drawings
from sae_tutorial.course.superposition.toy_models import shape


@pytest.mark.parametrize(
    ("draw", "parts"),
    [
        (drawings.toy_model, ["(m, n)", "the same weights", "+ b, ReLU"]),
        (drawings.model_with_neurons, ["5 neurons", ">ReLU<"]),
        (drawings.model_that_computes, ["|x|", ">in<", ">out<"]),
    ],
)
def test_each_architecture_names_its_parts(draw, parts):
    drawing = draw()
    assert all(part in drawing.svg() for part in parts) and len(drawing.alt) > 80


@pytest.mark.parametrize("draw", [drawings.toy_model, drawings.model_with_neurons, drawings.model_that_computes])
def test_words_above_and_below_a_column_keep_clear_of_its_circles(draw):
    svg = draw().svg()
    circles = [(float(y), float(r)) for y, r in re.findall(r'<circle [^>]*?cy="([\d.]+)" r="([\d.]+)"', svg)]
    top, bottom = min(y - r for y, r in circles), max(y + r for y, r in circles)
    baselines = [float(y) for y in re.findall(r'<text [^>]*?y="([\d.]+)"', svg)]
    assert top - min(baselines) > 4  # the names of the columns stand on the uppermost baseline
    assert min(y for y in baselines if y > bottom) - 13 > bottom + 3, "letters of 13 px below the last circle"


@pytest.mark.parametrize("size", [0.3, 1.0, 1.3])
def test_meetings_show_a_panel_per_case_for_models_of_any_size(size):
    read = torch.tensor([1.25, 0.5, 0, 0, 0.125])
    cases = {"alone\nerror 0": ([0], read), "together\nerror 1": ([0, 2], 2 * read)}
    drawing = drawings.meetings(size * shape("pentagon"), cases)
    svg = drawing.svg()
    assert svg.count("<circle") == 10 and svg.count("<polygon") == 2, "a dot per feature and an arrow h per case"
    assert ">1.25<" in svg and ">2.50<" in svg and "error 1" in svg
    assert "alone: 1.25, 0.50, 0.00, 0.00, 0.12" in drawing.alt and drawing.alt.endswith(".")


def test_h_points_between_what_is_on():
    """Features 0 (up) and 1 of a pentagon: h lies between them, and is longer than either."""
    W = shape("pentagon")
    svg = drawings.meetings(W, {"near": ([0, 1], torch.ones(5))}).svg()
    x, y = (float(value) for value in svg.partition('<polygon points="')[2].partition(" ")[0].split(","))
    long = ((x - 310) ** 2 + (y - 128) ** 2) ** 0.5
    assert long == pytest.approx(59 * float((W[:, 0] + W[:, 1]).norm()), abs=0.2) and y < 128
