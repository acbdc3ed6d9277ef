"""Every kind of message, altered in every way: refused with a reason, before a ciphertext is
unpacked, and nothing is used up.

Alterations that need no signature are the network's; the others are signed anew, as an enrolled
party that turned hostile would sign them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import msgpack
import numpy as np
import pytest

from hyperlock.encryption import bits
from hyperlock.encryption.scheme import KeyPair, Scheme
from hyperlock.errors import HyperLockError
from hyperlock.parties.client import Replica
from hyperlock.parties.identity import KEYHOLDER, Identity
from hyperlock.parties.ledger import Ledger
from hyperlock.parties.messages import Aggregate, Message, Release, Update, key_id_of
from hyperlock.parties.model import ModelKeeper
from tests.parties.cast import Cast, Trainer
from tests.parties.verified_cast import VerifiedCast
from tests.security.forge import closed, enclosed, opened, parts_of, resealed, with_parts
from tests.security.keys import begun_again, known_keys
from tests.security.proved import PLACES, Proved

COHORT = [f"client-{i}" for i in range(4)]


@dataclass
class Stage:
    """A round in the middle of which a message is due.

    Attributes:
        cast: the parties.
        kind: of the message.
        good: the message.
        handle: hands bytes to the role that takes them; raises, or returns a reason, if it refuses.
        good_kinds: good messages by kind.
        keeper: the model that a refused message leaves as it was.
    """

    cast: Cast | VerifiedCast
    kind: str
    good: bytes
    handle: Callable[[bytes], object]
    good_kinds: dict[str, bytes]
    keeper: ModelKeeper

    @property
    def sender(self) -> str:
        """Who is to send it."""
        return str(opened(self.good)[1]["sender"])

    @property
    def signer(self) -> Identity:
        """The same, as one that can sign."""
        return self.cast.parties[self.sender]

    def offer(self, data: bytes) -> str | None:
        """The reason if it was refused, None if it was not."""
        try:
            found = self.handle(data)
        except HyperLockError as error:
            return str(error)
        return found if isinstance(found, str) else None

    def signed(self, **changes: object) -> bytes:
        """The message with other header fields, signed by its own sender."""
        return resealed(self.good, self.signer, **changes)

    def with_parts(self, *parts: bytes) -> bytes:
        """The message with another payload."""
        return with_parts(self.good, self.signer, *parts)


KINDS = [
    "open",
    "public_key",
    "train",
    "update",
    "aggregate",
    "release",
    "aggregate to clients",
    "update to a server without the model",
    *PLACES,
]
SHARED = KINDS[6:8]  # under keys=clients


@dataclass
class Known:
    """Parties, their attempt's keys, and what honest ones say in round 1; made once.

    Attributes:
        cast, keys, good: of a run whose key holder is a party of its own.
        shared, shared_good: of one whose clients share the key.
        proved, proved_good: of one at trust=malicious, by place.
    """

    cast: Cast
    keys: KeyPair
    good: dict[str, bytes]
    shared: Cast
    shared_good: dict[str, bytes]
    proved: Proved
    proved_good: dict[str, bytes]


@pytest.fixture(scope="module", params=["ckks", "bfv"])
def known(request: pytest.FixtureRequest, schemes: dict[str, Scheme]) -> Known:
    cast = Cast(schemes[request.param])
    keys = known_keys(cast)
    aggregate = cast.aggregate([cast.vector(seed) for seed in range(3)])
    good = {
        "open": cast.server.begin(1, 1),
        "public_key": cast.key_message,
        "train": cast.request,
        "update": cast.update("client-3", cast.vector(9)),
        "aggregate": aggregate,
        "release": cast.keyholder.handle(aggregate),
    }
    shared = Cast(cast.scheme, parties=cast.parties, shared=True)
    shared.open(server=shared.another_server(None))
    shared.train = shared.keeper.model.digest
    shared_good = {
        "aggregate to clients": shared.aggregate([shared.vector(seed) for seed in range(3)]),
        "update to a server without the model": shared.update("client-3", shared.vector(9)),
    }
    proved = Proved(cast.scheme)
    proved_good = {place: proved.wait(place).good[-1] for place in PLACES}
    return Known(cast, keys, good, shared, shared_good, proved, proved_good)


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest, known: Known) -> Stage:
    return stage_of(request.param, known)


def stage_of(kind: str, known: Known) -> Stage:
    """Parties for whom nothing has happened yet but what comes before a message of this kind."""
    if kind in SHARED:
        return shared_stage(kind, known)
    if kind in PLACES:
        return proved_stage(kind, known)
    fresh = begun_again(known.cast, known.keys)
    fresh.server.begin(1, 1)
    if kind != "public_key":
        fresh.server.open(fresh.key_message, COHORT)
    client = fresh.client(Trainer(np.zeros(sum(fresh.sizes), np.float32)))
    takes: dict[str, Callable[[bytes], object]] = {
        "open": fresh.another_keyholder().handle,
        "public_key": lambda data: no_reason(fresh.server.open(data, COHORT)),
        "train": client.handle,
        "update": fresh.server.receive,
        "aggregate": fresh.keyholder.handle,
        "release": fresh.server.take,
    }
    return Stage(fresh, kind, known.good[kind], takes[kind], known.good, fresh.keeper)


def shared_stage(kind: str, known: Known) -> Stage:
    """The same under keys=clients, where the key stays."""
    fresh = copy(known.shared)
    fresh.keeper = ModelKeeper(known.shared.keeper.model)
    fresh.keyholder._memory.seen = (0, 0)
    fresh.keyholder._ledger = Ledger()
    fresh.server = fresh.another_server(None)
    fresh.server.begin(1, 1)
    fresh.server.open(fresh.key_message, COHORT)
    replica = Replica(fresh.session("client-3"), fresh.keyholder, fresh.keeper)
    client = fresh.client(Trainer(np.zeros(0)), replica=replica)
    handle = fresh.server.receive if kind == SHARED[-1] else client.handle
    return Stage(fresh, kind, known.shared_good[kind], handle, known.good, fresh.keeper)


def proved_stage(kind: str, known: Known) -> Stage:
    """The same at trust=malicious."""
    here = known.proved.wait(kind)
    good = known.proved_good
    good_kinds = {PLACES[place][0]: data for place, data in good.items()}
    return Stage(here.cast, kind, good[kind], here.handle, good_kinds, here.keeper)


def no_reason(_: bytes) -> None:
    """Of an answer that is no reason to refuse."""


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each polynomial that was unpacked, which is before SEAL is handed any."""
    seen: list[int] = []
    unpack = bits.unpack

    def watched(data: bytes, count: int, width: int) -> Any:
        seen.append(len(data))
        return unpack(data, count, width)

    monkeypatch.setattr(bits, "unpack", watched)
    return seen


