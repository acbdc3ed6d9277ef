"""CKKS with real keys: sums are exact at the extremes, noise is what the bound assumes, the rest is
refused."""

from collections.abc import Iterable

import numpy as np
import pytest

from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ciphertexts import tenseal_version
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_noise, ckks_parameters
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.grid import largest_value
from hyperlock.encryption.parameters import POLY_MODULI, SECURITY_LIMITS
from hyperlock.encryption.scheme import KeyPair
from hyperlock.errors import CiphertextRefused, ConfigError
from tests.encryption.sums import of_parts, raw_parts, total

SETS = [
    (2048, "auto", "auto", 4, 2),
    (2048, "auto", "auto", 8, 16),
    (4096, "auto", "auto", 8, 16),
    (4096, "auto", "auto", 16, 32),
    (4096, "auto", "auto", 24, 16),
    (4096, "auto", 19, 8, 16),  # the smallest scale allowed
    (4096, "auto", "auto", 8, 256),
    (8192, [60, 40, 40, 60], "auto", 12, 16),
    (8192, [60, 40, 40, 60], 96, 16, 16),
    (8192, [60, 60], "auto", 16, 16),
    (8192, [40, 40], "auto", 8, 8),
    (8192, [40, 20], "auto", 8, 8),
    (16384, "auto", "auto", 8, 16),
    (32768, "auto", "auto", 16, 8),
]


def chosen(choice: tuple) -> Ckks:
    """The scheme of ring, chain, scale, value bits and clients."""
    *before, value_bits, clients = choice
    return Ckks(ckks_parameters(*before, Extent(value_bits), clients, 128))


@pytest.mark.parametrize("choice", SETS, ids=str)
def test_sums_of_all_clients_are_exact(choice: tuple) -> None:
    scheme = chosen(choice)
    keys = scheme.generate_keys()
    levels = largest_value(choice[3])
    clients = scheme.max_clients
    encryptor = scheme.encryptor(keys.public)
    decryptor = scheme.decryptor(keys.secret)
    # Two ciphertexts, the second one short. Thirds of the vector: all at +levels, all at -levels,
    # random.
    length = scheme.parameters.packing.fields * (scheme.parameters.slots + 100) - 1
    third = length // 3
    rng = np.random.default_rng(0)
    accumulator = scheme.accumulator(keys.public, length)
    expected = np.zeros(length, np.int64)
    for _ in range(clients):
        vector = rng.integers(-levels, levels, length, endpoint=True)
        vector[:third], vector[third : 2 * third] = levels, -levels
        chunks = tuple(encryptor.encrypt(vector))
        assert len(chunks) == scheme.chunk_count(length) == 2
        accumulator.add(chunks)
        expected += vector
    summed = tuple(accumulator.total())
    assert max(map(len, (*chunks, *summed))) <= scheme.max_chunk_bytes
    assert (decryptor.decrypt(summed, length) == expected).all()


@pytest.mark.parametrize("sign", [-1, 1])
def test_whole_vectors_at_one_extreme_are_exact(ckks: Ckks, keys: KeyPair, sign: int) -> None:
    """Alike slots gather in one coefficient, which is where an overflow of the modulus would
    show."""
    length = ckks.parameters.slots * ckks.parameters.packing.fields
    vector = np.full(length, sign * 127)
    sums = ckks.decryptor(keys.secret).decrypt(total(ckks, keys.public, [vector] * 16), length)
    assert (sums == 16 * vector).all()


@pytest.mark.parametrize("length", [1, 2, 3, 12287, 12288, 12289])
def test_every_length_comes_back(ckks: Ckks, keys: KeyPair, length: int) -> None:
    vectors = list(np.random.default_rng(1).integers(-127, 127, (3, length), endpoint=True))
    summed = total(ckks, keys.public, vectors)
    assert len(summed) == ckks.chunk_count(length)
    assert (ckks.decryptor(keys.secret).decrypt(summed, length) == sum(vectors)).all()


def test_the_same_vector_is_never_encrypted_to_the_same_bytes(ckks: Ckks, keys: KeyPair) -> None:
    encryptor = ckks.encryptor(keys.public)
    first, second = (list(encryptor.encrypt(np.zeros(5, np.int64))) for _ in range(2))
    assert first != second


