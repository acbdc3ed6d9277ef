"""A way's side of taking turns: it plays a round when it is told to, and says what that took."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Turns:
    """What a way's process does with the command's: a line in is a round to play, a line out is
    what it came to.

    Args:
        seconds: processor seconds so far, of all that plays.
    """

    def __init__(self, seconds: Callable[[], float] | None = None) -> None:
        # What libraries print must not stand between the answers.
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._seconds = seconds or own_seconds
        self._start = (0.0, 0.0)

    def wait(self) -> bool:
        """Wait for a turn; False when there are no more. The clocks run from here."""
        if not sys.stdin.readline():
            return False
        self._start = (self._seconds(), time.perf_counter())
        return True

    def played(self, path: str, weights: Callable[[], NDArray[np.float32]]) -> None:
        """End a round of training: stop the clocks, then keep the global model's weights."""
        cpu = self._seconds() - self._start[0]
        wall = time.perf_counter() - self._start[1]
        np.save(path, weights())
        self.answer({"cpu": cpu, "wall": wall})

    def answer(self, figures: dict[str, Any]) -> None:
        """Say what a turn came to."""
        print(json.dumps(figures), file=self._answers, flush=True)


def own_seconds() -> float:
    """Processor seconds of this process and of its children that ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, kinds))


def seconds_of_all() -> float:
    """Processor seconds of every process that /proc shows, and of their children that ended: in a
    process namespace of its own, of all that was started there."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended; its parent has them
            continue
        fields = text.rpartition(")")[2].split()  # what stands before may hold spaces
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")
