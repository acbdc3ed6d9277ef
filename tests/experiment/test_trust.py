"""A run at trust=malicious: the same model, its proofs, and what it is refused with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyperlock.errors import ConfigError, RoundFailed
from hyperlock.experiment import rounds
from hyperlock.experiment.checkpoint import load
from hyperlock.experiment.run import run
from hyperlock.learning import algorithms
from hyperlock.learning.types import Algorithm
from hyperlock.parties.verified_server import VerifiedServer
from hyperlock.settings.parse import parse

SMALL = (
    "dataset=digits", "dataset.train_samples=300", "dataset.test_samples=200", "model=logistic",
    "tracking=none", "federation.clients=6", "encryption.poly_modulus=4096",
)  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        ("encryption=bfv", "federation.rounds=3"),
        ("encryption=ckks", "federation.rounds=3", "federation=fedadam", "federation.cohort=4"),
        ("encryption=bfv", "federation.rounds=5", "federation.cohort=3", "federation.dropout=0.1",
         "federation.round_attempts=9"),
        ("encryption=bfv", "federation.rounds=4", "runtime.workers=2", "model=mlp"),
    ],
    ids=["bfv", "adaptive", "dropout", "workers"],
)  # fmt: skip
def test_the_model_is_that_of_trust_curious(compose: Callable, settings: tuple[str, ...]) -> None:
    """Bit for bit, with the same cohorts."""
    curious = run(compose(*SMALL, *settings))
    malicious = run(compose(*SMALL, *settings, "trust=malicious"))
    assert malicious.weights.tobytes() == curious.weights.tobytes()
    assert malicious.accuracies == curious.accuracies
    assert curious.metrics["bytes/proofs"] == 0 == curious.metrics["time/verify_s"]
    assert malicious.metrics["bytes/proofs"] > 0 and malicious.metrics["time/verify_s"] > 0


@pytest.mark.parametrize("custody", ["clients", "server"])
def test_where_others_than_a_key_holder_have_the_key_it_is_refused(
    compose: Callable, custody: str
) -> None:
    with pytest.raises(ConfigError, match=f"keys={custody}.*no commitment or witness"):
        parse(compose(*SMALL, "trust=malicious", f"keys={custody}"))
    parse(compose(*SMALL, "trust=curious", f"keys={custody}"))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (("trust=malicious", "trust.level=maliciuos"), r"(?s)trust\.level=maliciuos.*malicious"),
        (("trust.level=evil",), r"(?s)trust\.level=evil.*allowed: curious, malicious"),
        (("keys.custody=evil",), r"(?s)keys\.custody=evil.*allowed: authority, clients, server"),
    ],
    ids=str,
)
def test_a_misspelt_level_is_not_taken_for_another(
    compose: Callable, settings: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse(compose(*SMALL, *settings))


@pytest.mark.parametrize(
    "settings",
    [
        ("federation.clients=2",),
        ("keys.colluders=99",),
        ("federation.cohort=2",),
        ("federation.fraction=0.2", "keys.colluders=4"),
        ("keys.min_clients=9",),
    ],
    ids=str,
)
def test_what_to_try_works(compose: Callable, settings: tuple[str, ...]) -> None:
    """At once, and not by way of another error."""
    typed = [*SMALL, "trust=malicious", *settings]
    with pytest.raises(ConfigError) as refused:
        parse(compose(*typed))
    hint = str(refused.value).partition("try: ")[2].split()
    named = {override.partition("=")[0] for override in hint}
    parse(compose(*(text for text in typed if text.partition("=")[0] not in named), *hint))


def test_lost_clients_are_told_from_copies(compose: Callable) -> None:
    settings = ("trust=malicious", "federation.dropout=0.9", "encryption=bfv")
    with pytest.raises(
        RoundFailed, match=r"have committed to an update, but.*of 6 clients did not"
    ):
        run(compose(*SMALL, *settings))


def test_an_optimiser_that_writes_into_its_slots_is_each_partys_own(
    compose: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = algorithms.fedavg

    def in_place(*given: Any, **keys: Any) -> Algorithm:
        algorithm = made(*given, **keys)
        return Algorithm(algorithm.trainer, InPlace(np.zeros(650)))

    monkeypatch.setattr(algorithms, "fedavg", in_place)
    settings = (*SMALL, "encryption=bfv", "federation.rounds=3")
    curious = run(compose(*settings))
    malicious = run(compose(*settings, "trust=malicious"))
    assert malicious.weights.tobytes() == curious.weights.tobytes()


@dataclass(frozen=True)
class InPlace:
    """Momentum, badly."""

    velocity: np.ndarray

    def step(self, weights: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, InPlace]:
        self.velocity[:] = 0.5 * self.velocity + mean
        return (weights - self.velocity).astype(np.float32), self


def test_a_sum_is_of_two_more_than_may_collude(compose: Callable) -> None:
    settings = (*SMALL, "trust=malicious", "keys.colluders=3")
    with pytest.raises(ConfigError, match=r"(?s)keys\.colluders=3.*at least 5"):
        parse(compose(*settings))
    parse(compose(*settings, "keys.min_clients=5"))
    parse(compose(*SMALL, "keys.colluders=3"))
    with pytest.raises(ConfigError, match="colluders"):
        parse(compose(*SMALL, "keys.colluders=-1"))


def test_it_goes_on_where_it_was_killed(
    compose: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the release and before the checkpoint: that round is not played again, and the seed of
    the cohorts is the one that was committed to."""
    settings = (*SMALL, "trust=malicious", "encryption=bfv", "federation.cohort=4")
    several = (*settings, "federation.rounds=6", "checkpoint_every=3")
    whole = run(compose(*several))

    took = VerifiedServer.take

    def killed(self: VerifiedServer, release: bytes) -> None:
        took(self, release)
        if self.keeper is not None and self.keeper.round == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(VerifiedServer, "take", killed)
        with pytest.raises(KeyboardInterrupt):
            run(compose(*several), tmp_path)
    start = load(tmp_path)
    assert start.round == 3
    played: list[int] = []
    exchange_of = rounds.exchange_of

    def counted(server: VerifiedServer, *others: object) -> object:
        played.append(server.keeper.round + 1)  # type: ignore[union-attr]
        return exchange_of(server, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(rounds, "exchange_of", counted)
    again = run(compose(*several), tmp_path, (), start)
    assert played == [6] and again.weights.tobytes() == whole.weights.tobytes()
    assert again.uplink_bytes == pytest.approx(whole.uplink_bytes, rel=1e-3)
