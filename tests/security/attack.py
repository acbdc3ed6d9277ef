"""Key recovery from decryptions (Li and Micciancio, eprint 2020/1533), against ciphertexts of
TenSEAL and SEAL.

A ciphertext is two polynomials with c0 + c1 * s = m modulo q: s the secret key, m the message with
its noise. Who knows m, noise and all, has N equations in the N coefficients of s:

    s = (m - c0) / c1

CKKS decrypts to m itself, as the values of its slots: N/2 complex numbers, which are all of m.
HyperLock's CKKS puts integers in both their parts, so that one raw decryption of it determines s.
TenSEAL gives away their real parts only. They belong to m + m~, where m~ is m with 1/X for X, and
at every root of unity z they leave one equation in two unknowns,

    (m + m~ - c0 - c0~)(z) = c1(z) * s(z) + c1(1/z) * s(1/z)

so that two ciphertexts, all of whose slots are known, determine s. That the numbers are floats does
no harm: the coefficients of m are integers, and rounding finds them. BFV decrypts to m rounded to a
multiple of q/t, from which this attack has to guess that the noise was nothing.

Everything here is the server's: a context without the secret key, ciphertexts, and what was
released. The functions at the end need the key; they tell whether one was found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from hyperlock.encryption.bfv_parameters import RESERVED
from hyperlock.encryption.seal import Residues
from tests.security.ring import (
    Integers,
    Ring,
    bit_reversed,
    centred,
    integers,
    inverses,
    slot_places,
)


@dataclass(frozen=True)
class Opened:
    """A ciphertext, and what it is said to decrypt to.

    Attributes:
        both: its residues.
        slots: of it, every one: float64[N/2] of TenSEAL's CKKS, complex128[N/2] of HyperLock's;
            int64[N - RESERVED] of BFV.
    """

    both: Residues
    slots: np.ndarray


def recover_ckks(server: Any, first: Opened, second: Opened, scale: float) -> Integers:
    """object[N]: the secret key's coefficients if both decryptions are raw; else whatever solves
    the equations."""
    ring = Ring(*_ring(server))
    equations = []
    for opened in (first, second):
        c0, c1 = polynomials(server, opened.both)[0]
        message = ring.values(_doubled(opened.slots, scale))
        equations.append(((message - c0 - c0[::-1]) % ring.q, c1, c1[::-1]))
    (m1, a1, b1), (m2, a2, b2) = equations
    return ring.coefficients(
        (m1 * b2 - m2 * b1) * inverses((a1 * b2 - a2 * b1) % ring.q, ring.q) % ring.q
    )


def recover_ckks_whole(server: Any, opened: Opened, scale: float) -> Integers:
    """object[N]: the same from one ciphertext, both parts of whose slots are known."""
    return recover_from_phase(server, opened.both, _encoded(opened.slots, scale))


def recover_bfv(server: Any, opened: Opened) -> Integers:
    """object[N]: what would be the secret key, had the ciphertext no noise."""
    return recover_from_phase(server, opened.both, scaled_up(server, opened.slots))


def recover_from_phase(server: Any, both: Residues, phase: Integers) -> Integers:
    """object[N]: the secret key, from all coefficients of c0 + c1 * s modulo q, object[N]."""
    ring = Ring(*_ring(server))
    c0, c1 = polynomials(server, both)[0]
    return ring.coefficients((ring.values(phase % ring.q) - c0) * inverses(c1, ring.q) % ring.q)


def is_ternary(candidate: Integers) -> bool:
    """Whether this can be a key of SEAL's."""
    return set(candidate.tolist()) <= {-1, 0, 1}


