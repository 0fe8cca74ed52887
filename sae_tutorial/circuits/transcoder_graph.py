"""The circuit behind a reading: the strongest paths that lead to it, and the graph that they make together.

    steps = strongest_paths(trace, trace.logit(position, right, wrong), Node("logit", 4, position, right))
    graph = merged(steps)

A path begins at what is asked about and goes back through features, heads and skip paths to embeddings, errors and
biases. Of the parts of each step the largest are kept, and paths are merged where they meet: Dunefsky, Chlenski & Nanda
2024. That the largest step is read further first, whatever its depth, is our choice. What is not kept is summed up as
the rest of its step, so every value is, to rounding, the sum of what is shown behind it and of its rest.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from dataclasses import dataclass, replace

from sae_tutorial.activations.arguments import as_whole
from sae_tutorial.circuits.transcoder_circuits import FURTHER, Node, Reading, Trace


@dataclass(frozen=True)
class Step:
    """One node on one path.

    value: what it adds to what is asked about along this path.
    parent: which step it adds to; None for the first.
    rest: what parts that were not kept add to it; None where it was not read further.
    """

    node: Node
    value: float
    parent: int | None
    rest: float | None = None


@dataclass(frozen=True)
class Graph:
    """Paths with their common nodes merged: plain data, in the order in which they were found.

    nodes: what each adds to what is asked about along all paths that were followed.
    edges: (from, to) -> the same, of what goes directly from one to the other. Those that end at a node add up to its
        value, with its rest, where it was read further on every path.
    rest: what is not shown behind those that were read further.
    """

    nodes: dict[Node, float]
    edges: dict[tuple[Node, Node], float]
    rest: dict[Node, float]


def strongest_paths(trace: Trace, reading: Reading, start: Node, *, expand: int = 20, branches: int = 5) -> list[Step]:
    """The steps of the strongest paths to `reading`, the first of which is `start`, a name for it.

    expand: how many steps are read further, the largest first.
    branches: how many parts of each are kept, the largest.

    Raises ValueError or TypeError for numbers below 1.
    """
    expand, branches = as_whole("expand", expand, least=1), as_whole("branches", branches, least=1)
    steps, readings = [Step(start, trace.parts(reading).total, None)], {0: reading}
    waiting = [(-abs(steps[0].value), 0)]
    for _ in range(expand):
        if not waiting:
            break
        _, i = heapq.heappop(waiting)
        kept = trace.parts(readings[i]).strongest(branches)
        steps[i] = replace(steps[i], rest=steps[i].value - sum(value for _, value in kept))
        for node, value in kept:
            if node.kind in FURTHER:
                readings[len(steps)] = trace.through(node, readings[i])
                heapq.heappush(waiting, (-abs(value), len(steps)))
            steps.append(Step(node, value, i))
    return steps


def merged(steps: list[Step], least: float = 0.0) -> Graph:
    """The graph of these steps, without those of a size below `least` and what lies behind them, which goes to the rest
    of what they add to."""
    nodes: dict[Node, float] = defaultdict(float)
    edges: dict[tuple[Node, Node], float] = defaultdict(float)
    rest: dict[Node, float] = defaultdict(float)
    shown: set[int] = set()
    for i, step in enumerate(steps):  # parents come before their parts
        if step.parent is not None and step.parent not in shown:
            continue
        if step.parent is not None and abs(step.value) < least:
            rest[steps[step.parent].node] += step.value
            continue
        shown.add(i)
        nodes[step.node] += step.value
        if step.parent is not None:
            edges[step.node, steps[step.parent].node] += step.value
        if step.rest is not None:
            rest[step.node] += step.rest
    return Graph(dict(nodes), dict(edges), dict(rest))
