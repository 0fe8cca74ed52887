"""Every check of notebook 08: the stub, solutions of two kinds, and the mistakes that learners make."""

from functools import partial

import numpy as np
import pytest
import torch
from exercises import right, wrong_and_told

from sae_tutorial.circuits import ioi
from sae_tutorial.circuits.patching import Site, head_site, patch_each, patch_hooks, path_patch
from sae_tutorial.circuits.prompts import end_logits
from sae_tutorial.course.ioi_circuit import exercises as ex

# ---------------------------------------------------------------- columns


def test_columns():
    assert ex.check_columns(ex.solution_columns())
    assert ex.check_columns(["io", "s1", "s1+1"])
    assert ex.check_columns({"S1+1", "S1", "IO"}) and "not answered yet" in ex.check_columns(None).message


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (["S2"], "token that differs"),
        (["IO", "S1", "S1+1", "END"], "comes after S2"),
        (["S1+1"], "tokens do not"),
        (["IO", "S1"], "S1+1 comes before S2"),
        ("IO", "S1+1 comes before"),
        (["S3"], "list of some of"),
        (3, "list of some of"),
    ],
)
def test_mistakes_in_columns(mistake, says):
    wrong_and_told(ex.check_columns, mistake, says)


def test_the_columns_are_zero_in_the_model(ours):
    model, sentences, swapped, difference = ours
    base = difference(end_logits(model, swapped))
    for role in ioi.ROLES:
        sites = [Site(f"blocks.{i}.hook_resid_pre", None, sentences.positions[role]) for i in range(4)]
        donor = ex.activations(model, sentences, [site.hook_name for site in sites])
        change = (patch_each(model, swapped, sites, donor, difference) - base).abs().max()
        assert (change < 1e-2) == (role in ex.solution_columns()), role


# ---------------------------------------------------------------- patching heads


@pytest.fixture(scope="module")
def ours(model):
    """What a notebook has in its cells: sentences, the swapped ones, the measure, a run."""
    sentences = ioi.ioi_sentences(model, 6, seed=0)
    swapped = ioi.counterfactual(model, sentences, "swapped")
    difference = partial(ioi.logit_difference, sentences=sentences)
    return model, sentences, swapped, difference


def check_heads(ours):
    model, sentences, swapped, _ = ours
    return lambda answer: ex.check_patch_heads(answer, model, swapped, sentences)


def patcher(ours, put, on=None, reset=True, end=torch.stack):
    """The learner's loop: `put(acts, new, number, part)` changes a clone of acts."""
    model, _, _, difference = ours

    def patch_heads(run, donor, heads, part="z"):
        found, hooks = [], []
        for layer, number in heads:
            name = f"blocks.{layer}.attn.hook_{part}"

            def hook(acts, hook, name=name, number=number):
                return put(acts.clone(), donor[name], number, part)

            hooks = [] if reset else hooks
            hooks.append((name, hook))
            found.append(difference(end_logits(model, on or run, hooks)))
        return end(found)

    return patch_heads


def one_head(acts, new, number, part):
    where = (slice(None), number) if part == "pattern" else (slice(None), slice(None), number)
    acts[where] = new[where]
    return acts


def always_dim_2(acts, new, number, part):
    acts[:, :, number] = new[:, :, number]
    return acts


def always_dim_1(acts, new, number, part):
    acts[:, number] = new[:, number]
    return acts


def at_the_end(acts, new, number, part):
    where = (slice(None), number, -1) if part == "pattern" else (slice(None), -1, number)
    acts[where] = new[where]
    return acts


def into_the_donor(acts, new, number, part):
    put = one_head(acts, new, number, part)
    new.copy_(put)
    return put


def head_zero(acts, new, number, part):
    return one_head(acts, new, 0, part)


def last_dimension(acts, new, number, part):
    acts[..., number] = new[..., number]
    return acts


def one_sentence_off(found):
    found = torch.stack(found)
    found[0, :2] += torch.tensor([1.0, -2.0])
    return found


def bound_late(ours):
    """Hooks are made in a loop and run afterwards."""
    model, _, _, difference = ours

    def patch_heads(run, donor, heads, part="z"):
        hooks = []
        for layer, number in heads:
            name = f"blocks.{layer}.attn.hook_{part}"
            hooks.append((name, lambda acts, hook: one_head(acts.clone(), donor[name], number, part)))  # noqa: B023
        return torch.stack([difference(end_logits(model, run, [one])) for one in hooks])

    return patch_heads


