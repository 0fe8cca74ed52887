import badges
import nbformat
import notebook_rules
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

NAME = "09_example.ipynb"


def good():
    """The smallest notebook that breaks no rule."""
    opening = f"# Example\n{badges.badge(NAME)}\n\n**You will learn** a. **You need** b. **Run time** 1 s."
    figure = {"application/vnd.plotly.v1+json": {}, "image/png": "iVBOR"}
    cells = [
        new_markdown_cell(opening),
        new_code_cell(badges.setup_cell()),
        new_code_cell("SCALE = notebook.scale()", metadata={"tags": ["parameters"]}),
        new_code_cell("assert 1 + 1 == 2\nfig", outputs=[new_output("display_data", data=figure)]),
        new_markdown_cell("<details><summary>Solution</summary>x</details>\n" * 3),
        new_markdown_cell("**Limits** none. **References** none. **What comes next** nothing."),
    ]
    for count, cell in enumerate((cell for cell in cells if cell.cell_type == "code"), start=1):
        cell.execution_count = count
    return new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})


def problems(notebook):
    return "\n".join(notebook_rules.source_problems(notebook, NAME) + notebook_rules.output_problems(notebook))


def test_a_good_notebook_has_no_problems(tmp_path):
    assert problems(good()) == ""
    nbformat.write(good(), tmp_path / NAME)
    assert notebook_rules.problems(tmp_path / NAME) == []


def test_a_heavy_notebook_is_refused(tmp_path):
    notebook = good()
    notebook.cells[-1].source += "x" * notebook_rules.MAX_BYTES
    nbformat.write(notebook, tmp_path / NAME)
    assert "MB" in "\n".join(notebook_rules.problems(tmp_path / NAME))


@pytest.mark.parametrize(
    "index, source, complaint",
    [
        (0, "# Example", "colab"),
        (1, "import sae_tutorial", "setup cell"),
        (3, "assert True\n" * 26, "26 lines"),
        (3, "assert open('/home/ada/data.txt')", "/home/ada"),
        (3, "1 + 1", "no assert"),
        (4, "no solutions", "exercises"),
        (5, "The end.", "references"),
    ],
)
def test_source_rules(index, source, complaint):
    notebook = good()
    notebook.cells[index].source = source
    assert complaint in problems(notebook)


@pytest.mark.parametrize(
    "output, complaint",
    [
        (new_output("error", ename="KeyError", evalue="x", traceback=[]), "KeyError"),
        (new_output("stream", name="stderr", text="careful"), "stderr"),
        (new_output("stream", name="stdout", text="FutureWarning: soon gone"), "warning"),
        (new_output("stream", name="stdout", text=" 40%|████      | 4/10 [00:01<00:02, 3.1it/s]"), "progress-bar"),
        (new_output("execute_result", data={"text/plain": "<Model at 0x7f00aa11bb22>"}), "memory address"),
        (new_output("execute_result", data={"text/plain": "'/root/.cache/stories'"}), "/root/.cache"),
        (new_output("display_data", data={"application/vnd.plotly.v1+json": {}}), "static picture"),
    ],
)
def test_output_rules(output, complaint):
    notebook = good()
    notebook.cells[3].outputs = [output]
    assert complaint in problems(notebook)


def test_the_kernel_is_named():
    notebook = good()
    del notebook.metadata["kernelspec"]
    assert "kernel python3" in problems(notebook)


def test_every_cell_is_executed_in_order():
    notebook = good()
    notebook.cells[3].execution_count = 7
    assert "in order" in problems(notebook)
    notebook.cells[3].execution_count = 3
    notebook.cells[3].outputs = []
    assert "ends in a figure" in problems(notebook)


@pytest.mark.parametrize("text", ["https://a.org/home/x", "blocks/tmp/x", "../work/x", "and/or", "1/2", "3.4 tokens/s"])
def test_innocent_slashes_pass(text):
    assert notebook_rules.ABSOLUTE_PATH.search(text) is None
