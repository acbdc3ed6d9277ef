"""Forged sums: who adds a multiple of the key to what is decrypted is refused, in every way that is
known; and with the guard taken away, each way gives the key.

The server or one client adds round(q/t p) (BFV) or D p (CKKS) to the second polynomial, so that the
plaintext gains p * s, s being the secret key.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from hyperlock.encryption import bfv as bfv_module
from hyperlock.encryption import bfv_parameters as bfv_rule
from hyperlock.encryption import ckks as ckks_module
from hyperlock.encryption import seal, totals
from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ciphertexts import (
    PackedDecryptor,
    PackedScheme,
    public_context,
    secret_context,
)
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.grid import largest_value
from hyperlock.encryption.seal import Residues
from hyperlock.encryption.totals import Totals
from hyperlock.errors import CiphertextRefused, ReleaseRefused
from hyperlock.parties.identity import SERVER, Identity, enrol
from hyperlock.parties.messages import Aggregate
from tests.encryption.sums import total
from tests.parties.cast import Cast
from tests.security import attack
from tests.security.forge import Forgery, residues_of
from tests.security.keys import known_keys

CLIENTS = 16
BITS = (5, 8, 12, 16, 24)
GUARDS = "not zero where every update is|noise budget|out of range"


@pytest.fixture
def no_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoding without its guard: values from the first coefficient on."""
    for module in (bfv_module, bfv_rule):
        monkeypatch.setattr(module, "RESERVED", 0)


def scheme_of(bits: int) -> Bfv:
    return Bfv(bfv_parameters("auto", "auto", "auto", Extent(bits), CLIENTS, 128))


def capacity(scheme: PackedScheme) -> int:
    """Values that one ciphertext holds."""
    return scheme.parameters.slots * scheme.parameters.packing.fields


def secret_key(secret: bytes) -> np.ndarray:
    """int64[N]: the coefficients of s."""
    return attack.secret_key(secret_context(secret)).astype(np.int64)


