"""What the features of an SAE are about: the best by a rule beside a fair draw, and an explorer.

    features = read_features(sae, model, tokens)     the model reads the text once; all else looks this up
    best_and_drawn(features)                         ten best and ten drawn at random, each with its evidence
    feature_browser(features)                        a widget: choose a feature, or type a text

`steering.py` writes text with a feature switched on.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go
import torch

from sae_tutorial.course.features import Features, K, codes_of, likeness, read_features
from sae_tutorial.course.widgets import WIDE, with_picture
from sae_tutorial.evaluation.contexts import around
from sae_tutorial.evaluation.feature_pages import feature_pages, read_passages
from sae_tutorial.figures.contexts import feature_contexts
from sae_tutorial.figures.feature_report import as_code, cell, page_html, passage_html, shaded
from sae_tutorial.figures.text import quoted

__all__ = ["best_and_drawn", "feature_browser", "read_features"]


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
    words_K = {
        f: [w.strip() for w in features.words(features.tokens.flatten()[places(features, f)])] for f in best + drawn
    }
    shown = {f: [places(features, f)[i] for i in (0, _other(words))] for f, words in words_K.items()}
    passages = read_passages(features.evidence, features.sae, features.model, shown, width=6)
    rows, lines = [], []
    for name, group in ((f"The {len(best)} best by our rule", best), (f"{len(drawn)} drawn at random", drawn)):
        rows.append(f'<tr><th colspan="4" style="text-align:left">{name}</th></tr>')
        lines.append(name)
        for feature in group:
            two = (passages[feature][place] for place in shown[feature])
            contexts = "<br>".join(passage_html(p, float(features.largest[feature]), features.words) for p in two)
            about, list_ = f"{float(features.density[feature]):.2%}", ", ".join(dict.fromkeys(words_K[feature]))
            promotes = features.words(features.promoted(feature, 3)[0])
            cells = (f"<b>{feature}</b><br>{about}", escape(list_), as_code(promotes), contexts)
            rows.append(f"<tr>{''.join(map(cell, cells))}</tr>")
            lines.append(f"{feature:>6} {about:>7}  {list_}")
    heads = ("feature, density", f"words in its {K} strongest contexts", "promotes", "two contexts")
    head = "".join(f'<th style="text-align:left">{name}</th>' for name in heads)
    html = f'<table style="font-size:12px"><tr>{head}</tr>{"".join(rows)}</table>'
    return Page(html, "\n".join(lines))


def places(features: Features, feature: int) -> list[int]:
    """Where a feature is strongest, in up to K rows of text."""
    return features.evidence.top(feature, K)


def _other(words: list[str]) -> int:
    """The first context at another word than the strongest."""
    return next((i for i, word in enumerate(words) if word.lower() != words[0].lower()), 1)


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
        [found] = feature_pages(features.evidence, features.sae, features.model, [number.value])
        page.value = page_html(found, features.words)

    def by_rank(change: Any) -> None:
        number.value = int(order[rank.value - 1])

    def read(change: Any = None) -> None:
        answer.value = active_in(features, sentence.value)

    def still() -> go.Figure:
        now = number.value
        raised = ", ".join(map(quoted, features.words(features.promoted(now, 3)[0])))
        title = f"Feature {now} is active at {float(features.density[now]):.2%} of positions and promotes {raised}"
        contexts = around(
            features.model.tokenizer, features.tokens, features.activations(now), places(features, now)[:10]
        )
        return feature_contexts({"": contexts}, title, "activation of the feature").update_layout(showlegend=False)

    number.observe(choose, names="value")
    rank.observe(by_rank, names="value")
    sentence.observe(read, names="value")
    choose()
    read()
    return with_picture([number, rank, page, sentence, answer], still)


def active_in(features: Features, text: str, n: int = 10, longest: int = 60) -> str:
    """The n features that are strongest in a text, as HTML: number, and the text shaded where each is active."""
    ids = features.model.to_tokens(text, truncate=False)[:, :longest].cpu()
    acts_SF = codes_of(features, ids).to_dense()
    top, tokens, rows = acts_SF.amax(0).topk(n), features.words(ids[0, 1:]), []
    for feature, largest in zip(top.indices.tolist(), top.values.tolist()):
        if largest > 0:
            text = shaded(tokens, (acts_SF[1:, feature] / largest).tolist())
            rows.append(f"<tr>{cell(f'<b>{feature}</b>')}{cell(text)}</tr>")
    return f"<table>{''.join(rows)}</table>" if rows else "<p>No feature is active.</p>"
