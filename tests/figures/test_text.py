import numpy as np
import pytest
import torch

from sae_tutorial.evaluation.contexts import Context
from sae_tutorial.figures import text

CONTEXT = Context(
    before="one day the very small boy who lived there met <b>",
    token=" Mary",
    after=" in\nthe garden of",
    activation=2.5,
)


def test_labels_show_what_is_invisible():
    assert [text.visible(t) for t in ("<|endoftext|>", " a", "\n", "<b>")] == ["⟨end⟩", "·a", "↵", "<b>"]


@pytest.mark.parametrize(
    ("token", "label"),
    [
        ("<b>bold</b>", "&lt;b&gt;bold&lt;/b&gt;"),
        ("<br>", "&lt;br&gt;"),
        ("&amp;", "&amp;amp;"),
        ("$x$", "&#36;x&#36;"),
        ("<|endoftext|>", "⟨end⟩"),
    ],
)
def test_labels_are_no_markup(token, label):
    assert text.label(token) == label and text.quoted(f" {token}") == f"“{label}”"


def test_a_context_reads_as_one_sentence_and_is_no_markup():
    assert text.before(CONTEXT, width=20).endswith(" <b>Mary</b>")
    assert text.before(CONTEXT, width=20).startswith("…")
    assert "&lt;b&gt;" in text.before(CONTEXT)
    assert text.after(CONTEXT) == " in the garden of"
    assert text.after(CONTEXT, width=10) == " in the …"
    assert text.after(CONTEXT, width=1) == ""
    end = Context(before="home.<|endoftext|>One", token=" day", after="", activation=1.0)
    assert text.before(end) == "home. | One <b>day</b>"
    assert text.before(Context("a", "<i>", "", 1.0)) == "a<b>&lt;i&gt;</b>"


@pytest.mark.parametrize("kind", [torch.tensor, np.array, list])
def test_numbers_are_plain_and_short(kind):
    assert text.numbers(kind([1 / 3, 2_000_000 / 3, 1e-7 / 3])) == pytest.approx([0.33333, 666670, 3.3333e-8], rel=1e-5)
    assert text.numbers(kind([[1.0, float("nan")], [float("inf"), 2.0]])) == [[1.0, None], [None, 2.0]]
    assert text.numbers(kind([3, 4])) == [3, 4]


def test_numbers_leave_text_alone():
    assert text.numbers(("a", 1, None, True)) == ["a", 1, None, True]


def test_text_on_a_colour_contrasts():
    assert text.on("#F0E442") == "#111111"
    assert text.on("#0072B2") == "#FFFFFF"


def test_widths_are_those_of_arial():
    assert text.width_of("Hello", 10) == pytest.approx(22.8, rel=0.1)  # 722 + 556 + 222 + 222 + 556 thousandths
    assert text.width_of("<b>Hello</b>", 10) == text.width_of("Hello", 10)
    assert text.width_of("&lt;", 10) == text.width_of("<", 10)


def test_lines_fit_and_keep_their_breaks():
    long = "features " * 20 + "end<br>own line"
    lines = text.wrap(long, 300, 16).split("<br>")
    assert all(text.width_of(line, 16) <= 300 for line in lines)
    assert lines[-1] == "own line"
    assert " ".join(lines) == long.replace("<br>", " ")


@pytest.mark.parametrize("words", range(4, 40))
def test_no_word_stands_alone_in_the_last_line(words):
    title = " ".join(["number", "of", "words"][i % 3] for i in range(words)) + " end"
    lines = text.wrap(title, 240, 16).split("<br>")
    assert " " in lines[-1] and all(text.width_of(line, 16) <= 240 for line in lines)
    assert len(lines) == len(text._filled(title.split(), 240, 16)), "as few lines as possible"


def test_a_word_that_is_too_long_stays_whole():
    assert text.wrap("x" * 100 + " y", 50, 16) == "x" * 100 + "<br>y"
