"""trust=malicious: what a server that may do anything tries, alone or with a client, what comes of
it, and what each party does when another does not play its part.

The controls are the attacks of `test_liars.py` that succeed at trust=curious.
"""

from __future__ import annotations

import gc
import os
from dataclasses import replace
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import pytest

from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.encryption.extent import Extent
from hyperlock.errors import MessageRefused, ReleaseRefused, RoundFailed
from hyperlock.parties.identity import KEYHOLDER, SERVER, WITNESS
from hyperlock.parties.keyholder import KeyHolder, Policy
from hyperlock.parties.ledger import Ledger
from hyperlock.parties.messages import (
    Aggregate,
    Close,
    Commitment,
    Commitments,
    Message,
    PublicKey,
    Release,
    Roster,
    State,
    Train,
    Update,
)
from hyperlock.parties.proofs import Cohorts
from hyperlock.parties.session import Session
from hyperlock.parties.verified_server import VerifiedServer
from hyperlock.parties.witness import Witness
from hyperlock.runtime import Lost, Reply
from tests.parties.cast import NAMES
from tests.parties.verified_cast import VerifiedCast

LIAR = "client-5"
VICTIM = "client-0"


@pytest.fixture(params=["bfv", "ckks"])
def cast(request: pytest.FixtureRequest) -> VerifiedCast:
    return VerifiedCast(scheme(request.param))


def scheme(name: str) -> Bfv | Ckks:
    if name == "bfv":
        return Bfv(bfv_parameters(2048, "auto", "auto", Extent(8), 8, 128, 400))
    return Ckks(ckks_parameters(4096, "auto", "auto", Extent(8), 8, 128, 400))


def forged(cast: VerifiedCast, data: bytes, kind: type[Message], **changes: object) -> bytes:
    """A message with other fields or another payload, signed by its sender again."""
    sender = str(changes.get("sender", SERVER if kind.only_from == SERVER else ""))
    reader = cast.parties[WITNESS]
    message = kind.decode(data, reader, max_parts=99, max_part_bytes=10**7)
    changed = replace(message, **changes)  # type: ignore[arg-type]
    return changed.encode(cast.parties[sender or changed.sender])


def asked(cast: VerifiedCast, party: str, kind: type[Message]) -> bytes:
    """The last message of a kind that a party was sent."""
    return next(data for p, k, data in reversed(cast.post.seen) if (p, k) == (party, kind.kind))


# What is right


def test_every_party_comes_to_the_same_model(cast: VerifiedCast) -> None:
    for number in (1, 2, 3):
        traffic = cast.play(number)
        assert traffic.proofs > 0 and (traffic.lost, traffic.refused) == (0, 0)
    cast.post.seen.clear()
    cast.play(4)
    assert len(set(cast.digests(SERVER, KEYHOLDER))) == 1
    # Clients have it with the next Train.
    assert len(set(cast.digests(*NAMES))) == 1 and cast.keepers[VICTIM].round == 3


@pytest.mark.parametrize("number", [1, 2])
def test_the_bytes_of_the_proofs_are_the_formula(cast: VerifiedCast, number: int) -> None:
    """A commitment of each client, the list of them and the roster; the roster to each client; key,
    roster and every Update to the witness, and its tally; the last Release to each client."""
    for earlier in range(1, number):
        cast.play(earlier)
    cast.post.seen.clear()
    traffic = cast.play(number)
    n = len(NAMES)
    train = asked(cast, VICTIM, Train)
    key = bytes(cast.session(VICTIM).hear(Train, train).parts[0])
    commitments = sum(cast.post.answers[name, Train.kind] for name in NAMES)
    updates = sum(cast.post.answers[name, Roster.kind] for name in NAMES)
    listed = len(asked(cast, KEYHOLDER, Commitments))
    roster = len(asked(cast, VICTIM, Roster))
    close = len(asked(cast, WITNESS, Close)) + cast.post.answers[WITNESS, Close.kind]
    framing = 8 * (n + 3) + 8  # of a bundle: the sizes, their number and the mark
    to_witness = len(key) + roster + updates + close + framing
    states = sum(len(data) for _, kind, data in cast.post.seen if kind == State.kind)
    assert (states > 0) is (number > 1)
    assert traffic.proofs == commitments + listed + (1 + n) * roster + to_witness + states


