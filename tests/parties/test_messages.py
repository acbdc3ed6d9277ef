"""Messages: every kind survives the wire; whatever else arrives meets MessageRefused and nothing
else."""

from __future__ import annotations

import hashlib
import random
import re
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperlock.encryption.extent import Extent
from hyperlock.encryption.plain import Plain
from hyperlock.encryption.vector import Vector
from hyperlock.errors import MessageRefused
from hyperlock.monitor import Monitor
from hyperlock.parties.identity import KEYHOLDER, SERVER, Identity, enrol
from hyperlock.parties.messages import (
    DIGEST_BYTES,
    MAX_ENVELOPE,
    VERSION,
    Aggregate,
    Message,
    Open,
    PublicKey,
    Release,
    Train,
    Update,
    key_id_of,
    kind_of,
    signed_again,
)
from hyperlock.parties.session import Session
from hyperlock.parties.terms import Terms
from tests.parties.cast import envelope_of

KINDS = [Open, PublicKey, Train, Update, Aggregate, Release]
BOUNDS = {"max_parts": 4, "max_part_bytes": 1000}
NAMES = st.text(max_size=40)
PARTS = st.lists(st.binary(max_size=1000), max_size=4).map(tuple)
DIGESTS = st.binary(max_size=DIGEST_BYTES)
PARTIES = enrol("run", {"client-0": 10, "client-1": 10})
READER = PARTIES["client-0"]


def messages(kind: type[Message]) -> st.SearchStrategy[Message]:
    numbers = st.integers(0, 2**63)
    sender = st.just(kind.only_from) if kind.only_from else NAMES
    return st.builds(
        kind,
        run=NAMES,
        round=numbers,
        attempt=numbers,
        sender=sender,
        key_id=NAMES,
        fingerprint=NAMES,
        length=numbers,
        terms=DIGESTS,
        train=DIGESTS,
        payload=PARTS,
    )


ANY = st.one_of([messages(kind) for kind in KINDS])
EXAMPLE = Update(
    run="run",
    round=3,
    attempt=2,
    sender="client-1",
    key_id="key",
    fingerprint="ckks/4096",
    length=7,
    terms=b"terms",
    train=b"train",
    payload=(b"first", b"", bytes(range(200))),
)
FIELDS = (
    "run",
    "round",
    "attempt",
    "sender",
    "key_id",
    "fingerprint",
    "length",
    "terms",
    "train",
)


def encode(message: Message, signer: Identity = PARTIES["client-1"]) -> bytes:
    """Signed by `signer` as if it were the sender."""
    return message.encode(replace(signer, run=message.run, name=message.sender))


def reader_of(message: Message) -> Identity:
    """A party of the message's run that knows the one who signs in `encode`, under the sender's
    name."""
    return replace(READER, run=message.run, enrolled={message.sender: READER.enrolled["client-1"]})


def pack(header: object, parts: Sequence[bytes] = (), **envelope: object) -> bytes:
    """The wire format, written anew: parts, then header and signature, then the size of these
    two."""
    header_bytes = header if isinstance(header, bytes) else msgpack.packb(header)
    signature = envelope.get("signature", PARTIES["client-1"].sign(header_bytes))
    return enclose(msgpack.packb([header_bytes, signature]), parts)


def enclose(envelope: bytes, parts: Sequence[bytes] = ()) -> bytes:
    return b"".join(parts) + envelope + len(envelope).to_bytes(4, "little")


def header(parts: Sequence[bytes] = (), **changes: object) -> dict[str, object]:
    """EXAMPLE's header, over these parts."""
    fields = {name: getattr(EXAMPLE, name) for name in FIELDS}
    runs = [(len([*same]), size) for size, same in groupby(map(len, parts))]
    sizes = [number for run in runs for number in run]
    digest = hashlib.sha256(b"".join(parts)).digest()
    return {
        "kind": "update",
        "version": VERSION,
        **fields,
        "sizes": sizes,
        "digest": digest,
        **changes,
    }


