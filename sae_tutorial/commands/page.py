"""report: an SAE as one HTML page that a colleague opens without Python and without a network."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from plotly import graph_objects as go
from torch import Tensor
from torch.nn.functional import normalize

from sae_tutorial.activations.arguments import as_whole
from sae_tutorial.activations.files import check_writable, path_of, write_atomically
from sae_tutorial.allocation.zipf import middle_law
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.commands.sources import Reading, name_of, rows_to_measure
from sae_tutorial.commands.work import HISTORY, measures, opened
from sae_tutorial.evaluation.feature_evidence import FeatureEvidence, feature_evidence
from sae_tutorial.evaluation.feature_pages import feature_pages
from sae_tutorial.evaluation.fidelity import evaluate
from sae_tutorial.figures import kinds
from sae_tutorial.figures.densities import rank_density
from sae_tutorial.figures.feature_report import searchable, section_html, words_of
from sae_tutorial.figures.kinds import Curve
from sae_tutorial.figures.neuronpedia import neuronpedia_batches

ENOUGH = 20  # matches of a feature that is shown
MEANS = {  # measure -> what it is called, and what it means
    "l0": ("L0", "features per token"),
    "fvu": ("FVU", "part of the variance that is not explained"),
    "recovered": ("recovered", "of the loss, from 0 in its place to the model as it is"),
    "recovered_mean": ("from mean", "the same, from the mean in its place"),
    "ce_clean": ("CE", "loss of the model, nats"),
    "ce_spliced": ("CE with SAE", "loss with the SAE in place"),
    "kl": ("KL", "divergence of its predictions, nats"),
    "dead": ("dead", "share of features without a match on this text"),
    "underused": ("underused", "share of features far below a Zipf law"),
}
CURVES = {"fvu": "FVU", "l0": "features per token", "dead": "share of features dead"}


def report(args: argparse.Namespace) -> None:
    """An SAE as one HTML page: training curves, quality, densities with their Zipf law, features with contexts."""
    folder, n = path_of("folder", args.folder), as_whole("--features", args.features, 1)
    path = path_of("--out", args.out) if args.out else folder / "report.html"
    sae, reading, about = opened(args.folder, args)
    if sae.config.is_transcoder:
        raise ValueError(f"{folder} holds a transcoder; pages are for SAEs")
    check_writable(path)
    names = _neuronpedia_names(args, reading, folder) if args.neuronpedia else {}
    model, hook = reading.load()
    sae, held_out = sae.to(model.cfg.device), rows_to_measure(reading, about, model)
    found = evaluate(sae, model, held_out, hook, progress=not args.quiet)
    evidence = feature_evidence(sae, model, held_out, hook, progress=not args.quiet)
    figures = [*_training(folder / HISTORY), _densities(found.density)]
    words = words_of(model)
    title, measured = f"SAE of {reading.model}, {hook}", _quality(measures(found), sae, reading)
    above = f"<h1>{escape(title)}</h1>{measured}" + "".join(_html(fig, first=i == 0) for i, fig in enumerate(figures))
    below = ""
    for name, features in chosen(sae, evidence, n).items():
        pages = feature_pages(evidence, sae, model, features)
        below += f"<h2>{escape(name)}</h2>" + "".join(section_html(page, words) for page in pages)
    write_atomically(path, searchable(f"SAE of {reading.model}", above, below).encode())
    print(path)
    if names:
        fire = evidence.counts.nonzero().flatten().tolist()
        print(*neuronpedia_batches(sae, model, evidence, fire, args.neuronpedia, **names), sep="\n")


def _neuronpedia_names(args: argparse.Namespace, reading: Reading, folder: Path) -> dict[str, Any]:
    """Under which names Neuronpedia shows an SAE. Raises ValueError if it reads no layer."""
    layer = re.match(r"blocks\.(\d+)\.", reading.hook or "")
    if layer is None:
        raise ValueError(f"--neuronpedia wants to know the layer, and hook={reading.hook!r} is in none")
    return {
        "model_id": args.model_id or Path(reading.model).name,
        "layer": int(layer[1]),
        "sae_set": args.sae_set or folder.resolve().name,
        "dataset": name_of(reading.text),
    }


def chosen(sae: SparseAutoencoder, evidence: FeatureEvidence, n: int) -> dict[str, list[int]]:
    """Features in three groups, each by a measure and not by eye; none twice."""
    known = evidence.counts >= ENOUGH
    groups = {
        "Clearest: most often at one and the same token": same_token(evidence),
        "Most frequent: active on most tokens": evidence.density,
        "Oddest: features with a twin, whose decoder row is nearly the same": twin_cosines(sae).cpu(),
    }
    found, taken = {}, torch.zeros(len(known), dtype=torch.bool)
    for title, value in groups.items():
        order = value.double().masked_fill(~known | taken, -torch.inf).argsort(descending=True)
        found[title] = [f for f in order[:n].tolist() if known[f] and not taken[f]]
        taken[found[title]] = True
    return {title: features for title, features in found.items() if features}


def same_token(evidence: FeatureEvidence) -> Float[Tensor, " features"]:
    """Of a fair sample of each feature's matches, the share at the token that is commonest among them."""
    place_FR = evidence.sampled.place
    token_FR = evidence.tokens.flatten()[place_FR.clamp(min=0)].masked_fill(place_FR < 0, -1).sort(1).values
    shares = []
    for row in token_FR:
        counts = row[row >= 0].unique(return_counts=True)[1]
        shares.append(float(counts.max() / counts.sum()) if len(counts) else 0.0)
    return torch.tensor(shares)


