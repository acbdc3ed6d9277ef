"""Where `encrypt()` of BFV spends its time, and how much of it is TenSEAL's own call."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np

from benchmarks.methods import bfv, shared_key
from hyperlock.encryption import seeded
from hyperlock.encryption._tenseal import sealapi
from hyperlock.encryption._tenseal import tenseal as ts
from hyperlock.encryption.ciphertexts import public_context, secret_context
from hyperlock.encryption.grid import integer_type, largest_value


def encrypt_shares(
    value_bits: int, max_clients: int, size: int, repeats: int
) -> dict[str, list[float]]:
    """Seconds of each part of `encrypt()` and of the whole, every repeat; parts take turns with the
    whole."""
    scheme = bfv(value_bits, max_clients)
    keys = scheme.generate_keys()
    encryptor, context = scheme.encryptor(keys.public), public_context(keys.public)
    seal = secret_context(keys.secret)
    seal_encoder = sealapi.BatchEncoder(seal.seal_context().data)
    seal_encryptor = sealapi.Encryptor(seal.seal_context().data, seal.secret_key().data)
    top = largest_value(value_bits)
    values = np.random.default_rng(2).integers(-top, top + 1, size, integer_type(top))
    packing, blocks = scheme.parameters.packing, scheme.blocks(size)
    slices = [packing.pack(values, start, stop) for start, stop in blocks]
    lists = [part.tolist() for part in slices]
    vectors = [ts._ts_cpp.BFVVector(context.data, part) for part in lists]
    plaintexts = [sealapi.Plaintext() for _ in lists]
    for pair in zip(lists, plaintexts, strict=True):
        seal_encoder.encode(*pair)
    parts: dict[str, Callable[[], object]] = {
        "encrypt(), whole": lambda: list(encryptor.encrypt(values)),
        "pack": lambda: [packing.pack(values, start, stop) for start, stop in blocks],
        "ndarray to list": lambda: [part.tolist() for part in slices],
        "TenSEAL's constructor, on lists": lambda: [
            ts._ts_cpp.BFVVector(context.data, part) for part in lists
        ],
        "ts.bfv_vector, on ndarrays": lambda: [ts.bfv_vector(context, part) for part in slices],
        "TenSEAL's serialize": lambda: [vector.serialize() for vector in vectors],
        "SEAL's encode, on lists": lambda: [
            seal_encoder.encode(*pair) for pair in zip(lists, plaintexts, strict=True)
        ],
        "SEAL's encrypt_symmetric": lambda: [
            seal_encryptor.encrypt_symmetric(plain) for plain in plaintexts
        ],
    }
    if seeded.available:
        symmetric = shared_key(scheme, keys)
        parts["seeded encrypt(), whole"] = lambda: list(symmetric.encrypt(values))
    seconds: dict[str, list[float]] = defaultdict(list)
    names = list(parts)
    for repeat in range(repeats + 1):
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            start = time.process_time()
            parts[name]()
            if repeat:  # the first warms up
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
