"""The messages that parties exchange, and their bytes.

All kinds share one header and carry their content as raw byte strings. `encode` and `decode` are
each other's inverse; `decode` treats its input as hostile: it bounds every length before anything
is allocated, refuses unknown or missing fields, a signature that is not the sender's and a digest
that does not match, and says why.

    kind        from -> to                payload
    Open        server -> key holder      the last round that the server keeps: uint64
    PublicKey   key holder -> everyone    the public key of one attempt of one round
    Train       server -> client          that PublicKey message; the model, float32[parameters];
                                          the grid's ranges, float32[tensors]; nothing where the
                                          clients hold key and model (keys=clients); where clients
                                          evaluate, the word `evaluate` if they are to do no more
    Update      client -> server          ciphertexts of totals and update
    Aggregate   server -> key holder      ciphertexts of the sum, and the manifest of who is in it
    Release     key holder -> server      the exact sum: int[length], as narrow as the scheme allows

Under trust=malicious the PublicKey has a second part, what the key holder announces: the cohort and
the digest of the model; a Train has that digest instead of the model; an Aggregate ends with the
Tally; and there are

    State       server -> client          Releases that the client missed, or the model
    Commitment  client -> server          the SHA-256 of the client's whole Update message
    Commitments server -> key holder      those of a cohort, as they were signed
    Roster      key holder -> everyone    who has committed, and to what
    Close       server -> witness         nothing: all Updates are there
    Tally       witness -> server         the roster, whose Updates it added, the sum's SHA-256
    Show        server -> key holder      nothing: the run is over
    Shown       key holder -> server      the seed that cohorts were drawn from, and its nonce

Across sites a run begins, for a party that is not in it, with

    Invite      server -> everyone        the run's terms, typed; the initial weights
    Accept      everyone -> server        the SHA-256 of the Invite's payload; the last round after
                                          which the party has the model: uint64

Across sites under keys=clients, where nobody is the key holder, a site is given the run's key
before its first Train, and answers an Aggregate:

    Share       server -> first client    nothing: the run's key is asked for
    Boxes       first client -> server    a Box for each other client, in order, as it was signed
    Box         first client -> client    the run's public key; a sealed box (`box`) of the secret
                                          key: the X25519 key of its own, and what is sealed
    Stepped     client -> server          the sum's totals, as digits: int[]; the SHA-256 of the
                                          model that the client has stepped to

On the wire: the payload's parts, end to end; the envelope, a msgpack array of the header and an
Ed25519 signature over it; the envelope's size in four bytes. The header names the parts' sizes and
the SHA-256 of them all, so that the signature covers every byte: an envelope alone proves what its
sender sent, and the manifest is a list of them. It stands behind the payload so that parts can be
written as they are made, and they are read in place: neither end holds a large payload twice.
Numbers are little-endian. The sizes in the metrics are `len` of these bytes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import accumulate, chain, groupby, pairwise
from types import MappingProxyType
from typing import Any, ClassVar, Self, cast

import msgpack

from hyperlock.errors import MessageRefused
from hyperlock.parties.identity import KEYHOLDER, SERVER, SIGNATURE_BYTES, WITNESS, Identity

VERSION = 3
_MAX_TEXT = 256  # bytes of any name in a header
_MAX_FIELDS = 16
_MAX_RUNS = 4  # of parts of one size
_MAX_HEADER = 2048  # bytes
_SIZE_BYTES = 4  # of the envelope's size
MAX_ENVELOPE = _MAX_HEADER + 128  # bytes: a header, its signature, and what msgpack adds
MAX_PUBLIC_KEY = 2**24
MAX_SECRET_KEY = 2**24
DIGEST_BYTES = hashlib.sha256().digest_size
MAX_BESIDE = MAX_ENVELOPE + _SIZE_BYTES  # bytes of a message beside its payload
MAX_COMMITMENT = DIGEST_BYTES + MAX_BESIDE  # bytes of the message

# Of a header, in this order, between its kind and version and its sizes and digest.
_FIELDS: dict[str, type] = {
    "run": str,
    "round": int,
    "attempt": int,
    "sender": str,
    "key_id": str,
    "fingerprint": str,
    "length": int,
    "terms": bytes,
    "train": bytes,
}

Part = bytes | memoryview


@dataclass(frozen=True)
class Message:
    """Header and payload that every kind shares.

    Attributes:
        run: the run's id; a message of another run is refused.
        round: the round, from 1; 0 before the first.
        attempt: of that round, from 1; 0 of no attempt.
        sender: the party that wrote it.
        key_id: which public key (`key_id_of`).
        fingerprint: the scheme's, so that parties with other parameters or library versions are
            refused.
        length: number of coordinates of the vector that the payload holds, 0 if none.
        terms: the digest of what the sender joined the run under.
        train: the digest of the Train payload that this answers or follows; of the model, where the
            clients hold it; empty before there is one.
        payload: raw byte strings: any iterable where a message is written, which `encode` goes
            through once; a tuple of views into the message's bytes where one was read.
        digest: of the payload of a message that was read.
        envelope: header and signature of a message that was read, as they were sent.
    """

    kind: ClassVar[str] = ""
    only_from: ClassVar[str] = ""  # the only party that sends this kind; "" where any client may
    of_vector: ClassVar[bool] = True  # whether the payload is a vector, whose length is named

    run: str
    round: int
    attempt: int
    sender: str
    key_id: str
    fingerprint: str
    length: int
    terms: bytes
    train: bytes
    payload: Iterable[Part]
    digest: bytes = field(default=b"", compare=False)
    envelope: bytes = field(default=b"", compare=False)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The payload of a message that was read."""
        return tuple(self.payload)

    def encode(self, identity: Identity) -> bytes:
        """The message's bytes, signed by the party that sends it."""
        if (identity.run, identity.name) != (self.run, self.sender):
            raise ValueError(f"{identity.name} cannot sign for {self.sender}")
        # The payload first, as its parts are made.
        out = io.BytesIO()
        sha = hashlib.sha256()
        sizes = []
        for part in self.payload:
            sizes.append(out.write(part))
            sha.update(part)

        # Then the header that names it, and the signature over that.
        header = msgpack.packb(
            {
                "kind": self.kind,
                "version": VERSION,
                **{name: getattr(self, name) for name in _FIELDS},
                "sizes": _runs(sizes),
                "digest": sha.digest(),
            }
        )
        out.write(_enclosed(header, identity))
        return out.getvalue()

    @classmethod
    def decode(
        cls, data: bytes, identity: Identity, *, max_parts: int, max_part_bytes: int
    ) -> Self:
        """Read one message of this kind and of this run.

        Args:
            data: what arrived.
            identity: of the party that reads it; names the run and who is enrolled in it.
            max_parts: the most byte strings the payload may have.
            max_part_bytes: the most bytes each of them may have.

        Raises:
            MessageRefused: anything about the bytes is not as it must be.
        """
        # No more bytes than the largest honest message has.
        limit = MAX_BESIDE + max_parts * max_part_bytes
        if not isinstance(data, bytes):
            raise MessageRefused(f"{type(data).__name__} where bytes were due")
        if len(data) > limit:
            raise MessageRefused(f"{len(data)} bytes where at most {limit} were due")

        # A signed header of this run, version and kind.
        view = memoryview(data)
        end = _payload_end(data)
        envelope = bytes(view[end:-_SIZE_BYTES])
        message, sizes = cls._signed(envelope, identity, max_parts, max_part_bytes)

        # The payload that was signed, all of it and nothing else.
        ends = list(accumulate(sizes, initial=0))
        if ends[-1] != end:
            raise MessageRefused(f"a payload of {end} bytes where the header names {ends[-1]}")
        if hashlib.sha256(view[:end]).digest() != message.digest:
            raise MessageRefused("the digest does not match: the bytes were altered on the way")
        return replace(message, payload=tuple(view[a:b] for a, b in pairwise(ends)))

    @classmethod
    def header(
        cls, envelope: bytes, identity: Identity, *, max_parts: int, max_part_bytes: int
    ) -> tuple[Self, int]:
        """What an envelope proves without its payload: a message of this kind and run whose payload
        has this `digest`, and how many parts; MessageRefused as by `decode`."""
        message, sizes = cls._signed(envelope, identity, max_parts, max_part_bytes)
        return message, len(sizes)

    @classmethod
    def _signed(
        cls, envelope: bytes, identity: Identity, max_parts: int, max_part_bytes: int
    ) -> tuple[Self, list[int]]:
        """A message without its payload, and its payload's sizes."""
        # A header of this version and kind, each field of its type.
        header_bytes, signature = _opened(envelope)
        header = _header(header_bytes)
        if type(header.get("version")) is not int or header["version"] != VERSION:
            raise MessageRefused(f"version {header.get('version')!r:.20} instead of {VERSION}")
        if header.get("kind") != cls.kind:
            raise MessageRefused(f"kind {header.get('kind')!r:.40} instead of {cls.kind!r}")
        _check_fields(header)
        sizes = _sizes(header["sizes"], max_parts, max_part_bytes)
        values = {name: header[name] for name in _FIELDS}

        # Signed by its sender, of this run, and of a kind that this sender sends.
        identity.verify(values["sender"], signature, header_bytes)
        if values["run"] != identity.run:
            raise MessageRefused(f"run {values['run']!r:.80} instead of {identity.run!r:.80}")
        if cls.only_from and values["sender"] != cls.only_from:
            raise MessageRefused(
                f"a {cls.kind} message from {values['sender']!r:.80} instead of {cls.only_from!r}"
            )
        return cls(**values, payload=(), digest=header["digest"], envelope=envelope), sizes

    def expect(self, **values: object) -> None:
        """Refuse the message unless the named header fields have exactly these values."""
        for name, due in values.items():
            got = getattr(self, name)
            if got != due:
                raise MessageRefused(f"{name} {_shown(got)} instead of {_shown(due)}")


