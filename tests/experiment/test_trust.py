"""A run at trust=malicious: the same model, its proofs, and what it is refused with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hyperlock.errors import ConfigError
from hyperlock.experiment import rounds
from hyperlock.experiment.checkpoint import load
from hyperlock.experiment.run import run
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
