"""Books are found by their words, give equal shares, and are cut at a paragraph."""

import pytest
import ship_books


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
