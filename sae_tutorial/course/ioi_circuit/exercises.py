"""Exercises of notebook 08: two predictions, patching heads and paths, a biased mean, and heads that a circuit lacks.

Letters of shapes: B sentences, H heads of a layer, T positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sae_tutorial.circuits.heads import Head
from sae_tutorial.circuits.ioi import ROLES, Sentences, logit_difference
from sae_tutorial.circuits.patching import (
    Donor,
    Site,
    activations,
    all_heads,
    foremost_heads,
    head_site,
    patch_each,
    patch_hooks,
    patched_logits,
)
from sae_tutorial.circuits.prompts import Hook, end_logits
from sae_tutorial.course.ioi_circuit.heads import label
from sae_tutorial.course.judge import Verdict, judge


def _same(found: Tensor, want: Tensor) -> bool:
    """Logits, as far as rounding goes."""
    return found.shape == want.shape and torch.allclose(found.to(want), want, atol=5e-3, rtol=1e-3)


def _like(found: Tensor, mistakes: Mapping[str, Callable[[], Tensor]]) -> str | None:
    """The first of `mistakes` that gives what was found; each is tried only then."""
    for says, make in mistakes.items():
        if _same(found, make()):
            return says
    return None


def _numbers(got: Any, shape: tuple[int, ...], what: str) -> Tensor | str:
    """`got`, a tensor, an array or lists of numbers, as a tensor of this shape; or what is wrong with it."""
    if isinstance(got, (list, tuple)) and got and all(isinstance(one, Tensor) for one in got):
        got = torch.stack(list(got))
    elif isinstance(got, (list, tuple, np.ndarray)):
        got = torch.from_numpy(np.asarray(got, dtype=np.float32))
    if isinstance(got, Tensor) and tuple(got.shape) == shape:
        return got
    found = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
    return f"Return {what}, a tensor of shape {shape}; yours is {found}."


def check_columns(answer: Sequence[str] | None) -> Verdict:
    """The roles whose columns are zero when single activations of the original are put into the swapped run."""

    def right(roles: Any) -> str | None:
        if isinstance(roles, str):
            roles = [roles]
        if not isinstance(roles, (list, tuple, set)) or not {str(role).upper() for role in roles} <= set(ROLES):
            return f"Answer with a list of some of {list(ROLES)}, not {roles!r}."
        given = {role.upper() for role in roles}
        if "S2" in given:
            return "S2 is the token that differs. Put the original's activation there, and the giver is back."
        if "END" in given:
            return "END is the same token in both, but it comes after S2. What can a head put there?"
        missing = [role for role in solution_columns() if role not in given]
        if "S1+1" in missing:
            return "S1+1 comes before S2. Can anything there depend on the giver?"
        if missing:
            return "Roles trade, tokens do not: which tokens stand at IO and at S1 in the swapped sentence?"
        return None

    return judge(
        "Exercise 1",
        answer,
        [right],
        hints=(
            "Write both sentences below each other. From which token on can the model know which one it reads?",
            "Attention looks back only. An activation that is the same in both runs changes nothing when it is put in.",
        ),
        praise="No token before S2 knows which of the two sentences it is in.",
    )


def solution_columns() -> list[str]:
    return ["IO", "S1", "S1+1"]


# A position taken for a head changes nothing: up to S2 both runs are the same.
NOTHING = {
    "z": "Nothing has changed. Does the hook return what it changed? z is (B, T, H, d_head): heads are in dimension 2.",
    "pattern": "z is right. A pattern is (B, H, T, T): its heads are in another dimension; you replaced a position.",
}


LAST = "You took index `number` of the last dimension, one of the d_head numbers of every head. Heads come before that."


def _last(site: Site, donor: Donor, acts: Tensor, hook: Any = None) -> Tensor:
    """What `site.put` does, but with the head's number as an index of the last dimension."""
    acts = acts.clone()
    acts[..., site.head] = donor[site.hook_name][..., site.head]
    return acts


ONE_POSITION = "You changed one position, the last. A head's output comes in at all of them."
AT_S2 = "You changed one position, S2. A head's output comes in at all of them."


def _at_the_end(site: Site, part: str, donor: Donor, acts: Tensor, hook: Any = None) -> Tensor:
    """What `site.put` does, but at the last position only."""
    acts = acts.clone()
    here = (slice(None), site.head, -1) if part == "pattern" else (slice(None), -1, site.head)
    acts[here] = donor[site.hook_name][here]
    return acts


