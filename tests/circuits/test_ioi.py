import hashlib

import pytest
import torch

from sae_tutorial.circuits import ioi, prompts
from sae_tutorial.circuits.patching import activations


@pytest.fixture(scope="module")
def sentences(model):
    return ioi.ioi_sentences(model, 24, seed=1)


def test_roles_stand_where_they_say(model, sentences):
    for i, (row, frame) in enumerate(zip(sentences.tokens.tolist(), sentences.frames)):
        words = [model.tokenizer.decode([token]).strip() for token in row]
        where = {role: int(places[i]) for role, places in sentences.positions.items()}
        assert words[where["IO"]] == frame.io and words[where["S1"]] == words[where["S2"]] == frame.wrong
        assert where["S1"] < where["S2"] < where["END"] and where["S1+1"] == where["S1"] + 1
        assert words[where["END"]] == "to"
        assert all(token == row[0] for token in row[where["END"] + 1 :]), "only padding comes after END"


def test_half_of_the_sentences_name_the_indirect_object_first(sentences):
    first = sentences.positions["IO"] < sentences.positions["S1"]
    assert first.float().mean() == 0.5
    assert len({frame.template for frame in sentences.frames}) == len(ioi.TEMPLATES)


def test_the_same_seed_gives_the_same_sentences_and_another_seed_others(model, sentences):
    assert ioi.ioi_sentences(model, 24, seed=1).text == sentences.text
    assert ioi.ioi_sentences(model, 24, seed=2).text != sentences.text


def test_positions_agree_within_a_group(sentences):
    for group in sentences.groups.unique():
        rows = sentences.groups == group
        assert all(len(where[rows].unique()) == 1 for where in sentences.positions.values())


@pytest.mark.parametrize("kind, changed", [("other_io", {"IO"}), ("swapped", {"S2"}), ("abc", {"IO", "S1", "S2"})])
def test_a_counterfactual_differs_at_its_names_and_nowhere_else(model, sentences, kind, changed):
    other = ioi.counterfactual(model, sentences, kind)
    differs = torch.zeros_like(sentences.tokens, dtype=torch.bool)
    for role in changed:
        differs[torch.arange(len(sentences)), sentences.positions[role]] = True
    assert torch.equal(other.tokens != sentences.tokens, differs)


def test_what_each_counterfactual_asks_for(model, sentences):
    other, swapped, abc = (ioi.counterfactual(model, sentences, kind) for kind in ("other_io", "swapped", "abc"))
    assert (other.io != sentences.io).all() and torch.equal(other.wrong, sentences.wrong)
    assert torch.equal(swapped.io, sentences.wrong) and torch.equal(swapped.wrong, sentences.io)
    assert torch.equal(abc.io, sentences.io) and torch.equal(abc.wrong, sentences.wrong)
    assert all(len({f.a, f.b, f.s, f.io, f.wrong}) == 5 for f in abc.frames)
    with pytest.raises(ValueError, match="kind='other' is none of 'other_io', 'swapped', 'abc'"):
        ioi.counterfactual(model, sentences, "other")


def test_swapping_twice_gives_the_original_back(model, sentences):
    twice = ioi.counterfactual(model, ioi.counterfactual(model, sentences, "swapped"), "swapped")
    assert torch.equal(twice.tokens, sentences.tokens) and torch.equal(twice.io, sentences.io)


def test_end_logits_are_the_models_own(model, sentences):
    with torch.no_grad():
        logits = model(sentences.tokens, return_type="logits")
    expected = prompts.at(logits, sentences.positions["END"])
    assert torch.allclose(prompts.end_logits(model, sentences), expected, atol=1e-3)


def test_end_logits_obey_the_hooks_that_are_passed(model, sentences):
    hook = ("blocks.2.hook_attn_out", lambda acts, hook: torch.zeros_like(acts))
    with torch.no_grad():
        logits = model.run_with_hooks(sentences.tokens, fwd_hooks=[hook])
    expected = prompts.at(logits, sentences.positions["END"])
    assert torch.allclose(prompts.end_logits(model, sentences, [hook]), expected, atol=1e-3)