class Open(Message):
    """The beginning of an attempt: the server asks for its key."""

    kind = "open"
    only_from = SERVER
    of_vector = False


class PublicKey(Message):
    """The public key of one attempt of a round; of a run, under keys=clients."""

    kind = "public_key"
    only_from = KEYHOLDER
    of_vector = False


class Train(Message):
    """The start of a round: the global model, and the public ranges of the grid."""

    kind = "train"
    only_from = SERVER
    of_vector = False
    mark: ClassVar[bytes] = b"evaluate"

    @property
    def evaluates(self) -> bool:
        """Whether the model is only evaluated: nobody trains, and nothing moves it."""
        return self.parts[-1:] == (self.mark,)

    @property
    def content(self) -> tuple[Part, ...]:
        """The payload without the word that says so."""
        return self.parts[:-1] if self.evaluates else self.parts


class Update(Message):
    """One client's encrypted contribution."""

    kind = "update"


class Aggregate(Message):
    """The encrypted sum, and the envelopes of the Updates in it."""

    kind = "aggregate"
    only_from = SERVER

    @staticmethod
    def manifest(envelopes: Sequence[bytes]) -> bytes:
        """A part of the payload."""
        return cast(bytes, msgpack.packb(list(envelopes)))

    @staticmethod
    def envelopes(manifest: Part, most: int) -> list[bytes]:
        """The inverse; MessageRefused if it is none, or of more than `most`."""
        return _listed(manifest, "a manifest", most, MAX_ENVELOPE)


