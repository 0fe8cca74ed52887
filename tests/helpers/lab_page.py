"""JupyterLab in a browser, as `tests/browser` uses it: opened, resized, run, and asked what is on the page."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest

PATIENCE = 300  # seconds; a busy machine is no failure

# What the notebook's own model says, for cells out of view are not in the page.
STATE = """
const panel = window.jupyterapp?.shell.currentWidget;
if (!panel?.content?.model) return null;
const cells = Array.from(panel.content.model.cells);
const code = cells.filter(cell => cell.type === 'code' && cell.sharedModel.getSource());
const outputs = code.flatMap(cell => cell.outputs.toJSON());
return {
    path: panel.context.path,
    ready: panel.sessionContext.isReady && panel.sessionContext.session?.kernel?.status === 'idle',
    dirty: panel.context.model.dirty,
    sources: cells.map(cell => cell.sharedModel.getSource()),
    counts: code.map(cell => cell.executionCount),
    errors: outputs.filter(output => output.output_type === 'error').map(output => output.ename + ': ' + output.evalue),
    figures: outputs.filter(output => output.data && 'application/vnd.plotly.v1+json' in output.data).length,
    stderr: outputs.filter(output => output.name === 'stderr').map(output => output.text),
};
"""

# What lies on the page: figures, pictures and drawings with their edges, and whether they are there. A figure is a
# picture until the mouse is over it; then plotly draws it.
DRAWN = """
const panel = window.jupyterapp.shell.currentWidget.node;
const edge = panel.querySelector('.jp-WindowedPanel-outer').getBoundingClientRect();
const pictures = '.jp-OutputArea-output :is(.js-plotly-plot, img, svg.sae-drawing, .sae-drawing svg)';
const figures = '.jp-RenderedPlotly > :is(img, .js-plotly-plot), .jp-RenderedPlotly .main-svg';
const seen = [...panel.querySelectorAll(pictures)]
    .filter(one => one.getBoundingClientRect().width > 0);
