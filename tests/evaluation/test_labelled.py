"""Labels are what the text says; tasks are balanced, and no row serves both training and test."""

import pytest
import torch

from sae_tutorial import story_titles, story_tokens
from sae_tutorial.evaluation.labelled import (
    WHOLE_ROW,
    balanced,
    correlated_tasks,
    row_tasks,
    token_tasks,
    word_types,
)
from sae_tutorial.evaluation.properties import LETTERS, token_properties, token_texts


def read(*rows):
    """Property -> the texts of the tokens that have it, and of those of which it is known, of rows of texts."""
    decoded = sorted({text for row in rows for text in row})
    tokens = torch.tensor([[decoded.index(text) for text in row] for row in rows])
    texts = [text for row in rows for text in row]
    chosen = token_properties(decoded, tokens)
    return {
        name: tuple([texts[i] for i in where.flatten().nonzero()[:, 0]] for where in tables)
        for name, tables in chosen.items()
    }


SPEECH = ['."', "\n", '"', "I", " met", " Mary", ",", '"', " she", " said", ". ", " The", " dog", " waited", " need"]


def test_properties_of_a_sentence_are_those_that_a_reader_sees():
    found = read(SPEECH)
    words = [" met", " Mary", " she", " said", " The", " dog", " waited", " need"]
    assert found["capital letter"] == ([" Mary", " The"], words)
    assert found["name"] == ([" Mary"], [" Mary", " The"])
    assert found["past tense"] == (
        [" met", " said", " waited"],
        [word for word in words if word not in (" Mary", " The")],
    )
    assert found["after a comma"][0] == ['"']
    assert found["first letter s"] == ([" she", " said"], words)
    assert found["first letter t"][0] == [" The"]


def test_no_sentence_starts_after_a_title_or_an_initial():
    row = [
        " saw",
        " Mr",
        ".",
        " Shaw",
        " and",
        " L",
        ".",
        " Baum",
        ",",
        " not",
        " me",
        " or",
        " I",
        ".",
        " They",
        " ran",
        ".",
        " But",
    ]
    assert read(row)["name"][0] == [" Mr", " Shaw", " Baum"]


def test_past_tense_is_what_a_reader_calls_so():
    past = [" caught", " drew", " sent", " used", " died", " looked", " rose"]
    row = [*past, " won", "'t", " hundred", " sacred", " need", " indeed", " look"]
    assert read(row)["past tense"][0] == past


def test_a_quotation_is_known_from_the_first_mark_on():
    yes, known = read(SPEECH)["in quotation"]
    assert yes == ["I", " met", " Mary", ","] and known == [x for x in SPEECH[1:] if '"' not in x]
    assert read(["“", "a", "”", "b"])["in quotation"] == (["a"], ["a", "b"])
    assert read(["a", " b"])["in quotation"] == ([], [])


def test_a_question_is_told_by_its_end_and_no_mark_tells_itself():
    row = ["Who", " is", " Mr", ".", " Shaw", "?", '"', " she", " asked", ". ", "No", "!", "\n", " And", " then"]
    yes, known = read(row)["in a question"]
    assert yes == ["Who", " is", " Mr", ".", " Shaw"]
    assert known == [*yes, '"', " she", " asked", "No"], "what has no end in its row is not known"


def test_balanced_draws_as_many_of_both_kinds_and_splits_by_rows():
    generator = torch.Generator().manual_seed(0)
    yes, usable = (torch.rand(30, 20, generator=generator) < p for p in (0.1, 0.5))
    task = balanced("x", yes, usable, 20, 10)
    assert usable[task.row, task.column].all() and torch.equal(yes[task.row, task.column], task.label)
    assert torch.equal(task.row % 2 == 1, task.test)
    assert [int((task.label & part).sum()) for part in (~task.test, task.test)] == [10, 5]
    assert [int((~task.label & part).sum()) for part in (~task.test, task.test)] == [10, 5]
    assert len(set(zip(task.row.tolist(), task.column.tolist()))) == 30
    again, other = balanced("x", yes, usable, 20, 10), balanced("x", yes, usable, 20, 10, seed=1)
    assert torch.equal(task.column, again.column) and not torch.equal(task.column, other.column)


def test_where_one_kind_is_rare_both_are():
    yes = torch.zeros(4, 5, dtype=torch.bool)
    yes[0, 1] = yes[1, 2] = True
    assert len(balanced("x", yes, torch.ones_like(yes), 10, 10).label) == 4
    assert balanced("x", yes & False, torch.ones_like(yes), 10, 10) is None


