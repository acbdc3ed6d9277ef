"""What CKKS and BFV share: keys, and vectors of packed integers as sequences of ciphertexts.

Everything streams: one ciphertext at a time is packed and encrypted, opened and added, or decrypted
and unpacked. To add is to add residues modulo their primes, which takes no key and, but for
ciphertexts that grow from a seed, no SEAL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hyperlock.encryption import seal
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.layout import Layout, Received, refuse_transparent
from hyperlock.encryption.packing import Packing
from hyperlock.encryption.parameters import ciphertexts
from hyperlock.encryption.scheme import Chunk, KeyPair
from hyperlock.encryption.seal import Residues, Scratch
from hyperlock.errors import CiphertextRefused, ConfigError


@lru_cache(maxsize=1)
def tenseal_version() -> str:
    """The library's version: 0.3.16 and 0.3.18 cannot read each other's bytes."""
    from importlib.metadata import version

    return f"tenseal-{version('tenseal')}"


def make_keys(
    make_context: Callable[[], Any], poly_modulus: int, coeff_mod_bits: tuple[int, ...]
) -> KeyPair:
    """The keys of a new context of TenSEAL's, serialised apart; no Galois or relinearisation keys,
    which only multiplication and rotation need.

    Raises:
        ConfigError: SEAL has no such chain for this ring.
    """
    try:
        context = make_context()
    except (ValueError, RuntimeError) as error:
        # SEAL found too few primes of a size that are 1 modulo 2N
        raise ConfigError(
            "encryption.coeff_mod_bits",
            coeff_mod_bits,
            f"SEAL cannot build this chain at poly_modulus={poly_modulus} ({error})",
            hint="larger primes, or encryption.coeff_mod_bits=auto",
        ) from None
    only = {"save_galois_keys": False, "save_relin_keys": False}
    return KeyPair(
        public=context.serialize(save_public_key=True, save_secret_key=False, **only),
        secret=context.serialize(save_public_key=False, save_secret_key=True, **only),
    )


@lru_cache(maxsize=2)
def public_context(public: bytes) -> Any:
    """One loaded context for all parties of a process that hold the same public key."""
    from hyperlock.encryption._tenseal import tenseal as ts

    try:
        context = ts.context_from(public)
    except (ValueError, RuntimeError) as error:
        raise CiphertextRefused(f"not a public key: {error}") from None
    if context.has_secret_key():
        raise CiphertextRefused("these bytes contain a secret key; a public key was due")
    return context


def secret_context(secret: bytes) -> Any:
    """A loaded context that can decrypt; not kept, so that it lives as long as who holds it."""
    from hyperlock.encryption._tenseal import tenseal as ts

    return ts.context_from(secret)


class Parameters(Protocol):
    """What the parameters of every scheme over a ring have in common."""

    poly_modulus: int
    coeff_mod_bits: tuple[int, ...]
    packing: Packing
    extent: Extent
    max_clients: int
    security_bits: int

    @property
    def slots(self) -> int:
        """Packed integers of one ciphertext."""
        ...

    @property
    def layout(self) -> Layout:
        """How its ciphertexts look on the wire."""
        ...

    @property
    def margin_bits(self) -> float:
        """log2 of what noise may be over what it is bounded by."""
        ...

    @property
    def exact_to_bits(self) -> float:
        """-log2 of the probability that a coordinate is not exact."""
        ...

    @property
    def forgery_bits(self) -> float:
        """-log2 of the probability that a forgery against the key is released."""
        ...


class Codec(Protocol):
    """How packed integers become SEAL's plaintext, and what a ciphertext decrypts to."""

    def encode(self, file: Scratch, slots: NDArray[np.int64]) -> Any:
        """SEAL's plaintext of int64[count], the rest of its slots being zero."""
        ...

    def decrypt(self, file: Scratch, decryptor: Any, ciphertext: Any) -> NDArray[np.int64]:
        """Every slot of a ciphertext; CiphertextRefused unless all are certainly exact."""
        ...