def _at_s2(run: Sentences, sites: Sequence[Site]) -> list[Site]:
    """The same sites at S2 only, which is the natural idea after exercise 1."""
    return [replace(site, positions=run.positions["S2"]) for site in sites]


CHANGE = "That is by how much the difference changes; the logit difference itself is asked for."
TURNED = "You took the layer for the number and the number for the layer: {} is (layer, number)."
LATE = (
    "A later turn of the loop changed what this hook sees: a function looks up names when it is called. Bind them with "
    "defaults, such as `name=name`."
)
KEPT_AND_LATE = (
    "Two things at once: hooks of the first turn are still in your list in the second, and they see the second turn's "
    "head. Make the list anew in each turn, and bind names with defaults, such as `name=name`."
)


def _telling_heads(model: Any, run: Sentences, source: Sentences, difference: Callable[..., Tensor]) -> list[Head]:
    """Two heads that matter, in different layers. Neither is number 0 nor has the number of its layer: an answer that
    always takes head 0, or takes the layer for the head, would be right for such a head."""
    found: dict[int, Head] = {}
    for head in foremost_heads(model, run, source, difference, 8):
        if head[1] not in (0, head[0]):
            found.setdefault(head[0], head)
    return list(found.values())[:2] if len(found) > 1 else foremost_heads(model, run, source, difference, 2)


def _farthest(got: Tensor, want: Tensor) -> str:
    """Where two lists of differences, (B,) each, differ most."""
    i = int((got - want).abs().argmax())
    return (
        f"sentence {i} should have {float(want[i]):.2f}, not {float(got[i]):.2f}: the largest deviation of {len(got)}."
    )


def check_patch_heads(answer: Callable[..., Any] | None, model: Any, run: Sentences, source: Sentences) -> Verdict:
    """A function (run, donor, heads, part) -> (heads, B) logit differences, by the names of `source`, on `run` when one
    part of one head at a time comes from `donor`, which holds activations of `source`."""
    difference = partial(logit_difference, sentences=source)
    heads = _telling_heads(model, run, source, difference)
    turned = [(number, layer) for layer, number in heads]
    layers = sorted({layer for layer, _ in heads + turned} & set(range(model.cfg.n_layers)))
    donor = activations(model, source, [f"blocks.{i}.attn.hook_{part}" for i in layers for part in ("z", "pattern")])

    def case(part: str) -> Callable[[Any], str | None]:
        def right(patch_heads: Callable[..., Any]) -> str | None:
            before = {name: acts.clone() for name, acts in donor.items()}
            got = _numbers(patch_heads(run, before, heads, part), (len(heads), len(run)), "one row for each head")
            if isinstance(got, str):
                return got + " (Keep the sentences: no mean.)" * got.endswith(f"is ({len(heads)},).")
            sites = [head_site(part, head) for head in heads]
            if _same(got, patch_each(model, run, sites, donor, difference)):
                if any(not torch.equal(before[name], donor[name]) for name in donor):
                    return "The values are right, but you wrote into the donor: change acts, not what it comes from."
                return None
            plain = [end_logits(model, prompts) for prompts in (run, source)]
            unpatched, whole = (difference(logits).expand(len(heads), -1) for logits in plain)
            last = sites[-1]
            wrong: dict[str, Callable[[], Tensor]] = {
                NOTHING[part]: lambda: unpatched,
                "Nothing can change: you run the sentences that the donor comes from. Run `run`.": lambda: whole,
                "You replaced all heads of the layer; one head is one index of one dimension.": lambda: patch_each(
                    model, run, [Site(site.hook_name) for site in sites], donor, difference
                ),
                "You always replace head 0: a head is a pair of layer and number.": lambda: patch_each(
                    model, run, [Site(site.hook_name, 0) for site in sites], donor, difference
                ),
                LAST: lambda: torch.stack(
                    [
                        difference(end_logits(model, run, [(site.hook_name, partial(_last, site, donor))]))
                        for site in sites
                    ]
                ),
                ONE_POSITION: lambda: torch.stack(
                    [
                        difference(end_logits(model, run, [(site.hook_name, partial(_at_the_end, site, part, donor))]))
                        for site in sites
                    ]
                ),
                LATE: lambda: torch.stack(
                    [
                        difference(
                            end_logits(model, run, [(site.hook_name, partial(last.put, new=donor[last.hook_name]))])
                        )
                        for site in sites
                    ]
                ),
                "z is right, and you return it for every part: build the hook's name from `part`.": lambda: patch_each(
                    model, run, [head_site("z", head) for head in heads], donor, difference
                ),
                "The first head is right, and stays patched when it is the second one's turn.": lambda: torch.stack(
                    [difference(patched_logits(model, run, sites[: i + 1], donor)) for i in range(len(sites))]
                ),
                AT_S2: lambda: patch_each(model, run, _at_s2(run, sites), donor, difference),
                KEPT_AND_LATE: lambda: torch.stack(
                    [
                        difference(
                            end_logits(
                                model,
                                run,
                                [
                                    (site.hook_name, partial(now.put, new=donor[now.hook_name]))
                                    for site in sites[: i + 1]
                                ],
                            )
                        )
                        for i, now in enumerate(sites)
                    ]
                ),
            }
            if set(turned) <= set(all_heads(model)):
                wrong[TURNED.format("a head")] = lambda: patch_each(
                    model, run, [head_site(part, head) for head in turned], donor, difference
                )
            want = patch_each(model, run, sites, donor, difference)
            if _same(got, -want):
                return "The signs are turned: ask for the names of the original, as `difference` does."
            if _same(got + unpatched, want):
                return CHANGE
            worst = int((got - want).abs().amax(1).argmax())
            return _like(got, wrong) or (f"For {part} of {label(heads[worst])} {_farthest(got[worst], want[worst])}")

        return right

    return judge(
        "Exercise 2",
        answer,
        [case("z"), case("pattern")],
        hints=(
            "A hook is a pair (name, function of acts and hook); print acts.shape in it for z and for the pattern.",
            "Clone acts, replace one head, return it. A pattern is (B, H, T, T), z is (B, T, H, d_head).",
        ),
        praise="Activation patching, for any part of any head.",
    )


