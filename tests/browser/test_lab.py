"""What a newcomer meets: `make lab`, a browser, the first notebook, "run all cells".

Needs Chromium and its driver. `make browser` runs it; `make browser PYTEST_FLAGS="-s"` says where the screenshots are.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser
selenium = pytest.importorskip("selenium")
ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
PATIENCE = 300  # seconds; a busy machine is no failure

# Read from the notebook's model: cells out of view are not in the page.
STATE = """
const panel = window.jupyterapp?.shell.currentWidget;
if (!panel?.content?.model) return null;
const written = cell => cell.type === 'code' && cell.sharedModel.getSource();
const cells = Array.from(panel.content.model.cells).filter(written);
const outputs = cells.flatMap(cell => cell.outputs.toJSON());
return {
    path: panel.context.path,
    ready: panel.sessionContext.isReady && panel.sessionContext.session?.kernel?.status === 'idle',
    counts: cells.map(cell => cell.executionCount),
    errors: outputs.filter(output => output.output_type === 'error').map(output => output.ename + ': ' + output.evalue),
    figures: outputs.filter(output => output.data && 'application/vnd.plotly.v1+json' in output.data).length,
    stderr: outputs.filter(output => output.name === 'stderr').map(output => output.text),
};
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The url that `make lab` prints, for as long as the tests of this file run."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = f"--no-browser --port {port} --ServerApp.port_retries=0 --LabApp.expose_app_in_browser=True"
    log = tmp_path_factory.mktemp("lab") / "log.txt"
    environment = {**os.environ, "SAE_TUTORIAL_SCALE": "smoke"}
    with log.open("w") as out:
        server = subprocess.Popen(
            ["make", "lab", f"LAB_FLAGS={flags}"],
            cwd=ROOT,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield wait_for(lambda: next(iter(re.findall(r"http://127\S+", log.read_text())), None), f"an address in {log}")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver

    os.environ.setdefault("SE_OFFLINE", "true")  # selenium looks for nothing on the network
    options = webdriver.ChromeOptions()
    found = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
    options.binary_location = next(filter(None, found), "")
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1000"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_page_load_timeout(PATIENCE)
    yield driver
    driver.quit()


def test_make_lab_opens_the_first_notebook(address, browser, tmp_path):
    browser.get(address)
    try:
        state = wait_for(lambda: opened(browser), "the first notebook")
    finally:
        picture = tmp_path / "first-sight.png"
        browser.save_screenshot(str(picture))
    assert state["path"] == f"notebooks/{NOTEBOOKS[0]}", f"see {picture}"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_run_all_cells(address, browser, tmp_path, name):
    browser.get(address.replace("/lab/tree", "/lab/workspaces/test/tree").replace(NOTEBOOKS[0], name))
    wait_for(lambda: (opened(browser) or {}).get("path") == f"notebooks/{name}", name)
    browser.execute_script("window.jupyterapp.commands.execute('notebook:restart-clear-output')")
    dismiss_dialog(browser)
    wait_for(lambda: ready(browser) and not any(browser.execute_script(STATE)["counts"]), "a fresh kernel")
    browser.execute_script(
        "window.finished = false; const finish = () => { window.finished = true; };"
        "window.jupyterapp.commands.execute('notebook:run-all-cells').then(finish, finish)"
    )
    wait_for(lambda: browser.execute_script("return window.finished"), f"the end of {name}", patience=3 * PATIENCE)
    state = browser.execute_script(STATE)
    browser.save_screenshot(str(tmp_path / f"{name}.png"))
    assert state["errors"] == []
    assert state["stderr"] == []
    assert state["counts"] == list(range(1, len(state["counts"]) + 1))
    assert state["figures"] > 0, "no figure was drawn"


def opened(browser):
    """The state of the notebook in front, once its kernel is there."""
    state = browser.execute_script(STATE)
    return state if state and state["ready"] else None


def ready(browser):
    return opened(browser) is not None


def dismiss_dialog(browser):
    """Say yes to "Restart kernel?"."""
    find = "return document.querySelector('.jp-Dialog .jp-mod-accept')"
    wait_for(lambda: browser.execute_script(find), "the question before a restart").click()


def wait_for(condition, what, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.5)
    pytest.fail(f"waited {patience} s for {what}")
