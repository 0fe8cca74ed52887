import sys

import plotly.graph_objects as go
import plotly.io as pio

from sae_tutorial.figures import style


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


def test_long_titles_are_broken_into_lines():
    text = "features " * 20 + "end<br>own line"
    lines = style.wrap(text, width=40).split("<br>")
    assert max(len(line) for line in lines) <= 40
    assert lines[-1] == "own line"
    assert " ".join(lines) == text.replace("<br>", " ")


def test_theme_suits_light_and_dark_pages():
    layout = style.template().layout
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0, 0, 0, 0)"
    for background in (1.0, 0.0056):  # white, and the dark theme's #111111
        assert contrast(luminance(style.TEXT), background) >= 3.9


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
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: float, b: float) -> float:
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)
