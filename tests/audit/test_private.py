"""The audit under privacy: noise hides what the sum showed, and canaries notice if it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hyperlock.audit import inversion, replay
from hyperlock.audit.__main__ import audit
from hyperlock.audit.inversion import Row
from hyperlock.audit.past import Past, find
from hyperlock.errors import HyperLockError
from hyperlock.experiment.simulation import build_scheme
from tests.audit.conftest import Quantised, watching
from tests.privacy.planted import Halved

PRIVATE = (
    "model=mlp", "model.units=16", "privacy.epsilon=null", "privacy.noise_multiplier=1",
    "encryption=none", "federation.rounds=2",
)  # fmt: skip
CLIENTS = (
    "privacy=client", "privacy.delta=1e-3", "dataset.train_samples=24", "federation.clients=24",
    "keys.min_clients=20",
)  # fmt: skip
SAMPLES = (
    "privacy=sample", "privacy.delta=1e-4", "privacy.record_rate=0.05", "federation=fedsgd",
    "federation.clients=4", "federation.learning_rate=1", "dataset.train_samples=400",
    "keys.min_clients=4",
)  # fmt: skip


def attacked(past: Past) -> tuple[replay.Round, dict[str, Row]]:
    number = past.rounds + 1
    played = replay.play(past, number, replay.model_before(past, number))
    scheme = build_scheme(past.config, past.network.sizes, past.guarantee)
    return played, {row.name: row for row in inversion.invert(past, played, scheme)}


@pytest.fixture(scope="module")
def run_and_sent(played: Callable[..., Path]) -> tuple[Past, Quantised]:
    with watching() as quantised:
        past = find(str(played("clients", *PRIVATE, *CLIENTS)))
    return past, quantised


@pytest.fixture
def of_clients(run_and_sent: tuple[Past, Quantised]) -> Past:
    return run_and_sent[0]


def test_noise_takes_a_sum_to_the_floor(of_clients: Past) -> None:
    played, found = attacked(of_clients)
    assert list(found) == ["original", "control", "update", "other", "sum", "dp"]
    assert found["control"].median > 0.99
    # As close as any noise of 16 units is.
    layer = inversion.first_dense(of_clients.network)
    images = inversion._images(of_clients)
    noise = np.random.default_rng(0).normal(size=(40, of_clients.network.parameters))
    sample = found["original"].images[0]
    floor = [
        inversion._closest(inversion._candidates(each, layer, images), sample)[1] for each in noise
    ]
    assert found["dp"].median < np.max(floor) + 0.05 < 0.7
    mechanism = of_clients.guarantee.mechanism
    noisy = (played.total - played.bare).std()
    assert noisy == pytest.approx(mechanism.spread * len(played.clients) ** 0.5, rel=0.1)


def test_rounding_is_the_runs_own(run_and_sent: tuple[Past, Quantised]) -> None:
    """What differs from what was sent is noise: a share of it."""
    past, quantised = run_and_sent
    model = replay.model_before(past, 1)
    again = replay.encrypted(past, model, 5, 1)
    share = quantised["client-5", 1].astype(np.int64) - again.bare
    assert share.std() == pytest.approx(past.guarantee.mechanism.spread, rel=0.1)
    with pytest.raises(HyperLockError, match=r"--round 2: .*noise.*\n.*1, 3"):
        replay.model_before(past, 2)


def test_canaries_stand_beside_the_claim_and_notice_halved_noise(of_clients: Past) -> None:
    found = audit(of_clients)
    metrics = found.metrics
    assert 0 < metrics["audit/epsilon_lower"] < metrics["audit/epsilon_claimed"]
    assert "draws its own noise" in found.notes[-1] and "IT IS NOT" not in found.table()
    right = of_clients.guarantee.mechanism
    halved = Halved(right.promise, right.coordinates, right.bound, right.signal)
    faulty = audit(replace(of_clients, guarantee=replace(of_clients.guarantee, mechanism=halved)))
    assert faulty.metrics["audit/epsilon_lower"] > faulty.metrics["audit/epsilon_claimed"]
    assert "IT IS NOT WHAT IT CLAIMS" in faulty.table()


def test_members_are_those_of_the_ledger(of_clients: Past) -> None:
    """Cohorts may have been drawn from the operating system's randomness."""
    assert replay.took_part(of_clients) == list(range(24))
    ledger = of_clients.directory / "keyholder" / of_clients.checkpoint.run / "spent"
    before = ledger.read_text()
    ledger.write_text(before.replace('"client-23"', '"client-2"'))
    assert replay.took_part(of_clients) == list(range(23))
    ledger.write_text(before)


@pytest.mark.slow
def test_samples_are_drawn_anew(played: Callable[..., Path]) -> None:
    past = find(str(played("samples", *PRIVATE, *SAMPLES)))
    played_again, found = attacked(past)
    drawn = len(played_again.watched.data.y)
    assert drawn < 40 and f"({drawn:,} sample" in found["update"].meaning
    assert played_again.totals.samples < 100 and found["dp"].median < found["control"].median
    assert {"audit/epsilon_lower", "audit/inversion_ssim_dp"} <= set(audit(past).metrics)
