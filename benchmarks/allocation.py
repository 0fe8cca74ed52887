"""How fast are the allocation rules and the sparse products, beside what one would write without them?

    python benchmarks/allocation.py                  both shapes, results/allocation.json (1 minute)
    python benchmarks/allocation.py --device cuda    the same on a GPU, affinities in bfloat16

Contenders take turns within one run, so a busy machine slows them alike: trust the ratios, not the milliseconds. Every
rule's matches are compared with its contender's before anything is timed. `one read` is the largest entry of the table,
found in one pass over it: what no selection can be faster than. On a GPU ours runs with its Triton kernels and without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import common
import torch

from sae_tutorial import SAEConfig, allocation
from sae_tutorial.allocation import kernels

Contenders = dict[str, Callable[[], object]]
# Question -> how many times as fast ours is to be.
BARS = {"mutual choice": 8, "feature choice": 3}


def scatter(affinities, best, flat=False):
    """Dense codes from the answer of topk."""
    dense = torch.zeros_like(affinities)
    target = dense.view(-1) if flat else dense
    target.scatter_(0 if flat else 1, best.indices, best.values)
    return dense


def by_column_topk(affinities, capacity):
    """Feature Choice without an allocator: the largest capacity's top-k for every column, then a mask."""
    largest = int(capacity.max())
    best = affinities.topk(largest, dim=0)
    within = torch.arange(largest, device=affinities.device)[:, None] < capacity
    return torch.zeros_like(affinities).scatter_(0, best.indices, best.values * within)


def flat_topk(affinities, n_matches):
    """Mutual Choice without an allocator, as BatchTopK does it everywhere."""
    return scatter(affinities, affinities.flatten().topk(n_matches, sorted=False), flat=True)


def a_table(n_tokens: int, n_features: int, device: str) -> torch.Tensor:
    """Affinities; in bfloat16 on a GPU, where training makes them in it."""
    generator = torch.Generator(device).manual_seed(0)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    return torch.randn(n_tokens, n_features, generator=generator, device=device, dtype=dtype).relu_()


def a_capacity(n_features: int, n_tokens: int, k: int, device: str) -> torch.Tensor:
    """The Zipf budget that training starts with, ranks in random order."""
    law = SAEConfig(1, n_features, "feature_choice", k)
    capacity = allocation.zipf_capacity(n_features, k * n_tokens, n_tokens, law.zipf_exponent, law.zipf_offset)
    return capacity[torch.randperm(n_features, generator=torch.Generator().manual_seed(0))].to(device)


def questions(d_in: int, n_features: int, n_tokens: int, k: int, device: str) -> dict[str, Contenders]:
    """For each question its contenders; the first is the usual way, the second is ours."""
    generator = torch.Generator(device).manual_seed(1)
    z = a_table(n_tokens, n_features, device)
    W_dec = torch.randn(n_features, d_in, generator=generator, device=device)
    W_enc = torch.randn(n_features, d_in, generator=generator, device=device).T  # a feature's weights side by side
    x, b_enc = torch.randn(n_tokens, d_in, generator=generator, device=device), torch.zeros(n_features, device=device)
    capacity = a_capacity(n_features, n_tokens, k, device)
    codes = allocation.mutual_choice(z, k * n_tokens)
    codes = codes.with_values(codes.values.float())
    dense = codes.to_dense()

    def gradients(run, *leaves):
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        return torch.autograd.grad(run(*leaves).sum(), leaves)

    asked: dict[str, Contenders] = {
        "mutual choice": {
            "flat topk + scatter": lambda: flat_topk(z, k * n_tokens),
            "mutual_choice": lambda: allocation.mutual_choice(z, k * n_tokens),
            "one read": lambda: z.amax(),
        },
        "token choice": {
            "topk + scatter": lambda: scatter(z, z.topk(k, dim=1, sorted=False)),
            "token_choice": lambda: allocation.token_choice(z, k),
            "one read": lambda: z.amax(),
        },
        "feature choice": {
            "topk(max capacity, dim=0) + mask": lambda: by_column_topk(z, capacity),
            "feature_choice": lambda: allocation.feature_choice(z, capacity),
            "one read": lambda: z.amax(),
        },
        "decoder, forward and backward": {
            "dense product": lambda: gradients(lambda c, W: c @ W, dense, W_dec),
            "codes @ W_dec": lambda: gradients(lambda v, W: codes.with_values(v) @ W, codes.values, W_dec),
        },
        "encoder, backward": {
            "dense product": lambda: (x.T @ dense, dense.sum(0)),
            "encode_matches": lambda: gradients(
                lambda W, b: allocation.encode_matches(x, W, b, codes, rescore=False).values, W_enc, b_enc
            ),
        },
    }
    if device == "cuda":
        for contenders in asked.values():
            ours = list(contenders)[1]
            contenders[f"{ours}, kernels off"] = without_kernels(contenders[ours])
    return asked