def test_hooks_that_are_bound_late(ours):
    wrong_and_told(check_heads(ours), bound_late(ours), "changed what this hook sees")


def test_patched_at_s2_alone(ours):
    model, _, _, difference = ours

    def patch_heads(run, donor, heads, part="z"):
        sites = [head_site(part, head, run.positions["S2"]) for head in heads]
        return patch_each(model, run, sites, donor, difference)

    wrong_and_told(check_heads(ours), patch_heads, "one position, S2")


def test_hooks_that_are_kept_and_bound_late(ours):
    model, _, _, difference = ours

    def patch_heads(run, donor, heads, part="z"):
        hooks, found = [], []
        for layer, number in heads:
            name = f"blocks.{layer}.attn.hook_{part}"
            hooks.append((name, lambda acts, hook: one_head(acts.clone(), donor[name], number, part)))  # noqa: B023
            found.append(difference(end_logits(model, run, hooks)))
        return torch.stack(found)

    wrong_and_told(check_heads(ours), patch_heads, "Two things at once")


def test_z_for_every_part(ours):
    patch_heads = patcher(ours, one_head)
    wrong_and_told(check_heads(ours), lambda run, donor, heads, part: patch_heads(run, donor, heads), "for every part")


def test_changes_instead_of_differences(ours):
    model, sentences, swapped, difference = ours
    patch_heads, path = patcher(ours, one_head), pather(ours, sender_alone)
    before = [difference(end_logits(model, run)) for run in (swapped, sentences)]
    wrong_and_told(check_heads(ours), lambda *given: patch_heads(*given) - before[0], "itself is asked for")
    wrong_and_told(check_path(ours), lambda *given: path(*given) - before[1], "itself is asked for")


def test_layer_and_number_mixed_up(ours):
    patch_heads = patcher(ours, one_head)

    def turned(run, donor, heads, part="z"):
        return patch_heads(run, donor, [(number, layer) for layer, number in heads], part)

    wrong_and_told(check_heads(ours), turned, "the layer for the number")


def as_numbers(found):
    return torch.stack(found).tolist()


def test_patched_heads(ours):
    model, _, _, difference = ours
    right(check_heads(ours), partial(ex.solution_patch_heads, model=model, difference=difference))


def test_patched_heads_in_other_ways(ours):
    model, _, _, difference = ours
    check = check_heads(ours)

    def by_site(run, donor, heads, part):
        return patch_each(model, run, [head_site(part, head) for head in heads], donor, difference)

    assert check(by_site), check(by_site).message
    as_list = patcher(ours, one_head, end=list)
    assert check(as_list), check(as_list).message
    for end in (lambda found: torch.stack(found).double(), lambda found: torch.stack(found).numpy(), as_numbers):
        other_type = patcher(ours, one_head, end=end)
        assert check(other_type), check(other_type).message


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"put": always_dim_2}, "z is right. A pattern is"),
        ({"put": always_dim_1}, "heads are in dimension 2"),
        ({"put": lambda acts, new, number, part: new}, "all heads of the layer"),
        ({"put": lambda acts, new, number, part: acts}, "Nothing has changed"),
        ({"put": one_head, "on": "the original"}, "Run `run`"),
        ({"put": one_head, "reset": False}, "stays patched"),
        ({"put": into_the_donor}, "wrote into the donor"),
        ({"put": one_head, "end": lambda found: torch.stack(found).mean(1)}, "no mean"),
        ({"put": last_dimension}, "one of the d_head numbers"),
        ({"put": head_zero}, "always replace head 0"),
        ({"put": at_the_end}, "one position, the last"),
        ({"put": one_head, "end": one_sentence_off}, "sentence 1 should have"),
        ({"put": one_head, "end": lambda found: -torch.stack(found)}, "signs are turned"),
    ],
)
def test_mistakes_in_patching_heads(ours, how, says):
    if "on" in how:
        how = how | {"on": ours[1]}
    wrong_and_told(check_heads(ours), patcher(ours, **how), says)


# ---------------------------------------------------------------- path patching


def check_path(ours):
    model, sentences, swapped, _ = ours
    return lambda answer: ex.check_path_to_answer(answer, model, sentences, swapped)


