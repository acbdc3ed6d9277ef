"""What can be done to a good message: by name, a function of a source of randomness and the party
that waits for it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any

import msgpack

from tests.security import forgeries
from tests.security.damage import damaged, odd
from tests.security.forge import Forgery, closed, enclosed, opened, resealed
from tests.security.stages import COHORT, Stage

Mutation = Callable[[random.Random, Stage], bytes]


# Without a signature


def garbage(rng: random.Random, stage: Stage) -> bytes:
    return rng.randbytes(rng.choice([0, 1, 4, 100, 5000]))


def garbage_in_an_envelope(rng: random.Random, stage: Stage) -> bytes:
    envelope = rng.choice(
        [rng.randbytes(200), packed(rng), msgpack.packb([packed(rng), rng.randbytes(64)])]
    )
    return enclosed(rng.randbytes(rng.choice([0, 100])), envelope)


def cut(rng: random.Random, stage: Stage) -> bytes:
    data = rng.choice(stage.good)
    a = rng.choice([0, 0, 1, rng.randrange(100), rng.randrange(len(data))])
    b = rng.choice([len(data) - 1, len(data) - rng.randrange(1, 100), rng.randrange(len(data))])
    return data[a:b]


def damaged_anywhere(rng: random.Random, stage: Stage) -> bytes:
    data = rng.choice(stage.good)
    return damaged(rng, data, rng.choice([0, len(opened(data)[0])]))


def from_another(rng: random.Random, stage: Stage) -> bytes:
    """Replays, forged names, other runs."""
    data = rng.choice(stage.good)
    parties = stage.cast.parties
    name = rng.choice([*parties, "mallory", ""])
    signer = parties[rng.choice(sorted(parties))]
    changes: dict[str, Any] = {"sender": name}
    if rng.random() < 0.3:
        changes["run"] = rng.choice(["", "other", "run "])
    return resealed(data, signer, **changes)


# Signed


def signed(rng: random.Random, stage: Stage, payload: bytes, **changes: object) -> bytes:
    """A good message with another payload and these header fields, in the sender's name."""
    sender = stage.sender if stage.sender not in COHORT else rng.choice(COHORT[1:])
    _, header, _ = opened(stage.good[0])
    digest = hashlib.sha256(payload).digest()
    sizes = [len(payload)]
    return closed(
        payload,
        {**header, "sender": sender, "sizes": sizes, "digest": digest, **changes},
        stage.cast.parties[sender],
    )


def with_parts(rng: random.Random, stage: Stage, *parts: bytes) -> bytes:
    return signed(rng, stage, b"".join(parts), sizes=[len(part) for part in parts])


def value(rng: random.Random, depth: int = 0) -> Any:
    """Anything that msgpack can hold."""
    simple = [
        None,
        True,
        False,
        -1,
        rng.getrandbits(63),
        1.5,
        float("nan"),
        "",
        "x" * rng.choice([1, 256, 257]),
        b"",
        b"x",
    ]
    if depth < 3 and rng.random() < 0.4:
        inner = [value(rng, depth + 1) for _ in range(rng.randrange(4))]
        return inner if rng.random() < 0.5 else {str(i): item for i, item in enumerate(inner)}
    return rng.choice(simple)