def solution_patch_heads(
    run: Sentences,
    donor: Donor,
    heads: Sequence[Head],
    part: str = "z",
    *,
    model: Any,
    difference: Callable[..., Tensor],
) -> Tensor:
    found = []
    for layer, number in heads:
        name = f"blocks.{layer}.attn.hook_{part}"
        here = (slice(None), number) if part == "pattern" else (slice(None), slice(None), number)

        def put(acts: Tensor, hook: Any, name: str = name, here: Any = here) -> Tensor:
            acts = acts.clone()
            acts[here] = donor[name][here]
            return acts

        found.append(difference(end_logits(model, run, [(name, put)])))
    return torch.stack(found)


def check_path_to_answer(
    answer: Callable[..., Any] | None, model: Any, prompts: Sentences, other: Sentences
) -> Verdict:
    """A function (sender, own, others) -> (B,) logit differences when everything in `own` is frozen, but for the
    sender's z, which comes from `others`."""
    difference = partial(logit_difference, sentences=prompts)
    senders = _telling_heads(model, prompts, other, difference)[::-1]  # late ones first: they reach the answer
    layers = range(model.cfg.n_layers)
    z_names, mlp_names = ([f"blocks.{i}.{end}" for i in layers] for end in ("attn.hook_z", "hook_mlp_out"))
    own, others = activations(model, prompts, z_names + mlp_names), activations(model, other, z_names)

    def case(names: list[str], sender: Head) -> Callable[[Any], str | None]:
        frozen = {name: own[name] for name in names}
        site = head_site("z", sender)

        def right(path: Callable[..., Any]) -> str | None:
            given = {name: acts.clone() for name, acts in frozen.items()}
            got = _numbers(path(sender, given, dict(others)), (len(prompts),), "one difference for each sentence")
            if isinstance(got, str):
                return got
            run = partial(end_logits, model, prompts)
            solve = partial(solution_path_to_answer, model=model, prompts=prompts, difference=difference)
            want = solve(sender, frozen, others)
            if any(not torch.equal(given[name], frozen[name]) for name in frozen):
                return "You wrote into own, and the next head would find it changed: clone before you put anything in."
            if _same(got, want):
                return None
            if _same(got + difference(run()), want):
                return CHANGE
            held = frozen | {site.hook_name: site.put(frozen[site.hook_name], others[site.hook_name])}
            last = held[z_names[-1]]
            wrong: dict[str, Callable[[], Tensor]] = {
                "Nothing has changed. Does the hook return what you patched? z is (B, T, H, d_head): a sender is one "
                "index of dimension 2.": lambda: difference(run()),
                "The others were not frozen: every hook of own puts in what own holds.": lambda: difference(
                    run(patch_hooks([site], others))
                ),
                "All your hooks put in the same tensor, that of the last turn of the loop: a function looks up `held` "
                "when it is called. Bind it with a default, `held=held`.": lambda: difference(
                    run([(name, lambda acts, hook: last) for name in z_names])
                ),
                "You always replace head 0: a sender is a pair of layer and number.": lambda: solve(
                    (sender[0], 0), frozen, others
                ),
                "You took all heads of the sender's layer from others; the sender is one of them.": lambda: difference(
                    run(patch_hooks([Site(name) for name in frozen], held | {site.hook_name: others[site.hook_name]}))
                ),
                LAST: lambda: difference(
                    run(
                        patch_hooks(
                            [Site(name) for name in held],
                            held | {site.hook_name: _last(site, others, frozen[site.hook_name])},
                        )
                    )
                ),
                ONE_POSITION: lambda: difference(
                    run(
                        patch_hooks(
                            [Site(name) for name in held],
                            held | {site.hook_name: _at_the_end(site, "z", others, frozen[site.hook_name])},
                        )
                    )
                ),
                "The wrong way round: the sender comes from others, all else stays as own has it.": lambda: solve(
                    sender, frozen | dict(others), own
                ),
                "With MLPs in own, too, they must be frozen as the heads are: loop over all of own.": lambda: solve(
                    sender, {name: own[name] for name in z_names}, others
                ),
            }
            if (turned := sender[::-1]) in all_heads(model):
                wrong[TURNED.format("a sender")] = lambda: solve(turned, frozen, others)
            return _like(got, wrong) or f"For {label(sender)} {_farthest(got, want)}"

        return right

    return judge(
        "Exercise 3",
        answer,
        [case(names, sender) for names in (z_names, z_names + mlp_names) for sender in senders],
        hints=(
            "One hook for each entry of own. Which one of them holds the sender?",
            "held = acts.clone() for each entry; in the sender's layer held[:, :, number] comes from others. Each hook "
            "returns its own held.",
        ),
        praise="One path, and nothing else: what is frozen cannot pass the change on.",
    )


