import execute_notebooks
import nbformat
import notebook_rules
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook, new_output


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Execute a one-cell notebook and read it back. Only the rules for outputs apply: it is no course notebook."""
    monkeypatch.setattr(notebook_rules, "source_problems", lambda notebook, name: [])
    for name in ("SAE_TUTORIAL_SCALE", "SAE_TUTORIAL_STATIC", "TQDM_DISABLE", "PYTHONHASHSEED"):
        monkeypatch.setenv(name, "")  # so that what execute() sets is undone after the test

    def run(source):
        path = tmp_path / "example.ipynb"
        nbformat.write(new_notebook(cells=[new_code_cell(source)]), path)
        execute_notebooks.execute(path, scale="smoke")
        return nbformat.read(path, as_version=4)

    run.path = tmp_path / "example.ipynb"
    return run


def said_by_a_kernel():
    """What a kernel says of itself."""
    notebook = new_notebook(cells=[new_code_cell("1")])
    NotebookClient(notebook, kernel_name="python3").execute()
    return notebook.metadata


def test_runs_at_the_scale_and_keeps_nothing_of_this_machine(run):
    notebook = run(
        "import os\nfrom pathlib import Path\nfrom tqdm.auto import tqdm\n"
        "print(os.environ['SAE_TUTORIAL_SCALE'], os.environ['SAE_TUTORIAL_STATIC'])\n"
        "print(Path.home() / 'folder')\n"
        "total = sum(tqdm(range(5)))\n"
        "object()"
    )
    cell = notebook.cells[0]
    assert cell.execution_count == 1
    assert [output.get("text") or output.data["text/plain"] for output in cell.outputs] == [
        "smoke 1\n~/folder\n",
        "<object>",
    ]
    assert "execution" not in cell.metadata
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    kernel = said_by_a_kernel()
    assert notebook.metadata.language_info == kernel.language_info, "or JupyterLab calls it unsaved on opening"
    assert [path.name for path in run.path.parent.iterdir()] == [run.path.name], "no temporary files stay"


@pytest.mark.parametrize(
    "source, why", [("1 / 0", "ZeroDivisionError"), ("import warnings; warnings.warn('old')", "stderr")]
)
def test_a_bad_notebook_stays_as_it_was(run, source, why):
    with pytest.raises(RuntimeError, match=why):
        run(source)
    assert nbformat.read(run.path, as_version=4).cells[0].execution_count is None


def test_progress_bars_are_removed_line_by_line():
    output = new_output("stream", text="first\n 50%|█████     | 1/2 [00:00<00:00, 9.1it/s]\nlast\n")
    notebook = new_notebook(cells=[new_code_cell("x", outputs=[output])])
    execute_notebooks.tidy(notebook)
    assert notebook.cells[0].outputs[0].text == "first\nlast\n"


def test_widgets_that_are_shown_keep_their_state_and_the_rest_goes(run):
    notebook = run(
        "import ipywidgets\nfrom tqdm.notebook import tqdm\n"
        "for _ in tqdm(range(2)): pass\n"
        "ipywidgets.VBox([ipywidgets.IntSlider(description='sparsity')])"
    )
    (output,) = notebook.cells[0].outputs
    states = notebook.metadata.widgets[execute_notebooks.STATES]["state"]
    assert output.data[execute_notebooks.WIDGET]["model_id"] in states
    names = {state["model_name"] for state in states.values()}
    assert {"VBoxModel", "IntSliderModel"} <= names
    assert "FloatProgressModel" not in names


def test_a_widget_that_brings_a_library_along_is_kept_as_its_picture(run):
    notebook = run(
        "import base64, io\nimport ipywidgets\nfrom PIL import Image\n"
        "file = io.BytesIO()\n"
        "Image.new('RGB', (2, 2)).save(file, 'png')\n"
        "class Shown(ipywidgets.HTML):\n"
        "    def _repr_mimebundle_(self, **kwargs):\n"
        "        picture = base64.b64encode(file.getvalue()).decode()\n"
        "        return super()._repr_mimebundle_(**kwargs) | {'image/png': picture}\n"
        "display(Shown('light'), Shown('x' * 1_200_000))"
    )
    light, heavy = (output.data for output in notebook.cells[0].outputs)
    assert execute_notebooks.WIDGET in light and execute_notebooks.WIDGET not in heavy and "image/png" in heavy
    states = notebook.metadata.widgets[execute_notebooks.STATES]["state"]
    assert light[execute_notebooks.WIDGET]["model_id"] in states and len(str(states)) < 100_000