class Release(Message):
    """The exact sum in the clear."""

    kind = "release"
    only_from = KEYHOLDER


class State(Message):
    """What a client lacks of the model."""

    kind = "state"
    only_from = SERVER
    of_vector = False


class Commitment(Message):
    """One client's promise of exactly one Update."""

    kind = "commitment"
    of_vector = False


class Commitments(Message):
    """All that a cohort promised."""

    kind = "commitments"
    only_from = SERVER
    of_vector = False

    @staticmethod
    def write(commitments: Sequence[bytes]) -> bytes:
        """The payload, in one part: a client decides how large its Commitment is, and a header
        names parts of few sizes."""
        return cast(bytes, msgpack.packb(list(commitments)))

    @staticmethod
    def commitments(payload: Part, most: int) -> list[bytes]:
        """The inverse; MessageRefused if it is none, or of more than `most`."""
        return _listed(payload, "a list of commitments", most, MAX_COMMITMENT)


class Roster(Message):
    """Whose Updates may be in the sum, and which; one for a key, ever."""

    kind = "roster"
    only_from = KEYHOLDER
    of_vector = False

    @staticmethod
    def write(entries: Mapping[str, bytes]) -> bytes:
        """The payload: commitments by name."""
        return cast(bytes, msgpack.packb(dict(entries)))

    @staticmethod
    @lru_cache(maxsize=2)  # a simulation's clients read the same one
    def entries(payload: bytes) -> Mapping[str, bytes]:
        """The inverse; MessageRefused if it is none, or two have committed to the same."""
        found = _unpacked(payload, "a roster")
        good = isinstance(found, dict) and all(
            type(name) is str and type(commitment) is bytes and len(commitment) == DIGEST_BYTES
            for name, commitment in found.items()
        )
        if not good:
            raise MessageRefused("not a roster (wrong structure)")
        if len(set(found.values())) < len(found):
            raise MessageRefused("a roster on which two clients have the same update")
        return MappingProxyType(found)


class Close(Message):
    """The end of an attempt's Updates."""

    kind = "close"
    only_from = SERVER
    of_vector = False


class Tally(Message):
    """What the witness added."""

    kind = "tally"
    only_from = WITNESS
    of_vector = False


