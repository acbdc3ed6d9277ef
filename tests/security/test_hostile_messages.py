"""Every kind of message, altered in every way: refused with a reason, before a ciphertext is
unpacked, and nothing is used up.

Alterations that need no signature are the network's; the others are signed anew, as an enrolled
party that turned hostile would sign them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgpack
import numpy as np
import pytest

from hyperlock.encryption import bits
from hyperlock.encryption.scheme import KeyPair, Scheme
from hyperlock.errors import HyperLockError
from hyperlock.parties.client import Replica
from hyperlock.parties.identity import KEYHOLDER, SERVER
from hyperlock.parties.messages import Release, Update
from tests.parties.cast import Cast, Trainer
from tests.security.forge import closed, enclosed, opened, resealed

COHORT = [f"client-{i}" for i in range(4)]


@dataclass
class Stage:
    """A round in the middle of which a message is due.

    Attributes:
        cast: the parties.
        kind: of the message.
        sender: who is to send it.
        good: the message.
        offer: hands bytes to the role that takes them; the reason if it refused, None if it did
            not.
    """

    cast: Cast
    kind: str
    sender: str
    good: bytes
    offer: Callable[[bytes], str | None]

    def signed(self, **changes: object) -> bytes:
        """The message with other header fields, signed by its own sender."""
        return resealed(self.good, self.cast.parties[self.sender], **changes)

    def with_parts(self, *parts: bytes) -> bytes:
        """The message with another payload."""
        payload = b"".join(parts)
        sizes = [len(part) for part in parts]
        _, header, _ = opened(self.good)
        digest = hashlib.sha256(payload).digest()
        return closed(
            payload, {**header, "sizes": sizes, "digest": digest}, self.cast.parties[self.sender]
        )


def reason_of(handle: Callable[[bytes], object]) -> Callable[[bytes], str | None]:
    def offer(data: bytes) -> str | None:
        try:
            handle(data)
        except HyperLockError as error:
            return str(error)
        return None

    return offer


KINDS = ["public_key", "train", "update", "aggregate", "release", "aggregate to clients"]


@pytest.fixture(scope="module", params=["ckks", "bfv"])
def known(
    request: pytest.FixtureRequest, schemes: dict[str, Scheme]
) -> tuple[Cast, KeyPair, dict[str, bytes]]:
    """Parties, and what honest ones say in round 1; made once."""
    cast = Cast(schemes[request.param])
    keys = KeyPair(cast.keyholder.public, cast.keyholder._secret)
    aggregate = cast.aggregate([cast.vector(seed) for seed in range(3)])
    good = {
        "public_key": cast.keyholder.public_key(),
        "train": cast.server.open(1, COHORT),
        "update": cast.update("client-3", cast.vector(9)),
        "aggregate": aggregate,
        "release": cast.keyholder.handle(aggregate),
        "aggregate to clients": aggregate,
    }
    return cast, keys, good


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest, known: tuple[Cast, KeyPair, dict[str, bytes]]) -> Stage:
    (cast, keys, good), kind = known, request.param
    fresh = Cast(cast.scheme, parties=cast.parties)
    keyholder = fresh.another_keyholder(keys)
    client = fresh.client(Trainer(np.zeros(sum(fresh.sizes), np.float32)))
    client.handle(good["public_key"])
    fresh.server.install_key(good["public_key"])
    fresh.server.open(1, COHORT)
    if kind == "aggregate to clients":
        client = fresh.client(
            Trainer(np.zeros(0)),
            replica=Replica(fresh.session("client-3"), keyholder, fresh.keeper),
        )
    offers: dict[str, Callable[[bytes], str | None]] = {
        "public_key": reason_of(client.handle),
        "train": reason_of(client.handle),
        "update": fresh.server.receive,
        "aggregate": reason_of(keyholder.handle),
        "release": reason_of(fresh.server.take),
        "aggregate to clients": reason_of(client.handle),
    }
    senders = {"public_key": KEYHOLDER, "release": KEYHOLDER, "update": "client-3"}
    return Stage(fresh, kind, senders.get(kind, SERVER), good[kind], offers[kind])


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


def in_header(data: bytes) -> bytes:
    """With one letter of the key's id altered in the header, and no new signature."""
    key_id = str(opened(data)[1]["key_id"]).encode()
    return data.replace(key_id, key_id[:-1] + (b"0" if key_id[-1:] != b"0" else b"1"))


def other_sizes(stage: Stage) -> list[int]:
    sizes: Any = opened(stage.good)[1]["sizes"]
    return [sizes[0] + 1, *sizes[1:]]


