"""The Hugging Face hub: quick and clear when it cannot be reached, and libraries that stay quiet while they load.

Without a network every single request is retried for half a minute. One question asked beforehand spares that.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any


def reachable(timeout: float = 5.0) -> bool:
    """Whether the hub answers at all (any answer will do). False where HF_HUB_OFFLINE=1 forbids asking."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return False
    with suppress(Exception):  # of whatever library the session comes from
        get_session().head(constants.ENDPOINT, timeout=timeout)  # knows the user's proxies and certificates
        return True
    return False


@contextmanager
def offline_unless_reachable() -> Iterator[bool]:
    """While open, what cannot be asked is not asked: without a hub, only its cache on this machine is used.

    Yields whether the hub answers. Libraries read their offline switch when they are imported, so it is set on them.
    """
    from huggingface_hub import constants

    online = reachable()
    switches: list[Any] = [constants] + [module.config for module in [sys.modules.get("datasets")] if module]
    with ExitStack() as stack:
        for module in switches:
            stack.callback(setattr, module, "HF_HUB_OFFLINE", module.HF_HUB_OFFLINE)
            module.HF_HUB_OFFLINE = not online
        yield online


@contextmanager
def quiet(*, downloads: bool = False) -> Iterator[None]:
    """While open: no warnings, no log lines below errors, no progress bars of transformers.

    `downloads=True` keeps the bars of the hub's downloads, which are worth watching.
    """
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    level, hub_has_bars = logging.root.manager.disable, not are_progress_bars_disabled()
    with warnings.catch_warnings(), ExitStack() as stack:
        stack.callback(logging.disable, level)
        stack.callback(enable_progress_bars if hub_has_bars else disable_progress_bars)
        if transformers_logging.is_progress_bar_enabled():  # put back first: it turns the hub's on as well
            stack.callback(transformers_logging.enable_progress_bar)
        warnings.simplefilter("ignore")
        logging.disable(max(level, logging.WARNING))
        transformers_logging.disable_progress_bar()  # the hub's as well
        if downloads and hub_has_bars:
            enable_progress_bars()
        yield
