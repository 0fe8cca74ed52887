import base64
import re
from xml.etree import ElementTree

import pytest

from sae_tutorial.figures.drawings import COLUMN, INK, Drawing
from sae_tutorial.figures.style import PALETTE, TEXT


def small():
    return (
        Drawing(200, 100, "Two boxes & an arrow.").box(10, 10, 60, 30, "W_enc <x>", PALETTE[0]).arrow(70, 25, 120, 25)
    )


def test_it_is_one_svg_with_its_alt_text_and_the_colours_of_the_page():
    root = ElementTree.fromstring(small().svg())
    assert root.get("aria-label") == "Two boxes & an arrow." and root.get("role") == "img"
    assert [child.tag.partition("}")[2] for child in root] == ["rect", "text", "path", "polygon"]
    words = "".join(root[1].itertext())
    assert words.replace("\u200b", "") == "Wenc <x>"
    assert INK in small().svg()


def test_pages_that_take_svg_out_still_show_an_image_that_needs_no_variable(monkeypatch):
    monkeypatch.delenv("SAE_TUTORIAL_STATIC", raising=False)
    bundle, _ = small()._repr_mimebundle_()
    found = re.search(
        r'<img alt="Two boxes &amp; an arrow." src="data:image/svg.xml;base64,([^"]+)"', bundle["text/html"]
    )
    image = base64.b64decode(found[1]).decode() if found else ""
    assert "var(" not in image and TEXT in image
    assert bundle["text/plain"] == "Two boxes & an arrow." and "image/png" not in bundle


def test_what_leaves_the_drawing_is_refused_by_name():
    drawing = Drawing(200, 100, "A drawing.")
    with pytest.raises(ValueError, match="'far out' reaches .* leaves the drawing of 200 × 100"):
        drawing.text(190, 50, "far out")
    with pytest.raises(ValueError, match="a box reaches"):
        drawing.box(150, 10, 60, 20)
    with pytest.raises(ValueError, match="wider than its box"):
        drawing.box(10, 10, 30, 20, "a long sentence")
    with pytest.raises(ValueError, match="no room for its head"):
        drawing.arrow(10, 10, 12, 10)


@pytest.mark.parametrize(("width", "alt", "says"), [(COLUMN + 1, "x", "column"), (100, "  ", "alt is empty")])
def test_a_drawing_fits_a_column_and_is_described(width, alt, says):
    with pytest.raises(ValueError, match=says):
        Drawing(width, 50, alt)


def test_words_on_a_filled_box_are_readable_and_tables_are_filled_where_told():
    drawing = Drawing(200, 100, "A table.").table(5, 5, [[1, 2], [3, 4]], fills={(0, 1): "#0072B2"})
    fills = re.findall(r"<rect [^>]*fill=\"([^\"]+)\"", drawing.svg())
    assert fills == ["none", "#0072B2", "none", "none"]
    assert "#FFFFFF" in drawing.svg()


def test_an_arrow_ends_where_it_is_told_and_bends_to_its_left():
    tip = re.search(r'polygon points="([\d.]+),([\d.]+)', Drawing(200, 100, "x").arrow(10, 50, 110, 50, bend=20).svg())
    assert tip and (float(tip[1]), float(tip[2])) == (110, 50)
    control = re.search(r"Q([\d.]+) ([\d.]+)", Drawing(200, 100, "x").arrow(10, 50, 110, 50, bend=20).svg())
    assert control and float(control[2]) < 50


def test_under_make_notebooks_its_picture_is_stored_with_its_alt_text(monkeypatch):
    drawn = []
    monkeypatch.setenv("SAE_TUTORIAL_STATIC", "1")
    monkeypatch.setattr("plotly.graph_objects.Figure.to_image", lambda fig, **how: drawn.append(fig) or b"PNG")
    bundle, about = small()._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == b"PNG" and about == {"image/png": {"alt": "Two boxes & an arrow."}}
    assert (drawn[0].layout.width, drawn[0].layout.height) == (200, 100)
