"""The repository keeps its own rules: notebooks, the README's map, links, and the files around the package."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import badges
import gallery_index
import nbformat
import notebook_rules
import pytest
import yaml
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
GALLERY = sorted(notebook_rules.GALLERY.glob("*.ipynb"))
FOLDERS = (".", "benchmarks", "sae_tutorial/assets", "notebooks/gallery")
PAGES = sorted({page for folder in FOLDERS for page in (ROOT / folder).glob("*.md" if folder == "." else "**/*.md")})


@pytest.mark.parametrize("path", NOTEBOOKS + GALLERY, ids=lambda path: path.name)
def test_notebook_keeps_the_rules(path):
    problems = notebook_rules.problems(path)
    assert not problems, "\n".join(problems)


def test_the_page_of_the_gallery_says_what_its_notebooks_found():
    assert gallery_index.PAGE.read_text(encoding="utf-8") == gallery_index.page(), "run `make gallery`, or its script"


def test_exercises_of_the_gallery_are_those_of_its_notebooks():
    folder = ROOT / "sae_tutorial" / "course" / "gallery"
    checks = [
        f"{module.stem}.{check}"
        for module in folder.glob("*.py")
        for check in re.findall(r"^def (check_\w+)", module.read_text(encoding="utf-8"), flags=re.M)
    ]
    used = []
    for path in GALLERY:
        code = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
        family = path.stem.partition("_")[0]
        used += {f"{family}.{check}" for check in re.findall(rf"\b{family}\.(check_\w+)", code)}
    assert sorted(used) == sorted(checks), "one for each notebook, in the module of its family"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_has_its_exercises_beside_it(path):
    """notebooks/03_directions.ipynb is judged by sae_tutorial/course/directions/exercises.py, and the two agree."""
    lesson = re.fullmatch(r"\d\d_(\w+)", path.stem).group(1)
    module = ROOT / "sae_tutorial" / "course" / lesson / "exercises.py"
    assert module.exists(), f"{path.name} needs {module.relative_to(ROOT)}"
    checks = set(re.findall(r"^def (check_\w+)", module.read_text(encoding="utf-8"), flags=re.M))
    code = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    unused = {name for name in checks if name not in code}
    assert checks and not unused, f"{lesson} has checks that {path.name} does not use: {sorted(unused)}"


def test_readme_maps_every_notebook_in_order():
    rows = re.findall(r"^\|.*notebooks/(\d\d_\w+\.ipynb)\).*\|$", readme(), flags=re.M)
    assert [name for name in rows] == [path.name for path in NOTEBOOKS]
    for name in rows:
        row = next(line for line in readme().splitlines() if line.startswith("|") and name in line)
        assert badges.badge(name) in row, f"the README's row of {name} lacks its Colab badge: run `make badges`"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_readme_and_notebook_agree_on_the_run_time(path):
    opening = nbformat.read(path, as_version=4).cells[0].source
    run_time = re.search(r"\*\*Run time\*\* (.+?) on a laptop CPU with 2 cores", opening).group(1)
    row = next(line for line in readme().splitlines() if line.startswith("|") and path.name in line)
    assert f"| {run_time} |" in row, f"{path.name} says {run_time!r}"


def test_badges_and_install_lines_agree_with_pyproject():
    wrong = [path.name for path in badges.disagreements()]
    assert not wrong, f"run `make badges`: {', '.join(wrong)}"


def test_placeholder_owner_is_explained_once():
    mentions = len(badges.NOTE.findall(readme()))
    assert mentions == (1 if badges.owner() == badges.PLACEHOLDER else 0)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) + re.findall(r'src="([^"]+)"', text)
    missing = [t for t in targets if "://" not in t and not t.startswith("mailto:") and not (page.parent / t).exists()]
    assert not missing, f"{page.name} points at {missing}"
    assert not notebook_rules.ABSOLUTE_PATH.search(text)


@pytest.mark.parametrize("target", ["lab", "test", "notebooks", "gallery", "badges", "bench", "lint"])
def test_makefile_has_and_explains_its_targets(target):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:.*## \S", makefile, flags=re.M)


def test_make_lab_trusts_every_notebook():
    """JupyterLab takes the style of figures out of notebooks that it does not trust; a folder it does not sign."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    [trusted] = re.findall(r"jupyter trust (.+?) >", makefile)
    assert {path for one in trusted.split() for path in ROOT.glob(one)} == set(NOTEBOOKS + GALLERY)


def test_commands_named_in_the_pages_exist():
    """`make something` in a page is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    for page in PAGES:
        named = set(re.findall(r"(?:`|^)make ([a-z]+)", page.read_text(encoding="utf-8"), flags=re.M))
        assert named <= targets, f"{page.name} names {sorted(named - targets)}"


def test_contributing_lists_every_room():
    """The map of the house is kept true: each room has its row (and lists its own modules, see test_package.py)."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`[^|]+) \|", page, flags=re.M)
    rows = {name for cell in cells for name in re.findall(r"`([\w./]+)`", cell)}
    assert not [row for row in rows if not (ROOT / row).exists()], "rows for what is not there"
    package = ROOT / "sae_tutorial"
    rooms = {f"sae_tutorial/{p.name}/" for p in package.iterdir() if p.is_dir() and p.name != "__pycache__"}
    missing = rooms - rows
    assert not missing, f"no row in CONTRIBUTING.md for {sorted(missing)}"


