"""Importing the package: cheap, lazy, and honest about what it offers."""

import ast
import json
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


def test_nothing_imports_the_exercises():
    package = Path(sae_tutorial.__file__).parent
    for path in package.rglob("*.py"):
        if path.parent.name != "exercises":
            assert "sae_tutorial.exercises" not in path.read_text(encoding="utf-8"), path.name


def test_nothing_prints():
    """Return values and progress bars speak for the package."""
    for path in Path(sae_tutorial.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_print = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
            assert not is_print, f"{path.name}:{getattr(node, 'lineno', 0)} prints"


def test_version_matches_the_project_file():
    import tomllib

    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == sae_tutorial.__version__
