"""What one process shows of its work: seconds by stage, progress on stderr, resident memory.

Progress is silent where stderr is not a terminal.
"""

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

from hyperlock.metrics import Stage

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

PATIENCE = 1.5  # seconds after which a step within a round shows a bar of its own


class Advance(Protocol):
    """Moves the bar of the rounds one on."""

    def __call__(self, accuracy: float) -> None:
        """With the last accuracy, NaN before the first."""
        ...


class Monitor:
    """Adds up wall-clock seconds by stage and draws progress; shared by the parties of a process.

    It carries nothing but stages, seconds and counts. Clients measure themselves and their seconds
    are summed, so a stage can exceed the round's own wall time when `runtime.workers` is above one.

    Attributes:
        earlier: seconds of the run before it was resumed.
    """

    def __init__(self) -> None:
        self.earlier = 0.0
        self._began = time.perf_counter()
        self._seconds: dict[Stage, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._bars: Progress | None = None

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        """Add the seconds of the block to a stage; ValueError for one that the catalogue lacks."""
        stage = Stage(stage)
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            with self._lock:
                self._seconds[stage] += elapsed

    def drain(self) -> dict[Stage, float]:
        """Seconds by stage since the last call."""
        with self._lock:
            seconds = dict(self._seconds)
            self._seconds.clear()
        return seconds

    def elapsed(self) -> float:
        """Seconds of the run by the clock, since this was made and before it was resumed."""
        return self.earlier + time.perf_counter() - self._began

    @contextmanager
    def rounds(self, total: int, done: int = 0) -> Iterator[Advance]:
        """A bar over the rounds; under it, as long as they last, the bars of `watch`."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
            task = bars.add_task("rounds", total=total, completed=done, note="")

            def advance(accuracy: float) -> None:
                note = "" if isnan(accuracy) else f"accuracy {accuracy:.4f}"
                bars.update(task, advance=1, note=note)

            self._bars = bars
            try:
                yield advance
            finally:
                self._bars = None

    def watch(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """The items; if they take longer than `PATIENCE`, with a bar under that of the rounds."""
        bars = self._bars
        if bars is None or bars.disable:
            yield from items
            return
        start = time.monotonic()
        task = None
        try:
            for done, item in enumerate(items, 1):
                yield item
                if task is not None:
                    bars.update(task, completed=done)
                elif done < total and time.monotonic() - start > PATIENCE:
                    task = bars.add_task(what, total=total, completed=done, note="")
        finally:
            if task is not None:
                bars.remove_task(task)


def resident_mb() -> float:
    """Resident memory of this process in MB; where the platform does not tell, its largest yet."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        import resource
        import sys

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
