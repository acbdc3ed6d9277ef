"""The ways of aggregating updates that `python -m benchmarks aggregation` compares, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from benchmarks.others import Demo, Float32, NvFlare
from benchmarks.session import UPDATE_SCALE, Clock, Session
from hyperlock.encryption.grid import Grid
from hyperlock.encryption.scheme import Encryptor, KeyPair, Scheme
from hyperlock.experiment.simulation import build_scheme
from hyperlock.parties.identity import SERVER, enrol
from hyperlock.parties.messages import DIGEST_BYTES, Aggregate, Message, Update, key_id_of
from hyperlock.settings.schema import SCHEMAS, Config, FedAvg

Way = Callable[[tuple[int, ...]], Session]  # makes a session for tensors of these sizes


class Ours:
    """HyperLock: quantise, one ciphertext a chunk, in the messages that the parties exchange."""

    def __init__(
        self,
        scheme: Scheme,
        sizes: tuple[int, ...],
        encryptor: Callable[[Scheme, KeyPair], Encryptor],
    ):
        self.scheme = scheme
        self.keys = scheme.generate_keys()
        self._length = sum(sizes)
        self._grid = Grid(sizes, (5 * UPDATE_SCALE,) * len(sizes), scheme.extent.value_bits)
        self._encryptor = encryptor(scheme, self.keys)
        self._decryptor = scheme.decryptor(self.keys.secret)
        self._parties = enrol("run", {"client": 600})
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
        message = kind(
            run="run",
            round=1,
            attempt=1,
            sender=sender,
            key_id=key_id_of(self.keys.public),
            fingerprint=self.scheme.fingerprint,
            length=self._length,
            terms=bytes(DIGEST_BYTES),
            train=bytes(DIGEST_BYTES),
            payload=chunks,
        )
        return message.encode(self._parties[sender])


def public_key(scheme: Scheme, keys: KeyPair) -> Encryptor:
    """The client's half from the public key."""
    return scheme.encryptor(keys.public)


def shared_key(scheme: Scheme, keys: KeyPair) -> Encryptor:
    """The client's half where clients share the secret key: seeded symmetric ciphertexts."""
    encryptor = scheme.symmetric_encryptor(keys.secret)
    if encryptor is None:
        raise SystemExit(f"{scheme.name} has no seeded form here")
    return encryptor


def methods(value_bits: Iterable[int]) -> dict[str, Way]:
    """Every way by name; ours once for each of `value_bits`, named by value bits and most
    clients."""
    found: dict[str, Way] = {"float32": Float32}
    for bits in value_bits:
        found[f"none-{bits}x16"] = ours("none", bits, 16)
        found[f"ckks-{bits}x16"] = ours("ckks", bits, 16)
        found[f"bfv-{bits}x16"] = ours("bfv", bits, 16)
        found[f"bfv-{bits}x128"] = ours("bfv", bits, 128)
        found[f"bfv-{bits}x16-seeded"] = ours("bfv", bits, 16, shared_key)
    return found | {"demo": Demo, "nvflare": NvFlare}


def ours(
    name: str,
    value_bits: int,
    max_clients: int,
    encryptor: Callable[[Scheme, KeyPair], Encryptor] = public_key,
) -> Way:
    """A scheme of HyperLock as a way; `encryptor` makes the client's half."""
    return lambda sizes: Ours(scheme_of(name, value_bits, max_clients, sizes), sizes, encryptor)


def scheme_of(name: str, value_bits: int, max_clients: int, sizes: tuple[int, ...]) -> Scheme:
    """A scheme as `encryption=NAME` makes it for a model, with all else as its settings have it."""
    settings = SCHEMAS["encryption"][name](value_bits=value_bits, max_clients=max_clients)
    return build_scheme(Config(federation=FedAvg(), encryption=settings), sizes)