def flipped(data: bytes, place: int, bit: int = 1) -> bytes:
    altered = bytearray(data)
    altered[place] ^= bit
    return bytes(altered)


def payload_end(stage: Stage) -> int:
    return len(opened(stage.good)[0])


def in_header(data: bytes) -> bytes:
    """With one letter of the fingerprint altered in the header, and no new signature."""
    fingerprint = str(opened(data)[1]["fingerprint"]).encode()
    before, _, behind = data.rpartition(fingerprint)
    return before + fingerprint[:-1] + b"x" + behind


def sizes_of(stage: Stage) -> list[int]:
    sizes: Any = opened(stage.good)[1]["sizes"]
    return sizes


def other_sizes(stage: Stage) -> list[int]:
    count, size, *others = sizes_of(stage)
    return [count, size + 1, *others]


GARBAGE = np.random.default_rng(0).bytes(2000)
HUGE_LIST = b"\xdd\xff\xff\xff\xff"
MANY = 2**20 - 99
MANY_LISTS = b"\x81\xa4kind\xdd" + MANY.to_bytes(4, "big") + b"\x90" * MANY
LISTS_WITHIN_LISTS = b"\x81\xa4kind" + b"\x91" * MANY
NO_MESSAGE = r"not a message|does not take messages of kind ''"  # a client asks for the kind first
WRONG_SIZES = r"wrong sizes"
TOO_LARGE = r"bytes where at most|payload part"

