import pytest

from sae_tutorial.figures.tables import Table


def test_a_table_reads_as_text_and_as_html():
    table = Table(["name", "count", "share"], [("heads", 12_345, 0.12345), ("a <b>", 6, 1.0)])
    lines = repr(table).splitlines()
    assert lines[0].split() == ["name", "count", "share"]
    assert lines[2].split() == ["heads", "12,345", "0.123"]
    assert len({len(line) for line in lines[1:]}) == 1  # numbers end in one column
    html = table._repr_html_()
    assert "12,345" in html and "a &lt;b&gt;" in html and "text-align:right" in html


def test_a_row_must_fit_the_headers():
    with pytest.raises(ValueError, match="has 1 cells"):
        Table(["a", "b"], [("only one",)])


def test_an_empty_table_is_a_table():
    assert "a" in repr(Table(["a"], []))
