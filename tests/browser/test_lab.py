"""What a newcomer meets: `make lab`, a browser, notebooks that open with their figures, run, and answer.

Needs Chromium and its driver. `make browser` runs all of it, `make browser QUICK=1` what `.ci/run` has time for.
"""

from itertools import cycle, islice
from pathlib import Path

import pytest
from lab_page import WATCH, wait_for

Keys = pytest.importorskip("selenium.webdriver").Keys
pytestmark = pytest.mark.browser
FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
GALLERY = sorted(f"gallery/{path.name}" for path in FOLDER.glob("gallery/*.ipynb"))
THEMES = ("JupyterLab Light", "JupyterLab Dark")


def slow_but(names, quick):
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


def test_make_lab_opens_the_first_notebook(lab):
    lab.browser.get(lab.address)
    state = wait_for(lab.ready, "the first notebook")
    assert state["path"] == f"notebooks/{NOTEBOOKS[0]}"


@pytest.mark.parametrize("name", slow_but(NOTEBOOKS + GALLERY, NOTEBOOKS))
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
            if px == 1280:  # the ink does not depend on the width, and a mouse takes its time
                title, prose = lab.ink()
                assert title == prose, theme


# Of each kind of control: what the cell says that shows it, what is operated, and keys to press in turn, or the numbers
# of points to click on.
NUMBER = ("input[type=number]", (Keys.ARROW_UP, Keys.ARROW_DOWN))
BUTTONS = ("button.widget-toggle-button:not(.mod-active)", (Keys.ENTER,))
SLIDER = (".noUi-handle", (Keys.ARROW_LEFT, Keys.ARROW_RIGHT))
TEXT = ("input[type=text]", (Keys.END + " again" + Keys.ENTER,))
MENU = ("select", (Keys.ARROW_DOWN, Keys.ARROW_UP))
POINTS = (".scatterlayer .point", (1, 2))
CONTROLS = {
    "00_start_here.ipynb": ("word_viewer(", NUMBER, BUTTONS),
    "01_transformers.ipynb": ("attention_viewer(model", SLIDER, TEXT),
    "08_ioi_circuit.ipynb": ("patching_viewer(model)", MENU, TEXT),
    "10_reading_features.ipynb": ("feature_browser(Features", NUMBER, SLIDER, TEXT),
    "14_discrete_circuits.ipynb": ("code_viewer(", MENU),
    "15_transcoders.ipynb": ("graph_viewer(trace", MENU, POINTS),
    "16_judged_by_tasks.ipynb": ("probe_viewer(", MENU),
}
QUICK = ("00_start_here.ipynb", "01_transformers.ipynb", "16_judged_by_tasks.ipynb")  # every kind of control
MILLISECONDS = 300


@pytest.mark.parametrize("name", slow_but(NOTEBOOKS + GALLERY, QUICK))
def test_runs_from_top_to_bottom_and_its_controls_answer(lab, name):
    lab.open(name)
    state = lab.run_all(name)
    assert state["errors"] == []
    assert state["stderr"] == []
    assert state["counts"] == list(range(1, len(state["counts"]) + 1))
    assert state["figures"] > 0, "no figure was drawn"
    source, *controls = CONTROLS.get(name, ("",))
    for selector, keys in controls:
        taken = answers(lab, lab.cell(source), selector, keys)
        assert min(taken[1:]) < MILLISECONDS, f"{selector}: {taken} ms, the first of them with what is drawn only once"


def answers(lab, cell, selector, keys):
    """Milliseconds until what the widget shows has changed, for four keys or clicks."""
    find = "css selector"
    wait_for(lambda: cell.find_elements(find, selector), f"{selector} in the cell", patience=60)
    assert lab.browser.execute_script(WATCH, cell) > 0, "the widget shows nothing"
    taken = []
    for key in islice(cycle(keys), 4):
        at, pressed = (key, None) if isinstance(key, int) else (0, key)
        taken.append(lab.milliseconds(cell.find_elements(find, selector)[at], pressed))
    return taken
