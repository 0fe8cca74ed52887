"""Drawings of ideas: boxes, arrows, dots and words as SVG, in the colours of the page around them.

    drawing = Drawing(620, 120, "An SAE: encoder, code, decoder.")
    drawing.box(10, 40, 100, 40, "encoder", BLUE).arrow(110, 60, 170, 60, "z").box(170, 40, 100, 40, "W_dec", GREEN)

The origin is the upper left corner, numbers are px. A name as "W_enc" or "x̂_{t+1}" has a subscript, `\n` begins a new
line. In a notebook the last expression of a cell shows a drawing. Three forms are stored: SVG in the page, whose text
follows the theme; the same as an image, for pages that take SVG out (a notebook that JupyterLab does not trust yet);
and, under `make notebooks`, a PNG for pages that show neither.
"""

from __future__ import annotations

import base64
import math
import os
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from sae_tutorial.figures.style import FONT, TEXT
from sae_tutorial.figures.text import on, width_of

INK = f"var(--jp-content-font-color1, {TEXT})"  # JupyterLab's own colour of text; elsewhere the grey of the figures
SIZE, LEADING = 13, 1.3  # of letters, px, and of lines in letters
SUBSCRIPT = re.compile(r"_(?:\{([^}]*)\}|(\w+))")
COLUMN = 620  # px; a page with less room shows the whole picture smaller
HEAD = 8  # length of an arrow's head, px
# Where styles are taken out, the wrapper of the SVG stays hidden and the image is seen; elsewhere it is the other way.
SWITCH = "<style>.sae-drawing { display: block !important; } .sae-drawing + img { display: none; }</style>"


