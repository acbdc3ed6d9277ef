"""What can be done to a good message: by name, a function of a source of randomness and the party
that waits for it."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np

from hyperlock.parties.identity import KEYHOLDER, SERVER
from hyperlock.parties.messages import Aggregate, key_id_of
from tests.parties.cast import envelope_of
from tests.security import forge, forgeries
from tests.security.damage import anything, damaged, odd
from tests.security.forge import Forgery, closed, enclosed, opened, resealed
from tests.security.proof_mutations import PROOF_MUTATIONS
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
    data = rng.choice([*stage.good, *stage.earlier])
    parties = stage.cast.parties
    name = rng.choice([*parties, "mallory", ""])
    signer = parties[name if name in parties and rng.random() < 0.5 else rng.choice([*parties])]
    changes: dict[str, Any] = {"sender": name}
    if rng.random() < 0.3:
        changes["run"] = rng.choice(["", "other", "run "])
    return resealed(data, signer, **changes)


# Signed


def sender_of(rng: random.Random, stage: Stage) -> str:
    """Who is to send it, or one of them."""
    return stage.sender if stage.sender not in COHORT else rng.choice(COHORT[1:])


def with_parts(rng: random.Random, stage: Stage, *parts: bytes, **changes: object) -> bytes:
    """A good message with another payload, and maybe other header fields, in the sender's name."""
    sender = sender_of(rng, stage)
    signer = stage.cast.parties[sender]
    return forge.with_parts(stage.good[0], signer, *parts, sender=sender, **changes)


def by_its_sender(stage: Stage, payload: bytes, header: Any) -> bytes:
    """With a good signature of whom a header names, or of whom the stage does."""
    named = [name for name in stage.cast.parties if name == header.get("sender")]
    return closed(payload, header, stage.cast.parties[[*named, stage.sender][0]])


def of_another_attempt(rng: random.Random, stage: Stage) -> bytes:
    """Another attempt's, with any part of its header, or all, as in this one."""
    _, due, _ = opened(rng.choice(stage.good))
    payload, header, _ = opened(rng.choice(stage.earlier))
    fields = ["round", "attempt", "key_id", "terms", "train", "sender"]
    taken = rng.sample(fields, rng.choice([0, 1, 2, len(fields)]))
    return by_its_sender(stage, payload, {**header, **{name: due[name] for name in taken}})


def packed(rng: random.Random) -> bytes:
    data = msgpack.packb(anything(rng))
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
    return by_its_sender(stage, payload, other)


def change_field(rng: random.Random, header: dict[str, Any], name: str) -> None:
    due = header[name]
    match rng.randrange(6):
        case 0:
            del header[name]
        case 1:
            header[rng.choice(["", "payload", "more", "self"])] = anything(rng)
        case 2 if isinstance(due, int):
            header[name] = max(odd(rng, due) * rng.choice([1, 1, -1]), -(2**63))
        case 2 | 3 if isinstance(due, bytes):
            other = rng.choice([b"", due[:-1], due + b"x", bytes(32), rng.randbytes(32)])
            header[name] = rng.choice([other, damaged(rng, due)])
        case 3 if isinstance(due, str):
            header[name] = rng.choice(["", due + "x", due[:-1], "\0", "é" * 128, due.upper()])
        case _:
            header[name] = anything(rng)


def header_bytes(rng: random.Random, stage: Stage) -> bytes:
    payload, header, _ = opened(rng.choice(stage.good))
    signer = stage.cast.parties[str(header["sender"])]
    return closed(payload, damaged(rng, msgpack.packb(header)), signer)


def size_list(rng: random.Random, stage: Stage) -> bytes:
    payload, header, _ = opened(rng.choice(stage.good))
    due: Any = header["sizes"]
    sizes = list(due)
    while sizes == due:
        for _ in range(rng.randrange(1, 4)):
            sizes = other_sizes(rng, sizes)
    return by_its_sender(stage, payload, {**header, "sizes": sizes})