@pytest.mark.parametrize("missed", [1, 2, 3, 5])
def test_who_missed_rounds_catches_up(cast: VerifiedCast, missed: int) -> None:
    """By Releases if it missed up to two; else by the model whose digest the key holder signs."""
    cast.play(1)
    cast.post.asked[LIAR, Train.kind] = lambda _: Lost("away")
    cast.post.asked[LIAR, State.kind] = lambda _: Lost("away")
    for number in range(2, 2 + missed):
        assert cast.play(number).lost == 1
    cast.post.asked.clear()
    cast.post.seen.clear()
    assert cast.play(2 + missed).lost == 0
    state = asked(cast, LIAR, State)
    parts = cast.session(LIAR).hear(State, state, part_bytes=10**6).parts
    # Round 1's release is the first that it lacks.
    whole = missed + 1 > 2
    assert (bytes(parts[0]) == b"model") is whole
    assert cast.digests(LIAR) == cast.digests(VICTIM)


# The server lies


def test_a_model_of_the_servers_choosing(cast: VerifiedCast) -> None:
    """ "All get the same crafted weights, which leave one record in the sum." """
    cast.play(1)
    cast.keepers[SERVER].model = replace(
        cast.keepers[SERVER].model, weights=np.zeros(cast.layout.parameters, np.float32)
    )
    with pytest.raises(MessageRefused, match="another model than the key holder's"):
        cast.play(2)


def test_a_state_of_the_servers_choosing(cast: VerifiedCast) -> None:
    """ "client-5 was away: I tell it what the model is." """
    cast.play(1)
    bogus = replace(cast.keeper().model, weights=np.zeros(cast.layout.parameters, np.float32))
    cast.post.asked[LIAR, State.kind] = lambda data: forged(
        cast, data, State, payload=(b"model", bogus.encode())
    )
    with pytest.raises(MessageRefused, match="another model than the one that this client"):
        cast.play(2)
    # A Release that the key holder did not sign is none.
    release = cast.session(SERVER).at(1, 1).write(Release, (bytes(10),))
    cast.post.asked[LIAR, State.kind] = lambda data: forged(cast, data, State, payload=(release,))
    with pytest.raises(MessageRefused, match="release"):
        cast.play(2, 2)


def test_a_cohort_of_the_servers_choosing() -> None:
    """ "client-5 and two friends, in every round." """
    cast = VerifiedCast(scheme("bfv"), cohort=3)
    opened = cast.keyholder.handle(cast.server.begin(1, 1))
    train = cast.server.open(opened, NAMES)
    others = [name for name in NAMES if name not in cast.server.cohort]
    with pytest.raises(MessageRefused, match="not in the cohort that the key holder drew"):
        cast.clients[others[0]].handle(train)
    named = cast.server.cohort
    shown = cast.keyholder.handle(cast.server.show())
    cast.server.check_cohorts(shown)
    with pytest.raises(ReleaseRefused, match="the run is over"):
        cast.keyholder.handle(cast.server.begin(1, 2))

    # And the key holder cannot have chosen either.
    cast.server._drawn[1, 1] = (*named[:2], others[0])
    with pytest.raises(RoundFailed, match="not drawn from the seed shown"):
        cast.server.check_cohorts(shown)
    cast.keyholder._cohorts = Cohorts(6, b"n" * 32)
    with pytest.raises(RoundFailed, match="another seed than it had committed to"):
        cast.server.check_cohorts(cast.keyholder.handle(cast.server.show()))


def test_an_attempt_of_the_servers_choosing() -> None:
    """ "I know which clients each attempt has: I open the one that suits me." """
    cast = VerifiedCast(scheme("bfv"), cohort=3)
    for number in (2, 9):
        with pytest.raises(ReleaseRefused, match="come in order"):
            cast.keyholder.handle(cast.server.begin(number, 1))
    cast.play()
    # Whichever it asks for, it has the next, until there are no more: what settings allow.
    for due, asked in enumerate((9, 1, 3, 2, 7, 2, 4, 8, 5), 1):
        opened = cast.keyholder.handle(cast.server.begin(2, asked))
        cast.session(SERVER).hear(PublicKey, opened).expect(round=2, attempt=due)
    with pytest.raises(ReleaseRefused, match="a round has 9"):
        cast.keyholder.handle(cast.server.begin(2, 10))


def test_one_update_under_the_names_of_others(cast: VerifiedCast) -> None:
    """ "The witness has its updates; what I have decrypted is client-0's alone, three times." """

    def instead(aggregate: bytes) -> bytes:
        update = cast.session(WITNESS).hear(Update, asked(cast, WITNESS, Update))
        accumulator = cast.scheme.accumulator(cast.witness._key, cast.layout.length)
        for _ in range(len(NAMES)):
            accumulator.add(update.parts)
        parts = cast.session(KEYHOLDER).hear(Aggregate, aggregate).parts
        return forged(
            cast, aggregate, Aggregate, payload=(*accumulator.total(), *map(bytes, parts[-2:]))
        )

    cast.post.asked[KEYHOLDER, Aggregate.kind] = instead
    with pytest.raises(ReleaseRefused, match="the witness came to another sum"):
        cast.play()