class Invite(Message):
    """What a party is asked to take part in."""

    kind = "invite"
    only_from = SERVER
    of_vector = False


class Accept(Message):
    """That it does."""

    kind = "accept"
    of_vector = False


class Share(Message):
    """The run's key is asked for, sealed for each other client."""

    kind = "share"
    only_from = SERVER
    of_vector = False


class Boxes(Message):
    """The run's key, sealed for each other client."""

    kind = "boxes"
    of_vector = False


class Box(Message):
    """The run's key, sealed for one client."""

    kind = "box"
    of_vector = False


class Stepped(Message):
    """What a client that holds the model has stepped it by, and to."""

    kind = "stepped"
    of_vector = False


class Show(Message):
    """The run is over; what were cohorts drawn from?"""

    kind = "show"
    only_from = SERVER
    of_vector = False


class Shown(Message):
    """The seed of all cohorts."""

    kind = "shown"
    only_from = KEYHOLDER
    of_vector = False


@dataclass(frozen=True)
class Announced:
    """What the key holder says with an attempt's key, under trust=malicious.

    Attributes:
        cohort: who is asked for an update.
        model: the digest of the model that they start from.
        cohorts: the commitment to the seed that cohorts are drawn from, the same in every attempt.
    """

    cohort: tuple[str, ...]
    model: bytes
    cohorts: bytes

    def write(self) -> bytes:
        """As a part of a payload."""
        return cast(bytes, msgpack.packb([list(self.cohort), self.model, self.cohorts]))

    @classmethod
    @lru_cache(maxsize=2)  # a simulation's clients read the same one
    def read(cls, part: bytes) -> Announced:
        """The inverse; MessageRefused if it is none."""
        found = _unpacked(part, "an announcement")
        if type(found) is not list or len(found) != 3 or type(found[0]) is not list:
            raise MessageRefused("not an announcement (wrong structure)")
        cohort, *digests = found
        # An empty digest would be one that binds nobody.
        if not all(type(name) is str for name in cohort) or not all(
            type(value) is bytes and len(value) == DIGEST_BYTES for value in digests
        ):
            raise MessageRefused("not an announcement (wrong structure)")
        return cls(tuple(cohort), *digests)


def run_of(data: bytes) -> str:
    """The run that a message claims to be of, before anything else is believed of it;
    MessageRefused if it is no message."""
    end = _payload_end(data)
    header, _ = _opened(bytes(memoryview(data)[end:-_SIZE_BYTES]))
    run = _header(header).get("run")
    if type(run) is not str:
        raise MessageRefused("not a message (no run)")
    return run


def kind_of(data: bytes) -> str:
    """The kind that a message claims to be, before anything else is believed of it; "" if it claims
    none."""
    try:
        header, _ = _opened(bytes(memoryview(data)[_payload_end(data) : -_SIZE_BYTES]))
        unpacker = msgpack.Unpacker(
            max_buffer_size=2 * _MAX_TEXT,
            max_str_len=_MAX_TEXT,
            max_array_len=0,
            max_map_len=_MAX_FIELDS,
        )
        unpacker.feed(header[: 2 * _MAX_TEXT])
        unpacker.read_map_header()
        # `encode` writes it first; nothing else is read.
        name = unpacker.unpack()
        kind = unpacker.unpack()
    except Exception:  # msgpack raises many kinds for malformed input
        return ""
    return kind if name == "kind" and isinstance(kind, str) else ""


def signed_again(data: bytes, identity: Identity) -> bytes:
    """A party's own message, signed with the key that it has now: the same bytes, unless it has
    another than when it wrote the message, as where all parties of a run were restarted."""
    end = _payload_end(data)
    header, _ = _opened(data[end:-_SIZE_BYTES])
    return data[:end] + _enclosed(header, identity)


def train_of(model: bytes, evaluates: bool) -> bytes:
    """What stands for a Train without a payload, where the clients hold the model of this digest:
    another for one that only evaluates, or updates of both kinds would meet in one sum."""
    return hashlib.sha256(Train.mark + model).digest() if evaluates else model


def key_id_of(public_key: bytes) -> str:
    """The name of a public key: 128 bits of its SHA-256, in hexadecimal."""
    return hashlib.sha256(public_key).hexdigest()[:32]


def _shown(value: object) -> str:
    """A header field, in an error."""
    if isinstance(value, bytes):
        return f"{value.hex()[:16]}..." if value else "none"
    return f"{value!r:.80}"


def _unpacked(part: Part, name: str) -> Any:
    """What msgpack packed; no string of it is longer than a name or a digest."""
    try:
        return msgpack.unpackb(part, max_str_len=_MAX_TEXT, max_bin_len=DIGEST_BYTES, max_ext_len=0)
    except Exception as error:  # msgpack raises many kinds for malformed input
        raise MessageRefused(f"not {name} ({type(error).__name__})") from None


