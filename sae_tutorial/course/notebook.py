"""What every notebook does first: one theme, one seed, quiet libraries, and sizes that fit the machine.

The environment variable SAE_TUTORIAL_SCALE chooses the sizes: `smoke` (seconds, what the tests run),
`laptop` (the default, minutes on two cores) or `gpu`. The code of a notebook is the same at every scale.
"""

from __future__ import annotations

import logging
import os
import random
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

SCALES = ("smoke", "laptop", "gpu")
_UNSET = object()
T = TypeVar("T")

# Libraries that talk while they work. Their errors still get through.
_TALKATIVE = ("transformer_lens", "transformers", "huggingface_hub", "datasets", "httpx", "httpcore", "urllib3")


def setup(seed: int = 0) -> None:
    """Make a notebook reproducible and calm: theme, figure renderer, seeds, warnings of libraries.

    With SAE_TUTORIAL_STATIC=1 (set by `make notebooks`) each figure is stored as a picture beside its interactive
    form, so that a notebook reads well where nothing runs. Raises ValueError for an unknown scale at once,
    rather than in the middle of the notebook.
    """
    scale()
    _quiet()
    _seed(seed)

    from sae_tutorial.figures import style

    style.use(static=os.environ.get("SAE_TUTORIAL_STATIC", "") == "1")
    _follow_page(style.PAGE)


def scale() -> str:
    """The scale to run at: "smoke", "laptop" or "gpu", from SAE_TUTORIAL_SCALE ("laptop" when unset).

    Raises ValueError that names the value found and the three that exist.
    """
    value = os.environ.get("SAE_TUTORIAL_SCALE", "").strip() or "laptop"
    if value not in SCALES:
        raise ValueError(
            f"SAE_TUTORIAL_SCALE is {value!r}; it must be one of {', '.join(SCALES)}. "
            "Set it before the kernel starts, or unset it for 'laptop'."
        )
    return value


def pick(*, smoke: T, laptop: T, gpu: T = _UNSET) -> T:  # type: ignore[assignment]
    """The value that belongs to the current scale; `gpu` defaults to what `laptop` has."""
    values = {"smoke": smoke, "laptop": laptop, "gpu": laptop if gpu is _UNSET else gpu}
    return values[scale()]


def text(
    name: str, path: str, model: Any, n_tokens: int, context: int, seed: int = 0, source: str | None = "model"
) -> Tensor:
    """What a notebook reads: for the models that the package brings text for, `story_tokens` of that `source` ("model",
    "books", or None for both); for any other, `path`, a text file or a data set on the hub."""
    from sae_tutorial.activations.shipped_text import TEXT_OF, story_tokens
    from sae_tutorial.activations.text import text_tokens

    if name in TEXT_OF:
        return story_tokens(n_tokens, context, seed, source=source, model=name)
    return text_tokens(path, model, context=context, limit=n_tokens)


def expect(found: Mapping[Any, Any], expected: Mapping[Any, float], *, within: float) -> None:
    """Assert that these of the numbers found are what the prose says of them, for the folded cells tagged `checks`.

    Raises AssertionError that names each one that is further off than `within`, or is not there.
    """
    off = {
        name: found.get(name)
        for name, value in expected.items()
        if found.get(name) is None or not abs(float(found[name]) - value) <= within
    }
    assert not off, f"the text says { ({name: expected[name] for name in off}) } within {within:g}, found {off}"


def _follow_page(rules: str) -> None:
    """In a notebook, let figures follow the page: text in its colour, light or dark, and no wider than it is."""
    from IPython import display, get_ipython

    if get_ipython() is not None:
        display.display({"text/html": rules, "text/plain": ""}, raw=True)


def _seed(seed: int) -> None:
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # seeds every CUDA device as well


def _quiet() -> None:
    """Silence what a reader cannot act on; leave our own warnings and all errors alone."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("WANDB_SILENT", "true")
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    # Draws static pictures; on a busy machine it logs messages that it then ignores. A failed picture is an exception.
    logging.getLogger("choreographer").setLevel(logging.CRITICAL)
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category)
    warnings.filterwarnings("ignore", message=".*IProgress not found.*")
    for name in _TALKATIVE:
        warnings.filterwarnings("ignore", module=rf"{name}(\..*)?")