class PackedScheme:
    """What CKKS and BFV have in common; each adds its keys' context and how slots are encoded.

    Attributes:
        parameters: checked.
        name: as in `encryption=NAME`.
        ntt: whether coefficients travel in NTT form.
    """

    parameters: Any
    name: str
    ntt: bool

    @property
    def encoding(self) -> str:
        """How a slot's integer becomes a plaintext, for the fingerprint."""
        raise NotImplementedError

    @property
    def figures(self) -> dict[str, object]:
        """The public parameters that are this scheme's alone."""
        raise NotImplementedError

    @property
    def scale(self) -> float:
        """What SEAL's ciphertexts of this scheme say is their scale."""
        raise NotImplementedError

    def new_context(self) -> Any:
        """TenSEAL's, with new keys; ValueError or RuntimeError if SEAL has no such chain."""
        raise NotImplementedError

    def codec(self, context: Any) -> Codec:
        """How its slots are encoded, under SEAL's context."""
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """Scheme, every parameter and TenSEAL's version: parties with equal fingerprints read each
        other's bytes."""
        p = self.parameters
        chain = "-".join(map(str, p.coeff_mod_bits))
        packing = f"{p.packing.fields}x{p.packing.field_bits}"
        dropped = f"d{p.layout.dropped}-{p.layout.dropped_seeded}"
        sums = f"{p.extent}x{p.max_clients}"
        return (
            f"{self.name}/{p.poly_modulus}/{chain}/{self.encoding}/{packing}/{dropped}/{sums}"
            f"/{tenseal_version()}"
        )

    def describe(self) -> dict[str, object]:
        """The public parameters, for people and for the tracking."""
        p = self.parameters
        return {
            "scheme": self.name,
            "poly_modulus": p.poly_modulus,
            "coeff_mod_bits": list(p.coeff_mod_bits),
            **self.figures,
            **p.extent.figures,
            "max_clients": p.max_clients,
            "fields_per_slot": p.packing.fields,
            "field_bits": p.packing.field_bits,
            "security_bits": p.security_bits,
            "exact_to_bits": round(p.exact_to_bits, 1),
            "forgery_bits": round(p.forgery_bits, 1),
            "fingerprint": self.fingerprint,
        }

    def generate_keys(self) -> KeyPair:
        """A new pair from the operating system's randomness; ConfigError if SEAL cannot build the
        chain."""
        return make_keys(
            self.new_context, self.parameters.poly_modulus, self.parameters.coeff_mod_bits
        )

    @property
    def extent(self) -> Extent:
        """How large values and their sums may be."""
        return self.parameters.extent

    @property
    def max_clients(self) -> int:
        """No more updates than this may be added."""
        return self.parameters.max_clients

    @property
    def security_bits(self) -> int:
        """Classical security in bits, by the tables of `parameters.py`."""
        return self.parameters.security_bits

    @property
    def layout(self) -> Layout:
        """How its ciphertexts look on the wire, to be checked before SEAL sees them."""
        return self.parameters.layout

    @property
    def max_chunk_bytes(self) -> int:
        """Of a ciphertext of a sum, whose residues are whole."""
        return self.layout.sum_bytes

    def chunk_count(self, length: int) -> int:
        """One ciphertext for every full set of slots, and one for the rest."""
        return ciphertexts(self.parameters.packing.slots(length), self.parameters.slots)

    def blocks(self, length: int) -> list[tuple[int, int]]:
        """First slot of each ciphertext of a vector of `length` values, and the one after its
        last."""
        slots = self.parameters.slots
        total = self.parameters.packing.slots(length)
        return [(start, min(start + slots, total)) for start in range(0, total, slots)]

    def encryptor(self, public: bytes) -> PackedEncryptor:
        """The client's half, under the public key; CiphertextRefused if it is none of these
        parameters."""
        return PackedEncryptor(self, self._public_context(public))

    def symmetric_encryptor(self, secret: bytes) -> SeededEncryptor:
        """For clients that hold the secret key: half the bytes."""
        return SeededEncryptor(self, secret_context(secret))

    def accumulator(self, public: bytes, length: int) -> CiphertextSum:
        """The server's half, for vectors of `length` values; CiphertextRefused if `public` is no
        public key of these parameters."""
        return CiphertextSum(self, self._public_context(public), length)

    def decryptor(self, secret: bytes) -> PackedDecryptor:
        """The key holder's half, under the secret key."""
        return PackedDecryptor(self, secret_context(secret))

    def _public_context(self, public: bytes) -> Any:
        """A loaded public key, whose parameters it says itself."""
        context = public_context(public)
        found = context.seal_context().data.first_context_data().parms()
        primes = tuple(prime.value() for prime in found.coeff_modulus())
        ring = (found.poly_modulus_degree(), primes, found.plain_modulus().value())
        due = (self.layout.poly_modulus, tuple(self.layout.primes), self._plain_modulus)
        if ring != due:
            raise CiphertextRefused("a public key of other parameters than this run's")
        return context

    @property
    def _plain_modulus(self) -> int:
        """0 for a scheme that has none."""
        return int(getattr(self.parameters, "plain_modulus", 0))

    def ciphertext(self, file: Scratch, context: Any, received: Received) -> Any:
        """SEAL's, of residues that were checked; CiphertextRefused if SEAL finds fault with
        them."""
        try:
            return seal.ciphertext(
                file, context, received.both, ntt=self.ntt, scale=self.scale, seed=received.seed
            )
        except (ValueError, RuntimeError) as error:
            raise CiphertextRefused(f"not a ciphertext of these parameters: {error}") from None


