"""The catalogue of what a run measures: its stages and its metrics.

A stage is added here and measured where it happens (`monitor.measure(Stage.NAME)`); a metric is
added here and given its value where it arises. Names are those of MLflow and of `objective`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """Where a run's seconds go, in the order of a run."""

    IMPORT = "import"  # of TensorFlow
    DATA = "data"  # loading and splitting
    SETUP = "setup"  # the model, the parties and their keys
    TRAIN = "train"
    QUANTISE = "quantise"
    ENCRYPT = "encrypt"
    AGGREGATE = "aggregate"
    VERIFY = "verify"  # commitments, roster and witness, under trust=malicious
    DECRYPT = "decrypt"
    STEP = "step"  # of the global model
    EVALUATE = "evaluate"
    TRACK = "track"  # waiting for checkpoints, record and pictures; most are made beside the rounds


AROUND = (Stage.IMPORT, Stage.DATA, Stage.SETUP, Stage.TRACK)
ROUND = tuple(stage for stage in Stage if stage not in AROUND)
# What other processes do, where a party is a process of its own: not measured here, and absent.
ELSEWHERE = (Stage.TRAIN, Stage.QUANTISE, Stage.ENCRYPT, Stage.DECRYPT)
WITH_THE_MODEL = (Stage.STEP, Stage.EVALUATE)  # and these, where other processes alone have it
ENCRYPTED_AGGREGATION = (Stage.QUANTISE, Stage.ENCRYPT, Stage.AGGREGATE, Stage.DECRYPT)
WORK = (Stage.TRAIN, *ENCRYPTED_AGGREGATION)  # what a sweep's trial is for


@dataclass(frozen=True)
class Metric:
    """One figure of a run.

    Attributes:
        name: in MLflow, and for `objective`.
        unit: "" for a count or a share.
        meaning: a phrase.
    """

    name: str
    unit: str
    meaning: str


def round_seconds(stage: Stage) -> str:
    """The metric of one round's seconds of a stage."""
    return f"time/{stage}_s"


def total_seconds(stage: Stage) -> str:
    """The metric of the whole run's seconds of a stage."""
    return f"total/{stage}_s"


CATALOGUE = (
    Metric("accuracy", "", "share of the test set that is answered rightly"),
    Metric("loss", "nats", "mean cross-entropy on the test set"),
    Metric("sites/accuracy", "", "the same on the sites' own test samples, where both are known"),
    Metric("sites/tested", "", "test samples of the sites that were asked"),
    Metric("train/loss", "nats", "mean training loss over the cohort's samples"),
    *(
        Metric(round_seconds(stage), "s", f"{stage}, one round, summed over clients")
        for stage in ROUND
    ),
    Metric("time/round_s", "s", "one round from first message to evaluation, by the clock"),
    Metric("bytes/uplink_per_client", "bytes", "one client's upload in a round, mean"),
    Metric("bytes/downlink_per_client", "bytes", "what one client is sent in a round"),
    Metric("bytes/proofs", "bytes", "commitments, rosters and the witness, all parties, one round"),
    Metric("bytes/per_parameter", "bytes", "a client's upload by parameter; float32 is 4"),
    Metric("updates/accepted", "", "updates in the released sum"),
    Metric("updates/refused", "", "updates that the server refused"),
    Metric("updates/lost", "", "clients that did not answer"),
    Metric("memory/resident_mb", "MB", "memory of the process after the round"),
    Metric("grid/saturated", "", "share of coordinates outside the grid's range"),
    Metric("privacy/epsilon", "", "what releases have cost, to who knows who took part"),
    Metric("privacy/epsilon_hidden", "", "the same to who does not"),
    Metric("privacy/participations", "", "releases that the client was in who was in most"),
    Metric("privacy/noise_to_clip", "", "length of the noise in a round's mean, over the clip"),
    Metric("rounds_to_target", "rounds", "until federation.target_accuracy was seen, if it was"),
    *(Metric(total_seconds(stage), "s", f"{stage}, the whole run") for stage in Stage),
    Metric(
        "total/encrypted_aggregation_s", "s", "quantising, encrypting, adding and decrypting, all"
    ),
    Metric("total/beside_s", "s", "processor's, of the record beside the rounds, in this process"),
    Metric("total/wall_s", "s", "the whole run by the clock"),
    Metric("total/uplink_bytes", "bytes", "all clients' uploads in all rounds"),
)


def metric_names() -> list[str]:
    """Every metric that an objective may name; `rounds_to_target` is there if it was reached."""
    return sorted(metric.name for metric in CATALOGUE)
