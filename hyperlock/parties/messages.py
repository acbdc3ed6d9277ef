"""The messages that parties exchange, and their bytes.

All kinds share one header and carry their content as raw byte strings. `encode` and `decode` are
each other's inverse; `decode` treats its input as hostile: it bounds every length before anything
is allocated, refuses unknown or missing fields, a signature that is not the sender's and a digest
that does not match, and says why.

    kind        from -> to                payload
    PublicKey   key holder -> everyone    the public key
    Train       server -> client          model: float32[parameters], grid ranges: float32[tensors];
                                          both absent when the clients hold the model (keys=clients)
    Update      client -> server          ciphertexts of totals and update
    Aggregate   server -> key holder      ciphertexts of the sum
    Release     key holder -> server      the exact sum: int[length], as narrow as the scheme allows

On the wire: the payload's parts, end to end; a msgpack array of the header and an Ed25519 signature
over it; the size of that array in four bytes. The header names the parts' sizes and the SHA-256 of
them all, so that the signature covers every byte. It stands behind the payload so that parts can be
written as they are made, and they are read in place: neither end holds a large payload twice.
Numbers are little-endian. The sizes in the metrics are `len` of these bytes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, ClassVar, Self

import msgpack

from hyperlock.errors import MessageRefused
from hyperlock.parties.identity import KEYHOLDER, SERVER, SIGNATURE_BYTES, Identity

VERSION = 2
_MAX_TEXT = 256  # bytes of any name in a header
_MAX_FIELDS = 16
_MAX_FIXED_HEADER = 4096  # bytes of a header without its list of sizes
_MAX_INTEGER = 9  # bytes of one entry of that list, at most
_SIZE_BYTES = 4  # of the envelope's size
_ENVELOPE = 128  # bytes around a header: the signature, and what msgpack adds
_MAX_HEADER = 2**20  # where the payload's limits are not known yet
_MAX_PUBLIC_KEY = 2**24

# Of a header, in this order, between its kind and version and its sizes and digest.
_FIELDS: dict[str, type] = {
    "run": str,
    "round": int,
    "sender": str,
    "key_id": str,
    "fingerprint": str,
    "length": int,
}

Part = bytes | memoryview


@dataclass(frozen=True)
class Message:
    """Header and payload that every kind shares.

    Attributes:
        run: the run's id; a message of another run is refused.
        round: the round, from 1; 0 before the first.
        sender: the party that wrote it.
        key_id: which public key (`key_id_of`).
        fingerprint: the scheme's, so that parties with other parameters or library versions are
            refused.
        length: number of coordinates of the vector that the payload holds, 0 if none.
        payload: raw byte strings: any iterable where a message is written, which `encode` goes
            through once; a tuple of views into the message's bytes where one was read.
    """

    kind: ClassVar[str] = ""
    only_from: ClassVar[str] = ""  # the only party that sends this kind; "" where any client may
    of_vector: ClassVar[bool] = True  # whether the payload is a vector, whose length is named

    run: str
    round: int
    sender: str
    key_id: str
    fingerprint: str
    length: int
    payload: Iterable[Part]

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
                "sizes": sizes,
                "digest": sha.digest(),
            }
        )
        envelope = msgpack.packb([header, identity.sign(header)])
        out.write(envelope + len(envelope).to_bytes(_SIZE_BYTES, "little"))
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
        max_header = _MAX_FIXED_HEADER + _MAX_INTEGER * max_parts
        limit = max_header + _ENVELOPE + max_parts * max_part_bytes
        if not isinstance(data, bytes):
            raise MessageRefused(f"{type(data).__name__} where bytes were due")
        if len(data) > limit:
            raise MessageRefused(f"{len(data)} bytes where at most {limit} were due")

        # A header of this version and kind, each field of its type.
        header_bytes, signature, end = _envelope(data, max_header)
        header = _header(header_bytes)
        if type(header.get("version")) is not int or header["version"] != VERSION:
            raise MessageRefused(f"version {header.get('version')!r:.20} instead of {VERSION}")
        if header.get("kind") != cls.kind:
            raise MessageRefused(f"kind {header.get('kind')!r:.40} instead of {cls.kind!r}")
        _check_fields(header)
        _check_sizes(header["sizes"], max_parts, max_part_bytes)
        values = {name: header[name] for name in _FIELDS}

        # Signed by its sender, of this run, and of a kind that this sender sends.
        identity.verify(values["sender"], signature, header_bytes)
        if values["run"] != identity.run:
            raise MessageRefused(f"run {values['run']!r:.80} instead of {identity.run!r:.80}")
        if cls.only_from and values["sender"] != cls.only_from:
            raise MessageRefused(
                f"a {cls.kind} message from {values['sender']!r:.80} instead of {cls.only_from!r}"
            )

        # The payload that was signed, all of it and nothing else.
        ends = list(accumulate(header["sizes"], initial=0))
        if ends[-1] != end:
            raise MessageRefused(f"a payload of {end} bytes where the header names {ends[-1]}")
        view = memoryview(data)
        if hashlib.sha256(view[:end]).digest() != header["digest"]:
            raise MessageRefused("the digest does not match: the bytes were altered on the way")
        return cls(**values, payload=tuple(view[a:b] for a, b in pairwise(ends)))

    def expect(self, **values: object) -> None:
        """Refuse the message unless the named header fields have exactly these values."""
        for name, due in values.items():
            got = getattr(self, name)
            if got != due:
                raise MessageRefused(f"{name} {got!r:.80} instead of {due!r:.80}")


class PublicKey(Message):
    """The public key, once a run."""

    kind = "public_key"
    only_from = KEYHOLDER
    of_vector = False

    @classmethod
    def read(cls, data: bytes, identity: Identity, *, fingerprint: str) -> bytes:
        """The serialised key out of this run's message, or MessageRefused."""
        message = cls.decode(data, identity, max_parts=1, max_part_bytes=_MAX_PUBLIC_KEY)
        message.expect(round=0, fingerprint=fingerprint, length=0)
        key = b"".join(message.parts)
        if key_id_of(key) != message.key_id:
            raise MessageRefused("the public key is not the one that its key id names")
        return key