def other_sizes(rng: random.Random, sizes: list[Any]) -> list[Any]:
    whole = bool(sizes) and all(type(size) is int for size in sizes)
    match rng.randrange(6):
        case 0 if whole:
            i = rng.randrange(len(sizes))
            return [*sizes[:i], odd(rng, sizes[i]), *sizes[i + 1 :]]
        case 1 if whole and len(sizes) % 2 == 0:
            # The same payload, cut in other places.
            moved = rng.randrange(1, 1000)
            return [1, min(sizes[1] + moved, 2**64 - 1), *sizes[2:-1], odd(rng, sizes[-1], 16)]
        case 2:
            i = rng.randrange(len(sizes) + 1)
            return [*sizes[:i], rng.choice([0, 0, 1, 2**63, -1, anything(rng)]), *sizes[i:]]
        case 3:
            return sizes[:-1]
        case 4 if whole:
            # The same sizes, not written as they are: a run in two, or a run of none.
            return rng.choice([[*sizes, *sizes[-2:]], [0, 1, *sizes], [1, 0, *sizes]])
        case _:
            return sizes * 2


def payload_bytes(rng: random.Random, stage: Stage) -> bytes:
    """Damage anywhere in the payload, with a good digest and a good signature."""
    message = rng.choice(stage.good)
    payload, header, _ = opened(message)
    other = damaged(
        rng, payload, rng.choice([0, 0, max(0, len(payload) - 100)]), rng.choice([None, 200])
    )
    *sizes, _ = [len(part) for part in forge.parts_of(message)] or [0]
    sizes.append(max(0, len(other) - sum(sizes)))
    digest = hashlib.sha256(other).digest()
    return by_its_sender(stage, other, {**header, "sizes": forge.runs(sizes), "digest": digest})


# Signed, and the manifest of a sum forged


def with_manifest(rng: random.Random, stage: Stage, manifest: bytes) -> bytes:
    """Behind a good sum."""
    return with_parts(rng, stage, *stage.chunks["sum"], manifest, *stage.behind)


def manifest_bytes(rng: random.Random, stage: Stage) -> bytes:
    """What is no list of envelopes, or a huge one."""
    good, *_ = stage.tail
    most = stage.cast.scheme.max_clients
    envelope = rng.choice(stage.envelopes)
    choices = [
        damaged(rng, good),
        damaged(rng, good, 0, 10),
        packed(rng),
        good + rng.choice([b"\0", good]),
        msgpack.packb([[envelope], envelope]),
        msgpack.packb([*stage.envelopes, anything(rng)]),
        msgpack.packb({str(i): one for i, one in enumerate(stage.envelopes)}),
        Aggregate.manifest([envelope] * rng.choice([most, most + 1, 20 * most])),
        Aggregate.manifest([rng.randbytes(rng.choice([2176, 2177, 2**16]))] * most),
        b"\xdc\xff\xff" + b"\x90" * 2**16,
    ]
    return with_manifest(rng, stage, rng.choice(choices))


def manifest_envelopes(rng: random.Random, stage: Stage) -> bytes:
    """Good envelopes in another order, fewer, more, twice, none, and others'."""
    envelopes = list(stage.envelopes)
    for _ in range(rng.choice([1, 1, 2, 4])):
        i = rng.randrange(len(envelopes) + 1)
        match rng.randrange(6):
            case 0:
                rng.shuffle(envelopes)
            case 1:
                envelopes = envelopes[:i]
            case 2:
                envelopes.insert(i, rng.choice(stage.envelopes))
            case 3:
                envelopes.insert(i, rng.choice(stage.strays[: len(COHORT)]))
            case 4:
                envelopes[i : i + 1] = [rng.choice(stage.strays)]
            case 5:
                envelopes[i : i + 1] = [damaged(rng, rng.choice(stage.envelopes))]
    return with_manifest(rng, stage, Aggregate.manifest(envelopes))


def manifest_headers(rng: random.Random, stage: Stage) -> bytes:
    """One envelope with another header, signed by a client, in its own name or another's."""
    envelopes = list(stage.envelopes)
    i = rng.randrange(len(envelopes))
    _, header, _ = opened(enclosed(b"", rng.choice([envelopes[i], rng.choice(stage.strays)])))
    signer = rng.choice([str(header["sender"]), *stage.cast.parties])
    header["sender"] = signer if rng.random() < 0.7 else rng.choice([*stage.cast.parties, "x"])
    if rng.random() < 0.8:
        change_field(rng, header, rng.choice(sorted(header)))
    envelopes[i] = envelope_of(closed(b"", header, stage.cast.parties[signer]))
    return with_manifest(rng, stage, Aggregate.manifest(envelopes))


