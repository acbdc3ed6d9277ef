"""The ways of aggregating updates that `python -m benchmarks aggregation` compares, one round of
each.

A way is a `Session`: what one client does, what the server does with each update and with the sum,
and what whoever holds the secret key does. Every session checks its own result, so that nothing
broken is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import msgpack
import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption import seeded
from hyperlock.encryption._tenseal import tenseal as ts
from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.encryption.grid import Grid
from hyperlock.encryption.plain import Plain
from hyperlock.encryption.scheme import Encryptor, KeyPair, Scheme
from hyperlock.parties.identity import SERVER, enrol
from hyperlock.parties.messages import Aggregate, Message, Update, key_id_of

LOCAL_STEPS = 10  # NVFlare weights an update by the client's local steps
# A mean of approximate ways may be this far off; updates have a standard deviation of 0.02.
FLOAT_ERROR = 1e-4
UPDATE_SCALE = 0.02


class Clock(Protocol):
    """Measures blocks by stage: their seconds or their peak memory."""

    def measure(self, stage: str) -> AbstractContextManager[None]:
        """Measure the block."""
        ...


class Session(Protocol):
    """One way, with its keys made."""

    def open(self) -> None:
        """Begin a round; not measured."""
        ...

    def client(self, update: NDArray[np.float32], clock: Clock) -> bytes:
        """What a client sends; its stages are quantise, encrypt and serialise."""
        ...

    def add(self, message: bytes, clock: Clock) -> None:
        """The server's work on one update; its stage is add."""
        ...

    def total(self, clock: Clock) -> bytes:
        """What the server sends back; its stage is total."""
        ...

    def decrypt(self, message: bytes, clock: Clock) -> None:
        """What the receiver does, then, unmeasured, the check against the plaintext result; its
        stage is decrypt."""
        ...


def run_round(
    session: Session, updates: Iterable[NDArray[np.float32]], clock: Clock
) -> tuple[int, int]:
    """One round, updates folded in one at a time; bytes of the last update and of the sum."""
    session.open()
    for update in updates:
        message = session.client(update, clock)
        session.add(message, clock)
        up = len(message)
        del message
    total = session.total(clock)
    session.decrypt(total, clock)
    return up, len(total)


class Ours:
    """HyperLock: quantise, one ciphertext a chunk, in the messages that the parties exchange."""

    def __init__(
        self,
        scheme: Scheme,
        sizes: tuple[int, ...],
        encryptor: Callable[[Scheme, KeyPair], Encryptor],
    ):
        self.scheme, self.keys, self._length = scheme, scheme.generate_keys(), sum(sizes)
        self._grid = Grid(sizes, (5 * UPDATE_SCALE,) * len(sizes), scheme.value_bits)
        self._encryptor, self._decryptor = (
            encryptor(scheme, self.keys),
            scheme.decryptor(self.keys.secret),
        )
        self._parties = enrol("run", ("client", SERVER))
        self._limits = {
            "max_parts": scheme.chunk_count(self._length),
            "max_part_bytes": scheme.max_chunk_bytes,
        }
        self._rng = np.random.default_rng(0)
        self._expected = np.empty(self._length, np.int32)
        self.open()

    def open(self) -> None:
        """A new sum."""
        self._sum = self.scheme.accumulator(self.keys.public, self._length)
        self._expected.fill(0)

    def client(self, update: NDArray[np.float32], clock: Clock) -> bytes:
        """Quantise, encrypt, and write the Update message."""
        with clock.measure("quantise"):
            values, _ = self._grid.quantise(update, self._rng)
        self._expected += values
        with clock.measure("encrypt"):
            return self._message(Update, "client", self._encryptor.encrypt(values))

    def add(self, message: bytes, clock: Clock) -> None:
        """Read the message and fold it in."""
        with clock.measure("add"):
            self._sum.add(Update.decode(message, self._parties[SERVER], **self._limits).parts)

    def total(self, clock: Clock) -> bytes:
        """The Aggregate message."""
        with clock.measure("total"):
            return self._message(Aggregate, SERVER, self._sum.total())

    def decrypt(self, message: bytes, clock: Clock) -> None:
        """The exact sums."""
        with clock.measure("decrypt"):
            chunks = Aggregate.decode(message, self._parties["client"], **self._limits).parts
            sums = self._decryptor.decrypt(chunks, self._length)
        if not np.array_equal(sums, self._expected):
            raise RuntimeError(f"{self.scheme.fingerprint}: the sums are not exact")

    def _message(self, kind: type[Message], sender: str, chunks: Iterable[bytes]) -> bytes:
        key_id, who = key_id_of(self.keys.public), self._parties[sender]
        return kind("run", 1, sender, key_id, self.scheme.fingerprint, self._length, chunks).encode(
            who
        )


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
        self._totals = (
            [a + b for a, b in zip(self._totals, values, strict=True)] if self._totals else values
        )
        self._count += 1

    def _check(self, means: Iterable[Any]) -> None:
        error = np.abs(
            np.concatenate([np.asarray(mean) for mean in means]) - self._expected / self._count
        ).max()
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


