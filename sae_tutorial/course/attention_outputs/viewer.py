"""A feature of attention outputs, its strongest matches, and the tokens that each was drawn from."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.activations.forward import read_hook
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.circuits.attention_features import Matches, direct_feature_attribution
from sae_tutorial.course.attention_outputs.study import EACH, SOURCES, DrawnOn, raises, source_kinds
from sae_tutorial.course.widgets import WIDE, with_picture
from sae_tutorial.figures import kinds
from sae_tutorial.figures.feature_report import Words, shaded, words_of

BEFORE, AFTER, SHOWN = 30, 3, 6  # tokens around the one that reads, and matches
LEAST = 0.03  # a token that brings less is not shaded
AT_END, MAX_TOKENS = 5, 40  # features of a typed text, and how much of it is read
OFTEN = 0.5  # a feature at more of its tokens says little about the last one


def source_viewer(model: Any, drawn: DrawnOn, feature: int | None = None) -> Any:
    """Choose a feature by its place in `drawn`, and see its strongest matches: the token that reads in bold, each
    earlier token on a ground as strong as what it brings. It opens with the feature that draws most on induction.

    Returns an ipywidgets box: a slider, and the page. Raises ValueError for a feature that `drawn` does not have.
    """
    import ipywidgets

    numbers = drawn.features.tolist()
    first = int(drawn.kinds["induction"].argmax()) if feature is None else _place(numbers, feature)
    slider = ipywidgets.IntSlider(first, 0, len(numbers) - 1, description="Place", continuous_update=False, layout=WIDE)
    page = ipywidgets.HTML()

    def show(change: Any = None) -> None:
        page.value = sources_html(model, drawn, slider.value)

    def still() -> go.Figure:
        return heads_by_kind(drawn, slider.value)

    slider.observe(show, names="value")
    show()
    return with_picture([slider, page], still)


def own_text_viewer(model: Any, sae: SparseAutoencoder, text: str) -> Any:
    """Type a text, and see the strongest features at its last token, each with the tokens that it was gathered from.

    Returns an ipywidgets box: the text, and the map of features and tokens.
    """
    import ipywidgets

    typed = ipywidgets.Text(text, description="Text", continuous_update=False, layout=WIDE)
    page = ipywidgets.HTML()

    def show(change: Any = None) -> None:
        page.value = own_text_html(model, sae, typed.value)

    typed.observe(show, names="value")
    show()
    return with_picture([typed, page], lambda: own_text_map(model, sae, typed.value))


def gathered_at_end(
    model: Any, sae: SparseAutoencoder, text: str
) -> tuple[Matches, Float[Tensor, "features heads sources"]]:
    """The AT_END strongest features at the last token of this text, strongest first, without those that are active at
    more than OFTEN of its tokens, and the shares of what raises each. The last MAX_TOKENS are read."""
    ids_S = model.to_tokens(text, truncate=False)[0]
    tokens_1S = torch.cat([ids_S[:1], ids_S[1:][-MAX_TOKENS:]])[None]  # a row begins with its start
    with read_hook(model, str(sae.hook_name)) as read:
        z_SHD = read(tokens_1S)[0]
    codes_SF = sae.encode(z_SHD.flatten(1)).to_dense()
    codes_F = codes_SF[-1] * ((codes_SF > 0).float().mean(0) <= OFTEN)
    features = codes_F.topk(min(AT_END, int((codes_F > 0).sum()))).indices
    rows, last = torch.zeros_like(features), torch.full_like(features, tokens_1S.shape[1] - 1)
    matches = Matches(tokens_1S, rows, last, features)
    return matches, raises(direct_feature_attribution(model, sae, matches))


def own_text_html(model: Any, sae: SparseAutoencoder, text: str) -> str:
    """A line for each of the strongest features at the end of this text: its number, its largest head, its sources."""
    matches, raises_FHS = gathered_at_end(model, sae, text)
    words, end, lines = words_of(model), int(matches.tokens.shape[1]), []
    for feature, raises_HS in zip(matches.features.tolist(), raises_FHS, strict=True):
        by_head = raises_HS.sum(1)
        about = f"Feature {feature}, {by_head.max():.0%} through head {int(by_head.argmax())}"
        passage = _shaded(matches.tokens[0], raises_HS.sum(0), 1, end, end - 1, words)
        lines.append(f'<div style="margin-bottom:6px">{about}<br>{passage}</div>')
    return "".join(lines) or "<p>No feature is active at the end of this text.</p>"


def own_text_map(model: Any, sae: SparseAutoencoder, text: str) -> go.Figure:
    """Features at the end of this text by tokens: the share that each token brings."""
    matches, raises_FHS = gathered_at_end(model, sae, text)
    raises_FS, names = raises_FHS.sum(1), ["start", *words_of(model)(matches.tokens[0, 1:].tolist())]
    columns, rows = [f"{n} {name.strip()}" for n, name in enumerate(names)], list(map(str, matches.features.tolist()))
    if rows:
        i, source = divmod(int(raises_FS.argmax()), raises_FS.shape[1])
        title = f"At the end, feature {rows[i]} has {raises_FS.max():.0%} from “{names[source].strip()}”"
    else:
        title, rows, raises_FS = "No feature is active at the end", [""], raises_FS.new_zeros(1, len(names))
    return kinds.heat({"": raises_FS}, title, "token", "feature", unit="share", columns=columns, rows=rows, form=".0%")


def sources_html(model: Any, drawn: DrawnOn, i: int) -> str:
    """Number, family and heads of the i-th feature of `drawn`, and its SHOWN strongest matches."""
    words = words_of(model)
    of_heads = table(drawn, i).sum(1)
    heads = ", ".join(f"head {h} {of_heads[h]:.0%}" for h in of_heads.argsort(descending=True)[:3].tolist())
    about = f"<b>Feature {int(drawn.features[i])}</b>, family “{drawn.families[i]}”: {heads}"
    lines = [f"<p>{about}</p>"]
    matches, found = drawn.of(i)
    for n, raises_S in enumerate(raises(found)[:SHOWN].sum(1)):
        passage = _passage(matches.tokens[matches.rows[n]], int(matches.positions[n]), raises_S, words)
        lines.append(f'<div style="margin-bottom:6px">{passage}</div>')
    return "".join(lines)


def heads_by_kind(drawn: DrawnOn, i: int) -> go.Figure:
    """What raises the i-th feature of `drawn`, by head and by kind of source."""
    shares_HK = table(drawn, i)
    head, kind = divmod(int(shares_HK.argmax()), shares_HK.shape[1])
    number, names = int(drawn.features[i]), list(SOURCES)
    title = f"Feature {number}: {shares_HK.max():.0%} of what raises it comes through head {head}, kind “{names[kind]}”"
    ticks: dict[str, Any] = {"columns": names, "rows": [f"head {h}" for h in range(len(shares_HK))]}
    return kinds.heat({"": shares_HK}, title, "kind of source position", "", unit="share", form=".0%", **ticks)


def table(drawn: DrawnOn, i: int) -> Float[Tensor, "heads kinds"]:
    """Shares by head and kind of source: the mean over the matches of the i-th feature."""
    matches, found = drawn.of(i)
    raises_NHS, of_kinds = raises(found), source_kinds(matches)
    return torch.stack([(raises_NHS * of_kinds[name][:, None]).sum(2).mean(0) for name in SOURCES], dim=1)


def _passage(row: Tensor, here: int, raises_S: Tensor, words: Words) -> str:
    """What the strongest source stands in, where that is further back, and the tokens before the one that reads."""
    source, start = int(raises_S.argmax()), max(1, here - BEFORE)
    parts = []
    if 0 < source < start:
        parts.append(_shaded(row, raises_S, max(1, source - 4), min(source + 2, start), -1, words) + " … ")
    parts.append(_shaded(row, raises_S, start, min(here + 1 + AFTER, len(row)), here, words))
    return "".join(parts)


def _shaded(row: Tensor, raises_S: Tensor, start: int, end: int, here: int, words: Words) -> str:
    shown_S = raises_S[start:end]
    shown_S = shown_S.where(shown_S >= LEAST, 0)
    return shaded(words(row[start:end].tolist()), shown_S.tolist(), here - start if here >= 0 else -1)


def _place(numbers: list[int], feature: int) -> int:
    if feature not in numbers:
        raise ValueError(
            f"feature={feature} has fewer than {EACH} rows with matches; drawn.features lists those that have"
        )
    return numbers.index(feature)
