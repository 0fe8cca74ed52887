import re

import pytest
import torch

from sae_tutorial import reference_sae, story_tokens
from sae_tutorial.activations.forward import read_hook
from sae_tutorial.course import feature_browser, steering
from sae_tutorial.course.features import K, codes_of, likeness, read_features
from sae_tutorial.evaluation.feature_pages import tokens_in_use


@pytest.fixture(scope="module")
def features(model):
    return read_features(reference_sae("mutual_choice"), model, story_tokens(16_384, 128, source="books"))


@pytest.fixture(scope="module")
def best(features):
    return int(likeness(features).argmax())


def words_at(features, feature):
    tokens = features.tokens.flatten()[features.evidence.top(feature)]
    return [word.strip().lower() for word in features.words(tokens)]


def test_the_strongest_contexts_have_a_next_token(features):
    assert features.strongest.shape == (len(features.density), K)
    kept = features.strongest[features.strongest >= 0]
    assert (kept % 128 < 127).all()


def test_another_text_is_read_with_the_same_positions_left_out(features, model):
    with read_hook(model, features.evidence.hook_name) as read:
        dense = features.sae.encode(read(features.tokens[3:4])[0]).to_dense().detach()
    found = codes_of(features, features.tokens[3:4]).to_dense()
    assert torch.allclose(found[1:], dense[1:], atol=1e-3) and found[0].count_nonzero() == 0


def test_a_feature_on_the_whole_text_is_its_column_of_the_codes(features, best):
    found = features.activations(best)
    assert found.shape == features.tokens.shape and found.max() == features.largest[best]
    assert torch.equal(found.flatten()[:2_000], features.evidence.codes.to_dense()[:2_000, best])


def test_best_is_of_many_words_that_are_alike(features):
    score = likeness(features)
    top = score.topk(5).indices.tolist()
    for feature in top:
        words = words_at(features, feature)
        assert len(set(words)) >= 5 and max(map(words.count, words)) <= K / 2
    one_word = next(f for f in range(len(score)) if len(at := words_at(features, f)) == K and len(set(at)) == 1)
    assert score[one_word] == -1
    assert score[top].mean() > 2 * score[score > -1].mean()


def test_likeness_is_the_mean_cosine_of_pairs_of_different_words(features, best):
    tokens = features.tokens.flatten()
    embedding = features.model.W_E.detach()
    unit = torch.nn.functional.normalize(embedding - embedding[tokens].mean(0), dim=1)
    at = tokens[features.evidence.top(best)].tolist()
    words = words_at(features, best)
    pairs = [(i, j) for i in range(K) for j in range(K) if words[i] != words[j]]
    weights = torch.tensor([1 / (words.count(words[i]) * words.count(words[j])) for i, j in pairs])
    cosines = torch.stack([unit[at[i]] @ unit[at[j]] for i, j in pairs])
    assert float(likeness(features)[best]) == pytest.approx(float((weights * cosines).sum() / weights.sum()), abs=1e-4)


def test_what_a_feature_promotes_is_in_use_and_opposite_to_what_it_suppresses(features, best):
    raised, lowered = features.promoted(best, 5)
    logits = features.sae.W_dec[best] @ features.model.W_U
    assert (
        min(logits[raised]) > max(logits[lowered])
        and logits[raised[0]] > logits[tokens_in_use(features.tokens, len(logits))].max() - 1e-4
    )
    assert min((features.tokens[:, 1:] == token).sum() for token in raised + lowered) >= 5


def test_best_beside_a_fair_draw(features, best):
    page = feature_browser.best_and_drawn(features)
    numbers = [int(n) for n in re.findall(r"<td[^>]*><b>(\d+)</b>", page.html)]
    assert len(numbers) == 20 and numbers[0] == best
    assert page.html == feature_browser.best_and_drawn(features)._repr_html_()
    other = feature_browser.best_and_drawn(features, seed=1)
    assert other.text.splitlines()[:11] == page.text.splitlines()[:11] and other.text != page.text
    assert page.html.count("<tr") == page.html.count("</tr>") == 23


def test_broad_features_only(features):
    page = feature_browser.best_and_drawn(features, n=5, least=0.02)
    numbers = [int(n) for n in re.findall(r"<td[^>]*><b>(\d+)</b>", page.html)]
    assert len(numbers) == 10 and min(features.density[numbers]) >= 0.02