HEADER_TOO_LARGE = r"no header|not take messages|not a message|bytes where at most"

# By name: what is done to the message, and what the reason must say.
ALTERED: dict[str, tuple[Callable[[Stage], bytes], str]] = {
    "nothing": (lambda s: b"", NO_MESSAGE),
    "garbage": (lambda s: GARBAGE, NO_MESSAGE),
    "cut at its end": (lambda s: s.good[:-1], NO_MESSAGE),
    "cut in half": (lambda s: s.good[: len(s.good) // 2], NO_MESSAGE),
    "cut before the signature": (lambda s: s.good[:-70], NO_MESSAGE),
    "cut at its start": (lambda s: s.good[1:], r"where the header names"),
    "a byte more": (lambda s: b"\0" + s.good, r"where the header names|bytes where at most"),
    "twice": (lambda s: s.good * 2, r"bytes where at most|where the header names"),
    "a bit of the payload": (lambda s: flipped(s.good, payload_end(s) // 2),
        r"digest does not match"),
    "the payload's last bit": (lambda s: flipped(s.good, payload_end(s) - 1, 128),
        r"digest does not match"),
    "a letter of the header": (lambda s: in_header(s.good), r"signature is not that of"),
    "a bit of the signature": (lambda s: flipped(s.good, -10), r"signature is not that of"),
    "the envelope's size": (lambda s: flipped(s.good, -4), NO_MESSAGE),
    "a declared list of 2^32": (lambda s: enclosed(b"", HUGE_LIST), NO_MESSAGE),
    "a signed header of 2^32": (lambda s: closed(b"", HUGE_LIST, s.cast.parties[s.sender]),
        NO_MESSAGE),
    "a header of a million lists": (lambda s: enclosed(b"", msgpack.packb([MANY_LISTS, bytes(64)])),
        HEADER_TOO_LARGE),
    "a header of a million lists within lists": (
        lambda s: enclosed(b"", msgpack.packb([LISTS_WITHIN_LISTS, bytes(64)])),
        HEADER_TOO_LARGE,
    ),
    "another version": (lambda s: s.signed(version=1), r"version 1 instead of 3"),
    "another kind": (lambda s: s.signed(kind="other"), r"kind 'other'"),
    "another run": (lambda s: s.signed(run="other"), r"run 'other' instead of 'run'"),
    "another key": (lambda s: s.signed(key_id="other"), r"key_id 'other'|not the one that its "
                                                        r"key id names"),
    "another fingerprint": (lambda s: s.signed(fingerprint="other"), r"fingerprint 'other' "
                                                                     r"instead of"),
    "another length": (lambda s: s.signed(length=12345), r"length 12345 instead of"),
    "another attempt": (lambda s: s.signed(attempt=7), r"attempt (7|1 instead of 7)"),
    "no attempt": (lambda s: s.signed(attempt=-1), r"negative round, attempt"),
    "other terms": (lambda s: s.signed(terms=bytes(32)), r"terms 0{16}\.\.\. instead of \w{16}"),
    "no terms": (lambda s: s.signed(terms=b""), r"terms none instead of \w{16}"),
    "terms that are too long": (lambda s: s.signed(terms=bytes(33)), NO_MESSAGE),
    "another request": (lambda s: s.signed(train=bytes(range(32))), r"train .* instead of \w+"),
    "a request's name": (lambda s: s.signed(train="x"), r"train is not of type bytes"),
    "no round": (lambda s: s.signed(round=-1), r"negative round"),
    "a round far ahead": (lambda s: s.signed(round=2**63), r"9223372036854775808"),
    "a sender who is not enrolled": (lambda s: s.signed(sender="mallory"), r"sender 'mallory' is "
                                                                           r"not enrolled"),
    "a sender's forged name": (
        lambda s: resealed(s.good, s.cast.parties["client-5"]),
        r"signature is not that of",
    ),
    "another sender": (
        lambda s: resealed(s.good, s.cast.parties["client-5"], sender="client-5"),
        r"client-5'? (instead of|is not in this round's cohort|ha[sd] committed)|of client-5$",
    ),
    "another digest": (lambda s: s.signed(digest=bytes(32)), r"digest does not match"),
    "sizes of other parts": (lambda s: s.signed(sizes=other_sizes(s)), r"where the header "
                                                                       r"names|payload part"),
    "a size of 2^62": (lambda s: s.signed(sizes=[1, 2**62]), r"payload part is not of at most"),
    "a negative size": (lambda s: s.signed(sizes=[1, -1]), r"payload part is not of at most"),
    "2^62 parts": (lambda s: s.signed(sizes=[2**62, 1]), r"payload parts? .*at most"),
    "a part too many": (lambda s: s.signed(sizes=[9, 1]), r"payload parts? .*at most"),
    "sizes without their count": (lambda s: s.signed(sizes=sizes_of(s)[1:]), WRONG_SIZES),
    "a size of none": (lambda s: s.signed(sizes=[0, 1, *sizes_of(s)]), WRONG_SIZES),
    "-1 parts": (lambda s: s.signed(sizes=[-1, 1, *sizes_of(s)]), WRONG_SIZES),
    "one size in two places": (lambda s: s.signed(sizes=[*sizes_of(s), 1, sizes_of(s)[-1]]),
        WRONG_SIZES),
    "many runs": (lambda s: s.signed(sizes=[1, 1, 1, 2] * 9), WRONG_SIZES),
    "true for a count": (lambda s: s.signed(sizes=[True, *sizes_of(s)[1:]]), WRONG_SIZES),
    "no payload": (lambda s: s.with_parts(), r"payload parts|model|key id|another length"
        r"|not a (SHA-256|list|roster|cohorts' seed)"),
    "a payload that is too large": (lambda s: s.with_parts(bytes(2**24 + 2**21)), TOO_LARGE),
    "a field more": (lambda s: s.signed(more=1), r"unknown or missing header fields"),
    "a field less": (
        lambda s: closed(opened(s.good)[0], {"kind": s.good and opened(s.good)[1]["kind"]},
            s.cast.parties[s.sender]),
        r"unknown or missing header fields|version None",
    ),
}  # fmt: skip


# What there is nothing of where a message has no payload.
OF_A_PAYLOAD = {
    "cut at its start",
    "a bit of the payload",
    "the payload's last bit",
    "sizes of other parts",
    "sizes without their count",
    "a size of none",
    "-1 parts",
    "one size in two places",
    "no payload",
}
# What is taken, for its receiver has nothing to hold it against: server and key holder say which
# attempt they begin, and a round's release may be that of an earlier attempt. At trust=malicious a
# witness is told of attempts and requests by the key holder, what a State holds proves itself, a
# Tally is for the key holder to read, and with a Show the run is over.
TAKEN = {
    ("open", "another attempt"),
    ("public_key", "another attempt"),
    ("public_key to verified server", "another attempt"),
    ("open", "no payload"),
    ("release", "another attempt"),
    ("release", "another key"),
    ("release", "another request"),
    ("public_key to witness", "another attempt"),
    ("public_key to witness", "a round far ahead"),
    ("roster to witness", "another request"),
    ("tally to verified server", "no payload"),
    ("open to verifying key holder", "another attempt"),
    ("open to verifying key holder", "no payload"),
    *(
        (kind, name)
        for kind in PLACES
        if kind.split()[0] in ("state", "show", "shown")
        for name in ("another attempt", "another key", "another request", "a round far ahead")
    ),
    *((kind, "no payload") for kind in PLACES if kind.split()[0] == "state"),
}
# What is looked at, which uses the key up: other updates than those that were asked for.
USES_UP = {
    ("aggregate", "another request"),
    ("aggregate to clients", "another request"),
    ("aggregate to clients", "another attempt"),
    ("aggregate to verifying key holder", "another request"),
}


def test_altered_messages_are_refused_by_reason_unread_and_then_the_good_one_taken(
    stage: Stage, unpacked: list[int]
) -> None:
    before = stage.keeper.model
    offered = 0
    for name, (alter, reason) in ALTERED.items():
        if (stage.kind, name) in TAKEN | USES_UP or (
            name in OF_A_PAYLOAD and not payload_end(stage)
        ):
            continue
        text = stage.offer(alter(stage))
        assert text is not None and re.search(reason, text), f"{name}: {text}"
        assert len(text) < 400, name
        assert unpacked == [] and stage.keeper.model is before, name
        offered += 1
    if getattr(stage.handle, "__name__", "") in ("receive", "commit"):
        assert stage.cast.server.refused == offered
    assert stage.offer(stage.good) is None


@pytest.mark.parametrize(("kind", "name"), sorted(TAKEN))
def test_what_has_nothing_to_be_held_against_is_taken(known: Known, kind: str, name: str) -> None:
    stage = stage_of(kind, known)
    assert stage.offer(ALTERED[name][0](stage)) is None


@pytest.mark.parametrize(("kind", "name"), sorted(USES_UP))
def test_a_sum_that_was_looked_at_has_used_its_key_up(
    known: Known, unpacked: list[int], kind: str, name: str
) -> None:
    stage = stage_of(kind, known)
    alter, reason = ALTERED[name]
    assert re.search(reason, str(stage.offer(alter(stage))))
    assert re.search("its key is gone|was decrypted before", str(stage.offer(stage.good)))
    assert unpacked == []


AGAIN = {
    "public_key": "was played before",
    "public_key to verified server": "was played before",
    "train": "round 1, attempt 1 after round 1, attempt 1",
    "update": "sent before",
    "update to a server without the model": "sent before",
    "release": "round 1 instead of 2",
    "commitment to verified server": "client-3 has committed already",
    "update to verified server": "sent before",
    "commitments to verifying key holder": "its roster is closed already",
    "public_key to witness": "was witnessed before",
    "roster to witness": "a second roster",
    "update to witness": "a second update of client-3",
    "close to witness": "nothing was added",
    "train to committing client": "round 1, attempt 1 after round 1, attempt 1",
    "roster to committing client": "has committed to nothing, or sent it already",
}
# The kinds that a party takes beside the one that is due.
ALSO = {
    "key holder": {"open", "commitments", "aggregate", "show"},
    "witness": {"public_key", "roster", "update", "close"},
    "client": {"state", "train", "roster"},
}


def test_a_message_is_not_taken_twice(stage: Stage, unpacked: list[int]) -> None:
    """Replays. Of an attempt and of a sum, the same bytes are given again and nothing is decrypted;
    of a key, there is nothing to be used up."""
    assert stage.offer(stage.good) is None
    model = stage.keeper.model
    seen = len(unpacked)
    again = stage.offer(stage.good)
    due = AGAIN.get(stage.kind)
    assert again is None if due is None else due in str(again)
    assert stage.keeper.model is model and len(unpacked) == seen


def test_of_a_sum_the_same_is_released_again_and_of_another_nothing(
    known: Known, unpacked: list[int]
) -> None:
    stage = stage_of("aggregate", known)
    release = stage.handle(stage.good)
    seen = len(unpacked)
    assert release == known.good["release"] == stage.handle(stage.good)
    *chunks, manifest = parts_of(stage.good)
    for other in (
        with_parts(stage.good, stage.signer, *chunks, manifest, attempt=2),
        stage.with_parts(*chunks, Aggregate.manifest(Aggregate.envelopes(manifest, 16)[::-1])),
        stage.with_parts(*chunks[::-1], manifest),
    ):
        assert "was released before" in str(stage.offer(other))
    assert len(unpacked) == seen


def test_messages_of_another_run_are_refused_though_the_parties_are_the_same(
    stage: Stage, known: Known
) -> None:
    parties = {n: replace(p, run="other") for n, p in stage.cast.parties.items()}
    sent = resealed(stage.good, parties[stage.sender], run="other")
    if stage.kind in ("open", "public_key", "train"):
        other = Cast(stage.cast.scheme, parties=parties)
        sent = {
            "open": other.server.begin(1, 1),
            "public_key": other.key_message,
            "train": other.request,
        }[stage.kind]
    assert "run 'other' instead of 'run'" in str(stage.offer(sent))


def test_no_kind_is_taken_for_another(stage: Stage, unpacked: list[int]) -> None:
    takes = {
        "open": {"open", "aggregate"},
        "aggregate": {"open", "aggregate"},
        "aggregate to clients": {"train", "aggregate"},
        "update to a server without the model": {"update"},
    }.get(stage.kind, {stage.kind.split()[0]})
    if stage.kind in PLACES:
        takes |= next((kinds for party, kinds in ALSO.items() if party in stage.kind), set())
    for kind, good in stage.good_kinds.items():
        if kind not in takes:
            text = str(stage.offer(good))
            assert re.search(
                rf"kind '{kind}'|holds no key and takes no aggregate|bytes where at most", text
            ), text
    assert unpacked == []


@pytest.mark.parametrize("kind", ["public_key", "train"])
def test_a_key_of_other_parameters_is_refused(
    known: Known, schemes: dict[str, Scheme], kind: str
) -> None:
    """Good for another scheme, and from a key holder that says it is this one's."""
    stage = stage_of(kind, known)
    (other,) = {"ckks", "bfv"} - {stage.cast.scheme.name}  # type: ignore[attr-defined]
    key = schemes[other].generate_keys().public
    named = {"key_id": key_id_of(key)}
    keyholder = stage.cast.parties[KEYHOLDER]
    message = with_parts(stage.cast.key_message, keyholder, key, **named)
    if kind == "train":
        _, *model = parts_of(stage.good)
        message = with_parts(stage.good, stage.signer, message, *model, **named)
    assert "a public key of other parameters" in str(stage.offer(message))
    assert stage.offer(stage.good) is None


def release_of(stage: Stage, value: int, kind: np.dtype) -> bytes:
    sums = np.full(stage.cast.length, value, kind)
    return stage.with_parts(sums.tobytes())


def test_a_release_that_no_updates_sum_to_leaves_the_model(stage: Stage) -> None:
    """From a key holder that turned hostile."""
    if stage.kind == "release":
        before = stage.keeper.model
        due = stage.cast.layout.sum_type(stage.cast.scheme.max_clients)
        for value in (0, -1, np.iinfo(due).min):
            assert "of no updates" in str(stage.offer(release_of(stage, value, due)))
        for other in map(np.dtype, ("<i1", "<i2", "<i4", "<i8")):
            if other != due:
                said = str(stage.offer(release_of(stage, 1, other)))
                assert "bytes where at most" in said or "another length" in said
        assert stage.keeper.model is before


def test_the_kinds_here_are_all_there_are(known: Known) -> None:
    # How a party joins is tests/sites', how clients share a key tests/parties/test_sharing's.
    elsewhere = {"invite", "accept", "share", "boxes", "box", "stepped"}
    kinds = {kind.kind for kind in Message.__subclasses__()} - elsewhere
    good = [*known.good.values(), *known.proved_good.values()]
    assert (
        {opened(data)[1]["kind"] for data in good} == kinds == {kind.split()[0] for kind in KINDS}
    )
    assert known.cast.read(Update, known.good["update"]).sender == "client-3"
    assert known.cast.read(Release, known.good["release"]).round == 1
