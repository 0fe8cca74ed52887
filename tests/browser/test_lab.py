"""What a newcomer meets: `make lab`, a browser, notebooks that open with their figures, run, and answer.

Needs Chromium and its driver. `make browser` runs all of it, `make browser QUICK=1` what `.ci/run` has time for.
"""

from pathlib import Path

import pytest
from lab_page import WATCH, wait_for

pytestmark = pytest.mark.browser
NOTEBOOKS = sorted(path.name for path in (Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
THEMES = ("JupyterLab Light", "JupyterLab Dark")
# One of each kind is run in the quick subset: words and figures; SAEs; a circuit of features that one clicks.
QUICK = ("00_start_here.ipynb", "05_sparse_allocation.ipynb", "15_transcoders.ipynb")


def slow_but(names, quick):
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


def test_make_lab_opens_the_first_notebook(lab):
    lab.browser.get(lab.address)
    state = wait_for(lab.ready, "the first notebook")
    assert state["path"] == f"notebooks/{NOTEBOOKS[0]}"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_opens_with_its_figures_uncut_in_both_themes(lab, name):
    lab.width(1280)
    state = lab.open(name)
    assert state["figures"] > 0
    wait_for(lambda: lab.drawn()["figures"] >= state["figures"], f"{state['figures']} figures", patience=60)
    assert not lab.state()["dirty"], "it asks to be saved, and nobody has changed it"
    for px in (1280, 800):
        lab.width(px)
        for theme in THEMES:
            lab.theme(theme)
            drawn = lab.drawn()
            assert drawn["cut"] == [] and drawn["broken"] == 0, (px, theme)
            title, prose = lab.ink()
            assert title == prose, (px, theme)


@pytest.mark.parametrize("name", slow_but(NOTEBOOKS, QUICK))
def test_runs_from_top_to_bottom(lab, name):
    lab.open(name)
    state = lab.run_all(name)
    assert state["errors"] == []
    assert state["stderr"] == []
    assert state["counts"] == list(range(1, len(state["counts"]) + 1))
    assert state["figures"] > 0, "no figure was drawn"


# Of each kind of control: notebook, what its cell says, what is operated, and the keys.
CONTROLS = {
    "number": ("00_start_here.ipynb", "word_viewer(", "input[type=number]", "\ue013"),  # arrow up
    "buttons": ("00_start_here.ipynb", "word_viewer(", "button.widget-toggle-button:not(.mod-active)", "\ue007"),
    "slider": ("01_transformers.ipynb", "attention_viewer(model", ".noUi-handle", "\ue014"),  # arrow right
    "text": ("01_transformers.ipynb", "attention_viewer(model", "input[type=text]", "\ue010. The end\ue007"),
    "menu": ("16_judged_by_tasks.ipynb", "probe_viewer(", "select", "\ue015"),  # arrow down
}
QUICK_CONTROLS = ("number", "buttons", "slider", "text")
MILLISECONDS = 300


@pytest.mark.parametrize("control", slow_but(CONTROLS, QUICK_CONTROLS))
def test_a_control_answers_to_the_keyboard(lab, control):
    name, source, selector, keys = CONTROLS[control]
    state = lab.open(name)
    state = lab.run_all(name)
    assert state["errors"] == []
    cell = lab.cell(source)
    operated = wait_for(lambda: cell.find_elements("css selector", selector), f"{selector} in the cell")[0]
    assert lab.browser.execute_script(WATCH, cell) > 0, "the widget shows nothing"
    lab.milliseconds(operated, keys)  # the first draw of anything may read the model
    taken = min(lab.milliseconds(operated, keys) for _ in range(3))
    assert taken < MILLISECONDS, f"{control}: {taken:.0f} ms"