def solution_path_to_answer(
    sender: Head, own: Donor, others: Donor, *, model: Any, prompts: Sentences, difference: Callable[..., Tensor]
) -> Tensor:
    layer, number = sender
    hooks: list[Hook] = []
    for name, acts in own.items():
        held = acts.clone()
        if name == f"blocks.{layer}.attn.hook_z":
            held[:, :, number] = others[name][:, :, number]
        hooks.append((name, lambda acts, hook, held=held: held))
    return difference(end_logits(model, prompts, hooks))


WORDS, PARTS = ("up", "down", "stays"), ("the heads", "the MLPs")


def check_prediction(answer: tuple[str, str] | None, change: float, by_heads: float, by_mlps: float) -> Verdict:
    """What the difference does (one of WORDS), and whose direct share makes most of it (one of PARTS), against the
    changes that were measured, in logits. A wrong answer is not told them."""
    word, part = solution_prediction(change, by_heads, by_mlps)
    why_not = {
        "stays": "That is what direct attribution says. Who reads these heads' outputs before the logits do?",
        "down": "The heads that make the difference are still there; these add nothing to it directly.",
        "up": "What would make it rise? Follow what the last layer reads.",
    }

    def right(pair: Any) -> str | None:
        said = [_known(one, WORDS + PARTS) for one in pair] if isinstance(pair, (tuple, list)) else []
        if len(said) != 2 or said[0] not in WORDS or said[1] not in PARTS:
            return f"Answer with a pair, one of {WORDS} and one of {PARTS}, not {pair!r}."
        if said[0] != word:
            return f'Not "{said[0]}". {why_not[said[0]]}'
        return None if said[1] == part else f'"{word}" is right, but not by way of {said[1]}.'

    return judge(
        "Exercise 4",
        answer,
        [right],
        hints=(
            "They raise both names by nearly the same. Some parts of the model read the residual stream after them.",
            "Nothing that reads a sum of two names must treat them alike. Which parts amplified what 2.0 wrote?",
        ),
        praise=f"The difference changes by {change:+.2f} logits: {by_mlps:+.2f} through the MLPs' direct shares, "
        f"{by_heads:+.2f} through those of heads.",
    )


