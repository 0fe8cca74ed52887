"""Scores by models that only read: with losses that are known, words that are counted, a feature that writes a word."""

import math
import re
from types import SimpleNamespace

import pytest
import torch
from tiny_model import D_MODEL, rows, tiny_model

from sae_tutorial import SAEConfig, SparseAutoencoder
from sae_tutorial.evaluation import model_scores, text_losses
from sae_tutorial.evaluation.explanations import Explanation, Material
from sae_tutorial.evaluation.feature_pages import Passage
from sae_tutorial.evaluation.model_scores import (
    AMPLIFIED,
    DESCRIBED,
    NEUTRAL,
    brought_to_mind,
    embedding,
    intervention,
    mean_stream,
    surprisal,
    surprisals,
    written,
)
from sae_tutorial.evaluation.text_losses import losses_after

D_VOCAB, AGAIN = 400, 5.0
RAISED, LOWERED, HOOK = 7, 9, "blocks.1.hook_resid_post"


class Counting(torch.nn.Module):
    """A model of language that repeats itself: a word has probability ∝ 1 + AGAIN · how often it has been read."""

    def __init__(self, n_ctx=100):
        super().__init__()
        self.cfg = SimpleNamespace(device="cpu", d_vocab=D_VOCAB, n_ctx=n_ctx)
        self.original_model = SimpleNamespace(config=SimpleNamespace(_attn_implementation="eager"))
        self.vocabulary, self.shapes = {"<bos>": 0}, []
        self.tokenizer = SimpleNamespace(bos_token_id=0, encode=self.encode)

    def encode(self, text, add_special_tokens):
        assert not add_special_tokens
        return [self.vocabulary.setdefault(w, len(self.vocabulary)) for w in re.findall(r"\w+|[^\w\s]", text)]

    def forward(self, tokens, return_type, use_cache, past_key_values):
        self.shapes.append(tuple(tokens.shape))
        read = tokens[:, None, :, None].float()
        read = past_key_values.update(read, read, 0)[0][:, 0, :, 0].long()  # with what has been read before
        counts = torch.nn.functional.one_hot(read, D_VOCAB).cumsum(1)
        return (1 + AGAIN * counts[:, -tokens.shape[1] :]).log()

    def loss(self, before, text):
        """Of each word of the text, from the definition."""
        read, losses = [0, *self.encode(before, False)], []
        for word in self.encode(text, False):
            losses.append(-math.log((1 + AGAIN * read.count(word)) / (D_VOCAB + AGAIN * len(read))))
            read.append(word)
        return losses


def words(ids):
    return [f" w{int(i)}" for i in ids]


def passage(ids, active=False):
    acts = torch.zeros(len(ids))
    acts[0] = float(active)
    return Passage(torch.tensor(ids), acts, 0)


def material(on=((3, 10), (11, 3, 12), (13, 3)), off=((4, 10), (11, 4, 12), (13, 4, 14, 15))):
    active, silent = [passage(ids, True) for ids in on], [passage(ids) for ids in off]
    return Material(0, 1.0, [], [], active, silent + active[:1])


ABOUT, OTHER, UNRELATED = Explanation("active on w3"), Explanation("active on w4"), Explanation("purring")


# ---------------------------------------------------------------------- surprisal


def test_losses_are_those_of_the_definition_whatever_the_batch(monkeypatch):
    before, texts, model = "a b", ["a", "b a b c", "", "d e"], Counting()
    together = losses_after(model, before, texts)
    assert model.shapes == [(1, 3), (3, 4)]
    monkeypatch.setattr(text_losses, "at_once", lambda device, size: 1)
    alone = losses_after(model, before, texts)
    assert len(model.shapes) == 2 + 4
    for i, text in enumerate(texts):
        assert together[i].tolist() == pytest.approx(model.loss(before, text), rel=1e-5)
        assert torch.equal(together[i], alone[i])


def test_losses_of_transformers_in_a_padded_batch_are_those_of_each_row_alone(model):
    """The embedded model's own arithmetic, without keys and values from before."""
    before, texts = "Description: boats\n", ["Once upon a time, there was a ship.", "The", "She sailed away"]
    for text, found in zip(texts, losses_after(model, before, texts)):
        head, tail = (model.tokenizer.encode(part, add_special_tokens=False) for part in (before, text))
        ids = [model.tokenizer.bos_token_id, *head, *tail]
        with torch.no_grad():
            log_probs = model(torch.tensor([ids]), return_type="logits", use_cache=False)[0].log_softmax(-1)
        expected = [-float(log_probs[i - 1, ids[i]]) for i in range(len(ids))][-len(tail) :]
        assert found.tolist() == pytest.approx(expected, abs=1e-4)


