"""Exercises of the gallery's notebooks on attention: which earlier positions a query may look at."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sae_tutorial.course.judge import Verdict, judge, numbers_like

# Routing Transformer: what clusters let whom see.


def check_routing_mask(answer: Any) -> Verdict:
    """`answer(to_q, to_k, w)`: queries' and keys' scores for centroids (T, C) -> (T, T), True where t may see s."""
    generator = torch.Generator().manual_seed(3)
    to_q, to_k, w = torch.randn(8, 3, generator=generator), torch.randn(8, 3, generator=generator), 4
    right = solution_routing_mask(to_q, to_k, w)
    in_q, in_k = _members(to_q, w).float(), _members(to_k, w).float()
    own = _members(to_q.T, 1).T.float() @ _members(to_k.T, 1).float()
    wrong = {
        "a query sees keys that come after it: keep s ≤ t": (in_q @ in_k.T) > 0,
        "a position may see itself: keep s = t too": right.tril(-1),
        "rows are queries, columns keys; yours seems to be the other way round": (in_k @ in_q.T > 0).tril(),
        "the w largest scores of a cluster are its members, not the w smallest": solution_routing_mask(-to_q, -to_k, w),
        "it counts shared clusters; one is enough to be seen": (in_q @ in_k.T).tril(),
        "one shared cluster is enough; yours asks for the same clusters": (in_q[:, None] == in_k).all(-1).tril(),
        "every earlier key is seen; which clusters is it in?": torch.ones(8, 8).tril(),
        "each cluster chooses w positions; yours lets positions choose clusters": (own > 0).tril(),
    }
    tests = numbers_like(
        lambda answer: answer(to_q.clone(), to_k.clone(), w),
        right,
        wrong,
        "return True or False for each query and key, here (8, 8)",
        f"query 7 should see keys {right[7].nonzero().flatten().tolist()}",
    )
    hints = (
        "Make two tables of members, positions × clusters: True where a position is among the w of a cluster.",
        "One table times the other, transposed, counts shared clusters. tril() takes the future away.",
    )
    praise = "No query was compared with all keys, only with centroids: that is where the cost is saved."
    return judge("The exercise", answer, tests, hints, praise)


def solution_routing_mask(to_q: Tensor, to_k: Tensor, w: int) -> Tensor:
    shared = _members(to_q, w).float() @ _members(to_k, w).float().mT
    return (shared > 0).tril()


def _members(scores: Tensor, w: int) -> Tensor:
    """(..., T, C): True where a position is among the w largest of a cluster."""
    largest = scores.topk(w, dim=-2).indices
    return torch.zeros_like(scores).scatter(-2, largest, 1.0) > 0


# SEA: bins over the past of a query, stretched over its keys.


def check_stretch(answer: Any) -> Verdict:
    """`answer(mass)`: the mass of K bins for each of T queries, (T, K) -> (T, T): for query t and key s ≤ t the mass of
    bin ⌊sK / (t + 1)⌋, and 0 for keys to come."""
    mass = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) + 0.1
    t, s = torch.arange(6)[:, None], torch.arange(6)

    def by(bin_of: Tensor, past: Tensor = s <= t) -> Tensor:
        return mass.gather(-1, bin_of.clamp(0, 3).expand(6, 6)) * past

    right = solution_stretch(mass)
    wrong = {
        "keys to come must have 0": by(s * 4 // (t + 1), torch.ones(6, 6)),
        "those bins cover the whole row; they are to cover keys 0 to t of query t": by(s * 4 // 6),
        "query t has t + 1 keys, with its own": by(s * 4 // t.clamp(min=1)),
        "a query may look at itself": by(s * 4 // (t + 1), s < t),
        "that counts bins from the newest key back; bin 0 holds key 0": by((t - s) * 4 // (t + 1)),
        "rows are queries and columns are keys; yours are the other way round": right.T,
    }
    tests = numbers_like(
        lambda answer: answer(mass.clone()),
        right,
        wrong,
        "return a number for each query and key, here (6, 6)",
        f"key 3 of query 5 is in bin 2 of 4, with a mass of {right[5, 3]:.3f}; yours says {{0[5][3]:.3f}}",
    )
    hints = (
        "Make the table of bin numbers first: t is a column, s a row, and `//` rounds down.",
        "`mass.gather(-1, bins)` reads for each query the mass of the bins in its row.",
    )
    praise = "Each query has bins of its own, as wide as its past is long."
    return judge("The exercise", answer, tests, hints, praise)


def solution_stretch(mass: Tensor) -> Tensor:
    T, K = mass.shape[-2:]
    t, s = torch.arange(T)[:, None], torch.arange(T)
    bin_of = (s * K // (t + 1)).clamp(max=K - 1)
    return mass.gather(-1, bin_of.expand(*mass.shape[:-2], T, T)) * (s <= t)