def refused(
    data: object, kind: type[Message] = Update, reader: Identity = READER, **bounds: int
) -> str:
    with pytest.raises(MessageRefused) as caught:
        kind.decode(data, reader, **{**BOUNDS, **bounds})  # type: ignore[arg-type]
    return str(caught.value)


# What goes through


@given(message=ANY)
def test_every_kind_survives_the_wire(message: Message) -> None:
    data = encode(message)
    reader = reader_of(message)
    decoded = type(message).decode(data, reader, **BOUNDS)
    assert decoded == message and type(decoded) is type(message)
    assert encode(decoded) == data
    assert kind_of(data) == message.kind
    assert decoded.digest == hashlib.sha256(b"".join(message.parts)).digest()
    assert decoded.envelope == envelope_of(data)


def test_kinds_have_names_of_their_own() -> None:
    assert len({kind.kind for kind in KINDS}) == len(KINDS)


def test_the_bytes_are_those_of_the_format() -> None:
    assert encode(EXAMPLE) == pack(header(EXAMPLE.parts), EXAMPLE.parts)


def test_payloads_as_large_as_allowed_are_taken() -> None:
    message = replace(EXAMPLE, payload=(bytes(1000),) * 4)
    assert Update.decode(encode(message), READER, **BOUNDS) == message
    large = replace(EXAMPLE, payload=(bytes(2**20),))
    assert Update.decode(encode(large), READER, max_parts=1, max_part_bytes=2**20) == large


def test_parts_are_written_as_they_are_made_and_read_in_place() -> None:
    """Neither end holds a large payload twice."""

    def parts() -> Iterator[bytes]:
        for i in range(16):
            yield bytes([i]) * 2**20

    tracemalloc.start()
    try:
        data = encode(replace(EXAMPLE, payload=parts()))
        _, written = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        decoded = Update.decode(data, READER, max_parts=16, max_part_bytes=2**20)
        _, read = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoded.parts[9] == b"\x09" * 2**20
    assert written < 2 * len(data) and read < len(data) + 2**20


@given(message=ANY)
def test_an_expectation_that_holds_is_silent_and_one_that_does_not_names_both(
    message: Message,
) -> None:
    message.expect(run=message.run, round=message.round, payload=message.payload)
    with pytest.raises(MessageRefused, match=r"round .* instead of -1"):
        message.expect(run=message.run, round=-1)


# What does not


@given(message=ANY, data=st.data())
def test_no_kind_passes_for_another(message: Message, data: st.DataObject) -> None:
    other = data.draw(st.sampled_from([kind for kind in KINDS if kind is not type(message)]))
    assert f"instead of {other.kind!r}" in refused(encode(message), other, reader_of(message))


def test_every_truncation_is_refused() -> None:
    data = encode(EXAMPLE)
    for cut in range(len(data)):
        refused(data[:cut])
        refused(data[len(data) - cut :])
    refused(data + b"\0")
    refused(data * 2)
    refused(b"\0" + data)


def test_every_flipped_byte_is_refused() -> None:
    data = encode(EXAMPLE)
    rng = random.Random(0)
    for place in range(len(data)):
        for mask in (0x01, 0x80, 0xFF, rng.randrange(1, 256), rng.randrange(1, 256)):
            refused(data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :])


@given(message=ANY, data=st.data())
def test_an_altered_message_is_refused(message: Message, data: st.DataObject) -> None:
    good = encode(message)
    whole = bytearray(good)
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=5)):
        whole[place] ^= data.draw(st.integers(1, 255))
    if whole != good:
        refused(bytes(whole), type(message), reader_of(message))


@given(garbage=st.binary(max_size=600))
def test_garbage_is_refused(garbage: bytes) -> None:
    for data in (garbage, enclose(garbage)):
        refused(data)
        kind_of(data)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=9) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(value=JSON)
