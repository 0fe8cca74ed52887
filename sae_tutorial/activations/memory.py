"""How much is held in memory at a time, where something is done piece by piece."""

from __future__ import annotations

import torch

MIB = 2**20
# Bytes of the largest table that is made in one piece. GPUs want large pieces; Apple's share their memory with the CPU.
AT_ONCE = {"cpu": 256 * MIB, "mps": 256 * MIB, "cuda": 8192 * MIB}
# Tokens of one forward pass that ends at a hook: enough to keep the device busy, few enough to stay in a CPU's caches.
TOKENS_PER_PASS = {"cpu": 4096, "mps": 4096, "cuda": 32768}


def at_once(device: torch.device | str, bytes_per_item: float) -> int:
    """How many items of so many bytes each are handled at a time on this device; 1 at least."""
    return max(1, int(AT_ONCE.get(torch.device(device).type, AT_ONCE["cpu"]) / max(bytes_per_item, 1)))


def rows_per_pass(device: torch.device | str, context: int) -> int:
    """How many rows of text go through a model at a time on this device; 1 at least."""
    return max(1, TOKENS_PER_PASS.get(torch.device(device).type, TOKENS_PER_PASS["cpu"]) // context)
