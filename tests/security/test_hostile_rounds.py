"""Whole rounds in which some replies are hostile: they are counted, and the model is what it would
be without them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from hyperlock.errors import MessageRefused, RoundFailed
from hyperlock.parties.identity import KEYHOLDER
from hyperlock.runtime import Lost, Reply, Runtime
from hyperlock.runtime.local import LocalRuntime
from tests.security.forge import opened, resealed

Tamper = Callable[[str, bytes], Iterable[Reply]]


@dataclass
class Hostile:
    """A runtime between the server and the others, which does what it will with the clients'
    replies."""

    inner: Runtime
    tamper: Tamper

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, Reply]]:
        for party, reply in self.inner.exchange(requests):
            if party == KEYHOLDER or not reply:
                yield party, reply
            else:
                yield from ((party, other) for other in self.tamper(party, reply))  # type: ignore[arg-type]


@dataclass
class Crowd:
    """What hostile clients and networks send beside the good updates.

    Attributes:
        federation: whose parties' signing keys hostile clients hold.
        sent: how many messages were not good ones.
    """

    federation: Any
    earlier: list[bytes] = field(default_factory=list)
    sent: int = 0

    def __call__(self, party: str, good: bytes) -> Iterator[bytes]:
        hostile = [*self.by_the_network(good), *self.by_the_client(party, good), *self.earlier]
        half = len(hostile) // 2
        yield from hostile[:half]
        yield good
        yield from (*hostile[half:], good)  # and once more
        self.sent += len(hostile) + 1
        self.earlier = [good]

    def by_the_network(self, good: bytes) -> list[bytes]:
        flipped = bytearray(good)
        flipped[len(good) // 3] ^= 4
        return [
            b"",
            b"garbage" * 99,
            good[:-1],
            good[1:],
            bytes(flipped),
            good + good,
            bytes(10**7),
        ]

    def by_the_client(self, party: str, good: bytes) -> list[bytes]:
        identity = self.federation.parties.runtime.inner._handlers[party].__self__._session.identity
        round_number: Any = opened(good)[1]["round"]
        changes: list[dict[str, object]] = [
            {"round": round_number - 1}, {"round": round_number + 1}, {"key_id": "other"},
            {"fingerprint": "other"},
            {"length": 5}, {"sender": "client-1" if party == "client-0" else "client-0"},
            {"sender": "mallory"},
            {"run": "other"}, {"version": 2}, {"digest": bytes(32)}, {"sizes": [1, 2**62]},
            {"kind": "aggregate"}, {"attempt": 2}, {"attempt": 0}, {"terms": bytes(32)},
        ]  # fmt: skip
        if self.federation.parties.replica is None:
            changes.append({"train": bytes(32)})
        return [resealed(good, identity, **change) for change in changes]


def tampered(federation: Any, tamper: Tamper) -> Any:
    """The federation, with a hostile runtime."""
    federation.parties = replace(
        federation.parties, runtime=Hostile(federation.parties.runtime, tamper)
    )
    return federation


@pytest.mark.parametrize(
    "overrides", [(), ("encryption=bfv", "keys=clients"), ("encryption=none",)], ids=str
)
def test_the_model_is_as_if_the_hostile_messages_had_not_been(
    federate: Callable, overrides: tuple[str, ...]
) -> None:
    undisturbed = federate(*overrides).play()
    disturbed = federate(*overrides)
    crowd = Crowd(disturbed)
    tampered(disturbed, crowd).play()
    for ours, due in zip(disturbed.weights, undisturbed.weights, strict=True):
        assert ours.tobytes() == due.tobytes()
    assert disturbed.accuracies == undisturbed.accuracies
    assert sum(moved.refused for moved in disturbed.moved) == crowd.sent > 100
    assert [moved.refused for moved in undisturbed.moved] == [0, 0]
    assert disturbed.parties.keeper.totals == undisturbed.parties.keeper.totals


@pytest.mark.parametrize("encryption", ["ckks", "bfv"])
def test_a_round_without_a_hostile_clients_update_is_that_of_the_others(
    federate: Callable, encryption: str
) -> None:
    """As if it had been lost, bit for bit."""

    def forge(party: str, good: bytes) -> list[Reply]:
        last = len(opened(good)[0]) - 1
        other = bytes([good[last] ^ 1])
        return [good[:last] + other + good[last + 1 :]] if party == "client-2" else [good]

    def lose(party: str, good: bytes) -> list[Reply]:
        return [Lost("gone") if party == "client-2" else good]

    hostile, lost = (
        tampered(federate(f"encryption={encryption}"), tamper).play() for tamper in (forge, lose)
    )
    assert [moved.refused for moved in hostile.moved] == [1, 1] and [
        moved.lost for moved in lost.moved
    ] == [1, 1]
    assert hostile.parties.keeper.totals.contributors == 3
    assert [w.tobytes() for w in hostile.weights] == [w.tobytes() for w in lost.weights]


def test_a_round_of_too_few_good_updates_fails_and_says_how_many_were_refused(
    federate: Callable,
) -> None:
    federation = tampered(
        federate(), lambda party, good: [good if party < "client-2" else good[:-1]]
    )
    with pytest.raises(RoundFailed, match="2 updates were accepted and 2 refused"):
        federation.play()
    assert (federation.parties.keeper.model.weights == federation.initial).all()


@pytest.mark.parametrize("custody", ["authority", "clients"])
def test_requests_and_sums_altered_on_the_way_are_refused_by_their_receivers(
    federate: Callable, custody: str
) -> None:
    """An error that ends the round: the server is not there to lie to its clients."""

    @dataclass
    class Altering(Hostile):
        what: str = ""

        def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, Reply]]:
            altered = {party: self.alter(data) for party, data in requests.items()}
            yield from self.inner.exchange(altered)

        def alter(self, data: bytes) -> bytes:
            altered = bytearray(data)
            altered[0] ^= 1
            return bytes(altered) if opened(data)[1]["kind"] == self.what else data

    # Under keys=clients nobody is sent an Open, and a Train is nothing but a header.
    for what in ("open", "train", "aggregate")[2 if custody == "clients" else 0 :]:
        federation = federate(f"keys={custody}")
        inner = federation.parties.runtime
        federation.parties = replace(
            federation.parties, runtime=Altering(inner, lambda party, good: [good], what)
        )
        with pytest.raises(MessageRefused, match="digest does not match"):
            federation.play()
        assert (federation.parties.keeper.model.weights == federation.initial).all()


def test_of_another_model_than_the_others_nothing_is_summed(federate: Callable) -> None:
    """Under keys=clients they say with their key which is right, and not who is first."""

    def lie(party: str, good: bytes) -> list[Reply]:
        identity = federation.parties.runtime.inner._handlers[party].__self__._session.identity
        return [resealed(good, identity, train=bytes(32)) if party == "client-0" else good]

    federation = tampered(federate("keys=clients"), lie)
    assert [moved.refused for moved in federation.play().moved] == [1, 1]


def test_refused_updates_are_in_the_record_of_the_run(
    compose: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole run with MLflow: three hostile messages in the first round, and six in the second."""
    import mlflow

    from hyperlock.experiment import run as experiment

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow leaves the last store there
    exchange = LocalRuntime.exchange

    def hostile(self: LocalRuntime, requests: Mapping[str, bytes]) -> Iterator[tuple[str, Reply]]:
        for party, reply in exchange(self, requests):
            if isinstance(reply, bytes) and reply and opened(reply)[1]["kind"] == "update":
                number: Any = opened(reply)[1]["round"]
                yield from [(party, reply[:-1])] * number
            yield party, reply

    monkeypatch.setattr(LocalRuntime, "exchange", hostile)
    settings = (
        "dataset=digits", "dataset.train_samples=300", "dataset.test_samples=200", "model=logistic",
        "federation.rounds=2", "federation.clients=3", "encryption.poly_modulus=4096",
        "tracking.log_model=false",
        "tracking.experiment=hostile",
    )  # fmt: skip
    composed = compose(*settings)
    report = experiment.run(composed)
    assert report.metrics["updates/refused"] == 6  # in the last round
    client = mlflow.MlflowClient(f"sqlite:///{composed.paths.root}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("hostile").experiment_id])
    history = client.get_metric_history(run.info.run_id, "updates/refused")
    assert [(metric.step, metric.value) for metric in history] == [(1, 3.0), (2, 6.0)]
    assert run.info.status == "FINISHED" and np.isfinite(run.data.metrics["accuracy"])
