"""Explorers made of ipywidgets. They draw plain SVG, so they work wherever ipywidgets do (JupyterLab, Colab), in the
colours and with the orientation of the figures.

A notebook always shows a figure beside a widget that needs no kernel, and the widget itself is stored with a picture.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from typing import Any

import plotly.graph_objects as go
import torch
from jaxtyping import Float
from plotly.colors import sample_colorscale
from torch import Tensor

from sae_tutorial.circuits.heads import attention_patterns
from sae_tutorial.circuits.ioi import Sentences, counterfactual, logit_difference
from sae_tutorial.circuits.patching import Donor, Metric, Site, activations, patched_logits
from sae_tutorial.circuits.prompts import Prompts, end_logits, normalised
from sae_tutorial.course.ioi_circuit.names import own_sentence
from sae_tutorial.figures import circuits, kinds
from sae_tutorial.figures.heads import TAKEN, TAKES, habit
from sae_tutorial.figures.style import DIVERGING, SEQUENTIAL, TEXT
from sae_tutorial.figures.text import label, visible

MAX_TOKENS = 40  # a longer sentence would not be readable
WIDE = {"width": "600px"}
INK = f"var(--jp-content-font-color1, {TEXT})"  # JupyterLab's own; elsewhere the grey of the figures


def patch_positions(
    model: Any, prompt: Prompts, donor: Donor, hook_names: Sequence[str], metric: Metric
) -> Float[Tensor, "hooks positions"]:
    """`metric` with each position of one prompt up to END patched by itself, at each hook: one pass for all positions.

    `donor` is of one other prompt that is as long, and `metric` of logits of copies of this prompt, (END + 1, V).

    Raises ValueError for more than one prompt (see `patch_each`).
    """
    n = int(prompt.positions["END"][0]) + 1
    copies = prompt.repeated(n)
    everywhere = torch.arange(n, device=prompt.tokens.device)
    acts = {name: donor[name].expand(n, *donor[name].shape[1:]) for name in hook_names}
    sites = [Site(name, None, everywhere) for name in hook_names]
    return torch.stack([metric(patched_logits(model, copies, [site], acts)) for site in sites])


def attention_viewer(
    model: Any, text: str = "Once upon a time there was a little girl named Lily.", start: tuple[int, int] = (0, 0)
) -> Any:
    """Type a sentence, choose a layer and a head, and see where each token looks; it begins at head `start`.

    Returns an ipywidgets box: the sentence, a row with the two sliders, the picture, and a line that says what is not
    in it.
    """
    import ipywidgets

    sentence = ipywidgets.Text(value=text, description="Sentence", continuous_update=False, layout=WIDE)
    layer = ipywidgets.IntSlider(value=start[0], min=0, max=model.cfg.n_layers - 1, description="Layer")
    head = ipywidgets.IntSlider(value=start[1], min=0, max=model.cfg.n_heads - 1, description="Head")
    picture, note = ipywidgets.HTML(), ipywidgets.HTML()
    state: dict[str, Any] = {}

    def read(change: Any = None) -> None:
        ids = model.to_tokens(sentence.value, truncate=False)
        cut = f"The first {MAX_TOKENS} of {ids.shape[1]} tokens; more would not be readable."
        note.value = f"<p>{cut}</p>" if ids.shape[1] > MAX_TOKENS else ""
        ids = ids[:, :MAX_TOKENS]
        bos = model.tokenizer.bos_token_id
        state["tokens"] = ["BOS" if i == bos else model.tokenizer.decode([i]) for i in ids[0].tolist()]
        state["patterns"] = attention_patterns(model, ids)[:, 0]
        draw()

    def draw(change: Any = None) -> None:
        picture.value = pattern_svg(state["patterns"][layer.value, head.value], state["tokens"])

    def still() -> go.Figure:
        pattern, tokens = state["patterns"][layer.value, head.value], state["tokens"]
        names = [f"{i} {label(token)}" for i, token in enumerate(tokens)]
        title = f"Layer {layer.value} head {head.value}: {habit(pattern, tokens)}"
        ticks: dict[str, Any] = {"columns": names, "rows": names, "cell": 18}
        return kinds.heat({"": pattern}, title, TAKEN, TAKES, unit="attention", limit=1, form=".0%", **ticks)

    sentence.observe(read, names="value")
    layer.observe(draw, names="value")
    head.observe(draw, names="value")
    read()
    return with_picture([sentence, ipywidgets.HBox([layer, head]), picture, note], still)


def pattern_svg(pattern: Float[Tensor, "positions positions"], tokens: Sequence[str]) -> str:
    """An attention pattern as SVG: rows take, columns are taken from; hover shows both tokens and the share.

    Raises ValueError if the pattern and the tokens disagree in length.
    """
    names = list(map(visible, tokens))
    told = "{row} takes {value:.0%} from {column}".format
    return _map_svg(pattern, names, names, SEQUENTIAL, (0, 1), told, cell=18)


PATCHED = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out")


def patching_viewer(model: Any, text: str = "When Mary and John went to the store, John gave a drink to") -> Any:
    """Write a sentence with two names, and see where the answer can be put back.

    The names are found in the sentence: the giver comes twice, the receiver once. The corrupted run has the receiver as
    the giver. Each cell says how much of the logit difference comes back when one activation of your sentence is put
    into it: 0 nothing, 1 all.

    Returns an ipywidgets box: sentence, what is patched, what the model says, the map. What is wrong with a sentence
    is said in place of the map.
    """
    import ipywidgets

    sentence = ipywidgets.Text(value=text, description="Sentence", continuous_update=False, layout=WIDE)
    options = list(zip(("residual stream", "attention", "MLP"), PATCHED, strict=True))
    part = ipywidgets.Dropdown(options=options, description="Patch")
    said, picture = ipywidgets.HTML(), ipywidgets.HTML()
    state: dict[str, Any] = {}

    def draw(change: Any = None) -> None:
        picture.value = ""
        state.clear()
        try:
            io, giver = names_in(sentence.value)
            ours = own_sentence(model, sentence.value, io, giver)
            values, clean, corrupted = sentence_map(model, ours, part.value)
        except ValueError as error:
            said.value = f"<p>{escape(str(error))}</p>"
            return
        told = f"{io} above {giver}: {clean:+.2f} logits; with {io} as the giver {corrupted:+.2f}"
        tokens = [model.tokenizer.decode([i]) for i in ours.tokens[0].tolist()]
        state.update(title=told, values=values, columns=[f"{i} {label(token)}" for i, token in enumerate(tokens)])
        said.value = f"<p>{escape(told)}</p>"
        picture.value = map_svg(values, tokens)

    def still() -> go.Figure:
        if not state:
            return circuits.signed_maps({}, "No sentence to patch", [], "token", "share recovered")
        maps = {"": state["values"]}
        return circuits.signed_maps(maps, state["title"], state["columns"], "token", "share recovered", limit=1.0)

    sentence.observe(draw, names="value")
    part.observe(draw, names="value")
    draw()
    return with_picture([sentence, part, said, picture], still)


def names_in(text: str) -> tuple[str, str]:
    """(receiver, giver) of a sentence: the name that comes once, and the one that comes twice.

    A name is a word with a capital letter inside a sentence. Raises ValueError, in words for its writer, if there is
    not exactly one of each.
    """
    words = re.findall(r"(?<![.!?:”\"])(?<!^) ([A-Z][\w'-]*)", text)
    words = [word.removesuffix("'s") for word in words if word != "I"]
    counts = {word: words.count(word) for word in words}
    once, twice = ([word for word, found in counts.items() if found == n] for n in (1, 2))
    if len(once) == len(twice) == 1:
        return once[0], twice[0]
    found = ", ".join(f"{word} ({times}×)" for word, times in counts.items()) or "none"
    raise ValueError(f"The sentence needs one name that comes once and one that comes twice; it has: {found}.")


def sentence_map(
    model: Any, ours: Sentences, part: str = PATCHED[0]
) -> tuple[Float[Tensor, "layers positions"], float, float]:
    """For one sentence: the share of the logit difference that each patch brings back, and both runs' differences.

    The corrupted run is the "swapped" counterfactual. `part` is hook_resid_pre, hook_attn_out or hook_mlp_out.

    Raises ValueError if both runs answer alike.
    """
    other = counterfactual(model, ours, "swapped")
    hooks = [f"blocks.{layer}.{part}" for layer in range(model.cfg.n_layers)]
    donor, metric = activations(model, ours, hooks), partial(logit_difference, sentences=ours)
    clean, corrupted = (metric(end_logits(model, run)) for run in (ours, other))
    patched = patch_positions(model, other, donor, hooks, metric)
    return normalised(patched, clean, corrupted), float(clean), float(corrupted)


def map_svg(values: Float[Tensor, "layers positions"], tokens: Sequence[str]) -> str:
    """A map of layers (the first on top) by tokens as SVG: blue below 0, vermilion above; hover shows the value.

    Raises ValueError if the map and the tokens disagree in length.
    """
    rows = [f"layer {i}" for i in range(len(values))]
    told = "{row}, {column}: {value:+.2f}".format
    return _map_svg(values, rows, list(map(visible, tokens)), DIVERGING, (-1, 1), told, cell=30)


def _map_svg(
    values: Float[Tensor, "rows columns"],
    rows: Sequence[str],
    columns: Sequence[str],
    scale: Any,
    ends: tuple[float, float],
    told: Callable[..., str],
    cell: int,
) -> str:
    """Cells of colour, rows down from the top with their names left, the names of columns below."""
    if tuple(values.shape) != (len(rows), len(columns)):
        raise ValueError(f"values have shape {tuple(values.shape)}, but there are {len(columns)} tokens")
    low, high = ends
    shares = ((values.detach().cpu() - low) / (high - low)).nan_to_num(0.5).clamp(0, 1).flatten().tolist()
    colours = iter(sample_colorscale(scale, shares)) if shares else iter(())
    rows, columns = list(map(escape, rows)), list(map(escape, columns))
    left, foot, shapes = 110, len(rows) * cell + 12, []
    for i, line in enumerate(values.tolist()):
        shapes.append(f'<text x="{left - 8}" y="{(i + 0.5) * cell + 4}" text-anchor="end">{rows[i]}</text>')
        for j, value in enumerate(line):
            place = f'x="{left + j * cell}" y="{i * cell}" width="{cell - 1}" height="{cell - 1}"'
            about = told(row=rows[i], column=columns[j], value=value)
            shapes.append(f'<rect {place} fill="{next(colours)}"><title>{about}</title></rect>')
    for j, name in enumerate(columns):
        x = left + (j + 0.5) * cell + 4
        shapes.append(f'<text x="{x}" y="{foot}" text-anchor="end" transform="rotate(-60 {x} {foot})">{name}</text>')
    return (
        f'<svg width="{left + len(columns) * cell + 10}" height="{len(rows) * cell + 100}" font-family="sans-serif" '
        f'font-size="12" fill="{INK}" role="img" aria-label="map">{"".join(shapes)}</svg>'
    )


def with_picture(children: Sequence[Any], still: Callable[[], go.Figure]) -> Any:
    """A box of widgets that is stored with a picture of itself where figures are, for pages where no kernel runs.

    (A PNG: JupyterLab shows that of a notebook which it does not trust, and takes SVG out of HTML there.)
    """
    import ipywidgets

    class Explorer(ipywidgets.VBox):
        def _repr_mimebundle_(self, **kwargs: Any) -> Any:
            bundle = super()._repr_mimebundle_(**kwargs)
            if os.environ.get("SAE_TUTORIAL_STATIC") == "1":
                bundle["image/png"] = base64.b64encode(still().to_image(format="png", scale=1)).decode()
            return bundle

    return Explorer(children)
