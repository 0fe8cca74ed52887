"""One page of HTML for each feature, and a file that holds many of them and needs nothing else to be read.

feature_report(sae, model, tokens, [7, 187])    writes the file and says where
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.files import cache_folder, write_atomically
from sae_tutorial.evaluation.feature_evidence import FeatureEvidence, feature_evidence
from sae_tutorial.evaluation.feature_pages import FeaturePage, Passage, Words, check_features, feature_pages
from sae_tutorial.figures.text import visible

GLOW = "rgba(230, 159, 0, {:.2f})"  # orange, seen through, so that it lies behind dark text and light text
BAR, BINS, BARS = "#E69F00", 20, (220, 44)  # of the histogram: colour, number of bars, its width and height in px
MOST = 500  # features in one file: more of them no browser opens gladly

Link = Callable[[int], str]


def feature_report(
    sae: Any,
    model: Any,
    tokens: Int[Tensor, "rows positions"],
    features: Sequence[int],
    *,
    path: str | Path | None = None,
    hook_name: str | None = None,
    evidence: FeatureEvidence | None = None,
    title: str = "Features of a sparse autoencoder",
    progress: bool = True,
) -> Path:
    """Write one self-contained HTML file with a page for each of `features`, and return where it is.

    A page has how often the feature is active and how strongly, the tokens that it promotes, the features closest to
    it, its strongest contexts and a fair sample of all its contexts, each token shaded by the activation. It is read
    without Python and without a network, in a light and in a dark theme.

    tokens       rows that begin with BOS; the more of them, the better the evidence
    path         where to write; None: `feature_report.html` in the cache folder "reports"
    evidence     of `feature_evidence` for the same SAE; None: gathered here, in one pass over `tokens`

    Raises ValueError for features that the SAE does not have, for more than 500, and if no hook is named and the SAE
    knows none.
    """
    features = check_features(features, sae.config.d_sae)
    if len(features) > MOST:
        raise ValueError(f"features has {len(features)} of them; a file holds at most {MOST}: write several")
    if evidence is None:
        evidence = feature_evidence(sae, model, tokens, hook_name, progress=progress)
    pages = feature_pages(evidence, sae, model, features)
    path = cache_folder("reports") / "feature_report.html" if path is None else Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, document(pages, words_of(model), title, about(sae, evidence)).encode())
    return path


def words_of(model: Any) -> Words:
    """From token ids to the text of each."""
    return lambda ids: [model.tokenizer.decode([int(i)]) for i in ids]


def about(sae: Any, evidence: FeatureEvidence) -> str:
    """What the pages are of, in one sentence."""
    n, rule = len(evidence.counts), sae.config.rule.replace("_", " ")
    silent = int((evidence.counts == 0).sum())
    never = f"; {silent:,} of them are never active on it" if silent else ""
    return (
        f"{n:,} features, rule {rule}, read at {evidence.hook_name} on {evidence.n_positions:,} tokens of text{never}."
    )


# ---------------------------------------------------------------------- one feature


def page_html(page: FeaturePage, words: Words, link: Link = str) -> str:
    """One feature as HTML; `link` writes the number of another feature."""
    rank = f"rank {page.rank:,} by density, largest activation {page.largest:.3g}"
    parts = [f"<p><b>Feature {page.feature}</b>: active at {page.density:.3%} of positions, {rank}</p>"]
    if len(page.sampled):
        parts.append(histogram(page.sampled))
    rows = [("promotes", chips(page.raised, words)), ("suppresses", chips(page.lowered, words))]
    rows += [("similar decoder rows (cosine)", named(page.similar, link))]
    rows += [("active together (correlation)", named(page.together, link))]
    lines = "".join(f"<tr>{cell(name)}{cell(html)}</tr>" for name, html in rows if html)
    parts.append(f'<table style="font-size:12px">{lines}</table>')
    if not page.strongest:
        return "".join(parts) + "<p>Never active on this text.</p>"
    parts.append("<p>Strongest, each from another row of text:</p>")
    parts += [f"<div>{passage_html(p, page.largest, words)}</div>" for p in page.strongest]
    parts.append("<details><summary>A fair sample of its matches, from the strongest part to the weakest</summary>")
    for group in page.groups:
        low, high = min(p.peak for p in group), max(p.peak for p in group)
        lines = "".join(f"<div>{passage_html(p, page.largest, words)}</div>" for p in group)
        parts.append(f"<p>{low:.2g} to {high:.2g}</p>{lines}" if low < high else f"<p>{high:.2g}</p>{lines}")
    return "".join(parts) + "</details>"


def passage_html(passage: Passage, largest: float, words: Words) -> str:
    """The text, each token shaded by the feature's activation in parts of `largest`, the chosen token in bold."""
    shares = (passage.activations / max(largest, 1e-9)).tolist()
    return shaded(words(passage.tokens.tolist()), shares, passage.at)


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


