"""Rounds as a server sees them: the demo that publishes what CKKS decrypts to, and HyperLock's
own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from hyperlock.encryption import totals
from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.grid import largest_value
from hyperlock.encryption.seal import Residues
from hyperlock.parties.identity import enrol
from tests.encryption.sums import raw_slots
from tests.parties.cast import SAMPLES, Cast
from tests.security.attack import Opened, tenseal_residues

DEMO_SCALE = 2.0**40


@dataclass(frozen=True)
class Demo:
    """Federated averaging as TenSEAL is commonly used for it: the decrypted floats are given to
    all.

    Attributes:
        server, owner: contexts without and with the secret key.
        updates: of every client, the plaintext and its ciphertexts.
        released: the sum's ciphertexts with their decryptions.
    """

    server: Any
    owner: Any
    updates: list[tuple[np.ndarray, list[bytes]]]
    released: list[Opened]


def demo(n: int, chain: list[int], clients: int, ciphertexts: int = 2) -> Demo:
    """One round of weights of about 0.1."""
    from hyperlock.encryption._tenseal import tenseal as ts

    owner = ts.context(ts.SCHEME_TYPE.CKKS, n, coeff_mod_bit_sizes=chain)
    server = ts.context_from(owner.serialize(save_secret_key=False))
    rng = np.random.default_rng(0)
    updates = []
    sums = [None] * ciphertexts
    for _ in range(clients):
        weights = rng.normal(0, 0.1, (ciphertexts, n // 2))
        updates.append(
            (weights, [ts.ckks_vector(server, part, DEMO_SCALE).serialize() for part in weights])
        )
        arrived = [ts.ckks_vector_from(server, chunk) for chunk in updates[-1][1]]
        sums = [new if old is None else old + new for old, new in zip(sums, arrived, strict=True)]
    chunks = [total.serialize() for total in sums]
    released = [
        Opened(
            tenseal_residues(server, chunk), np.array(ts.ckks_vector_from(owner, chunk).decrypt())
        )
        for chunk in chunks
    ]
    return Demo(server, owner, updates, released)


class Watched:
    """A scheme that notes the bytes that pass through it, whatever messages they travel in."""

    def __init__(self, scheme: Any) -> None:
        self.scheme = scheme
        self.secrets = []
        self.updates = []
        self.sums = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.scheme, name)

    def generate_keys(self) -> Any:
        pair = self.scheme.generate_keys()
        self.secrets.append(pair.secret)
        return pair

    def encryptor(self, public: bytes) -> Any:
        inner = self.scheme.encryptor(public)
        return SimpleNamespace(
            encrypt=lambda values: self._note(self.updates, inner.encrypt(values))
        )

    def accumulator(self, public: bytes, length: int) -> Any:
        inner = self.scheme.accumulator(public, length)
        return SimpleNamespace(add=inner.add, total=lambda: self._note(self.sums, inner.total()))

    @staticmethod
    def _note(kept: list[tuple[bytes, ...]], chunks: Any) -> tuple[bytes, ...]:
        kept.append(tuple(bytes(chunk) for chunk in chunks))
        return kept[-1]


@dataclass(frozen=True)
class Round:
    """A round of HyperLock's, up to the release.

    Attributes:
        scheme: its parameters are public.
        public, secret: the serialised key pair.
        vectors: what the clients sent, in the clear.
        updates, sums: the ciphertexts that the server has, of each client and of their sum.
        released: int64[length], what the key holder answered.
    """

    scheme: Any
    public: bytes
    secret: bytes
    vectors: list[np.ndarray]
    updates: list[tuple[bytes, ...]]
    sums: tuple[bytes, ...]
    released: np.ndarray

    @cached_property
    def server(self) -> Any:
        """The server's context."""
        from hyperlock.encryption._tenseal import tenseal as ts

        return ts.context_from(self.public)

    @cached_property
    def owner(self) -> Any:
        """The key holder's context."""
        from hyperlock.encryption._tenseal import tenseal as ts

        return ts.context_from(self.secret)

    def slots(self, vector: np.ndarray) -> np.ndarray:
        """int64[ciphertexts, slots]: how a vector that fills its ciphertexts is packed; the layout
        is public."""
        p = self.scheme.parameters
        fields = np.asarray(vector, np.int64).reshape(p.packing.fields, -1)
        return sum(field << (i * p.packing.field_bits) for i, field in enumerate(fields)).reshape(
            -1, p.slots
        )

    def known(self, vector: np.ndarray) -> list[np.ndarray]:
        """The slots of each ciphertext of a vector, as the scheme decrypts to them: complex128[N/2]
        for CKKS."""
        packed = self.slots(vector)
        if self.scheme.name == "bfv":
            return list(packed)
        real, imaginary = np.split(packed, 2, axis=1)
        return list(real + 1j * imaginary)

    def summed(self) -> list[Residues]:
        """The sum's ciphertexts."""
        return [self.scheme.layout.open_sum(chunk) for chunk in self.sums]

    def update(self, client: int) -> Residues:
        """The first ciphertext of a client's."""
        return self.scheme.layout.open_update(self.updates[client][0]).both

    def opened(self) -> list[Opened]:
        """The sum's ciphertexts with what the release says about them."""
        return [
            Opened(*pair) for pair in zip(self.summed(), self.known(self.released), strict=True)
        ]

    def raw(self, both: Residues) -> np.ndarray:
        """complex128[N/2]: what CKKS decrypts to before it is rounded to integers."""
        return raw_slots(self.scheme, self.secret, both)


@lru_cache
def play(scheme: str, n: int | str, value_bits: int, max_clients: int, clients: int = 3) -> Round:
    """A round with automatic parameters whose vectors fill two ciphertexts.

    Updates are as small against the grid's range as in training, where the range is four times the
    largest mean.
    """
    extent = Extent(value_bits)
    if scheme == "ckks":
        inner: Any = Ckks(ckks_parameters(int(n), "auto", "auto", extent, max_clients, 128))
    else:
        inner = Bfv(bfv_parameters(n, "auto", "auto", extent, max_clients, 128))
    p = inner.parameters
    watched = Watched(inner)
    length = 2 * p.slots * p.packing.fields
    names = [f"client-{i}" for i in range(clients)]
    cast = Cast(
        watched,
        sizes=(length - totals.width(value_bits),),
        parties=enrol("run", dict.fromkeys(names, SAMPLES)),
    )
    vectors = []
    for seed in range(clients):
        update = np.random.default_rng(seed).normal(
            0, largest_value(value_bits) / 16, sum(cast.sizes)
        )
        vectors.append(cast.vector(seed))
        vectors[-1][totals.width(value_bits) :] = np.rint(update)
    released = cast.sums(cast.keyholder.handle(cast.aggregate(vectors, names)))
    return Round(
        inner,
        cast.public,
        watched.secrets[0],
        vectors,
        watched.updates,
        watched.sums[0],
        released.astype(np.int64),
    )
