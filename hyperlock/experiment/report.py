"""What a run came to: its figures, round by round, and what of them outlives the process."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, ListConfig

from hyperlock.encryption.scheme import Scheme
from hyperlock.encryption.totals import Totals
from hyperlock.errors import ConfigError, HyperLockError
from hyperlock.experiment.private import Guarantee
from hyperlock.experiment.rounds import RoundResult
from hyperlock.metrics import (
    ELSEWHERE,
    ENCRYPTED_AGGREGATION,
    ROUND,
    WITH_THE_MODEL,
    Stage,
    round_seconds,
    total_seconds,
)
from hyperlock.monitor import resident_mb
from hyperlock.parties.custody import CUSTODIES
from hyperlock.privacy.accounting import Epsilons
from hyperlock.settings.checks import check_objectives, objective_names
from hyperlock.settings.construct import target
from hyperlock.settings.schema import Config, FlowerRuntime

log = logging.getLogger(__name__)


@dataclass
class Report:
    """Grows round by round.

    Attributes:
        name: the run's name.
        scheme: name of the encryption.
        security_bits: 0 if nothing is encrypted.
        key_held_by: who holds the secret key, in words.
        target: the test accuracy that ends the run, or None.
        parameters: of the model.
        rounds: finished ones.
        accuracies: test accuracy by round, of those that were evaluated.
        costs: epsilon, known and hidden, after each round, under privacy.
        metrics: the last round's.
        seconds: by stage, over the whole run so far.
        uplink_bytes: of all clients and rounds.
        beside: the processor's seconds in the background, which are in no stage.
        wall: seconds of the whole run.
        weights: float32[parameters], the global model after the last round; empty where clients
            that are processes of their own alone have it.
        measured: stages whose seconds are known here; others are absent, and not 0.
        by_sites: whether `accuracies` are those of the sites' own test samples.
        tested: test samples of the sites, in their last evaluation.
        guarantee: what is promised, under privacy: of clients' data nothing else is told.
        server_reads: whether the server sees single updates in the clear.
    """

    name: str
    scheme: str
    security_bits: int
    key_held_by: str
    target: float | None = None
    parameters: int = 0
    rounds: int = 0
    accuracies: dict[int, float] = field(default_factory=dict)
    costs: dict[int, Epsilons] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: dict[Stage, float] = field(default_factory=lambda: defaultdict(float))
    uplink_bytes: float = 0.0
    beside: float = 0.0
    wall: float = 0.0
    weights: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    measured: tuple[Stage, ...] = tuple(Stage)
    by_sites: bool = False
    tested: int = 0
    guarantee: Guarantee | None = None
    server_reads: bool = False

    @property
    def accuracy(self) -> float:
        """The last one; NaN before the first."""
        return next(reversed(self.accuracies.values()), float("nan"))

    @property
    def rounds_to_target(self) -> int | None:
        """The first round that was seen to reach the target."""
        if self.target is None:
            return None
        reached = (n for n, accuracy in self.accuracies.items() if accuracy >= self.target)
        return next(reached, None)

    def add_seconds(self, seconds: Mapping[Stage, float]) -> None:
        """Add to the run's seconds by stage."""
        for stage, value in seconds.items():
            self.seconds[stage] += value

    def add_round(self, result: RoundResult) -> dict[str, float]:
        """Take in a finished round, evaluated or not, and return its metrics."""
        traffic = result.traffic
        totals = result.totals
        self.rounds += 1
        self.weights = result.weights
        if result.epsilons is not None:
            self.costs[self.rounds] = result.epsilons
        evaluation: dict[str, float] = {}
        if result.evaluation is not None:
            self.accuracies[self.rounds] = result.evaluation.accuracy
            evaluation = {"accuracy": result.evaluation.accuracy, "loss": result.evaluation.loss}
        self.uplink_bytes += traffic.uplink * traffic.replies
        self.add_seconds(result.seconds)
        self.metrics = {
            **evaluation,
            **self._told(result),
            **{
                round_seconds(stage): result.seconds.get(stage, 0.0)
                for stage in ROUND
                if stage in self.measured
            },
            "time/round_s": result.wall,
            "bytes/uplink_per_client": traffic.uplink,
            "bytes/downlink_per_client": traffic.downlink,
            "bytes/proofs": traffic.proofs,
            "bytes/per_parameter": traffic.uplink / self.parameters,
            "updates/accepted": totals.contributors,
            "updates/refused": traffic.refused,
            "updates/lost": traffic.lost,
            "memory/resident_mb": resident_mb(),
        }
        return self.metrics

    def _told(self, result: RoundResult) -> dict[str, float]:
        """What a release says of the clients' data; under privacy, what it has cost."""
        totals = result.totals
        if self.guarantee is None:
            return {
                "train/loss": totals.loss / totals.samples,
                "grid/saturated": totals.saturated / (totals.contributors * self.parameters),
            }
        noise = {"privacy/noise_to_clip": self.guarantee.noise_to_clip(totals.contributors)}
        if result.epsilons is None:
            return noise
        cost = {
            "privacy/epsilon": result.epsilons.known,
            "privacy/epsilon_hidden": result.epsilons.hidden,
            "privacy/participations": result.participations,
        }
        return {**cost, **noise}

    def add_evaluation(self, number: int, totals: Totals) -> dict[str, float]:
        """Take in what the sites say of the model after this round, and return its metrics."""
        accuracy = totals.right / totals.tested
        self.tested = totals.tested
        found = {"accuracy" if self.by_sites else "sites/accuracy": accuracy}
        if self.by_sites:
            self.accuracies[number] = accuracy
        found["sites/tested"] = float(totals.tested)
        if number == self.rounds:
            self.metrics = {**self.metrics, **found}
        return found

    def stage_seconds(self) -> dict[Stage, float]:
        """Seconds of each stage of the rounds that is measured here, over the run."""
        return {stage: self.seconds[stage] for stage in ROUND if stage in self.measured}

    def accuracy_by_cost(self) -> list[tuple[float, float, float]]:
        """Of each round that was evaluated: epsilon, known and hidden, and test accuracy."""
        return [
            (self.costs[number].known, self.costs[number].hidden, accuracy)
            for number, accuracy in self.accuracies.items()
            if number in self.costs
        ]

    def totals(self) -> dict[str, float]:
        """Totals of the run, under `total/`, and `rounds_to_target` if it was reached."""
        encryption = sum(self.seconds[stage] for stage in ENCRYPTED_AGGREGATION)
        reached = self.rounds_to_target
        whole = set(ENCRYPTED_AGGREGATION) <= set(self.measured)
        return {
            **({} if reached is None else {"rounds_to_target": reached}),
            **{total_seconds(stage): self.seconds[stage] for stage in self.measured},
            **({"total/encrypted_aggregation_s": encryption} if whole else {}),
            "total/beside_s": self.beside,
            "total/wall_s": self.wall,
            "total/uplink_bytes": self.uplink_bytes,
        }

    def final(self) -> dict[str, float]:
        """The last round's metrics and the run's totals: what an objective may name."""
        return {**self.metrics, **self.totals()}

    def state(self) -> dict[str, Any]:
        """What a resumed run must know of the rounds before, as JSON takes it."""
        return {
            "rounds": self.rounds,
            "metrics": self.metrics,
            "uplink_bytes": self.uplink_bytes,
            "wall": self.wall,
            "accuracies": {str(number): value for number, value in self.accuracies.items()},
            "costs": {str(number): [e.known, e.hidden] for number, e in self.costs.items()},
            "seconds": dict(self.seconds),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take in what `state` gave.

        Raises:
            ConfigError: a field is missing or of another kind; others are not looked at.
        """
        try:
            self.rounds = _whole(state["rounds"])
            self.metrics = {str(name): _number(v) for name, v in state["metrics"].items()}
            self.uplink_bytes = _number(state["uplink_bytes"])
            self.wall = _number(state["wall"])
            self.accuracies = {int(n): _number(v) for n, v in state["accuracies"].items()}
            costs = {
                int(n): Epsilons(_number(known), _number(hidden))
                for n, (known, hidden) in state.get("costs", {}).items()
            }
            seconds = {Stage(name): _number(v) for name, v in state["seconds"].items()}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problem = f"the checkpoint's figures cannot be read ({type(error).__name__}: {error})"
            raise ConfigError("resume", "checkpoint.npz", problem, hint="a new run") from None
        self.costs = costs
        self.seconds = defaultdict(float, seconds)


def begin_report(config: Config, scheme: Scheme, guarantee: Guarantee | None = None) -> Report:
    """An empty report that says what the run is, after the log has said what it is not."""
    custody = CUSTODIES[config.keys.custody]
    if not scheme.security_bits:
        log.warning("encryption=none: the server reads every update; for comparison only")
    elif custody.warning:
        log.warning("%s", custody.warning)
    model = target(config.model).rpartition(".")[2]
    elsewhere: set[Stage] = set()
    if isinstance(config.runtime, FlowerRuntime):
        elsewhere = {*ELSEWHERE, *(WITH_THE_MODEL if custody.clients_share else ())}
    if not config.coordinator_evaluates:
        elsewhere.add(Stage.EVALUATE)
    return Report(
        name=f"{model}-{config.encryption.scheme}-{config.federation.clients}c",
        scheme=scheme.name,
        security_bits=scheme.security_bits,
        key_held_by=custody.key_held_by,
        target=config.federation.target_accuracy,
        measured=tuple(stage for stage in Stage if stage not in elsewhere),
        guarantee=guarantee,
        server_reads=not scheme.security_bits or config.keys.custody == "server",
        by_sites=config.clients_evaluate and not config.coordinator_evaluates,
    )


def objective(composed: DictConfig, report: Report) -> float | tuple[float, ...]:
    """The value of `objective`, or one value for each of a list.

    Raises:
        ConfigError: a name is not one of the run's metrics.
        HyperLockError: a value is not a finite number, which no search can use.
    """
    metrics = report.final()
    names = objective_names(composed)
    if "rounds_to_target" in names and report.rounds_to_target is None:
        aim = composed.federation.target_accuracy
        raise HyperLockError(
            f"objective rounds_to_target: {aim} was not reached in {report.rounds} rounds"
        )
    check_objectives(names, metrics)
    for name in names:
        if not math.isfinite(metrics[name]):
            hint = "a smaller federation.learning_rate may help"
            raise HyperLockError(f"objective {name} is {metrics[name]}: {hint}")
    values = tuple(metrics[name] for name in names)
    return values if isinstance(composed.objective, ListConfig) else values[0]


def class_accuracies(confusion: NDArray[np.int64]) -> dict[str, float]:
    """`class/0`, ...: the share of each class' samples that were answered rightly; none of a class
    without samples.

    Args:
        confusion: int64[classes, classes], rows by class, columns by answer.
    """
    return {f"class/{i}": row[i] / row.sum() for i, row in enumerate(confusion) if row.sum()}


def _number(value: Any) -> float:
    """A number that JSON gave, and nothing that merely could become one."""
    if type(value) not in (int, float):
        raise TypeError(f"{value!r:.40} is no number")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r:.40} is no whole number")
    return value