def vector_a_tensor(context: Any, tensors: Iterable[NDArray[Any]], clock: Clock) -> bytes:
    """Encrypt each tensor as one CKKS vector of TenSEAL's, and write them all."""
    with clock.measure("encrypt"):
        vectors = [ts.ckks_vector(context, tensor) for tensor in tensors]
    with clock.measure("serialise"):
        return msgpack.packb([vector.serialize() for vector in vectors])


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
        return vector_a_tensor(self._context, tensors, clock)

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
    """NVFlare 2's CKKS filters and aggregator, as their sources describe them.

    Clients share the secret key of a symmetric context. An update is weighted by its local steps
    before it is encrypted, and each tensor's vector is sent as bytes. The server adds, multiplies
    the sum by one over all steps, and sends each vector back together with its serialised context.
    """

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__(sizes)
        symmetric = ts.ENCRYPTION_TYPE.SYMMETRIC
        self._context = ts.context(
            ts.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 40], encryption_type=symmetric
        )
        self._context.global_scale = 2.0**40
        self._context.generate_relin_keys()
        self._server = ts.context_from(
            self._context.serialize(save_public_key=False, save_secret_key=False)
        )

    def client(self, update: NDArray[np.float32], clock: Clock) -> bytes:
        """Weight and encrypt each tensor."""
        tensors = self._split(update)
        with clock.measure("quantise"):
            tensors = [tensor * np.float64(LOCAL_STEPS) for tensor in tensors]
        return vector_a_tensor(self._context, tensors, clock)

    def add(self, message: bytes, clock: Clock) -> None:
        """Sum of ciphertexts."""
        with clock.measure("add"):
            self._fold(
                [ts.ckks_vector_from(self._server, part) for part in msgpack.unpackb(message)]
            )

    def total(self, clock: Clock) -> bytes:
        """The mean, still encrypted, a context with each vector."""
        with clock.measure("total"):
            means = [total * (1.0 / (LOCAL_STEPS * self._count)) for total in self._totals]
            message = msgpack.packb(
                [(mean.serialize(), mean.context().serialize()) for mean in means]
            )
        self._totals = []
        return message

    def decrypt(self, message: bytes, clock: Clock) -> None:
        """One client's decryption; it loads the vector's context, then binds the vector to its
        own."""
        with clock.measure("decrypt"):
            received = [
                ts.ckks_vector_from(ts.context_from(context), vec)
                for vec, context in msgpack.unpackb(message)
            ]
            means = []
            for vector in received:
                vector.link_context(self._context)
                means.append(vector.decrypt())
        self._check(means)


def public_key(scheme: Scheme, keys: KeyPair) -> Encryptor:
    """The client's half from the public key."""
    return scheme.encryptor(keys.public)


def shared_key(scheme: Scheme, keys: KeyPair) -> Encryptor:
    """The client's half where clients share the secret key: seeded symmetric ciphertexts."""
    encryptor = scheme.symmetric_encryptor(keys.secret)
    if encryptor is None:
        raise SystemExit(f"{scheme.name} has no seeded form here")
    return encryptor


def methods(value_bits: Iterable[int]) -> dict[str, Callable[[tuple[int, ...]], Session]]:
    """Every way by name; ours once for each of `value_bits`, named by value bits and most
    clients."""
    found: dict[str, Callable[[tuple[int, ...]], Session]] = {"float32": Float32}
    for bits in value_bits:
        found[f"none-{bits}x16"] = ours(Plain(bits, 16))
        found[f"ckks-{bits}x16"] = ours(Ckks(ckks_parameters(8192, "auto", "auto", bits, 16, 128)))
        for clients in (16, 128):
            found[f"bfv-{bits}x{clients}"] = ours(bfv(bits, clients))
        if seeded.available:
            found[f"bfv-{bits}x16-seeded"] = ours(bfv(bits, 16), shared_key)
    return found | {"demo": Demo, "nvflare": NvFlare}


def ours(
    scheme: Scheme, encryptor: Callable[[Scheme, KeyPair], Encryptor] = public_key
) -> Callable[[tuple[int, ...]], Session]:
    """A scheme of HyperLock as a way; `encryptor` makes the client's half."""
    return lambda sizes: Ours(scheme, sizes, encryptor)


def bfv(value_bits: int, max_clients: int) -> Bfv:
    """The preset that the rule finds."""
    return Bfv(bfv_parameters("auto", "auto", "auto", value_bits, max_clients, 128))