# Signed, and the model or the key of a request forged


def train_parts(rng: random.Random, stage: Stage) -> bytes:
    """Its three parts in another order or number, damaged, and of other requests."""
    parts = forge.parts_of(rng.choice(stage.good))
    i = rng.randrange(3)
    match rng.randrange(5):
        case 0:
            parts[i] = damaged(rng, parts[i])
        case 1:
            parts[i : i + 1] = rng.choice([[], [parts[i]] * 2, [b""], [parts[i], b"x"]])
        case 2:
            rng.shuffle(parts)
        case 3:
            parts[i] = rng.choice(
                [rng.randbytes(len(parts[i])), bytes(len(parts[i])), parts[i] * 2]
            )
        case 4:
            parts[0] = rng.choice([rng.choice(stage.good), rng.choice(stage.earlier)])
    return with_parts(rng, stage, *parts)


def train_floats(rng: random.Random, stage: Stage) -> bytes:
    """Weights and ranges that are none, or that are not the ones that everybody else was sent."""
    data = rng.choice(stage.good)
    key, *floats = forge.parts_of(data)
    i = rng.choice([0, 1, 1])
    numbers = np.frombuffer(floats[i], "<f4").copy()
    place = rng.randrange(numbers.size)
    due = float(numbers[place])
    odd_ones = [np.nan, np.inf, -np.inf, 0.0, -due, 1e-45, 3e38, -3e38]
    near = [due * factor for factor in (16, 17, 1 / 16, 1 / 17, 256, 1 / 256, 1 + 2**-22)]
    numbers[place] = rng.choice([*odd_ones, *near])
    floats[i] = numbers.tobytes()
    return forge.with_parts(data, stage.cast.parties[stage.sender], key, *floats)


def hostile_key(rng: random.Random, stage: Stage) -> bytes:
    """A key message that its key holder made otherwise, alone or in a request that is made to
    fit."""
    data = rng.choice(stage.good)
    _, header, _ = opened(data)
    alone = header["kind"] == "public_key"
    message = data if alone else forge.parts_of(data)[0]
    key = forge.parts_of(message)[0]
    key = rng.choice([key, damaged(rng, key), damaged(rng, key, 0, 300), *stage.keys, key + key])
    changes: dict[str, Any] = {"key_id": key_id_of(key)}
    for name in rng.sample(["round", "attempt"], rng.choice([0, 0, 1, 2])):
        changes[name] = max(1, odd(rng, 300))
    hostile = stage.cast.parties[KEYHOLDER]
    made = forge.with_parts(message, hostile, key, **changes)
    if rng.random() < 0.3:
        other = dict(opened(made)[1])
        change_field(rng, other, rng.choice(sorted(other)))
        made = closed(key, other, hostile)
    if alone:
        return made
    _, *floats = forge.parts_of(data)
    return forge.with_parts(data, stage.cast.parties[SERVER], made, *floats, **changes)


# Signed, and a ciphertext forged


def in_its_place(make: Callable[[random.Random, Stage, int], bytes]) -> Mutation:
    """Good ciphertexts, one of which is another."""

    def mutation(rng: random.Random, stage: Stage) -> bytes:
        parts = [stage.chunk(rng, place) for place in range(stage.count)]
        place = rng.randrange(stage.count)
        parts[place] = make(rng, stage, place)
        return with_parts(rng, stage, *parts, *stage.tail)

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
    choices = [*good, b"", b"\x0a", rng.randbytes(1000), bytes(1000), *stage.tail]
    chosen = [rng.choice(choices) for _ in range(rng.choice([0, 1, 2, 2, 2, 3, 9]))]
    return with_parts(rng, stage, *chosen, *(stage.tail if rng.random() < 0.8 else []))


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
    "signed: of another attempt": of_another_attempt,
    "manifest: bytes": manifest_bytes,
    "manifest: envelopes": manifest_envelopes,
    "manifest: headers": manifest_headers,
    "train: parts": train_parts,
    "train: floats": train_floats,
    "key: hostile": hostile_key,
    **PROOF_MUTATIONS,
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