def test_a_sum_without_a_tally(cast: VerifiedCast) -> None:
    def instead(aggregate: bytes) -> bytes:
        parts = cast.session(KEYHOLDER).hear(Aggregate, aggregate).parts
        return forged(cast, aggregate, Aggregate, payload=tuple(map(bytes, parts[:-1])))

    cast.post.asked[KEYHOLDER, Aggregate.kind] = instead
    with pytest.raises(MessageRefused, match="payload parts instead of"):
        cast.play()


def test_fewer_than_were_added(cast: VerifiedCast) -> None:
    """ "I name five of the six whom the witness added." """

    def instead(aggregate: bytes) -> bytes:
        *total, manifest, tally = cast.session(KEYHOLDER).hear(Aggregate, aggregate).parts
        fewer = Aggregate.manifest(Aggregate.envelopes(manifest, 9)[1:])
        payload = (*map(bytes, total), fewer, bytes(tally))
        return forged(cast, aggregate, Aggregate, payload=payload)

    cast.post.asked[KEYHOLDER, Aggregate.kind] = instead
    with pytest.raises(ReleaseRefused, match="the witness added the updates of others"):
        cast.play()


def test_two_subsets_of_one_roster(cast: VerifiedCast) -> None:
    """ "First all six, then five: the difference is client-0." One key decrypts once, and the
    witness adds once."""
    cast.play()
    aggregate = asked(cast, KEYHOLDER, Aggregate)
    *total, manifest, tally = cast.session(KEYHOLDER).hear(Aggregate, aggregate).parts
    fewer = Aggregate.manifest(Aggregate.envelopes(manifest, 9)[1:])
    payload = (*map(bytes, total), fewer, bytes(tally))
    with pytest.raises(ReleaseRefused, match="round 1 was released before"):
        cast.keyholder.handle(forged(cast, aggregate, Aggregate, payload=payload))
    with pytest.raises(MessageRefused, match="an update before the roster"):
        cast.witness.handle(asked(cast, WITNESS, Update))
    with pytest.raises(MessageRefused, match="was witnessed before"):
        train = cast.session(VICTIM).hear(Train, asked(cast, VICTIM, Train))
        cast.witness.handle(bytes(train.parts[0]))


def test_a_roster_closed_twice(cast: VerifiedCast) -> None:
    """ "Another list of the same commitments, so that two rosters are signed." """
    cast.post.asked[WITNESS, Roster.kind] = lambda roster: cast.keyholder.handle(
        asked(cast, KEYHOLDER, Commitments)
    )
    with pytest.raises(ReleaseRefused, match="its roster is closed already"):
        cast.play()


# A client lies, with the server's help or without


def test_minus_the_others(cast: VerifiedCast) -> None:
    """ "I see what the others send, and take it away": but only after I have promised."""
    sent: dict[str, bytes] = {}

    def keep(name: str) -> None:
        def see(update: bytes) -> bytes:
            sent[name] = update
            return update

        cast.post.answered[name, Roster.kind] = see

    for name in NAMES[:5]:
        keep(name)

    def lie(update: bytes) -> bytes:
        own = cast.session(SERVER).hear(Update, update)
        theirs = cast.session(SERVER).hear(Update, sent["client-1"])
        return replace(own, payload=theirs.parts).encode(cast.parties[LIAR])

    cast.post.answered[LIAR, Roster.kind] = lie
    traffic = cast.play()
    assert traffic.refused == 1 and cast.keepers[SERVER].totals.contributors == 5  # type: ignore[union-attr]

    # A server that helps it meets the witness.
    def believed(self: VerifiedServer, data: bytes) -> Update:
        return self._session.read(Update, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VerifiedServer, "_read", believed)
        patch.setattr(Session, "copied", lambda *_: False)
        with pytest.raises(MessageRefused, match="client-5 had committed to another update"):
            cast.play(2)