def test_correlated_tasks_have_both_or_neither_and_are_balanced_where_they_should():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.rand(40, 30, generator=generator) < p for p in (0.3, 0.1))
    every = torch.ones_like(first)
    both, one, other = correlated_tasks("a", "b", {"a": (first, every), "b": (second, every)}, n_train=80, n_test=40)
    at = (both.row, both.column)
    assert torch.equal(first[at], both.label) and torch.equal(second[at], both.label)
    for task, mine, theirs in ((one, first, second), (other, second, first)):
        at = (task.row, task.column)
        assert torch.equal(mine[at], task.label)
        for test in (False, True):
            here = task.test == test
            cells = [
                int((here & (task.label == label) & (theirs[at] == side)).sum()) for label in (0, 1) for side in (0, 1)
            ]
            assert len(set(cells)) == 1 and cells[0] >= 5
    with pytest.raises(ValueError, match="'c' is not among the properties a"):
        correlated_tasks("c", "a", {"a": (first, every)})
    with pytest.raises(ValueError, match="all combinations"):
        correlated_tasks("a", "b", {"a": (first, every), "b": (first, every)})


def said_by_a_table(task, tokens, back=0):
    """How often a table of the training tokens is right on test tokens; it guesses at those that it has not seen."""
    token = tokens[task.row, task.column - back]
    yes, no = (torch.bincount(token[~task.test & kind], minlength=5000) for kind in (task.label, ~task.label))
    more = (yes - no)[token[task.test]].sign() * (2 * task.label[task.test].int() - 1)
    return float((more + 1).double().mean() / 2)


def test_what_a_table_of_tokens_knows_is_as_the_module_says(model):
    tokens = story_tokens(90_000, 64, source="books")
    tasks = {task.name: task for task in token_tasks(model, tokens)}
    known = {name: said_by_a_table(task, tokens) for name, task in tasks.items()}
    assert min(known, key=known.get) == "in a question" and known["in a question"] == pytest.approx(0.57, abs=0.03)
    assert max(known, key=known.get) == "name" and known["name"] == pytest.approx(0.88, abs=0.03)
    assert said_by_a_table(tasks["name"], tokens, back=1) == pytest.approx(0.92, abs=0.03)


def test_tasks_of_the_shipped_text(model):
    tokens, titles = story_tokens(16_000, 64, source="books"), story_titles(16_000, 64, source="books")
    tasks = {task.name: task for task in token_tasks(model, tokens, n_train=100, n_test=60, least=20)}
    assert {"capital letter", "past tense", "in quotation", "first letter s"} <= tasks.keys()
    decoded = token_texts(model)
    for task in tasks.values():
        assert int(task.label.sum()) * 2 == len(task.label) and (task.column > 0).all()
    words = [decoded[i] for i in tokens[tasks["first letter s"].row, tasks["first letter s"].column].tolist()]
    assert [word[1].lower() == "s" for word in words] == tasks["first letter s"].label.tolist()
    books = row_tasks(titles, least=3)
    assert books and all((task.column == WHOLE_ROW).all() for task in books)
    for task in books:
        assert [f"book: {titles[row]}" == task.name for row in task.row.tolist()] == task.label.tolist()


def test_each_word_comes_once_with_its_letter(model):
    tokens = story_tokens(8_000, 64, source="books")
    words, decoded = word_types(model, tokens), token_texts(model)
    assert torch.equal(tokens[words.row, words.column], words.token)
    assert len(words.token.unique()) == len(words.token) > 300
    assert (words.labels.sum(1) == 1).all() and words.names == tuple(LETTERS)
    letters = [LETTERS[int(row.nonzero())] for row in words.labels]
    assert letters == [decoded[token][1].lower() for token in words.token.tolist()]
    spelt = [decoded[token].lower() for token in words.token.tolist()]
    tried = {word for word, test in zip(spelt, words.test.tolist()) if test}
    assert len(tried) == round(0.2 * len(set(spelt))) and len(set(spelt)) < len(spelt)
    assert not tried & {word for word, test in zip(spelt, words.test.tolist()) if not test}  # nor in capitals
    assert torch.equal(word_types(model, tokens).test, words.test)
    forms = word_types(model, tokens, "form")
    assert torch.equal(forms.token, words.token)
    ing = [decoded[token] for token in forms.token[forms.labels[:, forms.names.index("ends in -ing")]].tolist()]
    assert " looking" in ing and all(word.endswith("ing") and len(word) > 5 for word in ing)


def test_what_cannot_be_labelled_is_named(model):
    tokens = story_tokens(256, 64, source="books")
    with pytest.raises(ValueError, match="least=50"):
        token_tasks(model, tokens)
    with pytest.raises(ValueError, match="titles has 1 source"):
        row_tasks(["a"] * 8)
    with pytest.raises(ValueError, match="least=5"):
        row_tasks(["a", "b"] * 3)
    with pytest.raises(ValueError, match="yes is"):
        balanced("x", torch.ones(2, 2).bool(), torch.ones(3, 2).bool(), 2, 2)
    with pytest.raises(TypeError, match="yes is torch.int64"):
        balanced("x", torch.ones(2, 2).long(), torch.ones(2, 2).bool(), 2, 2)
    with pytest.raises(ValueError, match="by='sound'"):
        word_types(model, tokens, "sound")
    with pytest.raises(ValueError, match="test_share=1"):
        word_types(model, tokens, test_share=1)
    with pytest.raises(ValueError, match="fewer than two words"):
        word_types(model, torch.zeros(2, 4, dtype=torch.int64))
