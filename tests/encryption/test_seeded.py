"""Seeded symmetric ciphertexts: half the bytes, the same sums, no file that outlives the call."""

import os
from pathlib import Path

import numpy as np
import pytest

from hyperlock.encryption import seal
from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.ckks import Ckks
from hyperlock.encryption.ckks_parameters import ckks_parameters
from hyperlock.encryption.extent import Extent
from hyperlock.encryption.grid import largest_value
from hyperlock.encryption.scheme import Scheme

SCHEMES: list[Scheme] = [
    Bfv(bfv_parameters("auto", "auto", "auto", Extent(8), 16, 128)),
    Bfv(bfv_parameters("auto", "auto", "auto", Extent(16), 1024, 128)),
    Ckks(ckks_parameters(4096, "auto", "auto", Extent(8), 16, 128)),
    Ckks(ckks_parameters(8192, [60, 40, 40, 60], 40, Extent(8), 16, 128)),
]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.fingerprint)
def test_sums_of_both_forms_are_exact(scheme):
    keys = scheme.generate_keys()
    levels = largest_value(scheme.extent.value_bits)
    rng = np.random.default_rng(0)
    length = scheme.parameters.packing.fields * scheme.parameters.slots + 100
    symmetric = scheme.symmetric_encryptor(keys.secret)
    public = scheme.encryptor(keys.public)
    total = scheme.accumulator(keys.public, length)
    expected = np.zeros(length, np.int64)
    for i in range(16):
        vector = rng.integers(-levels, levels, length, endpoint=True)
        vector[: length // 2] = levels * (-1) ** (i // 8)
        total.add(tuple((symmetric if i % 4 else public).encrypt(vector)))
        expected += vector
    assert (scheme.decryptor(keys.secret).decrypt(total.total(), length) == expected).all()


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.fingerprint)
def test_the_seeded_form_has_half_the_bytes(scheme):
    keys = scheme.generate_keys()
    vector = np.ones(2 * scheme.parameters.packing.fields * scheme.parameters.slots, int)
    half = sum(map(len, scheme.symmetric_encryptor(keys.secret).encrypt(vector)))
    whole = sum(map(len, scheme.encryptor(keys.public).encrypt(vector)))
    assert 0.46 < half / whole < 0.51


def test_two_encryptions_of_the_same_vector_differ():
    scheme = SCHEMES[0]
    encryptor = scheme.symmetric_encryptor(scheme.generate_keys().secret)
    assert list(encryptor.encrypt(np.arange(30))) != list(encryptor.encrypt(np.arange(30)))


def test_nothing_is_left_open_or_on_a_disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    encryptor = SCHEMES[0].symmetric_encryptor(SCHEMES[0].generate_keys().secret)
    before = set(os.listdir("/proc/self/fd"))
    assert list(encryptor.encrypt(np.arange(30_000) % 100))
    next(encryptor.encrypt(np.arange(30_000) % 100))  # given up half-way
    assert set(os.listdir("/proc/self/fd")) == before
    assert list(Path(tmp_path).iterdir()) == []


@pytest.mark.parametrize("scheme", SCHEMES[:1] + SCHEMES[2:3], ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("form", ["whole", "seeded"])
def test_without_files_in_memory_ciphertexts_alone_pass_through_a_file(
    scheme, form, monkeypatch, tmp_path
):
    """The same polynomial by SEAL's text form: the same sums, the same fingerprint, and no
    plaintext on the disk."""
    keys = scheme.generate_keys()
    vector = np.arange(-100, 20_000) % 201 - 100
    print_here = scheme.fingerprint
    monkeypatch.setattr(seal, "in_memory", False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    saved = []
    raw = seal.Scratch.raw

    def watched(self, thing):
        saved.append(type(thing).__name__)
        return raw(self, thing)

    monkeypatch.setattr(seal.Scratch, "raw", watched)
    encryptor = scheme.encryptor(keys.public)
    if form == "seeded":
        encryptor = scheme.symmetric_encryptor(keys.secret)
    accumulator = scheme.accumulator(keys.public, vector.size)
    accumulator.add(tuple(encryptor.encrypt(vector)))
    total = tuple(accumulator.total())
    assert (scheme.decryptor(keys.secret).decrypt(total, vector.size) == vector).all()
    monkeypatch.setattr(seal, "in_memory", True)
    assert (scheme.decryptor(keys.secret).decrypt(total, vector.size) == vector).all()
    assert scheme.fingerprint == print_here
    assert saved and "Plaintext" not in saved[: -len(total)]
    assert list(tmp_path.iterdir()) == []