def test_a_copied_commitment(cast: VerifiedCast) -> None:
    """ "I promise what client-0 promised, and send what it sends." Neither is on the roster."""
    promised: dict[str, bytes] = {}

    def see(commitment: bytes) -> bytes:
        promised[VICTIM] = commitment
        return commitment

    def copy(commitment: bytes) -> bytes:
        own = cast.session(SERVER).hear(Commitment, commitment)
        theirs = cast.session(SERVER).hear(Commitment, promised[VICTIM])
        return replace(own, payload=theirs.parts).encode(cast.parties[LIAR])

    cast.post.answered[VICTIM, Train.kind] = see
    cast.post.answered[LIAR, Train.kind] = copy
    cast.play()
    roster = cast.session(SERVER).hear(Roster, asked(cast, "client-1", Roster))
    assert set(Roster.entries(roster.parts[0])) == set(NAMES) - {VICTIM, LIAR}


def test_a_client_off_the_roster(cast: VerifiedCast) -> None:
    """ "I did not promise, and send an update." """
    cast.post.answered[LIAR, Train.kind] = lambda _: Lost("late")
    cast.play()
    late = cast.clients[LIAR]
    with pytest.raises(MessageRefused, match="on the roster with another update, or not at all"):
        late.handle(asked(cast, VICTIM, Roster))


def test_a_commitment_twice(cast: VerifiedCast) -> None:
    """The server drops it; the key holder refuses a server that does not."""

    def twice(commitments: bytes) -> bytes:
        (payload,) = cast.session(KEYHOLDER).hear(Commitments, commitments).parts
        listed = Commitments.commitments(payload, len(NAMES))
        assert cast.server.commit(listed[0]) == "client-0 has committed already"
        again = Commitments.write([*listed[:-1], listed[0]])
        return forged(cast, commitments, Commitments, payload=(again,))

    cast.post.asked[KEYHOLDER, Commitments.kind] = twice
    with pytest.raises(ReleaseRefused, match="'client-0' has committed twice"):
        cast.play()


def test_a_commitment_of_who_was_not_asked() -> None:
    cast = VerifiedCast(scheme("bfv"), cohort=4)
    opened = cast.keyholder.handle(cast.server.begin(1, 1))
    train = cast.server.open(opened, NAMES)
    message = cast.session(VICTIM).hear(Train, train)
    stranger = next(name for name in NAMES if name not in cast.server.cohort)
    key, _ = cast.session(stranger).at(1, 1).read_announced(opened)
    here = cast.session(stranger).at(1, 1).under(key).after(message.digest)
    commitment = here.write(Commitment, (bytes(32),))
    assert "is not in this round's cohort" in str(cast.server.commit(commitment))
    session = cast.session(SERVER).at(1, 1).under(key).after(message.digest)
    with pytest.raises(ReleaseRefused, match="is not in the cohort"):
        cast.keyholder.handle(session.write(Commitments, (Commitments.write([commitment]),)))


# Somebody does not play its part


def test_a_client_on_the_roster_that_never_uploads(cast: VerifiedCast) -> None:
    cast.post.asked[LIAR, Roster.kind] = lambda _: Lost("gone")
    traffic = cast.play()
    assert traffic.lost == 1 and cast.keepers[SERVER].totals.contributors == 5  # type: ignore[union-attr]


def test_a_malformed_update_drops_its_sender(cast: VerifiedCast) -> None:
    cast.post.answered[LIAR, Roster.kind] = lambda update: update[:-1] + b"\xff"
    traffic = cast.play()
    assert traffic.refused == 1 and cast.keepers[SERVER].totals.contributors == 5  # type: ignore[union-attr]


def test_a_witness_that_does_not_answer(cast: VerifiedCast) -> None:
    cast.post.asked[WITNESS, Update.kind] = lambda _: Lost("no route")
    with pytest.raises(RoundFailed, match="the witness did not answer: no route"):
        cast.play()
    assert cast.keepers[KEYHOLDER].round == 0


def test_a_witness_that_saw_other_bytes(cast: VerifiedCast) -> None:
    """It refuses them; and where it would not, the key holder refuses the sum."""
    cast.post.asked[WITNESS, Update.kind] = lambda update: update[:100] + b"\0" * 50 + update[150:]
    with pytest.raises(MessageRefused):
        cast.play()

    # A witness that added one fewer, and says so.
    cast.post.asked.clear()
    first: list[bytes] = []

    def swallow(update: bytes) -> bytes:
        first.append(update)
        return update

    cast.post.asked[WITNESS, Update.kind] = swallow
    added = Witness._add

    def all_but_one(self: Witness, data: bytes) -> None:
        if len(first) > 1:
            added(self, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Witness, "_add", all_but_one)
        with pytest.raises(ReleaseRefused, match="the witness added the updates of others"):
            cast.play(1, 2)


