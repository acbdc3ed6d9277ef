"""A round: bytes moved between the server and the others, none of them understood here."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hyperlock.data.datasets import Dataset
from hyperlock.encryption.totals import Totals
from hyperlock.errors import MessageRefused, ReleaseRefused, RoundFailed
from hyperlock.experiment.exchange import exchange_of
from hyperlock.experiment.journal import Journal, Traffic
from hyperlock.experiment.private import Guarantee
from hyperlock.learning.types import Evaluation
from hyperlock.metrics import Stage
from hyperlock.monitor import Monitor
from hyperlock.parties.client import Replica
from hyperlock.parties.custody import Custody
from hyperlock.parties.identity import KEYHOLDER
from hyperlock.parties.messages import Release, kind_of
from hyperlock.parties.model import ModelKeeper
from hyperlock.parties.proofs import Draw
from hyperlock.parties.server import Server
from hyperlock.parties.sharing import SharingClients
from hyperlock.parties.sharing_server import SharingServer
from hyperlock.parties.spending import Spending
from hyperlock.parties.verified_server import VerifiedServer
from hyperlock.privacy.accounting import Epsilons
from hyperlock.randomness import generator
from hyperlock.runtime import Lost, Runtime
from hyperlock.settings.schema import Config, Federation

if TYPE_CHECKING:
    from hyperlock.learning.network import Network

log = logging.getLogger(__name__)

NOBODY_HERE = np.zeros(0, np.float32)  # the model, where clients alone have it


@dataclass(frozen=True)
class Parties:
    """The parties of one run, as the round loop reaches them.

    Attributes:
        run: the run's id, which their messages bear.
        server: the server.
        clients: the clients' names, in order.
        runtime: reaches the clients and, where it is a party of its own, the key holder.
        custody: how an attempt gets its key and a sum is released.
        replica: what the clients share under keys=clients; None where they share nothing.
        journal: what rounds moved.
        keeper: whoever holds the model; the experimenter reads it. None where clients that are
            processes of their own alone do.
        network: the architecture, for evaluation.
        monitor: where the seconds of all of them go.
        draw: how the server draws cohorts, where the key holder does not.
        guarantee: what is promised, under privacy.
        spending: of whom sums were released; None where nobody here knows.
        between: called after each client, and may end the run by an error.
    """

    run: str
    server: Server
    clients: list[str]
    runtime: Runtime
    custody: Custody
    replica: Replica | None
    journal: Journal
    keeper: ModelKeeper | None
    network: Network
    monitor: Monitor
    draw: Draw
    guarantee: Guarantee | None = None
    spending: Spending | None = None
    between: Callable[[], None] = lambda: None

    @property
    def totals(self) -> Totals:
        """What the last round's release said."""
        holder = self.server if isinstance(self.server, SharingServer) else self.keeper
        assert holder is not None and holder.totals is not None, "a round was played"
        return holder.totals

    @property
    def weights(self) -> NDArray[np.float32]:
        """float32[parameters], the global model; empty where nobody here has it."""
        return NOBODY_HERE if self.keeper is None else self.keeper.model.weights


@dataclass(frozen=True)
class RoundResult:
    """A finished round.

    Attributes:
        traffic: what it moved.
        totals: what its release said.
        weights: float32[parameters], the global model after it; empty where nobody here has it.
        evaluation: on the test set; None if it was not time to.
        seconds: by stage, since the round before.
        wall: of the round, by the clock.
        epsilons: what all releases so far cost, under privacy.
        participations: releases so far that the client was in who was in most, under privacy.
    """

    traffic: Traffic
    totals: Totals
    weights: NDArray[np.float32]
    evaluation: Evaluation | None
    seconds: Mapping[Stage, float]
    wall: float
    epsilons: Epsilons | None = None
    participations: int = 0


