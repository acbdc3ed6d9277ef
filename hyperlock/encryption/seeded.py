"""Half-size ciphertexts for those who hold the secret key.

A symmetric ciphertext's second polynomial is random, so SEAL can send the seed it grew from instead of the polynomial.
TenSEAL writes only whole ciphertexts; SEAL's own bindings write seeded ones, but only to a path. The path here is that
of an anonymous file in memory (`memfd_create`, Linux), which no disk ever sees and which ends with the call. The bytes
are then framed as TenSEAL frames its vectors, so that the server reads both forms alike. Where the platform has no such
file, `available` is False and clients send the whole form.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption.packing import Packing

available = hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd")


class SeededEncryptor:
    """Packs and encrypts under the secret key, one seeded ciphertext a chunk.

    Args:
        context: TenSEAL's, with the secret key.
        packing: fields in a slot.
        slots: slots of a ciphertext.
        encode: writes packed int64 values into SEAL's plaintext.
        suffix: what TenSEAL appends to a vector of the scheme.
    """

    def __init__(
        self,
        context: Any,
        packing: Packing,
        slots: int,
        encode: Callable[[NDArray[np.int64], Any], None],
        suffix: bytes = b"",
    ) -> None:
        from hyperlock.encryption._tenseal import sealapi

        self._packing, self._slots, self._encode, self._suffix = packing, slots, encode, suffix
        self._new_plaintext = sealapi.Plaintext
        self._encryptor = sealapi.Encryptor(context.seal_context().data, context.secret_key().data)

    def encrypt(self, values: NDArray[np.int64]) -> tuple[bytes, ...]:
        """Serialised ciphertexts of int64[length]."""
        packed = self._packing.pack(values)
        memory = os.memfd_create("ciphertext", os.MFD_CLOEXEC)
        try:
            return tuple(
                self._encrypt_chunk(packed[start : start + self._slots], memory)
                for start in range(0, packed.size, self._slots)
            )
        finally:
            os.close(memory)

    def _encrypt_chunk(self, packed: NDArray[np.int64], memory: int) -> bytes:
        plaintext = self._new_plaintext()
        self._encode(packed, plaintext)
        self._encryptor.encrypt_symmetric(plaintext).save(f"/proc/self/fd/{memory}")
        body = os.pread(memory, os.fstat(memory).st_size, 0)
        # TenSEAL's protobuf: field 1, the vector's sizes; field 2, ciphertexts; then what the scheme adds.
        size = _varint(packed.size)
        return b"\x0a" + _varint(len(size)) + size + b"\x12" + _varint(len(body)) + body + self._suffix


def _varint(number: int) -> bytes:
    """Protobuf's variable-length integer."""
    digits = []
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])