@torch.no_grad()
def twin_cosines(sae: SparseAutoencoder, rows: int = 1024) -> Float[Tensor, " features"]:
    """The cosine of each decoder row with the one that is nearest to it."""
    unit_FD = normalize(sae.W_dec, dim=1)
    nearest = []
    for start in range(0, len(unit_FD), rows):
        cosine = unit_FD[start : start + rows] @ unit_FD.T
        cosine[torch.arange(len(cosine)), torch.arange(start, start + len(cosine))] = -1
        nearest.append(cosine.amax(1))
    return torch.cat(nearest)


def _training(history: Path) -> Iterable[go.Figure]:
    """Curves of the run that made it, where they were kept."""
    if not history.exists():
        return []
    with np.load(history) as kept:
        metrics = {
            name: kept[name] for name in CURVES if np.isfinite(kept[name]).any()
        }  # a short run knows no dead ones
    keep = np.unique(np.linspace(0, len(metrics["fvu"]) - 1, 300).round().astype(int))
    panels = {CURVES[name]: {"": Curve(keep + 1, values[keep])} for name, values in metrics.items()}
    title = f"Training ended at an FVU of {metrics['fvu'][-1]:.3f}"
    return [kinds.lines(panels, title, "step", list(panels), mode="lines")]


def _densities(density: Float[Tensor, " features"]) -> go.Figure:
    law = middle_law(density)
    ranks = torch.arange(1, int((density > 0).sum()) + 1)
    laws = {} if law is None else {"densities": law.density(ranks).numpy()}
    told = "" if law is None else f"; their middle follows a Zipf law with exponent {law.exponent:.2f}"
    title = f"{(density == 0).float().mean():.1%} of the features never fire on this text{told}"
    return rank_density({"densities": density.cpu().numpy()}, title, laws=laws)


def _quality(found: dict[str, float | None], sae: SparseAutoencoder, reading: Reading) -> str:
    rows = "".join(
        f"<tr><td>{MEANS[name][0]}</td><td>{'–' if x is None else f'{x:.4g}'}</td><td>{MEANS[name][1]}</td></tr>"
        for name, x in found.items()
    )
    what = f"{sae.config.d_sae:,} features of {sae.config.d_in} coordinates, rule {sae.config.rule}"
    return f"<p>{escape(f'{what}; measured on {name_of(reading.text)}')}</p><table>{rows}</table>"


def _html(fig: go.Figure, first: bool) -> str:
    return fig.to_html(full_html=False, include_plotlyjs=first, config={"displaylogo": False})