def evaluated_round(number: int, parties: Parties, dataset: Dataset, config: Config) -> RoundResult:
    """Play a round, and evaluate the model on the test set if it is time to."""
    start = time.perf_counter()
    federation = config.federation
    traffic = play_round(number, parties, federation, config.seed)
    if not parties.totals.samples and config.clients_evaluate:
        raise RoundFailed(
            f"round {number} was the sites' evaluation after the run's last round, and rounds are "
            "played once\n  try: a new run of more rounds"
        )
    weights = parties.weights
    evaluation = None
    last = number == federation.rounds or exhausted(parties, config)
    due = number % federation.evaluate_every == 0 or last
    if due and config.coordinator_evaluates:
        with parties.monitor.measure(Stage.EVALUATE):
            evaluation = parties.network.evaluate(weights, dataset.x_test, dataset.y_test)
    return RoundResult(
        traffic=traffic,
        totals=parties.totals,
        weights=weights,
        evaluation=evaluation,
        seconds=parties.monitor.drain(),
        wall=time.perf_counter() - start,
        epsilons=spent(parties),
        participations=0 if parties.spending is None else parties.spending.most,
    )


def spent(parties: Parties) -> Epsilons | None:
    """What all that was released so far has cost, under privacy."""
    if parties.guarantee is None or parties.spending is None:
        return None
    return parties.guarantee.spent(parties.spending, parties.clients)


def exhausted(parties: Parties, config: Config) -> bool:
    """Whether the budget ends the run: a client was in as many releases as it was promised, and
    chance may draw it again. Of other cohorts it is known beforehand that they keep to it."""
    if parties.guarantee is None or parties.spending is None:
        return False
    most = parties.guarantee.participations
    by_chance = config.privacy.sampling == "poisson"
    return by_chance and most is not None and parties.spending.most >= most


def evaluate_at_sites(number: int, parties: Parties, config: Config) -> Totals:
    """What the clients say of the global model in a round after the last, in which nobody trains.

    Raises:
        RoundFailed, ReleaseRefused: as from any round.
    """
    play_round(number, parties, config.federation, config.seed, evaluates=True)
    return parties.totals


def play_round(
    number: int,
    parties: Parties,
    federation: Federation,
    seed: int,
    evaluates: bool = False,
) -> Traffic:
    """A round, tried again with another cohort, and other clients lost, as often as settings say.

    Args:
        number: the round, from 1.
        parties: of the run.
        federation: how large cohorts are, how many clients get lost, how often to try.
        seed: the run's.
        evaluates: whether the cohort is to evaluate the model and not to train.

    Raises:
        RoundFailed: too few updates were accepted, in every attempt.
        ReleaseRefused: the key holder will not release the sum.
    """
    clients = parties.clients
    attempts = federation.round_attempts
    for attempt in range(1, attempts + 1):
        cohort = parties.draw(seed, number, attempt)
        absent = drop_out(cohort, clients, federation.dropout, seed, number, attempt)
        try:
            return run_round(number, parties, cohort, absent, attempt, evaluates)
        except RoundFailed as error:
            if attempt == attempts:
                more = f"federation.round_attempts={attempt + 4}"
                hint = f"{more}, each of which draws its cohort anew"
                raise RoundFailed(f"{error}\n  try: {hint}") from None
            log.warning("%s; trying again (%d of %d attempts)", error, attempt + 1, attempts)
    raise AssertionError("at least one attempt is made")


