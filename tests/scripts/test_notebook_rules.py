import badges
import nbformat
import notebook_rules
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

NAME = "09_example.ipynb"


def good():
    """The smallest notebook that breaks no rule."""
    opening = f"# Example\n{badges.badge(NAME)}\n\n**You will learn** a. **You need** b. **Run time** 1 s."
    figure = {"application/vnd.plotly.v1+json": {}, "image/png": "iVBORw=="}
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


# ---------------------------------------------------------------------- how a course reads


def readable():
    notebook = good()
    notebook.cells[3].outputs.append(new_output("display_data", data={"text/html": '<div class="sae-drawing">'}))
    notebook.cells[3].source = "step = my_step if use_mine else library_step\nfig"
    return notebook


def course_problems(notebook, folder):
    nbformat.write(notebook, folder / NAME)
    return "\n".join(notebook_rules.course_problems(folder / NAME))


def test_a_readable_notebook_has_no_problems(tmp_path):
    assert course_problems(readable(), tmp_path) == ""


@pytest.mark.parametrize(
    "index, source, complaint",
    [
        (0, "word " * 91, "a paragraph of 91 words"),
        (0, "\n\n".join(["word " * 80] * 38), "3,054 words"),
        (0, "One (two) and three (four).", "2 brackets"),
        (0, "The places of a feature.", "'positions'"),
        (0, "### Exercise 2: build it", "without a mark"),
        (0, "See [it](../02_somewhere.ipynb#part).", "nowhere: ../02_somewhere.ipynb"),
        (3, "assert a\n" * 3, "3 asserts"),
        (3, "1", "use_mine"),
    ],
)
def test_rules_of_reading(index, source, complaint, tmp_path):
    notebook = readable()
    notebook.cells[index].source = source
    assert complaint in course_problems(notebook, tmp_path)


@pytest.mark.parametrize(
    "source",
    [
        "- " + "word " * 80 + "\n- " + "word " * 80,
        "Elhage et al. (2022) and Ayonrinde (2024) (a bracket).",
        "$f(x) = g(y)$ and `f(x)` and [a link](https://a.b/c(d)) (a bracket)",
        "| a (b) | c (d) |\n|---|---|\n| e (f) | g (h) |",
        "### Exercise 2 ★★: build it",
        "Everything takes place here.",
        f"[This page]({NAME}), [a part of it]({NAME}#part) and [a part of here](#part).",
    ],
)
def test_what_is_no_problem_for_a_reader(source, tmp_path):
    notebook = readable()
    notebook.cells[0].source = source
    assert course_problems(notebook, tmp_path) == ""


def test_a_folded_cell_may_check_as_much_as_it_likes(tmp_path):
    notebook = readable()
    notebook.cells.append(new_code_cell("assert a\n" * 5, metadata={"tags": ["checks"]}))
    assert course_problems(notebook, tmp_path) == ""


@pytest.mark.parametrize(
    "change, complaint",
    [
        (lambda cells: cells.extend(new_markdown_cell("x") for _ in range(60)), "66 cells"),
        (lambda cells: cells[3].outputs.pop(), "no drawing"),
        (
            lambda cells: cells[3].outputs[0].data["application/vnd.plotly.v1+json"].update(layout={"width": 800}),
            "800 px",
        ),
        (
            lambda cells: cells[3].outputs[0].data["application/vnd.plotly.v1+json"].update(layout={"height": 120}),
            "120 px high",
        ),
        (lambda cells: cells[3].outputs[0].data.update({"text/plain": "x" * 1_000_001}), "1.00 MB"),
    ],
)
def test_what_is_shown_fits(change, complaint, tmp_path):
    notebook = readable()
    change(notebook.cells)
    assert complaint in course_problems(notebook, tmp_path)