def scaled(scheme: Bfv, polynomial: dict[int, int]) -> Residues:
    """uint64[primes, N]: round(q/t p), of p by the powers that it has."""
    t = scheme.parameters.plain_modulus
    q = math.prod(scheme.layout.primes)
    wide = [0] * scheme.layout.poly_modulus
    for power, value in polynomial.items():
        wide[power] = (value % t * q + t // 2) // t
    return residues_of(wide, scheme)


def forged_sum(scheme: Bfv, chunk: bytes, polynomial: dict[int, int]) -> bytes:
    """What a server makes of a summed ciphertext."""
    return Forgery.of_sum(chunk, scheme.layout).plus(scaled(scheme, polynomial)).write()


def forged_update(scheme: Bfv, chunk: bytes, polynomial: dict[int, int]) -> bytes:
    """What a client makes of its own ciphertext."""
    return Forgery.of(chunk, scheme.layout).plus(scaled(scheme, polynomial)).write()


def packed(scheme: PackedScheme, sums: np.ndarray) -> np.ndarray:
    """int64[slots] of one ciphertext's values."""
    return scheme.parameters.packing.pack(sums.astype(np.int64), 0, scheme.parameters.slots)


# The server's forgery, to the key holder itself


def limits() -> dict[str, Identity]:
    """As many parties as there may be, each enrolled with as many samples as there may be."""
    return enrol("run", dict.fromkeys((f"client-{i}" for i in range(CLIENTS)), 2**31 - 1))


def answer(bits: int, named: int = 7) -> tuple[np.ndarray | str, np.ndarray]:
    """What the key holder says to c1 + round(q/t) on an honest-looking sum, with the envelopes of
    seven real updates, which the server has: the slots that it releases, less what was encrypted,
    or why not; and the key."""
    scheme = scheme_of(bits)
    cast = Cast(scheme, sizes=(capacity(scheme) - totals.width(bits),), parties=limits())
    keys = known_keys(cast)
    key = secret_key(keys.secret)
    own = sum_of_nothing(cast, named, int(key[0]))
    (chunk,) = total(scheme, cast.public, [own])
    names = list(cast.parties[SERVER].clients)[:named]
    updates = [cast.message(name, cast.vector(i)) for i, name in enumerate(names)]
    manifest = Aggregate.manifest([cast.envelope(update) for update in updates])
    message = cast.of(Aggregate, SERVER, (forged_sum(scheme, chunk, {0: 1}), manifest))
    try:
        release = cast.keyholder.handle(cast.sign(message))
    except ReleaseRefused as error:
        return str(error), key
    return packed(scheme, cast.sums(release)) - packed(scheme, own), key


def sum_of_nothing(cast: Cast, contributors: int, first: int) -> np.ndarray:
    """int64[length]: totals of so many clients, less the key's first coefficient, which the server
    guesses right once in three times; no digit of them at its limits, so that whatever the key adds
    is within them."""
    digits = 0x577777777777
    share = Totals(1, digits >> 16, digits / 2**totals.LOSS_FRACTION_BITS, digits >> 16)
    own = np.zeros(cast.length, np.int64)
    own[: totals.width(cast.scheme.extent.value_bits)] = contributors * totals.encode(
        share, cast.scheme.extent.value_bits
    )
    own[0] = contributors - first
    return own


@pytest.mark.parametrize("bits", BITS)
def test_without_the_zeros_one_forged_sum_is_the_whole_key(bits: int, no_zeros: None) -> None:
    released, key = answer(bits)
    assert isinstance(released, np.ndarray) and (released == key).all()


@pytest.mark.parametrize("bits", BITS)
def test_with_the_zeros_it_is_refused(bits: int) -> None:
    released, _ = answer(bits)
    assert isinstance(released, str) and "not zero where every update is" in released


@pytest.mark.parametrize(("named", "reason"), [(0, "0 updates"), (2, "2 updates")])
def test_without_envelopes_of_enough_updates_it_is_not_even_decrypted(
    named: int, reason: str, no_zeros: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    decrypted: list[object] = []
    monkeypatch.setattr(PackedDecryptor, "decrypt", lambda *given: decrypted.append(given))
    released, _ = answer(8, named)
    assert isinstance(released, str) and f"the sum is of {reason}" in released
    assert decrypted == []


# Whole-key forgeries of many kinds


def forgeries(scheme: Bfv, rng: np.random.Generator) -> Iterator[dict[int, int]]:
    """Polynomials p, without end: one power, a few small coefficients, a multiple that moves the
    key into the top field, halves of the ring, and anything modulo t."""
    n = scheme.parameters.poly_modulus
    packing = scheme.parameters.packing
    t = scheme.parameters.plain_modulus
    while True:
        powers = [int(power) for power in rng.choice(n, 3, replace=False)]
        top = packing.field_bits * (packing.fields - 1)
        yield {powers[0]: 1}
        yield {power: int(rng.choice([-1, 1])) for power in powers}
        yield {powers[0]: int(rng.integers(1, 2 ** (packing.field_bits - 2))) << top}
        yield {0: 1, n // 2: -1}
        yield {power: int(rng.integers(1, t)) for power in powers}


@pytest.mark.parametrize("bits", BITS)
def test_of_200_forgeries_none_is_released(bits: int) -> None:
    scheme = scheme_of(bits)
    rng = np.random.default_rng(bits)
    polynomials = forgeries(scheme, rng)
    zeros = np.zeros(capacity(scheme), np.int64)
    refused = 0
    for _ in range(20):
        keys = scheme.generate_keys()
        decryptor = scheme.decryptor(keys.secret)
        (chunk,) = total(scheme, keys.public, [zeros])
        for _ in range(10):
            bad = forged_sum(scheme, chunk, next(polynomials))
            with pytest.raises(CiphertextRefused, match=GUARDS):
                decryptor.decrypt([bad], zeros.size)
            refused += 1
    assert refused == 200


@pytest.mark.parametrize("bits", BITS)
def test_without_the_zeros_small_multiples_are_released(bits: int, no_zeros: None) -> None:
    scheme = scheme_of(bits)
    keys = scheme.generate_keys()
    zeros = np.zeros(capacity(scheme), np.int64)
    (chunk,) = total(scheme, keys.public, [zeros])
    key = secret_key(keys.secret)
    for polynomial in ({5: 1}, {0: 1, 9: -1, 4000 % len(key): 1}):
        bad = forged_sum(scheme, chunk, polynomial)
        released = scheme.decryptor(keys.secret).decrypt([bad], zeros.size)
        due = sum(sign * turned(key, power) for power, sign in polynomial.items())
        assert (packed(scheme, released) == due).all()


def turned(key: np.ndarray, power: int) -> np.ndarray:
    """X^power * key modulo X^N + 1."""
    return np.concatenate([-key[len(key) - power :], key[: len(key) - power]])


@pytest.mark.parametrize("bits", BITS)
def test_honest_sums_at_their_very_limits_are_released(bits: int) -> None:
    """Every coordinate and every digit of the totals at its largest, and at its smallest, of all
    clients at once."""
    scheme = scheme_of(bits)
    width = totals.width(bits)
    cast = Cast(scheme, sizes=(capacity(scheme),), parties=limits())
    vector = np.full(cast.length, largest_value(bits))
    vector[:width] = totals.encode(Totals(1, 2**31 - 1, 2.0**31 - 2.0**-16, 2**31 - 1), bits)
    vector[width::2] = -largest_value(bits)
    names = list(cast.parties[SERVER].clients)
    release = cast.keyholder.handle(cast.aggregate([vector] * CLIENTS, names))
    assert (cast.sums(release) == CLIENTS * vector.astype(np.int64)).all()


# One client's forgery inside an honest sum


def top_field(limit: int, seed: int) -> tuple[np.ndarray | str, np.ndarray]:
    """Fifteen honest clients with values up to a limit, and one whose update has the key moved into
    the top field; what is decrypted, and the key."""
    scheme = scheme_of(8)
    keys = scheme.generate_keys()
    rng = np.random.default_rng(seed)
    packing = scheme.parameters.packing
    length = capacity(scheme)
    encryptor = scheme.encryptor(keys.public)
    accumulator = scheme.accumulator(keys.public, length)
    for _ in range(CLIENTS - 1):
        values = rng.integers(-limit, limit, length, np.int64, endpoint=True)
        accumulator.add(tuple(encryptor.encrypt(values)))
    (own,) = encryptor.encrypt(np.zeros(length, np.int64))
    height = 850 if limit < 50 else 400
    polynomial = {0: height << packing.field_bits * (packing.fields - 1)}
    accumulator.add([forged_update(scheme, own, polynomial)])
    key = secret_key(keys.secret)
    try:
        sums = scheme.decryptor(keys.secret).decrypt(accumulator.total(), length)
    except CiphertextRefused as error:
        return str(error), key
    top = sums.reshape(packing.fields, -1)[-1]
    return np.clip(np.rint(top / height), -1, 1).astype(np.int64), key


@pytest.mark.parametrize(("limit", "right"), [(20, 1.0), (127, 0.6)])
def test_without_the_zeros_one_client_reads_the_key_out_of_the_sum(
    limit: int, right: float, no_zeros: None
) -> None:
    """Fully where the others' values are small; at their limits far beyond the third that chance
    gives."""
    released, key = top_field(limit, 0)
    assert isinstance(released, np.ndarray) and (released == key).mean() >= right


@pytest.mark.parametrize("limit", [20, 127])
@pytest.mark.parametrize("seed", range(5))
def test_with_the_zeros_the_clients_forgery_is_refused(limit: int, seed: int) -> None:
    released, _ = top_field(limit, seed)
    assert isinstance(released, str) and "not zero where every update is" in released


# CKKS: a multiple of the key is no integer


def share_released(slots: int, tries: int, seed: int) -> float:
    """Of forgeries with p at so many complex slots, how many are released."""
    scheme = Ckks(ckks_parameters(4096, "auto", "auto", Extent(8), CLIENTS, 128))
    rng = np.random.default_rng(seed)
    from hyperlock.encryption._tenseal import sealapi

    released = 0
    length = capacity(scheme)
    for i in range(tries):
        if i % 20 == 0:
            keys = scheme.generate_keys()
            context = public_context(keys.public).seal_context().data
            encoder = sealapi.CKKSEncoder(context)
            decryptor = scheme.decryptor(keys.secret)
            (chunk,) = total(scheme, keys.public, [np.zeros(length, np.int64)])
            good = Forgery.of_sum(chunk, scheme.layout)
        p = np.zeros(2048, complex)
        phases = np.exp(2j * np.pi * rng.random(slots))
        p[rng.choice(2048, slots, replace=False)] = phases * rng.uniform(1, 8, slots)
        plaintext = sealapi.Plaintext()
        encoder.encode(p.tolist(), scheme.scale, plaintext)
        with seal.scratch() as file:
            words = np.frombuffer(file.read(plaintext)[-good.polynomials[1].nbytes :], "<u8")
        bad = good.plus(words.reshape(1, -1)).write()
        try:
            released += bool(decryptor.decrypt([bad], length).any())
        except CiphertextRefused:
            continue
    return released / tries


def test_a_forged_ckks_slot_passes_at_most_once_in_four() -> None:
    """Both parts have to lie near integers: 1/2 each. Beyond one slot a square of that."""
    assert 0.1 < share_released(1, 200, 0) <= 0.25 + 3 * (0.25 * 0.75 / 200) ** 0.5
    assert share_released(4, 100, 1) <= 0.05
    assert share_released(64, 40, 2) == 0


def test_with_the_closeness_check_off_forged_ckks_slots_are_released(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ckks_module, "RESIDUE_LIMIT", 0.5)
    assert share_released(1, 40, 0) > 0.9
    assert share_released(64, 20, 2) > 0.9