def as_ternary(candidate: Integers, server: Any) -> Integers:
    """The best guess at a key that a candidate allows: which third of the range modulo q each
    coefficient lies in."""
    third = primes(server)[0] // 3
    return np.clip((candidate + third // 2) // third, -1, 1)


# What a key is good for


def phase(context: Any, both: Residues, key: Integers) -> Integers:
    """object[N], between -q/2 and q/2: the coefficients of c0 + c1 * key."""
    moduli = primes(context)
    n = _ring(context)[0]
    q = math.prod(moduli)
    total = integers([0] * n)
    for modulus, (c0, c1) in zip(moduli, polynomials(context, both), strict=True):
        ring = Ring(n, modulus)
        others = q // modulus
        residues = ring.coefficients((c0 + c1 * ring.values(key % modulus)) % modulus)
        total += residues * (others * pow(others, -1, modulus))
    return centred(total, q)


def decrypt_ckks(context: Any, both: Residues, key: Integers, scale: float) -> np.ndarray:
    """complex128[N/2]: a ciphertext's slots."""
    coefficients = phase(context, both, key).astype(np.longdouble) / scale
    n = len(coefficients)
    values = np.fft.ifft(coefficients * np.exp(1j * np.pi * np.arange(n) / n)) * n
    return values[slot_places(n)].astype(np.complex128)


def decrypt_bfv(context: Any, both: Residues, key: Integers) -> np.ndarray:
    """int64[N - RESERVED]: a ciphertext's slots."""
    q = math.prod(primes(context))
    t = plain_modulus(context)
    message = (phase(context, both, key) * t + q // 2) // q % t
    return centred(message[RESERVED:], t).astype(np.int64)


def secret_key(owner: Any) -> Integers:
    """object[N]: the coefficients of the key that a context holds."""
    n, q = _ring(owner)
    data = owner.secret_key().data.data()
    return Ring(n, q).coefficients(integers(data[i] for i in range(n))[bit_reversed(n)])


# Reading SEAL


def primes(context: Any) -> list[int]:
    """The data primes."""
    return [modulus.value() for modulus in _parameters(context).coeff_modulus()]


def plain_modulus(context: Any) -> int:
    """t."""
    return _parameters(context).plain_modulus().value()


def tenseal_residues(context: Any, chunk: bytes) -> Residues:
    """uint64[2, primes, N]: of a CKKS ciphertext as TenSEAL serialises it."""
    from hyperlock.encryption._tenseal import tenseal as ts

    (ciphertext,) = ts.ckks_vector_from(context, chunk).ciphertext()
    shape = (2, len(primes(context)), ciphertext.poly_modulus_degree())
    words = (ciphertext[i] for i in range(math.prod(shape)))
    return np.fromiter(words, np.uint64).reshape(shape)


def polynomials(context: Any, both: Residues) -> list[tuple[Integers, Integers]]:
    """For every data prime the values of c0 and c1, in natural order. BFV's are computed; CKKS
    carries values."""
    moduli = primes(context)
    n = both.shape[-1]
    words = integers(both.ravel()).reshape(2, len(moduli), n)
    if plain_modulus(context):
        first, second = (
            [Ring(n, q).values(row) for q, row in zip(moduli, part, strict=True)] for part in words
        )
    else:
        first, second = words[:, :, bit_reversed(n)]
    return list(zip(first, second, strict=True))


def _parameters(context: Any) -> Any:
    return context.seal_context().data.first_context_data().parms()


def _ring(context: Any) -> tuple[int, int]:
    """N and the first data prime: one is enough to find coefficients of -1, 0 and 1."""
    return _parameters(context).poly_modulus_degree(), primes(context)[0]


def _doubled(slots: np.ndarray, scale: float) -> Integers:
    """object[N]: the coefficients of m + m~, integers, from the slots' real parts. SEAL's encoding,
    but twice."""
    return _encoded(slots.real, 2 * scale)


def _encoded(slots: np.ndarray, scale: float) -> Integers:
    """object[N]: the coefficients of m, integers, from the slots. SEAL's encoding."""
    n = 2 * len(slots)
    values = np.zeros(n, np.clongdouble)
    values[slot_places(n)] = slots
    values += values[::-1].conj()
    twisted = np.fft.fft(values) * np.exp(-1j * np.pi * np.arange(n, dtype=np.longdouble) / n)
    return integers(np.rint(twisted.real * (scale / n)))


def scaled_up(context: Any, slots: np.ndarray) -> Integers:
    """object[N]: the coefficients of BFV's message without noise, the slots times q/t, rounded."""
    q = math.prod(primes(context))
    t = plain_modulus(context)
    message = integers([0] * RESERVED + slots.tolist()) % t
    return (message * q + t // 2) // t
