"""Builds the site: all notebooks as pages, with the words, symbols, papers and the package that they use.

    python scripts/build_site.py               into build/site; opens in a browser without a server or a network
    python scripts/build_site.py --out folder  somewhere else

Sphinx with MyST-NB does the work, because it builds offline: Jupyter Book 2 fetches a theme and Node when it is first
built, and ships an app that a page opened from disk cannot load. Nothing is computed here: notebooks are shown as
`make notebooks` has left them. Ends with an error at the first warning, and for every link that leads nowhere.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import nbformat
import plotly

import sae_tutorial

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("activations", "allocation", "autoencoder", "training", "evaluation", "circuits", "figures")
FIGURE, WIDGET = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"


def gather(pages: Path) -> None:
    """Everything that Sphinx reads, in one folder."""
    shutil.copytree(ROOT / "docs", pages, dirs_exist_ok=True)
    shutil.copy(Path(plotly.__file__).parent / "package_data" / "plotly.min.js", pages / "_static")
    notebooks = {path.name: nbformat.read(path, 4) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
    (pages / "notebooks").mkdir()
    for name, notebook in notebooks.items():
        nbformat.write(as_page(notebook), pages / "notebooks" / name)
    (pages / "notebooks" / "gallery").mkdir()
    for path in (ROOT / "notebooks" / "gallery").glob("*.ipynb"):
        nbformat.write(as_page(nbformat.read(path, 4)), pages / "notebooks" / "gallery" / path.name)
    shutil.copy(ROOT / "notebooks" / "gallery" / "README.md", pages / "notebooks" / "gallery")
    start = next(iter(notebooks.values()))
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    written = {
        "index.md": index.replace("NOTEBOOKS", contents(start)),
        "map.md": course_map(start),
        "words.md": glossary(start),
        "symbols.md": symbols(start),
        "bibliography.md": bibliography((ROOT / "docs" / "bibliography.md").read_text(encoding="utf-8"), notebooks),
        **reference(),
    }
    (pages / "api").mkdir()
    for name, text in written.items():
        (pages / name).write_text(text, encoding="utf-8")


def as_page(notebook: Any) -> Any:
    """The notebook with figures that need no kernel, widgets as pictures, and checks folded away."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [without_kernel(output) for output in cell.outputs]
            if "checks" in cell.metadata.get("tags", []):
                cell.metadata["tags"] = [*cell.metadata.tags, "hide-cell"]
    notebook.metadata.pop("widgets", None)
    notebook.metadata["mystnb"] = {"code_prompt_show": "Show checks", "code_prompt_hide": "Hide checks"}
    return notebook


def without_kernel(output: Any) -> Any:
    data = output.get("data", {})
    if FIGURE in data:
        output["data"] = {"text/html": figure(data[FIGURE], data["image/png"])}
    elif WIDGET in data:
        note = '<p class="figure-note">This is a picture: the controls work in JupyterLab and Colab.</p>'
        alt = escape(data.get("text/plain", "a widget"))
        output["data"] = {"text/html": f'<img alt="{alt}" src="data:image/png;base64,{data["image/png"]}">{note}'}
    return output


def figure(drawn: dict[str, Any], png: str) -> str:
    """A figure as a picture, with what `docs/_static/figures.js` needs to put the interactive one in its place."""
    layout = drawn["layout"]
    title = re.sub(r"<[^>]+>", " ", layout.get("title", {}).get("text", "figure"))
    size = f'width="{layout["width"]}" height="{layout["height"]}"'
    picture = f'<img alt="{escape(title)}" {size} src="data:image/png;base64,{png.strip()}">'
    spec = json.dumps({name: drawn.get(name) for name in ("data", "layout", "config")}, separators=(",", ":"))
    spec = spec.replace("</", "<\\/")  # a title's </b> would end the script
    script = f'<script type="application/json">{spec}</script>'
    return f'<div class="figure">{picture}<div class="place"></div>{script}</div>'


# The pages that are made of the first notebook, so that nothing is written twice.


def _cell(notebook: Any, heading: str) -> str:
    return next(cell.source for cell in notebook.cells if cell.source.startswith(heading))


def _folded(notebook: Any, heading: str, summary: str) -> str:
    found = re.search(rf"<details><summary>{summary}.*?</summary>(.*?)</details>", _cell(notebook, heading), re.S)
    if not found:
        raise ValueError(f"the first notebook has no folded {summary!r} under {heading!r}")
    return found[1].strip()


def course_map(start: Any) -> str:
    first = next((ROOT / "notebooks").glob("00_*.ipynb")).name
    table = _cell(start, "## The map").split("\n", 1)[1].strip().replace("you are here", f"[Start here]({first})")
    return "# The map\n\n" + re.sub(r"\]\((\d\d_|gallery/)", r"](notebooks/\1", table) + "\n"


def contents(start: Any) -> str:
    """The notebooks as entries of a table of contents, with their numbers."""
    rows = re.findall(r"\| (\d\d) \| \[(.+?)\]\(notebooks/(.+?)\.ipynb\)", course_map(start))
    return "\n".join(f"{number} {name} <notebooks/{file}>" for number, name, file in rows)


def glossary(start: Any) -> str:
    same = re.search(r"\|.*?(?=\n\n)", _cell(start, "## The words"), re.S)
    terms = re.findall(r"- \*\*(.+?):\*\* (.+)", _folded(start, "## The words", "Glossary"))
    entries = ["\n".join(name.split(", ")) + f"\n    {meaning}" for name, meaning in terms]
    papers = same[0] if same else ""
    return "\n\n".join(
        ["# Words", "```{glossary}\n" + "\n\n".join(entries) + "\n```", "## What papers say for them", papers]
    )