def run_round(
    number: int,
    parties: Parties,
    cohort: Sequence[str],
    absent: Collection[str] = (),
    attempt: int = 1,
    evaluates: bool = False,
) -> Traffic:
    """One attempt of a round: a key, train, encrypt, add, decrypt, step.

    Args:
        number: the round, from 1.
        parties: of the run.
        cohort: who is asked for an update, unless the key holder draws another.
        absent: who of the cohort is to be lost, to simulate it; these are not asked at all.
        attempt: of the round, from 1.
        evaluates: whether the cohort is to evaluate the model and not to train.

    Raises:
        RoundFailed: too few updates were accepted.
        ReleaseRefused: the key holder will not release the sum.
    """
    server = parties.server
    runtime = parties.runtime

    # A key for the attempt, unless a run that was killed had come further than it kept.
    if _sent_again(number, parties):
        return parties.journal.find(number)
    begun = server.begin(number, attempt)
    opened = parties.custody.open(begun, replica=parties.replica, runtime=runtime)
    if opened and kind_of(opened) == Release.kind:
        server.take(opened)
        log.info("round %d was released before: it is in the key holder's ledger", number)
        return parties.journal.find(number)

    # The cohort trains and encrypts; the server adds what it accepts.
    request = server.open(opened, cohort, evaluates)
    cohort = server.cohort
    exchange = exchange_of(server, runtime, opened)
    asked = [name for name in cohort if name not in absent]
    lost = len(cohort) - len(asked)
    uplink: list[int] = []
    try:
        for _, reply in exchange.updates(asked, request, parties.between):
            if isinstance(reply, Lost):
                lost += 1
                continue
            uplink.append(len(reply))
            if server.receive(reply) is None:
                exchange.accepted(reply)
        exchange.close()
        aggregate = server.close()
    except RoundFailed as error:
        raise RoundFailed(f"{error}; {lost} of {len(cohort)} clients did not answer") from None

    # The sum is decrypted, and whoever holds the model steps it.
    moved = Traffic(
        uplink=float(np.mean(uplink)),
        downlink=len(request),
        replies=len(uplink),
        refused=server.refused,
        lost=lost,
        proofs=exchange.moved,
    )
    parties.journal.keep(number, moved)
    released = parties.custody.release(
        aggregate, server=server, clients=parties.clients, runtime=runtime
    )
    return replace(moved, downlink=moved.downlink + released)


def close_run(parties: Parties) -> None:
    """After the last round: clients that hold the model are given what it came to, and cohorts were
    drawn as the key holder had promised.

    Raises:
        RoundFailed: they were not.
    """
    server = parties.server
    if isinstance(parties.custody, SharingClients):
        parties.custody.close(parties.runtime)
    if isinstance(server, VerifiedServer):
        states = {name: state for name in parties.clients if (state := server.state(name))}
        for name, reply in parties.runtime.exchange(states) if states else ():
            if isinstance(reply, Lost):
                log.info("%s does not have the last model: %s", name, reply.reason)
        [(_, shown)] = parties.runtime.exchange({KEYHOLDER: server.show()})
        if isinstance(shown, Lost):
            raise RoundFailed(f"the key holder does not show its seed: {shown.reason}")
        server.check_cohorts(shown)


def _sent_again(number: int, parties: Parties) -> bool:
    """Whether a sum that was about to be sent when the server stopped is released now."""
    aggregate = parties.server.waiting(number)
    if not aggregate:
        return False
    try:
        parties.custody.release(
            aggregate, server=parties.server, clients=parties.clients, runtime=parties.runtime
        )
    except (MessageRefused, ReleaseRefused, RoundFailed) as error:
        log.info("round %d is played again: %s", number, error)
        return False
    return True


def sample_cohort(
    clients: Sequence[str], size: int, seed: int, round_number: int, attempt: int = 1
) -> list[str]:
    """`size` distinct clients, uniformly, in the clients' own order.

    By (seed, round), and from the second attempt on by that too.
    """
    rng = generator(seed, "cohort", round_number, *_again(attempt))
    chosen = rng.choice(len(clients), size, replace=False)
    return [clients[i] for i in np.sort(chosen)]


def drop_out(
    cohort: Sequence[str],
    clients: Sequence[str],
    probability: float,
    seed: int,
    round_number: int,
    attempt: int = 1,
) -> set[str]:
    """Who of the cohort will not answer: each client with this probability, by (seed, round,
    client) and attempt."""
    if probability == 0:
        return set()
    number = {client: i for i, client in enumerate(clients)}
    lost = set()
    for name in cohort:
        rng = generator(seed, "dropout", round_number, number[name], *_again(attempt))
        if rng.random() < probability:
            lost.add(name)
    return lost


def _again(attempt: int) -> tuple[int, ...]:
    return () if attempt == 1 else (attempt,)