def _known(said: Any, words: Sequence[str]) -> str | None:
    """The one of `words` that was meant, in capitals or not, with "the" or without, one or several."""
    plain = str(said).lower().strip().removeprefix("the ")
    return next((word for word in words if word.lower().removeprefix("the ") in (plain, f"{plain}s")), None)


def solution_prediction(change: float, by_heads: float, by_mlps: float) -> tuple[str, str]:
    if change != change:
        raise ValueError("change=nan: there is no change to predict.")
    word = "stays" if abs(change) < 0.5 else ("up" if change > 0 else "down")
    return word, PARTS[abs(by_mlps) > abs(by_heads)]


LEAST = (0.2, 0.25, 0.5, 1, 2)  # denominators at which learners stop
LARGEST = (1.25, 1.5, 2, 3, 5, 10)  # and ratios
ADDED = (1e-4, 1e-3, 0.01, 0.05, 0.1, 0.2, 0.5, 1, 2)  # constants that they add to a denominator


def check_faithfulness(answer: Callable[[Tensor, Tensor, Tensor], Any] | None) -> Verdict:
    """The mended function (circuit, whole, nothing), (B,) each -> share of the way from nothing to the whole model."""
    circuit, whole = torch.tensor([6.0, 7.0, 5.0, 4.0]), torch.tensor([8.0, 9.0, 7.0, 1.1])
    nothing = torch.tensor([0.0, 1.0, -1.0, 1.0])
    want = float(solution_faithfulness(circuit, whole, nothing))

    def right(faithfulness: Callable[..., Any]) -> str | None:
        got = faithfulness(circuit, whole, nothing)
        if isinstance(got, Tensor) and got.numel() != 1:
            return f"One number for all sentences, please; yours has {got.numel()}."
        got, ratios = float(got), (circuit - nothing) / (whole - nothing)
        if abs(got - want) < 1e-4:
            return None
        if abs(got - 100 * want) < 1e-2:
            return "That is in percent. The whole model should have 1."
        if abs(got - 1 / want) < 1e-4:
            return "Turned round: the circuit belongs above the line, the whole model below it."
        if abs(got - float(ratios.mean())) < 1e-3:
            return "That is still the bug. Look at the single ratios of four sentences: 0.75, 0.75, 0.75 and 30."
        if abs(got - float(circuit.mean() / whole.mean())) < 1e-4:
            return "The scale must begin at no heads at all: a circuit that does nothing should have 0."
        if abs(got - float((circuit / whole).mean())) < 1e-4:
            return "Still a mean of ratios, and the scale must begin at no heads at all: take `nothing` off both."
        if abs(got - float((ratios * whole).sum() / whole.sum())) < 1e-4:
            return "You weigh by `whole`; weigh by what there is to explain, `whole - nothing`."
        if abs(got - float(ratios.median())) < 1e-4:
            return "A median, or leaving that sentence out, hides the one at fault. Weigh it instead."
        if abs(got - float((circuit - nothing).mean() / whole.mean())) < 1e-4:
            return "You took off `nothing` above the line, not below it: then the whole model itself has no 100%."
        up, down = circuit - nothing, whole - nothing
        cut = [up / down.clamp(min=least) for least in LEAST] + [ratios.clamp(max=largest) for largest in LARGEST]
        if any(abs(got - float(ratio.mean())) < 1e-3 for ratio in cut):
            return (
                "A smallest denominator, or a largest ratio, is a number that you chose, and the result depends on it. "
                "Weigh instead."
            )
        if any(abs(got - float((up / (down + added)).mean())) < 1e-3 for added in ADDED):
            return "A constant in the denominator is a number that you chose; weigh instead."
        if abs(got - float(ratios.clamp(0, 1).mean())) < 1e-4:
            return "A share may be above 1: heads that were left out may hold the answer back. Do not cut it off."
        return f"For the four sentences that I tried it should be {want:.3f}; yours is {got:.3f}."

    def harmful(faithfulness: Callable[..., Any]) -> str | None:
        got, want = float(faithfulness(nothing - 1, whole, nothing)), float(-1 / (whole - nothing).mean())
        if abs(got - want) < 1e-4:
            return None
        return (
            f"Heads that make it worse have a share below 0, here {want:.3f}; yours is {got:.3f}: no absolute values."
        )

    return judge(
        "Exercise 5",
        answer,
        [right, harmful],
        hints=(
            "What does one sentence do to the mean if its whole model is hardly better than no heads?",
            "Take means first; then one division is left.",
        ),
        praise="A ratio of means: a sentence on which there is nothing to explain has no vote.",
    )


