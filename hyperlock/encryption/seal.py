"""SEAL's ciphertexts and plaintexts as arrays of integers, and back.

TenSEAL's vectors write SEAL's ciphertexts but let nobody choose the encoding; SEAL's own bindings
do, but write and read only at a path, and their arrays one integer at a time. So a path is what
they are given: that of an anonymous file in memory (`memfd_create`, Linux), which no disk ever sees
and which ends with its `Scratch`. Where there is none, ciphertexts pass through a temporary file,
which nobody else may open; plaintexts never do, and pass as the polynomial's text, in ten times the
time and to the same integers.

All that is read here was written by SEAL in this process: what arrives from others is taken apart
in `layout.py`, and only residues that are known to be good come here. SEAL 4 writes a header of 16
bytes in front of every object, compressed by zstd or, which it reads too, as it is.
"""

from __future__ import annotations

import os
import re
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

in_memory = hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd")

# Magic, header size, version, version, compression, reserved, bytes in all.
_HEADER = struct.Struct("<HBBBBHQ")
_MAGIC = 0xA15E
_PLAIN = 0
_ZSTD = 2
# Parameters' id, NTT form, polynomials, N, primes, scale, correction factor.
_CIPHERTEXT = struct.Struct("<32sBQQQdQ")
# Parameters' id (none), coefficients, scale.
_PLAINTEXT = struct.Struct("<32sQd")
_COUNT = struct.Struct("<Q")
_BLAKE2 = b"\1"  # the generator that SEAL uses unless it is built otherwise
SEED_BYTES = 64

Residues = NDArray[np.uint64]


class Scratch:
    """A file that SEAL saves to and loads from; in memory where the platform can.

    Args:
        descriptor: the open file's.
        path: under which SEAL finds it.
    """

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor = descriptor
        self._path = path

    def raw(self, saved: Any) -> bytes:
        """What SEAL writes of an object."""
        # `save` cuts the file first, so that nothing of what was there before is left.
        saved.save(self._path)
        return os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0)

    def read(self, saved: Any) -> bytes:
        """The same without its header and not compressed."""
        data = self.raw(saved)
        body = memoryview(data)[_HEADER.size :]
        if data[5] == _ZSTD:
            return zstandard.ZstdDecompressor().decompress(body)
        return bytes(body)

    def write(self, into: Any, context: Any, *content: bytes | memoryview) -> None:
        """Let SEAL load an object of this content, given in pieces.

        Raises:
            ValueError, RuntimeError: it is not valid for the context's parameters.
        """
        size = sum(len(piece) for piece in content)
        # What was there before and is longer does not matter: the header says where this ends.
        os.pwrite(self._descriptor, b"".join([_header(size), *content]), 0)
        into.load(context, self._path)


@contextmanager
def scratch() -> Iterator[Scratch]:
    """A file for ciphertexts; for plaintexts too if `in_memory`."""
    if in_memory:
        descriptor = os.memfd_create("ciphertext", os.MFD_CLOEXEC)
        path = f"/proc/self/fd/{descriptor}"
    else:
        descriptor, path = tempfile.mkstemp(prefix="ciphertext")
    try:
        yield Scratch(descriptor, path)
    finally:
        os.close(descriptor)
        if not in_memory:
            os.unlink(path)


def residues(file: Scratch, ciphertext: Any, primes: int) -> Residues:
    """uint64[2, primes, N]: the coefficients of both polynomials modulo each prime."""
    body = file.read(ciphertext)
    start = _CIPHERTEXT.size + _HEADER.size + _COUNT.size
    return np.frombuffer(body, "<u8", offset=start).reshape(2, primes, -1)


def seeded_residues(file: Scratch, symmetric: Any, primes: int) -> tuple[Residues, bytes]:
    """uint64[primes, N] and 64 bytes: the first polynomial of a symmetric ciphertext, and the seed
    that the second one grows from."""
    body = file.read(symmetric)
    start = _CIPHERTEXT.size + _HEADER.size + _COUNT.size
    end = len(body) - _HEADER.size - len(_BLAKE2) - SEED_BYTES
    first = np.frombuffer(body[start:end], "<u8").reshape(primes, -1)
    return first, body[-SEED_BYTES:]


def ciphertext(
    file: Scratch, context: Any, both: Residues, *, ntt: bool, scale: float, seed: bytes = b""
) -> Any:
    """SEAL's ciphertext of these residues.

    Args:
        file: which it passes through.
        context: SEAL's.
        both: uint64[2, primes, N], or uint64[1, primes, N] with a seed.
        ntt: whether they are in NTT form.
        scale: CKKS'; 1 for BFV.
        seed: of the second polynomial; as long as SEAL's seeds are.
    """
    from hyperlock.encryption._tenseal import sealapi

    _, primes, degree = both.shape
    about = struct.pack("<4Q", *context.first_parms_id())
    content = [_CIPHERTEXT.pack(about, ntt, 2, degree, primes, scale, 1), *_array(both)]
    if seed:
        content += [_header(len(_BLAKE2 + seed)), _BLAKE2 + seed]
    found = sealapi.Ciphertext()
    file.write(found, context, *content)
    return found


def encode(file: Scratch, context: Any, coefficients: NDArray[np.uint64]) -> Any:
    """SEAL's plaintext polynomial of uint64[N] coefficients below t."""
    from hyperlock.encryption._tenseal import sealapi

    if in_memory:
        plaintext = sealapi.Plaintext()
        about = _PLAINTEXT.pack(bytes(32), coefficients.size, 1.0)
        file.write(plaintext, context, about, *_array(coefficients))
        return plaintext
    terms = [f"{int(c):X}x^{i}" for i, c in enumerate(coefficients.tolist()) if c]
    return sealapi.Plaintext(" + ".join(reversed(terms)).removesuffix("x^0") or "0")


def decode(file: Scratch, plaintext: Any, degree: int) -> NDArray[np.uint64]:
    """uint64[degree]: the coefficients of SEAL's plaintext polynomial."""
    found = np.zeros(degree, np.uint64)
    if in_memory:
        body = file.read(plaintext)
        start = _PLAINTEXT.size + _HEADER.size + _COUNT.size
        values = np.frombuffer(body, "<u8", offset=start)
        found[: values.size] = values
        return found
    for value, power in re.findall(r"([0-9A-F]+)(?:x\^(\d+))?", plaintext.to_string()):
        found[int(power or 0)] = int(value, 16)
    return found


def _array(numbers: NDArray[np.uint64]) -> list[bytes | memoryview]:
    """SEAL's array of integers, in pieces."""
    words = np.ascontiguousarray(numbers).data.cast("B")
    return [_header(_COUNT.size + words.nbytes), _COUNT.pack(numbers.size), words]


def _header(size: int) -> bytes:
    """In front of an object of SEAL's with so many bytes of content, not compressed."""
    return _HEADER.pack(_MAGIC, _HEADER.size, *_version(), _PLAIN, 0, _HEADER.size + size)


@lru_cache(maxsize=1)
def _version() -> tuple[int, int]:
    """Of the SEAL that is loaded, as it writes it itself."""
    from hyperlock.encryption._tenseal import sealapi

    with scratch() as file:
        _, _, major, minor, *_ = _HEADER.unpack_from(file.raw(sealapi.Plaintext("0")))
    return major, minor