class PackedEncryptor:
    """Packs and encrypts under the public key, one ciphertext a chunk.

    Args:
        scheme: blocks, packing, encoding and layout.
        context: TenSEAL's, with the key that encrypts.
    """

    def __init__(self, scheme: PackedScheme, context: Any) -> None:
        from hyperlock.encryption._tenseal import sealapi

        self._scheme = scheme
        self._codec = scheme.codec(context.seal_context().data)
        self._encryptor = sealapi.Encryptor(context.seal_context().data, self._key(context).data)
        self._new_ciphertext = sealapi.Ciphertext

    def encrypt(self, values: NDArray[np.integer]) -> Iterator[bytes]:
        """Serialised ciphertexts of int[length], one at a time, as they are made."""
        packing = self._scheme.parameters.packing
        with seal.scratch() as file:
            for start, stop in self._scheme.blocks(values.size):
                plaintext = self._codec.encode(file, packing.pack(values, start, stop))
                yield self._encrypted(file, plaintext)

    def _key(self, context: Any) -> Any:
        return context.public_key()

    def _encrypted(self, file: Scratch, plaintext: Any) -> bytes:
        layout = self._scheme.layout
        ciphertext = self._new_ciphertext()
        self._encryptor.encrypt(plaintext, ciphertext)
        return layout.write_whole(seal.residues(file, ciphertext, len(layout.primes)))


class SeededEncryptor(PackedEncryptor):
    """The same under the secret key: the second polynomial of a symmetric ciphertext is random, so
    the seed that it grew from is sent instead."""

    def _key(self, context: Any) -> Any:
        return context.secret_key()

    def _encrypted(self, file: Scratch, plaintext: Any) -> bytes:
        layout = self._scheme.layout
        symmetric = self._encryptor.encrypt_symmetric(plaintext)
        return layout.write_seeded(*seal.seeded_residues(file, symmetric, len(layout.primes)))


class PackedDecryptor:
    """Decrypts sums under the secret key, one ciphertext after the other.

    Args:
        scheme: blocks, packing, encoding, layout and bounds.
        context: TenSEAL's, with the secret key.
    """

    def __init__(self, scheme: PackedScheme, context: Any) -> None:
        from hyperlock.encryption._tenseal import sealapi

        self._scheme = scheme
        self._context = context.seal_context().data
        self._decryptor = sealapi.Decryptor(self._context, context.secret_key().data)
        self._codec = scheme.codec(self._context)

    def decrypt(self, chunks: Iterable[Chunk], length: int) -> NDArray[np.integer]:
        """The exact sums, int[length] of the narrowest type that holds sums of `max_clients`
        updates.

        Raises:
            CiphertextRefused: a ciphertext is not of these parameters and key, is not zero where
                a sum of vectors is, or a sum lies outside what `max_clients` updates can sum to.
        """
        scheme = self._scheme
        packing = scheme.parameters.packing
        sums = np.empty(length, scheme.extent.sum_type(scheme.max_clients))

        # One ciphertext after the other, each to its block of slots.
        blocks = iter(scheme.blocks(length))
        with seal.scratch() as file:
            for chunk in chunks:
                start, stop = next(blocks, (0, 0))
                if stop == 0:
                    raise CiphertextRefused(f"the sum has more than {length} coordinates")
                slots = self._slots(file, chunk)
                if slots[stop - start :].any():
                    raise CiphertextRefused("the sum goes on behind its end: not a sum of updates")
                try:
                    packing.unpack(slots[: stop - start], sums, start)
                except OverflowError:
                    raise CiphertextRefused(
                        "the sum is out of range: not a sum of updates"
                    ) from None
        if next(blocks, None) is not None:
            raise CiphertextRefused(f"the sum has fewer than {length} coordinates")

        # The type is wider than what clients can sum to, and so is a field.
        top = scheme.extent.largest_sum(scheme.max_clients)
        if length and max(int(sums.max()), -int(sums.min())) > top:
            raise CiphertextRefused("the sum is out of range: not a sum of updates")
        return sums

    def _slots(self, file: Scratch, chunk: Chunk) -> NDArray[np.int64]:
        """Every slot of one serialised ciphertext."""
        received = Received(self._scheme.layout.open_sum(chunk))
        ciphertext = self._scheme.ciphertext(file, self._context, received)
        return self._codec.decrypt(file, self._decryptor, ciphertext)


