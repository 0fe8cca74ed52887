"""What transcoders of a whole model are worth: alone, all at once, and on greater-than with few features left.

Letters of shapes: B prompts, P positions, F features, N starts of spans.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_tutorial.activations.forward import read_hook, read_hooks
from sae_tutorial.activations.store import ActivationStore
from sae_tutorial.autoencoder.config import SAEConfig
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.circuits.greater_than import YearSpans, greater_than
from sae_tutorial.circuits.heads import Head, key_head
from sae_tutorial.circuits.prompts import Hook, at, end_logits
from sae_tutorial.circuits.transcoder_circuits import Node, Trace, traced
from sae_tutorial.circuits.transcoder_graph import Graph
from sae_tutorial.circuits.transcoder_weights import de_embedding, layer_of, reads, through_head, writes
from sae_tutorial.evaluation.splicing import stand_ins
from sae_tutorial.evaluation.together import Together, evaluate_together
from sae_tutorial.figures.kinds import Curve
from sae_tutorial.training.loop import train_many

PARTS = ("features", "heads", "embeddings", "errors", "skip paths", "biases")
OTHERS = {"token": "embeddings", "position": "embeddings", "skip": "skip paths", "bias": "biases"} | dict.fromkeys(
    ("error", "mlp"), "errors"
)
FEW = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # features, or neurons, that are kept
Pairs = dict[int, tuple[ActivationStore, ActivationStore]]


def pairs(model: Any, tokens: Int[Tensor, "n context"], layers: Sequence[int], **options: Any) -> Pairs:
    """What the MLP of each layer reads (after its LayerNorm) and writes, all in one pass over the text."""
    names = [f"blocks.{layer}.{name}" for layer in layers for name in ("mlp.hook_in", "hook_mlp_out")]
    first = ActivationStore.harvest(model, tokens, names[0], beside=names[1:], **options)
    stores = [first, *first.beside.values()]
    return dict(zip(layers, zip(stores[::2], stores[1::2])))


def joined(one: Pairs, other: Pairs) -> Pairs:
    """The pairs of two texts, of stories and of year spans for example, as those of one."""

    def both(a: ActivationStore, b: ActivationStore) -> ActivationStore:
        rows_ND = torch.cat([store.rows(slice(None)).to(a.dtype) for store in (a, b)])
        return ActivationStore.from_tensor(rows_ND, a.hook_name)

    return {layer: (both(one[layer][0], other[layer][0]), both(one[layer][1], other[layer][1])) for layer in one}


def with_spans(found: Pairs, model: Any, spans: YearSpans) -> Pairs:
    """The pairs of a text, and those of year spans after it. Spans of a length go through the model together, without
    their padding."""
    for end in spans.positions["END"].unique().tolist():
        tokens_BP = spans.tokens[spans.positions["END"] == end, : end + 1]
        found = joined(found, pairs(model, tokens_BP, list(found), pad_id=None, progress=False))
    return found


def trained(found: Pairs, config: SAEConfig, **settings: Any) -> list[SparseAutoencoder]:
    """A transcoder for each of these layers, all of one config."""
    transcoders = []
    for store, target in found.values():
        transcoder = SparseAutoencoder(config)
        train_many([transcoder], store, target_store=target, **settings)
        transcoders.append(transcoder)
    return transcoders


def replaced_from_the_bottom(
    transcoders: Sequence[SparseAutoencoder], model: Any, tokens: Int[Tensor, "n context"]
) -> list[Together]:
    """The first MLP replaced by its transcoder, the first two, and so on to all of them."""
    return [evaluate_together(transcoders[: n + 1], model, tokens) for n in range(len(transcoders))]


def over_seeds(points: Iterable[tuple[float, float]]) -> Curve:
    """The mean, the least and the largest y of each x, from the points of all seeds."""
    found: dict[float, list[float]] = {}
    for x, y in points:
        found.setdefault(x, []).append(y)
    table = [found[x] for x in sorted(found)]
    return Curve(sorted(found), [sum(ys) / len(ys) for ys in table], list(map(min, table)), list(map(max, table)))


# ---------------------------------------------------------------------- greater-than


def text_of(spans: YearSpans) -> Bool[Tensor, "prompts positions"]:
    """Where transcoders stand in: everywhere but at the token that begins a row."""
    return (torch.arange(spans.tokens.shape[1], device=spans.tokens.device) > 0).expand(spans.tokens.shape)


def score(model: Any, spans: YearSpans, hooks: Sequence[Hook] = ()) -> float:
    """P(later) − P(not later), mean over spans, with these hooks in place."""
    return float(greater_than(end_logits(model, spans, hooks), spans).mean())


@torch.no_grad()
def knows(model: Any, spans: YearSpans, hooks: Sequence[Hook] = ()) -> float:
    """The score less what the same answers score by the starts of all spans, in the mean: late years are right for most
    starts, so only the difference says that a start is known."""
    of_years = end_logits(model, spans, hooks).softmax(-1)[:, spans.years]
    later = torch.arange(100, device=of_years.device) > spans.start[:, None]
    by_start_BB = of_years @ torch.where(later, 1.0, -1.0).T  # answer, start
    return float(by_start_BB.diagonal().mean() - by_start_BB.mean())


def score_with(model: Any, spans: YearSpans, transcoders: Sequence[SparseAutoencoder]) -> float:
    """The same with transcoders in the place of their MLPs."""
    with torch.no_grad():
        return score(model, spans, stand_ins(transcoders, text_of(spans)))


@torch.no_grad()
def codes_at(
    model: Any, transcoder: SparseAutoencoder, spans: YearSpans, where: str = "END"
) -> Float[Tensor, "prompts features"]:
    """What each feature is at the start year ("YY"), or where the answer is due ("END")."""
    with read_hook(model, str(transcoder.hook_name)) as read:
        return transcoder.encode(at(read(spans.tokens), spans.positions[where])).to_dense()


@torch.no_grad()
def neurons_at(model: Any, layer: int, spans: YearSpans, where: str = "END") -> Float[Tensor, "prompts neurons"]:
    with read_hook(model, f"blocks.{layer}.mlp.hook_post") as read:
        return at(read(spans.tokens), spans.positions[where])


def by_variance(values: Float[Tensor, "prompts parts"]) -> Int[Tensor, " parts"]:
    """Features or neurons by how much they vary over spans that differ in their start, the most first (Dunefsky et al.
    2024)."""
    return values.var(0).argsort(descending=True)


def with_features(transcoder: SparseAutoencoder, kept: Int[Tensor, " n"]) -> SparseAutoencoder:
    """A copy whose other features write nothing."""
    other = copy.deepcopy(transcoder)
    silent = torch.ones(other.config.d_sae, dtype=torch.bool)
    silent[kept] = False
    with torch.no_grad():
        other.W_dec[silent] = 0
    return other


def with_neurons(layer: int, kept: Int[Tensor, " n"], where: Bool[Tensor, "prompts positions"]) -> list[Hook]:
    """A hook that silences all other neurons of an MLP at these positions."""

    def silence(post_BPN: Tensor, hook: Any) -> Tensor:
        silent_N = torch.ones(post_BPN.shape[-1], dtype=torch.bool, device=post_BPN.device)
        silent_N[kept] = False
        return post_BPN.masked_fill(where[..., None] & silent_N, 0.0)

    return [(f"blocks.{layer}.mlp.hook_post", silence)]


def with_few(
    model: Any,
    transcoder: SparseAutoencoder,
    spans: YearSpans,
    numbers: Sequence[int],
    where: str = "END",
    measure: Callable[..., float] = score,
) -> dict[str, list[float]]:
    """The score, or what `knows` measures, with so many features of a transcoder, or so many neurons of its MLP, left:
    those that vary most over spans, where the answer is due ("END") or at the start year ("YY")."""
    layer, text = layer_of(transcoder), text_of(spans)
    features = by_variance(codes_at(model, transcoder, spans, where))
    neurons = by_variance(neurons_at(model, layer, spans, where))
    left = {
        "features": [stand_ins([with_features(transcoder, features[:n])], text) for n in numbers],
        "neurons": [with_neurons(layer, neurons[:n], text) for n in numbers],
    }
    with torch.no_grad():
        return {what: [measure(model, spans, hooks) for hooks in each] for what, each in left.items()}


def later_and_not(spans: YearSpans, row: int) -> tuple[list[int], list[int]]:
    """The ids of the years that are later than the start of one span, and of those that are not."""
    start = int(spans.start[row])
    return spans.years[start + 1 :].tolist(), spans.years[: start + 1].tolist()


# ---------------------------------------------------------------------- what features are made of


def kinds_of_parts(
    model: Any, transcoders: Sequence[SparseAutoencoder], tokens: Int[Tensor, "n context"]
) -> dict[str, Float[Tensor, " features"]]:
    """What makes the features of the last of these transcoders that are on at the end of each row: what each kind of
    part adds to the pre-activation of each. Over kinds, they add up to it."""
    rows: list[dict[str, float]] = []
    last = layer_of(transcoders[-1])
    for row in tokens:
        trace = traced(model, transcoders, row)
        by = trace.mlps[last].by
        assert by is not None, "a trace has all transcoders that it was given"
        for feature in by.codes[-1].nonzero()[:, 0].tolist():
            parts = trace.parts(trace.feature(last, len(row) - 1, feature))
            of_kind = dict.fromkeys(PARTS, 0.0)
            of_kind["heads"] = float(parts.heads.sum())
            of_kind["features"] = sum(float(added_F.sum()) for added_F in parts.features.values())
            for node, value in parts.others.items():
                of_kind[OTHERS[node.kind]] += value
            rows.append(of_kind)
    return {kind: torch.tensor([row[kind] for row in rows]) for kind in PARTS}


@torch.no_grad()
def at_listed_tokens(
    model: Any, transcoder: SparseAutoencoder, tokens: Int[Tensor, "n context"], n: int, least: int = 20
) -> dict[str, Float[Tensor, " listed"]]:
    """The share of a feature's matches that are at one of the `n` tokens with the largest weights in its de-embedding,
    in that of another feature, and at the `n` tokens of this text that have most of them, the most that a list could
    tell; of features with `least` matches or more in this text."""
    on = _matches(model, transcoder, tokens)
    features = (on.sum(0) >= least).nonzero()[:, 0]
    weights_NV = de_embedding(model, reads(model, transcoder, features))
    listed_NV = torch.zeros_like(weights_NV, dtype=torch.bool).scatter_(1, weights_NV.topk(n).indices, True)
    ids_P, on_NP = tokens[:, 1:].flatten().to(on.device), on[:, features].T
    matches_NV = torch.zeros_like(weights_NV).index_add_(1, ids_P, on_NP.to(weights_NV))
    best_NV = torch.zeros_like(listed_NV).scatter_(1, matches_NV.topk(n).indices, True)
    lists = {"its own list": listed_NV, "another feature's": listed_NV.roll(1, 0), "the best list": best_NV}
    return {name: (matches_NV * at_NV).sum(1) / matches_NV.sum(1) for name, at_NV in lists.items()}


@torch.no_grad()
def tokens_of_matches(
    model: Any, transcoder: SparseAutoencoder, tokens: Int[Tensor, "n context"], features: Sequence[int], n: int
) -> str:
    """The `n` tokens at which any of these features is active most often in this text, with how often."""
    on_P = _matches(model, transcoder, tokens)[:, list(features)].any(1)
    counts = Counter(tokens[:, 1:].flatten()[on_P.cpu()].tolist()).most_common(n)
    return ", ".join(f"{model.tokenizer.decode([token])!r} {times}" for token, times in counts)


def _matches(
    model: Any, transcoder: SparseAutoencoder, tokens: Int[Tensor, "n context"]
) -> Bool[Tensor, "tokens features"]:
    """Which features are active at each token but the first of each row."""
    with read_hook(model, str(transcoder.hook_name)) as read:
        return torch.cat([transcoder.encode(read(row[None])[0, 1:]).to_dense() > 0 for row in tokens])


@torch.no_grad()
def heads_that_bring(
    model: Any, transcoders: Sequence[SparseAutoencoder], spans: YearSpans, nodes: Sequence[Node]
) -> Float[Tensor, "nodes layers heads"]:
    """The share that each head has, by what it brings from the start year, of what varies over spans in each feature's
    pre-activation at the end: its covariance with that, over the variance. 0 of heads that write after the feature has
    read. Positions of the nodes play no role."""
    brought_BNLH = torch.zeros(len(spans.tokens), len(nodes), model.cfg.n_layers, model.cfg.n_heads)
    read_BN = torch.zeros(brought_BNLH.shape[:2])
    ends, years = spans.positions["END"].tolist(), spans.positions["YY"].tolist()
    for b, (tokens, yy, end) in enumerate(zip(spans.tokens, years, ends)):
        trace = traced(model, transcoders, tokens[: end + 1])
        for n, node in enumerate(nodes):
            parts = trace.parts(trace.feature(node.layer, end, node.number))
            read_BN[b, n], brought_LH = parts.total, parts.heads[..., yy]
            brought_BNLH[b, n, : len(brought_LH)] = brought_LH.cpu()
    off_BN = read_BN - read_BN.mean(0)
    return torch.einsum("bnlh,bn->nlh", brought_BNLH, off_BN) / off_BN.square().sum(0)[:, None, None]


@torch.no_grad()
def strongest_at_end(
    model: Any, transcoders: Sequence[SparseAutoencoder], spans: YearSpans
) -> list[tuple[Node, float]]:
    """What each feature that is on at the end adds to the logits of the later years over those of the others, mean over
    spans; the one that adds most first. Positions are those of the first span."""
    found: dict[tuple[int, int], float] = {}
    for row, end in enumerate(spans.positions["END"].tolist()):
        trace = traced(model, transcoders, spans.tokens[row, : end + 1])
        parts = trace.parts(trace.logit(end, *later_and_not(spans, row)))
        for layer, added_F in parts.features.items():
            for feature in added_F.nonzero()[:, 0].tolist():
                at_ = layer, feature
                found[at_] = found.get(at_, 0.0) + float(added_F[feature]) / len(spans.tokens)
    first = int(spans.positions["END"][0])
    nodes = [(Node("feature", layer, first, feature), value) for (layer, feature), value in found.items()]
    return sorted(nodes, key=lambda pair: -abs(pair[1]))


@torch.no_grad()
def when_taken_out(
    model: Any, transcoders: Sequence[SparseAutoencoder], spans: YearSpans, nodes: Sequence[Node]
) -> dict[str, list[float]]:
    """What is lost when the MLP of each node's layer writes what it writes without this feature's part at the end, mean
    over spans: of the logits of the later years over those of the others, and of the score. Positions of the nodes play
    no role."""
    by_layer = {layer_of(one): one for one in transcoders}
    codes = {layer: codes_at(model, by_layer[layer], spans) for layer in {node.layer for node in nodes}}
    rows, end = torch.arange(len(spans.tokens)), spans.positions["END"]
    later = torch.arange(100, device=spans.start.device) > spans.start[:, None]

    def measured(hooks: Sequence[Hook] = ()) -> tuple[float, float]:
        logits_BV = end_logits(model, spans, hooks)
        of_years = logits_BV[:, spans.years]
        of_later, of_others = (of_years.masked_fill(~which, 0).sum(1) / which.sum(1) for which in (later, ~later))
        return float((of_later - of_others).mean()), float(greater_than(logits_BV, spans).mean())

    def without(node: Node) -> Hook:
        part_BM = codes[node.layer][:, node.number, None] * writes(by_layer[node.layer], [node.number])

        def take_out(wrote_BPM: Tensor, hook: Any) -> Tensor:
            wrote_BPM = wrote_BPM.clone()
            wrote_BPM[rows, end] -= part_BM.to(wrote_BPM)
            return wrote_BPM

        return f"blocks.{node.layer}.hook_mlp_out", take_out

    whole, left = measured(), [measured([without(node)]) for node in nodes]
    return {name: [whole[i] - one[i] for one in left] for i, name in enumerate(("logits", "score"))}


@torch.no_grad()
def length_without(model: Any, transcoder: SparseAutoencoder, spans: YearSpans, features: Sequence[int]) -> list[float]:
    """By what the last LayerNorm divides at the end without each feature of the last layer's transcoder, as a share of
    what it divides by with it, mean over spans."""
    with read_hook(model, f"blocks.{model.cfg.n_layers - 1}.hook_resid_post") as read:
        stream_BM = at(read(spans.tokens), spans.positions["END"])
    codes_BF = codes_at(model, transcoder, spans)
    found = []
    for feature in features:
        without_BM = stream_BM - codes_BF[:, feature, None] * writes(transcoder, [feature])
        both = [(x_BM - x_BM.mean(1, keepdim=True)).norm(dim=1) for x_BM in (without_BM, stream_BM)]
        found.append(float((both[0] / both[1]).mean()))
    return found


@torch.no_grad()
def written_at_year(model: Any, spans: YearSpans, layer: int) -> dict[str, Float[Tensor, "prompts model"]]:
    """What lies in the stream at the start year before the heads of this layer read it, by who has written it; it adds
    up to the stream."""
    inside = [f"blocks.{i}.{name}" for i in range(layer) for name in ("hook_attn_out", "hook_mlp_out")]
    with read_hooks(model, ["blocks.0.hook_resid_pre", *inside]) as read:
        found = {name: at(acts, spans.positions["YY"]) for name, acts in read(spans.tokens).items()}
    written = {"embedding": found["blocks.0.hook_resid_pre"]}
    for i in range(layer):
        written[f"heads {i}"], written[f"MLP {i}"] = (
            found[f"blocks.{i}.{name}_out"] for name in ("hook_attn", "hook_mlp")
        )
    return written


@torch.no_grad()
def looks_at_itself(model: Any, spans: YearSpans, layer: int) -> Float[Tensor, " heads"]:
    """How much each head looks from the start year at the start year, mean over spans."""
    with read_hook(model, f"blocks.{layer}.attn.hook_pattern") as read:
        pattern_BHPP, yy = read(spans.tokens), spans.positions["YY"]
    return pattern_BHPP[torch.arange(len(yy)), :, yy, yy].mean(0)


def known_by_part(model: Any, spans: YearSpans) -> dict[str, dict[str, float]]:
    """What the start year's place has to tell the layers after the first: how well the start is known (`knows`) with
    one part of the stream there held at its mean over spans, and with all parts held but one. The first layer itself
    computes as it does."""
    written = written_at_year(model, spans, 1)
    means = {name: x_BM - x_BM.mean(0) for name, x_BM in written.items()}
    rows, yy = torch.arange(len(spans.tokens)), spans.positions["YY"]

    def with_held(names: Iterable[str]) -> float:
        off_BM = sum((means[name] for name in names), torch.zeros_like(written["embedding"]))

        def hold(stream_BPM: Tensor, hook: Any) -> Tensor:
            stream_BPM = stream_BPM.clone()
            stream_BPM[rows, yy] -= off_BM.to(stream_BPM)
            return stream_BPM

        with torch.no_grad():
            return knows(model, spans, [("blocks.0.hook_resid_post", hold)])

    return {
        "held": {name: with_held([name]) for name in written},
        "alone": {name: with_held(set(written) - {name}) for name in written} | {"none": with_held(written)},
    }


@torch.no_grad()
def who_brings_the_year(
    model: Any, transcoders: Sequence[SparseAutoencoder], spans: YearSpans, few: YearSpans, nodes: Sequence[Node]
) -> list[tuple[Node, Head, float, dict[str, float]]]:
    """For each feature the head, of the layers after the first, that brings most from the start year of what varies in
    it over `few` spans; the share that it has of that; and the share that each writer has of what varies with the year
    in what this head can bring: covariance over years with the sum of all writers, over the variance of that. These add
    up to 1; patterns and scales count as 1 in them."""
    by_layer, brings_NLH = {layer_of(one): one for one in transcoders}, heads_that_bring(model, transcoders, few, nodes)
    heads = [divmod(int(of_one_LH[1:].argmax()), model.cfg.n_heads) for of_one_LH in brings_NLH]
    heads = [(layer + 1, h) for layer, h in heads]
    written = {layer: written_at_year(model, spans, layer) for layer in {layer for layer, _ in heads}}
    starts, found = spans.start.unique(), []
    for node, head, of_one_LH in zip(nodes, heads, brings_NLH):
        direction_M = through_head(model, reads(model, by_layer[node.layer], [node.number]), head)[0]
        of_year = {}
        for name, x_BM in written[head[0]].items():
            read_B = x_BM @ direction_M
            of_year[name] = torch.stack([read_B[spans.start == year].mean() for year in starts])
        total = sum(of_year.values(), torch.zeros(len(starts), device=starts.device))
        off = total - total.mean()
        shares = {name: float((y - y.mean()) @ off / (off @ off)) for name, y in of_year.items()}
        found.append((node, head, float(of_one_LH[head]), shares))
    return found


def by_path(
    model: Any,
    spans: YearSpans,
    direction: Float[Tensor, " model"],
    path: Callable[[Tensor, list[tuple[Tensor, Tensor]], Tensor], Tensor],
    heads: Sequence[Head],
) -> Float[Tensor, " years"]:
    """What the embedding of each start year brings to a direction through these heads, first to last, each with an
    attention and a LayerNorm scale of 1; `path` is an answer to exercise 4."""
    weights = [(model.W_V[layer][key_head(model.cfg, (layer, h))[1]], model.W_O[layer][h]) for layer, h in heads]
    firsts = torch.stack([(spans.start == year).nonzero()[0, 0] for year in spans.start.unique()])
    tokens = spans.tokens[firsts, spans.positions["YY"][firsts]]
    return torch.as_tensor(path(model.W_E[tokens], weights, direction))


# ---------------------------------------------------------------------- a graph in words


def named(trace: Trace, node: Node) -> str:
    """A node for a reader: what it is, and at which token."""
    decode: Callable[[list[int]], str] = trace.model.tokenizer.decode
    word = decode([int(trace.tokens[node.position])]).strip() or "␣"
    what = {
        "feature": f"feature {node.layer}.{node.number}",
        "head": f"head {node.layer}.{node.number}",
        "skip": f"skip path {node.layer}",
        "error": f"error {node.layer}",
        "mlp": f"MLP {node.layer}",
        "token": "embedding",
        "position": "position",
        "bias": "biases",
        "logit": "logits",
    }[node.kind]
    return f"{what} at “{word}” ({node.position})"


def shares(graph: Graph) -> dict[str, float]:
    """What each kind of node adds directly to what is asked about, as parts of it; with the rest, they add up to 1."""
    start = next(iter(graph.nodes))
    found: dict[str, float] = {"rest": graph.rest.get(start, 0.0)}
    for (there, here), value in graph.edges.items():
        if here == start:
            found[there.kind] = found.get(there.kind, 0.0) + value
    return {kind: value / graph.nodes[start] for kind, value in found.items()}