def solution_faithfulness(circuit: Tensor, whole: Tensor, nothing: Tensor) -> Tensor:
    return (circuit.mean() - nothing.mean()) / (whole.mean() - nothing.mean())


def check_missing(answer: Callable[..., Any] | None) -> Verdict:
    """A function (circuit, candidates, lift_of) -> the head that adds most to the lift of the circuit, and the one that
    adds most on top of it."""
    circuit: list[Head] = [(0, 0), (2, 1)]
    candidates: list[Head] = [(0, 0), (0, 5), (1, 3), (1, 5), (2, 1), (2, 6), (3, 2), (3, 4), (3, 7)]

    def lift_of(kept: Sequence[Head]) -> float:
        """0.5 and 1.5 do the same thing; 2.6 and 3.4 do much, but only together; 3.7 does harm; the circuit's own heads
        are needed."""
        have = set(_pairs(kept))
        same = max([1.1 * ((0, 5) in have), 1.2 * ((1, 5) in have)])
        own = 5.0 * ((0, 0) in have) + 2.0 * ((2, 1) in have)
        third = 0.3 if (0, 0) in have else 1.8  # 1.3 can do alone what 0.0 does
        both = 2.5 * ({(2, 6), (3, 4)} <= have)
        return own + same + both + third * ((1, 3) in have) + 0.8 * ((3, 2) in have) - 3.0 * ((3, 7) in have)

    def falling(kept: Sequence[Head]) -> float:
        """Whatever is added does harm."""
        return 9.0 - sum(1.0 + layer for layer, number in set(_pairs(kept)) - set(circuit))

    def where_nothing_helps(find: Callable[..., Any]) -> str | None:
        got = _pairs(find(list(circuit), list(candidates), falling))  # none, where only gains count, is right as well
        if set(got) & set(circuit):
            return "Where every addition lowers the lift you choose heads that are in the circuit already: skip them."
        return "The second head is the first one again: skip it." if len(got) > len(set(got)) else None

    def right(find: Callable[..., Any]) -> str | None:
        given = list(circuit)
        got = find(given, list(candidates), lift_of)
        if given != circuit:
            return "You appended to the circuit that you were given; add to a copy: circuit + [head]."
        heads = _pairs(got)
        if len(heads) != 2 or len(got) != 2:
            return f"Return a list of two heads, such as [(1, 2), (0, 4)], not {got!r}."
        got = heads
        if got == solution_missing(circuit, candidates, lift_of):
            return None
        if (3, 7) in got:
            return "3.7 lowers the lift. Look for what raises it."
        if set(got) & set(circuit):
            return "Heads of the circuit are in it already: skip them."
        if got == [(1, 3), (1, 5)]:
            return "You measured heads by themselves; add each to the circuit: lift_of(circuit + [head])."
        if got == [(1, 5), (0, 5)]:
            return "0.5 and 1.5 do the same thing: with 1.5 in place 0.5 adds nothing. Measure again after the first."
        if set(got) == {(2, 6), (3, 4)}:
            return (
                "That is the best pair of all. Asked is the best single head, and then the best one beside it: a large "
                "model has too many pairs to try."
            )
        if got == [(3, 2), (1, 5)]:
            return "These two, in the other order: the one that adds most comes first."
        return f"In the circuit that I made up they are not {got}."

    return judge(
        "Exercise 6",
        answer,
        [right, where_nothing_helps],
        hints=(
            "Which head is second depends on which one is in already.",
            "Choose the best of the candidates, put it in, and choose again among those that are left.",
        ),
        praise="Greedy, and honest: a head is judged beside those that are there.",
    )


def _pairs(heads: Any) -> list[Head]:
    """Those of `heads` that are a layer and a number, written as tuples, lists, arrays or tensors."""
    if not isinstance(heads, (list, tuple, np.ndarray, Tensor)):
        return []
    found = [np.asarray(head).ravel() for head in heads if head is not None]
    return [(int(head[0]), int(head[1])) for head in found if head.shape == (2,) and head.dtype.kind in "iu"]


def solution_missing(
    circuit: Sequence[Head], candidates: Sequence[Head], lift_of: Callable[[Sequence[Head]], float], n: int = 2
) -> list[Head]:
    found: list[Head] = []
    for _ in range(n):
        kept = [*circuit, *found]
        rest = [head for head in candidates if head not in kept]
        if rest:
            found.append(max(rest, key=lambda head: lift_of([*kept, head])))
    return found
