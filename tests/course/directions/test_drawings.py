import re

import torch

from sae_tutorial.course.directions import drawings


def written(drawing):
    return [re.sub(r"<[^>]+>|\u200b", "", text) for text in re.findall(r"<text .*?</text>", drawing.svg())]


def test_the_ladder_names_five_representations_and_what_each_gains():
    drawing = drawings.ladder()
    for word in ("entangled", "curved", "crowded", "oblique", "aligned", "+ decomposable", "+ linear"):
        assert word in written(drawing)
    assert "half a circle" in drawing.alt


def test_pursuit_in_a_plane_says_the_coefficients_that_least_squares_gives():
    words = written(drawings.pursuit_plane())
    first = float(re.search(r"x̂ = ([\d.]+) d1$", "\n".join(words), flags=re.M)[1])
    a, b = map(float, re.search(r"x̂ = ([\d.]+) d1 \+ ([\d.]+) d3", "\n".join(words)).groups())
    d_1, d_3 = (torch.tensor([torch.cos(t), torch.sin(t)]) for t in torch.deg2rad(torch.tensor([8.0, 130.0])))
    x = a * d_1 + b * d_3
    assert abs(float(x @ d_1) - first) < 0.02  # one direction alone takes the projection
    assert a > first + 0.1, "the refit changes the first coefficient"


def test_readers_and_writers_are_drawn_where_they_are():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(60, 2, generator=generator) * (torch.rand(60, 2, generator=generator) < 0.3)
    eye = torch.eye(2)
    drawing = drawings.readers_and_writers(x, eye, eye, eye)
    assert [word for word in written(drawing) if word.startswith("ICA")] == ["ICA: writers", "ICA: readers"]
    assert drawing.svg().count("<circle") == 3 * 60
    assert (
        drawing.svg().count("<polygon") == 8
    )  # two arrows in each panel, and the writers once more beside the readers