def without_kernels(run: Callable[[], object]) -> Callable[[], object]:
    def plain() -> object:
        with kernels.use(False):
            return run()

    return plain


def check(question: str, contenders: Contenders) -> str:
    """Run each once, which also warms up. The rules must find equally strong matches; which of two equal ones they
    take, topk does not promise. Answers why the usual way cannot be measured, if it cannot (on large tables)."""
    usual, ours, *others = contenders.values()
    found = ours()
    for other in (run() for run in others):
        if isinstance(other, allocation.SparseCodes) and not torch.equal(other.features, found.features):
            raise AssertionError(f"{question}: with kernels and without, the matches differ")
    try:
        expected = usual()
        if isinstance(found, allocation.SparseCodes):
            strongest = expected[expected > 0].sort().values
            if not torch.equal(strongest, found.values.to(strongest.dtype).sort().values):
                raise AssertionError(f"{question}: the two contenders differ")
    except RuntimeError as error:
        return str(error).splitlines()[0][:120]
    return ""


def measure(shape: tuple[int, int, int, int], rounds: int, device: str) -> tuple[list[dict], list[dict], list[list]]:
    raw, targets, rows = [], [], []
    where, n_bytes = common.at(shape), shape[1] * shape[2] * (2 if device == "cuda" else 4)
    for question, contenders in questions(*shape, device).items():
        names = list(contenders)
        failed = check(question, contenders)
        if failed:
            contenders.pop(names[0])
        taken = common.take_turns({n: common.timed(run, device) for n, run in contenders.items()}, rounds, question)
        ratio = None if failed else common.ratio(taken[names[0]], taken[names[1]])
        bar: dict[str, Any] = {"at_least": BARS[question]} if question in BARS and device == "cpu" else {}
        targets.append(common.target(f"{names[1]}, faster than {names[0]}", where, ratio, note=failed, **bar))
        for name, times in taken.items():
            of = common.spread(times)
            speed = f"{n_bytes / of['median'] / 1e6:.1f}" if "one read" in names and name != names[0] else ""
            rows.append([question, name, f"{of['median']:.1f}", f"{of['low']:.1f} to {of['high']:.1f}", speed])
        raw.append({"at": where, "question": question, "milliseconds": taken, "failed": failed})
    return raw, targets, rows


def main() -> None:
    args = common.parser(__doc__).parse_args()
    device = common.device_of(args)
    described = common.machine(device)
    raw, targets, tables = [], [], []
    for shape in common.shapes_of(args):
        some_raw, some_targets, rows = measure(shape, min(args.rounds, 2) if args.quick else args.rounds, device)
        raw, targets = raw + some_raw, targets + some_targets
        columns = ["question", "contender", "ms, median", "ms, all rounds", "GB of the table per second"]
        tables.append(common.table(f"Allocation and sparse products at {common.at(shape)}", columns, rows))
    question = "milliseconds of selection and of the sparse products, beside the usual way"
    settings = {"rounds": args.rounds}
    common.finish(args, "allocation", question, described, raw=raw, settings=settings, tables=tables, targets=targets)


if __name__ == "__main__":
    main()