def test_an_explanation_that_names_the_word_is_found_by_what_it_saves():
    model = Counting()
    assert surprisal(ABOUT, material(), model, words) == 1
    assert surprisal(OTHER, material(), model, words) == 0
    assert surprisal(Explanation(NEUTRAL), material(), model, words) == 0.5  # nothing is won or lost anywhere
    assert surprisals([ABOUT, OTHER, Explanation(NEUTRAL)], material(), model, words) == [1, 0, 0.5]


def test_surprisal_is_about_the_loss_per_token():
    """Of a long and of a short passage that both have the word: more in all, less for each token."""
    model, long, short = Counting(), (3, 3, *range(10, 25)), (3,)
    saved = {}
    for ids in (long, short):
        text = " ".join(f"w{i}" for i in ids)
        with_it, without = (model.loss(DESCRIBED.format(said), text) for said in (ABOUT.text, NEUTRAL))
        saved[ids] = (sum(without) - sum(with_it), sum(without) / len(ids) - sum(with_it) / len(ids))
    assert saved[long][1] < saved[short][1]
    assert surprisal(ABOUT, material([short], [long]), model, words) == 1


# ---------------------------------------------------------------------- embedding


def bag_of_words(texts):
    vectors = torch.zeros(len(texts), D_VOCAB)
    for row, text in zip(vectors, texts):
        for word in re.findall(r"w\d+", text):
            row[int(word[1:])] += 1
    return vectors


def test_embedding_ranks_by_cosine():
    assert embedding(ABOUT, material(), bag_of_words, words) == 1
    assert embedding(OTHER, material(), bag_of_words, words) == 0
    assert embedding(UNRELATED, material(), bag_of_words, words) == 0.5
    assert embedding(ABOUT, material(), lambda texts: bag_of_words(texts).numpy() * 7, words) == 1
    half = material([(3, 10), (4, 10)], [(3, 10), (4, 10)])  # cosines 1, 0 against 1, 0: of four pairs two are ties
    assert embedding(ABOUT, half, bag_of_words, words) == 0.5


def test_only_the_explanation_gets_the_prefix():
    asked = []
    embedding(ABOUT, material(), lambda texts: asked.extend(texts) or bag_of_words(texts), words, prefix="Query: ")
    assert asked[0] == "Query: active on w3" and asked[1] == "w3 w10" and not any("Query" in t for t in asked[1:])


def test_the_mean_stream_is_the_mean_of_unit_vectors_less_that_of_the_reference(model):
    texts, hook = ["Once upon a time", "The cat", "A dog ran to the old house ."], "blocks.2.hook_resid_post"

    def by_hand(text):
        ids = torch.tensor([[model.tokenizer.bos_token_id, *model.tokenizer.encode(text, add_special_tokens=False)]])
        with torch.no_grad():
            acts = model.run_with_cache(ids, names_filter=hook)[1][hook][0, 1:]
        return (acts / acts.norm(dim=1, keepdim=True)).mean(0)

    reference = ["She laughed.", "It was cold outside ."]
    found = mean_stream(model, reference)(texts)
    expected = torch.stack([by_hand(text) for text in texts]) - torch.stack([by_hand(t) for t in reference]).mean(0)
    assert torch.allclose(found, expected, atol=1e-4)


# ---------------------------------------------------------------------- intervention


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("writer"))


@pytest.fixture
def sae(writer):
    """Feature 0 raises the logit of RAISED above the others, 1 lowers that of LOWERED, 2 adds nothing."""
    made = SparseAutoencoder(SAEConfig(D_MODEL, 3, "mutual_choice", k=1))
    made.hook_name = HOOK
    with torch.no_grad():
        up = writer.W_U[:, RAISED] / writer.W_U[:, RAISED].norm()
        down = -writer.W_U[:, LOWERED] / writer.W_U[:, LOWERED].norm()
        made.W_dec.copy_(torch.stack([up, down, 0 * up]))
    return made


HOW = {"largest": 50.0, "n_tokens": 6}
PROMPTS = rows(8, padded=False)[:, :4]