def test_well_formed_msgpack_that_is_no_message_is_refused(value: object) -> None:
    packed = msgpack.packb(value)
    for data in (packed, enclose(packed), pack(packed)):
        refused(data)
        assert isinstance(kind_of(data), str)


@given(first=JSON, second=JSON, more=st.lists(JSON, max_size=2))
def test_an_envelope_of_other_things_is_refused(
    first: object, second: object, more: list[object]
) -> None:
    for inner in (first, msgpack.packb(first)):
        data = enclose(msgpack.packb([inner, second, *more]))
        refused(data)
        assert isinstance(kind_of(data), str)


@given(value=JSON, name=st.sampled_from(sorted(header())))
def test_a_header_field_of_another_type_is_refused(value: object, name: str) -> None:
    if type(value) is type(header()[name]) or (name == "version" and value == VERSION):
        return
    refused(pack(header(**{name: value})))


@pytest.mark.parametrize("version", [True, float(VERSION)])
def test_a_version_that_only_equals_the_number_is_refused(version: object) -> None:
    refused(pack(header(version=version)))


@pytest.mark.parametrize("version", [0, 1, 2, VERSION + 1, -1, "3", None, 2**63])
def test_another_version_is_refused_by_name(version: object) -> None:
    assert f"instead of {VERSION}" in refused(pack(header(version=version)))


@pytest.mark.parametrize("kind", ["Update", "", "train", None, 5, "x" * 200])
def test_another_kind_is_refused_by_name(kind: object) -> None:
    assert "instead of 'update'" in refused(pack(header(kind=kind)))


@pytest.mark.parametrize("name", sorted(header()))
def test_a_missing_field_is_refused(name: str) -> None:
    refused(pack({key: value for key, value in header().items() if key != name}))


@pytest.mark.parametrize("extra", [{"payload": b""}, {"more": 1}, {1: 2}, {"self": 1}])
def test_an_unknown_field_is_refused(extra: dict) -> None:
    refused(pack({**header(), **extra}))


@pytest.mark.parametrize("name", ["round", "attempt", "length"])
@pytest.mark.parametrize("value", [-1, -(2**63), True, 1.0, "1", None])
def test_a_number_that_is_no_count_is_refused(name: str, value: object) -> None:
    refused(pack(header(**{name: value})))


@pytest.mark.parametrize("name", ["run", "sender", "key_id", "fingerprint"])
def test_a_name_that_is_too_long_or_no_text_is_refused(name: str) -> None:
    for value in ("x" * 257, b"bytes", 5, None, ["x"]):
        refused(pack(header(**{name: value})))
    broken = msgpack.packb(header(**{name: "aaaa"})).replace(b"\xa4aaaa", b"\xa4\xff\xfe\xff\xfe")
    refused(pack(broken))


@pytest.mark.parametrize("name", ["terms", "train"])
def test_a_digest_field_that_is_too_long_or_no_bytes_is_refused(name: str) -> None:
    for value in (bytes(DIGEST_BYTES + 1), "text", 5, None, [b"x"]):
        refused(pack(header(**{name: value})))
    assert refused(pack(header(**{name: "text"}))) == f"header field {name} is not of type bytes"


def test_a_message_of_version_2_is_refused_by_name() -> None:
    """As it was written: no attempt, no terms and no Train, and a size a part."""
    parts = [b"payload", b""]
    old = header(parts, version=2, sizes=[7, 0])
    for name in ("attempt", "terms", "train"):
        del old[name]
    assert refused(pack(old, parts)) == "version 2 instead of 3"


def test_a_wrong_digest_is_refused_as_such() -> None:
    parts = [b"payload"]
    for digest in (bytes(32), hashlib.sha256(msgpack.packb(header(parts))).digest()):
        assert "altered" in refused(pack(header(parts, digest=digest), parts))
    for digest in (b"", bytes(31), bytes(33)):
        refused(pack(header(parts, digest=digest), parts))


