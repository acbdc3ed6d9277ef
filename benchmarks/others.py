"""What others do, and what no encryption costs: float32, the original demo, and NVFlare."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from benchmarks.session import Clock
from hyperlock.encryption._tenseal import tenseal as ts

LOCAL_STEPS = 10  # NVFlare weights an update by the client's local steps
# A mean of approximate ways may be this far off; updates have a standard deviation of 0.02.
FLOAT_ERROR = 1e-4


class Approximate:
    """What ways that average floats share: tensors in msgpack, and a result that must come
    close."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self._ends = np.cumsum(sizes)[:-1]
        self._expected = np.empty(sum(sizes), np.float64)

    def open(self) -> None:
        """A new sum."""
        self._totals: list[Any] = []
        self._count = 0
        self._expected.fill(0)

    def _split(self, update: NDArray[np.float32]) -> list[NDArray[Any]]:
        self._expected += update
        return np.split(update, self._ends)

    def _fold(self, values: list[Any]) -> None:
        if self._totals:
            pairs = zip(self._totals, values, strict=True)
            self._totals = [total + value for total, value in pairs]
        else:
            self._totals = values
        self._count += 1

    def _check(self, means: Iterable[Any]) -> None:
        result = np.concatenate([np.asarray(mean) for mean in means])
        error = np.abs(result - self._expected / self._count).max()
        if not error < FLOAT_ERROR:
            raise RuntimeError(f"{type(self).__name__}: the mean is {error:.2g} off")


class Float32(Approximate):
    """No encryption: float32 tensors, summed in float64."""

    def client(self, update: NDArray[np.float32], clock: Clock) -> bytes:
        """The tensors' bytes."""
        tensors = self._split(update)
        with clock.measure("serialise"):
            return msgpack.packb([tensor.tobytes() for tensor in tensors])

    def add(self, message: bytes, clock: Clock) -> None:
        """Sum."""
        with clock.measure("add"):
            self._fold(
                [
                    np.frombuffer(part, np.float32).astype(np.float64)
                    for part in msgpack.unpackb(message)
                ]
            )

    def total(self, clock: Clock) -> bytes:
        """The mean."""
        with clock.measure("total"):
            return msgpack.packb(
                [(total / self._count).astype(np.float32).tobytes() for total in self._totals]
            )

    def decrypt(self, message: bytes, clock: Clock) -> None:
        """Read the mean."""
        with clock.measure("decrypt"):
            means = [np.frombuffer(part, np.float32) for part in msgpack.unpackb(message)]
        self._check(means)


class Demo(Float32):
    """The original demo: a CKKS vector a tensor; the server decrypts every update and averages in
    the clear."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__(sizes)
        self._context = ts.context(ts.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40, 60])
        self._context.global_scale = 2.0**40

    def client(self, update: NDArray[np.float32], clock: Clock) -> bytes:
        """Encrypt each tensor."""
        tensors = self._split(update)
        with clock.measure("encrypt"):
            vectors = [ts.ckks_vector(self._context, tensor) for tensor in tensors]
        with clock.measure("serialise"):
            return msgpack.packb([vector.serialize() for vector in vectors])

    def add(self, message: bytes, clock: Clock) -> None:
        """Decrypt, then sum."""
        with clock.measure("add"):
            vectors = [
                ts.ckks_vector_from(self._context, part) for part in msgpack.unpackb(message)
            ]
        with clock.measure("decrypt"):
            values = [np.array(vector.decrypt()) for vector in vectors]
        with clock.measure("add"):
            self._fold(values)


class NvFlare(Approximate):
    """NVFlare 2.9.0's CKKS filters, aggregator and shareable generator: the TenSEAL calls that they
    make, and what they put on the wire, without the rest of it.

    Clients share the secret key of a symmetric context. An update is weighted by its local steps
    before it is encrypted, and each tensor's vector is sent together with its serialised context,
    which the server loads for every tensor. The server adds, multiplies the sum by one over all
    steps, loads the last round's model as it replaces it, and sends vectors alone, which clients
    load into the context they have.
    """

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__(sizes)
        symmetric = ts.ENCRYPTION_TYPE.SYMMETRIC
        made = ts.context(
            ts.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40], encryption_type=symmetric
        )
        made.generate_relin_keys()
        made.global_scale = 2.0**40
        # Both sides load what was written at provisioning, the server without the secret key.
        kept = {"save_galois_keys": False, "save_relin_keys": True}
        secret = made.serialize(save_public_key=True, save_secret_key=True, **kept)
        public = made.serialize(save_public_key=False, save_secret_key=False, **kept)
        self._context = ts.context_from(secret)
        self._server = ts.context_from(public)
        self._model: list[bytes] = []  # of the last round, encrypted

    def client(self, update: NDArray[np.float32], clock: Clock) -> bytes:
        """Weight and encrypt each tensor, and write a context with each."""
        tensors = self._split(update)
        with clock.measure("quantise"):
            tensors = [tensor * np.float64(LOCAL_STEPS) for tensor in tensors]
        with clock.measure("encrypt"):
            vectors = [ts.ckks_vector(self._context, tensor) for tensor in tensors]
        with clock.measure("serialise"):
            return msgpack.packb(
                [(vector.serialize(), vector.context().serialize()) for vector in vectors]
            )

    def add(self, message: bytes, clock: Clock) -> None:
        """Sum of ciphertexts, each under the context that came with it."""
        with clock.measure("add"):
            self._fold(
                [
                    ts.ckks_vector_from(ts.context_from(context), vector)
                    for vector, context in msgpack.unpackb(message)
                ]
            )

    def total(self, clock: Clock) -> bytes:
        """The mean, still encrypted, as vectors alone."""
        with clock.measure("total"):
            means = [total * (1.0 / (LOCAL_STEPS * self._count)) for total in self._totals]
            for vector in self._model:
                ts.ckks_vector_from(self._server, vector)
            self._model = [mean.serialize() for mean in means]
            message = msgpack.packb(self._model)
        self._totals = []
        return message

    def decrypt(self, message: bytes, clock: Clock) -> None:
        """One client's decryption, to Python's lists."""
        with clock.measure("decrypt"):
            received = [
                ts.ckks_vector_from(self._context, vector) for vector in msgpack.unpackb(message)
            ]
            means = [vector.decrypt(self._context.secret_key()) for vector in received]
        self._check(means)
