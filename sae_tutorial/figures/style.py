"""The look of every figure: colours that colour-blind readers can tell apart, and a theme for light and dark pages."""

from __future__ import annotations

import sys

import plotly.graph_objects as go
import plotly.io as pio

# Okabe and Ito's palette, yellow last because it is faint on white. Source: Okabe & Ito 2008, jfly.uni-koeln.de/color
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C8C8C", "#F0E442"]
SEQUENTIAL = "Cividis"  # one direction, made for colour-blind readers
DIVERGING = [[0.0, "#0072B2"], [0.5, "#EFEFEF"], [1.0, "#D55E00"]]  # blue, light grey, vermilion; centre it on zero

TEXT = "#7F7F7F"  # contrast of about 4:1 on white and 4.5:1 on JupyterLab's dark grey
GRID = "rgba(128, 128, 128, 0.25)"
WIDTH, HEIGHT = 700, 380
NAME = "sae_tutorial"


def template() -> go.layout.Template:
    """The plotly template "sae_tutorial": transparent paper, mid-grey text, quiet grid lines."""
    axis = {
        "gridcolor": GRID,
        "zerolinecolor": GRID,
        "linecolor": TEXT,
        "tickcolor": TEXT,
        "ticks": "outside",
        "automargin": True,
        "title": {"standoff": 8},
    }
    return go.layout.Template(
        layout={
            "paper_bgcolor": "rgba(0, 0, 0, 0)",
            "plot_bgcolor": "rgba(0, 0, 0, 0)",
            "font": {"color": TEXT, "size": 13},
            "title": {"x": 0.0, "xref": "paper", "xanchor": "left", "font": {"size": 16}},
            "colorway": PALETTE,
            "colorscale": {"sequential": SEQUENTIAL, "sequentialminus": SEQUENTIAL, "diverging": DIVERGING},
            "coloraxis": {"colorbar": {"outlinewidth": 0, "tickcolor": TEXT}},
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"font": {"size": 13}},
            "modebar": {"bgcolor": "rgba(0, 0, 0, 0)", "color": GRID, "activecolor": TEXT},
            "legend": {"bgcolor": "rgba(0, 0, 0, 0)"},
            "margin": {"l": 60, "r": 20, "t": 60, "b": 50},
            "width": WIDTH,
            "height": HEIGHT,
        }
    )


pio.templates[NAME] = template()


def use(static: bool = False) -> None:
    """Make the theme the default and choose how a figure is stored in a notebook.

    Only the interactive form by default; with `static` a PNG is stored beside it (needs kaleido and a Chromium).
    Colab has a form of its own.
    """
    pio.templates.default = NAME
    interactive = "colab" if "google.colab" in sys.modules else "plotly_mimetype"
    pio.renderers.default = f"{interactive}+png" if static else interactive
    if static:
        png = pio.renderers["png"]
        png.width, png.height, png.scale = None, None, 1.1  # the figure's own size, sharp enough to read


def finish(fig: go.Figure, title: str, x: str, y: str) -> go.Figure:
    """Give a figure its title (the finding) and its axis labels (with units); returns the same figure.

    Works on the first pair of axes and leaves every other setting alone. A long title is broken into lines, and
    gets the room that it needs unless the figure has set its own top margin.
    """
    lines = wrap(title)
    fig.update_layout(template=NAME, title_text=lines)
    if fig.layout.margin.t is None and lines.count("<br>") > 1:
        fig.update_layout(margin_t=20 + 22 * (lines.count("<br>") + 1))
    fig.update_layout(xaxis_title_text=x, yaxis_title_text=y)
    return fig


def wrap(text: str, width: int = 72) -> str:
    """Break `text` into lines of at most `width` characters, joined by plotly's `<br>`; existing breaks stay."""
    lines: list[str] = []
    for paragraph in text.split("<br>"):
        line = ""
        for word in paragraph.split():
            if line and len(line) + 1 + len(word) > width:
                lines.append(line)
                line = word
            else:
                line = f"{line} {word}".strip()
        lines.append(line)
    return "<br>".join(lines)
