"""Progress on stderr, for work that takes long; silent where stderr is not a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import isnan
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

PATIENCE = 1.5  # seconds after which a step within a round shows a bar of its own
_shown: Progress | None = None  # the bars of the run in this process


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
    """The items; if they are not through after `PATIENCE` seconds, with a bar under that of the rounds."""
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