def packed(rng: random.Random) -> bytes:
    data = msgpack.packb(value(rng))
    huge = rng.choice([b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"]) + b"\xff" * 4
    return rng.choice(
        [data, data, damaged(rng, data), huge, huge + data, b"\x91" * rng.choice([10, 600, 4000])]
    )


def header_field(rng: random.Random, stage: Stage) -> bytes:
    data = rng.choice(stage.good)
    payload, header, _ = opened(data)
    other = dict(header)
    while other == header:
        change_field(rng, other, rng.choice(sorted(header)))
    return closed(payload, other, stage.cast.parties[str(header["sender"])])


def change_field(rng: random.Random, header: dict[str, Any], name: str) -> None:
    due = header[name]
    match rng.randrange(6):
        case 0:
            del header[name]
        case 1:
            header[rng.choice(["", "payload", "more", "self"])] = value(rng)
        case 2 if isinstance(due, int):
            header[name] = max(odd(rng, due) * rng.choice([1, 1, -1]), -(2**63))
        case 3 if isinstance(due, str):
            header[name] = rng.choice(["", due + "x", due[:-1], "\0", "é" * 128, due.upper()])
        case _:
            header[name] = value(rng)


def header_bytes(rng: random.Random, stage: Stage) -> bytes:
    payload, header, _ = opened(rng.choice(stage.good))
    return closed(
        payload, damaged(rng, msgpack.packb(header)), stage.cast.parties[str(header["sender"])]
    )


def size_list(rng: random.Random, stage: Stage) -> bytes:
    payload, header, _ = opened(rng.choice(stage.good))
    due: Any = header["sizes"]
    sizes = list(due)
    while sizes == due:
        for _ in range(rng.randrange(1, 4)):
            sizes = other_sizes(rng, sizes)
    return closed(payload, {**header, "sizes": sizes}, stage.cast.parties[str(header["sender"])])


def other_sizes(rng: random.Random, sizes: list[Any]) -> list[Any]:
    whole = bool(sizes) and all(type(size) is int for size in sizes)
    match rng.randrange(5):
        case 0 if whole:
            i = rng.randrange(len(sizes))
            return [*sizes[:i], odd(rng, sizes[i]), *sizes[i + 1 :]]
        case 1 if whole:
            moved = rng.randrange(1, 1000)
            return [
                min(sizes[0] + moved, 2**64 - 1),
                *sizes[1:-1],
                max(sizes[-1] - moved, -(2**63)),
            ]
        case 2:
            i = rng.randrange(len(sizes) + 1)
            return [*sizes[:i], rng.choice([0, 0, 1, 2**63, -1, value(rng)]), *sizes[i:]]
        case 3:
            return sizes[:-1]
        case _:
            return sizes * 2


def payload_bytes(rng: random.Random, stage: Stage) -> bytes:
    """Damage anywhere in the payload, with a good digest and a good signature."""
    payload, header, _ = opened(rng.choice(stage.good))
    sizes: Any = header["sizes"]
    other = damaged(
        rng, payload, rng.choice([0, 0, max(0, len(payload) - 100)]), rng.choice([None, 200])
    )
    if sum(sizes) != len(other):
        sizes = [*sizes[:-1], max(0, len(other) - sum(sizes[:-1]))]
    digest = hashlib.sha256(other).digest()
    return closed(
        other,
        {**header, "sizes": sizes, "digest": digest},
        stage.cast.parties[str(header["sender"])],
    )


# Signed, and a ciphertext forged


def in_its_place(make: Callable[[random.Random, Stage, int], bytes]) -> Mutation:
    """Good ciphertexts, one of which is another."""

    def mutation(rng: random.Random, stage: Stage) -> bytes:
        parts = [stage.chunk(rng, place) for place in range(stage.count)]
        place = rng.randrange(stage.count)
        parts[place] = make(rng, stage, place)
        return with_parts(rng, stage, *parts)

    return mutation


def forged(change: Callable[[random.Random, Forgery], Forgery | bytes]) -> Mutation:
    def make(rng: random.Random, stage: Stage, place: int) -> bytes:
        good = stage.forgery(rng, place)
        due = good.write()
        while True:
            changed = change(rng, good)
            data = changed if isinstance(changed, bytes) else changed.write()
            if data != due:
                return data

    return in_its_place(make)


def of_another_message(rng: random.Random, stage: Stage, place: int) -> bytes:
    """An Update's in an Aggregate's place, and the reverse."""
    return rng.choice(sorted(stage.foreign.values()))[place]


def in_another_library(rng: random.Random, stage: Stage, place: int) -> bytes:
    """As SEAL or TenSEAL write it."""
    return rng.choice(stage.written)[place]


def parts(rng: random.Random, stage: Stage) -> bytes:
    """Good ciphertexts in the wrong number or order, and things that are none."""
    good = [chunk for chunks in stage.chunks.values() for chunk in chunks]
    choices = [*good, b"", b"\x0a", rng.randbytes(1000), bytes(1000)]
    return with_parts(
        rng, stage, *(rng.choice(choices) for _ in range(rng.choice([0, 1, 2, 2, 2, 3, 9])))
    )


MUTATIONS: dict[str, Mutation] = {
    "garbage": garbage,
    "garbage in an envelope": garbage_in_an_envelope,
    "cut": cut,
    "damaged": damaged_anywhere,
    "from another": from_another,
    "signed: header field": header_field,
    "signed: header bytes": header_bytes,
    "signed: sizes": size_list,
    "signed: payload": payload_bytes,
    "ciphertexts: number and order": parts,
    "ciphertext: damaged": forged(forgeries.damaged_bytes),
    "ciphertext: another length": forged(forgeries.length),
    "ciphertext: residues": forged(forgeries.residues),
    "ciphertext: random residues": forged(forgeries.random_residues),
    "ciphertext: transparent": forged(forgeries.transparent),
    "ciphertext: seed": forged(forgeries.seed),
    "ciphertext: another form": forged(forgeries.form),
    "ciphertext: of another message": in_its_place(of_another_message),
    "ciphertext: in another library": in_its_place(in_another_library),
}
