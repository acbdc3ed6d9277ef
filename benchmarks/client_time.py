"""Where `encrypt()` of BFV spends its time, and how much of it is SEAL's own."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import cast

import numpy as np
from numpy.typing import NDArray

from benchmarks.methods import scheme_of, shared_key
from benchmarks.session import in_turns
from hyperlock.encryption import seal
from hyperlock.encryption._tenseal import sealapi
from hyperlock.encryption.ciphertexts import PackedScheme, public_context, secret_context
from hyperlock.encryption.grid import integer_type, largest_value
from hyperlock.encryption.scheme import KeyPair

Parts = dict[str, Callable[[], object]]  # by name, what is timed


def encrypt_shares(
    value_bits: int, max_clients: int, size: int, repeats: int
) -> dict[str, list[float]]:
    """Seconds of each part of `encrypt()` and of the whole, every repeat; parts take turns with the
    whole."""
    scheme = cast(PackedScheme, scheme_of("bfv", value_bits, max_clients, (size,)))
    keys = scheme.generate_keys()
    encryptor = scheme.encryptor(keys.public)
    symmetric = shared_key(scheme, keys)
    top = largest_value(value_bits)
    values = np.random.default_rng(2).integers(-top, top + 1, size, integer_type(top))
    packing = scheme.parameters.packing
    blocks = scheme.blocks(size)
    slices = [packing.pack(values, start, stop) for start, stop in blocks]
    with seal.scratch() as file:
        parts: Parts = {
            "encrypt(), whole": lambda: list(encryptor.encrypt(values)),
            "pack fields": lambda: [packing.pack(values, start, stop) for start, stop in blocks],
            **_seal_parts(scheme, keys, slices, file),
            "seeded encrypt(), whole": lambda: list(symmetric.encrypt(values)),
        }
        return _times(parts, repeats)


def _seal_parts(
    scheme: PackedScheme, keys: KeyPair, slices: list[NDArray], file: seal.Scratch
) -> Parts:
    """SEAL's own calls and what is around them, one ciphertext for all."""
    public = public_context(keys.public)
    context = public.seal_context().data
    secret = secret_context(keys.secret)
    codec = scheme.codec(context)
    encryptor = sealapi.Encryptor(context, public.public_key().data)
    symmetric = sealapi.Encryptor(secret.seal_context().data, secret.secret_key().data)
    plaintext = codec.encode(file, slices[0])
    ciphertext = sealapi.Ciphertext()
    encryptor.encrypt(plaintext, ciphertext)
    primes = len(scheme.layout.primes)
    both = seal.residues(file, ciphertext, primes)
    return {
        "plaintext to SEAL": lambda: [codec.encode(file, part) for part in slices],
        "SEAL's encrypt": lambda: [encryptor.encrypt(plaintext, ciphertext) for _ in slices],
        "SEAL's encrypt_symmetric": lambda: [
            symmetric.encrypt_symmetric(plaintext) for _ in slices
        ],
        "residues from SEAL": lambda: [seal.residues(file, ciphertext, primes) for _ in slices],
        "residues to their bits": lambda: [scheme.layout.write_whole(both) for _ in slices],
    }


def _times(parts: Parts, repeats: int) -> dict[str, list[float]]:
    """Processor seconds of each part, every repeat but a first one that warms up."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for repeat in range(repeats + 1):
        for name in in_turns(list(parts), repeat):
            start = time.process_time()
            parts[name]()
            if repeat:
                seconds[name].append(time.process_time() - start)
    return seconds


def shares_table(seconds: dict[str, list[float]], size: int) -> str:
    """Markdown: microseconds per parameter of each part, and its share of the whole by medians."""
    whole = statistics.median(seconds["encrypt(), whole"])
    heading = (
        f"| part of BFV encrypt(), {size:,} parameters "
        "| microseconds per parameter | of the whole |"
    )
    rows = [heading, "| --- | --- | --- |"]
    for name, values in seconds.items():
        median = statistics.median(values)
        rows.append(f"| {name} | {1e6 * median / size:.4f} | {median / whole:.0%} |")
    return "\n".join(rows)