@pytest.mark.parametrize(
    ("n", "chain", "clients"),
    [(4096, "auto", 1), (4096, "auto", 9), (8192, [60, 60], 1), (8192, [40, 20], 4)],
)
def test_noise_is_what_the_bound_assumes(n: int, chain: object, clients: int) -> None:
    """In real and in imaginary parts alike."""
    scheme = Ckks(ckks_parameters(n, chain, "auto", Extent(8), 16, 128))
    keys = scheme.generate_keys()
    p = scheme.parameters
    zeros = np.zeros(p.slots * p.packing.fields, np.int64)
    raw = np.array(
        [
            raw_parts(scheme, keys.secret, chunk)
            for _ in range(24)
            for chunk in total(scheme, keys.public, [zeros] * clients)
        ]
    )
    for part in np.split(raw, 2, axis=1):
        measured = np.std(part) * 2.0**p.scale_bits
        assert measured == pytest.approx(ckks_noise(n, clients), rel=0.05)


@pytest.mark.parametrize("security", SECURITY_LIMITS)
@pytest.mark.parametrize("n", POLY_MODULI)
def test_seal_builds_every_automatic_chain(n: int, security: int) -> None:
    try:
        p = ckks_parameters(n, "auto", "auto", Extent(4), 2, security)
    except ConfigError:
        assert n == 2048 or (n, security) == (4096, 256)
        return
    assert Ckks(p).generate_keys().public


def test_a_chain_with_too_few_primes_of_a_size_is_refused_by_name() -> None:
    scheme = Ckks(ckks_parameters(32768, [20] * 6 + [60], "auto", Extent(8), 16, 128))
    with pytest.raises(
        ConfigError, match=r"encryption\.coeff_mod_bits=\[20,20,20,20,20,20,60\]"
    ) as caught:
        scheme.generate_keys()
    assert "try: " in str(caught.value)


# What must be refused


def refused_by(
    ckks: Ckks, public: bytes, chunks: Iterable[bytes], reason: str = ".", length: int = 20
) -> None:
    """Refused as the first vector and as another, and without a trace in the sum."""
    chunks, (accumulator, untouched) = (
        tuple(chunks),
        (ckks.accumulator(public, length) for _ in range(2)),
    )
    with pytest.raises(CiphertextRefused, match=reason):
        accumulator.add(chunks)
    good = tuple(ckks.encryptor(public).encrypt(np.arange(length) % 100))
    for each in (accumulator, untouched):
        each.add(good)
    with pytest.raises(CiphertextRefused, match=reason):
        accumulator.add(chunks)
    assert list(accumulator.total()) == list(untouched.total())


