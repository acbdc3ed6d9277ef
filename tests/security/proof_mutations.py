"""What can be done to what the messages of trust=malicious hold, by who signs them: lists, maps and
digests, messages within messages, and the number of parts."""

from __future__ import annotations

import random
from typing import Any

import msgpack

from hyperlock.parties.identity import KEYHOLDER
from hyperlock.parties.messages import Commitments, key_id_of
from tests.parties.cast import NAMES
from tests.security.damage import anything, damaged
from tests.security.forge import opened, parts_of, resealed, with_parts
from tests.security.stages import Stage

# By kind: the part that msgpack packed, or that is a digest; and the one that is a message.
CONTENT = {
    "public_key": 1,
    "commitment": 0,
    "commitments": 0,
    "roster": 0,
    "tally": 0,
    "shown": 0,
    "release": 0,
}
WITHIN = {"train": 0, "aggregate": -1, "state": 0}
WITH_A_KEY = {"public_key", "train"}


def kind_of(message: bytes) -> str:
    """As its header says."""
    return str(opened(message)[1]["kind"])


def able(mutation: str, message: bytes) -> bool:
    """Whether a message of this kind has what a mutation alters."""
    kind = kind_of(message)
    return {
        "proof: content": kind in CONTENT or kind in WITHIN,
        "proof: messages": kind == "commitments" or kind in WITHIN,
        "proof: key": kind in WITH_A_KEY,
    }.get(mutation, True)


def again(stage: Stage, message: bytes, *parts: bytes, **changes: object) -> bytes:
    """With another payload, signed by its own sender."""
    sender = str(opened(message)[1]["sender"])
    return with_parts(message, stage.cast.parties[sender], *parts, **changes)


def content(rng: random.Random, stage: Stage) -> bytes:
    """Another value somewhere in what is announced, listed, promised, added or shown."""
    return with_content(rng, stage, rng.choice(stage.good))


def with_content(rng: random.Random, stage: Stage, message: bytes) -> bytes:
    kind = kind_of(message)
    parts = parts_of(message)
    if kind == "state" and parts[0] == b"model":
        parts[1] = repacked(rng, parts[1])
    elif kind in WITHIN:
        place = WITHIN[kind]
        parts[place] = with_content(rng, stage, parts[place])
    else:
        parts[CONTENT[kind]] = repacked(rng, parts[CONTENT[kind]])
    return again(stage, message, *parts)


def repacked(rng: random.Random, part: bytes) -> bytes:
    """What msgpack packed, altered in a few places; bytes that it did not, damaged."""
    try:
        good = msgpack.unpackb(part)
    except ValueError:
        good = None
    if good is None or rng.random() < 0.2:
        return rng.choice([damaged(rng, part), part[:-1], part + b"\0", b"", part * 2])
    found = good
    while found == good:
        for _ in range(rng.choice([1, 1, 2, 5])):
            found = altered(rng, found)
    return msgpack.packb(found)


def altered(rng: random.Random, node: Any) -> Any:
    """Another value, or the same with something in it left out, doubled, moved or altered."""
    if isinstance(node, dict):
        items = altered(rng, [list(item) for item in node.items()])
        fit = isinstance(items, list) and all(
            isinstance(item, list) and len(item) == 2 and isinstance(item[0], str | bytes | int)
            for item in items
        )
        return dict(items) if fit else items
    if isinstance(node, list) and node and rng.random() < 0.9:
        other = list(node)
        i = rng.randrange(len(other))
        match rng.randrange(6):
            case 0:
                del other[i]
            case 1:
                other.append(other[i])
            case 2:
                other.insert(i, anything(rng))
            case 3:
                j = rng.randrange(len(other))
                other[i], other[j] = other[j], other[i]
            case _:
                other[i] = altered(rng, other[i])
        return other
    if isinstance(node, bytes):
        return rng.choice([b"", node[:-1], node + b"x", bytes(32), damaged(rng, node), node.hex()])
    if isinstance(node, str):
        return rng.choice(["", "x", *NAMES, KEYHOLDER, "x" * 256, "x" * 257, node.encode()])
    return anything(rng)


def messages(rng: random.Random, stage: Stage) -> bytes:
    """Messages within a message: others, fewer, more, and of others' making."""
    message = rng.choice(stage.good)
    parts = parts_of(message)
    kind = kind_of(message)
    if kind == "commitments":
        listed = Commitments.commitments(parts[0], len(NAMES))
        for _ in range(rng.choice([1, 1, 2, 4])):
            listed = others(rng, stage, listed)
        return again(stage, message, Commitments.write(listed))
    place = WITHIN[kind] % len(parts)
    parts[place : place + 1] = others(rng, stage, [parts[place]])
    return again(stage, message, *parts)


def others(rng: random.Random, stage: Stage, found: list[bytes]) -> list[bytes]:
    """One of a list of messages altered, by whoever holds a key."""
    if not found:
        return [rng.choice(stage.said)]
    i = rng.randrange(len(found))
    one = found[i]
    signer = stage.cast.parties[rng.choice([*stage.cast.parties])]
    match rng.randrange(7):
        case 0:
            return found[:i] + found[i + 1 :]
        case 1:
            return [*found, one]
        case 2:
            return [*found[:i], damaged(rng, one), *found[i + 1 :]]
        case 3:
            made = made_anew(rng, stage, one, signer)
            return [*found[:i], made, *found[i + 1 :]]
        case 4:
            return rng.sample(found, len(found))
        case _:
            return [*found[:i], rng.choice(stage.said), *found[i + 1 :]]


def made_anew(rng: random.Random, stage: Stage, message: bytes, signer: Any) -> bytes:
    """With another header, in the signer's name."""
    try:
        header = dict(opened(message)[1])
    except Exception:  # whatever damage left
        return message
    names = ["round", "attempt", "key_id", "fingerprint", "length", "terms", "train", "version"]
    name = rng.choice([*names, "sender"])
    due = header.get(name)
    changed = altered(rng, due) if not isinstance(due, int) else due + rng.choice([-1, 1, 2**62])
    return resealed(message, signer, **{"sender": signer.name, name: changed})


def key(rng: random.Random, stage: Stage) -> bytes:
    """A key message of a key holder that turned hostile, with what it announces; alone or in a
    request that is made to fit."""
    message = rng.choice(stage.good)
    inner = message if kind_of(message) == "public_key" else parts_of(message)[0]
    public, *announced = parts_of(inner)
    public = rng.choice([damaged(rng, public), damaged(rng, public, 0, 300), b"", *stage.keys])
    named = {"key_id": key_id_of(public)}
    made = again(stage, inner, public, *announced, **named)
    if inner is message:
        return made
    return again(stage, message, made, *parts_of(message)[1:], **named)


def parts(rng: random.Random, stage: Stage) -> bytes:
    """In another number or order, and things that are none."""
    message = rng.choice(stage.good)
    good = parts_of(message)
    found = good
    while found == good:
        choices = [*good, *good, b"", b"x", bytes(32), b"model", rng.choice(stage.said)]
        found = [rng.choice(choices) for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 9]))]
    return again(stage, message, *found)


PROOF_MUTATIONS = {
    "proof: content": content,
    "proof: messages": messages,
    "proof: key": key,
    "proof: parts": parts,
}