class CiphertextSum:
    """A running sum of ciphertexts.

    Whole ones are added here; those that grow from a seed are grown and added by SEAL, and join the
    others at the end.

    Args:
        scheme: how ciphertexts are read.
        context: TenSEAL's, without the secret key, under which SEAL grows seeds.
        length: coordinates of the vectors.
    """

    def __init__(self, scheme: PackedScheme, context: Any, length: int) -> None:
        from hyperlock.encryption._tenseal import sealapi

        self._scheme = scheme
        self._context = context.seal_context().data
        self._evaluator = sealapi.Evaluator(self._context)
        layout = scheme.layout
        self._primes = np.array(layout.primes, np.uint64)[:, np.newaxis]
        shape = (2, len(layout.primes), layout.poly_modulus)
        self._sums = [np.zeros(shape, np.uint64) for _ in range(scheme.chunk_count(length))]
        self._grown: list[Any] = [None] * len(self._sums)

    def add(self, chunks: Sequence[Chunk]) -> None:
        """Fold one encrypted vector in, wholly or not at all; no more than one ciphertext of it is
        opened at a time."""
        if len(chunks) != len(self._sums):
            raise CiphertextRefused(f"{len(chunks)} ciphertexts instead of {len(self._sums)}")
        # If one of its ciphertexts is refused, those before are taken out again: sums are exact.
        done = 0
        with seal.scratch() as file:
            try:
                for i, chunk in enumerate(chunks):
                    self._fold(file, i, self._scheme.layout.open_update(chunk))
                    done += 1
            except CiphertextRefused:
                for i, chunk in enumerate(chunks[:done]):
                    self._take_out(file, i, self._scheme.layout.open_update(chunk))
                raise

    def total(self) -> Iterator[bytes]:
        """Serialised ciphertexts of the sum, which is given up as they are written."""
        layout = self._scheme.layout
        self._sums.reverse()
        self._grown.reverse()
        with seal.scratch() as file:
            while self._sums:
                both = self._sums.pop()
                grown = self._grown.pop()
                if grown is not None:
                    both = self._added(both, seal.residues(file, grown, len(layout.primes)))
                yield layout.write_sum(both)

    def _fold(self, file: Scratch, i: int, received: Received) -> None:
        if received.seed:
            more = self._scheme.ciphertext(file, self._context, received)
            if self._grown[i] is None:
                self._grown[i] = more
            else:
                self._evaluator.add_inplace(self._grown[i], more)
            return
        both = self._added(self._sums[i], received.both)
        refuse_transparent(both)
        self._sums[i] = both

    def _take_out(self, file: Scratch, i: int, received: Received) -> None:
        both = received.both
        if received.seed:
            # Not by SEAL, which refuses to subtract a ciphertext from itself.
            more = self._scheme.ciphertext(file, self._context, received)
            both = seal.residues(file, more, len(self._primes))
        self._sums[i] = self._added(self._sums[i], self._primes - both)

    def _added(self, one: Residues, other: Residues) -> Residues:
        """Residues from 0 to below their primes plus residues up to their primes."""
        both = one + other
        # What is too small to subtract from wraps around to what is larger.
        return np.minimum(both, both - self._primes, out=both)
