"""What makes a feature of a transcoder fire: parts that add up to what the model itself computes, and planted edges."""

import pytest
import torch
from grouped_model import capped_model, grouped_model
from tiny_model import BOS, D_MODEL, exact_transcoder, rows, tiny_model
from torch.testing import assert_close

from sae_tutorial import SAEConfig, SparseAutoencoder
from sae_tutorial.activations.forward import read_hook, read_hooks
from sae_tutorial.circuits.transcoder_circuits import Node, traced
from sae_tutorial.circuits.transcoder_weights import de_embedding, reads, through_head, writes
from sae_tutorial.evaluation.splicing import stand_ins

VARIANTS = [
    {},
    {"skip": True},
    {"rule": "gated", "k": None},
    {"rule": "jumprelu", "k": None},
    {"rule": "feature_choice", "skip": True},
    {"b_dec": False},
]


@pytest.fixture(scope="module", params=[tiny_model, grouped_model])
def tiny(request, tmp_path_factory):
    """One of GPT-2's kind, and one with rotary positions, RMSNorm and values that heads share."""
    return request.param(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def relu(tmp_path_factory):
    """A model whose MLPs are sums of features."""
    return tiny_model(tmp_path_factory.mktemp("tokenizer"), activation_function="relu")


@pytest.fixture(scope="module")
def tokens():
    return rows()[0]


def a_transcoder(layer, seed=0, rule="token_choice", k=4, d_model=D_MODEL, **more):
    """Every weight, bias and unit away from its default."""
    sae = SparseAutoencoder(SAEConfig(d_model, 40, rule, k, d_out=d_model, **more), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in sae.state_dict().items():
            if name in ("mean", "out_mean", "b_enc", "b_dec", "W_skip", "r_mag", "b_mag"):
                tensor.copy_(0.3 * torch.randn(tensor.shape, generator=generator))
        sae.threshold.fill_(0.2)
    sae.scale.fill_(1.7)
    sae.out_scale.fill_(0.6)
    sae.hook_name, sae.target_hook_name = f"blocks.{layer}.mlp.hook_in", f"blocks.{layer}.hook_mlp_out"
    return sae


def preactivation(model, sae, tokens, position, feature):
    with read_hook(model, sae.hook_name, fused=False) as read:
        gate = sae.preactivations(sae.normalise(read(tokens[None])[0]))[position, feature]
    if sae.config.how.gated:
        gate = (gate - sae.b_enc[feature]) * sae.r_mag[feature].exp() + sae.b_mag[feature]
    return float(gate.detach())


def all_readings(trace):
    """Of the model's end, of features of the last layer, and of what can be read further from there."""
    found = [trace.logit(11, 7, [3, 9]), trace.feature(1, 11, 5), trace.feature(1, 3, 39)]
    for reading in list(found):
        for node, _ in trace.parts(reading).strongest(40):
            if node.kind in ("feature", "head", "skip"):
                found.append(trace.through(node, reading))
    return found


@pytest.mark.parametrize("more", VARIANTS, ids=str)
def test_parts_add_up_to_the_preactivation(tiny, tokens, more):
    both = [a_transcoder(layer, seed=layer, **more) for layer in (0, 1)]
    trace = traced(tiny, both, tokens)
    for layer, position, feature in ((1, 11, 5), (1, 0, 0), (0, 8, 39), (1, 15, 17)):
        parts = trace.parts(trace.feature(layer, position, feature))
        expected = preactivation(tiny, both[layer], tokens, position, feature)
        assert parts.total == pytest.approx(expected, abs=1e-5, rel=1e-5)
        assert parts.heads.shape == (layer + 1, 4, 16) and not parts.heads[..., position + 1 :].any()
        assert list(parts.features) == list(range(layer))


@pytest.mark.parametrize("more", VARIANTS, ids=str)
def test_whatever_is_read_further_adds_up_to_what_it_was(tiny, tokens, more):
    """Feature by feature, head by head: recursion loses nothing."""
    trace, kinds = traced(tiny, [a_transcoder(layer, seed=layer, **more) for layer in (0, 1)], tokens), set()
    for reading in all_readings(trace):
        for node, value in trace.parts(reading).strongest(25):
            if node.kind in ("feature", "head", "skip"):
                kinds.add(node.kind)
                again = trace.parts(trace.through(node, reading)).total
                assert again == pytest.approx(value, abs=2e-5, rel=1e-4), node
    assert kinds == {"feature", "head"} | ({"skip"} if more.get("skip") else set())


def test_logits_are_the_models(tiny, tokens):
    trace = traced(tiny, [a_transcoder(1)], tokens)
    with torch.no_grad():
        logits = tiny(tokens[None])[0, 9]
    alone, against = (trace.parts(trace.logit(9, *sides)) for sides in ((7,), ([7, 8], 3)))
    assert alone.total == pytest.approx(float(logits[7]), abs=1e-4)
    assert against.total == pytest.approx(float(logits[7:9].mean() - logits[3]), abs=1e-4)
    kinds = {node.kind for node in alone.others}
    assert {"mlp", "error", "token", "bias"} <= kinds
    assert alone.others[Node("mlp", 0, 9)] and alone.others[Node("error", 1, 9)]


def test_the_stories_model_to_five_places(model):
    """With the units that training gives, on real text, through all its layers."""
    tokens = model.to_tokens("Once upon a time there was a dog. The dog saw Tom and Tom saw the dog")[0]
    four = [a_transcoder(layer, seed=layer, d_model=256, skip=layer % 2 == 1) for layer in range(4)]
    trace = traced(model, four, tokens)
    for layer in range(4):
        expected = preactivation(model, four[layer], tokens, len(tokens) - 1, 3)
        found = trace.parts(trace.feature(layer, len(tokens) - 1, 3)).total
        assert found == pytest.approx(expected, abs=1e-5, rel=1e-5)


def test_a_real_model_to_five_places(smol):
    """SmolLM2: 30 layers, most of them without a transcoder, and massive activations."""
    tokens = smol.to_tokens("The old king gave his crown to a fish, because he had")[0]
    both = [a_transcoder(layer, seed=layer, d_model=576, skip=True) for layer in (10, 14)]
    trace, last = traced(smol, both, tokens), len(tokens) - 1
    for layer, sae in zip((10, 14), both):
        found = trace.parts(trace.feature(layer, last, 7)).total
        assert found == pytest.approx(preactivation(smol, sae, tokens, last, 7), abs=1e-5, rel=1e-5)
    with torch.no_grad():
        logits = smol(tokens[None])[0, last]
    assert trace.parts(trace.logit(last, 5, 9)).total == pytest.approx(float(logits[5] - logits[9]), abs=2e-4)


@pytest.mark.filterwarnings("ignore:A forward hook edited hook_scale")
def test_a_head_is_read_as_a_change_of_the_stream_says(tiny, tokens):
    """The oracle is the model: a small change at one source, with patterns and scales held."""
    sae, step = a_transcoder(1), 0.1 * torch.randn(D_MODEL, generator=torch.Generator().manual_seed(1))
    trace = traced(tiny, [sae], tokens)
    held = ["blocks.1.attn.hook_pattern", "blocks.1.ln1.hook_scale", "blocks.1.ln2.hook_scale"]
    with read_hooks(tiny, held, fused=False) as read:
        was = read(tokens[None])

    def moved(x, hook):
        return x + step * (torch.arange(16) == 4)[:, None]

    hooks = [("blocks.1.hook_resid_pre", moved)]
    hooks += [(name, lambda x, hook, value=was[name]: value) for name in held]
    with tiny.hooks(fwd_hooks=hooks):
        after = preactivation(tiny, sae, tokens, 9, 5)
    reading = trace.feature(1, 9, 5)
    told = sum(float(trace.through(Node("head", 1, 4, h), reading).direction @ step) for h in range(4))
    assert told == pytest.approx(after - preactivation(tiny, sae, tokens, 9, 5), abs=1e-5, rel=1e-3)


def test_exact_transcoders_leave_nothing_but_their_edges(relu, tokens):
    """Planted: MLPs that are sums of features, of which one is made to be what a feature of the next layer reads."""
    first, second = exact_transcoder(relu, 0), exact_transcoder(relu, 1)
    trace = traced(relu, [first, second], tokens)
    on = [int(f) for f in trace.mlps[0].by.codes[9].nonzero()[:, 0]]
    planted = on[3]
    others = writes(first)[[f for f in range(128) if f != planted]]
    with torch.no_grad():  # neuron 11 of the second layer reads what this neuron writes, and of the others nothing
        direction = torch.linalg.lstsq(torch.cat([writes(first, [planted]), others[:20]]), torch.eye(21)[0]).solution
        second.W_enc[:, 11] = direction
    trace = traced(relu, [first, second], tokens)
    parts = trace.parts(trace.feature(1, 9, 11))
    assert max(abs(parts.others[Node(kind, layer, 9)]) for kind, layer in (("error", 0), ("skip", 0))) < 1e-5
    weight = float(reads(relu, second, [11]) @ writes(first, [planted]).T)
    assert weight == pytest.approx(1.0, abs=1e-4)
    z, scale = trace.mlps[0].by.codes[9, planted], trace.mlps[1].scale[9]
    assert float(parts.features[0][planted]) == pytest.approx(float(z * weight / scale), rel=1e-4)
    untouched = [f for f in range(128) if f != planted][:20]
    assert parts.features[0][untouched].abs().max() < 1e-5 < parts.features[0][planted]
    final = trace.parts(trace.logit(9, 7))
    assert abs(final.others[Node("error", 0, 9)]) < 1e-5


def test_with_transcoders_in_place_there_are_no_errors(tiny, tokens):
    both = [a_transcoder(layer, seed=layer) for layer in (0, 1)]
    clean = traced(tiny, both, tokens)
    with tiny.hooks(fwd_hooks=stand_ins(both, (tokens != BOS)[None])):
        trace = traced(tiny, both, tokens)
    errors, before = ([one.mlps[i].left[1:].abs().max() for i in (0, 1)] for one in (trace, clean))
    assert max(errors) < 1e-5 < min(before)
    begins = trace.parts(trace.logit(0, 3))
    assert begins.others[Node("mlp", 1, 0)] and not begins.features[1].any(), "no transcoder stands for BOS"


def test_weights_that_no_input_changes(tiny, tokens):
    first, second = a_transcoder(0), a_transcoder(1, seed=1, skip=True)
    trace = traced(tiny, [first, second], tokens)
    reading, scale = trace.feature(1, 9, 5), trace.mlps[1].scale[9]
    weights_F = (reads(tiny, second, [5]) @ writes(first).T)[0]
    assert_close(trace.parts(reading).features[0], trace.mlps[0].by.codes[9] * weights_F / scale)
    back = through_head(tiny, reads(tiny, second, [5]), (1, 2))[0]
    one = trace.attentions[1]
    expected = back * one.pattern[2, 9, 4] / scale / one.scale[4]
    assert_close(trace.through(Node("head", 1, 4, 2), reading).direction, expected)


def test_a_feature_that_reads_an_embedding_names_its_token(tiny):
    sae = a_transcoder(0)
    with torch.no_grad():
        sae.W_enc[:, 2] = tiny.W_E[17] - tiny.W_E.mean(0)
        sae.W_enc[:, 3] = tiny.W_E[41] - tiny.W_E.mean(0)
    found = de_embedding(tiny, reads(tiny, sae, [2, 3]))
    assert found.shape == (2, tiny.W_E.shape[0])
    assert found.argmax(1).tolist() == [17, 41]


def test_the_strongest_parts_are_sorted_and_none_is_zero(tiny, tokens):
    trace = traced(tiny, [a_transcoder(layer, seed=layer) for layer in (0, 1)], tokens)
    parts = trace.parts(trace.logit(9, 7))
    found = parts.strongest(10_000)
    sizes = [abs(value) for _, value in found]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] > 0
    assert sum(value for _, value in found) == pytest.approx(parts.total, abs=1e-4)
    assert parts.strongest(3) == found[:3]
    assert len({node for node, _ in found}) == len(found)


def test_what_cannot_be_traced(tiny, tokens, tmp_path):
    sae, other = a_transcoder(0), a_transcoder(1)
    other.target_hook_name = "blocks.0.hook_mlp_out"
    for transcoders, given, words in (
        ([other], tokens, "one from 'blocks.N.mlp.hook_in' to 'blocks.N.hook_mlp_out' is needed"),
        ([sae, sae], tokens, "give one for each layer"),
        ([sae], tokens[None], "take tokens"),
    ):
        with pytest.raises(ValueError, match=words):
            traced(tiny, transcoders, given)
    trace = traced(tiny, [sae], tokens)
    off = int((trace.mlps[0].by.codes[9] == 0).nonzero()[0])
    reading = trace.logit(9, 7)
    for call, words in (
        (lambda: trace.feature(1, 9, 5), r"layer=1 has no transcoder in this trace; there are some for \[0\]"),
        (lambda: trace.feature(0, 16, 5), "position=16 does not exist"),
        (lambda: trace.feature(0, 9, 40), "features must be a list of numbers from 0 to 39"),
        (lambda: trace.logit(-1, 5), "position=-1 does not exist"),
        (lambda: trace.through(Node("error", 0, 9), reading), "cannot be read further"),
        (lambda: trace.through(Node("feature", 0, 9, off), reading), "is not on"),
        (lambda: through_head(tiny, reads(tiny, sae, [0]), (2, 0)), "head 2.0"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.raises(ValueError, match="does not add up to its stream"):
        traced(capped_model(tmp_path), [], tokens)  # Gemma 2 normalises what its MLPs write
