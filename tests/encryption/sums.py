"""Sums of real ciphertexts, and what is in them before anything is rounded or refused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from hyperlock.encryption import seal
from hyperlock.encryption.ciphertexts import PackedScheme, public_context, secret_context
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.layout import Received
from hyperlock.encryption.scheme import Scheme
from hyperlock.encryption.seal import Residues


def total(scheme: PackedScheme, public: bytes, vectors: Sequence[np.ndarray]) -> tuple[bytes, ...]:
    """The ciphertexts of the sum of vectors, each encrypted with the public key."""
    encryptor = scheme.encryptor(public)
    updates = (tuple(encryptor.encrypt(vector)) for vector in vectors)
    return added(scheme, public, updates, vectors[0].size)


def added(
    scheme: Scheme, public: bytes, updates: Iterable[Sequence[bytes]], length: int
) -> tuple[bytes, ...]:
    """The ciphertexts of the sum of encrypted vectors of so many coordinates."""
    accumulator = scheme.accumulator(public, length)
    for update in updates:
        accumulator.add(update)
    return tuple(accumulator.total())


def budget(scheme: PackedScheme, secret: bytes, chunk: bytes) -> int:
    """Bits of noise budget that SEAL finds in a summed BFV ciphertext."""
    from hyperlock.encryption._tenseal import sealapi

    context = secret_context(secret)
    decryptor = sealapi.Decryptor(context.seal_context().data, context.secret_key().data)
    received = Received(scheme.layout.open_sum(chunk))
    with seal.scratch() as file:
        ciphertext = scheme.ciphertext(file, context.seal_context().data, received)
    return int(decryptor.invariant_noise_budget(ciphertext))


def raw_slots(scheme: PackedScheme, secret: bytes, both: Residues) -> np.ndarray:
    """complex128[N/2]: what a CKKS ciphertext decrypts to before it is rounded to integers."""
    from hyperlock.encryption._tenseal import sealapi

    keys = secret_context(secret)
    context = keys.seal_context().data
    plaintext = sealapi.Plaintext()
    with seal.scratch() as file:
        ciphertext = scheme.ciphertext(file, context, Received(both))
    sealapi.Decryptor(context, keys.secret_key().data).decrypt(ciphertext, plaintext)
    return np.array(sealapi.CKKSEncoder(context).decode_complex(plaintext))


def raw_parts(scheme: Ckks, secret: bytes, chunk: bytes) -> np.ndarray:
    """float64[N]: real parts, then imaginary parts, of all slots of a summed CKKS ciphertext."""
    raw = raw_slots(scheme, secret, scheme.layout.open_sum(chunk))
    return np.concatenate([raw.real, raw.imag])


def of_parts(scheme: Ckks, public: bytes, parts: np.ndarray) -> bytes:
    """A summed CKKS ciphertext of float64[N], whatever these are."""
    from hyperlock.encryption._tenseal import sealapi

    context = public_context(public)
    plaintext = sealapi.Plaintext()
    real, imaginary = parts.reshape(2, -1)
    encoder = sealapi.CKKSEncoder(context.seal_context().data)
    encoder.encode((real + 1j * imaginary).tolist(), scheme.scale, plaintext)
    return encrypted(scheme, public, plaintext)


def of_coefficients(scheme: PackedScheme, public: bytes, coefficients: np.ndarray) -> bytes:
    """A summed BFV ciphertext of int[N] coefficients modulo t, whatever these are."""

    t = scheme.parameters.plain_modulus
    context = public_context(public).seal_context().data
    with seal.scratch() as file:
        plaintext = seal.encode(file, context, (coefficients % t).astype(np.uint64))
    return encrypted(scheme, public, plaintext)


def encrypted(scheme: PackedScheme, public: bytes, plaintext: Any) -> bytes:
    """A summed ciphertext of SEAL's plaintext."""
    from hyperlock.encryption._tenseal import sealapi

    context = public_context(public)
    encryptor = sealapi.Encryptor(context.seal_context().data, context.public_key().data)
    ciphertext = sealapi.Ciphertext()
    encryptor.encrypt(plaintext, ciphertext)
    with seal.scratch() as file:
        both = seal.residues(file, ciphertext, len(scheme.layout.primes))
    return scheme.layout.write_sum(both)
