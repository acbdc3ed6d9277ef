"""trust=malicious: what parties promise, show and sign, so that nobody has to believe the server.

The server may do anything there, together with clients; what it could gain by that is taken away:

- who takes part is drawn by the key holder, from a seed that it commits to before the first attempt
  and shows after the last (`Cohorts`);
- clients start from the model that they have stepped themselves, by signed Releases;
- each client commits to its whole Update before anybody's ciphertexts are seen, and the key holder
  closes the roster of commitments, once for a key: no ciphertext can be made from another's;
- a witness adds the same Updates, and only a sum that it has signed too is decrypted (`Tallied`).

What stays possible is that the witness or the key holder helps the server (docs/security.md).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hyperlock.errors import MessageRefused
from hyperlock.parties.messages import Announced, Part, Tally

Draw = Callable[[int, int, int], Sequence[str]]  # from seed, round and attempt to a cohort
_NONCE_BYTES = 32
_SEED_BYTES = 8


def unequal(commitments: Mapping[str, bytes]) -> dict[str, bytes]:
    """Commitments by name, without any that two have in common: such count for none."""
    times = Counter(commitments.values())
    return {name: value for name, value in commitments.items() if times[value] == 1}


def digest(data: bytes | memoryview) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


def sum_digest(ciphertexts: Sequence[Part]) -> bytes:
    """SHA-256 of a sum's ciphertexts: addition modulo q has one result, and its residues are
    written in one form."""
    found = hashlib.sha256()
    for chunk in ciphertexts:
        found.update(chunk)
    return found.digest()


@dataclass(frozen=True)
class Cohorts:
    """Who is asked in which attempt, as the key holder draws it.

    Attributes:
        seed: what is drawn from, shown when the run is over.
        nonce: 32 bytes that hide it until then.
    """

    seed: int
    nonce: bytes

    @property
    def commitment(self) -> bytes:
        """What everybody is told before the first attempt."""
        return digest(b"hyperlock cohorts" + self.nonce + str(self.seed).encode())

    def write(self) -> bytes:
        """The payload of Shown."""
        return self.nonce + self.seed.to_bytes(_SEED_BYTES, "little")

    @classmethod
    def read(cls, payload: bytes) -> Cohorts:
        """The inverse; MessageRefused if it is none."""
        if len(payload) != _NONCE_BYTES + _SEED_BYTES:
            raise MessageRefused("not a cohorts' seed")
        return cls(int.from_bytes(payload[_NONCE_BYTES:], "little"), payload[:_NONCE_BYTES])


@dataclass(frozen=True)
class Tallied:
    """What a witness signs.

    Attributes:
        roster: SHA-256 of the roster's payload.
        total: `sum_digest` of what it added.
        names: whose Updates these were.
    """

    roster: bytes
    total: bytes
    names: tuple[str, ...]

    def write(self) -> bytes:
        """The payload of a Tally."""
        return Announced(self.names, self.roster, self.total).write()

    @classmethod
    def read(cls, message: Tally) -> Tallied:
        """Out of a Tally; MessageRefused if it is none."""
        found = Announced.read(b"".join(message.parts))
        return cls(found.model, found.cohorts, found.cohort)