def test_the_header_knows_where_a_part_ends() -> None:
    parts = [b"ab", b"c"]
    # The digest alone would let these pass.
    for sizes in ([1, 1, 1, 2], [1, 3], [1, 3, 1, 0]):
        data = pack(header(parts), parts)
        old, new = (msgpack.packb(header(parts, sizes=value)) for value in ([1, 2, 1, 1], sizes))
        assert data.replace(old, new) != data
        refused(data.replace(old, new))
        assert len(Update.decode(pack(header(parts, sizes=sizes), parts), READER, **BOUNDS).parts)
    for sizes in (
        [1, 2],
        [2, 2],
        [],
        [1, 2**63],
        [2**63, 1],
        [1, 4, 1, -1],
        [1, -1, 1, 4],
        None,
        3,
    ):
        refused(pack(header(parts, sizes=sizes), parts))


@pytest.mark.parametrize(
    "sizes",
    [
        [1, 1, 1, 1, 1, 1],  # what is one run of three
        [2, 1, 1, 1],
        [1, 1, 2, 1],
        [3, 1, 0, 1],
        [0, 5, 3, 1],
        [3, 1, 0, 7],
        [-1, 1, 4, 1],
        [3],
        [3, 1, 1],
        [1, 3, 0],
        [True, 3],
        [3, True],
        [3.0, 1],
        [3, 1.0],
        ["3", 1],
        [[3, 1]],
        [None, 1],
    ],
    ids=str,
)
def test_sizes_are_written_in_one_way(sizes: object) -> None:
    """Else one payload had many headers, and a signature would not say which."""
    parts = [b"a", b"b", b"c"]
    assert header(parts)["sizes"] == [3, 1]
    assert Update.decode(pack(header(parts), parts), READER, **BOUNDS).parts == tuple(parts)
    assert refused(pack(header(parts, sizes=sizes), parts)) == "not a message (wrong sizes)"


def test_more_runs_of_sizes_than_any_payload_has_are_refused() -> None:
    def data(*sizes: int) -> bytes:
        return encode(replace(EXAMPLE, payload=[bytes(size) for size in sizes]))

    bounds = {"max_parts": 9, "max_part_bytes": 9}
    message = Update.decode(data(1, 2, 2, 3, 1), READER, **bounds)
    assert list(map(len, message.parts)) == [1, 2, 2, 3, 1]
    assert refused(data(1, 2, 1, 2, 1), **bounds) == "not a message (wrong sizes)"


def test_a_count_of_parts_is_bounded_before_it_is_counted_out() -> None:
    tracemalloc.start()
    try:
        for count in (5, 2**40, 2**63):
            reason = refused(pack(header(sizes=[count, 0])))
            assert reason == f"{count} payload parts where at most 4 were due"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("extra", [b"x", bytes(1000)])
def test_bytes_that_no_part_counts_are_refused(extra: bytes) -> None:
    data = encode(EXAMPLE)
    assert "where the header names" in refused(extra + data)
    assert "where the header names" in refused(data[1:])


def test_a_payload_over_its_bounds_is_refused() -> None:
    def reason(*parts: bytes, **bounds: int) -> str:
        return refused(encode(replace(EXAMPLE, payload=parts)), **bounds)

    assert "a payload part is not of at most 1000 bytes" in reason(bytes(1001))
    assert re.search("5 (exceeds max_array_len|payload parts where at most 4)", reason(*[b""] * 5))
    assert re.search(
        "1 (exceeds max_array_len|payload parts where at most 0)", reason(b"x", max_parts=0)
    )
    assert "bytes where at most" in reason(bytes(10**5))
    assert "a payload part is not of at most 10 bytes" in reason(bytes(11), max_part_bytes=10)


