import math
import re
import sys

import notebook_rules
import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
import pytest
from plotly.colors import sample_colorscale

from sae_tutorial.figures import frame, style
from sae_tutorial.figures.text import width_of

WHITE, DARK = "#FFFFFF", "#111111"  # JupyterLab's pages


def test_finish_sets_title_and_axes_and_returns_the_figure():
    fig = go.Figure(go.Scatter(x=[1, 2], y=[3, 4]))
    assert style.finish(fig, "Loss falls", "step (batches)", "loss (nats)") is fig
    assert fig.layout.title.text == "Loss falls"
    assert fig.layout.xaxis.title.text == "step (batches)"
    assert fig.layout.yaxis.title.text == "loss (nats)"


def test_finish_keeps_what_was_set_before():
    fig = go.Figure(layout={"width": 400, "xaxis": {"type": "log"}, "title": {"subtitle": {"text": "kept"}}})
    style.finish(fig, "t", "x", "y")
    assert fig.layout.width == 400
    assert fig.layout.xaxis.type == "log"
    assert fig.layout.title.subtitle.text == "kept"


@pytest.mark.parametrize("width", [300, style.WIDTH])
def test_a_title_fits_the_figure_and_gets_the_room_it_needs(width):
    one, many = (
        style.finish(go.Figure(layout={"width": width}), text, above=30) for text in ("Short", "A long finding " * 12)
    )
    lines = many.layout.title.text.split("<br>")
    assert len(lines) > 1 and all(width_of(line, style.TITLE) <= width - style.EDGE - style.TOOLS for line in lines)
    more = style.LINE * (len(lines) - 1)
    assert many.layout.height - one.layout.height == many.layout.margin.t - one.layout.margin.t == more
    assert one.layout.margin.t >= 30 + style.LINE
    assert one.layout.height == style.HEIGHT


def test_figures_fit_into_a_narrow_column_and_are_as_large_live_as_still(monkeypatch):
    assert style.WIDTH <= 605
    fig = style.finish(go.Figure(), "title")
    assert fig.layout.width == style.WIDTH and fig.layout.height, "in the figure itself: plotly.js forgets a template's"
    style.use(static=True)
    png = pio.renderers["png"]
    assert (png.width, png.height, png.scale) == (None, None, 1)


def test_the_best_grey_for_both_pages_is_taken():
    def worst(colour):
        return min(contrast(colour, WHITE), contrast(colour, DARK))

    greys = ["#" + f"{level:02X}" * 3 for level in range(256)]
    assert worst(style.TEXT) == max(map(worst, greys)) >= 4.3, "there is none that reaches 4.5 on both"


def test_text_has_the_colour_of_the_page_in_jupyterlab():
    """Text is drawn in TEXT, as plotly writes it into the page; the page's rule turns that into its own colour."""
    red, green, blue = bytes.fromhex(style.TEXT[1:])
    assert f'text[style*="fill: rgb({red}, {green}, {blue})"]' in style.PAGE
    assert f"fill: var(--jp-content-font-color1, {style.TEXT}) !important" in style.PAGE
    for colour, page in (("#212121", WHITE), ("#FFFFFF", DARK)):  # what that is in JupyterLab's themes
        assert contrast(colour, page) >= 4.5
    layout = style.template().layout
    assert layout.font.color == style.TEXT and layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0, 0, 0, 0)"


def test_figures_are_drawn_smaller_where_a_column_is_narrow():
    """The page's rule divides by the width that figures have, and none is lower than it counts on."""
    fig = style.finish(go.Figure(), "a title")
    assert f"100cqw - var(--prompt), {fig.layout.width}px" in style.PAGE
    low = int(re.search(r"margin-bottom: calc\((\d+)px", style.PAGE)[1])
    assert low == notebook_rules.MIN_HEIGHT


def test_plotlys_buttons_are_few_and_beside_the_title():
    bar = style.template().layout.modebar
    assert bar.orientation == "v" and {"zoom", "pan", "select", "lasso", "autoscale"} <= set(bar.remove)
    assert style.TOOLS >= 28  # px that a column of buttons takes
    style.use()
    assert pio.renderers["plotly_mimetype"].config == {"displaylogo": False, "showSendToCloud": False}


def test_neighbouring_colours_differ():
    assert len(set(style.PALETTE)) == len(style.PALETTE) >= 7


def test_colab_gets_its_own_renderer(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", object())
    style.use()
    assert pio.renderers.default == "colab"
    monkeypatch.delitem(sys.modules, "google.colab")
    style.use()
    assert pio.renderers.default == "plotly_mimetype"


def luminance(colour: str) -> float:
    """Relative luminance of #RRGGBB. Source: WCAG 2.1."""
    parts = [value / 255 for value in bytes.fromhex(colour[1:])]
    r, g, b = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("share", np.linspace(0, 1, 101))
def test_ink_contrasts_with_every_colour_of_the_scale(share):
    (colour,) = sample_colorscale(style.SEQUENTIAL, [share], colortype="tuple")
    under = "#" + bytes(round(255 * part) for part in colour).hex()
    assert contrast(frame.ink(share), under) >= 4.5


def test_ink_beyond_the_scale_is_that_of_its_end_and_without_a_number_that_of_the_theme():
    assert frame.ink(-1) == frame.ink(0) and frame.ink(2) == frame.ink(1)
    assert frame.ink(math.nan) == style.TEXT
