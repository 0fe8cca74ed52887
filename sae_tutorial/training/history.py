"""The metrics of a run, one number of each for every step."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

METRICS = ("loss", "fvu", "l0", "dead", "aux", "penalty", "grad_norm", "lr")


class History:
    """One row for each of METRICS, one column for each step; NaN for steps that are still to come. It stays on the
    device of the training, so that recording a step waits for nothing."""

    def __init__(self, steps: int, device: torch.device | str = "cpu"):
        self.values = torch.full((len(METRICS), steps), math.nan, dtype=torch.float32, device=device)

    def record(self, step: int, **metrics: Tensor | float) -> None:
        row = [torch.as_tensor(metrics[name], device=self.values.device).detach().float() for name in METRICS]
        self.values[:, step] = torch.stack(row)

    def at(self, step: int) -> dict[str, float]:
        """The metrics of one step, the first being 0."""
        return dict(zip(METRICS, self.values[:, step].tolist()))

    def arrays(self) -> dict[str, np.ndarray]:
        """(steps,) numbers of each metric."""
        return dict(zip(METRICS, self.values.cpu().numpy()))