def pather(ours, put, bound=True, only=""):
    """The learner's loop: `put(held, new, number)` changes what is held in the sender's layer."""
    model, sentences, _, difference = ours

    def path(sender, own, others):
        layer, number = sender
        hooks = []
        for name, acts in own.items():
            if only not in name:
                continue
            held = acts
            if name == f"blocks.{layer}.attn.hook_z":
                held = put(acts.clone(), others[name], number)
            late = lambda acts, hook: held  # noqa: B023, E731
            hooks.append((name, (lambda acts, hook, held=held: held) if bound else late))
        return difference(end_logits(model, sentences, hooks))

    return path


def sender_alone(held, new, number):
    held[:, :, number] = new[:, :, number]
    return held


def as_a_position(held, new, number):
    held[:, number] = new[:, number]
    return held


def test_path_to_the_answer(ours):
    model, sentences, swapped, difference = ours
    solution = partial(ex.solution_path_to_answer, model=model, prompts=sentences, difference=difference)
    right(check_path(ours), solution)
    own = lambda names: {name: acts for name, acts in ex.activations(model, sentences, names).items()}  # noqa: E731
    z_names, mlps = ([f"blocks.{i}.{end}" for i in range(4)] for end in ("attn.hook_z", "hook_mlp_out"))
    others = ex.activations(model, swapped, z_names)
    for names, frozen in ((z_names, False), (z_names + mlps, True)):
        library = path_patch(
            model, sentences, swapped, [(2, 0)], [Site("blocks.3.hook_resid_post")], difference, frozen
        )
        assert torch.allclose(solution((2, 0), own(names), others), library[0], atol=1e-4)


def test_path_in_another_way(ours):
    model, sentences, _, difference = ours

    def by_sites(sender, own, others):
        site = head_site("z", sender)
        held = own | {site.hook_name: site.put(own[site.hook_name], others[site.hook_name])}
        return difference(end_logits(model, sentences, patch_hooks([Site(name) for name in held], held)))

    assert check_path(ours)(by_sites), check_path(ours)(by_sites).message


def unfrozen(ours):
    model, sentences, _, difference = ours

    def path(sender, own, others):
        return difference(end_logits(model, sentences, patch_hooks([head_site("z", sender)], others)))

    return path


def two_sentences_off(ours):
    path, off = pather(ours, sender_alone), torch.tensor([0, 0.5, 0, -1, 0, 0])
    return lambda *given: path(*given) + off


def turned_round(ours):
    path = pather(ours, sender_alone)
    return lambda sender, own, others: path(sender[::-1], own, others)


def the_wrong_way_round(ours):
    model, sentences, _, difference = ours

    def path(sender, own, others):
        site = head_site("z", sender)
        held = own | others | {site.hook_name: site.put(others[site.hook_name], own[site.hook_name])}
        return difference(end_logits(model, sentences, patch_hooks([Site(name) for name in own], held)))

    return path


def writes_into_own(ours):
    model, sentences, _, difference = ours

    def path(sender, own, others):
        name = f"blocks.{sender[0]}.attn.hook_z"
        own[name][:, :, sender[1]] = others[name][:, :, sender[1]]
        return difference(end_logits(model, sentences, patch_hooks([Site(n) for n in own], own)))

    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (unfrozen, "not frozen"),
        (partial(pather, put=sender_alone, bound=False), "held=held"),
        (partial(pather, put=lambda held, new, number: new), "all heads of the sender's layer"),
        (partial(pather, put=lambda held, new, number: held), "Nothing has changed"),
        (partial(pather, put=as_a_position), "one index of dimension 2"),
        (
            partial(pather, put=lambda held, new, number: last_dimension(held, new, number, "z")),
            "of the d_head numbers",
        ),
        (
            partial(pather, put=lambda held, new, number: sender_alone(held, new, 0)),
            "always replace head 0",
        ),
        (turned_round, "took the layer for the number"),
        (partial(pather, put=lambda held, new, number: at_the_end(held, new, number, "z")), "one position, the last"),
        (two_sentences_off, "sentence 3 should have"),
        (partial(pather, put=sender_alone, only="hook_z"), "loop over all of own"),
        (writes_into_own, "wrote into own"),
        (the_wrong_way_round, "The wrong way round"),
        (lambda ours: lambda sender, own, others: 3.0, "float"),
    ],
)
def test_mistakes_in_path_patching(ours, make, says):
    wrong_and_told(check_path(ours), make(ours), says)


# ---------------------------------------------------------------- prediction


MEASURED = (0.97, -0.06, 1.03)


