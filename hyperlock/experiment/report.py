"""What a run came to: metrics, and the summary that a person reads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption.totals import Totals
from hyperlock.experiment.rounds import RoundReport
from hyperlock.metrics import (
    AROUND,
    ENCRYPTED_AGGREGATION,
    ROUND,
    Stage,
    round_seconds,
    total_seconds,
)
from hyperlock.monitor import resident_mb


@dataclass
class Report:
    """Grows round by round.

    Attributes:
        name: the run's name.
        scheme: name of the encryption.
        security: its bits, 0 if none.
        custody: who holds the secret key, in words.
        parameters: of the model.
        target: the test accuracy that ends the run, or None.
        rounds: finished ones.
        accuracies: test accuracy by round, of those that were evaluated.
        metrics: the last round's.
        seconds: by stage, over the whole run so far.
        wall: seconds of the whole run.
        weights: float32[parameters], the global model after the last round.
    """

    name: str
    scheme: str
    security: int
    custody: str
    target: float | None = None
    parameters: int = 0
    rounds: int = 0
    accuracies: dict[int, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: dict[Stage, float] = field(default_factory=lambda: defaultdict(float))
    uplink_bytes: float = 0.0
    wall: float = 0.0
    weights: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))

    @property
    def accuracy(self) -> float:
        """The last one."""
        return next(reversed(self.accuracies.values()), float("nan"))

    @property
    def rounds_to_target(self) -> int | None:
        """The first round that was seen to reach the target."""
        if self.target is None:
            return None
        return next(
            (number for number, accuracy in self.accuracies.items() if accuracy >= self.target),
            None,
        )

    def add_seconds(self, seconds: Mapping[Stage, float]) -> None:
        """Add to the run's seconds by stage."""
        for stage, value in seconds.items():
            self.seconds[stage] += value

    def add_round(
        self,
        moved: RoundReport,
        totals: Totals,
        accuracy: float | None,
        loss: float | None,
        seconds: Mapping[Stage, float],
        wall: float,
    ) -> dict[str, float]:
        """Take in a finished round, evaluated or not, and return its metrics."""
        self.rounds += 1
        evaluation: dict[str, float] = {}
        if accuracy is not None and loss is not None:
            self.accuracies[self.rounds] = accuracy
            evaluation = {"accuracy": accuracy, "loss": loss}
        self.uplink_bytes += moved.uplink * moved.replies
        self.add_seconds(seconds)
        self.metrics = {
            **evaluation,
            "train/loss": totals.loss / totals.samples,
            **{round_seconds(stage): seconds.get(stage, 0.0) for stage in ROUND},
            "time/round_s": wall,
            "bytes/uplink_per_client": moved.uplink,
            "bytes/downlink_per_client": moved.downlink,
            "bytes/per_parameter": moved.uplink / self.parameters,
            "updates/accepted": totals.contributors,
            "updates/refused": moved.refused,
            "updates/lost": moved.lost,
            "memory/resident_mb": resident_mb(),
            "grid/saturated": totals.saturated / (totals.contributors * self.parameters),
        }
        return self.metrics

    def state(self) -> dict[str, Any]:
        """What a resumed run must know of the rounds before, as JSON takes it."""
        kept = ("rounds", "metrics", "uplink_bytes", "wall")
        accuracies = {str(number): accuracy for number, accuracy in self.accuracies.items()}
        return {
            **{name: getattr(self, name) for name in kept},
            "accuracies": accuracies,
            "seconds": dict(self.seconds),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take in what `state` gave."""
        for name, value in state.items():
            setattr(self, name, value)
        self.accuracies = {int(number): accuracy for number, accuracy in self.accuracies.items()}
        self.seconds = defaultdict(
            float, {Stage(name): value for name, value in self.seconds.items()}
        )

    def stage_seconds(self) -> dict[Stage, float]:
        """Seconds of each stage of the rounds, over the run."""
        return {stage: self.seconds[stage] for stage in ROUND}

    def totals(self) -> dict[str, float]:
        """Totals of the run, under `total/`, and `rounds_to_target` if it was reached."""
        encryption = sum(self.seconds[stage] for stage in ENCRYPTED_AGGREGATION)
        reached = self.rounds_to_target
        return {
            **({} if reached is None else {"rounds_to_target": reached}),
            **{total_seconds(stage): self.seconds[stage] for stage in Stage},
            "total/encrypted_aggregation_s": encryption,
            "total/wall_s": self.wall,
            "total/uplink_bytes": self.uplink_bytes,
        }

    def final(self) -> dict[str, float]:
        """The last round's metrics and the run's totals: what an objective may name."""
        return {**self.metrics, **self.totals()}

    def rows(self) -> list[tuple[str, str]]:
        """The summary, as pairs of what and how much."""
        seconds = "  ".join(f"{stage} {self.seconds[stage]:.2f}" for stage in ROUND)
        around = "  ".join(f"{stage} {self.seconds[stage]:.2f}" for stage in AROUND)
        m = self.metrics
        aim = (
            "not reached"
            if self.rounds_to_target is None
            else f"reached in round {self.rounds_to_target}"
        )
        return [
            ("test accuracy", f"{self.accuracy:.4f} after {self.rounds} rounds"),
            *([] if self.target is None else [("target accuracy", f"{self.target:g} {aim}")]),
            ("seconds, rounds", seconds),
            ("seconds, around", f"{around}  (whole run {self.wall:.2f})"),
            (
                "upload",
                f"{m['bytes/uplink_per_client']:,.0f} bytes per client and round, "
                f"{m['bytes/per_parameter']:.2f} per parameter (plain float32: 4)",
            ),
            (
                "encryption",
                f"{self.scheme}, {self.security}-bit security"
                if self.security
                else "none: the server reads every update",
            ),
            ("secret key held by", self.custody if self.security else "no one, there is none"),
        ]

    def markdown(self) -> str:
        """The summary for the run's page."""
        return "\n".join(
            ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in self.rows())]
        )

    def show(self, where: str) -> None:
        """Print the summary."""
        width = max(len(name) for name, _ in self.rows())
        print(f"\n{self.name}")
        for name, value in [*self.rows(), ("look at it", where)]:
            print(f"  {name:<{width}}  {value}")


def class_accuracies(confusion: NDArray[np.int64]) -> dict[str, float]:
    """`class/0`, ...: the share of each class' samples that were answered rightly; none of a class
    without samples.

    Args:
        confusion: int64[classes, classes], rows by class, columns by answer.
    """
    return {f"class/{i}": row[i] / row.sum() for i, row in enumerate(confusion) if row.sum()}
