"""What a serialised ciphertext looks like, checked byte for byte before SEAL sees it.

SEAL's deserialiser was not written for hostile input: it takes zstd and zlib, nested ones too,
older versions inflated all of a stream before they looked at what they got, and bytes behind an
object are ignored. Here a ciphertext is taken apart first. Everything but its coefficients is known
beforehand, so it is compared; the stream is inflated under a bound; and SEAL receives an
uncompressed ciphertext of exactly the right size. What remains for SEAL is to check its own minor
version, that the parameters' id is known, and that the coefficients are below their primes.

TenSEAL 0.3.16 to 0.3.18 frame a vector as protobuf (field 1 its size, field 2 one SEAL object, for
CKKS field 3 the scale); SEAL 4 writes a header of 16 bytes, the ciphertext's fields, and its
coefficients, or half of them and the seed of the other half.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import zstandard

from hyperlock.errors import CiphertextRefused

# Magic, header size, version, version, compression, reserved, bytes in all.
_SEAL = struct.Struct("<HBBBBHQ")
_MAGIC = 0xA15E
_SEAL_MAJOR = 4  # for older ones SEAL takes other paths
_PLAIN = 0
_ZSTD = 2
_FIELDS = struct.Struct("<BQQQdQ")  # NTT form, polynomials, N, primes, scale, correction factor
_ID_BYTES = 32
_COUNT = struct.Struct("<Q")
_SEED_BYTES = _SEAL.size + 65  # type of the generator, and 64 bytes of seed
_BLAKE2 = 1  # the generator that SEAL uses unless it is built otherwise


@dataclass(frozen=True)
class Layout:
    """How a scheme's ciphertexts are laid out.

    Attributes:
        poly_modulus: N.
        primes: data primes, without the special one.
        ntt: whether coefficients are in NTT form (CKKS) or not (BFV).
        scale: CKKS' scale; 1 for BFV.
    """

    poly_modulus: int
    primes: int
    ntt: bool
    scale: float

    @property
    def suffix(self) -> bytes:
        """What TenSEAL appends to a vector: CKKS' scale."""
        return b"\x19" + struct.pack("<d", self.scale) if self.ntt else b""

    def frame(self, size: int, seal: bytes) -> bytes:
        """A SEAL ciphertext as TenSEAL's vector of `size` slots."""
        slots = varint(size)
        return b"".join(
            [b"\x0a", varint(len(slots)), slots, b"\x12", varint(len(seal)), seal, self.suffix]
        )

    def open(self, chunk: bytes | memoryview, size: int) -> bytes:
        """One serialised vector of exactly `size` slots, made harmless: the same vector,
        uncompressed.

        Raises:
            CiphertextRefused: the bytes are not one fresh ciphertext of this layout.
        """
        # TenSEAL's frame, which is known but for the length of what it frames.
        if bytes(chunk[:1]) != b"\x0a":
            raise CiphertextRefused("not a ciphertext")
        slots = varint(size)
        start = b"".join([b"\x0a", varint(len(slots)), slots, b"\x12"])
        if bytes(chunk[: len(start)]) != start:
            raise CiphertextRefused(f"not one ciphertext of {size} slots")
        length, used = _read_varint(bytes(chunk[len(start) : len(start) + 5]))
        start_of_seal = len(start) + used
        seal = bytes(chunk[start_of_seal : start_of_seal + length])
        if len(seal) != length or bytes(chunk[start_of_seal + length :]) != self.suffix:
            raise CiphertextRefused(
                "not one ciphertext of these parameters: something lacks or follows"
            )
        return self.frame(size, self._open_seal(seal))

    def _open_seal(self, seal: bytes) -> bytes:
        """A SEAL ciphertext, whole or seeded, as the same one uncompressed."""
        # Inflated, and of one of two sizes: with both polynomials, or with one and a seed.
        coefficients = 2 * self.poly_modulus * self.primes
        whole = _ID_BYTES + _FIELDS.size + _SEAL.size + _COUNT.size + 8 * coefficients
        seeded = whole - 4 * coefficients + _SEED_BYTES
        body, version = _seal_object(seal, (whole, seeded))

        # Its fields.
        _, *found = _FIELDS.unpack_from(body, _ID_BYTES)
        due = [2, self.poly_modulus, self.primes, self.scale, 1]
        if body[_ID_BYTES] != self.ntt or found != due:
            raise CiphertextRefused(f"a ciphertext of other parameters: {found} instead of {due}")

        # Its coefficients, an object of their own, and the seed.
        stored = coefficients if len(body) == whole else coefficients // 2
        at = _ID_BYTES + _FIELDS.size
        _plain_header(body, at, version, _SEAL.size + _COUNT.size + 8 * stored)
        if _COUNT.unpack_from(body, at + _SEAL.size) != (stored,):
            raise CiphertextRefused("a ciphertext of another number of coefficients")
        if stored < coefficients:
            _plain_header(body, len(body) - _SEED_BYTES, version, _SEED_BYTES)
            if body[_SEAL.size - _SEED_BYTES] != _BLAKE2:
                raise CiphertextRefused("a ciphertext grown from a seed of another generator")
        elif body.endswith(bytes(4 * coefficients)):
            raise CiphertextRefused(
                "a ciphertext without its second polynomial, which anyone can read"
            )
        return _SEAL.pack(_MAGIC, _SEAL.size, *version, _PLAIN, 0, _SEAL.size + len(body)) + body


def _seal_object(data: bytes, sizes: tuple[int, ...]) -> tuple[bytes, tuple[int, int]]:
    """A SEAL object's content, inflated, of one of `sizes`; and the library's version."""
    if len(data) < _SEAL.size:
        raise CiphertextRefused("a ciphertext without a header")
    magic, header, major, minor, compression, reserved, total = _SEAL.unpack_from(data)
    if (magic, header, major, reserved, total) != (_MAGIC, _SEAL.size, _SEAL_MAJOR, 0, len(data)):
        raise CiphertextRefused("a ciphertext with a wrong header")
    body = data[_SEAL.size :]
    if compression == _ZSTD:
        try:
            size = zstandard.frame_content_size(body)
            if size not in sizes:  # what it would inflate to, and zstandard holds it to that
                raise CiphertextRefused(
                    f"a ciphertext that inflates to {size} bytes instead of {sizes}"
                )
            body = zstandard.ZstdDecompressor().decompress(body, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise CiphertextRefused(f"a ciphertext that does not inflate: {error}") from None
    elif compression != _PLAIN:
        raise CiphertextRefused(f"a ciphertext of unknown compression {compression}")
    if len(body) not in sizes:
        raise CiphertextRefused(f"a ciphertext of {len(body)} bytes instead of {sizes}")
    return body, (major, minor)


def _plain_header(body: bytes, at: int, version: tuple[int, int], total: int) -> None:
    """A nested object must be of the same version, uncompressed, and end where it should."""
    if _SEAL.unpack_from(body, at) != (_MAGIC, _SEAL.size, *version, _PLAIN, 0, total):
        raise CiphertextRefused("a ciphertext with a wrong nested header")


def varint(number: int) -> bytes:
    """Protobuf's variable-length integer: seven bits a byte, the lowest first."""
    digits = []
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


def _read_varint(data: bytes) -> tuple[int, int]:
    """The number that `varint` writes at the start of these bytes, and how many it took."""
    number = 0
    for i, byte in enumerate(data):
        number |= (byte & 127) << (7 * i)
        if byte < 128:
            if varint(number) != data[: i + 1]:
                break
            return number, i + 1
    raise CiphertextRefused("a ciphertext with a wrong length")
