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


def test_columns_of_numbers_are_set_to_the_right_also_as_words():
    table = Table(["rule", "change", "L0", "note"], [("a", "-4.6%", "–", "1"), ("b", "+12.0%", "1,024.5", "two")])
    assert [line[-1] for line in repr(table).splitlines()[2:]] == ["1", "o"]
    assert repr(table).splitlines()[2].split() == ["a", "-4.6%", "–", "1"]
    assert repr(table).splitlines()[2].index("-4.6%") == repr(table).splitlines()[3].index("+12.0%") + 1
    assert table._repr_html_().count("text-align:right") == 2 * 3, "two of four columns, in three lines"


def test_a_folded_table_shows_its_words_until_it_is_opened():
    html = Table(["a"], [(1,)], "all > 1")._repr_html_()
    assert html.startswith("<details><summary>all &gt; 1</summary><table>") and html.endswith("</table></details>")
    assert "all > 1" not in repr(Table(["a"], [(1,)], "all > 1")), "a terminal shows the table itself"
