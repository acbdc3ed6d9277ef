"""What a run, or a sweep, says about itself, and what a sink may do with it. Keys never come here.

A sink is a `Tracker` that overrides what it can keep. The base class keeps nothing: it is what
`tracking=none` is given, so that nobody who reports has to ask whether somebody listens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Metrics = Mapping[str, float]
Draw = Callable[[], Any]  # makes a Matplotlib figure


class Tracker:
    """The record of one run, open until `finish`.

    Attributes:
        run_id: names the run in the sink; "" where nothing is kept.
        records: whether anything is kept, so that pictures are worth drawing.
    """

    run_id: str = ""
    records: bool = False

    def log(self, metrics: Metrics, step: int) -> None:
        """Take the metrics of one round; a sink has written them when it returns."""

    def last_step(self, metric: str) -> int:
        """The last round that a metric was taken for; 0 if there is none."""
        return 0

    def tag(self, tags: Mapping[str, str]) -> None:
        """Take words that a person would filter runs by; a later value replaces an earlier one."""

    def figure(self, name: str, draw: Draw) -> None:
        """Take a picture; a sink draws it and keeps it as `name`.png."""

    def document(self, name: str, content: str | Mapping[str, object]) -> None:
        """Take a text, or a mapping to be kept as JSON, under a file name."""

    def expect_model(self) -> None:
        """Be told that there will be a model, so that what it takes can be loaded before."""

    def model(self, model: Any, example: Any) -> None:
        """Take a Keras model, with the signature that inputs such as `example` give it."""

    def note(self, markdown: str) -> None:
        """Take the text of the run's own page; the last one counts."""

    def finish(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED."""

    def where(self) -> str:
        """How a person looks at the record, for the summary."""
        return "not tracked (tracking=none)"

    def search(self, query: str, limit: int = 10_000) -> list[Any]:
        """The runs beside this one that a filter in the sink's own language finds, newest first."""
        return []

    def children(self) -> list[Any]:
        """The runs that name this one as their parent: a sweep's trials, newest first."""
        return []

    def end_run(self, run_id: str, status: str) -> None:
        """End another run, whose own process cannot do so any more."""