def test_what_is_not_a_ciphertext_is_refused(ckks: Ckks, keys: KeyPair) -> None:
    (chunk,) = ckks.encryptor(keys.public).encrypt(np.arange(20))
    rng = np.random.default_rng(2)
    for bad in (
        b"",
        b"garbage",
        bytes(100),
        bytes(len(chunk)),
        rng.bytes(len(chunk) - 1),
        keys.public,
        chunk + b"x",
        chunk * 2,
    ):
        refused_by(ckks, keys.public, (bad,))
    for cut in (1, 2, 10, 100, len(chunk) // 2, len(chunk) - 1):
        refused_by(ckks, keys.public, (chunk[:cut],))


@pytest.mark.parametrize(
    "choice",
    [
        (8192, "auto", "auto", 8, 16),
        (2048, "auto", "auto", 8, 16),
        (4096, [50, 30], 23, 8, 16),
        (4096, [40, 20, 30], 23, 8, 16),
    ],
    ids=str,
)
def test_ciphertexts_of_other_parameters_are_refused(
    ckks: Ckks, keys: KeyPair, choice: tuple
) -> None:
    other = chosen(choice)
    chunks = other.encryptor(other.generate_keys().public).encrypt(np.arange(20))
    refused_by(ckks, keys.public, chunks, "bytes instead of")


def test_a_ciphertext_at_another_scale_is_not_released(ckks: Ckks, keys: KeyPair) -> None:
    """The scale is not on the wire: the fingerprint has it. Half of it leaves half of what was
    encrypted, which is no integer."""
    parts = np.zeros(4096)
    parts[7] = 3
    chunk = of_parts(ckks, keys.public, parts / 2)
    with pytest.raises(CiphertextRefused, match="not a vector of integers"):
        ckks.decryptor(keys.secret).decrypt([chunk], 30)


@pytest.mark.parametrize(
    ("lengths", "reason"),
    [((12289, 20), "1 ciphertexts instead of 2"), ((20, 12289), "2 ciphertexts instead of 1")],
)
def test_a_vector_of_another_number_of_ciphertexts_than_the_sum_is_refused(
    ckks: Ckks, keys: KeyPair, lengths: tuple[int, int], reason: str
) -> None:
    other = ckks.encryptor(keys.public).encrypt(np.ones(lengths[1], np.int64))
    refused_by(ckks, keys.public, other, reason, lengths[0])


def test_a_sum_that_goes_on_behind_its_end_is_refused(ckks: Ckks, keys: KeyPair) -> None:
    """Slots and fields behind the vector are zero in every update, so in every sum."""
    summed = total(ckks, keys.public, [np.ones(24, np.int64)] * 3)
    decryptor = ckks.decryptor(keys.secret)
    assert (decryptor.decrypt(summed, 24) == 3).all()
    for length, reason in ((21, "behind its end"), (22, "out of range"), (23, "out of range")):
        with pytest.raises(CiphertextRefused, match=reason):
            decryptor.decrypt(summed, length)


def test_a_failed_add_leaves_the_sum_as_it_was(ckks: Ckks, keys: KeyPair) -> None:
    """The first ciphertext is good, the second is not: neither may be added."""
    good = tuple(ckks.encryptor(keys.public).encrypt(np.arange(13000) % 100))
    for bad in (
        (good[0], b"garbage"),
        (good[0], good[1][:-1]),
        (good[0],),
        (*good, good[0]),
        (good[0], bytes(len(good[0]))),
    ):
        refused_by(ckks, keys.public, bad, length=13000)


def test_a_refused_first_vector_leaves_an_empty_sum(ckks: Ckks, keys: KeyPair) -> None:
    accumulator = ckks.accumulator(keys.public, 20)
    good = tuple(ckks.encryptor(keys.public).encrypt(np.arange(20)))
    with pytest.raises(CiphertextRefused):
        accumulator.add((b"garbage",))
    accumulator.add(good)
    assert (ckks.decryptor(keys.secret).decrypt(accumulator.total(), 20) == np.arange(20)).all()


def test_the_sum_ends_with_its_total(ckks: Ckks, keys: KeyPair) -> None:
    """Its ciphertexts are given up one by one as they are written."""
    accumulator = ckks.accumulator(keys.public, 13000)
    accumulator.add(tuple(ckks.encryptor(keys.public).encrypt(np.arange(13000) % 100)))
    parts = accumulator.total()
    assert next(parts) and len(accumulator._sums) == 1
    assert len(list(parts)) == 1 and accumulator._sums == []


def test_a_sum_under_another_key_is_refused(ckks: Ckks, keys: KeyPair, other_keys: KeyPair) -> None:
    vectors = [np.arange(-100, 100)] * 3
    summed = total(ckks, other_keys.public, vectors)
    assert (ckks.decryptor(other_keys.secret).decrypt(summed, 200) == 3 * vectors[0]).all()
    with pytest.raises(CiphertextRefused, match="another key"):
        ckks.decryptor(keys.secret).decrypt(summed, 200)


def test_one_update_under_another_key_spoils_no_release_silently(
    ckks: Ckks, keys: KeyPair, other_keys: KeyPair
) -> None:
    """SEAL adds across keys without a word; the decryption must not pass for a sum."""
    accumulator = ckks.accumulator(keys.public, 200)
    vector = np.arange(-100, 100)
    for public in (keys.public, keys.public, other_keys.public):
        accumulator.add(tuple(ckks.encryptor(public).encrypt(vector)))
    with pytest.raises(CiphertextRefused):
        ckks.decryptor(keys.secret).decrypt(accumulator.total(), 200)


@pytest.mark.parametrize("fraction", [0.3, 0.5, -0.4])
@pytest.mark.parametrize("place", [7, 2048 + 7], ids=["real", "imaginary"])
def test_a_sum_that_is_not_whole_is_refused(
    ckks: Ckks, keys: KeyPair, place: int, fraction: float
) -> None:
    parts = np.zeros(4096)
    parts[place] = fraction
    chunk = of_parts(ckks, keys.public, parts)
    with pytest.raises(CiphertextRefused, match="not a vector of integers"):
        ckks.decryptor(keys.secret).decrypt([chunk], 3 * 4096)


@pytest.mark.parametrize("value", [2.0**36, -(2.0**36)])
@pytest.mark.parametrize("place", [0, 4096], ids=["real", "imaginary"])
def test_a_slot_beyond_all_fields_is_refused(place: int, value: float) -> None:
    scheme = Ckks(ckks_parameters(8192, [60, 40, 60], 30, Extent(12), 16, 128))
    p = scheme.parameters
    keys = scheme.generate_keys()
    assert p.packing.fields * p.packing.field_bits == 32
    parts = np.zeros(8192)
    parts[place] = value
    chunk = of_parts(scheme, keys.public, parts)
    with pytest.raises(CiphertextRefused, match="out of range"):
        scheme.decryptor(keys.secret).decrypt([chunk], 2 * 8192)


def test_a_sum_of_another_length_is_refused(ckks: Ckks, keys: KeyPair) -> None:
    chunks = total(ckks, keys.public, [np.arange(20)])
    with pytest.raises(CiphertextRefused, match="more than 20 coordinates"):
        ckks.decryptor(keys.secret).decrypt(chunks * 2, 20)
    with pytest.raises(CiphertextRefused, match="fewer than 20 coordinates"):
        ckks.decryptor(keys.secret).decrypt((), 20)


def test_an_updates_ciphertext_is_not_a_sums(ckks: Ckks) -> None:
    """BFV's have other lengths; CKKS' are alike, for nothing of them is dropped."""
    for scheme in (ckks, Bfv(bfv_parameters("auto", "auto", "auto", Extent(8), 16, 128))):
        keys = scheme.generate_keys()
        (chunk,) = scheme.encryptor(keys.public).encrypt(np.arange(20))
        layout = scheme.layout
        assert (len(chunk) == layout.sum_bytes) == (layout.dropped == 0)
        if layout.dropped:
            with pytest.raises(CiphertextRefused, match="bytes instead of"):
                scheme.decryptor(keys.secret).decrypt([chunk], 20)


def test_nothing_at_all_is_not_a_sum(ckks: Ckks, keys: KeyPair) -> None:
    decryptor = ckks.decryptor(keys.secret)
    for chunks in ((), (b"",), (b"garbage",)):
        with pytest.raises(CiphertextRefused):
            decryptor.decrypt(chunks, 20)


# Keys


def test_public_bytes_hold_no_secret_key_and_no_evaluation_keys(keys: KeyPair) -> None:
    from hyperlock.encryption._tenseal import tenseal as ts

    public = ts.context_from(keys.public)
    assert not public.has_secret_key() and public.has_public_key()
    assert not public.has_galois_keys() and not public.has_relin_keys()
    assert ts.context_from(keys.secret).has_secret_key()


def test_a_key_pair_does_not_show_its_secret() -> None:
    pair = KeyPair(public=b"public", secret=b"hidden")
    for text in (repr(pair), str(pair), f"{pair}"):
        assert "hidden" not in text


def test_keys_are_fresh(ckks: Ckks) -> None:
    first = ckks.generate_keys()
    second = ckks.generate_keys()
    assert first.public != second.public and first.secret != second.secret


def test_a_public_key_that_contains_a_secret_is_refused(ckks: Ckks, keys: KeyPair) -> None:
    from hyperlock.encryption._tenseal import tenseal as ts

    context = ts.context(ts.SCHEME_TYPE.CKKS, 4096, coeff_mod_bit_sizes=[60, 30])
    both = context.serialize(save_public_key=True, save_secret_key=True)
    for bad in (keys.secret, both):
        for half in (ckks.encryptor, lambda public: ckks.accumulator(public, 20)):
            with pytest.raises(CiphertextRefused, match="secret"):
                half(bad)


@pytest.mark.parametrize("cut", [0, 10, 1000, -1])
def test_what_is_not_a_public_key_is_refused(ckks: Ckks, keys: KeyPair, cut: int) -> None:
    with pytest.raises(CiphertextRefused, match="not a public key"):
        ckks.encryptor(keys.public[:cut])
    with pytest.raises(CiphertextRefused, match="not a public key"):
        ckks.accumulator(b"garbage" * (cut + 2), 20)


def test_fingerprints_differ_wherever_bytes_would() -> None:
    choices = [
        (4096, "auto", "auto", 8, 16), (8192, "auto", "auto", 8, 16),
        (4096, [60, 49], "auto", 8, 16),
        (4096, "auto", 22, 8, 16), (4096, "auto", "auto", 9, 16), (4096, "auto", "auto", 8, 8),
        (4096, "auto", "auto", 9, 8), (4096, "auto", 40, 8, 16),
    ]  # fmt: skip
    prints = {chosen(choice).fingerprint for choice in choices}
    assert len(prints) == len(choices)


def test_the_fingerprint_names_tenseals_version(
    ckks: Ckks, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ckks.fingerprint
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.3.16-other")
    tenseal_version.cache_clear()
    other = ckks.fingerprint
    monkeypatch.undo()
    tenseal_version.cache_clear()
    assert other != before == ckks.fingerprint
