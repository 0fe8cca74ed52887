"""`make lab` and a headless Chromium, for as long as the tests of this folder run."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from lab_page import PATIENCE, LabPage, wait_for

ROOT = Path(__file__).resolve().parent.parent.parent
FIRST = "00_start_here.ipynb"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    """The url that `make lab` prints. Cells out of view stay on the page, so that all figures can be looked at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("lab")
    settings = folder / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"windowingMode": "none"}))
    flags = f"--no-browser --port {port} --ServerApp.port_retries=0 --LabApp.expose_app_in_browser=True"
    flags += f" --LabApp.user_settings_dir={folder / 'settings'} --LabApp.workspaces_dir={folder / 'workspaces'}"
    log = folder / "log.txt"
    environment = {**os.environ, "SAE_TUTORIAL_SCALE": "smoke"}
    with log.open("w") as out:
        command = ["make", "lab", f"LAB_FLAGS={flags}"]
        how = {"stdout": out, "stderr": subprocess.STDOUT, "start_new_session": True}
        server = subprocess.Popen(command, cwd=ROOT, env=environment, **how)
    try:
        yield wait_for(lambda: next(iter(re.findall(r"http://127\S+", log.read_text())), None), f"an address in {log}")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)


@pytest.fixture(scope="session")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    os.environ.setdefault("SE_OFFLINE", "true")  # selenium looks for nothing on the network
    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, BROWSERS)), "")
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1000"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_page_load_timeout(PATIENCE)
    yield driver
    driver.quit()


@pytest.fixture
def lab(address, browser, tmp_path):
    """The page. A picture of how it was left lies in the test's folder (`--basetemp` says where these are)."""
    page = LabPage(browser, address, FIRST)
    yield page
    browser.save_screenshot(str(tmp_path / "left.png"))
    page.close()
