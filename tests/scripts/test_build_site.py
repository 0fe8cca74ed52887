"""The site: figures without a kernel, pages made of the first notebook, papers, links, docstrings."""

import json

import build_site
import docstrings
import nbformat
import pytest

NOTEBOOKS = {p.name: nbformat.read(p, 4) for p in sorted((build_site.ROOT / "notebooks").glob("*.ipynb"))}
START = next(iter(NOTEBOOKS.values()))
DRAWN = {
    "data": [{"type": "scatter", "x": [1], "y": [2], "name": "</script>"}],
    "layout": {"title": {"text": "Two <b>lines</b><br>here"}, "width": 600, "height": 380},
}


def test_a_figure_is_a_picture_and_what_plotly_needs():
    html = build_site.figure(DRAWN, "AAAA")
    assert 'alt="Two  lines  here"' in html and 'width="600"' in html and "base64,AAAA" in html
    spec = html.split('<script type="application/json">')[1].split("</script>")[0]
    assert json.loads(spec)["data"] == DRAWN["data"], "a name cannot end the script"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_pages_need_no_kernel(name):
    page = build_site.as_page(nbformat.reads(nbformat.writes(NOTEBOOKS[name]), 4))
    kinds = {kind for cell in page.cells for output in cell.get("outputs", []) for kind in output.get("data", {})}
    assert not kinds & {build_site.FIGURE, build_site.WIDGET} and "text/html" in kinds
    assert "widgets" not in page.metadata
    hidden = [cell for cell in page.cells if "hide-cell" in cell.metadata.get("tags", [])]
    assert hidden and all("checks" in cell.metadata.tags for cell in hidden)
    nbformat.validate(page)


def test_the_map_leads_to_every_notebook():
    for name in NOTEBOOKS:
        assert f"(notebooks/{name})" in build_site.course_map(START)
        assert f"<notebooks/{name.removesuffix('.ipynb')}>" in build_site.contents(START)


def test_words_and_symbols_come_from_the_first_notebook():
    words, symbols = build_site.glossary(START), build_site.symbols(START)
    assert "FVU\n    fraction of variance unexplained" in words and "Token Choice\nMutual Choice\n" in words
    assert "| dead latent, dead neuron |" in words
    assert "| $k$, $M$ | budget of features per token" in symbols


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Wang et al. 2022, *Interpretability in the Wild*.", [("Wang", "2022")]),
        ("Engels, Riggs & Tegmark 2024, *Dark*. Hyvärinen & Oja 2000.", [("Engels", "2024"), ("Hyvärinen", "2000")]),
        ("Hanna et al. 2023, *Than?* O'Neill & Bui 2024 (arXiv 2405.1).", [("Hanna", "2023"), ("O'Neill", "2024")]),
        ("Clauset, Shalizi and Newman 2009, *Power laws*.", [("Clauset", "2009")]),
    ],
)  # fmt: skip
def test_papers_are_found_under_references(text, found):
    cells = [nbformat.v4.new_markdown_cell(f"**References.** {text}\n\n**What comes next.** Wang 1999.")]
    assert build_site.references(nbformat.v4.new_notebook(cells=cells)) == found


def test_every_paper_is_in_the_bibliography_and_every_notebook_cites():
    page = (build_site.ROOT / "docs" / "bibliography.md").read_text(encoding="utf-8")
    assert "Cited in [00](notebooks/00_start_here.ipynb)" in build_site.bibliography(page, NOTEBOOKS)
    assert all(build_site.references(notebook) for notebook in NOTEBOOKS.values())
    names = [build_site.entry(line)[0].lower().replace("'", "") for line in page.splitlines() if line.startswith("- ")]
    assert names == sorted(names)


def test_a_bibliography_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="lacks Olah 2020"):
        build_site.bibliography("# Papers\n", {"00_start_here.ipynb": START})
    with pytest.raises(ValueError, match="no notebook cites Nobody 1900"):
        build_site.bibliography("- Nobody 1900, *Nothing*.", {"00_start_here.ipynb": START})
    with pytest.raises(ValueError, match="names and a year"):
        build_site.entry("- a title without a year")


def test_links_that_lead_nowhere_are_found(tmp_path):
    (tmp_path / "a.html").write_text('<h1 id="top"></h1><a href="b.html#here">b</a><a href="https://x.org">x</a>')
    (tmp_path / "b.html").write_text('<p id="here"><a href="a.html#top">a</a><a href="#here">here</a></p>')
    assert build_site.faults(tmp_path) == []
    (tmp_path / "c.html").write_text(
        '<a href="gone.html">1</a><a href="a.html#gone">2</a><img src="gone.png"><script src="https://cdn.org/x.js">'
    )
    assert build_site.faults(tmp_path) == [
        "c.html loads https://cdn.org/x.js",
        "c.html: gone.html is not there",
        "c.html: a.html#gone has no such heading",
        "c.html: gone.png is not there",
    ]


@pytest.mark.parametrize(
    ("docstring", "rest"),
    [
        ("One line with `code` and a * star.", "One line with ``code`` and a \\* star."),
        ("W_dec is kept, n_ is escaped.", "W_dec is kept, n\\_ is escaped."),
        ("Text:\n    run(x)", "Text:\n\n::\n\n        run(x)"),
        ("a     first,\n      goes on\nlong  *second*", "``a``\n    first, goes on\n\n``long``\n    \\*second\\*"),
        ("f(x)  -> 1\nlonger(x)  -> 2", "::\n\n    f(x)  -> 1\n    longer(x)  -> 2"),
    ],
)
def test_docstrings_become_restructured_text(docstring, rest):
    assert "\n".join(docstrings.rest(docstring.splitlines())).strip() == rest


def test_the_site_builds_without_a_warning_or_a_broken_link(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("sys.argv", ["build_site.py", "--out", str(tmp_path / "site")])
    assert build_site.main() == 0, capfd.readouterr()
    page = (tmp_path / "site" / "notebooks" / "02_superposition.html").read_text(encoding="utf-8")
    assert '<div class="figure">' in page and "<math" in page and "figures.js" in page
    assert "SparseAutoencoder" in (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    assert (tmp_path / "site" / "_static" / "plotly.min.js").stat().st_size > 1e6