def test_an_explanation_that_names_what_the_feature_writes_is_less_of_a_surprise(writer, sae):
    scorer = Counting()
    says = {i: Explanation(f"the word w{i}") for i in (RAISED, LOWERED, 50)}
    on = {i: intervention(said, 0, sae, writer, PROMPTS, scorer, **HOW) for i, said in says.items()}
    assert on[RAISED] > 1.5 and on[LOWERED] < 0.05 and on[50] < 0.05
    clean, steered = written(0, sae, writer, PROMPTS, **HOW)
    assert sum(text.split().count(f"w{RAISED}") for text in steered) > 30  # of 48
    assert sum(text.split().count(f"w{RAISED}") for text in clean) < 5
    assert intervention(says[RAISED], 2, sae, writer, PROMPTS, scorer, **HOW) == 0
    assert intervention(says[RAISED], 0, sae, writer, PROMPTS, scorer, **HOW, strength=0) == 0


def test_the_score_is_the_mean_difference_of_surprisals_of_the_whole_explanation():
    scorer, clean, steered = Counting(), ["w1 w2", "w3"], ["w7 w7 w7", "w7 w8 w9 w9"]
    expected = [
        sum(scorer.loss(AMPLIFIED.format(a), 'the w7"')) - sum(scorer.loss(AMPLIFIED.format(b), 'the w7"'))
        for a, b in zip(clean, steered)
    ]
    found, other = brought_to_mind([Explanation("the w7"), Explanation("a longer one")], clean, steered, scorer)
    assert found == pytest.approx(sum(expected) / 2, rel=1e-4) and found > 0 and abs(other) < 0.1


def test_texts_depend_on_the_seed_alone_and_on_as_much_of_the_row_as_was_asked(writer, sae):
    one, two = written(0, sae, writer, PROMPTS, **HOW), written(0, sae, writer, PROMPTS, **HOW)
    assert one == two and one[0] != written(0, sae, writer, PROMPTS, **HOW, seed=1)[0]
    assert (
        one[0] == written(1, sae, writer, PROMPTS, **HOW)[0]
    )  # of another feature: nothing is added to the clean ones
    unchanged, same = written(0, sae, writer, PROMPTS, **HOW, strength=0)
    assert unchanged == same == one[0]
    assert all(len(text.split()) <= HOW["n_tokens"] for text in one[0] + one[1])


def test_what_is_added_is_the_row_in_the_units_of_the_stream(writer, sae, monkeypatch):
    added = []
    monkeypatch.setattr(model_scores, "write", lambda *a: added.append(a[2:4]) or a[1])
    sae.scale.fill_(3.0)
    written(1, sae, writer, PROMPTS, largest=2.0, strength=0.5, n_tokens=6)
    [(hook, add_BD)] = added
    n = len(PROMPTS)
    assert hook == HOOK and not add_BD[:n].any()
    assert torch.allclose(add_BD[n:], (0.5 * 2.0 * 3.0 * sae.W_dec[1]).detach().expand(n, -1))


# ---------------------------------------------------------------------- nothing to compare, and bad input


def test_nothing_to_compare_is_nan():
    empty = Material(0, 1.0, [], [], [], [passage((4, 5))])
    blank = Material(0, 1.0, [], [], [passage((3,), True)], [passage((1, 2))])
    full = Material(0, 1.0, [], [], [passage((3,), True)], [passage((3,), True)])  # active wherever one looks
    white = lambda ids: [" \n" if i < 3 else f" w{i}" for i in ids]  # noqa: E731
    for nothing, texts in ((empty, words), (blank, white), (full, words)):
        assert math.isnan(surprisal(ABOUT, nothing, Counting(), texts))
        assert math.isnan(embedding(ABOUT, nothing, bag_of_words, texts))
    assert all(map(math.isnan, brought_to_mind([ABOUT, OTHER], [], [], Counting())))


@pytest.mark.parametrize(
    ("explanation", "error", "message"),
    [
        ("active on w3", TypeError, r"explanation must be .*'active on w3'; wrap words in Explanation"),
        (Explanation(" "), ValueError, r"explanation has no words, its text is ' '; explain"),
    ],
)
def test_an_explanation_must_have_words(writer, sae, explanation, error, message):
    for score in (
        lambda: surprisal(explanation, material(), Counting(), words),
        lambda: embedding(explanation, material(), bag_of_words, words),
        lambda: intervention(explanation, 0, sae, writer, PROMPTS, Counting(), **HOW),
        lambda: brought_to_mind([explanation], [], [], Counting()),
    ):
        with pytest.raises(error, match=message):
            score()


