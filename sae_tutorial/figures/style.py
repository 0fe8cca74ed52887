"""The look of every figure: colours that colour-blind readers can tell apart, and a theme for light and dark pages."""

from __future__ import annotations

import sys

import plotly.graph_objects as go
import plotly.io as pio

from sae_tutorial.figures.text import wrap

# Okabe and Ito's palette, yellow last because it is faint on white. Source: Okabe & Ito 2008, jfly.uni-koeln.de/color
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C8C8C", "#F0E442"]
SEQUENTIAL = "Cividis"  # one direction, made for colour-blind readers
DIVERGING = [[0.0, "#0072B2"], [0.5, "#E3E3E3"], [1.0, "#D55E00"]]  # blue, light grey, vermilion; centre it on zero
CLEAR = [
    DIVERGING[0],
    [0.5, "rgba(128, 128, 128, 0.12)"],
    DIVERGING[2],
]  # the same without numbers in it: zero is paper

# Pictures lie on white and on JupyterLab's dark #111111. No single colour has a contrast of 4.5:1 to both; this grey
# has most, 4.3:1 to either. In JupyterLab itself `PAGE` gives text drawn in it the colour of the prose around.
TEXT = "#797979"
GRID = "rgba(128, 128, 128, 0.25)"
WIDTH, HEIGHT = 600, 380  # JupyterLab leaves 605 px in a window of 800 without its side bar

# Where a notebook's column is narrower than WIDTH a figure is drawn smaller, as a picture would be: titles keep their
# lines, and plotly finds what the mouse points at, because it knows of a `transform` on its own element (and of no
# other). tan(atan2(a, b)) is a / b: CSS divides no lengths. A transformed element still takes its full height, so most
# of what it leaves is taken back: 240 px is as low as our figures are. Widgets of an earlier kernel say what they need,
# once, instead of showing a broken link at each of their parts. JupyterLab takes arrow keys and letters from a widget's
# menu for its own commands ("the cell below", "cut"): there, keys stay with the menu.
PAGE = f"""<style>
.jp-RenderedPlotly text[style*="fill: rgb{tuple(bytes.fromhex(TEXT[1:]))}"] {{
  fill: var(--jp-content-font-color1, {TEXT}) !important;
}}
.jp-OutputArea-child:has(> .jp-RenderedPlotly) {{
  container-type: inline-size;
  --prompt: var(--jp-cell-prompt-width);
}}
@media (width <= 760px) {{
  .jp-OutputArea-child:has(> .jp-RenderedPlotly) {{ --prompt: 0px; }}
}}
.jp-OutputArea-child > .jp-RenderedPlotly {{
  --fit: min(1, tan(atan2(100cqw - var(--prompt), {WIDTH}px)));
  flex: 0 0 auto;
  width: {WIDTH}px;
  overflow: visible;
  transform: scale(var(--fit));
  transform-origin: 0 0;
  margin-bottom: calc(240px * (var(--fit) - 1));
}}
.jupyter-widgets-disconnected::before {{ content: none !important; }}
.jupyter-widgets-disconnected:not(.jupyter-widgets-disconnected *)::after {{
  content: "Run this cell to use the controls.";
  font-style: italic;
  margin: 4px;
}}
</style>
<script>
if (!window.saeTutorialMenus) {{
  window.saeTutorialMenus = true;
  window.addEventListener("keydown", event => {{
    const own = event.target.matches?.(".jupyter-widgets select") && !event.ctrlKey && !event.metaKey;
    if (own && !["Enter", "Escape", "Tab"].includes(event.key)) event.stopPropagation();
  }}, true);
}}
</script>"""