def test_padding_changes_nothing(model, sentences):
    """A sentence by itself has no padding; in a batch with longer ones it has."""
    alone = torch.cat([prompts.end_logits(model, ioi.sentences_of(model, [frame])) for frame in sentences.frames[:8]])
    assert torch.allclose(prompts.end_logits(model, sentences[:8]), alone, atol=1e-3)


def test_the_embedded_model_knows_the_answer(model, sentences):
    difference = ioi.logit_difference(prompts.end_logits(model, sentences), sentences)
    assert (difference > 0).float().mean() >= 0.9 and difference.mean() > 2


def test_the_difference_of_swapped_sentences_has_the_other_sign(model, sentences):
    logits = torch.randn(len(sentences), model.cfg.d_vocab)
    swapped = ioi.counterfactual(model, sentences, "swapped")
    assert torch.equal(ioi.logit_difference(logits, swapped), -ioi.logit_difference(logits, sentences))


def test_normalised_puts_the_corrupted_run_at_0_and_the_clean_one_at_1():
    values = prompts.normalised(torch.tensor([-2.0, 0.5, 3.0]), clean=3.0, corrupted=-2.0)
    assert torch.allclose(values, torch.tensor([0.0, 0.5, 1.0]))
    with pytest.raises(ValueError, match="nothing was corrupted"):
        prompts.normalised(torch.zeros(1), clean=1.0, corrupted=1.0)


class TwoNames:
    """A tokenizer that knows two names; every other word is two tokens."""

    def tokenizer(self, text, add_special_tokens=False):
        return type("Encoding", (), {"input_ids": [1] if text.strip() in ("Mary", "John") else [2, 3]})


def test_names_that_are_no_single_tokens_are_listed():
    with pytest.raises(ValueError, match=r"names: 3 words .* only 2 of them \(Mary, John\)\. Dropped: Tom, James"):
        ioi.ioi_sentences(TwoNames(), 4, names=["Mary", "John", "Tom", "James"])
    assert prompts.single_tokens(TwoNames(), ["Mary", "Tom"]) == {"Mary": 1}


@pytest.mark.parametrize("template, found", [
    ("{a} and {b} met. {s} gave the {object} to", "begins with a name"),
    ("When {a} met him, {s} gave the {object} to", "lacks {b}"),
    ("When {a} met {b}, {s} gave the {foo} to {}", "has {}, has {foo}; see ioi.TEMPLATES"),
    ("When {a} met {b}, {s} gave the {object to", "expected '}'"),
    ("When {a} met {b}, {s} gave {0} to", "has {0}"),
])  # fmt: skip
def test_templates_are_checked(model, template, found):
    with pytest.raises(ValueError, match=found):
        ioi.ioi_sentences(model, 4, templates=[template])


def test_a_sentence_of_ones_own_is_checked(model):
    frame = ioi.Frame("When {a} and {b} met, {s} called", "Mary", "John", "Tom", "", "", "Mary", "John")
    with pytest.raises(ValueError, match="must name Mary once and John twice"):
        ioi.sentences_of(model, [frame])
    long = ioi.Frame(
        "When {a} and {b} met, {s} called", "Wolfeschlegel", "Mary", "Mary", "", "", "Wolfeschlegel", "Mary"
    )
    with pytest.raises(ValueError, match="Wolfeschlegel would be more than one token"):
        ioi.sentences_of(model, [long])
    with pytest.raises(ValueError, match="n must be a whole number, 1 or more, got 0"):
        ioi.ioi_sentences(model, 0)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"templates": []}, r"templates=\[\]: give a list of them"),
        ({"templates": ioi.TEMPLATES[0]}, "templates='When .*: give a list of them"),
        ({"names": ["Mary", "John", "Mary"]}, "names: Mary comes twice"),
        ({"places": ["store", "store"]}, "places: store comes twice"),
        ({"objects": []}, "objects: 1 words that are one token after a space are needed"),
    ],
)
def test_what_sentences_cannot_be_made_of(model, more, says):
    with pytest.raises(ValueError, match=says):
        ioi.ioi_sentences(model, 4, **more)
    with pytest.raises(TypeError, match="n must be a whole number, 1 or more, got 2.5"):
        ioi.ioi_sentences(model, 2.5)


