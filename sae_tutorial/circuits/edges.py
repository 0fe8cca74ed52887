"""Finding a circuit without looking: edges between the parts of a model, what each is worth, and which can go.

A model is a graph. Senders write into the residual stream: the embedding, each head, each MLP. Receivers read from it:
the queries, keys and values of each head, each MLP, the logits. An edge leads from every sender to every receiver
behind it, and to remove it means that the receiver hears what the sender says on *another* prompt, while everybody
else hears what it says on this one. `edge_logits` is the forward pass with any set of edges removed. On top of it:

    edge_attribution   what removing each edge would change, to first order, all edges from one gradient
    greedy_removal     edges removed one by one, from the logits backwards, as long as the damage stays small
    roc                how well scores of heads find the heads of a circuit that is already known

Sources: Syed et al. 2023 (edge attribution patching), Conmy et al. 2023 (ACDC, the greedy removal). Models of GPT-2's
architecture, loaded in compatibility mode, one sequence of layers with attention before the MLP.

Letters of shapes: S senders, R receivers, B prompts, P positions, H heads, D dimension of a head, M of the stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from sae_tutorial.circuits.patching import Head, Metric
from sae_tutorial.circuits.prompts import Prompts, at


@dataclass(frozen=True)
class Wiring:
    """All edges of a model. `senders` and `receivers` are in the order of the forward pass.

    Attributes:
        senders: "embed", then for each layer its heads "0.3" and its "mlp 0".
        receivers: for each layer "0.3 q" of all heads, then "k", then "v", then "mlp 0"; at last "logits".
        allowed: (S, R), whether the receiver stands behind the sender.
    """

    n_layers: int
    n_heads: int
    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    allowed: Bool[Tensor, "senders receivers"]

    def before(self, layer: int) -> int:
        """How many senders stand before the attention of this layer."""
        return 1 + layer * (self.n_heads + 1)

    def columns(self, layer: int, part: str) -> slice:
        """The receivers "q", "k", "v" or "mlp" of a layer; layer n_layers is the logits."""
        start = layer * (3 * self.n_heads + 1)
        if layer == self.n_layers or part == "mlp":
            start += 0 if layer == self.n_layers else 3 * self.n_heads
            return slice(start, start + 1)
        start += "qkv".index(part) * self.n_heads
        return slice(start, start + self.n_heads)

    def sender(self, head: Head) -> int:
        return self.before(head[0]) + head[1]

    def sender_of(self, receiver: int) -> int | None:
        """The sender that this receiver belongs to: "2.0" for "2.0 q"; None for the logits."""
        name = self.receivers[receiver]
        if name == "logits":
            return None
        return self.senders.index(name if name.startswith("mlp") else name.split()[0])


def wiring(model: Any) -> Wiring:
    """The edges of this model. ValueError for an architecture that `edge_logits` does not compute."""
    cfg = model.cfg
    known = {"act_fn": "gelu_new", "positional_embedding_type": "standard"}
    for name, value in known.items():
        if getattr(cfg, name, value) != value:
            raise ValueError(f"model.cfg.{name}={getattr(cfg, name)!r}: edges are known for {value!r} only (GPT-2's).")
    layers, heads = range(cfg.n_layers), range(cfg.n_heads)
    senders = ["embed"] + [name for la in layers for name in [*(f"{la}.{h}" for h in heads), f"mlp {la}"]]
    receivers = [n for la in layers for n in [*(f"{la}.{h} {part}" for part in "qkv" for h in heads), f"mlp {la}"]]
    made = Wiring(cfg.n_layers, cfg.n_heads, tuple(senders), (*receivers, "logits"), torch.empty(0, 0).bool())
    allowed = torch.zeros(len(senders), len(receivers) + 1, dtype=torch.bool)
    for layer in layers:
        for part in "qkv":
            allowed[: made.before(layer), made.columns(layer, part)] = True
        allowed[: made.before(layer + 1) - 1, made.columns(layer, "mlp")] = True
    allowed[:, -1] = True
    return Wiring(cfg.n_layers, cfg.n_heads, made.senders, made.receivers, allowed.to(cfg.device))


@dataclass(frozen=True)
class Run:
    """One forward pass, taken apart: what each sender said, and the stream before each attention, MLP and the end."""

    said: Float[Tensor, "senders prompts positions model"]
    stream: Float[Tensor, "stages prompts positions model"]
    logits: Float[Tensor, "prompts vocab"]


def run_apart(model: Any, prompts: Prompts) -> Run:
    """A run with every edge in place."""
    graph = wiring(model)
    with torch.no_grad():
        keep_SR = graph.allowed.to(model.W_E.dtype)
        return _run(model, prompts, graph, keep_SR, None, [])


def edge_logits(
    model: Any,
    prompts: Prompts,
    other: Run,
    keep: Float[Tensor, "senders receivers"],
    known: Float[Tensor, "known prompts positions model"] | None = None,
) -> Float[Tensor, "prompts vocab"]:
    """Logits at END when the edges with `keep` 0 carry what the sender says in `other`, and those with 1 what it says.

    Values between mix the two, and gradients reach `keep`. With all edges kept these are the model's own logits, with
    none those of `other`.

    Args:
        other: `run_apart` of a counterfactual of `prompts`.
        known: what the first senders say, if it is known already: nothing in front of them is computed again.
    """
    return _run(model, prompts, wiring(model), keep, other, [] if known is None else list(known)).logits


def _run(model: Any, prompts: Prompts, graph: Wiring, keep: Tensor, other: Run | None, said: list[Tensor]) -> Run:
    streams: list[Tensor] = []

    def heard(columns: slice, stage: int, n_senders: int, bias: Tensor | float = 0.0) -> Tensor:
        """What some receivers read: (receivers, B, P, M)."""
        now = torch.stack(said[:n_senders])
        if other is None:
            stream = now.sum(0) + bias
            streams.append(stream)
            return stream[None]
        change = (now - other.said[:n_senders]).flatten(1)
        return other.stream[stage] + (keep[:n_senders, columns].T @ change).view(-1, *now.shape[1:])

    if not said:
        said = [model.W_E[prompts.tokens] + model.W_pos[: prompts.tokens.shape[1]]]
    bias = torch.zeros_like(model.b_O[0])
    for layer in range(graph.n_layers):
        start, end = graph.before(layer), graph.before(layer + 1)
        if len(said) < end - 1:  # the heads of this layer are not known yet
            if other is None:
                q = k = v = _norm(model, heard(slice(0), 2 * layer, start, bias))
            else:
                q, k, v = (_norm(model, heard(graph.columns(layer, part), 2 * layer, start)) for part in "qkv")
            said = said[:start] + list(_heads(model, layer, q, k, v))
        bias = bias + model.b_O[layer]
        if len(said) < end:
            x_BPM = _norm(model, heard(graph.columns(layer, "mlp"), 2 * layer + 1, end - 1, bias)[0])
            hidden = torch.nn.functional.gelu(x_BPM @ model.W_in[layer] + model.b_in[layer], approximate="tanh")
            said = [*said[: end - 1], hidden @ model.W_out[layer] + model.b_out[layer]]
    last = heard(graph.columns(graph.n_layers, "logits"), 2 * graph.n_layers, len(said), bias)[0]
    logits = _norm(model, at(last, prompts.positions["END"])) @ model.W_U + model.b_U
    return Run(torch.stack(said), torch.stack(streams) if other is None else last[None], logits)


def _norm(model: Any, x: Tensor) -> Tensor:
    """LayerNorm without gain and bias: compatibility mode has folded them into the next matrix."""
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + model.cfg.eps).sqrt()


def _heads(model: Any, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Float[Tensor, "heads prompts positions model"]:
    """What each head writes. `q`, `k`, `v` are what it reads: (H, B, P, M), or one for all heads."""
    q_HBPD, k_HBPD, v_HBPD = (
        x @ getattr(model, f"W_{name}")[layer][:, None] + getattr(model, f"b_{name}")[layer][:, None, None]
        for x, name in ((q, "Q"), (k, "K"), (v, "V"))
    )
    scores = q_HBPD @ k_HBPD.mT / model.cfg.d_head**0.5
    future = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1)
    z_HBPD = scores.masked_fill(future, -torch.inf).softmax(-1) @ v_HBPD
    return z_HBPD @ model.W_O[layer][:, None]


def edge_attribution(
    model: Any, prompts: Prompts, other: Prompts, metric: Metric
) -> Float[Tensor, "senders receivers"]:
    """What removing each edge would change in the mean metric, to first order: one forward and one backward pass.

    The derivative by `keep` is (what the sender says − what it says on `other`) · the gradient where the receiver
    reads, which is the score of Syed et al. 2023. Edges that do not exist have 0. As with every linear estimate, a
    metric that is flat where it starts (a divergence from the clean run) says nothing.
    """
    graph, counterfactual = wiring(model), run_apart(model, other)
    keep_SR = graph.allowed.to(model.W_E.dtype).requires_grad_()
    with torch.enable_grad():
        value = metric(edge_logits(model, prompts, counterfactual, keep_SR)).mean()
        (gradient,) = torch.autograd.grad(value, keep_SR)
    return -gradient.detach() * graph.allowed


def greedy_removal(
    model: Any,
    prompts: Prompts,
    other: Prompts,
    damage: Callable[[Float[Tensor, "prompts vocab"]], Tensor],
    threshold: float,
    split_qkv: bool = False,
    progress: str | None = None,
) -> Bool[Tensor, "senders receivers"]:
    """The edges that are left when every edge is removed whose removal adds less than `threshold` to the damage.

    Receivers come from the logits backwards, the senders of each from the last to the first. A receiver to which nobody
    listens any more loses its edges without a test. (The procedure of Conmy et al. 2023; the order of senders is ours,
    and the result depends on it.)

    Args:
        damage: from logits to one number, small for the whole model; for example their divergence from the clean run.
        split_qkv: whether queries, keys and values of a head are three receivers, at three times the cost, or one.
        progress: the label of a progress bar over receivers.

    Raises ValueError for a threshold that is not positive: with 0 every edge of the model that helps a little stays.
    """
    if not threshold > 0:
        raise ValueError(f"threshold={threshold}: take a positive number, in the units of `damage`.")
    graph, clean, counterfactual = wiring(model), run_apart(model, prompts), run_apart(model, other)
    keep_SR = graph.allowed.clone()

    def damaged(first: int) -> float:
        with torch.no_grad():
            keep = keep_SR.to(model.W_E.dtype)
            return float(damage(edge_logits(model, prompts, counterfactual, keep, clean.said[:first])))

    now = damaged(len(graph.senders))
    backwards = _receivers_backwards(graph, split_qkv)
    for columns in tqdm(backwards, desc=progress, leave=False, disable=progress is None):
        owner = graph.sender_of(columns[0])
        if owner is not None and not keep_SR[owner].any():
            keep_SR[:, columns] = False
            continue
        # Everything in front of these receivers is as in the clean run: all edges there are still in place.
        first = len(graph.senders) if owner is None else _first_changed(graph, owner)
        for sender in graph.allowed[:, columns[0]].nonzero().flatten().flip(0).tolist():
            keep_SR[sender, columns] = False
            without = damaged(first)
            if without - now < threshold:
                now = without
            else:
                keep_SR[sender, columns] = True
    return keep_SR


def _receivers_backwards(graph: Wiring, split_qkv: bool) -> list[list[int]]:
    """The receivers from the last to the first; those of one head together, unless split."""
    single = [[i] for i in range(len(graph.receivers) - 1, -1, -1)]
    if split_qkv:
        return single
    groups: dict[int | None, list[int]] = {}
    for (i,) in single:
        groups.setdefault(graph.sender_of(i), []).append(i)
    return list(groups.values())


def _first_changed(graph: Wiring, owner: int) -> int:
    """How many senders are computed before this one's layer (before its MLP, if it is one)."""
    if graph.senders[owner].startswith("mlp"):
        return owner
    return graph.before(int(graph.senders[owner].split(".")[0]))


