"""A record that is written in the background, from its opening on: who reports does not wait.

MLflow takes seconds to import and to open its database. Opened here, it does so while clients
train, and every write follows in its turn.

It is to be made once TensorFlow is there, whose import hides packages that MLflow needs. From then
on no two threads can wait for each other's imports: Python locks each module by itself, and these
libraries do not import each other in a circle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from hyperlock.background import Background
from hyperlock.tracking.tracker import Draw, Metrics, Tracker

T = TypeVar("T")


class LaterTracker(Tracker):
    """What `begin` opens, once it has.

    If it cannot be opened, or written, `background` raises that; nothing more is done then.
    What asks for something waits for it.

    Attributes:
        run_id: "" until the record is open. A task that was given after this was made sees it.

    Args:
        begin: opens the record.
        background: where it is opened and written.
    """

    records = True

    def __init__(self, begin: Callable[[], Tracker], background: Background) -> None:
        self._begin = begin
        self._background = background
        self._opening = background.give(self._open)

    def log(self, metrics: Metrics, step: int) -> None:
        """Written in its turn; the metrics are copied."""
        metrics = dict(metrics)
        self._give(lambda sink: sink.log(metrics, step))

    def last_step(self, metric: str) -> int:
        """Waits for the record to be open."""
        return self._ask(lambda sink: sink.last_step(metric))

    def tag(self, tags: Mapping[str, str]) -> None:
        """Written in its turn."""
        self._give(lambda sink: sink.tag(tags))

    def figure(self, name: str, draw: Draw) -> None:
        """Drawn and written in its turn."""
        self._give(lambda sink: sink.figure(name, draw))

    def document(self, name: str, content: str | Mapping[str, object]) -> None:
        """Written in its turn."""
        self._give(lambda sink: sink.document(name, content))

    def expect_model(self) -> None:
        """What that takes is loaded in its turn."""
        self._give(lambda sink: sink.expect_model())

    def model(self, model: Any, example: Any) -> None:
        """Written in its turn; the model must not change until then."""
        self._give(lambda sink: sink.model(model, example))

    def note(self, markdown: str) -> None:
        """Written in its turn."""
        self._give(lambda sink: sink.note(markdown))

    def finish(self, status: str) -> None:
        """After all that was given; nothing can be given after that. `background` waits for it, or
        does not if the run was interrupted and the store does not answer."""
        self._background.give_last(lambda: self._end(status))

    def where(self) -> str:
        """Waits for the record to be open."""
        return self._opening.result().where()

    def search(self, query: str, limit: int = 10_000) -> list[Any]:
        """Waits for its turn."""
        return self._ask(lambda sink: sink.search(query, limit))

    def children(self) -> list[Any]:
        """Waits for its turn."""
        return self._ask(lambda sink: sink.children())

    def end_run(self, run_id: str, status: str) -> None:
        """Written in its turn."""
        self._give(lambda sink: sink.end_run(run_id, status))

    def _open(self) -> Tracker:
        sink = self._begin()
        self.run_id = sink.run_id
        return sink

    def _end(self, status: str) -> None:
        if self._opening.exception() is None:
            self._opening.result().finish(status)

    def _give(self, write: Callable[[Tracker], object]) -> None:
        if self._opening.done() and self._opening.exception() is not None:
            self._background.check()
            return
        self._background.give(lambda: write(self._opening.result()))

    def _ask(self, read: Callable[[Tracker], T]) -> T:
        answer = self._background.give(lambda: read(self._opening.result()))
        self._background.wait()
        return answer.result()
