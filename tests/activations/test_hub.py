"""Asking whether the hub is there, and keeping libraries quiet: both leave no trace."""

import logging
import threading
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging as transformers_logging

from sae_tutorial.activations import hub


@pytest.fixture
def allowed_to_ask(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return monkeypatch


def test_unreachable_hub_is_noticed_at_once(allowed_to_ask):
    allowed_to_ask.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # a port that is not in use
    assert not hub.reachable(timeout=2)


def test_any_answer_counts_as_reachable(allowed_to_ask):
    class Refuses(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(404)
            self.end_headers()

        def log_message(self, *args): ...

    server = HTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.handle_request, daemon=True).start()
    allowed_to_ask.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        allowed_to_ask.delenv(variable, raising=False)
    assert hub.reachable()
    server.server_close()


def test_offline_switch_is_respected(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: pytest.fail("asked in spite of HF_HUB_OFFLINE"))
    assert not hub.reachable()


@pytest.mark.parametrize("online", [True, False])
def test_offline_switch_is_set_and_put_back(allowed_to_ask, online):
    datasets = pytest.importorskip("datasets")
    allowed_to_ask.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    allowed_to_ask.setattr(hub, "reachable", lambda: online)
    with pytest.raises(KeyError), hub.offline_unless_reachable() as answer:
        assert answer is online
        assert constants.HF_HUB_OFFLINE is datasets.config.HF_HUB_OFFLINE is (not online)
        raise KeyError
    assert not constants.HF_HUB_OFFLINE and not datasets.config.HF_HUB_OFFLINE


@pytest.fixture(params=[True, False], ids=["bars", "no bars"])
def bars(request):
    """Whether transformers shows progress bars; put back afterwards, like the hub's."""
    before = transformers_logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    show(request.param, hubs=True)
    yield request.param
    show(before[0], hubs=not before[1])


def show(transformers, hubs):
    """Each switch of transformers turns the hub's as well, so the hub's comes second."""
    (transformers_logging.enable_progress_bar if transformers else transformers_logging.disable_progress_bar)()
    (enable_progress_bars if hubs else disable_progress_bars)()


@pytest.mark.parametrize("of_the_hub", [True, False], ids=["hub's bars", "no bars of the hub"])
@pytest.mark.parametrize("downloads", [True, False])
def test_quiet_silences_and_puts_everything_back(downloads, of_the_hub, bars, caplog, recwarn):
    show(bars, of_the_hub)
    bars = transformers_logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    assert bars[1] is not of_the_hub
    level = logging.root.manager.disable
    with pytest.raises(KeyError), hub.quiet(downloads=downloads):
        assert not transformers_logging.is_progress_bar_enabled()
        assert are_progress_bars_disabled() is (bars[1] or not downloads)
        logging.getLogger("a library").warning("chatter")
        warnings.warn("chatter", stacklevel=1)
        logging.getLogger("a library").error("this matters")
        raise KeyError
    assert [record.message for record in caplog.records] == ["this matters"]
    assert not recwarn.list
    assert (transformers_logging.is_progress_bar_enabled(), are_progress_bars_disabled()) == bars
    assert logging.root.manager.disable == level
