"""Prompts of any kind: every intervention on them against the model's own forward pass, text by text and unpadded."""

import pytest
import torch
from grouped_model import capped_model, grouped_model, model_without_bos
from tiny_model import CONTEXT, D_MODEL, tiny_model
from torch.testing import assert_close

from sae_tutorial.circuits import edges, patching
from sae_tutorial.circuits.feature_patching import run_from
from sae_tutorial.circuits.patching import Site, head_site
from sae_tutorial.circuits.prompts import Prompts, at, end_logits, numbered, tokens_of

L, H, LAST = 2, 4, "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    from tokenizers import pre_tokenizers

    model = tiny_model(tmp_path_factory.mktemp("tokenizer"))
    model.tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return model


def induction(model):
    """A row of words, and its beginning again: what came after the last word's twin? In the other texts, another."""
    text = ["w5 w6 w7 w8 w5 w6", "w9 w30 w31 w32 w33 w9 w30 w31", "w50 w51 w52 w50"]
    other = ["w5 w6 w40 w8 w5 w6", "w9 w30 w31 w41 w33 w9 w30 w31", "w50 w42 w52 w50"]
    where = {"twin": [2, 3, 1], "after": [3, 4, 2]}
    return Prompts.of(model, text, where), Prompts.of(model, other, where)


def year_spans(model):
    """Like "The war lasted from 17 32 to 17": in the other texts the year that begins is another."""
    spans = ["w3 w4 w47 {} w48 w47", "w3 w4 w5 w6 w47 {} w48 w47", "w7 w8 w47 {} w48 w47"]
    where = {"YEAR": [4, 6, 4]}
    return tuple(Prompts.of(model, [span.format(year) for span in spans], where) for year in ("w32", "w51"))


@pytest.fixture(scope="module", params=[induction, year_spans])
def pair(request, tiny):
    """Prompts of unequal length, and their counterfactual."""
    return request.param(tiny)


def metric(logits):
    """Asks for every logit: a mistake in any of them shows."""
    return logits.log_softmax(-1) @ torch.linspace(-1, 1, logits.shape[-1]).square()


def alone(model, prompts, i):
    """The tokens of one text, without padding."""
    return prompts.tokens[i : i + 1, : int(prompts.positions["END"][i]) + 1]


def cached(model, tokens, *names):
    with torch.no_grad():
        return dict(model.run_with_cache(tokens, names_filter=list(names))[1].items())


def one_by_one(model, prompts, hooks_of):
    """The oracle: each text through the model's own forward pass; `hooks_of(i)` its hooks."""
    with torch.no_grad():
        runs = [model.run_with_hooks(alone(model, prompts, i), fwd_hooks=hooks_of(i)) for i in range(len(prompts))]
    return torch.cat([metric(logits[:, -1]) for logits in runs])


def putting(new, where=(slice(None),)):
    def hook(acts, hook):
        acts = acts.clone()
        acts[where] = new[where]
        return acts

    return hook


def test_positions_are_those_of_each_text_by_itself(tiny, pair):
    prompts, other = pair
    for i, text in enumerate(prompts.text):
        end = int(prompts.positions["END"][i])
        assert prompts.tokens[i, : end + 1].tolist() == tiny.to_tokens(text)[0].tolist()
        assert set(prompts.tokens[i, end + 1 :].tolist()) <= {0}
    name = "YEAR" if "YEAR" in prompts.positions else "after"
    differ = (prompts.tokens != other.tokens).nonzero()
    assert [(i, int(p)) for i, p in enumerate(prompts.positions[name])] == [tuple(row) for row in differ.tolist()]


def test_end_logits_are_those_of_each_text_by_itself(tiny, pair):
    for prompts in pair:
        assert_close(metric(end_logits(tiny, prompts)), one_by_one(tiny, prompts, lambda i: []), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["blocks.0.hook_resid_post", "blocks.1.hook_mlp_out", "blocks.1.attn.hook_v"])
@pytest.mark.parametrize("role", ["END", 0, None])
def test_patching_a_position(tiny, pair, name, role):
    prompts, other = pair
    where = (
        None if role is None else prompts.positions["END"] if role == "END" else list(prompts.positions.values())[-1]
    )
    donor = patching.activations(tiny, other, [name])
    fast = patching.patch_each(tiny, prompts, [Site(name, None, where)], donor, metric)[0]

    def hooks(i):
        place = slice(None) if where is None else int(where[i])
        return [(name, putting(cached(tiny, alone(tiny, other, i), name)[name], (0, place)))]

    slow = one_by_one(tiny, prompts, hooks)
    assert_close(fast, slow, rtol=1e-4, atol=1e-4)
    if role is None:
        assert (slow - one_by_one(tiny, prompts, lambda i: [])).abs().max() > 1e-2


