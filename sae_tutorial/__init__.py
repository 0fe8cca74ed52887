"""Taking features out of superposition: a course and a research bench around sparse allocation.

`import sae_tutorial` is cheap. Every public name is loaded when it is first used, so nothing heavy
(transformer_lens above all) is imported before it is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # what editors and type checkers see; Python itself goes through __getattr__ below
    from sae_tutorial.activations import ActivationStore
    from sae_tutorial.language_model import load_language_model
    from sae_tutorial.text import story_tokens, text_tokens

# Public name -> the module that holds it, in the order in which data flows.
_HOMES = {
    "load_language_model": "language_model",
    "story_tokens": "text",
    "text_tokens": "text",
    "ActivationStore": "activations",
}

# Kept literal, and equal to _HOMES (tested): tools that read source do not run it.
__all__ = [
    "ActivationStore",
    "load_language_model",
    "story_tokens",
    "text_tokens",
]


def __getattr__(name: str) -> Any:
    """Import the module behind a public name on first use, and remember the result."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers: {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