def _listed(part: Part, name: str, most: int, each: int) -> list[bytes]:
    """At most so many byte strings, of at most so many bytes each, that msgpack packed."""
    try:
        found = msgpack.unpackb(
            part,
            max_array_len=most,
            max_bin_len=each,
            max_str_len=0,
            max_map_len=0,
            max_ext_len=0,
        )
        if type(found) is not list or not all(type(one) is bytes for one in found):
            raise ValueError("no list of byte strings")
    except Exception as error:  # msgpack raises many kinds for malformed input
        raise MessageRefused(f"not {name} ({type(error).__name__})") from None
    return found


def _check_fields(header: dict[str, Any]) -> None:
    """Refuse a header unless it has every field and no other, each of its type."""
    if header.keys() != {*_FIELDS, "kind", "version", "sizes", "digest"}:
        raise MessageRefused("unknown or missing header fields")
    for name, kind in _FIELDS.items():
        if type(header[name]) is not kind:  # nor of a subclass: True is an int
            raise MessageRefused(f"header field {name} is not of type {kind.__name__}")
    if min(header["round"], header["attempt"], header["length"]) < 0:
        raise MessageRefused("negative round, attempt or length")
    if type(header["digest"]) is not bytes or type(header["sizes"]) is not list:
        raise MessageRefused("not a message (wrong structure)")


def _runs(sizes: Sequence[int]) -> list[int]:
    """Sizes as count, size, count, size, ...: most parts of a payload are of one size."""
    runs = [(len(list(equal)), size) for size, equal in groupby(sizes)]
    return list(chain.from_iterable(runs))


def _sizes(runs: list[Any], max_parts: int, max_part_bytes: int) -> list[int]:
    """The inverse; refuse more parts than are due, any larger one, and what `_runs` does not
    write."""
    if len(runs) % 2 or len(runs) > 2 * _MAX_RUNS or not all(type(n) is int for n in runs):
        raise MessageRefused("not a message (wrong sizes)")
    counts = runs[::2]
    each = runs[1::2]
    if not all(0 <= size <= max_part_bytes for size in each):
        raise MessageRefused(f"a payload part is not of at most {max_part_bytes} bytes")
    if any(count < 1 for count in counts) or any(a == b for a, b in pairwise(each)):
        raise MessageRefused("not a message (wrong sizes)")
    if sum(counts) > max_parts:
        raise MessageRefused(f"{sum(counts)} payload parts where at most {max_parts} were due")
    return [size for count, size in zip(counts, each, strict=True) for _ in range(count)]


def _enclosed(header: bytes, identity: Identity) -> bytes:
    """What stands behind a payload: the envelope and its size."""
    envelope = cast(bytes, msgpack.packb([header, identity.sign(header)]))
    return envelope + len(envelope).to_bytes(_SIZE_BYTES, "little")


def _payload_end(data: bytes) -> int:
    """Where the payload ends and the envelope begins."""
    size = int.from_bytes(data[-_SIZE_BYTES:], "little")
    end = len(data) - _SIZE_BYTES - size
    if end < 0 or size > MAX_ENVELOPE:
        raise MessageRefused("not a message (no header)")
    return end


def _opened(envelope: bytes) -> tuple[bytes, bytes]:
    """Header bytes and signature."""
    try:
        header, signature = msgpack.unpackb(
            envelope,
            max_bin_len=_MAX_HEADER,
            max_array_len=2,
            max_str_len=0,
            max_map_len=0,
            max_ext_len=0,
        )
        if (
            type(header) is not bytes
            or type(signature) is not bytes
            or len(signature) != SIGNATURE_BYTES
        ):
            raise ValueError("no header and signature")
        return header, signature
    except Exception as error:  # msgpack raises many kinds for malformed input
        raise MessageRefused(f"not a message ({type(error).__name__})") from None


def _header(data: bytes) -> dict[str, Any]:
    """What a header holds, which cannot be more than its bytes do."""
    try:
        header = msgpack.unpackb(
            data,
            max_map_len=_MAX_FIELDS,
            max_str_len=_MAX_TEXT,
            max_bin_len=DIGEST_BYTES,
            max_ext_len=0,
        )
    except Exception as error:  # msgpack raises many kinds for malformed input
        raise MessageRefused(f"not a message ({type(error).__name__})") from None
    if not isinstance(header, dict):
        raise MessageRefused("not a message (wrong structure)")
    return header