@pytest.mark.parametrize("part", ["q", "k", "v", "z", "pattern"])
def test_patching_heads(tiny, pair, part):
    prompts, other = pair
    donor = patching.activations(tiny, other, [f"blocks.{layer}.attn.hook_{part}" for layer in range(L)])
    heads = patching.all_heads(tiny)
    fast = patching.patch_each(tiny, prompts, [head_site(part, head) for head in heads], donor, metric)
    for (layer, head), found in zip(heads, fast, strict=True):
        name = f"blocks.{layer}.attn.hook_{part}"

        def hooks(i, name=name, head=head):
            at_head = (slice(None), head) if part == "pattern" else (slice(None), slice(None), head)
            return [(name, putting(cached(tiny, alone(tiny, other, i), name)[name], at_head))]

        assert_close(found, one_by_one(tiny, prompts, hooks), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("receiver", [head_site("q", (1, 2)), head_site("v", (1, 0)), Site(LAST)])
@pytest.mark.parametrize("freeze_mlps", [False, True])
def test_path_patching_is_its_definition(tiny, pair, receiver, freeze_mlps):
    prompts, other = pair
    senders = [(0, 1), (0, 3)]
    fast = patching.path_patch(tiny, prompts, other, senders, [receiver], metric, freeze_mlps)
    held = [f"blocks.{layer}.attn.hook_z" for layer in range(L)]
    held += [f"blocks.{layer}.hook_mlp_out" for layer in range(L)] if freeze_mlps else []
    listening = (slice(None),) if receiver.head is None else (slice(None), slice(None), receiver.head)
    for (layer, head), found in zip(senders, fast, strict=True):
        z = f"blocks.{layer}.attn.hook_z"

        def hooks(i, z=z, head=head):
            own, new = (cached(tiny, alone(tiny, p, i), *held) for p in (prompts, other))
            freeze = [(name, putting(own[name])) for name in held]
            get = {}
            run = [*freeze, (z, putting(new[z], (slice(None), slice(None), head)))]
            run.append((receiver.hook_name, lambda acts, hook: get.update(acts=acts)))
            with torch.no_grad():
                tiny.run_with_hooks(alone(tiny, prompts, i), fwd_hooks=run)
            return [(receiver.hook_name, putting(get["acts"], listening))]

        assert_close(found, one_by_one(tiny, prompts, hooks), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["hook_embed", "blocks.0.attn.hook_k", "blocks.1.hook_mlp_out", "unembed.hook_out"])
def test_attribution_is_the_derivative_at_each_position(tiny, pair, name):
    prompts, other = pair
    donor = patching.activations(tiny, other, [name])
    found = patching.attribution(tiny, prompts, donor, metric)[name]
    found = found.sum(-1) if found.dim() == 3 else found
    step = 0.02
    for i in range(len(prompts)):
        end = int(prompts.positions["END"][i])
        own, new = (cached(tiny, alone(tiny, p, i), name)[name] for p in (prompts, other))
        for p in range(end + 1):
            moved = []
            for sign in (1, -1):
                hook = (name, putting(own + sign * step * (new - own), (0, p)))
                with torch.no_grad():
                    moved.append(metric(tiny.run_with_hooks(alone(tiny, prompts, i), fwd_hooks=[hook])[:, -1]))
            slope = (moved[0] - moved[1]).double() / (2 * step)
            assert_close(found[i, p].double(), slope[0], rtol=0.02, atol=2e-3)
        assert found[i, end + 1 :].abs().sum() == 0


def without_edges(model, prompts, other, removed, part=1.0):
    """Logits at END with these edges, (sender, receiver) names, moved `part` of the way to what the sender writes on
    `other`: text by text, through the model's own forward pass, by hooks on what heads and MLPs read."""
    W_O = model.W_O

    def written(acts):
        """What each sender writes, from the activations of a run so far."""
        found = {"embed": acts["hook_embed"] + acts["hook_pos_embed"]} if "hook_pos_embed" in acts else {}
        for layer in range(L):
            z = acts.get(f"blocks.{layer}.attn.hook_z")
            found |= {} if z is None else {f"{layer}.{h}": z[:, :, h] @ W_O[layer, h] for h in range(H)}
            mlp = acts.get(f"blocks.{layer}.hook_mlp_out")
            found |= {} if mlp is None else {f"mlp {layer}": mlp}
        return found

    outputs = ["hook_embed", "hook_pos_embed"]
    outputs += [f"blocks.{la}.{name}" for la in range(L) for name in ("attn.hook_z", "hook_mlp_out")]

    def logits_of(i):
        theirs = written(cached(model, alone(model, other, i), *outputs))
        acts = {}

        def change(reader, stream):
            ours = written(acts)
            for sender, receiver in removed:
                stream = stream + part * (theirs[sender] - ours[sender]) if receiver == reader else stream
            return stream

        def keep(name):
            return name, lambda value, hook: acts.update({name: value})

        def by_head(layer, letter):
            def hook(x, hook):
                x = x.clone()
                for h in range(H):
                    x[:, :, h] = change(f"{layer}.{h} {letter}", x[:, :, h])
                return x

            return f"blocks.{layer}.hook_{letter}_input", hook

        hooks = [keep(name) for name in outputs]
        hooks += [by_head(layer, letter) for layer in range(L) for letter in "qkv"]
        hooks += [(f"blocks.{la}.hook_mlp_in", lambda x, hook, la=la: change(f"mlp {la}", x)) for la in range(L)]
        hooks.append(("ln_final.hook_in", lambda x, hook: change("logits", x)))
        with torch.no_grad():
            return model.run_with_hooks(alone(model, prompts, i), fwd_hooks=hooks)[0, -1]

    model.set_use_split_qkv_input(True)  # what single heads and MLPs read can be changed
    model.set_use_hook_mlp_in(True)
    try:
        return torch.stack([logits_of(i) for i in range(len(prompts))])
    finally:
        model.set_use_split_qkv_input(False)
        model.set_use_hook_mlp_in(False)


EDGES = [
    ("embed", "0.1 q"),
    ("embed", "1.2 v"),
    ("0.1", "mlp 0"),
    ("0.3", "1.2 k"),
    ("mlp 0", "1.0 q"),
    ("1.3", "logits"),
]


def removing(graph, removed, part=1.0):
    keep = graph.allowed.float()
    for sender, receiver in removed:
        keep[graph.senders.index(sender), graph.receivers.index(receiver)] = 1 - part
    return keep


@pytest.mark.parametrize("removed", [EDGES[:1], EDGES[2:3], EDGES[4:5], EDGES])
@pytest.mark.parametrize("part", [1.0, 0.3])
def test_edges_are_removed_as_by_the_model_itself(tiny, pair, removed, part):
    prompts, other = pair
    graph, run = edges.wiring(tiny), edges.run_apart(tiny, other)
    fast = edges.edge_logits(tiny, prompts, run, removing(graph, removed, part))
    slow = without_edges(tiny, prompts, other, removed, part)
    assert_close(fast, slow, rtol=1e-4, atol=1e-4)
    assert (slow - end_logits(tiny, prompts)).abs().max() > 1e-3


def test_edge_attribution_is_the_derivative_of_removing(tiny, pair):
    prompts, other = pair
    graph, scores = edges.wiring(tiny), edges.edge_attribution(tiny, prompts, other, metric)
    assert (scores[~graph.allowed] == 0).all()
    step = 0.02
    for edge in EDGES:
        more, less = (metric(without_edges(tiny, prompts, other, [edge], s * step)).mean() for s in (1, -1))
        found = scores[graph.senders.index(edge[0]), graph.receivers.index(edge[1])]
        assert_close(found.double(), (more - less).double() / (2 * step), rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("split_qkv", [False, True])
def test_greedy_removal_is_the_slow_loop(tiny, pair, split_qkv):
    """Every step of the procedure, each run from the beginning, and by the model itself."""
    prompts, other = pair
    if split_qkv:
        prompts, other = prompts[:1], other[:1]
    graph, clean = edges.wiring(tiny), end_logits(tiny, prompts)

    def damage(logits):
        return (logits - clean).square().mean().sqrt()

    threshold = 0.02 * float(damage(end_logits(tiny, other)))

    receivers = [[name] for name in reversed(graph.receivers)]
    if not split_qkv:
        receivers = [["logits"]]
        for layer in reversed(range(L)):
            receivers += [[f"mlp {layer}"], *([f"{layer}.{h} {part}" for part in "vkq"] for h in reversed(range(H)))]
    removed, now = [], 0.0
    for names in receivers:
        owner = None if names == ["logits"] else names[0] if "mlp" in names[0] else names[0].split()[0]
        senders = [s for s, ok in zip(graph.senders, graph.allowed[:, graph.receivers.index(names[0])]) if ok]
        readers = {r for r, ok in zip(graph.receivers, graph.allowed[graph.senders.index(owner or "embed")]) if ok}
        if owner is not None and readers <= {receiver for sender, receiver in removed if sender == owner}:
            removed += [(sender, name) for sender in senders for name in names]  # nothing reads it
            continue
        for sender in reversed(senders):
            tried = [*removed, *((sender, name) for name in names)]
            without = float(damage(without_edges(tiny, prompts, other, tried)))
            if without - now < threshold:
                removed, now = tried, without
    expected = removing(graph, removed) > 0
    found = edges.greedy_removal(tiny, prompts, other, damage, threshold, split_qkv)
    assert torch.equal(found, expected)
    assert 5 < found.sum() < graph.allowed.sum() - 5


def test_greedy_removal_keeps_the_one_edge_that_counts(tiny):
    """If only what the last MLP writes to the logits counts, most of the rest goes."""
    prompts, other = year_spans(tiny)
    graph, own, counterfactual = edges.wiring(tiny), edges.run_apart(tiny, prompts), edges.run_apart(tiny, other)
    keep = torch.zeros_like(graph.allowed).float()
    keep[-1, -1] = 1
    target = edges.edge_logits(tiny, prompts, counterfactual, keep, own.wrote)  # all but one edge removed

    def damage(logits):
        return (logits - target).square().mean()

    far = float(damage(end_logits(tiny, prompts)))
    kept = edges.greedy_removal(tiny, prompts, other, damage, threshold=1e-3 * far)
    assert kept[-1, -1] and kept.sum() < graph.allowed.sum() / 2
    assert float(damage(edges.edge_logits(tiny, prompts, counterfactual, kept.float()))) < far / 10


def test_what_nothing_reads_is_not_tested(tiny):
    """If nothing does damage, only the edges to the logits are tried: all others lead to parts that nothing reads."""
    prompts, other = year_spans(tiny)
    runs = []

    def damage(logits):
        runs.append(len(logits))
        return logits.new_zeros(())

    assert edges.greedy_removal(tiny, prompts, other, damage, threshold=1.0).sum() == 0
    assert len(runs) == 1 + len(edges.wiring(tiny).senders)


def test_a_higher_threshold_leaves_fewer_edges(tiny, pair):
    prompts, other = pair
    log_p = end_logits(tiny, prompts).log_softmax(-1)

    def damage(logits):
        return (log_p.exp() * (log_p - logits.log_softmax(-1))).sum(-1).mean()

    whole = float(damage(end_logits(tiny, other)))
    many, some, none = (
        int(edges.greedy_removal(tiny, prompts, other, damage, part * whole).sum()) for part in (1e-4, 1e-2, 10)
    )
    assert many > some + 5 > 10 and none == 0
    with pytest.raises(ValueError, match="threshold=0"):
        edges.greedy_removal(tiny, prompts, other, damage, 0)


def test_agrees_with_transformer_lens(tiny):
    """Its own activation patching of the residual stream, for texts of one length."""
    from transformer_lens import patching as theirs

    prompts, other = (Prompts.of(tiny, p.text[::2]) for p in year_spans(tiny))
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(L)]
    with torch.no_grad():
        cache = tiny.run_with_cache(other.tokens, names_filter=names)[1]
        expected = theirs.get_act_patch_resid_pre(
            tiny, prompts.tokens, cache, lambda logits: metric(logits[:, -1]).mean()
        )
    donor, width = patching.activations(tiny, other, names), prompts.tokens.shape[1]
    sites = [Site(name, None, torch.full((2,), p)) for name in names for p in range(width)]
    found = patching.patch_each(tiny, prompts, sites, donor, metric).mean(1).view(-1, width)
    assert_close(found, expected, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------- how prompts are made


def test_named_positions_make_the_groups(tiny):
    text = ["w3 w4", "w5 w6", "w7 w8 w9", "w4 w3"]
    prompts = Prompts.of(tiny, text, {"A": torch.tensor([1, 1, 2, 2])})
    assert prompts.groups.tolist() == [0, 0, 1, 2] and prompts.positions["A"].tolist() == [1, 1, 2, 2]
    assert Prompts.of(tiny, text).groups.tolist() == [0, 0, 1, 0]
    assert Prompts.of(tiny, text, {"A": [1, 1, 2, 1]}, groups=[3, 3, 5, 4]).groups.tolist() == [3, 3, 5, 4]
    assert Prompts.of(tiny, text, {"END": [1, 1, 1, 1]}).positions["END"].tolist() == [1] * 4
    assert numbered("banana") == [0, 1, 2, 1, 2, 1]


def test_some_of_them_are_as_wide_as_all(tiny):
    prompts = Prompts.of(tiny, ["w3 w4", "w5", "w7 w8 w9"], {"A": [1, 1, 3]})
    two = prompts[1:]
    assert two.text == ("w5", "w7 w8 w9") and two.positions["A"].tolist() == [1, 3] and two.tokens.shape == (2, 4)
    many = prompts[1:2].repeated(5)
    assert len(many) == 5 and (many.tokens == prompts.tokens[1]).all() and many.positions["END"].tolist() == [1] * 5
    with pytest.raises(ValueError, match="3 prompts cannot be copied as one"):
        prompts.repeated(2)
    with pytest.raises(TypeError, match=r"prompts\[0\]: take a slice"):
        prompts[0]


def test_a_tokenizer_that_pads_on_the_left_changes_nothing(tiny):
    text = ["w3 w4 w5", "w6", "w7 w8"]
    right = Prompts.of(tiny, text)
    tiny.tokenizer.padding_side = "left"
    try:
        left = Prompts.of(tiny, text)
    finally:
        tiny.tokenizer.padding_side = "right"
    assert torch.equal(left.tokens, right.tokens) and torch.equal(left.positions["END"], right.positions["END"])


def test_a_model_without_a_beginning_of_text(tmp_path):
    model = model_without_bos(tmp_path)
    prompts = Prompts.of(model, ["w3 w4 w5", "w6"], {"A": [0, 0]})
    assert prompts.tokens.tolist() == [[3, 4, 5], [6, 6, 6]] and prompts.positions["END"].tolist() == [2, 0]
    with torch.no_grad():
        expected = [model(torch.tensor([row]))[0, -1] for row in ([3, 4, 5], [6])]
    assert_close(end_logits(model, prompts), torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_a_width_can_be_asked_for(tiny):
    assert tokens_of(tiny, ["w3"], width=5)[1].tolist() == [[0, 3, 0, 0, 0]]
    assert tokens_of(tiny, ["w3", "w4 w5"], width=1)[1].shape == (2, 3)


@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        ([], {}, "text must be a list of at least one text"),
        ("w3 w4", {}, "text must be a list"),
        (["w3", ""], {}, "none of them empty"),
        (["w3", 4], {}, "text must be a list"),
        (["w3", "w4 " * CONTEXT], {}, rf"has {CONTEXT + 1} tokens; this model sees {CONTEXT} at most"),
        (["w3", "w4"], {"positions": {"A": [1]}}, r"positions\['A'\] has 1 numbers for 2 texts"),
        (["w3", "w4"], {"positions": {"A": [1, 2]}}, r"positions\['A'\] holds 2, but a text has tokens 0 to 1"),
        (["w3", "w4"], {"positions": {"A": [1, -1]}}, r"positions\['A'\]\[1\] must be a whole number, 0 or more"),
        (["w3", "w4"], {"positions": {"A": 1}}, r"positions\['A'\] has 1 numbers for 2 texts"),
        (["w3", "w4"], {"groups": [0]}, "groups has 1 numbers for 2 texts"),
        (["w3", "w4 w5"], {"groups": [0, 0]}, "groups: named positions"),
        (["w3", "w4"], {"positions": {"A": [0, 1]}, "groups": [0, 0]}, "groups: named positions"),
    ],
)  # fmt: skip
def test_what_is_refused(tiny, text, more, words):
    with pytest.raises(ValueError, match=words):
        Prompts.of(tiny, text, **more)


def test_half_a_position_is_refused(tiny):
    with pytest.raises(TypeError, match=r"positions\['A'\]\[0\] must be a whole number"):
        Prompts.of(tiny, ["w3"], {"A": [0.5]})


# ---------------------------------------------------------------------- every hook of a model


def changed(acts, hook):
    return 0.5 * acts + 0.1 * torch.arange(acts.shape[-1]).sin()


def test_end_logits_obey_every_hook(tiny, pair):
    """Whatever a hook changes, wherever it is: the answer is that of the model's own forward pass."""
    prompts, _ = pair
    with torch.no_grad():
        cache = tiny.run_with_cache(prompts.tokens)[1]
    names = [name for name, acts in cache.items() if acts.is_floating_point()]
    assert {"ln_final.hook_scale", "ln_final.hook_normalized", "ln_final.hook_out", "unembed.hook_in"} <= set(names)
    assert {"blocks.1.ln2.hook_normalized", "blocks.0.ln1.hook_scale", "hook_unembed"} <= set(names)
    clean = end_logits(tiny, prompts)
    for name in names:
        with torch.no_grad():
            slow = at(tiny.run_with_hooks(prompts.tokens, fwd_hooks=[(name, changed)]), prompts.positions["END"])
        fast = end_logits(tiny, prompts, [(name, changed)])
        assert_close(fast, slow, rtol=1e-4, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
        assert (slow - clean).abs().max() > 1e-3, name
        with tiny.hooks(fwd_hooks=[(name, changed)]):  # and one that is there before
            assert_close(end_logits(tiny, prompts), slow, rtol=1e-4, atol=1e-4)


def test_every_hook_can_be_patched(tiny, pair):
    prompts, other = pair
    with torch.no_grad():
        ours, theirs = (tiny.run_with_cache(p.tokens)[1] for p in (prompts, other))
    for name, new in theirs.items():
        if new.is_floating_point() and new.shape[0] == len(prompts):
            with torch.no_grad():
                run = tiny.run_with_hooks(prompts.tokens, fwd_hooks=[(name, lambda acts, hook, new=new: new)])
            fast = patching.patched_logits(tiny, prompts, [Site(name)], {name: new})
            assert_close(fast, at(run, prompts.positions["END"]), rtol=1e-4, atol=1e-4)
            assert_close(patching.activations(tiny, prompts, [name])[name], ours[name], rtol=1e-4, atol=1e-4)


def test_edges_notice_hooks_that_they_do_not_compute(tiny, pair):
    prompts, other = pair
    with (
        tiny.hooks(fwd_hooks=[("blocks.0.hook_mlp_out", changed)]),
        pytest.raises(ValueError, match="remove its hooks"),
    ):
        edges.run_apart(tiny, prompts)


# ---------------------------------------------------------------------- what an intervention refuses

STREAM, Z = "blocks.0.hook_resid_post", "blocks.0.attn.hook_z"


@pytest.mark.parametrize(
    ("site", "words"),
    [
        (Site(STREAM, None, torch.full((3,), -1)), r"positions\[0\]=-1: prompt 0 has tokens 0 to .*positions\['END'\]"),
        (Site(STREAM, None, torch.tensor([1, 1, 8])), r"positions\[2\]=8: prompt 2 has tokens 0 to"),
        (Site(STREAM, None, torch.tensor([1, 1, 100])), r"positions\[2\]=100"),
        (Site(STREAM, None, torch.tensor([1, 1])), "positions: give one whole number for each of 3 prompts"),
        (Site(STREAM, None, torch.tensor([1.0, 1.0, 1.0])), "positions: give one whole number"),
        (Site(STREAM, 3), "head=3: blocks.0.hook_resid_post has no heads; leave head out"),
        (Site("blocks.0.hook_mlp_out", 0), "head=0: blocks.0.hook_mlp_out has no heads"),
        (Site("blocks.0.ln1.hook_scale", 0), "has no heads"),
        (head_site("z", (0, 4)), "head=4: blocks.0.attn.hook_z has heads 0 to 3"),
        (head_site("pattern", (0, 4)), "head=4: blocks.0.attn.hook_pattern has heads 0 to 3"),
        (head_site("q", (0, -1)), "head=-1: blocks.0.attn.hook_q has heads 0 to 3"),
    ],
)
def test_sites_that_are_not_there(tiny, site, words):
    prompts, other = year_spans(tiny)
    donor = patching.activations(tiny, other, [site.hook_name])
    with pytest.raises(ValueError, match=words):
        patching.patched_logits(tiny, prompts, [site], donor)
    senders = [(0, 0)] if site.hook_name == "blocks.0.hook_mlp_out" or site.hook_name == STREAM else None
    if senders:  # as a receiver, too
        with pytest.raises(ValueError, match=words):
            patching.path_patch(tiny, prompts, other, senders, [site], metric)


def test_positions_of_a_hook_itself(tiny):
    """A hook knows how wide the table is, and not where a text ends."""
    acts = torch.zeros(3, 5, 2)
    with pytest.raises(ValueError, match=r"positions\[1\]=5: prompt 1 has tokens 0 to 4"):
        Site(STREAM, None, [0, 5, 1]).put(acts, acts)
    with pytest.raises(ValueError, match=r"positions\[0\]=-2"):
        Site(STREAM, None, [-2, 0, 1]).put(acts, acts)
    assert Site(STREAM, None, [0, 4, 1]).put(acts, acts + 1).sum(-1).nonzero().tolist() == [[0, 0], [1, 4], [2, 1]]


def test_scores_are_patched_by_head_and_by_the_position_that_looks():
    acts = torch.zeros(2, 4, 5, 5)
    new = Site("blocks.0.attn.hook_attn_scores", 3, torch.tensor([1, 2])).put(acts, acts + 1)
    assert new[0, 3, 1].sum() == new[1, 3, 2].sum() == 5 and new.sum() == 10


@pytest.mark.parametrize("short", [lambda acts: acts[:1], lambda acts: acts[:, :4], lambda acts: acts.mean(0)])
def test_a_donor_of_another_shape_is_not_stretched(tiny, short):
    prompts, other = year_spans(tiny)
    donor = {name: short(acts) for name, acts in patching.activations(tiny, other, [STREAM, Z]).items()}
    with pytest.raises(ValueError, match="donor has shape .* give as many prompts and positions"):
        patching.patched_logits(tiny, prompts, [Site(STREAM)], donor)
    with pytest.raises(ValueError, match=r"donor\['blocks.0.attn.hook_z'\] has shape"):
        patching.attribution(tiny, prompts, donor, metric)
    means = {f"blocks.{layer}.attn.hook_z": donor[Z] for layer in range(L)}
    with pytest.raises(ValueError, match="means has shape"):
        end_logits(tiny, prompts, patching.keep_only(tiny, {}, means))


def test_another_number_of_prompts_is_refused(tiny):
    prompts, other = year_spans(tiny)
    few = other[:1]
    with pytest.raises(ValueError, match="donor has shape"):
        patching.path_patch(tiny, prompts, few, [(0, 0)], [Site(LAST)], metric)
    with pytest.raises(ValueError, match="other has shape"):
        edges.edge_attribution(tiny, prompts, few, metric)
    with pytest.raises(ValueError, match="other has shape"):
        edges.greedy_removal(tiny, prompts, few, lambda x: x.mean(), 1.0)


def test_one_mean_for_all_is_expanded(tiny):
    prompts, other = year_spans(tiny)
    own = patching.activations(tiny, other, [STREAM])[STREAM]
    mean = own.mean(0, keepdim=True).expand_as(own)
    found = patching.patched_logits(tiny, prompts, [Site(STREAM, None, prompts.positions["YEAR"])], {STREAM: mean})
    assert found.shape == (3, tiny.cfg.d_vocab)


def test_nothing_to_do_is_an_error(tiny):
    prompts, other = year_spans(tiny)
    own = patching.activations(tiny, prompts, [STREAM])
    for call, words in [
        (lambda: patching.patch_each(tiny, prompts, [], own, metric), "sites is empty"),
        (lambda: patching.path_patch(tiny, prompts, other, [], [Site(LAST)], metric), "senders is empty"),
        (lambda: patching.path_patch(tiny, prompts, other, [(0, 0)], [], metric), "receivers is empty"),
        (lambda: patching.attribution(tiny, prompts, {}, metric), "donor is empty"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()


def test_a_receiver_must_come_after_a_sender(tiny):
    prompts, other = year_spans(tiny)
    for receiver in (head_site("k", (0, 1)), Site("blocks.0.hook_resid_pre"), head_site("v", (1, 1))):
        with pytest.raises(ValueError, match=f"receivers: none of {receiver.hook_name} comes after a sender"):
            patching.path_patch(tiny, prompts, other, [(1, 3), (1, 0)], [receiver], metric)
    both = patching.path_patch(tiny, prompts, other, [(1, 3), (0, 3)], [head_site("v", (1, 1))], metric)
    assert_close(both[0], metric(end_logits(tiny, prompts)), rtol=1e-4, atol=1e-4)
    assert (both[1] - both[0]).abs().max() > 1e-3
    own = patching.path_patch(tiny, prompts, other, [(1, 3)], [head_site("z", (1, 3))], metric)[0]
    donor = patching.activations(tiny, other, ["blocks.1.attn.hook_z"])
    assert_close(
        own, patching.patch_each(tiny, prompts, [head_site("z", (1, 3))], donor, metric)[0], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("head", [(2, 0), (0, 4), (-1, 0), (0, -1)])
def test_heads_that_a_model_does_not_have(tiny, head):
    prompts, other = year_spans(tiny)
    name = f"head {head[0]}.{head[1]}"
    means = patching.activations(tiny, other, [f"blocks.{layer}.attn.hook_z" for layer in range(L)])
    with pytest.raises(ValueError, match=name):
        patching.path_patch(tiny, prompts, other, [head], [Site(LAST)], metric)
    with pytest.raises(ValueError, match=name):
        patching.keep_only(tiny, {head: None}, means)
    with pytest.raises(ValueError, match=name):
        edges.wiring(tiny).sender(head)
    with pytest.raises(ValueError, match=name):
        edges.edge_scores(edges.wiring(tiny), edges.wiring(tiny).allowed, [head])


@pytest.mark.parametrize(
    ("donor", "words"),
    [
        ({"blocks.7.hook_mlp_out": torch.zeros(1)}, "is not a hook of this model"),
        ({"embed.hook_in": torch.zeros(3, 9, dtype=torch.long)}, "token ids have no gradient"),
        ({"blocks.0.attn.qkv.hook_in": torch.zeros(3, 9, D_MODEL)}, "blocks.0.attn.qkv.hook_in does not fire"),
    ],
)
def test_what_attribution_refuses(tiny, donor, words):
    prompts, _ = year_spans(tiny)
    with pytest.raises(ValueError, match=words):
        patching.attribution(tiny, prompts, donor, metric)


def test_means_that_lack_a_layer(tiny):
    with pytest.raises(ValueError, match="donor has no 'blocks.1.attn.hook_z'"):
        patching.keep_only(tiny, {}, {Z: torch.zeros(1)})


def test_damage_must_be_a_number(tiny):
    prompts, other = year_spans(tiny)
    with pytest.raises(ValueError, match="damage is nan for the whole model"):
        edges.greedy_removal(tiny, prompts, other, lambda logits: logits.mean() * torch.nan, 1.0)


def test_keys_and_values_that_heads_share(tmp_path):
    """Grouped-query attention: a head of queries has no keys of its own."""
    model = grouped_model(tmp_path)
    prompts, other = year_spans(model)
    donor = patching.activations(model, other, [f"blocks.1.attn.hook_{part}" for part in "qkvz"])
    for part in "kv":
        assert patching.patch_each(model, prompts, [head_site(part, (1, 1))], donor, metric).shape == (1, 3)
        with pytest.raises(ValueError, match=f"head=2: blocks.1.attn.hook_{part} has heads 0 to 1"):
            patching.patch_each(model, prompts, [head_site(part, (1, 2))], donor, metric)
    for part in "qz":
        fast = patching.patch_each(model, prompts, [head_site(part, (1, 3))], donor, metric)[0]
        name = f"blocks.1.attn.hook_{part}"

        def hooks(i, name=name):
            return [(name, putting(cached(model, alone(model, other, i), name)[name], (slice(None), slice(None), 3)))]

        assert_close(fast, one_by_one(model, prompts, hooks), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [grouped_model, capped_model])
def test_models_that_differ_from_gpt2_at_both_ends(make, tmp_path):
    """Rotary positions, RMSNorm, and a soft cap on the logits."""
    model = make(tmp_path)
    prompts, other = year_spans(model)
    with torch.no_grad():
        expected = at(model(prompts.tokens), prompts.positions["END"])
    assert_close(end_logits(model, prompts), expected, rtol=1e-4, atol=1e-4)
    name = "blocks.0.hook_resid_post"
    x, y = (patching.activations(model, p, [name])[name] for p in (prompts, other))
    run = run_from(model, prompts, name)
    assert_close(run(x), expected, rtol=1e-4, atol=1e-4)
    assert_close(run(y), end_logits(model, prompts, [(name, lambda acts, hook: y)]), rtol=1e-4, atol=1e-4)
    estimate = patching.attribution(model, prompts, {name: y}, metric)[name].sum(1)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(metric(run(x)).sum(), x)
    assert_close(((y - x) * slope).sum((1, 2)), estimate, rtol=1e-3, atol=1e-3)


def test_hooks_that_do_not_exist_are_named_with_the_closest(tiny):
    with pytest.raises(ValueError, match="'blocks.0.hook_resid_pots' is not a hook of this model. Did you mean"):
        end_logits(tiny, Prompts.of(tiny, ["w3"]), [("blocks.0.hook_resid_pots", lambda acts, hook: acts)])