class Drawing:
    """An empty picture with a text that says what is in it; each method adds to it and returns it.

    Raises ValueError for a drawing that is wider than a notebook's column, has no alt text, or has a word or a shape
    that leaves it.
    """

    def __init__(self, width: float, height: float, alt: str) -> None:
        if not 0 < width <= COLUMN:
            raise ValueError(f"width is {width}; a notebook's column has room for {COLUMN} px")
        if not alt.strip():
            raise ValueError("alt is empty; say in a sentence what the drawing shows, for those who cannot see it")
        self.width, self.height, self.alt = width, height, alt.strip()
        self.shapes: list[str] = []

    # ------------------------------------------------------------------ shapes

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = SIZE,
        anchor: str = "middle",
        colour: str = INK,
        bold: bool = False,
    ) -> Drawing:
        """Words whose lines are centred on height `y`; `anchor` is what is at `x`: their start, middle or end."""
        lines, style = words.split("\n"), ' font-weight="bold"' * bold
        for i, one in enumerate(lines):
            wide = _width(one, size) * (1.06 if bold else 1)
            left = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor] * wide
            middle = y + (i - (len(lines) - 1) / 2) * LEADING * size
            self._inside(repr(one), (left, middle - size / 2), (left + wide, middle + size / 2))
            place = f'x="{x:g}" y="{middle + 0.35 * size:.1f}" text-anchor="{anchor}"'
            self.shapes.append(
                f'<text {place} font-size="{size:g}" fill="{colour}"{style}>{_lowered(one, size)}</text>'
            )
        return self

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        words: str = "",
        colour: str = "",
        *,
        size: float = SIZE,
        dashed: bool = False,
        round: float = 6,
    ) -> Drawing:
        """A box with words in its middle: filled with `colour`, else an outline."""
        self._inside("a box", (x, y), (x + width, y + height))
        for line in words.split("\n"):
            if _width(line, size) > width:
                raise ValueError(f"{line!r} is wider than its box of {width:g} px; break it with \\n or widen the box")
        paint = f'fill="{colour}"' if colour else f'fill="none" stroke="{INK}" stroke-width="1.3"'
        dash = ' stroke-dasharray="5 4"' * dashed
        place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{round:g}"'
        self.shapes.append(f"<rect {place} {paint}{dash}/>")
        if not words:
            return self
        return self.text(x + width / 2, y + height / 2, words, size=size, colour=on(colour) if colour else INK)

    def dot(self, x: float, y: float, radius: float = 4, colour: str = INK, *, open: bool = False) -> Drawing:
        """A disc, or with `open` a circle."""
        self._inside("a dot", (x - radius, y - radius), (x + radius, y + radius))
        paint = f'fill="none" stroke="{colour}" stroke-width="1.5"' if open else f'fill="{colour}"'
        self.shapes.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" {paint}/>')
        return self

    def line(
        self, points: Sequence[tuple[float, float]], colour: str = INK, *, width: float = 1.5, dashed: bool = False
    ) -> Drawing:
        """A line through points (x, y)."""
        for point in points:
            self._inside("a line", point, point)
        path, dash = " ".join(f"{x:g},{y:g}" for x, y in points), ' stroke-dasharray="5 4"' * dashed
        self.shapes.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dash}/>')
        return self

    def arrow(
        self,
        x1: float,
        y1: float,
        x2: float,
        y2: float,
        words: str = "",
        *,
        colour: str = INK,
        bend: float = 0,
        width: float = 1.5,
        dashed: bool = False,
        size: float = SIZE,
    ) -> Drawing:
        """An arrow to (x2, y2), its words beside its middle: above, or right of an upright one. `bend` moves that
        middle by so many px to the left, seen in the arrow's direction."""
        self._inside("an arrow", (min(x1, x2), min(y1, y2)), (max(x1, x2), max(y1, y2)))
        length = math.hypot(x2 - x1, y2 - y1)
        if length < HEAD:
            raise ValueError(
                f"an arrow from ({x1:g}, {y1:g}) to ({x2:g}, {y2:g}) has no room for its head of {HEAD} px"
            )
        left = ((y2 - y1) / length, -(x2 - x1) / length)
        control = ((x1 + x2) / 2 + 2 * bend * left[0], (y1 + y2) / 2 + 2 * bend * left[1])
        ahead = math.atan2(y2 - control[1], x2 - control[0])
        foot = (x2 - HEAD * math.cos(ahead), y2 - HEAD * math.sin(ahead))
        sides = [(x2 - HEAD * math.cos(ahead + turn), y2 - HEAD * math.sin(ahead + turn)) for turn in (-0.42, 0.42)]
        path = f"M{x1:g} {y1:g} Q{control[0]:.1f} {control[1]:.1f} {foot[0]:.1f} {foot[1]:.1f}"
        dash = ' stroke-dasharray="5 4"' * dashed
        self.shapes.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dash}/>')
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in [(x2, y2), *sides])
        self.shapes.append(f'<polygon points="{corners}" fill="{colour}"/>')
        if not words:
            return self
        middle, upright = ((x1 + x2) / 2 + bend * left[0], (y1 + y2) / 2 + bend * left[1]), abs(x2 - x1) < abs(y2 - y1)
        lines = words.count("\n") + 1
        if upright:
            return self.text(middle[0] + 7, middle[1], words, size=size, anchor="start", colour=colour)
        return self.text(middle[0], middle[1] - 5 - 0.6 * lines * size, words, size=size, colour=colour)

    def table(
        self,
        x: float,
        y: float,
        values: Sequence[Sequence[Any]],
        *,
        cell: tuple[float, float] = (34, 24),
        fills: Mapping[tuple[int, int], str] | None = None,
        size: float = SIZE,
    ) -> Drawing:
        """A table of small cells; `fills` colours some by (row, column)."""
        for i, row in enumerate(values):
            for j, value in enumerate(row):
                place, colour = (x + j * cell[0], y + i * cell[1]), (fills or {}).get((i, j), "")
                self.box(*place, cell[0] - 2, cell[1] - 2, str(value), colour, size=size, round=2)
        return self

    def _inside(self, what: str, *corners: tuple[float, float]) -> None:
        for x, y in corners:
            if not (-0.5 <= x <= self.width + 0.5 and -0.5 <= y <= self.height + 0.5):
                raise ValueError(
                    f"{what} reaches ({x:.0f}, {y:.0f}) and leaves the drawing of {self.width:g} × {self.height:g} px; "
                    "move it or enlarge the drawing"
                )

    # ------------------------------------------------------------------ what is shown

    def svg(self) -> str:
        """The drawing as one SVG element with its alt text."""
        size = f'width="{self.width:g}" height="{self.height:g}" viewBox="0 0 {self.width:g} {self.height:g}"'
        about = f'role="img" aria-label="{escape(self.alt)}"'
        style = f'font-family="{FONT}" style="max-width: 100%; height: auto;"'
        return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {about} {style}>{"".join(self.shapes)}</svg>'

    def _url(self) -> str:
        """The drawing as an image of its own, where the page's variables do not reach."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg().replace(INK, TEXT).encode()).decode()

    def png(self) -> bytes:
        """The drawing as a PNG of the same size, on transparent ground."""
        import plotly.graph_objects as go

        source = self._url()
        whole = {"x": 0, "y": 1, "sizex": 1, "sizey": 1, "xref": "paper", "yref": "paper", "sizing": "stretch"}
        fig = go.Figure(layout={"width": self.width, "height": self.height, "template": "none"})
        fig.update_layout(
            margin={side: 0 for side in "lrtb"}, paper_bgcolor="rgba(0,0,0,0)", images=[{"source": source} | whole]
        )
        fig.update_layout(plot_bgcolor="rgba(0,0,0,0)", xaxis_visible=False, yaxis_visible=False)
        return fig.to_image(format="png", scale=1)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, str], dict[str, Any]]:
        image = f'<img alt="{escape(self.alt)}" src="{self._url()}" style="max-width: 100%;">'
        html = f'{SWITCH}<div class="sae-drawing" style="display: none;">{self.svg()}</div>{image}'
        bundle, about = {"text/html": html, "text/plain": self.alt}, {}
        if os.environ.get("SAE_TUTORIAL_STATIC") == "1":
            bundle["image/png"] = base64.b64encode(self.png()).decode()
            about["image/png"] = {"alt": self.alt}
        return bundle, about


def _width(words: str, size: float) -> float:
    """About how many px wide, subscripts counted as if they were as large as the rest."""
    return width_of(SUBSCRIPT.sub(lambda m: m[1] or m[2], words), size)


def _lowered(words: str, size: float) -> str:
    """Words as SVG, subscripts small and low."""
    parts, end = [], 0
    for match in SUBSCRIPT.finditer(words):
        parts.append(escape(words[end : match.start()]))
        low = f'<tspan dy="{0.25 * size:.1f}" font-size="{0.78 * size:.1f}">{escape(match[1] or match[2])}</tspan>'
        parts.append(low + f'<tspan dy="{-0.25 * size:.1f}">\u200b</tspan>')
        end = match.end()
    return "".join([*parts, escape(words[end:])])