def test_prediction_tells_no_number_before_it_is_right():
    check = partial(ex.check_prediction, change=MEASURED[0], by_heads=MEASURED[1], by_mlps=MEASURED[2])
    assert "not answered yet" in check(None).message
    assert check(("up", "the MLPs")) and "+0.97" in check(["up", "the MLPs"]).message
    for same in (("up", "MLP"), ("up", "MLPs"), ("Up", "The MLPs"), ["UP", " mlps"]):
        assert check(same), check(same).message
    for wrong, says in (
        (("up", "heads"), "not by way of the heads"),
        (("the MLPs", "up"), "Answer with a pair"),
        (("stays", "the heads"), "direct attribution says"),
        (("down", "the MLPs"), "nothing to it directly"),
        (("up", "the heads"), "not by way of the heads"),
        ("up", "Answer with a pair"),
        (("sideways", "the heads"), "Answer with a pair"),
    ):
        message = check(wrong).message
        assert says in message and "0.97" not in message and "1.03" not in message


@pytest.mark.parametrize(
    ("measured", "truth"),
    [
        (MEASURED, ("up", "the MLPs")),
        ((-2.0, -1.5, 0.2), ("down", "the heads")),
        ((0.1, 0.2, -0.1), ("stays", "the heads")),
    ],
)
def test_what_was_measured_decides(measured, truth):
    assert ex.solution_prediction(*measured) == truth
    with pytest.raises(ValueError, match="nan"):
        ex.solution_prediction(float("nan"), 0, 0)


# ---------------------------------------------------------------- faithfulness


def test_faithfulness():
    right(ex.check_faithfulness, ex.solution_faithfulness)
    by_sums = lambda c, w, n: float((c - n).sum() / (w - n).sum())  # noqa: E731
    assert ex.check_faithfulness(by_sums)


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda c, w, n: ((c - n) / (w - n)).mean(), "still the bug"),
        (lambda c, w, n: c.mean() / w.mean(), "no heads at all"),
        (lambda c, w, n: ((c - n) / (w - n)).median(), "leaving that sentence out"),
        (lambda c, w, n: ((c - n) / (w - n))[(w - n) > 1].mean(), "leaving that sentence out"),
        (lambda c, w, n: (c - n).mean() / w.mean(), "not below it"),
        (lambda c, w, n: ((c - n) / (w - n).clamp(min=1)).mean(), "number that you chose"),
        (lambda c, w, n: ((c - n) / (w - n).clamp(min=0.5)).mean(), "number that you chose"),
        (lambda c, w, n: ((c - n) / (w - n)).clamp(max=1.5).mean(), "a largest ratio"),
        (lambda c, w, n: ((c - n) / (w - n)).clamp(max=5).mean(), "a largest ratio"),
        (lambda c, w, n: (c / w).mean(), "Still a mean of ratios"),
        (lambda c, w, n: ((c - n) / (w - n) * w).sum() / w.sum(), "You weigh by `whole`"),
        (lambda c, w, n: ((c - n) / (w - n + 1e-4)).mean(), "A constant in the denominator"),
        (lambda c, w, n: ((c - n) / (w - n + 0.1)).mean(), "A constant in the denominator"),
        (lambda c, w, n: ((c - n) / (w - n + 1)).mean(), "A constant in the denominator"),
        (lambda c, w, n: ((c - n) / (w - n)).clamp(0, 1).mean(), "above 1"),
        (lambda c, w, n: (c - n) / (w - n), "One number"),
        (lambda c, w, n: 100 * ex.solution_faithfulness(c, w, n), "in percent"),
        (lambda c, w, n: 1 / ex.solution_faithfulness(c, w, n), "Turned round"),
        (lambda c, w, n: 1.0, "yours is 1.000"),
        (lambda c, w, n: (c - n).abs().mean() / (w - n).abs().mean(), "no absolute values"),
    ],
)
def test_mistakes_in_faithfulness(mistake, says):
    wrong_and_told(ex.check_faithfulness, mistake, says)


# ---------------------------------------------------------------- missing heads


def test_missing_heads():
    right(ex.check_missing, ex.solution_missing)


def gains(circuit, candidates, lift_of):
    base = lift_of(circuit)
    return {head: lift_of([*circuit, head]) - base for head in candidates}


def all_pairs(circuit, candidates, lift_of):
    """The best pair at once, its better one first."""
    rest = [head for head in candidates if head not in circuit]
    pair = max(((a, b) for a in rest for b in rest if a != b), key=lambda pair: lift_of([*circuit, *pair]))
    return sorted(pair, key=lambda head: -lift_of([*circuit, head]))