def edge_scores(
    graph: Wiring, edges: Float[Tensor, "senders receivers"] | Bool[Tensor, "senders receivers"], heads: Iterable[Head]
) -> Float[Tensor, " heads"]:
    """The largest edge that leaves each head, in size."""
    rows = edges.float().abs().amax(1)
    return torch.stack([rows[graph.sender(head)] for head in heads])


@dataclass(frozen=True)
class Roc:
    """A curve from (0, 0) to (1, 1): the share of wrong and of right heads found as the bar is lowered; its area."""

    wrong: Float[Tensor, " points"]
    right: Float[Tensor, " points"]
    area: float


def roc(scores: Float[Tensor, " heads"], members: Sequence[bool] | Bool[Tensor, " heads"]) -> Roc:
    """How well `scores` tell members from the others. Equal scores are found together, so the area is 0.5 for chance.

    Raises ValueError if there are only members or none.
    """
    is_member = torch.as_tensor(members).to(scores.device).bool()
    if is_member.all() or not is_member.any():
        raise ValueError(f"members: {int(is_member.sum())} of {len(is_member)}; there is nothing to tell apart.")
    bars = scores.unique().flip(0)  # from the highest
    found = scores[None] >= bars[:, None]
    right, wrong = ((found & group).sum(1) / group.sum() for group in (is_member, ~is_member))
    start = torch.zeros(1, device=scores.device)
    right, wrong = torch.cat([start, right]), torch.cat([start, wrong])
    return Roc(wrong, right, float(torch.trapezoid(right.double(), wrong.double())))
