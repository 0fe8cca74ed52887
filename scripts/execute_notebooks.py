"""Execute notebooks in place at laptop scale, so that they read well where nothing runs.

    python scripts/execute_notebooks.py                                   all of the course
    python scripts/execute_notebooks.py --gallery                         all of the gallery, and its page
    python scripts/execute_notebooks.py notebooks/01_transformers.ipynb   only this one

Each runs in a fresh kernel from its own folder. The result is cleaned of everything that belongs to one machine or one
moment, held against the rules in notebook_rules.py, and only then written; a notebook that fails stays as it was.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import platform
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gallery_index
import nbformat
import notebook_rules
import pictures
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent
WIDGET = "application/vnd.jupyter.widget-view+json"
STATES = "application/vnd.jupyter.widget-state+json"
HEAVY = 1_000_000  # characters of a widget's saved state
LIMIT, GALLERY_LIMIT = 180, 60  # seconds; the longest that a reader should wait for a whole notebook on two cores


def execute(path: Path, scale: str = "laptop", timeout: int = 1800) -> float:
    """Run the notebook at `path` and write it back; returns the seconds that it took.

    Raises RuntimeError, and leaves the file alone, if a cell fails or the result breaks a rule.
    """
    notebook = nbformat.read(path, as_version=4)
    name = notebook_rules.name_of(path)
    _refuse(notebook_rules.source_problems(notebook, name), "It was not run, because")
    os.environ.update(
        SAE_TUTORIAL_SCALE=scale,
        SAE_TUTORIAL_STATIC="1",  # a picture beside each interactive figure
        TQDM_DISABLE="1",  # fewer progress bars to remove afterwards
        PYTHONHASHSEED="0",
    )
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors only, the terminal is for progress
        resources={"metadata": {"path": str(path.parent)}},
    )
    start = time.perf_counter()
    try:
        client.execute()
    except CellExecutionError as error:
        raise RuntimeError(f"{path.name} stopped in a cell and was left as it was:\n{error}") from None
    seconds = time.perf_counter() - start

    tidy(notebook)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".executing-") as folder:
        result = Path(folder) / path.name
        nbformat.write(notebook, result)
        _refuse(notebook_rules.problems(result, name), "It ran, but was left as it was, because")
        result.replace(path)
    return seconds


LANGUAGE = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}


def _refuse(problems: list[str], why: str) -> None:
    if problems:
        raise RuntimeError(f"{why}\n  " + "\n  ".join(problems))


def tidy(notebook: Any) -> None:
    """Remove, in place, what tells of one machine or one moment: times, paths, addresses, progress bars.

    The kernel and its language are written as JupyterLab does; it calls a notebook unsaved on opening if they differ.
    """
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {**LANGUAGE, "version": platform.python_version()},
            **{key: value for key, value in notebook.metadata.items() if key == "widgets"},
        }
    )
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [tidied for output in cell.outputs if (tidied := _tidy_output(output)) is not None]
    _show_heavy_widgets_as_pictures(notebook)
    _forget_hidden_widgets(notebook)


def _tidy_output(output: Any) -> Any | None:
    if output.output_type == "stream":
        lines = output.text.split("\n")
        kept = [line for line in lines if not notebook_rules.PROGRESS.search(line + " ")]
        output.text = _anonymous("\n".join(kept))
        return output if output.text.strip() else None
    data = output.get("data", {})
    if WIDGET in data and notebook_rules.PROGRESS.search(data.get("text/plain", "")):
        return None  # a progress bar that drew itself as a widget
    for mime, value in data.items():
        if mime.startswith("text/") and isinstance(value, str):
            output.data[mime] = _anonymous(value)
    if "image/png" in data:
        output.data["image/png"] = base64.b64encode(pictures.smaller(base64.b64decode(data["image/png"]))).decode()
    return output


def _show_heavy_widgets_as_pictures(notebook: Any) -> None:
    """A widget whose saved state brings a library along, as a figure that one clicks does with all of plotly, is kept
    as its picture alone. It is there again when its cell is run."""
    states = _states(notebook)
    for output in _outputs(notebook):
        data = output.get("data", {})
        if WIDGET in data and "image/png" in data:
            inside = _reached(states, [data[WIDGET]["model_id"]])
            if sum(len(json.dumps(states[model])) for model in inside) > HEAVY:
                del data[WIDGET]


def _forget_hidden_widgets(notebook: Any) -> None:
    """Drop the saved state of widgets that no output shows, directly or inside another widget."""
    states = _states(notebook)
    shown = _reached(
        states, [output.data[WIDGET]["model_id"] for output in _outputs(notebook) if WIDGET in output.get("data", {})]
    )
    for model in set(states) - shown:
        del states[model]
    if not states:
        notebook.metadata.pop("widgets", None)


def _states(notebook: Any) -> dict[str, Any]:
    return notebook.metadata.get("widgets", {}).get(STATES, {}).get("state", {})


def _outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def _reached(states: dict[str, Any], waiting: list[str]) -> set[str]:
    """The models with a state among `waiting`, and those that are inside them."""
    found: set[str] = set()
    while waiting:
        model = waiting.pop()
        if model in states and model not in found:
            found.add(model)
            waiting += re.findall(r"IPY_MODEL_(\w+)", json.dumps(states[model]))
    return found


def _anonymous(text: str) -> str:
    """Paths inside the repository become relative, the home folder `~`, and memory addresses go."""
    text = text.replace(f"{ROOT}{os.sep}", "").replace(str(ROOT), ".")
    text = text.replace(str(Path.home()) + os.sep, "~/")
    text = text.replace(tempfile.gettempdir() + os.sep, "<temporary folder>/")
    return re.sub(notebook_rules.MEMORY_ADDRESS, "", text)


def check_pictures() -> None:
    """Raise RuntimeError with the fix if figures cannot be turned into pictures here."""
    import plotly.graph_objects as go

    try:
        go.Figure().to_image(format="png", width=50, height=50)
    except Exception as error:
        raise RuntimeError(
            "Figures cannot be drawn as pictures: kaleido needs a Chrome or Chromium. Install one "
            "(Debian: sudo apt install chromium; anywhere: .venv/bin/plotly_get_chrome), or point BROWSER_PATH at it. "
            f"What went wrong: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
        ) from None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all in notebooks/")
    parser.add_argument("--gallery", action="store_true", help="those in notebooks/gallery/ instead, and its page")
    parser.add_argument("--scale", default="laptop", choices=["smoke", "laptop", "gpu"])
    arguments = parser.parse_args()
    folder = notebook_rules.GALLERY if arguments.gallery else notebook_rules.GALLERY.parent
    paths = [path.resolve() for path in arguments.notebooks] or sorted(folder.glob("*.ipynb"))
    failed = 0
    try:
        check_pictures()
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    for path in paths:
        print(f"{path.name} ... ", end="", flush=True)
        try:
            seconds = execute(path, arguments.scale)
        except RuntimeError as error:
            failed += 1
            print(f"FAILED\n{error}\n")
        else:
            limit = LIMIT if notebook_rules.name_of(path) == path.name else GALLERY_LIMIT
            slow = f"  over {limit} s, too long for a reader" if arguments.scale == "laptop" and seconds > limit else ""
            print(f"{seconds:.0f} s, {path.stat().st_size / 1e6:.2f} MB{slow}")
    if arguments.gallery and not failed:
        gallery_index.write()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
