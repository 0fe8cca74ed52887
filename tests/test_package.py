"""Importing the package: cheap, lazy, and honest about what it offers."""

import ast
import graphlib
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sae_tutorial

# Loaded when first used, and not before.
HEAVY = ["torch", "transformer_lens", "transformers", "datasets", "plotly", "ipywidgets", "pandas"]


def in_fresh_python(code: str, *flags: str) -> subprocess.CompletedProcess:
    """Run `code` in a new interpreter, which has imported nothing yet."""
    return subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, check=True, timeout=300)


def test_import_does_not_load_transformer_lens():
    loaded = json.loads(
        in_fresh_python(
            f"import sys, json, sae_tutorial; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
        ).stdout
    )
    assert "transformer_lens" not in loaded
    assert loaded == []


def test_import_is_fast():
    """Under 0.3 s more than `import torch`; the best of five, because a busy machine only ever adds time."""
    code = "import time, torch; start = time.perf_counter(); import sae_tutorial; print(time.perf_counter() - start)"
    seconds = [float(in_fresh_python(code).stdout) for _ in range(2)]
    while min(seconds) >= 0.3 and len(seconds) < 5:
        seconds.append(float(in_fresh_python(code).stdout))
    assert min(seconds) < 0.3, f"import sae_tutorial took {min(seconds):.2f} s beyond torch"


@pytest.mark.parametrize("name", sae_tutorial.__all__)
def test_public_names_resolve(name):
    value = getattr(sae_tutorial, name)
    assert value.__doc__, f"{name} needs a docstring"
    assert name in dir(sae_tutorial)


def test_the_three_lists_of_names_agree():
    """`_HOMES` (what runs), `__all__` (what is promised) and the TYPE_CHECKING block (what editors see)."""
    tree = ast.parse(Path(sae_tutorial.__file__).read_text(encoding="utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING")
    seen = {a.name: n.module.removeprefix("sae_tutorial.") for n in block.body for a in n.names}
    assert seen == sae_tutorial._HOMES
    assert sorted(sae_tutorial.__all__) == sorted(sae_tutorial._HOMES)
    assert sae_tutorial.__all__ == sorted(sae_tutorial.__all__)


def test_unknown_names_raise_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = sae_tutorial.no_such_name
    assert not hasattr(sae_tutorial, "no_such_name")


# A room imports from rooms on lower floors and from itself, so data flows one way and nothing imports a lesson.
FLOORS = {
    "activations": 0,
    "allocation": 0,
    "autoencoder": 1,
    "training": 2,
    "evaluation": 2,
    "circuits": 2,
    "figures": 3,
    "course": 4,
    "commands": 4,
}
PACKAGE = Path(sae_tutorial.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imported(path: Path) -> set[str]:
    """The modules of this package that a file imports, anywhere in it; `from room import module` is that module."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else node.module for name in inner}
    return {name for name in names if name.split(".")[0] == "sae_tutorial"}


def room(module: str) -> str:
    return module.split(".")[1]


def rooms() -> list[str]:
    return sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


def test_the_floors_name_every_room():
    assert sorted(FLOORS) == rooms()


@pytest.mark.parametrize("module", [m for m in sorted(MODULES) if m not in ("sae_tutorial", "sae_tutorial.__main__")])
def test_imports_run_down_the_floors(module):
    for other in imported(MODULES[module]) - {"sae_tutorial"}:
        lower = FLOORS[room(other)] < FLOORS[room(module)]
        assert lower or room(other) == room(module), f"{module} imports {other}, which does not stand below it"
    assert "sae_tutorial" not in imported(MODULES[module]), f"{module} imports the public face: name the module"


@pytest.mark.parametrize("name", rooms())
def test_no_cycle_within_a_room(name):
    """Faces aside (they only hand names on), the modules of a room can be put in an order."""
    inner = {m: p for m, p in MODULES.items() if m != f"sae_tutorial.{name}" and m.startswith(f"sae_tutorial.{name}.")}
    arrows = {module: imported(path) & inner.keys() for module, path in inner.items()}
    tuple(graphlib.TopologicalSorter(arrows).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("name", rooms())
def test_a_room_lists_its_modules(name):
    """The docstring of each room is its page: every module has a line, in an order in which imports run upwards."""
    source = (PACKAGE / name / "__init__.py").read_text(encoding="utf-8")
    page = ast.get_docstring(ast.parse(source))
    listed = re.findall(r"^(\w+)  +\S", page, flags=re.M)
    there = {m.split(".")[2] for m in MODULES if m.startswith(f"sae_tutorial.{name}.")}
    lessons = {p.parent.name for p in (PACKAGE / "course").glob("*/__init__.py")} if name == "course" else set()
    assert sorted(listed) == sorted(there - lessons)
    for place, module in enumerate(listed):
        deeper = {m for m in MODULES if m.startswith(f"sae_tutorial.{name}.{module}.")}
        used = {i for m in [f"sae_tutorial.{name}.{module}", *deeper] for i in imported(MODULES[m])}
        above = {i.split(".")[2] for i in used if i.count(".") >= 2 and room(i) == name} - {module}
        late = above & set(listed[place:])
        assert not late, f"{name}/{module} imports {sorted(late)}, listed after it"


@pytest.mark.parametrize("name", rooms())
def test_faces_are_light(name):
    """Importing a room, or the package, loads none of the heavy libraries that only some of its modules need."""
    heavy = [library for library in HEAVY if library != "torch"]
    code = f"import sys, json, sae_tutorial.{name}; print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    assert json.loads(in_fresh_python(code).stdout) == []
    face = importlib.import_module(f"sae_tutorial.{name}")
    assert len(getattr(face, "__all__", [])) <= 15


def test_nothing_prints():
    """Return values and progress bars speak for the package; only the command line writes to a terminal."""
    for path in Path(sae_tutorial.__file__).parent.rglob("*.py"):
        if path.parent.name == "commands" or path.name == "__main__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_print = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
            assert not is_print, f"{path.name}:{getattr(node, 'lineno', 0)} prints"


def test_version_matches_the_project_file():
    import tomllib

    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == sae_tutorial.__version__