def test_texts_that_cannot_be_read_are_named():
    with pytest.raises(ValueError, match=r"texts\[1\] with what stands before it: 7 tokens, .* reads 6 at most"):
        losses_after(Counting(n_ctx=6), "a b c", ["b", "d e f"])
    with pytest.raises(ValueError, match=r"tokenizer"):
        losses_after(SimpleNamespace(tokenizer=None), "a", ["b"])
    model = Counting()
    model.tokenizer.bos_token_id = None
    with pytest.raises(ValueError, match="before is '', so nothing predicts"):
        losses_after(model, "", ["b"])
    assert losses_after(model, "a", ["a"])[0].tolist() == pytest.approx([-math.log(6 / (D_VOCAB + 5))])


@pytest.mark.parametrize(
    "embed", [lambda t: torch.zeros(3), lambda t: torch.ones(2, 4), lambda t: torch.full((len(t), 2), math.nan)]
)
def test_an_embedding_must_be_one_finite_vector_for_each_text(embed):
    with pytest.raises(ValueError, match=r"embed must give one finite vector for each text, \(7, d\), got"):
        embedding(ABOUT, material(), embed, words)


def test_a_stream_needs_a_reference_texts_and_a_hook(model):
    with pytest.raises(ValueError, match=r"reference must be a list of texts, got \[\]"):
        mean_stream(model, [])
    with pytest.raises(TypeError, match="reference must be a list of texts, got 'Once'"):
        mean_stream(model, "Once")
    with pytest.raises(ValueError, match="Did you mean"):
        mean_stream(model, ["Once"], "blocks.1.hook_resid_pots")
    with pytest.raises(ValueError, match=r"texts\[1\] is '', which has no token; leave it out"):
        mean_stream(model, ["Once"])(["a", ""])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"feature": 3}, ValueError, "features must be between 0 and 2, got 3"),
        ({"feature": 0.5}, TypeError, "feature must be a whole number, 0 or more, got 0.5"),
        ({"largest": 0.0}, ValueError, "largest=0.0: feature 0 needs a largest activation above 0"),
        ({"largest": math.nan}, ValueError, "largest=nan"),
        ({"strength": math.inf}, ValueError, "strength=inf must be finite"),
        ({"strength": "1"}, TypeError, "strength must be a number, got '1'"),
        ({"n_tokens": 0}, ValueError, "n_tokens must be a whole number, 1 or more, got 0"),
        ({"n_tokens": 13}, ValueError, "prompts with n_tokens=13 more: 17 tokens, and this model reads 16"),
        ({"prompts": ["Once"]}, TypeError, r"prompts must be a \(prompts, positions\) tensor .*got \['Once'\]"),
        ({"prompts": PROMPTS[:0]}, TypeError, "prompts must be"),
        ({"prompts": PROMPTS + 1}, ValueError, r"prompts must begin with BOS, 0, got \[1, 1, 1, 1, 1\]"),
        ({"hook_name": "blocks.1.hook_resid_pots"}, ValueError, "hook_name='blocks.1.hook_resid_pots' is not a hook"),
        ({"hook_name": "blocks.1.mlp.hook_post"}, ValueError, r"the SAE writes \(32,\), but .* is \(128,\); name"),
    ],
)
def test_what_cannot_be_written_is_refused(writer, sae, change, error, message):
    how = {"feature": 0, "prompts": PROMPTS, **HOW} | change
    feature, prompts = how.pop("feature"), how.pop("prompts")
    with pytest.raises(error, match=message):
        written(feature, sae, writer, prompts, **how)


def test_a_sae_that_knows_no_hook_is_refused(writer, sae):
    sae.hook_name = None
    with pytest.raises(ValueError, match="name the one that it was trained on"):
        written(0, sae, writer, PROMPTS, **HOW)
    assert written(0, sae, writer, PROMPTS, **HOW, hook_name=HOOK)[0]


def test_texts_come_in_pairs():
    with pytest.raises(ValueError, match="clean has 2 texts and steered 1; they must be pairs"):
        brought_to_mind([ABOUT], ["a", "b"], ["a"], Counting())