def test_copies_leave_too_few_and_another_attempt_is_made(cast: VerifiedCast) -> None:
    """Four of six promise the same: two count, and the round is not put to the key holder."""
    promised: list[bytes] = []

    def copy(commitment: bytes) -> bytes:
        own = cast.session(SERVER).hear(Commitment, commitment)
        promised.append(b"".join(own.parts))
        return replace(own, payload=(promised[0],)).encode(cast.parties[own.sender])

    for name in NAMES[:4]:
        cast.post.answered[name, Train.kind] = copy
    with pytest.raises(
        RoundFailed, match="2 clients have committed to an update, and 4 to what another has"
    ):
        cast.play()
    cast.post.answered.clear()
    cast.play(1, 2)
    assert cast.keepers[SERVER].round == 1


def test_too_few_promises_and_another_attempt(cast: VerifiedCast) -> None:
    def lost(_: bytes) -> Reply:
        return Lost("away")

    for name in NAMES[2:]:
        cast.post.asked[name, Train.kind] = lost
    with pytest.raises(RoundFailed, match="2 clients have committed"):
        cast.play()
    cast.post.asked.clear()
    cast.play(1, 2)
    assert cast.keepers[SERVER].round == 1


def waits(cast: VerifiedCast, name: str) -> int:
    """Bytes of this client's Update in its file."""
    return cast.clients[name]._spool._places.get(name, (0, 0))[1]


def test_a_client_that_has_promised_keeps_nothing_of_an_attempt_that_failed(
    cast: VerifiedCast,
) -> None:
    cast.post.asked[KEYHOLDER, Commitments.kind] = lambda _: Lost("gone")
    with pytest.raises(RoundFailed, match="the key holder did not answer: gone"):
        cast.play()
    spool = cast.clients[VICTIM]._spool
    size = waits(cast, VICTIM)
    assert size > 0 and spool._file is not None
    cast.post.asked.clear()
    cast.play(1, 2)
    assert waits(cast, VICTIM) == 0
    assert os.fstat(spool._file.fileno()).st_size == size


def test_a_restarted_key_holder_gives_the_release_again(tmp_path: Path, cast: VerifiedCast) -> None:
    """And steps its own model by it."""
    first = VerifiedCast(cast.scheme, ledger=Ledger(tmp_path))
    first.play()
    second = VerifiedCast(cast.scheme, ledger=Ledger(tmp_path), parties=first.parties)
    assert second.play().replies == 0
    assert second.digests(SERVER, KEYHOLDER) == first.digests(SERVER, KEYHOLDER)
    assert second.play(2).replies == len(NAMES)


def test_what_was_shown_is_drawn_from_no_more(cast: VerifiedCast) -> None:
    """Also by a key holder that is restarted: it forgets before it shows."""
    forgotten: list[bool] = []
    cast.keyholder._showing = lambda: forgotten.append(True)
    cast.play()
    cast.server.check_cohorts(cast.keyholder.handle(cast.server.show()))
    assert forgotten == [True]

    def full() -> None:
        raise OSError("no space left")

    cast.keyholder._showing = full
    with pytest.raises(OSError, match="no space"):
        cast.keyholder.handle(cast.server.show())


def test_the_parties_of_trust_curious_take_nothing_of_this(cast: VerifiedCast) -> None:
    plain = KeyHolder(cast.session(KEYHOLDER), policy=Policy(3, 9, 9), ledger=Ledger())
    cast.play()
    with pytest.raises(MessageRefused, match="does not take messages of kind 'commitments'"):
        plain.handle(asked(cast, KEYHOLDER, Commitments))


def test_an_update_that_waits_is_not_in_memory(cast: VerifiedCast) -> None:
    """But in a temporary file without a name."""
    opened = cast.keyholder.handle(cast.server.begin(1, 1))
    train = cast.server.open(opened, NAMES)
    client = cast.clients[VICTIM]
    commitment = client.handle(train)
    size = cast.scheme.chunk_count(cast.layout.length) * 1000
    assert not [
        found for found in reachable(client) if isinstance(found, bytes) and len(found) > size
    ]
    assert waits(cast, VICTIM) > size > len(commitment)


def reachable(start: object) -> list[object]:
    """Everything that is to be had from an object, but for types, functions and modules."""
    seen: dict[int, object] = {}
    heap = [start]
    while heap:
        found = heap.pop()
        if id(found) in seen or isinstance(found, type | ModuleType | FunctionType):
            continue
        seen[id(found)] = found
        heap.extend(gc.get_referents(found))
    return list(seen.values())
