"""Half-size ciphertexts for those who hold the secret key.

A symmetric ciphertext's second polynomial is random, so SEAL can send the seed it grew from instead
of the polynomial. TenSEAL writes only whole ciphertexts; SEAL's own bindings write seeded ones, but
only to a path. The path here is that of an anonymous file in memory (`memfd_create`, Linux), which
no disk ever sees and which ends with the call. The bytes are then framed as TenSEAL frames its
vectors, so that the server reads both forms alike. Where the platform has no such file, `available`
is False and clients send the whole form.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption.ciphertexts import PackedScheme

available = hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd")


class SeededEncryptor:
    """Packs and encrypts under the secret key, one seeded ciphertext a chunk.

    Args:
        scheme: blocks, packing and layout.
        context: TenSEAL's, with the secret key.
        encode: writes packed int64 values into SEAL's plaintext.
    """

    def __init__(
        self, scheme: PackedScheme, context: Any, encode: Callable[[NDArray[np.int64], Any], None]
    ) -> None:
        from hyperlock.encryption._tenseal import sealapi

        self._scheme = scheme
        self._encode = encode
        self._new_plaintext = sealapi.Plaintext
        self._encryptor = sealapi.Encryptor(context.seal_context().data, context.secret_key().data)

    def encrypt(self, values: NDArray[np.integer]) -> Iterator[bytes]:
        """Serialised ciphertexts of int[length], one at a time, framed as TenSEAL's vectors."""
        packing = self._scheme.parameters.packing
        layout = self._scheme.layout
        memory = os.memfd_create("ciphertext", os.MFD_CLOEXEC)
        plaintext = self._new_plaintext()
        try:
            for start, stop in self._scheme.blocks(values.size):
                self._encode(packing.pack(values, start, stop), plaintext)
                # `save` opens the path anew and cuts the file first, so that nothing of the
                # ciphertext before is left.
                self._encryptor.encrypt_symmetric(plaintext).save(f"/proc/self/fd/{memory}")
                seal = os.pread(memory, os.fstat(memory).st_size, 0)
                yield layout.frame(stop - start, seal)
        finally:
            os.close(memory)