def appended(circuit, candidates, lift_of):
    found = ex.solution_missing(circuit, candidates, lift_of)
    circuit += found
    return found


def one_by_one(circuit, candidates, lift_of):
    gain = gains(circuit, candidates, lift_of)
    return sorted(gain, key=gain.get, reverse=True)[:2]


def least(circuit, candidates, lift_of):
    gain = gains(circuit, candidates, lift_of)
    return sorted(gain, key=gain.get)[:2]


def largest_change(circuit, candidates, lift_of):
    gain = gains(circuit, candidates, lift_of)
    return sorted(gain, key=lambda head: -abs(gain[head]))[:2]


def needed(circuit, candidates, lift_of):
    loss = {head: lift_of(circuit) - lift_of([h for h in circuit if h != head]) for head in circuit}
    return sorted(loss, key=loss.get, reverse=True)[:2]


def by_themselves(circuit, candidates, lift_of):
    rest = [head for head in candidates if head not in circuit]
    return sorted(rest, key=lambda head: lift_of([head]), reverse=True)[:2]


def greedy(circuit, candidates, lift_of, skip=lambda circuit, found: []):
    found = []
    for _ in range(2):
        rest = [head for head in candidates if head not in skip(circuit, found)]
        found.append(max(rest, key=lambda head: lift_of([*circuit, *found, head])))
    return found


def only_what_helps(circuit, candidates, lift_of):
    """As the solution, but it stops where nothing raises the lift."""
    found = []
    for head in ex.solution_missing(circuit, candidates, lift_of):
        if lift_of([*circuit, *found, head]) > lift_of([*circuit, *found]):
            found.append(head)
    return found


def gains_above_zero(circuit, candidates, lift_of):
    """A loop that remembers the best gain so far, and begins at none."""
    found = []
    for _ in range(2):
        base, most, best = lift_of([*circuit, *[h for h in found if h]]), 0.0, None
        for head in candidates:
            if head not in [*circuit, *found] and (gain := lift_of([*circuit, *found, head]) - base) > most:
                most, best = gain, head
        found.append(best)
    return found


def in_numpy(circuit, candidates, lift_of):
    """Heads as rows of arrays, from the first to the last."""
    rows, kept, found = np.array(candidates), np.array(circuit), []
    for _ in range(2):
        rest = np.array([head for head in rows if not (kept == head).all(1).any()])
        found.append(rest[np.argmax([lift_of([*kept, head]) for head in rest])])
        kept = np.vstack([kept, found[-1]])
    return np.array(found)


def as_written(write):
    return lambda circuit, candidates, lift_of: write(ex.solution_missing(circuit, candidates, lift_of))


@pytest.mark.parametrize(
    "way",
    [
        only_what_helps,
        gains_above_zero,
        in_numpy,
        as_written(tuple),
        as_written(np.array),
        as_written(torch.tensor),
        as_written(lambda heads: [list(head) for head in heads]),
    ],
)
def test_missing_heads_in_other_ways(way):
    assert ex.check_missing(way), ex.check_missing(way).message


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (one_by_one, "do the same thing"),
        (all_pairs, "best pair of all"),
        (least, "lowers the lift"),
        (largest_change, "lowers the lift"),
        (needed, "skip them"),
        (by_themselves, "measured heads by themselves"),
        (greedy, "Where every addition lowers the lift"),
        (partial(greedy, skip=lambda circuit, found: circuit), "the first one again"),
        (appended, "add to a copy"),
        (lambda circuit, candidates, lift_of: ex.solution_missing(circuit, candidates, lift_of)[::-1], "other order"),
        (lambda circuit, candidates, lift_of: (1, 5), "list of two heads"),
        (lambda circuit, candidates, lift_of: [(1, 5), (3, 2), (1, 3)], "list of two heads"),
        (lambda circuit, candidates, lift_of: ["1.5", "3.2"], "list of two heads"),
        (lambda circuit, candidates, lift_of: [3, 4], "list of two heads"),
        (lambda circuit, candidates, lift_of: 5, "list of two heads"),
        (lambda circuit, candidates, lift_of: [(1, 3), (0, 5)], "they are not"),
    ],
)
def test_mistakes_in_missing_heads(mistake, says):
    wrong_and_told(ex.check_missing, mistake, says)