def symbols(start: Any) -> str:
    lines = re.findall(r"- (.+?): (.+)", _folded(start, "## The words", "Symbols"))
    return "# Symbols\n\nOne letter, one meaning.\n\n| | |\n|---|---|\n" + "\n".join(f"| {a} | {b} |" for a, b in lines)


def bibliography(page: str, notebooks: dict[str, Any]) -> str:
    """`docs/bibliography.md` with the notebooks that cite each paper behind it.

    Raises ValueError for a paper that a notebook cites and the page has not, and for one that nobody cites.
    """
    cited: dict[tuple[str, str], list[str]] = {}
    for name, notebook in notebooks.items():
        for paper in references(notebook):
            cited.setdefault(paper, []).append(f"[{name[:2]}](notebooks/{name})")
    lines = []
    for line in page.splitlines():
        if line.startswith("- "):
            paper = entry(line)
            if paper not in cited:
                raise ValueError(f"docs/bibliography.md: no notebook cites {' '.join(paper)}")
            line += f" Cited in {', '.join(cited.pop(paper))}."
        lines.append(line)
    if cited:
        raise ValueError(f"docs/bibliography.md lacks {', '.join(map(' '.join, cited))}")
    return "\n".join(lines) + "\n"


def entry(line: str) -> tuple[str, str]:
    """(first author's name, year) of a line of the bibliography."""
    found = re.match(r"- ([^,.&\d]+?)(?:,| &| et al\.| (?=\d)).*?(\d{4})", line)
    if not found:
        raise ValueError(f"docs/bibliography.md: {line!r} does not begin with names and a year")
    return found[1].strip(), found[2]


def references(notebook: Any) -> list[tuple[str, str]]:
    """(first author's name, year) of every paper under "References"."""
    text = next(c.source for c in notebook.cells[::-1] if "**References.**" in c.source)
    text = text.split("**References.**")[1].split("\n\n")[0].replace("\n", " ")
    name, several = r"([A-Z][\w'’-]+|nostalgebraist)", r"(?:(?:, | & | and )[A-Z][\w'’-]+)*(?: et al\.)?"
    return list(dict.fromkeys(re.findall(rf"(?:^|[.)*] |; ){name}{several},? \(?(\d{{4}})", text.strip())))


# The package.


def reference() -> dict[str, str]:
    """A page for each room, with its modules; and one for what `import sae_tutorial` offers."""
    homes = {name: getattr(sae_tutorial, name) for name in sae_tutorial.__all__ if not name.startswith("_")}
    lines = [
        f"| {{py:obj}}`~{one.__module__}.{one.__qualname__}` | {(one.__doc__ or '').strip().splitlines()[0]} |"
        for one in homes.values()
        if hasattr(one, "__qualname__")
    ]
    tree = "```{toctree}\n:maxdepth: 1\n\n" + "\n".join(ROOMS) + "\n```"
    table = "| `from sae_tutorial import` | |\n|---|---|\n" + "\n".join(lines)
    pages = {"api/index.md": f"# The package\n\n{table}\n\n## Rooms, in the order in which data flows\n\n{tree}\n"}
    return pages | {f"api/{room}.md": "\n".join(_room(room)) for room in ROOMS}


def _room(room: str) -> Iterator[str]:
    package = importlib.import_module(f"sae_tutorial.{room}")
    yield f"# {room}\n\n{_automodule(package.__name__, '   :no-members:')}"
    for module in pkgutil.iter_modules(package.__path__):
        if not module.ispkg:
            yield f"## {module.name}\n\n{_automodule(f'{package.__name__}.{module.name}')}"


def _automodule(name: str, option: str = "") -> str:
    return f"```{{eval-rst}}\n.. automodule:: {name}\n{option}\n```\n"


# What was built.


class Links(HTMLParser):
    """`ids` that one can link to, `links` to other places, and what a page `loads`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        of = {name: value or "" for name, value in attributes}
        self.ids |= {of[name] for name in ("id", "name") if name in of}
        if tag == "a" and "href" in of:
            self.links.append(of["href"])
        loaded = of.get("src") or (of.get("href") if tag == "link" else None)
        if loaded and of.get("rel") not in ("next", "prev", "index", "search"):
            self.loads.append(loaded)


def faults(site: Path) -> list[str]:
    """Links to pages, files and headings that are not there, and whatever would come from the network."""
    found, read = [], {path: Links(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for page, links in read.items():
        here = page.relative_to(site)
        found += [f"{here} loads {one}" for one in links.loads if urlsplit(one).scheme in ("http", "https")]
        for link in links.links + links.loads:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            there = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not there.is_file():
                found.append(f"{here}: {link} is not there")
            elif parts.fragment and there in read and unquote(parts.fragment) not in read[there].ids:
                found.append(f"{here}: {link} has no such heading")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site")
    out = parser.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        gather(Path(folder))
        command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going", "-d", f"{folder}/_build"]
        if code := subprocess.run([*command, folder, str(out.resolve())]).returncode:
            return code
    if found := faults(out):
        print("\n".join(found), file=sys.stderr)
        return 1
    print(f"The site is in {out}. Open {out / 'index.html'} in a browser.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
