"""What a sparse probe reads: a question, and the features that are chosen to answer it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from typing import Any

import plotly.graph_objects as go

from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.course.widgets import with_picture
from sae_tutorial.evaluation.examples import Examples, dictionary_of
from sae_tutorial.evaluation.feature_evidence import FeatureEvidence
from sae_tutorial.evaluation.feature_pages import feature_pages
from sae_tutorial.evaluation.probing import sparse_probing
from sae_tutorial.figures import kinds
from sae_tutorial.figures.feature_report import page_html, words_of
from sae_tutorial.figures.kinds import Curve
from sae_tutorial.figures.looks import BLUE, GREY, Look

MOST = 5  # features of a probe that are shown


@dataclass(frozen=True)
class Chosen:
    """The features that were chosen for a question, the first choice first; the mean code of each over examples with
    the property and over those without it; and the accuracy of a probe on them."""

    question: str
    features: list[int]
    means: tuple[list[float], list[float]]
    accuracy: float


def chosen(sae: SparseAutoencoder, examples: Examples, k: int = MOST) -> Chosen:
    """What a probe with k features takes, and gets right on test examples."""
    found = sparse_probing(sae, [examples], (k,))
    features = found.features[k][0].tolist()
    codes = examples.codes(dictionary_of(sae))[:, features]
    train = ~examples.test
    ours, theirs = (codes[train & which].mean(0).tolist() for which in (examples.label, ~examples.label))
    return Chosen(examples.name, features, (ours, theirs), found.accuracy(k))


def probe_viewer(sae: SparseAutoencoder, questions: Sequence[Examples], evidence: FeatureEvidence, model: Any) -> Any:
    """Choose a question, and see the features that a probe takes for it, with the page of the first.

    Returns an ipywidgets box: a menu, and the page.
    """
    import ipywidgets

    named = {one.name: one for one in questions}
    question = ipywidgets.Dropdown(options=list(named), description="Question")
    page = ipywidgets.HTML()

    @cache  # a probe takes half a second
    def html(asked: str) -> str:
        of = chosen(sae, named[asked])
        [first] = feature_pages(evidence, sae, model, of.features[:1])
        return chosen_html(of) + page_html(first, words_of(model))

    def show(change: Any = None) -> None:
        page.value = html(question.value)

    question.observe(show, names="value")
    show()
    return with_picture([question, page], lambda: means_of(chosen(sae, named[question.value])))


def means_of(of: Chosen) -> go.Figure:
    """The mean code of each chosen feature, with the property and without it."""
    names = [str(feature) for feature in of.features]
    sides = zip(("with it", "without it"), of.means, (BLUE, GREY))
    bars = {name: Curve(names, means, look=Look(colour)) for name, means, colour in sides}
    title = f"“{of.question}”: a probe of {len(names)} features gets {of.accuracy:.0%} right"
    return kinds.bars(bars, title, "feature, the first choice first", "mean code")


def chosen_html(of: Chosen) -> str:
    """The same as a table."""
    rows = "".join(
        f"<tr><td>{feature}</td><td>{ours:.2f}</td><td>{theirs:.2f}</td></tr>"
        for feature, ours, theirs in zip(of.features, *of.means)
    )
    head = "<tr><th>feature</th><th>mean with it</th><th>mean without it</th></tr>"
    about = f"<p><b>{escape(of.question)}</b>: a probe of these {len(of.features)} gets {of.accuracy:.0%} right</p>"
    return f'{about}<table style="font-size:12px">{head}{rows}</table>'
