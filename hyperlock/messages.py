"""The messages that parties exchange, and their bytes.

All kinds share one header and carry their content as raw byte strings. `encode` and `decode` are each other's
inverse; `decode` treats its input as hostile: it bounds every length before anything is allocated, refuses
unknown or missing fields and a digest that does not match, and says why.

    kind        from -> to                payload
    PublicKey   key holder -> everyone    the public key
    Train       server -> client          model: float32[parameters], grid ranges: float32[tensors]; both absent
                                          when the clients hold the model (keys=clients)
    Update      client -> server          ciphertexts of totals and update
    Aggregate   server -> key holder      ciphertexts of the sum
    Release     key holder -> server      the exact sum: int64[length]

Numbers are little-endian. The sizes in the metrics are `len` of these bytes.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import msgpack

from hyperlock.errors import MessageRefused

VERSION = 1
_MAX_TEXT = 256  # bytes of any name in a header
_MAX_HEADER = 4096
_MAX_PUBLIC_KEY = 2**24


@dataclass(frozen=True)
class Message:
    """Header and payload that every kind shares.

    Attributes:
        run: the run's id; a message of another run is refused.
        round: the round, from 1; 0 before the first.
        sender: the party that wrote it.
        key_id: which public key (`key_id_of`).
        fingerprint: the scheme's, so that parties with other parameters or library versions are refused.
        length: number of coordinates of the vector that the payload holds, 0 if none.
        payload: raw byte strings.
    """

    kind: ClassVar[str] = ""

    run: str
    round: int
    sender: str
    key_id: str
    fingerprint: str
    length: int
    payload: tuple[bytes, ...]

    def encode(self) -> bytes:
        """The message's bytes: a header, the payload, and a SHA-256 over both."""
        header = msgpack.packb({"kind": self.kind, "version": VERSION, **self._header()})
        return msgpack.packb([header, _digest(header, self.payload), list(self.payload)])

    @classmethod
    def decode(cls, data: bytes, *, max_parts: int, max_part_bytes: int) -> Self:
        """Read one message of this kind.

        Args:
            data: what arrived.
            max_parts: the most byte strings the payload may have.
            max_part_bytes: the most bytes each of them may have.

        Raises:
            MessageRefused: anything about the bytes is not as it must be.
        """
        limit = _MAX_HEADER + max_parts * (max_part_bytes + 5)
        if not isinstance(data, bytes):
            raise MessageRefused(f"{type(data).__name__} where bytes were due")
        if len(data) > limit:
            raise MessageRefused(f"{len(data)} bytes where at most {limit} were due")
        try:
            header_bytes, digest, parts = msgpack.unpackb(
                data,
                max_bin_len=max(max_part_bytes, _MAX_HEADER),
                max_array_len=max(max_parts, 3),
                max_str_len=0,
                max_map_len=0,
                max_ext_len=0,
            )
            if not isinstance(header_bytes, bytes) or len(header_bytes) > _MAX_HEADER:
                raise ValueError("no header")
            header = msgpack.unpackb(
                header_bytes, max_map_len=16, max_str_len=_MAX_TEXT, max_array_len=0, max_bin_len=0, max_ext_len=0
            )
        except Exception as error:  # msgpack raises many kinds for malformed input
            raise MessageRefused(f"not a message ({type(error).__name__})") from None
        _check_types(header, digest, parts, max_parts, max_part_bytes)
        if header.get("version") != VERSION or type(header["version"]) is not int:
            raise MessageRefused(f"version {header.get('version')!r:.20} instead of {VERSION}")
        if header.get("kind") != cls.kind:
            raise MessageRefused(f"kind {header.get('kind')!r:.40} instead of {cls.kind!r}")
        if not hmac.compare_digest(digest, _digest(header_bytes, parts)):
            raise MessageRefused("the digest does not match: the bytes were altered on the way")
        values = {name: value for name, value in header.items() if name not in ("kind", "version")}
        expected = {field.name: field.type for field in fields(cls) if field.name != "payload"}
        if values.keys() != expected.keys():
            raise MessageRefused("unknown or missing header fields")
        for name, type_name in expected.items():
            if type(values[name]).__name__ != type_name:
                raise MessageRefused(f"header field {name} is not of type {type_name}")
        if values["round"] < 0 or values["length"] < 0:
            raise MessageRefused("negative round or length")
        return cls(**values, payload=tuple(parts))

    def expect(self, **values: object) -> None:
        """Refuse the message unless the named header fields have exactly these values."""
        for name, due in values.items():
            got = getattr(self, name)
            if got != due:
                raise MessageRefused(f"{name} {got!r:.80} instead of {due!r:.80}")

    def _header(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "payload"}


class PublicKey(Message):
    """The public key, once a run."""

    kind = "public_key"

    @classmethod
    def read(cls, data: bytes, *, run: str, fingerprint: str) -> bytes:
        """The serialised key out of this run's message, or MessageRefused."""
        message = cls.decode(data, max_parts=1, max_part_bytes=_MAX_PUBLIC_KEY)
        message.expect(run=run, round=0, fingerprint=fingerprint)
        if len(message.payload) != 1 or key_id_of(message.payload[0]) != message.key_id:
            raise MessageRefused("the public key is not the one that its key id names")
        return message.payload[0]


class Train(Message):
    """The start of a round: the global model, and the public ranges of the grid."""

    kind = "train"


class Update(Message):
    """One client's encrypted contribution."""

    kind = "update"


class Aggregate(Message):
    """The encrypted sum."""

    kind = "aggregate"


class Release(Message):
    """The exact sum in the clear."""

    kind = "release"


def kind_of(data: bytes) -> str:
    """The kind that a message claims to be, before anything else is believed of it; "" if it claims none."""
    try:
        unpacker = msgpack.Unpacker(max_buffer_size=_MAX_HEADER + 16)
        unpacker.feed(data[: _MAX_HEADER + 16])
        unpacker.read_array_header()
        return str(msgpack.unpackb(unpacker.unpack(), max_map_len=16, max_str_len=_MAX_TEXT)["kind"])
    except Exception:  # msgpack raises many kinds for malformed input
        return ""


def key_id_of(public_key: bytes) -> str:
    """The name of a public key: 128 bits of its SHA-256, in hexadecimal."""
    return hashlib.sha256(public_key).hexdigest()[:32]


def _digest(header: bytes, parts: tuple[bytes, ...] | list[bytes]) -> bytes:
    sha = hashlib.sha256(len(header).to_bytes(8, "little") + header)
    for part in parts:
        sha.update(len(part).to_bytes(8, "little"))
        sha.update(part)
    return sha.digest()


def _check_types(header: object, digest: object, parts: object, max_parts: int, max_part_bytes: int) -> None:
    if not isinstance(header, dict) or not isinstance(digest, bytes) or not isinstance(parts, list):
        raise MessageRefused("not a message (wrong structure)")
    if len(parts) > max_parts:
        raise MessageRefused(f"{len(parts)} payload parts where at most {max_parts} were due")
    for part in parts:
        if not isinstance(part, bytes) or len(part) > max_part_bytes:
            raise MessageRefused(f"a payload part is not a byte string of at most {max_part_bytes} bytes")
