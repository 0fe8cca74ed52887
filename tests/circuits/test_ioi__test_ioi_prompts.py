import pytest

from sae_tutorial import load_language_model
from sae_tutorial.circuits import ioi, ioi_prompts


@pytest.fixture(scope="module")
def model():
    return load_language_model("stories")


def test_own_sentence_finds_its_roles(model):
    found = ioi_prompts.own_sentence(model, "When Mary and John went out, John gave {a} drink to ", "Mary", "John")
    words = {role: model.tokenizer.decode([int(found.tokens[0, where[0]])]) for role, where in found.positions.items()}
    assert (words["IO"], words["S1"], words["S2"], words["END"]) == (" Mary", " John", " John", " to")
    baba = ioi_prompts.own_sentence(model, "When John and Mary went out, John gave a drink to", "Mary", "John")
    assert baba.text == ["When John and Mary went out, John gave a drink to"]
    swapped = ioi.counterfactual(model, baba, "swapped")
    assert swapped.text == ["When John and Mary went out, Mary gave a drink to"]


@pytest.mark.parametrize(
    ("text", "io", "giver", "says"),
    [
        ("When Mary and John went out, he gave a drink to", "Mary", "John", "'John' twice, behind a space; it does 1"),
        ("When John and John went out with", "Mary", "John", "'Mary' once"),
        ("When John ran, John saw Mary and", "Mary", "John", "must come behind 'Mary'"),
        ("When Mary and Xqzt went out, Xqzt gave a drink to", "Mary", "Xqzt", "Xqzt would be more than one token"),
        ("When Mary went out to", "", "John", "somebody"),
    ],
)
def test_own_sentence_says_what_is_wrong(model, text, io, giver, says):
    with pytest.raises(ValueError, match=says):
        ioi_prompts.own_sentence(model, text, io, giver)


def test_the_classic_eight_have_both_givers():
    assert len(ioi_prompts.CLASSIC) == 4
    frames = [(template, a, b) for template, a, b in ioi_prompts.CLASSIC if "{s}" in template]
    assert len(frames) == 4 and ("John", "Mary") == frames[0][1:]