GARBAGE = np.random.default_rng(0).bytes(2000)
HUGE_LIST = b"\xdd\xff\xff\xff\xff"
MANY = 2**20 - 99
MANY_LISTS = b"\x81\xa4kind\xdd" + MANY.to_bytes(4, "big") + b"\x90" * MANY
LISTS_WITHIN_LISTS = b"\x81\xa4kind" + b"\x91" * MANY
NO_MESSAGE = r"not a message|does not take messages of kind ''"  # a client asks for the kind first
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
    "a byte more": (lambda s: b"\0" + s.good, r"where the header names"),
    "twice": (lambda s: s.good * 2, r"bytes where at most|where the header names"),
    "a bit of the payload": (lambda s: flipped(s.good, 70), r"digest does not match"),
    "the payload's last bit": (lambda s: flipped(s.good, len(opened(s.good)[0]) - 1, 128),
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
    "another version": (lambda s: s.signed(version=1), r"version 1 instead of 2"),
    "another kind": (lambda s: s.signed(kind="other"), r"kind 'other'"),
    "another run": (lambda s: s.signed(run="other"), r"run 'other' instead of 'run'"),
    "another key": (lambda s: s.signed(key_id="other"), r"key_id 'other'|not the one that its "
                                                        r"key id names"),
    "another fingerprint": (lambda s: s.signed(fingerprint="other"), r"fingerprint 'other' "
                                                                     r"instead of"),
    "another length": (lambda s: s.signed(length=12345), r"length 12345 instead of"),
    "no round": (lambda s: s.signed(round=-1), r"negative round"),
    "a round far ahead": (lambda s: s.signed(round=2**63), r"round 9223372036854775808 "),
    "a sender who is not enrolled": (lambda s: s.signed(sender="mallory"), r"sender 'mallory' is "
                                                                           r"not enrolled"),
    "a sender's forged name": (
        lambda s: resealed(s.good, s.cast.parties["client-5"]),
        r"signature is not that of",
    ),
    "another sender": (
        lambda s: resealed(s.good, s.cast.parties["client-5"], sender="client-5"),
        r"'client-5' (instead of|is not in this round's cohort)",
    ),
    "another digest": (lambda s: s.signed(digest=bytes(32)), r"digest does not match"),
    "sizes of other parts": (lambda s: s.signed(sizes=other_sizes(s)), r"where the header "
                                                                       r"names|payload part"),
    "a size of 2^62": (lambda s: s.signed(sizes=[2**62]), r"payload part is not of at most"),
    "a negative size": (lambda s: s.signed(sizes=[-1]), r"payload part is not of at most"),
    "no payload": (lambda s: s.with_parts(), r"ciphertexts|coordinates|model|key id|another "
                                             r"length"),
    "a payload that is too large": (lambda s: s.with_parts(bytes(2**24 + 2**21)), TOO_LARGE),
    "a field more": (lambda s: s.signed(more=1), r"unknown or missing header fields"),
    "a field less": (
        lambda s: closed(opened(s.good)[0], {"kind": s.good and opened(s.good)[1]["kind"]},
            s.cast.parties[s.sender]),
        r"unknown or missing header fields|version None",
    ),
}  # fmt: skip


TAKEN = {("train", "a round far ahead")}  # the server says which round it is


def test_altered_messages_are_refused_by_reason_unread_and_then_the_good_one_taken(
    stage: Stage, unpacked: list[int]
) -> None:
    before = stage.cast.keeper.model
    for name, (alter, reason) in ALTERED.items():
        if (stage.kind, name) in TAKEN:
            continue
        text = stage.offer(alter(stage))
        assert text is not None and re.search(reason, text), f"{name}: {text}"
        assert len(text) < 400, name
        assert unpacked == [] and stage.cast.keeper.model is before, name
    if stage.kind == "update":
        assert stage.cast.server.refused == len(ALTERED)
    assert stage.offer(stage.good) is None


def test_a_message_is_not_taken_twice(stage: Stage, unpacked: list[int]) -> None:
    """Replays: of an update, a sum, a release. The key, and a request of this round, say nothing
    new."""
    assert stage.offer(stage.good) is None
    model = stage.cast.keeper.model
    seen = len(unpacked)
    again = stage.offer(stage.good)
    if stage.kind in ("update", "aggregate", "release"):
        assert again is not None and re.search(
            "sent before|decrypted before|round 1 instead of 2", again
        )
    assert stage.cast.keeper.model is model and len(unpacked) == seen


def test_messages_of_another_run_are_refused_though_the_parties_are_the_same(stage: Stage) -> None:
    other = Cast(
        stage.cast.scheme,
        parties={n: replace(p, run="other") for n, p in stage.cast.parties.items()},
    )
    sent = {
        "public_key": lambda: other.keyholder.public_key(),
        "train": lambda: other.server.open(1, COHORT),
        "update": lambda: resealed(stage.good, other.parties["client-3"], run="other"),
    }.get(stage.kind, lambda: resealed(stage.good, other.parties[stage.sender], run="other"))
    assert "run 'other' instead of 'run'" in str(stage.offer(sent()))


def test_no_kind_is_taken_for_another(stage: Stage, known: tuple, unpacked: list[int]) -> None:
    takes = {
        "train": {"train", "public_key"},
        "aggregate to clients": {"train", "public_key", "aggregate"},
    }
    takes["public_key"] = takes["train"]
    for kind in KINDS[:-1]:
        if kind not in takes.get(stage.kind, {stage.kind}):
            text = str(stage.offer(known[2][kind]))
            assert re.search(
                rf"kind '{kind}'|holds no key and takes no aggregate|bytes where at most", text
            ), text
    assert unpacked == []


def release_of(stage: Stage, value: int, kind: np.dtype) -> bytes:
    sums = np.full(stage.cast.length, value, kind)
    return stage.with_parts(sums.tobytes())


def test_a_release_that_no_updates_sum_to_leaves_the_model(stage: Stage) -> None:
    """From a key holder that turned hostile."""
    if stage.kind == "release":
        before = stage.cast.keeper.model
        due = stage.cast.layout.sum_type(stage.cast.scheme.max_clients)
        for value in (0, -1, np.iinfo(due).min):
            assert "of no updates" in str(stage.offer(release_of(stage, value, due)))
        for other in map(np.dtype, ("<i1", "<i2", "<i4", "<i8")):
            if other != due:
                said = str(stage.offer(release_of(stage, 1, other)))
                assert "bytes where at most" in said or "another length" in said
        assert stage.cast.keeper.model is before


def test_the_kinds_here_are_all_there_are(known: tuple[Cast, KeyPair, dict[str, bytes]]) -> None:
    cast, _, good = known
    assert {opened(data)[1]["kind"] for data in good.values()} == set(KINDS[:-1])
    assert (
        cast.read(Update, good["update"]).sender == "client-3"
        and cast.read(Release, good["release"]).round == 1
    )
