"""What the features of an SAE are about: the best by a rule beside a fair draw, and an explorer.

    features = read_features(sae, model, tokens)     the model reads the text once; all else looks this up
    best_and_drawn(features)                         ten best and ten drawn at random, each with its evidence
    feature_browser(features)                        a widget: choose a feature, or type a text

`steering.py` writes text with a feature switched on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go
import torch

from sae_tutorial.course.features import Features, K, codes_of, likeness, read_features
from sae_tutorial.course.widgets import WIDE, with_picture
from sae_tutorial.evaluation.contexts import around
from sae_tutorial.figures.contexts import feature_contexts
from sae_tutorial.figures.text import quoted, visible

__all__ = ["best_and_drawn", "feature_browser", "read_features"]
GLOW = "rgba(230, 159, 0, {:.2f})"  # orange, seen through, so that it lies behind dark text and light text


@dataclass(frozen=True)
class Page:
    """What a notebook shows as HTML, and a terminal as text."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def best_and_drawn(features: Features, n: int = 10, seed: int = 0, least: float = 0.0) -> Page:
    """The n best features by RULE, and n drawn at random from those with K contexts: density, the words of these
    contexts, the tokens that the feature promotes most, and two contexts: the strongest, and that at another word.

    `least` leaves out features of a smaller density: broad ones are about a topic more often than about a word.
    """
    score = likeness(features).where(features.density >= least, torch.tensor(-1.0))
    fair = ((features.strongest >= 0).all(1) & (features.density >= least)).nonzero()[:, 0]
    drawn = fair[torch.randperm(len(fair), generator=torch.Generator().manual_seed(seed))[:n]].tolist()
    best = score.topk(min(n, int((score > -1).sum()))).indices.tolist()
    rows, lines = [], []
    for name, group in ((f"The {len(best)} best by our rule", best), (f"{len(drawn)} drawn at random", drawn)):
        rows.append(f'<tr><th colspan="4" style="text-align:left">{name}</th></tr>')
        lines.append(name)
        for feature in group:
            at = features.positions(feature, K)
            words = [word.strip() for word in features.words(features.tokens.flatten()[at])]
            other = next((i for i, word in enumerate(words) if word.lower() != words[0].lower()), 1)
            shown = "<br>".join(shaded_contexts(features, feature, [at[0], at[other]], width=6))
            about, list_ = f"{float(features.density[feature]):.2%}", ", ".join(dict.fromkeys(words))
            promotes = features.words(features.promoted(feature, 3)[0])
            cells = (f"<b>{feature}</b><br>{about}", escape(list_), as_code(promotes), shown)
            rows.append(f"<tr>{''.join(map(cell, cells))}</tr>")
            lines.append(f"{feature:>6} {about:>7}  {list_}")
    heads = ("feature, density", f"words in its {K} strongest contexts", "promotes", "two contexts")
    head = "".join(f'<th style="text-align:left">{name}</th>' for name in heads)
    html = f'<table style="font-size:12px"><tr>{head}</tr>{"".join(rows)}</table>'
    return Page(html, "\n".join(lines))


def shaded_contexts(features: Features, feature: int, at: Sequence[int], width: int = 9) -> list[str]:
    """The text around each position as HTML, each token shaded by how active the feature is there."""
    acts_NS, found = features.activations(feature) / features.largest[feature].clamp(min=1e-9), []
    for place in at:
        row, column = divmod(place, features.tokens.shape[1])
        part = slice(max(1, column - width), column + width + 1)
        ids = features.tokens[row, part].tolist()
        found.append(shaded(features.words(ids), acts_NS[row, part].tolist(), bold=column - part.start))
    return found


def shaded(tokens: Sequence[str], shares: Sequence[float], bold: int = -1) -> str:
    """Tokens as HTML, each on a ground as strong as its share, 0 to 1; hover says the share."""
    spans = []
    for i, (token, share) in enumerate(zip(tokens, shares, strict=True)):
        text = escape(token.replace("<|endoftext|>", " | ").replace("\n", " ").replace("\ufffd", ""))
        text = f"<b>{text}</b>" if i == bold else text
        style = f'style="background-color:{GLOW.format(0.15 + 0.6 * min(share, 1))}" title="{share:.0%}"'
        spans.append(f"<span {style}>{text}</span>" if share > 0 else text)
    return "".join(spans)


