"""Identities: a signature stands for one party, one purpose and one text."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from hyperlock.errors import MessageRefused
from hyperlock.parties.identity import SIGNATURE_BYTES, enrol, sample_limits

NAMES = ["server", "keyholder", "client-0"]
CLIENTS = {"client-0": 600}
PARTIES = enrol("run", CLIENTS)


@given(data=st.binary(max_size=99), sender=st.sampled_from(NAMES), reader=st.sampled_from(NAMES))
def test_everyone_knows_whose_signature_it_is(data: bytes, sender: str, reader: str) -> None:
    signature = PARTIES[sender].sign(data)
    assert len(signature) == SIGNATURE_BYTES
    PARTIES[reader].verify(sender, signature, data)
    for name in NAMES:
        if name != sender:
            with pytest.raises(MessageRefused, match=f"not that of '{name}'"):
                PARTIES[reader].verify(name, signature, data)
    with pytest.raises(MessageRefused, match="not that of"):
        PARTIES[reader].verify(sender, signature, data + b"x")


@given(place=st.integers(0, SIGNATURE_BYTES - 1), mask=st.integers(1, 255))
def test_an_altered_signature_is_refused(place: int, mask: int) -> None:
    signature = bytearray(PARTIES["client-0"].sign(b"data"))
    signature[place] ^= mask
    with pytest.raises(MessageRefused, match="not that of"):
        PARTIES["server"].verify("client-0", bytes(signature), b"data")


def test_who_is_not_enrolled_is_refused_whatever_the_signature() -> None:
    for name in ("client-1", ""):
        with pytest.raises(MessageRefused, match="is not enrolled"):
            PARTIES["server"].verify(name, PARTIES["client-0"].sign(b"data"), b"data")


def test_a_signature_made_for_another_purpose_is_none_of_a_message() -> None:
    key = Ed25519PrivateKey.generate()
    party = replace(
        PARTIES["client-0"], _key=key, enrolled={"client-0": key.public_key().public_bytes_raw()}
    )
    party.verify("client-0", party.sign(b"data"), b"data")
    with pytest.raises(MessageRefused):
        party.verify("client-0", key.sign(b"data"), b"data")


def test_signatures_are_those_of_rfc_8032() -> None:
    public = Ed25519PublicKey.from_public_bytes(PARTIES["server"].enrolled["client-0"])
    public.verify(PARTIES["client-0"].sign(b"data"), b"hyperlock message\0data")


def test_every_run_has_keys_of_its_own() -> None:
    other = enrol("run", CLIENTS)
    assert not {*other["server"].enrolled.values()} & {*PARTIES["server"].enrolled.values()}
    assert len({*other["server"].enrolled.values()}) == len(NAMES)
    with pytest.raises(MessageRefused):
        PARTIES["server"].verify("client-0", other["client-0"].sign(b"data"), b"data")


def test_its_repr_shows_no_key() -> None:
    for party in PARTIES.values():
        assert repr(party) == f"Identity(run='run', name={party.name!r})"


def test_server_and_key_holder_are_enrolled_but_not_as_clients() -> None:
    for party in PARTIES.values():
        assert {*party.enrolled} == {*NAMES} and party.clients == {"client-0": (512, 1024)}


@given(samples=st.integers(1, 2**31 - 1))
def test_a_number_of_samples_is_enrolled_to_within_a_power_of_two(samples: int) -> None:
    least, most = sample_limits(samples)
    assert least <= samples <= most <= 2 * least
    assert least.bit_count() == most.bit_count() == 1
    # That is, no other number of the same magnitude is told from it.
    assert sample_limits(2 * least - 1) == (least, most)


def test_neither_a_power_of_two_nor_no_samples_at_all_are_told_exactly() -> None:
    assert sample_limits(0) == (0, 1)
    assert [sample_limits(n) for n in (1, 2, 3, 4, 5)] == [(1, 2), (2, 4), (2, 4), (4, 8), (4, 8)]
