"""Contenders that live in other Python environments: processes that wait for their turn.

Two libraries whose pins exclude each other cannot be timed in one process, and times from two runs cannot be compared.
So each environment has one process, started once. It waits at a pipe (a process that waits costs nothing), is told
"take a turn", does so alone, and answers the times. A line of JSON goes in, a line of JSON comes out;
contender_process.py is the other end.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

# Threads of the process before spin for a few milliseconds before they sleep.
SETTLE = 0.05


class WorkerError(RuntimeError):
    """The process said no, or said nothing any more."""


class Worker:
    """A process that answers. `settings` are added to its environment variables.

    worker.ask("turn", name="topk", at_least_s=0.25)     -> what the process returned
    """

    def __init__(self, command: Sequence[str | Path], settings: dict[str, str] | None = None):
        self.errors = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=os.environ | (settings or {}),
        )

    def ask(self, do: str, **what: Any) -> Any:
        """Raises WorkerError with the process's own words."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **what}) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.process.wait()
            self.errors.seek(0)
            last = self.errors.read().strip().splitlines()[-1:]
            raise WorkerError(f"the process ended with code {self.process.returncode}: {' '.join(last)}")
        content = json.loads(answer)
        if "error" in content:
            raise WorkerError(content["error"])
        return content["answer"]

    def turn(self, name: str, at_least_s: float = 0.25, most_steps: int = 10) -> float:
        """Milliseconds per step of one turn of this contender."""
        time.sleep(SETTLE)
        taken = self.ask("turn", name=name, at_least_s=at_least_s, most_steps=most_steps)
        return sum(taken) / len(taken)

    def close(self) -> None:
        """Let it go; it ends when its input does."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has gone already, and left a question unread
            self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.errors.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
