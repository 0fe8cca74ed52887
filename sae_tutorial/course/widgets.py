"""Explorers made of ipywidgets. They draw plain HTML and SVG, so they work wherever ipywidgets do (JupyterLab, Colab).

A notebook always shows a figure beside a widget that needs no kernel.
"""

from __future__ import annotations

from functools import partial
from html import escape
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.circuits.heads import attention_patterns
from sae_tutorial.circuits.ioi import Sentences, counterfactual, logit_difference
from sae_tutorial.circuits.patching import activations, patch_positions
from sae_tutorial.circuits.prompts import end_logits, normalised
from sae_tutorial.course.ioi_circuit.names import own_sentence

MAX_TOKENS = 40  # a longer sentence would not be readable


def attention_viewer(model: Any, text: str = "Once upon a time there was a little girl named Lily.") -> Any:
    """Type a sentence, choose a layer and a head, and see where each token looks.

    Returns an ipywidgets box: the sentence, a row with the two sliders, and the picture.
    """
    import ipywidgets

    sentence = ipywidgets.Text(value=text, description="Sentence", continuous_update=False, layout={"width": "600px"})
    layer = ipywidgets.IntSlider(value=0, min=0, max=model.cfg.n_layers - 1, description="Layer")
    head = ipywidgets.IntSlider(value=0, min=0, max=model.cfg.n_heads - 1, description="Head")
    picture = ipywidgets.HTML()
    state: dict[str, Any] = {}

    def read(change: Any = None) -> None:
        ids = model.to_tokens(sentence.value)[:, :MAX_TOKENS]
        state["tokens"] = [model.tokenizer.decode([i]) for i in ids[0].tolist()]
        state["patterns"] = attention_patterns(model, ids)[:, 0]
        draw()

    def draw(change: Any = None) -> None:
        picture.value = pattern_svg(state["patterns"][layer.value, head.value], state["tokens"])

    sentence.observe(read, names="value")
    layer.observe(draw, names="value")
    head.observe(draw, names="value")
    read()
    return ipywidgets.VBox([sentence, ipywidgets.HBox([layer, head]), picture])


def pattern_svg(pattern: Float[Tensor, "positions positions"], tokens: list[str], cell: int = 18) -> str:
    """An attention pattern as SVG: rows take, columns are taken from; hover shows both tokens and the share.

    Raises ValueError if the pattern and the tokens disagree in length.
    """
    n = len(tokens)
    if tuple(pattern.shape) != (n, n):
        raise ValueError(f"pattern has shape {tuple(pattern.shape)}, but there are {n} tokens")
    names = [escape(token.replace("\n", "↵").strip() or "·") for token in tokens]
    left, top = 110, 110
    shapes = []
    for i, row in enumerate(torch.as_tensor(pattern).tolist()):
        y = top + i * cell
        shapes.append(f'<text x="{left - 6}" y="{y + 13}" text-anchor="end">{names[i]}</text>')
        for j, share in enumerate(row[: i + 1]):
            shapes.append(
                f'<rect x="{left + j * cell}" y="{y}" width="{cell - 1}" height="{cell - 1}" fill="#0072B2" '
                f'fill-opacity="{share:.2f}" stroke="#7F7F7F" stroke-opacity="0.25">'
                f"<title>{names[i]} takes {share:.0%} from {names[j]}</title></rect>"
            )
    for j, name in enumerate(names):
        x = left + j * cell + 12
        shapes.append(f'<text x="{x}" y="{top - 6}" transform="rotate(-60 {x} {top - 6})">{name}</text>')
    size = n * cell
    return (
        f'<svg width="{left + size + 60}" height="{top + size + 10}" font-family="sans-serif" font-size="12" '
        f'fill="#7F7F7F" role="img" aria-label="attention pattern">{"".join(shapes)}</svg>'
    )


PATCHED = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out")


def patching_viewer(
    model: Any,
    text: str = "When Mary and John went to the store, John gave a drink to",
    io: str = "Mary",
    giver: str = "John",
) -> Any:
    """Write a sentence with two names, and see where the answer can be put back.

    The corrupted run has the receiver as the giver. Each cell says how much of the logit difference comes back when
    one activation of your sentence is put into it: 0 nothing, 1 all.

    Returns an ipywidgets box: sentence, names and place, what the model says, the map. What is wrong with a sentence is
    said in place of the map.
    """
    import ipywidgets

    wide = {"width": "600px"}
    sentence = ipywidgets.Text(value=text, description="Sentence", continuous_update=False, layout=wide)
    right = ipywidgets.Text(value=io, description="Receiver", continuous_update=False)
    wrong = ipywidgets.Text(value=giver, description="Giver", continuous_update=False)
    part = ipywidgets.Dropdown(
        options=list(zip(("stream", "attention", "MLP"), PATCHED, strict=True)), description="Patch"
    )
    said, picture = ipywidgets.HTML(), ipywidgets.HTML()

    def draw(change: Any = None) -> None:
        picture.value = ""
        try:
            ours = own_sentence(model, sentence.value, right.value.strip(), wrong.value.strip())
            values, clean, corrupted = sentence_map(model, ours, part.value)
        except ValueError as error:
            said.value = f"<p>{escape(str(error))}</p>"
            return
        said.value = (
            f"<p>{escape(right.value)} above {escape(wrong.value)}: {clean:+.2f} logits; with {escape(right.value)} as "
            f"the giver {corrupted:+.2f}</p>"
        )
        tokens = [model.tokenizer.decode([i]) for i in ours.tokens[0].tolist()]
        picture.value = map_svg(values, tokens)

    for control in (sentence, right, wrong, part):
        control.observe(draw, names="value")
    draw()
    return ipywidgets.VBox([sentence, ipywidgets.HBox([right, wrong, part]), said, picture])


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


def map_svg(values: Float[Tensor, "layers positions"], tokens: list[str], cell: int = 30) -> str:
    """A map of layers (upwards) by tokens as SVG: blue below 0, vermilion above; hover shows the value.

    Raises ValueError if the map and the tokens disagree in length.
    """
    n_layers, width = values.shape
    if width != len(tokens):
        raise ValueError(f"values has {width} positions, but there are {len(tokens)} tokens")
    names = [escape(token.replace("\n", "↵").strip() or "·") for token in tokens]
    left, shapes = 70, []
    for layer, row in enumerate(values.tolist()):
        y = (n_layers - 1 - layer) * cell
        shapes.append(f'<text x="{left - 8}" y="{y + 19}" text-anchor="end">layer {layer}</text>')
        for j, value in enumerate(row):
            colour = "#D55E00" if value > 0 else "#0072B2"
            shapes.append(
                f'<rect x="{left + j * cell}" y="{y}" width="{cell - 1}" height="{cell - 1}" fill="{colour}" '
                f'fill-opacity="{min(abs(value), 1):.2f}" stroke="#7F7F7F" stroke-opacity="0.25">'
                f"<title>layer {layer}, {names[j]}: {value:+.2f}</title></rect>"
            )
    for j, name in enumerate(names):
        x, y = left + j * cell + 18, n_layers * cell + 12
        shapes.append(f'<text x="{x}" y="{y}" text-anchor="end" transform="rotate(-60 {x} {y})">{name}</text>')
    return (
        f'<svg width="{left + width * cell + 10}" height="{n_layers * cell + 100}" font-family="sans-serif" '
        f'font-size="12" fill="#7F7F7F" role="img" aria-label="patching map">{"".join(shapes)}</svg>'
    )
