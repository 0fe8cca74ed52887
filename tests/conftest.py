"""What holds for every test: the hub is off, sizes are small, and CUDA tests need CUDA."""

import ctypes.util
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("SAE_TUTORIAL_SCALE", "smoke")

# Without a CUDA driver, Triton's kernels run in its interpreter, on the CPU. Triton asks once, when it is imported.
os.environ.setdefault("TRITON_INTERPRET", "0" if ctypes.util.find_library("cuda") else "1")

import pytest


@pytest.fixture(scope="session")
def model():
    """The embedded language model, loaded once. Tests leave it as it was: hooks go in `with model.hooks(...)`."""
    from sae_tutorial import load_language_model

    return load_language_model("stories")


@pytest.fixture(scope="session")
def smol():
    """SmolLM2, a real model with grouped keys and values, loaded once (and converted, on a fresh machine)."""
    from sae_tutorial import load_language_model

    return load_language_model("smollm2")


def pytest_collection_modifyitems(items):
    """Skip tests marked `gpu` where there is no CUDA device; torch is imported only if such tests exist."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