def as_code(tokens: Sequence[str]) -> str:
    return " ".join(f"<code>{escape(visible(token))}</code>" for token in tokens)


def cell(html: str) -> str:
    return f'<td style="text-align:left;vertical-align:top">{html}</td>'


# ---------------------------------------------------------------------- the explorer


def feature_browser(features: Features, feature: int | None = None, text: str = "She ran home quickly.") -> Any:
    """Choose a feature by its number or by its rank in density, and see its contexts; type a text, and see which
    features are active in it, and where. It opens with the best feature by RULE, unless you name one.

    Returns an ipywidgets box: number, rank, the feature's page, a line for text, what is active in it.
    """
    import ipywidgets

    order = features.density.argsort(descending=True, stable=True)
    rank_of = order.argsort() + 1
    first = int(likeness(features).argmax()) if feature is None else feature
    number = ipywidgets.BoundedIntText(value=first, min=0, max=len(order) - 1, description="Feature")
    rank = ipywidgets.IntSlider(min=1, max=len(order), description="Rank", continuous_update=False, layout=WIDE)
    sentence = ipywidgets.Text(value=text, description="Text", continuous_update=False, layout=WIDE)
    page, answer = ipywidgets.HTML(), ipywidgets.HTML()

    def choose(change: Any = None) -> None:
        rank.value = int(rank_of[number.value])
        page.value = feature_page(features, number.value, rank.value)

    def by_rank(change: Any) -> None:
        number.value = int(order[rank.value - 1])

    def read(change: Any = None) -> None:
        answer.value = active_in(features, sentence.value)

    def still() -> go.Figure:
        now = number.value
        raised = ", ".join(map(quoted, features.words(features.promoted(now, 3)[0])))
        title = f"Feature {now} is active at {float(features.density[now]):.2%} of positions and promotes {raised}"
        at, acts_NS = features.positions(now), features.activations(now)
        contexts = around(features.model.tokenizer, features.tokens, acts_NS, at)
        return feature_contexts({"": contexts}, title, "activation of the feature").update_layout(showlegend=False)

    number.observe(choose, names="value")
    rank.observe(by_rank, names="value")
    sentence.observe(read, names="value")
    choose()
    read()
    return with_picture([number, rank, page, sentence, answer], still)


def feature_page(features: Features, feature: int, rank: int) -> str:
    """One feature: how often it is active, what it promotes and suppresses, its ten strongest contexts."""
    raised, lowered = (as_code(features.words(some)) for some in features.promoted(feature))
    about = f"active at {float(features.density[feature]):.3%} of positions, rank {rank:,} of {len(features.density):,}"
    texts = [f"<div>{line}</div>" for line in shaded_contexts(features, feature, features.positions(feature))]
    texts = texts or ["Never active on this text."]
    return f"<p><b>Feature {feature}</b>: {about}<br>promotes {raised}<br>suppresses {lowered}</p>{''.join(texts)}"


def active_in(features: Features, text: str, n: int = 10, longest: int = 60) -> str:
    """The n features that are strongest in a text, as HTML: number, and the text shaded where each is active."""
    ids = features.model.to_tokens(text, truncate=False)[:, :longest].cpu()
    acts_SF = codes_of(features.sae, features.model, ids, features.hook_name).to_dense()
    top, tokens, rows = acts_SF.amax(0).topk(n), features.words(ids[0, 1:]), []
    for feature, largest in zip(top.indices.tolist(), top.values.tolist()):
        if largest > 0:
            text = shaded(tokens, (acts_SF[1:, feature] / largest).tolist())
            rows.append(f"<tr>{cell(f'<b>{feature}</b>')}{cell(text)}</tr>")
    return f"<table>{''.join(rows)}</table>" if rows else "<p>No feature is active.</p>"