HUGE = [
    b"\xdd\xff\xff\xff\xff",  # a list of 2^32 - 1
    b"\xdf\xff\xff\xff\xff",  # a map
    b"\xc6\xff\xff\xff\xff",  # bytes
    b"\xdb\xff\xff\xff\xff",  # text
    b"\xc9\xff\xff\xff\xff\x01",  # an extension
    b"\x92\xc6\xff\xff\xff\xff",
    b"\x92\xdd\xff\xff\xff\xff",
    b"\x92\xc4\x01\x80\xc4\x00\xdd\xff\xff\xff\xff",
    b"\x91" * 4000,
    b"\x81\xa1a" * 1000,
]


@pytest.mark.parametrize("data", HUGE, ids=lambda data: data[:8].hex())
def test_huge_declared_lengths_are_refused_before_anything_is_allocated(data: bytes) -> None:
    tracemalloc.start()
    try:
        for form in (data, enclose(data), pack(data)):
            refused(form, max_part_bytes=2**30)
            assert kind_of(form) == ""
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("data", [bytearray(b"x"), memoryview(b"x"), "text", []])
def test_what_is_not_bytes_is_refused(data: object) -> None:
    refused(data)


@pytest.mark.parametrize("data", [None, 5])
def test_what_has_no_length_is_refused(data: object) -> None:
    refused(data)


@pytest.mark.parametrize(
    "data", [None, 5, "text", [], {}, b"", b"\x93", bytearray(encode(EXAMPLE))[:9], object()]
)
def test_the_kind_of_what_is_no_message_is_empty(data: object) -> None:
    assert kind_of(data) == ""  # type: ignore[arg-type]


def test_the_kind_is_read_from_the_header_alone() -> None:
    assert kind_of(encode(replace(EXAMPLE, payload=(bytes(10**6),)))) == "update"
    assert kind_of(pack({"kind": "anything"})) == "anything"


# Who says so


@given(message=ANY, data=st.data())
def test_a_message_that_another_signed_is_refused(message: Message, data: st.DataObject) -> None:
    other = data.draw(st.sampled_from([PARTIES[name] for name in (SERVER, KEYHOLDER, "client-0")]))
    assert "the signature is not that of" in refused(
        encode(message, other), type(message), reader_of(message)
    )


@pytest.mark.parametrize(
    "signature", [b"", bytes(63), bytes(64), bytes(65), b"\xff" * 64, None, "x" * 64, 5, [1]]
)
def test_a_message_without_a_signature_is_refused(signature: object) -> None:
    refused(pack(header(EXAMPLE.parts), EXAMPLE.parts, signature=signature))


def test_the_signature_of_another_message_is_refused() -> None:
    other = PARTIES["client-1"].sign(msgpack.packb(header(EXAMPLE.parts, round=4)))
    assert "the signature is not" in refused(
        pack(header(EXAMPLE.parts), EXAMPLE.parts, signature=other)
    )


@pytest.mark.parametrize("name", ["client-2", "", "Client-1", "client-1 "])
def test_a_sender_who_is_not_enrolled_is_refused_by_name(name: str) -> None:
    assert f"sender {name!r} is not enrolled" in refused(encode(replace(EXAMPLE, sender=name)))


def test_a_message_of_another_run_is_refused_though_the_signature_is_good() -> None:
    assert "run 'other' instead of 'run'" in refused(encode(replace(EXAMPLE, run="other")))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.only_from])
def test_a_kind_is_taken_only_from_the_party_that_sends_it(kind: type[Message]) -> None:
    for name, signer in PARTIES.items():
        message = kind(
            run="run",
            round=0,
            attempt=0,
            sender=name,
            key_id="key",
            fingerprint="print",
            length=0,
            terms=b"",
            train=b"",
            payload=(),
        )
        data = encode(message, signer)
        if name == kind.only_from:
            assert kind.decode(data, READER, **BOUNDS).sender == name
        else:
            assert f"from '{name}' instead of '{kind.only_from}'" in refused(data, kind)


@pytest.mark.parametrize("change", [{"sender": "client-0"}, {"run": "other"}])
def test_nobody_signs_for_another_by_mistake(change: dict) -> None:
    with pytest.raises(ValueError, match="cannot sign for"):
        replace(EXAMPLE, **change).encode(PARTIES["client-1"])