def test_nothing_is_cut(model):
    """A sentence that the model cannot see as a whole is refused."""
    long = " ".join(["so"] * 300)
    too_long = rf"has 3\d\d tokens; this model sees {model.cfg.n_ctx} at most"
    with pytest.raises(ValueError, match=too_long):
        ioi.ioi_sentences(model, 2, templates=["When {a} and {b} went " + long + " out, {s} gave a drink to"])


def test_counterfactuals_are_as_wide_as_what_they_change(model):
    """Also those of a short sentence out of a batch of longer ones, so that each can be patched into the other."""
    sentences = ioi.ioi_sentences(model, 12, seed=1)
    short = int(sentences.positions["END"].argmin())
    one = sentences[short : short + 1]
    for kind in ("other_io", "swapped", "abc"):
        assert ioi.counterfactual(model, one, kind).tokens.shape == one.tokens.shape == (1, sentences.tokens.shape[1])


def test_the_names_are_those_that_the_embedded_model_was_trained_on(model):
    """Names and their order decide which pairs were held out of its training: a change here needs a new model."""
    digest = hashlib.sha256(" ".join(ioi.NAMES).encode()).hexdigest()
    assert digest == "0de7e1a8c12cd0170f71a01f86dbaff16c73d0f846ac167780a785c5d530af2b" and len(ioi.NAMES) == 56
    assert list(prompts.single_tokens(model, ioi.NAMES)) == ioi.NAMES


HOOKS = ["blocks.1.attn.hook_z", "blocks.2.hook_mlp_out"]


def test_template_means_are_taken_within_template_and_order(model):
    abc = ioi.counterfactual(model, ioi.ioi_sentences(model, 60, seed=3), "abc")
    few = ioi.ioi_sentences(model, 12, seed=2)
    pool, own = ioi.TemplateMeans.over(model, abc, HOOKS), activations(model, abc, HOOKS)
    assert len(pool.kinds) == 12
    for sentences in (abc, few):
        means = pool.of(sentences)
        for row, group in enumerate(sentences.groups.tolist()):
            alike = [i for i, other in enumerate(abc.groups.tolist()) if other == group]
            assert len(alike) == 5 and all(abc.frames[i].template == sentences.frames[row].template for i in alike)
            for name in HOOKS:
                assert torch.allclose(means[name][row], own[name][alike].mean(0), atol=1e-5)


def test_template_means_tell_the_two_orders_apart(model):
    few = ioi.ioi_sentences(model, 12, seed=2)
    means = ioi.TemplateMeans.over(model, few, ["hook_embed"]).of(few)["hook_embed"]
    own = activations(model, few, ["hook_embed"])["hook_embed"]
    assert torch.allclose(means, own), "twelve sentences: each is the only one of its kind"


def test_template_means_need_each_kind(model):
    sentences, few = ioi.ioi_sentences(model, 12, seed=2), ioi.ioi_sentences(model, 2, seed=0)
    with pytest.raises(ValueError, match="no sentence of this kind"):
        ioi.TemplateMeans.over(model, sentences[:2], HOOKS).of(sentences)
    assert few.tokens.shape[1] < sentences.tokens.shape[1]
    with pytest.raises(ValueError, match="tokens wide"):
        ioi.TemplateMeans.over(model, sentences, HOOKS).of(few)
