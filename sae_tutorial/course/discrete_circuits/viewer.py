"""What one head says on positive and on negative prompts, as codes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.circuits.discrete import SILENT
from sae_tutorial.course.discrete_circuits.tasks import Task
from sae_tutorial.course.widgets import with_picture
from sae_tutorial.figures import kinds
from sae_tutorial.figures.kinds import Curve
from sae_tutorial.figures.looks import BLUE, GREEN, ORANGE, Look

LAST = 60  # characters of a prompt that are shown


@dataclass(frozen=True)
class Coded:
    """A task's prompts and what each head says at their ends, positives first; what patching each head costs."""

    task: Task
    codes: Int[Tensor, "examples heads"]
    lost: Float[Tensor, " heads"]


def code_viewer(coded: Mapping[str, Coded], heads: Sequence[str]) -> Any:
    """Choose a task and a head, and see the code of its output on each prompt, in green where only positives have it.
    It opens with the head of the first task that matters most.

    Returns an ipywidgets box: two menus, and the page.
    """
    import ipywidgets

    first = next(iter(coded))
    task = ipywidgets.Dropdown(options=list(coded), description="Task")
    head = ipywidgets.Dropdown(options=list(heads), value=heads[int(coded[first].lost.argmax())], description="Head")
    page = ipywidgets.HTML()

    def show(change: Any = None) -> None:
        page.value = codes_html(coded[task.value], heads, head.value)

    def still() -> go.Figure:
        return counts(coded[task.value], heads, head.value)

    task.observe(show, names="value")
    head.observe(show, names="value")
    show()
    return with_picture([ipywidgets.HBox([task, head]), page], still)


def codes_html(of: Coded, heads: Sequence[str], head: str) -> str:
    """Each prompt's end and its code, positives left and negatives right; above, the score and what patching costs."""
    ours, theirs = said(of, heads, head)
    only = set(ours) - set(theirs)
    lost = float(of.lost[list(heads).index(head)])
    about = f"<p><b>Head {escape(head)}</b>: {len(only)} codes that only positives have; patched, it costs {lost:.0%}"
    sides = []
    for name, prompts, codes in (("positive", of.task.positive, ours), ("negative", of.task.negative, theirs)):
        rows = [_row(text, code, GREEN if code in only else BLUE) for text, code in zip(prompts.text, codes)]
        sides.append(f'<td style="vertical-align:top;text-align:left"><b>{name}</b>{"".join(rows)}</td>')
    return f"{about}</p><table><tr>{''.join(sides)}</tr></table>"


def counts(of: Coded, heads: Sequence[str], head: str) -> go.Figure:
    """How many positives and how many negatives have each code of a head."""
    both = [Counter(codes) for codes in said(of, heads, head)]
    keys = sorted({*both[0], *both[1]}, key=lambda code: (both[1][code], -both[0][code], code))
    names = ["none" if code == SILENT else str(code) for code in keys]
    colours = {"positive prompts": BLUE, "negative prompts": ORANGE}
    bars = {
        name: Curve(names, [one[code] for code in keys], look=Look(colour))
        for (name, colour), one in zip(colours.items(), both)
    }
    only = sum(code not in both[1] for code in both[0])
    title = f"Head {head}: {only} of its {len(keys)} codes come on positive prompts only"
    return kinds.bars(bars, title, "code: number of the strongest latent", "prompts").update_yaxes(dtick=1)


def said(of: Coded, heads: Sequence[str], head: str) -> tuple[list[int], list[int]]:
    """The head's codes on positive and on negative prompts. Raises ValueError for a head that is not there."""
    if head not in heads:
        raise ValueError(f"head={head!r} is none of {', '.join(heads)}")
    codes = of.codes[:, list(heads).index(head)].tolist()
    n = len(of.task.positive)
    return codes[:n], codes[n:]


def _row(text: str, code: int, colour: str) -> str:
    shown = "none" if code == SILENT else str(code)
    short = ("… " + text[-LAST:]) if len(text) > LAST else text
    chip = f'<span style="border:2px solid {colour};border-radius:3px;padding:0 4px">{shown}</span>'
    return f'<div style="margin:3px 12px 3px 0">{chip} {escape(short)}</div>'
