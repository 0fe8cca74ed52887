"""Books are found by their words, give equal shares, and are cut at a paragraph."""

import numpy as np
import pytest
import ship_books

from sae_tutorial import story_tokens


def test_shares_are_equal_as_far_as_there_is_enough():
    assert ship_books.shares([3, 100, 100], 41) == [3, 19, 19]
    assert ship_books.shares([5, 5], 10) == [5, 5]
    assert ship_books.shares([50, 50, 50], 30) == [10, 10, 10]
    with pytest.raises(SystemExit, match="have 10 rows, 11 are wanted"):
        ship_books.shares([5, 5], 11)


def test_a_book_begins_with_a_paragraph_after_its_front_matter(monkeypatch):
    monkeypatch.setattr(ship_books, "BOOKS", {"A": "it was a dark night", "B": "call me"})
    paragraphs = "\n".join(f"Paragraph {i} of it." for i in range(80))
    documents = ["Produced by X\nIt was a DARK night\n" + paragraphs, "Call me\n" + paragraphs]
    texts = ship_books.found(documents)
    assert list(texts) == ["A", "B"]
    assert texts["A"].startswith("Paragraph 9 of it.\nParagraph 10 of it.\n") and texts["A"].endswith("79 of it.")
    with pytest.raises(SystemExit, match="B .'call me'. is not in the text"):
        ship_books.found(documents[:1])


def test_what_a_model_cannot_read_makes_room_for_the_next_row(model, monkeypatch):
    """Rows of random tokens among rows of a story; every good row keeps its place."""
    rows = story_tokens(6 * 256, 256)[:, 1:].numpy()
    rows[[1, 4]] = np.random.default_rng(0).integers(5, 5000, (2, 255))
    assert ship_books.legible(rows, "stories", model).tolist() == [True, False, True, True, False, True]
    taken, left_out = ship_books.with_legible_rows(rows, 3, "stories", model)
    assert left_out == 1 and np.array_equal(taken, rows[[0, 3, 2]])
    taken, left_out = ship_books.with_legible_rows(rows, 2, "stories", model)
    assert left_out == 1 and np.array_equal(taken, rows[[0, 2]])
    with pytest.raises(SystemExit, match="a book has no 5 rows that stories finds legible"):
        ship_books.with_legible_rows(rows, 5, "stories", model)
