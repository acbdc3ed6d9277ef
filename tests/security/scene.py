"""A round in which one client turned hostile, for the tests of what its ciphertexts can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from hyperlock.encryption import seal
from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ciphertexts import PackedScheme
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.seal import SEED_BYTES, Residues
from hyperlock.parties.messages import Update
from tests.parties.cast import Cast
from tests.security.forge import Forgery
from tests.security.keys import in_the_attempt, known_keys

COHORT = [f"client-{i}" for i in range(4)]
SCHEMES: dict[str, PackedScheme] = {
    "ckks": Ckks(ckks_parameters(4096, [36, 36, 37], 30, Extent(8), 16, 128)),
    # The same ring and primes: nothing in a ciphertext tells one from the other.
    "bfv of two primes": Bfv(bfv_parameters(4096, [36, 36, 37], "auto", Extent(8), 16, 128)),
    # Drops 3 bits of whole ciphertexts, 4 of seeded ones.
    "bfv": Bfv(bfv_parameters(2048, "auto", "auto", Extent(8), 128, 128)),
}
FORMS = ["whole", "seeded"]

Forge = Callable[[Forgery], Forgery]


class Watch:
    """In the place of `seal.ciphertext`: fails when SEAL is handed anything but residues below
    their primes, in one of two shapes.

    Attributes:
        handed: the first polynomial's residues of every ciphertext that SEAL was handed.
    """

    def __init__(self) -> None:
        self.handed: list[Residues] = []
        self._load = seal.ciphertext

    def __call__(
        self, file: Any, context: Any, both: Residues, *, ntt: bool, scale: float, seed: bytes = b""
    ) -> Any:
        parameters = context.first_context_data().parms()
        primes = [prime.value() for prime in parameters.coeff_modulus()]
        count = 1 if seed else 2
        assert both.dtype == np.uint64
        assert both.shape == (count, len(primes), parameters.poly_modulus_degree())
        assert (both.max(axis=(0, 2)) < np.array(primes, np.uint64)).all()
        assert len(seed) in (0, SEED_BYTES)
        assert count == 1 or both[1].any(axis=-1).all()
        assert (ntt, scale == 1) == ((False, True) if parameters.plain_modulus().value() else
                                     (True, False))  # fmt: skip
        self.handed.append(both[0].copy())
        return self._load(file, context, both, ntt=ntt, scale=scale, seed=seed)


class Scene:
    """The parties, their good messages, and client-3's ciphertexts to forge; updates take two, the
    second short.

    Attributes:
        cast: the parties.
        keys: of the attempt.
        form: of client-3's ciphertexts, whole or seeded.
        watch: what SEAL was handed since the round began, where a fixture put it into place.
    """

    def __init__(self, scheme: PackedScheme, form: str) -> None:
        self.cast = Cast(
            scheme, sizes=(scheme.parameters.slots * scheme.parameters.packing.fields,)
        )
        self.layout = scheme.layout
        self.keys = known_keys(self.cast)
        self.form = form
        self.chunks = self.encrypted(form, 9)
        self.good = [self.cast.update(name, self.cast.vector(i)) for i, name in enumerate(COHORT)]
        self.watch = Watch()

    @property
    def handed(self) -> list[Residues]:
        """What SEAL was handed."""
        return self.watch.handed

    def encrypted(self, form: str, seed: int) -> list[bytes]:
        """The ciphertexts of the vector of this seed, in one form."""
        scheme = self.cast.scheme
        encryptor = (
            scheme.symmetric_encryptor(self.keys.secret)
            if form == "seeded"
            else scheme.encryptor(self.keys.public)
        )
        return list(encryptor.encrypt(self.cast.vector(seed)))

    def taken_apart(self, place: int) -> Forgery:
        """Client-3's ciphertext at this place."""
        return Forgery.of(self.chunks[place], self.layout)

    def forged(self, place: int, forge: Forge) -> bytes:
        """The same, forged."""
        return forge(self.taken_apart(place)).write()

    def update(self, *chunks: bytes, sender: str = "client-3") -> bytes:
        """A good message with these ciphertexts."""
        message = self.cast.read(Update, self.good[COHORT.index(sender)])
        return self.cast.sign(replace(message, payload=chunks))

    def open(self) -> None:
        """Begin the attempt anew, under the same key."""
        self.cast.server.begin(*self.cast.at)
        self.cast.server.open(self.cast.key_message, COHORT)
        self.handed.clear()

    def receive(self, *chunks: bytes, sender: str = "client-3") -> str | None:
        """What the server says to such a message."""
        return self.cast.server.receive(self.update(*chunks, sender=sender))

    def offer(self, place: int, chunk: bytes) -> str | None:
        """What the server says when, in a new round after one good update, this stands at this
        place of another."""
        self.open()
        assert self.cast.server.receive(self.good[0]) is None
        self.handed.clear()
        return self.receive(*self.chunks[:place], chunk, *self.chunks[place + 1 :])

    def only_good_handed(self, place: int) -> bool:
        """Whether SEAL was handed nothing since but the good ciphertexts before this place: seeded
        ones, to be added and to be taken out again."""
        good = [self.taken_apart(i).residues[0] for i in range(place)] * 2
        due = good if self.form == "seeded" else []
        return len(self.handed) == len(due) and all(
            (ours == theirs).all() for ours, theirs in zip(self.handed, due, strict=True)
        )

    def closed(self) -> bytes:
        """What a key holder answers to the sum, who has released nothing yet."""
        return in_the_attempt(self.cast, self.keys).handle(self.cast.server.close())

    def finish(self, *senders: str, of: tuple[int, ...] = (0, 1, 2, 3)) -> None:
        """These still send good updates, and the round ends with the exact sum of the vectors of
        these seeds."""
        for sender in senders:
            assert self.cast.server.receive(self.good[COHORT.index(sender)]) is None
        release = self.closed()
        assert (self.cast.sums(release) == sum(self.cast.vector(i).astype(int) for i in of)).all()


def random_residues(forgery: Forgery) -> Forgery:
    """Below every prime, and otherwise anything."""
    rng = np.random.default_rng(0)
    numbers = [
        [rng.integers(0, prime >> dropped, row.size, np.uint64) for row, prime in rows]
        for rows, dropped in (
            (zip(polynomial, forgery.layout.primes, strict=True), 0 if i else forgery.dropped)
            for i, polynomial in enumerate(forgery.polynomials)
        )
    ]
    return replace(forgery, polynomials=np.array(numbers, np.uint64))
