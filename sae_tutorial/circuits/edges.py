"""Finding a circuit without looking: edges between the parts of a model, what each is worth, and which can go.

A model is a graph. Senders write into the residual stream: the embedding, each head, each MLP. Receivers read from it:
the queries, keys and values of each head, each MLP, the logits. An edge leads from every sender to every receiver
after it, and to remove it means that the receiver reads what the sender writes on *another* prompt, while all others
read what it writes on this one. `edge_logits` is the forward pass with any set of edges removed. On top of it:

    edge_attribution   what removing each edge would change, to first order, all edges from one gradient
    greedy_removal     edges removed one by one, from the logits backwards, as long as the damage stays small
    roc                how well scores of heads find the heads of a circuit that is already known

Sources: Syed et al. 2023 (edge attribution patching), Conmy et al. 2023 (ACDC, the greedy removal). Models of GPT-2's
architecture, loaded in compatibility mode, one sequence of layers with attention before the MLP, without hooks.

Letters of shapes: S senders, R receivers, B prompts, P positions, H heads, D dimension of a head, M of the stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from sae_tutorial.circuits.heads import Head
from sae_tutorial.circuits.patching import Metric, check_shape
from sae_tutorial.circuits.prompts import Prompts, at, end_logits


@dataclass(frozen=True)
class Wiring:
    """All edges of a model. `senders` and `receivers` are in the order of the forward pass.

    Attributes:
        senders: "embed", then for each layer its heads "0.3" and its "mlp 0".
        receivers: for each layer "0.3 q" of all heads, then "k", then "v", then "mlp 0"; at last "logits".
        allowed: (S, R), whether the receiver comes after the sender.
        stages: for the attention and the MLP of each layer, and for the logits: the number of senders before it, and
            its receivers.
    """

    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    allowed: Bool[Tensor, "senders receivers"]
    stages: tuple[tuple[int, slice], ...]

    def sender(self, head: Head) -> int:
        """The place of a head. ValueError for one that the model does not have."""
        name = f"{head[0]}.{head[1]}"
        if name not in self.senders:
            raise ValueError(f"head {name} is none of this model's; its senders are {', '.join(self.senders)}.")
        return self.senders.index(name)


def wiring(model: Any) -> Wiring:
    """The edges of this model. ValueError for an architecture that `edge_logits` does not compute."""
    cfg = model.cfg
    known = {"act_fn": "gelu_new", "positional_embedding_type": "standard"}
    for name, value in known.items():
        if getattr(cfg, name, value) != value:
            raise ValueError(f"model.cfg.{name}={getattr(cfg, name)!r}: edges are known for {value!r} only (GPT-2's).")
    senders, receivers = ["embed"], list[str]()
    stages: list[tuple[int, slice]] = []

    def add(read: list[str], write: list[str]) -> None:
        stages.append((len(senders), slice(len(receivers), len(receivers) + len(read))))
        receivers.extend(read)
        senders.extend(write)

    for layer in range(cfg.n_layers):
        heads, mlp = [f"{layer}.{head}" for head in range(cfg.n_heads)], [f"mlp {layer}"]
        add([f"{head} {part}" for part in "qkv" for head in heads], heads)
        add(mlp, mlp)
    add(["logits"], [])
    allowed = torch.zeros(len(senders), len(receivers), dtype=torch.bool, device=cfg.device)
    for n, reading in stages:
        allowed[:n, reading] = True
    return Wiring(tuple(senders), tuple(receivers), allowed, tuple(stages))


@dataclass(frozen=True)
class Run:
    """One forward pass, taken apart: what each sender wrote, and the stream before each stage."""

    wrote: Float[Tensor, "senders prompts positions model"]
    stream: Float[Tensor, "stages prompts positions model"]
    logits: Float[Tensor, "prompts vocab"]


def run_apart(model: Any, prompts: Prompts) -> Run:
    """A run with every edge in place.

    Raises ValueError if its logits are not the model's own: for an architecture that is not GPT-2's, or with hooks.
    """
    graph = wiring(model)
    with torch.no_grad():
        zero = torch.zeros_like(model.b_O[0])
        biases = [model.b_O[: (stage + 1) // 2].sum(0) + zero for stage in range(len(graph.stages))]  # of no head
        nothing = Run(zero.expand(len(graph.senders), 1, 1, -1), torch.stack(biases)[:, None, None], zero)
        wrote, logits = _run(model, prompts, graph, graph.allowed.to(model.W_E.dtype), nothing, [])
        stream = nothing.stream + torch.stack([wrote[:n].sum(0) for n, _ in graph.stages])
    own = end_logits(model, prompts)
    off = float((logits - own).norm() / own.norm())
    if not off < (1e-3 if own.dtype == torch.float32 else 5e-2):
        raise ValueError(f"model: its parts do not add up to its logits ({off:.1%} off); remove its hooks, if any.")
    return Run(wrote, stream, logits)


def edge_logits(
    model: Any,
    prompts: Prompts,
    other: Run,
    keep: Float[Tensor, "senders receivers"],
    known: Float[Tensor, "known prompts positions model"] | None = None,
) -> Float[Tensor, "prompts vocab"]:
    """Logits at END when edges with `keep` 0 carry what the sender writes in `other`, those with 1 what it writes here.

    Values between mix the two, and gradients reach `keep`. With all edges kept these are the model's own logits, with
    none those of `other`.

    Args:
        other: `run_apart` of a counterfactual of `prompts`.
        known: what the senders before a stage write, if it is known already: it is not computed again.

    Raises ValueError if `other` has another number of prompts or positions.
    """
    check_shape("other", other.wrote[0], (*prompts.tokens.shape, model.cfg.d_model))
    graph = wiring(model)
    check_shape("keep", keep, graph.allowed.shape)
    return _run(model, prompts, graph, keep, other, [] if known is None else list(known))[1]


def _run(
    model: Any, prompts: Prompts, graph: Wiring, keep: Tensor, other: Run, wrote: list[Tensor]
) -> tuple[Float[Tensor, "senders prompts positions model"], Float[Tensor, "prompts vocab"]]:
    """What the senders write, from those on that are not in `wrote` yet, and the logits."""
    wrote = wrote or [model.W_E[prompts.tokens] + model.W_pos[: prompts.tokens.shape[1]]]
    if len(wrote) not in [n for n, _ in graph.stages]:
        raise ValueError(f"known holds {len(wrote)} senders: it must end before a stage; see Wiring.stages.")
    for stage, (n, reading) in enumerate(graph.stages):
        if n == len(wrote):  # later ones are known already
            change = (torch.stack(wrote) - other.wrote[:n]).flatten(1)
            x_RBPM = other.stream[stage] + (keep[:n, reading].T @ change).view(-1, *wrote[0].shape)
            if n < len(graph.senders):
                wrote += (_mlp if stage % 2 else _heads)(model, stage // 2, _norm(model, x_RBPM))
    last_BM = at(x_RBPM[0], prompts.positions["END"])
    return torch.stack(wrote), _norm(model, last_BM) @ model.W_U + model.b_U


def _norm(model: Any, x: Tensor) -> Tensor:
    """LayerNorm without gain and bias: compatibility mode has folded them into the next matrix."""
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + model.cfg.eps).sqrt()


def _heads(model: Any, layer: int, x_RBPM: Tensor) -> list[Float[Tensor, "prompts positions model"]]:
    """What each head writes, from what its queries, keys and values read."""
    q_HBPD, k_HBPD, v_HBPD = (
        x_HBPM @ getattr(model, f"W_{name}")[layer][:, None] + getattr(model, f"b_{name}")[layer][:, None, None]
        for x_HBPM, name in zip(x_RBPM.chunk(3), "QKV")
    )
    scores = q_HBPD @ k_HBPD.mT / model.cfg.d_head**0.5
    future = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1)
    z_HBPD = scores.masked_fill(future, -torch.inf).softmax(-1) @ v_HBPD
    return list(z_HBPD @ model.W_O[layer][:, None])


def _mlp(model: Any, layer: int, x_1BPM: Tensor) -> list[Float[Tensor, "prompts positions model"]]:
    hidden = torch.nn.functional.gelu(x_1BPM[0] @ model.W_in[layer] + model.b_in[layer], approximate="tanh")
    return [hidden @ model.W_out[layer] + model.b_out[layer]]


def edge_attribution(
    model: Any, prompts: Prompts, other: Prompts, metric: Metric
) -> Float[Tensor, "senders receivers"]:
    """What removing each edge would change in the mean metric, to first order: one forward and one backward pass.

    The derivative by `keep` is (what the sender writes − what it writes on `other`) · the gradient where the receiver
    reads, which is the score of Syed et al. 2023. Edges that do not exist have 0. As with every linear estimate, a
    metric that is flat where it starts (a divergence from the clean run) shows nothing.
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

    Receivers come from the logits backwards, the senders of each from the last to the first. A part that nothing reads
    any more loses its edges without a test. (Conmy et al. 2023; the order of senders is ours, and the result depends on
    it.)

    Args:
        damage: from logits to one number, small for the whole model; for example their divergence from the clean run.
        split_qkv: whether queries, keys and values of a head are three receivers, at three times the cost, or one.
        progress: the label of a progress bar over receivers.

    Raises ValueError for a threshold that is not positive (with 0 every edge that helps a little stays), and where the
    damage of the whole model is NaN or infinite.
    """
    if not threshold > 0:
        raise ValueError(f"threshold={threshold}: take a positive number, in the units of `damage`.")
    graph, clean, counterfactual = wiring(model), run_apart(model, prompts), run_apart(model, other)
    keep_SR = graph.allowed.clone()

    def damaged(first: int) -> float:
        with torch.no_grad():
            keep = keep_SR.to(model.W_E.dtype)
            return float(damage(edge_logits(model, prompts, counterfactual, keep, clean.wrote[:first])))

    now = damaged(len(graph.senders))
    if not math.isfinite(now):
        raise ValueError(f"damage is {now} for the whole model; it must be a finite number.")
    backwards = list(_receivers_backwards(graph, split_qkv))
    for first, owner, columns in tqdm(backwards, desc=progress, leave=False, disable=progress is None):
        if owner < len(graph.senders) and not keep_SR[owner].any():
            keep_SR[:, columns] = False
            continue
        for sender in range(first - 1, -1, -1):  # all edges between these are in place still, as in the clean run
            keep_SR[sender, columns] = False
            without = damaged(first)
            if without - now < threshold:
                now = without
            else:
                keep_SR[sender, columns] = True
    return keep_SR


def _receivers_backwards(graph: Wiring, split_qkv: bool) -> Iterator[tuple[int, int, list[int]]]:
    """(senders before it, the sender that it is, its columns) of each receiver, from the last to the first."""
    for n, reading in reversed(graph.stages):
        columns = list(range(reading.start, reading.stop))
        parts = max(1, len(columns) // 3)  # heads; one MLP or the logits
        groups = [[i] for i in columns] if split_qkv else [columns[part::parts] for part in range(parts)]
        for i, group in reversed(list(enumerate(groups))):
            yield n, n + i % parts, group


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
    right, wrong = (torch.cat([rate.new_zeros(1), rate]) for rate in (right, wrong))
    return Roc(wrong, right, float(torch.trapezoid(right.double(), wrong.double())))
