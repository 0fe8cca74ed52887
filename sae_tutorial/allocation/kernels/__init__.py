"""Triton twins of the slow steps of allocation, for CUDA; and the one switch that turns them off.

`floors` and `selection` are the steps of `fast`, `products` those of `allocation.products`. Every function there states
the plain-torch expression that it equals. Where `serve` is False (on other devices, in other precisions, without
Triton, or with the switch off) plain torch does the step.

The switch is this module's only state: on, unless the environment variable SAE_TUTORIAL_TRITON is 0. `use(False)` turns
it off, `use(True)` on, for the length of a `with` block.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
INSTALLED = importlib.util.find_spec("triton") is not None

_on = os.environ.get("SAE_TUTORIAL_TRITON", "1") != "0"


@contextmanager
def use(on: bool) -> Iterator[None]:
    """Kernels on or off inside a `with` block, in all threads; afterwards as before."""
    global _on
    before, _on = _on, on
    try:
        yield
    finally:
        _on = before


def serve(*tensors: Tensor) -> bool:
    """Whether the kernels compute with these: CUDA tensors in float32, bfloat16 or float16, Triton here, switch on."""
    return _on and INSTALLED and all(t.is_cuda and t.dtype in DTYPES for t in tensors)


def on_device_of(tensor: Tensor) -> AbstractContextManager:
    """Triton launches on the current CUDA device, so make it the tensor's. Nothing to do for Triton's interpreter."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def __getattr__(name: str):
    """`kernels.floors`, `kernels.selection` and `kernels.products`, loaded when first asked for: they import Triton."""
    if name in ("floors", "selection", "products"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