def chips(tokens: Sequence[tuple[int, float]], words: Words) -> str:
    """Tokens as code; hover says how much the logit changes for a code of 1."""
    texts = words([token for token, _ in tokens])
    return " ".join(
        f'<code title="{change:+.2f}">{escape(visible(text))}</code>' for text, (_, change) in zip(texts, tokens)
    )


def named(features: Sequence[tuple[int, float]], link: Link) -> str:
    return ", ".join(f"{link(feature)} ({how:.2f})" for feature, how in features)


def histogram(values: Float[Tensor, " matches"]) -> str:
    """How strong the sampled matches are, as a small picture."""
    (width, height), top = BARS, float(values.max())
    counts = torch.histc(values.float(), BINS, 0, top).tolist()
    bars = []
    for i, count in enumerate(counts):
        tall = height * count / max(counts)
        place = f'x="{i * width / BINS:.1f}" y="{height - tall:.1f}" width="{width / BINS - 1:.1f}" height="{tall:.1f}"'
        bars.append(f'<rect {place} fill="{BAR}"><title>{count:.0f} matches</title></rect>')
    ends = (
        f'<text x="0" y="{height + 13}">0</text><text x="{width}" y="{height + 13}" text-anchor="end">{top:.3g}</text>'
    )
    label = f"{len(values)} matches, drawn at random, by activation"
    style = 'style="font-size:11px;fill:currentColor"'
    return (
        f'<svg width="{width + 4}" height="{height + 16}" role="img" aria-label="{label}" {style}>'
        f"<title>{label}</title>{''.join(bars)}{ends}</svg>"
    )


# ---------------------------------------------------------------------- a file of them

CSS = """
:root { color-scheme: light dark; }
body { font: 14px/1.5 system-ui, Arial, sans-serif; max-width: 900px; margin: 2em auto; padding: 0 1em; }
section { border-top: 1px solid #8888; padding: 0.5em 0 1em; }
code { background: #8882; border-radius: 3px; padding: 0 3px; }
td { padding: 2px 8px 2px 0; } summary { cursor: pointer; margin: 0.6em 0; }
section > div, details > div { margin: 3px 0; }
input { font: inherit; width: 100%; box-sizing: border-box; padding: 4px; }
"""
FIND = """
document.getElementById("find").addEventListener("input", event => {
  const wanted = event.target.value.toLowerCase();
  for (const one of document.querySelectorAll("section")) one.hidden = !one.textContent.toLowerCase().includes(wanted);
});
"""


def document(pages: Sequence[FeaturePage], words: Words, title: str, about: str) -> str:
    """A whole HTML document: a line to search by, and the pages, linked where one names another."""
    there = {page.feature for page in pages}

    def link(feature: int) -> str:
        return f'<a href="#f{feature}">{feature}</a>' if feature in there else str(feature)

    sections = "".join(section_html(page, words, link) for page in pages)
    return searchable(title, f"<h1>{escape(title)}</h1><p>{escape(about)}</p>", sections)


def section_html(page: FeaturePage, words: Words, link: Link = str) -> str:
    """A page as a part of a document that can be searched."""
    return f'<section id="f{page.feature}">{page_html(page, words, link)}</section>'


def searchable(title: str, above: str, below: str) -> str:
    """A whole HTML document with a line to search by, which hides those sections below it that do not match."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    find = '<input id="find" type="search" aria-label="find" placeholder="Show only features whose page contains …">'
    body = f"{above}{find}{below}<script>{FIND}</script>"
    return f'<!DOCTYPE html><html lang="en"><head>{head}<style>{CSS}</style></head><body>{body}</body></html>\n'