# Envelopes, and the manifest


@given(message=ANY)
def test_an_envelope_alone_proves_what_was_sent(message: Message) -> None:
    envelope = envelope_of(encode(message))
    found, parts = type(message).header(envelope, reader_of(message), **BOUNDS)
    assert found == replace(message, payload=()) and parts == len(message.parts)
    assert found.digest == hashlib.sha256(b"".join(message.parts)).digest()
    assert found.envelope == envelope


def header_refused(envelope: bytes, kind: type[Message] = Update, **bounds: int) -> str:
    with pytest.raises(MessageRefused) as caught:
        kind.header(envelope, READER, **{**BOUNDS, **bounds})
    return str(caught.value)


def test_an_envelope_that_is_none_is_refused() -> None:
    good = envelope_of(encode(EXAMPLE))
    for bad in (b"", b"garbage", good[:-1], good[1:], good + b"x", encode(EXAMPLE)):
        header_refused(bad)
    for place in range(len(good)):
        header_refused(good[:place] + bytes([good[place] ^ 0x41]) + good[place + 1 :])


def test_an_envelope_is_held_to_what_a_message_is() -> None:
    good = envelope_of(encode(EXAMPLE))
    forged = envelope_of(encode(EXAMPLE, PARTIES["client-0"]))
    assert header_refused(forged) == "the signature is not that of 'client-1'"
    other_run = envelope_of(encode(replace(EXAMPLE, run="other")))
    assert header_refused(other_run) == "run 'other' instead of 'run'"
    assert header_refused(good, Release) == "kind 'update' instead of 'release'"
    assert header_refused(good, max_parts=2) == "3 payload parts where at most 2 were due"
    assert "part is not of at most 199 bytes" in header_refused(good, max_part_bytes=199)
    server = envelope_of(encode(Train(**{**fields_of(EXAMPLE), "payload": ()})))
    assert "from 'client-1' instead of 'server'" in header_refused(server, Train)


def fields_of(message: Message) -> dict[str, object]:
    return {name: getattr(message, name) for name in FIELDS}


def test_the_largest_envelope_that_can_be_written_is_within_the_bound() -> None:
    """Every field as long as it may be."""
    longest = dict.fromkeys(("run", "sender", "key_id", "fingerprint"), "x" * 256)
    message = Update(
        **longest,  # type: ignore[arg-type]
        round=2**63,
        attempt=2**63,
        length=2**63,
        terms=bytes(DIGEST_BYTES),
        train=bytes(DIGEST_BYTES),
        payload=[b"a", bytes(1000), b"b", bytes(1000)],
    )
    data = encode(message)
    assert len(envelope_of(data)) <= MAX_ENVELOPE
    assert Update.decode(data, reader_of(message), **BOUNDS).length == 2**63


def test_an_envelope_beyond_the_bound_is_refused_before_it_is_read() -> None:
    data = pack(header(run="x" * 3000))
    assert len(envelope_of(data)) > MAX_ENVELOPE
    assert refused(data, max_part_bytes=10**6) == "not a message (no header)"
    assert "not a message" in header_refused(envelope_of(data))
    assert kind_of(data) == ""


ENVELOPES = st.lists(st.binary(max_size=MAX_ENVELOPE), max_size=5)


