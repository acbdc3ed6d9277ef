"""Where `encrypt()` of BFV spends its time, and how much of it is TenSEAL's own call."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks.methods import scheme_of, shared_key
from benchmarks.session import in_turns
from hyperlock.encryption import seeded
from hyperlock.encryption._tenseal import sealapi
from hyperlock.encryption._tenseal import tenseal as ts
from hyperlock.encryption.ciphertexts import public_context, secret_context
from hyperlock.encryption.grid import integer_type, largest_value
from hyperlock.encryption.scheme import KeyPair

Parts = dict[str, Callable[[], object]]  # by name, what is timed


def encrypt_shares(
    value_bits: int, max_clients: int, size: int, repeats: int
) -> dict[str, list[float]]:
    """Seconds of each part of `encrypt()` and of the whole, every repeat; parts take turns with the
    whole."""
    scheme = scheme_of("bfv", value_bits, max_clients)
    keys = scheme.generate_keys()
    encryptor = scheme.encryptor(keys.public)
    top = largest_value(value_bits)
    values = np.random.default_rng(2).integers(-top, top + 1, size, integer_type(top))
    packing = scheme.parameters.packing
    blocks = scheme.blocks(size)
    slices = [packing.pack(values, start, stop) for start, stop in blocks]
    parts: Parts = {
        "encrypt(), whole": lambda: list(encryptor.encrypt(values)),
        "pack": lambda: [packing.pack(values, start, stop) for start, stop in blocks],
        "ndarray to list": lambda: [part.tolist() for part in slices],
        **_tenseal_parts(keys, slices),
        **_seal_parts(keys, slices),
    }
    if seeded.available:
        symmetric = shared_key(scheme, keys)
        parts["seeded encrypt(), whole"] = lambda: list(symmetric.encrypt(values))
    return _times(parts, repeats)


def _tenseal_parts(keys: KeyPair, slices: list[NDArray]) -> Parts:
    """TenSEAL's own calls, with the public key."""
    context = public_context(keys.public)
    lists = [part.tolist() for part in slices]
    vectors = [ts._ts_cpp.BFVVector(context.data, part) for part in lists]
    return {
        "TenSEAL's constructor, on lists": lambda: [
            ts._ts_cpp.BFVVector(context.data, part) for part in lists
        ],
        "ts.bfv_vector, on ndarrays": lambda: [ts.bfv_vector(context, part) for part in slices],
        "TenSEAL's serialize": lambda: [vector.serialize() for vector in vectors],
    }


def _seal_parts(keys: KeyPair, slices: list[NDArray]) -> Parts:
    """SEAL's own calls, with the secret key."""
    context = secret_context(keys.secret)
    encoder = sealapi.BatchEncoder(context.seal_context().data)
    encryptor = sealapi.Encryptor(context.seal_context().data, context.secret_key().data)
    pairs = [(part.tolist(), sealapi.Plaintext()) for part in slices]
    for numbers, plain in pairs:
        encoder.encode(numbers, plain)
    return {
        "SEAL's encode, on lists": lambda: [
            encoder.encode(numbers, plain) for numbers, plain in pairs
        ],
        "SEAL's encrypt_symmetric": lambda: [
            encryptor.encrypt_symmetric(plain) for _, plain in pairs
        ],
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
