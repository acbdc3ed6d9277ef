"""A small run at trust=malicious without a model to train: server, key holder, witness and clients,
each with a copy of the model of its own, whose messages may be altered on the way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from hyperlock.encryption.grid import Grid
from hyperlock.encryption.scheme import Scheme
from hyperlock.encryption.vector import Vector
from hyperlock.experiment.journal import Journal, Traffic
from hyperlock.experiment.rounds import Parties, run_round, sample_cohort
from hyperlock.learning.optimizers import Momentum
from hyperlock.learning.types import Evaluator, LocalData
from hyperlock.monitor import Monitor
from hyperlock.parties.committing_client import CommittingClient
from hyperlock.parties.custody import CUSTODIES
from hyperlock.parties.identity import KEYHOLDER, SERVER, WITNESS, Identity, enrol
from hyperlock.parties.keyholder import Policy
from hyperlock.parties.ledger import Ledger
from hyperlock.parties.messages import kind_of
from hyperlock.parties.model import GlobalModel, ModelKeeper
from hyperlock.parties.outbox import Outbox
from hyperlock.parties.proofs import Cohorts
from hyperlock.parties.session import Session
from hyperlock.parties.spool import Spool
from hyperlock.parties.verified_server import VerifiedServer
from hyperlock.parties.verifying_keyholder import VerifyingKeyHolder
from hyperlock.parties.witness import Witness
from hyperlock.randomness import Streams
from hyperlock.runtime import Lost, Reply
from hyperlock.runtime.bundle import opened
from tests.parties.cast import NAMES, SAMPLES, TERMS, Trainer

SIZES = (300, 20)
SEED = 5

# From a message's bytes to what arrives instead.
Tamper = Callable[[bytes], Reply]


@dataclass
class Post:
    """A runtime that alters what is asked and answered, by party and kind.

    Attributes:
        handlers: who answers.
        asked: what a party gets instead of a message of a kind.
        answered: what comes back instead of an answer to a message of a kind.
        seen: every party and kind that was asked, in order, with the bytes.
        answers: bytes of the last answer, by party and kind of what was asked.
    """

    handlers: dict[str, Callable[[bytes], bytes]]
    asked: dict[tuple[str, str], Tamper] = field(default_factory=dict)
    answered: dict[tuple[str, str], Tamper] = field(default_factory=dict)
    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    answers: dict[tuple[str, str], int] = field(default_factory=dict)

    def exchange(self, requests: Mapping[str, bytes]) -> Iterator[tuple[str, Reply]]:
        """One after the other."""
        for party, request in requests.items():
            reply: Reply = b""
            for message in opened(request):
                reply = self._ask(party, message)
                if isinstance(reply, Lost):
                    break
            yield party, reply

    def _ask(self, party: str, message: bytes) -> Reply:
        """What comes back of one message, of those that share a trip."""
        about = (party, kind_of(message))
        given = self.asked.get(about, lambda data: data)(message)
        self.seen.append((*about, message))
        if isinstance(given, Lost):
            return given
        answer = self.handlers[party](given)
        self.answers[about] = len(answer)
        return self.answered.get(about, lambda data: data)(answer)

    def gather(self, parties: Collection[str]) -> Iterator[tuple[str, Lost]]:
        """All are here."""
        return iter(())

    def close(self) -> None:
        """Nothing is open."""


class VerifiedCast:
    """The parties, as `experiment.simulation` wires them.

    Args:
        scheme: of the run.
        cohort: how many of the six clients are asked.
        ledger: of the key holder.
        parties: their signing keys, if they are known already.
        evaluator: how each client evaluates the model, if they do.
    """

    def __init__(
        self,
        scheme: Scheme,
        cohort: int = 6,
        ledger: Ledger | None = None,
        parties: dict[str, Identity] | None = None,
        evaluator: Evaluator | None = None,
    ) -> None:
        self.scheme = scheme
        self.layout = Vector(scheme.extent, SIZES, evaluator is not None)
        roles = (SERVER, KEYHOLDER, WITNESS)
        self.parties = parties or enrol("run", dict.fromkeys(NAMES, SAMPLES), roles)
        self.keepers = {name: self.keeper() for name in (SERVER, KEYHOLDER, *NAMES)}

        def draw(seed: int, round_number: int, attempt: int) -> list[str]:
            return sample_cohort(NAMES, cohort, seed, round_number, attempt)

        self.server = VerifiedServer(
            self.session(SERVER),
            keeper=self.keepers[SERVER],
            outbox=Outbox(),
            draw=draw,
            min_clients=3,
        )
        self.keyholder = VerifyingKeyHolder(
            self.session(KEYHOLDER),
            keeper=self.keepers[KEYHOLDER],
            cohorts=Cohorts(SEED, b"n" * 32),
            draw=draw,
            policy=Policy(min_clients=3, rounds=9, attempts=9),
            ledger=ledger or Ledger(),
        )
        self.witness = Witness(self.session(WITNESS))
        self.clients = {
            name: CommittingClient(
                self.session(name),
                keeper=self.keepers[name],
                streams=Streams(0, index),
                data=LocalData(np.zeros((SAMPLES, 2)), np.zeros(SAMPLES, np.int32)),
                trainer=Trainer(self.update(index)),
                encryptor=scheme.encryptor,
                spool=Spool(),
                min_clients=3,
                evaluator=evaluator,
            )
            for index, name in enumerate(NAMES)
        }
        handlers = {name: client.handle for name, client in self.clients.items()}
        self.post = Post(
            {**handlers, KEYHOLDER: self.keyholder.handle, WITNESS: self.witness.handle}
        )

    def update(self, index: int) -> np.ndarray:
        """float32[parameters]: what a client has trained, in every round."""
        rng = np.random.default_rng(index)
        return rng.uniform(-0.4, 0.4, self.layout.parameters).astype(np.float32)

    def keeper(self) -> ModelKeeper:
        """The model before the first round."""
        weights = np.linspace(-1, 1, self.layout.parameters).astype(np.float32)
        grid = Grid(SIZES, (0.5,) * len(SIZES), self.scheme.extent.value_bits)
        return ModelKeeper(GlobalModel(weights, grid, Momentum(1.0, 0.5), 10.0, 4.0))

    def session(self, name: str) -> Session:
        """A party's."""
        return Session(self.parties[name], self.scheme, self.layout, TERMS, Monitor())

    def play(self, number: int = 1, attempt: int = 1, evaluates: bool = False) -> Traffic:
        """One attempt of a round."""
        parties = Parties(
            run="run",
            server=self.server,
            clients=NAMES,
            runtime=self.post,
            custody=CUSTODIES["authority"],
            replica=None,
            journal=Journal(),
            keeper=self.keepers[SERVER],
            network=None,  # type: ignore[arg-type]  # nothing is evaluated
            monitor=Monitor(),
            draw=lambda seed, number, attempt: NAMES,
        )
        return run_round(number, parties, NAMES, (), attempt, evaluates)

    def digests(self, *names: str) -> list[bytes]:
        """Of these parties' models, or of all."""
        return [self.keepers[name].model.digest for name in names or self.keepers]
