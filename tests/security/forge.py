"""Messages and ciphertexts taken apart, field by field, and put together again with anything in
them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgpack
import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption.layout import Layout, varint
from hyperlock.parties.identity import Identity

_FIELDS = struct.Struct("<32sBQQQdQ")
SEED_BYTES = 65  # the generator's type, and 64 bytes of seed
PLAIN = 0
ZLIB = 1
ZSTD = 2


@dataclass(frozen=True)
class Header:
    """SEAL's, in front of every object; `total` is the object's size in bytes, the right one if
    None."""

    magic: int = 0xA15E
    size: int = 16
    major: int = 4
    minor: int = 3
    compression: int = PLAIN
    reserved: int = 0
    total: int | None = None

    def write(self, content: bytes) -> bytes:
        """The header and the content."""
        total = 16 + len(content) if self.total is None else self.total
        values = (
            self.magic,
            self.size,
            self.major,
            self.minor,
            self.compression,
            self.reserved,
            total,
        )
        return struct.pack("<HBBBBHQ", *values) + content


def same(data: bytes) -> bytes:
    """Not compressed."""
    return data


@dataclass(frozen=True)
class Forgery:
    """One ciphertext as TenSEAL frames it, with every field of it in reach.

    Attributes:
        slots: the frame's vector sizes, as the varints that stand there.
        outer, array, generator: the headers of the ciphertext, of its coefficients, and of the
            seed.
        count: number of coefficients; as many as there are if None.
        seed: type of the generator and seed, where half of the coefficients are left out.
        compress: what is done to the ciphertext's content, and `outer.compression` should say so.
        compress_array, compress_seed: the same for the nested objects.
        suffix: what follows the ciphertext in the frame.
    """

    slots: tuple[int, ...]
    parms_id: bytes
    ntt: int
    polynomials: int
    poly_modulus: int
    primes: int
    scale: float
    correction: int
    coefficients: NDArray[np.uint64] = field(repr=False)
    suffix: bytes
    seed: bytes | None = None
    count: int | None = None
    outer: Header = Header()
    array: Header = Header()
    generator: Header = Header()
    compress: Callable[[bytes], bytes] = same
    compress_array: Callable[[bytes], bytes] = same
    compress_seed: Callable[[bytes], bytes] = same

    @classmethod
    def of(cls, chunk: bytes, layout: Layout, slots: int) -> Forgery:
        """A good ciphertext taken apart."""
        opened = layout.open(chunk, slots)
        at = opened.index(struct.pack("<HB", 0xA15E, 16))
        header = Header(major=opened[at + 3], minor=opened[at + 4])
        body = opened[at + 16 : -len(layout.suffix) or None]
        names = ("parms_id", "ntt", "polynomials", "poly_modulus", "primes", "scale", "correction")
        fields = dict(zip(names, _FIELDS.unpack_from(body), strict=True))
        (count,) = struct.unpack_from("<Q", body, _FIELDS.size + 16)
        return cls(
            slots=(slots,),
            **fields,
            coefficients=np.frombuffer(body, "<u8", count, _FIELDS.size + 24),
            suffix=layout.suffix,
            seed=None if count == 2 * layout.poly_modulus * layout.primes else body[-SEED_BYTES:],
            outer=header,
            array=header,
            generator=header,
        )

    @property
    def content(self) -> bytes:
        """What stands behind the ciphertext's own header, before it is compressed."""
        fields = _FIELDS.pack(
            self.parms_id,
            self.ntt,
            self.polynomials,
            self.poly_modulus,
            self.primes,
            self.scale,
            self.correction,
        )
        count = self.coefficients.size if self.count is None else self.count
        array = self.array.write(
            self.compress_array(struct.pack("<Q", count) + self.coefficients.tobytes())
        )
        seed = b"" if self.seed is None else self.generator.write(self.compress_seed(self.seed))
        return fields + array + seed

    @property
    def seal(self) -> bytes:
        """The ciphertext as SEAL writes it."""
        return self.outer.write(self.compress(self.content))

    def write(self) -> bytes:
        """The ciphertext as TenSEAL frames it."""
        sizes = b"".join(map(varint, self.slots))
        seal = self.seal
        return b"".join(
            [b"\x0a", varint(len(sizes)), sizes, b"\x12", varint(len(seal)), seal, self.suffix]
        )

    def with_coefficient(self, place: int, value: int) -> Forgery:
        """With another value in one place."""
        coefficients = self.coefficients.copy()
        coefficients[place] = value
        return replace(self, coefficients=coefficients)


def opened(message: bytes) -> tuple[bytes, dict[str, object], bytes]:
    """A message's payload, header and signature, unchecked."""
    size = int.from_bytes(message[-4:], "little")
    header, signature = msgpack.unpackb(message[-4 - size : -4])
    return message[: -4 - size], msgpack.unpackb(header), signature


def closed(payload: bytes, header: object, signer: Identity) -> bytes:
    """A message of this payload and this header, or header bytes, with `signer`'s good
    signature."""
    header_bytes = header if isinstance(header, bytes) else msgpack.packb(header)
    return enclosed(payload, msgpack.packb([header_bytes, signer.sign(header_bytes)]))


def enclosed(payload: bytes, envelope: bytes) -> bytes:
    """A message of this payload and whatever stands where header and signature should."""
    return payload + envelope + len(envelope).to_bytes(4, "little")


def resealed(message: bytes, signer: Identity, **changes: object) -> bytes:
    """A message with other header fields, signed anew."""
    payload, header, _ = opened(message)
    return closed(payload, {**header, **changes}, signer)
