"""The other end of turns.py: runs inside one environment, and does what it is told, one line of JSON at a time.

    hello                       threads, versions
    prepare  name, task         make the contender, look at its first batch: FVU, L0, its own loss
    turn     name, at_least_s   training steps until so many seconds have passed; the milliseconds of each
    check    name               FVU and L0 on the first batch again
    drop     name               forget it

`task` is a file with the batches and the weights that everybody starts from, and what the contender must know.
A contender is made by `contenders.make(name, task)`; it has `step(x)` and `check(x)`, and may have `least`, the fewest
steps of a turn, and `warm_up`, the steps before its first.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO


class Process:
    def __init__(self, make: Callable[[str, dict[str, Any]], Any]):
        self.make, self.contenders, self.batches, self.done = make, {}, {}, {}

    def answer(self, message: dict[str, Any]) -> Any:
        return getattr(self, "do_" + message.pop("do"))(**message)

    def do_hello(self, threads: int, packages: list[str]) -> dict[str, Any]:
        import torch

        torch.set_num_threads(threads)
        return {"threads": torch.get_num_threads(), "versions": {p: importlib.metadata.version(p) for p in packages}}

    def do_prepare(self, name: str, task: str, **settings: Any) -> dict[str, float]:
        import torch

        content = torch.load(task, weights_only=True, map_location=settings["device"])
        self.batches[name], self.done[name] = content.pop("batches"), 0
        self.contenders[name] = self.make(name, content | settings)
        seen = self.do_check(name)
        self._steps(name, getattr(self.contenders[name], "warm_up", 1))
        return seen

    def do_check(self, name: str) -> dict[str, float]:
        return self.contenders[name].check(self.batches[name][0])

    def do_turn(self, name: str, at_least_s: float, most_steps: int) -> list[float]:
        least = getattr(self.contenders[name], "least", 1)
        taken = self._steps(name, least)
        while sum(taken) < 1e3 * at_least_s and len(taken) < max(most_steps, least):
            taken += self._steps(name, 1)
        return taken

    def do_drop(self, name: str) -> None:
        for kept in (self.contenders, self.batches, self.done):
            kept.pop(name, None)
        self._free()

    def _steps(self, name: str, n: int) -> list[float]:
        import torch

        contender, batches, taken = self.contenders[name], self.batches[name], []
        for _ in range(n):
            x = batches[self.done[name] % len(batches)]
            self.done[name] += 1
            _wait(x)
            start = time.perf_counter()
            contender.step(x)
            _wait(x)
            taken.append(1e3 * (time.perf_counter() - start))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # the next process wants it
        return taken

    def _free(self) -> None:
        import torch

        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _wait(x: Any) -> None:
    if x.is_cuda:
        import torch

        torch.cuda.synchronize()


def serve(make: Callable[[str, dict[str, Any]], Any], questions: TextIO, answers: TextIO) -> None:
    """Answer until the questions end."""
    process = Process(make)
    for line in questions:
        try:
            answer = {"answer": process.answer(json.loads(line))}
        except Exception as error:  # whatever it is, the other end decides what it means
            place = traceback.extract_tb(error.__traceback__)[-1]
            words = f"{type(error).__name__}: {error}".splitlines()[0]
            answer = {"error": f"{words} ({Path(place.filename).name}, line {place.lineno})"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    # Libraries print when they are imported. What they print goes to stderr; the pipe is for answers alone.
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import contenders

    serve(contenders.make, sys.stdin, pipe)
