"""Seconds by stage, where a round's time goes; progress on stderr, silent off a terminal; the
process' memory."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

PATIENCE = 1.5  # seconds after which a step within a round shows a bar of its own
_shown: Progress | None = None  # the bars of the run in this process


class Timings:
    """Adds up wall-clock seconds by stage; shared by all roles of a simulation.

    It carries nothing but stage names and seconds. Clients measure themselves and their seconds are
    summed, so a stage can exceed the round's own wall time when `runtime.workers` is above one.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            with self._lock:
                self._seconds[stage] += elapsed

    def drain(self) -> dict[str, float]:
        """Seconds by stage since the last call."""
        with self._lock:
            seconds, self._seconds = dict(self._seconds), defaultdict(float)
        return seconds


def resident_mb() -> float:
    """Resident memory of this process in megabytes; where the platform does not tell, its largest
    so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        import resource
        import sys

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


class Advance(Protocol):
    """Moves a progress bar one round on."""

    def __call__(self, accuracy: float) -> None:
        """With the last accuracy, NaN before the first."""
        ...


@contextmanager
def progress(rounds: int, done: int = 0) -> Iterator[Advance]:
    """A bar over the rounds; under it, as long as they last, the bars of `track`."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    global _shown
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("rounds", total=rounds, completed=done, note="")

        def advance(accuracy: float) -> None:
            bar.update(task, advance=1, note="" if isnan(accuracy) else f"accuracy {accuracy:.4f}")

        _shown = bar
        try:
            yield advance
        finally:
            _shown = None


def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The items; if they are not through after `PATIENCE` seconds, with a bar under that of the
    rounds."""
    bar = _shown
    if bar is None or bar.disable:
        yield from items
        return
    start, task = time.monotonic(), None
    try:
        for done, item in enumerate(items, 1):
            yield item
            if task is not None:
                bar.update(task, completed=done)
            elif done < total and time.monotonic() - start > PATIENCE:
                task = bar.add_task(what, total=total, completed=done, note="")
    finally:
        if task is not None:
            bar.remove_task(task)