const name = one => one.querySelector?.('.gtitle')?.textContent ?? one.alt ?? '';
const over = one => Math.round(one.getBoundingClientRect().right - edge.right);
return {
    figures: panel.querySelectorAll(figures).length,
    cut: seen.filter(one => over(one) > 1).map(one => `${one.tagName} ${over(one)} px ${name(one).slice(0, 60)}`),
    broken: seen.filter(one => one.tagName === 'IMG' && one.complete && one.naturalWidth === 0).length,
};
"""

# Of the first figure: the colour of its title, and that of the prose around it.
INK = """
const figure = window.jupyterapp.shell.currentWidget.node.querySelector('.jp-RenderedPlotly');
const title = figure.querySelector('.gtitle');
const probe = document.createElement('span');
probe.style.color = 'var(--jp-content-font-color1)';
figure.append(probe);
const ink = getComputedStyle(probe).color;
probe.remove();
return title && [getComputedStyle(title).fill, ink];
"""

# Milliseconds from a key or a click (in a menu, from the choice that a key makes) to the first change of what is shown.
WATCH = """
const [cell] = arguments;
window.answered = null;
let began = null;
const begin = () => { began = performance.now(); window.answered = null; };
for (const what of ['keydown', 'mousedown']) cell.addEventListener(what, begin, { capture: true });
cell.addEventListener('change', event => { if (event.target.tagName === 'SELECT') begin(); }, { capture: true });
const shown = cell.querySelectorAll('.jupyter-widgets.widget-html, .jupyter-widgets .js-plotly-plot');
const observer = new MutationObserver(() => {
    if (began !== null && window.answered === null) window.answered = performance.now() - began;
});
shown.forEach(one => observer.observe(one, { childList: true, subtree: true, characterData: true, attributes: true }));
return shown.length;
"""


@dataclass
class LabPage:
    """address: of the first notebook, with its token, as `make lab` prints it."""

    browser: Any
    address: str
    first: str

    def open(self, name: str) -> dict[str, Any]:
        """The notebook in a workspace of its own, once its kernel is there; what `STATE` says."""
        there = self.address.replace("/lab/tree", "/lab/workspaces/test/tree").replace(self.first, name)
        self.browser.get(f"{there}&reset")  # nothing of what was open before

        def there_now() -> dict[str, Any] | None:
            state = self.ready()
            return state if state and state["path"] == f"notebooks/{name}" else None

        return wait_for(there_now, name)

    def close(self) -> None:
        """Without saving, and with its kernel."""
        script = (
            "const panel = window.jupyterapp?.shell.currentWidget;"
            "panel?.sessionContext?.shutdown().then(() => { panel.context.model.dirty = false; panel.close(); })"
        )
        self.browser.execute_script(script)

    def state(self) -> dict[str, Any]:
        return self.browser.execute_script(STATE)

    def ready(self) -> dict[str, Any] | None:
        state = self.state()
        return state if state and state["ready"] else None

    def drawn(self) -> dict[str, Any]:
        return self.browser.execute_script(DRAWN)

    def ink(self) -> tuple[str, str]:
        """The colours of the title of the first figure, with the mouse over it, and of the prose around."""
        from selenium.webdriver import ActionChains

        find = "return window.jupyterapp.shell.currentWidget.node.querySelector('.jp-RenderedPlotly')"
        figure = self.browser.execute_script(find)
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", figure)
        ActionChains(self.browser).move_to_element(figure).perform()
        return wait_for(lambda: self.browser.execute_script(INK), "a figure under the mouse", patience=30)

    def command(self, name: str, arguments: str = "{}") -> None:
        self.browser.execute_script(f"window.jupyterapp.commands.execute('{name}', {arguments})")

    def theme(self, name: str) -> None:
        self.command("apputils:change-theme", f"{{theme: '{name}'}}")
        light = "false" if "Dark" in name else "true"
        find = f"return document.body.dataset.jpThemeLight === '{light}'"
        wait_for(lambda: self.browser.execute_script(find), name)

    def width(self, px: int) -> None:
        self.browser.set_window_size(px, 1000)
        self.browser.execute_script("window.jupyterapp?.shell.collapseLeft()")
        time.sleep(1)  # plotly and JupyterLab draw again

    def run_all(self, name: str) -> dict[str, Any]:
        """All cells from a fresh kernel; what `STATE` says afterwards."""
        self.command("notebook:restart-clear-output")
        find = "return document.querySelector('.jp-Dialog .jp-mod-accept')"
        wait_for(lambda: self.browser.execute_script(find), "the question before a restart").click()
        wait_for(lambda: self.ready() and not any(self.state()["counts"]), "a fresh kernel")
        self.browser.execute_script(
            "window.finished = false; const finish = () => { window.finished = true; };"
            "window.jupyterapp.commands.execute('notebook:run-all-cells').then(finish, finish)"
        )
        done = "return window.finished"
        wait_for(lambda: self.browser.execute_script(done), f"the end of {name}", patience=3 * PATIENCE)
        return self.state()

    def cell(self, text: str) -> Any:
        """The cell on the page whose source holds `text`, scrolled to."""
        sources = self.state()["sources"]
        [at] = [i for i, source in enumerate(sources) if text in source]
        script = (
            "const notebook = window.jupyterapp.shell.currentWidget.content;"
            f"notebook.activeCellIndex = {at}; const cell = notebook.widgets[{at}];"
            "cell.node.scrollIntoView({block: 'start'}); return cell.node;"
        )
        return self.browser.execute_script(script)

    def milliseconds(self, control: Any, keys: str | None) -> float:
        """From the last of the keys, or from a click where there are none, to the first change of what the widget
        shows; `WATCH` must be there."""
        from selenium.webdriver import ActionChains

        self.browser.execute_script("window.answered = null")
        if keys is None:
            ActionChains(self.browser).move_to_element(control).pause(0.5).click().perform()
        else:
            control.send_keys(keys)
        return wait_for(lambda: self.browser.execute_script("return window.answered"), "an answer", patience=20)


def wait_for(condition: Any, what: str, patience: float = PATIENCE) -> Any:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.2)
    pytest.fail(f"waited {patience} s for {what}")