def test_the_browser_follows_its_controls(features, best):
    box = feature_browser.feature_browser(features)
    number, rank, page, sentence, answer = box.children
    assert number.value == best and f"<b>Feature {best}</b>" in page.value and "suppresses" in page.value
    rank.value = 1
    assert number.value == int(features.density.argmax()) and f"Feature {number.value}<" in page.value
    number.value = best
    denser, equal = (int(compare(features.density, features.density[best]).sum()) for compare in (torch.gt, torch.ge))
    assert denser < rank.value <= equal
    sentence.value = "They sat <b>there</b>."
    assert "&lt;" in answer.value and answer.value.count("<tr>") == 10
    sentence.value = ""
    assert answer.value == "<p>No feature is active.</p>"
    number.value = int(features.density.argmin())
    assert "Never active" in page.value or "active at" in page.value


def test_the_browser_is_stored_with_a_picture(features, best, monkeypatch):
    drawn = []
    monkeypatch.setattr("plotly.graph_objects.Figure.to_image", lambda fig, **how: drawn.append(fig) or b"PNG")
    monkeypatch.setenv("SAE_TUTORIAL_STATIC", "1")
    box = feature_browser.feature_browser(features)
    assert box._repr_mimebundle_()["image/png"] == "UE5H"
    assert f"Feature {best} is active" in drawn[0].layout.title.text


def test_a_sae_that_knows_no_hook_is_refused(features, model):
    sae = reference_sae("mutual_choice")
    sae.hook_name = None
    with pytest.raises(ValueError, match="name the one"):
        read_features(sae, model, features.tokens)


# ---------------------------------------------------------------------- steering


def test_a_seed_gives_the_same_texts_and_strength_0_changes_nothing(features, best):
    how = {"n_tokens": 6, "n_texts": 3}
    one, two = (steering.steer(features, best, 1.0, "Once upon", seed=3, **how) for _ in range(2))
    assert all(torch.equal(one[kind].tokens, two[kind].tokens) for kind in one) and len(one) == 3
    unchanged, steered, random = steering.steer(features, best, 0.0, "Once upon", seed=3, **how).values()
    assert torch.equal(unchanged.tokens, one["nothing"].tokens)
    assert torch.equal(unchanged.tokens, steered.tokens) and torch.equal(unchanged.tokens, random.tokens)
    other = steering.steer(features, best, 0.0, "Once upon", seed=4, **how)
    assert not torch.equal(other["nothing"].tokens, unchanged.tokens)


def test_what_is_added_is_the_decoder_row_and_as_long_a_random_direction_everywhere_but_at_bos(
    features, best, monkeypatch
):
    added = []
    monkeypatch.setattr(steering, "write", lambda *a: added.append(a[3]) or a[1].repeat(1, 3))
    steering.steer(features, best, 2.0, "Once upon", n_texts=1)
    nothing, steered, random = added[0]
    sae = features.sae
    assert nothing.norm() == 0 and random.norm() == pytest.approx(float(steered.norm()), rel=1e-4)
    assert torch.allclose(steered, 2 * features.largest[best] * sae.scale * sae.W_dec[best].detach())


def test_writing_with_a_cache_is_writing_without(features, best):
    model, add_BD = features.model, torch.randn(2, 256, generator=torch.Generator().manual_seed(0))
    start = model.to_tokens("Once upon").repeat(2, 1)
    tokens = steering.write(model, start, features.evidence.hook_name, add_BD, 5, 1, torch.Generator().manual_seed(1))
    generator, expected = torch.Generator().manual_seed(1), start

    def hook(acts, hook):
        return torch.cat([acts[:, :1], acts[:, 1:] + add_BD[:, None]], 1)  # not at BOS

    for _ in range(5):
        with model.hooks(fwd_hooks=[(features.evidence.hook_name, hook)]), torch.no_grad():
            logits = model(expected, return_type="logits", use_cache=False)[:, -1]
        u = torch.rand(1, 1, generator=generator).expand(2, 1)
        expected = torch.cat([expected, torch.searchsorted(logits.softmax(-1).cumsum(-1), u.contiguous())], 1)
    assert torch.equal(tokens, expected)


def test_steering_is_shown_with_the_texts_of_each_kind(features, best):
    found = steering.steer(features, best, 1.0, "<Once>", n_tokens=4, n_texts=2)
    html = found._repr_html_()
    assert all(kind in html for kind in ("nothing", "the feature", "a random direction")) and "&lt;Once&gt;" in html
    assert repr(found).count("loss") == 3


def test_a_feature_that_is_never_active_cannot_be_a_unit(features):
    silent = int(features.evidence.counts.eq(0).nonzero()[0])
    with pytest.raises(ValueError, match="never active"):
        steering.steer(features, silent, 1.0, "Once")