@given(envelopes=ENVELOPES)
def test_a_manifest_is_a_list_of_envelopes(envelopes: list[bytes]) -> None:
    manifest = Aggregate.manifest(envelopes)
    for form in (manifest, memoryview(manifest)):
        assert Aggregate.envelopes(form, len(envelopes)) == envelopes
    if envelopes:
        with pytest.raises(MessageRefused, match="not a manifest"):
            Aggregate.envelopes(manifest, len(envelopes) - 1)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        5,
        b"bytes",
        "text",
        {},
        {b"a": b"b"},
        [1],
        [b"good", 1],
        [b"good", "text"],
        ["text"],
        [None],
        [[b"inside"]],
        [b"good", [b"inside"]],
        [{}],
        [{b"a": b"b"}],
        [msgpack.ExtType(1, b"x")],
        [msgpack.Timestamp(1, 2)],
        [bytes(MAX_ENVELOPE + 1)],
        [b"x"] * 6,
    ],
    ids=lambda value: str(value)[:30],
)
def test_well_formed_msgpack_that_is_no_manifest_is_refused(value: object) -> None:
    with pytest.raises(MessageRefused, match=r"^not a manifest \(\w+\)$"):
        Aggregate.envelopes(msgpack.packb(value), 5)


@given(garbage=st.binary(max_size=99))
def test_garbage_is_no_manifest(garbage: bytes) -> None:
    try:
        found = Aggregate.envelopes(garbage, 5)
    except MessageRefused:
        return
    # A short list of short strings is one that means something, by chance.
    assert len(found) <= 5 and all(type(one) is bytes for one in found)


@pytest.mark.parametrize("cut", [0, 1, 5, -1])
def test_a_manifest_that_was_cut_or_prolonged_is_refused(cut: int) -> None:
    manifest = Aggregate.manifest([b"one", b"two"])
    for bad in (manifest[:cut], manifest + b"x"):
        with pytest.raises(MessageRefused, match="not a manifest"):
            Aggregate.envelopes(bad, 5)


@pytest.mark.parametrize(
    "data",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91\xc6\xff\xff\xff\xff",
        b"\x91\xdd\xff\xff\xff\xff",
        b"\x91" * 4000,
    ],
    ids=lambda data: data[:8].hex(),
)
def test_huge_lengths_in_a_manifest_allocate_nothing(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(MessageRefused, match="not a manifest"):
            Aggregate.envelopes(data, 10**6)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def test_a_message_signed_again_is_the_same_under_the_same_key() -> None:
    data = encode(EXAMPLE)
    assert signed_again(data, PARTIES["client-1"]) == data
    others = enrol("run", {"client-1": 10})
    again = signed_again(data, others["client-1"])
    assert again != data and Update.decode(again, others[SERVER], **BOUNDS) == EXAMPLE
    assert "the signature is not" in refused(again)


# Public keys


def session(name: str) -> Session:
    """In the second attempt of the third round."""
    terms = Terms(1.0, 1.0, 1.0)
    scheme = Plain(Extent(8), 16)
    return Session(PARTIES[name], scheme, Vector(Extent(8), (4,)), terms, Monitor()).at(3, 2)


def public_key(key: bytes = b"the key", **changes: object) -> bytes:
    party = session(KEYHOLDER).under(key)
    message = PublicKey.decode(party.write(PublicKey, (key,)), READER, **BOUNDS)
    return encode(replace(message, **changes), PARTIES[KEYHOLDER])  # type: ignore[arg-type]


def test_a_public_key_is_read_from_its_message() -> None:
    assert session("client-0").read_public_key(public_key()) == b"the key"


@pytest.mark.parametrize(
    "changes",
    [
        {"run": "other"},
        {"round": 2},
        {"attempt": 1},
        {"fingerprint": "other"},
        {"terms": b"other"},
        {"train": b"other"},
        {"length": 1},
        {"key_id": key_id_of(b"other")},
        {"key_id": ""},
        {"payload": ()},
        {"payload": (b"other",)},
        {"payload": (b"the key", b"the key")},
    ],
    ids=str,
)
def test_a_public_key_of_another_run_attempt_scheme_or_name_is_refused(changes: dict) -> None:
    with pytest.raises(MessageRefused):
        session("client-0").read_public_key(public_key(**changes))


def test_keys_have_ids_of_their_own() -> None:
    ids = {key_id_of(bytes([i])) for i in range(200)}
    assert len(ids) == 200 and {len(i) for i in ids} == {32}