FONT = "Arial, Helvetica, Liberation Sans, sans-serif"  # of equal widths, so that `wrap` is right on every machine
TITLE, LINE = 16, 21  # the size of a title's letters, and the height of its lines, px
EDGE, TOOLS = 10, 34  # px left of a title, and right of it for plotly's two buttons
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
        "title": {"standoff": 8, "font": {"size": 14}},
    }
    title = {"x": 0, "xref": "container", "yref": "container", "yanchor": "top", "pad": {"l": EDGE}}
    bar = {"outlinewidth": 0, "tickcolor": TEXT, "thickness": 12, "title": {"side": "right", "font": {"size": 13}}}
    return go.layout.Template(
        layout={
            "paper_bgcolor": "rgba(0, 0, 0, 0)",
            "plot_bgcolor": "rgba(0, 0, 0, 0)",
            "font": {"color": TEXT, "size": 13, "family": FONT},
            "title": {**title, "font": {"size": TITLE}},
            "colorway": PALETTE,
            "colorscale": {"sequential": SEQUENTIAL, "sequentialminus": SEQUENTIAL, "diverging": DIVERGING},
            "coloraxis": {"colorbar": bar},
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"font": {"size": 13}},
            "modebar": {
                "orientation": "v",
                "bgcolor": "rgba(0, 0, 0, 0)",
                "color": GRID,
                "activecolor": TEXT,
                "remove": ["zoom", "pan", "zoomin", "zoomout", "autoscale", "select", "lasso"],
            },
            "legend": {
                "bgcolor": "rgba(0, 0, 0, 0)",
                "orientation": "h",
                "x": 0.01,
                "xref": "container",
                "y": 0,
                "yref": "container",
                "yanchor": "bottom",
            },
            "sliderdefaults": {"bgcolor": GRID, "bordercolor": GRID, "activebgcolor": TEXT, "font": {"size": 11}},
            "updatemenudefaults": {"bgcolor": "rgba(0, 0, 0, 0)", "bordercolor": TEXT, "font": {"color": TEXT}},
            "margin": {"l": 60, "r": 20, "t": 60, "b": 50},
            "width": WIDTH,
            "height": HEIGHT,
        },
        data={kind: [{"colorbar": bar}] for kind in ("heatmap",)},
    )


pio.templates[NAME] = template()


def use(static: bool = False) -> None:
    """Make the theme the default and choose how a figure is stored in a notebook.

    Only the interactive form by default; with `static` a PNG of the same size is stored beside it (needs kaleido and a
    Chromium). Colab has a form of its own.
    """
    pio.templates.default = NAME
    interactive = "colab" if "google.colab" in sys.modules else "plotly_mimetype"
    pio.renderers.default = f"{interactive}+png" if static else interactive
    if interactive == "plotly_mimetype":
        pio.renderers[interactive].config = {"displaylogo": False, "showSendToCloud": False}
    if static:
        png = pio.renderers["png"]
        png.width, png.height, png.scale = (
            None,
            None,
            1,
        )  # what is seen first and what comes with the mouse are as large


def finish(fig: go.Figure, title: str, x: str = "", y: str = "", *, above: int = 0) -> go.Figure:
    """Give a figure its title (the finding), its axis labels (with units) and its size; returns the same figure.

    Works on the first pair of axes and leaves every other setting alone. A long title is broken into lines, and the
    figure grows by as much as they need. `above` is the room, in px, for what stands between title and axes.
    """
    width, height = fig.layout.width or WIDTH, fig.layout.height or HEIGHT
    lines = titled(title, width)
    more = LINE * lines.count("<br>")
    fig.update_layout(template=NAME, width=width, height=height + more, margin_t=46 + more + above)
    top = 23 if more else 12  # px; plotly sets several lines from the foot of the first, one line from its head
    fig.update_layout(title={"text": lines, "y": 1 - top / (height + more)})
    return fig.update_layout(xaxis_title_text=x, yaxis_title_text=y)


def titled(title: str, width: int = WIDTH) -> str:
    """A title in lines that fit into a figure of this width, plotly's buttons left free."""
    return wrap(title, width - EDGE - TOOLS, TITLE)