@pytest.mark.parametrize("line", ["return undefined_name + x", 'return x + Float[Tensor, "undefined_name"]'])
def test_lint_sees_an_undefined_name(line):
    """Shape strings must not be a reason to switch that off: one name alone takes a leading space."""
    probe = f"def f(x):\n    {line}\n"
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--stdin-filename", "sae_tutorial/probe.py", "-"]
    found = subprocess.run(ruff, input=probe, capture_output=True, text=True, cwd=ROOT)
    assert found.returncode == 1 and "F821" in found.stdout, found.stdout + found.stderr


def the_pins():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_constraints_pin_every_dependency_exactly():
    pins = the_pins()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin) for pin in pins), "name==version and no more"
    pinned = {normal(pin.split("==")[0]) for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + extras["lab"] + extras["dev"] + extras["hub"]
    names = {normal(re.match(r"[\w.-]+", requirement).group()) for requirement in wanted}
    assert names <= pinned, f"missing from constraints.txt: {sorted(names - pinned)}"


def test_pins_install_on_the_first_python_that_the_package_asks_for():
    """Python 3.11 means 3.11.0 as well: Debian 12 ships 3.11.2, and a pin that wants 3.11.5 ends `make lab` there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = project["requires-python"].removeprefix(">=") + ".0"
    names = {normal(pin.split("==")[0]) for pin in the_pins()}
    here = {normal(one.metadata["Name"]): one.metadata["Requires-Python"] for one in distributions()}
    asked = {name: here[name] for name in names & set(here) if here[name]}
    assert len(asked) > 50, "the pinned packages are installed where tests run"
    too_new = {name: what for name, what in asked.items() if oldest not in SpecifierSet(what)}
    assert not too_new, f"they do not install on Python {oldest}: {too_new}"


def test_torch_and_numpy_are_not_pinned_by_the_package():
    """Hosted notebooks keep the torch and numpy they come with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for requirement in project["dependencies"]:
        if re.match(r"(torch|numpy)\b", requirement):
            assert re.fullmatch(r"\w+>=[\d.]+", requirement)


def test_conda_builds_the_environment_that_make_builds():
    """No conda solves it here; but conda has to find a Python only, and pip does the rest with the pins of `make`."""
    found = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *of_conda, of_pip = found["dependencies"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = {one.partition("=")[0]: one.partition("=")[2] for one in of_conda}
    assert set(versions) == {"python", "pip"} and f"{versions['python']}.0" in SpecifierSet(project["requires-python"])
    extras = re.search(r"^EXTRAS := (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)[1]
    assert of_pip["pip"] == ["-c constraints.txt", f"-e .[{extras}]"]
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONS = sorted((ROOT / ".github" / "actions").glob("*/action.yml"))


@pytest.mark.parametrize(
    ("schema", "paths"), [("vendor.github-workflows", WORKFLOWS), ("vendor.github-actions", ACTIONS)]
)
def test_workflows_and_actions_follow_their_schemas(schema, paths):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, paths)]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert paths and checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_what_is_there(path):
    own = re.findall(r"uses: \./(\S+)", path.read_text(encoding="utf-8"))
    assert own and all((ROOT / action / "action.yml") in ACTIONS for action in own)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    called = re.findall(r"run: make (\w+)", path.read_text(encoding="utf-8"))
    assert called and all(re.search(rf"^{target}:", makefile, re.M) for target in called)


def test_every_promised_python_and_system_is_tested():
    tests = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    assert all(word in tests for word in ("ubuntu-latest", "macos-latest", '"3.11"', '"3.12"', '"3.13"'))


def test_the_devcontainer_opens_jupyterlab():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    assert container["postCreateCommand"] == "make install" and "make lab" in container["postAttachCommand"]
    assert str(container["forwardPorts"][0]) in container["postAttachCommand"]


@pytest.mark.slow
def test_the_first_five_minutes_of_contributing_run_as_they_stand(tmp_path):
    """All lines but the two that clone and install."""
    from sae_tutorial import load_language_model, story_tokens

    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## The first five minutes")[1]
    clone, install, *lines = page.split("```bash\n")[1].split("```")[0].splitlines()
    assert clone.startswith("git clone") and install == "make install"
    (tmp_path / ".venv").symlink_to(sys.prefix)
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    text = tmp_path / "mine.txt"
    decode = load_language_model("stories").tokenizer.batch_decode
    text.write_text("\n".join(decode(story_tokens(60_000, 256, source="books")[:, 1:])), encoding="utf-8")
    environment = os.environ | {"TEXT": str(text), "SAE_TUTORIAL_CACHE": str(tmp_path / "cache")}
    command = ["bash", "-e", "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for name in ("mine.html", "real.html"):
        assert "<svg" in (tmp_path / name).read_text(encoding="utf-8")
    assert (tmp_path / "notebooks" / "first_run.ipynb").is_file()