class Train(Message):
    """The start of a round: the global model, and the public ranges of the grid."""

    kind = "train"
    only_from = SERVER
    of_vector = False


class Update(Message):
    """One client's encrypted contribution."""

    kind = "update"


class Aggregate(Message):
    """The encrypted sum."""

    kind = "aggregate"
    only_from = SERVER


class Release(Message):
    """The exact sum in the clear."""

    kind = "release"
    only_from = KEYHOLDER


def kind_of(data: bytes) -> str:
    """The kind that a message claims to be, before anything else is believed of it; "" if it claims
    none."""
    try:
        header, _, _ = _envelope(data, _MAX_HEADER)
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


def key_id_of(public_key: bytes) -> str:
    """The name of a public key: 128 bits of its SHA-256, in hexadecimal."""
    return hashlib.sha256(public_key).hexdigest()[:32]


def _check_fields(header: dict[str, Any]) -> None:
    """Refuse a header unless it has every field and no other, each of its type."""
    if header.keys() != {*_FIELDS, "kind", "version", "sizes", "digest"}:
        raise MessageRefused("unknown or missing header fields")
    for name, kind in _FIELDS.items():
        if type(header[name]) is not kind:  # nor of a subclass: True is an int
            raise MessageRefused(f"header field {name} is not of type {kind.__name__}")
    if header["round"] < 0 or header["length"] < 0:
        raise MessageRefused("negative round or length")
    if type(header["digest"]) is not bytes or type(header["sizes"]) is not list:
        raise MessageRefused("not a message (wrong structure)")


def _check_sizes(sizes: list[Any], max_parts: int, max_part_bytes: int) -> None:
    """Refuse more parts than are due, and any larger one."""
    if len(sizes) > max_parts:
        raise MessageRefused(f"{len(sizes)} payload parts where at most {max_parts} were due")
    if not all(type(size) is int and 0 <= size <= max_part_bytes for size in sizes):
        raise MessageRefused(f"a payload part is not of at most {max_part_bytes} bytes")


def _envelope(data: bytes, max_header: int) -> tuple[bytes, bytes, int]:
    """Header bytes, signature, and where the payload ends."""
    size = int.from_bytes(data[-_SIZE_BYTES:], "little")
    end = len(data) - _SIZE_BYTES - size
    if end < 0 or size > max_header + _ENVELOPE:
        raise MessageRefused("not a message (no header)")
    try:
        header, signature = msgpack.unpackb(
            data[end:-_SIZE_BYTES],
            max_bin_len=max(max_header, SIGNATURE_BYTES),
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
        return header, signature, end
    except Exception as error:  # msgpack raises many kinds for malformed input
        raise MessageRefused(f"not a message ({type(error).__name__})") from None


def _header(data: bytes) -> dict[str, Any]:
    """What a header holds, which cannot be more than its bytes do."""
    try:
        header = msgpack.unpackb(
            data,
            max_map_len=_MAX_FIELDS,
            max_str_len=_MAX_TEXT,
            max_bin_len=hashlib.sha256().digest_size,
            max_ext_len=0,
        )
    except Exception as error:  # msgpack raises many kinds for malformed input
        raise MessageRefused(f"not a message ({type(error).__name__})") from None
    if not isinstance(header, dict):
        raise MessageRefused("not a message (wrong structure)")
    return header
