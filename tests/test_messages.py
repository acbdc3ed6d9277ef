"""Messages: every kind survives the wire; whatever else arrives meets MessageRefused and nothing else."""

from __future__ import annotations

import hashlib
import random
import tracemalloc
from dataclasses import replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperlock.errors import MessageRefused
from hyperlock.messages import Aggregate, Message, PublicKey, Release, Train, Update, key_id_of, kind_of

KINDS = [PublicKey, Train, Update, Aggregate, Release]
BOUNDS = {"max_parts": 4, "max_part_bytes": 1000}
NAMES = st.text(max_size=40)
PARTS = st.lists(st.binary(max_size=1000), max_size=4).map(tuple)


def messages(kind: type[Message]) -> st.SearchStrategy[Message]:
    numbers = st.integers(0, 2**63)
    return st.builds(
        kind, run=NAMES, round=numbers, sender=NAMES, key_id=NAMES, fingerprint=NAMES, length=numbers, payload=PARTS
    )


ANY = st.one_of([messages(kind) for kind in KINDS])
EXAMPLE = Update("run", 3, "client-1", "key", "ckks/4096", 7, (b"first", b"", bytes(range(200))))


def pack(header: object, parts: object, digest: bytes | None = None) -> bytes:
    """The wire format, written anew: header, digest over the lengths and bytes of header and parts, parts."""
    header_bytes = header if isinstance(header, bytes) else msgpack.packb(header)
    if digest is None:
        sha = hashlib.sha256()
        for part in (header_bytes, *parts):  # type: ignore[misc]
            sha.update(len(part).to_bytes(8, "little") + part)
        digest = sha.digest()
    return msgpack.packb([header_bytes, digest, parts])


def header(**changes: object) -> dict[str, object]:
    """EXAMPLE's header."""
    fields = {name: value for name, value in vars(EXAMPLE).items() if name != "payload"}
    return {"kind": "update", "version": 1, **fields, **changes}


def refused(data: object, kind: type[Message] = Update, **bounds: int) -> str:
    with pytest.raises(MessageRefused) as caught:
        kind.decode(data, **{**BOUNDS, **bounds})  # type: ignore[arg-type]
    return str(caught.value)


# What goes through


@given(message=ANY)
def test_every_kind_survives_the_wire(message: Message) -> None:
    data = message.encode()
    decoded = type(message).decode(data, **BOUNDS)
    assert decoded == message and type(decoded) is type(message)
    assert decoded.encode() == data
    assert kind_of(data) == message.kind


def test_kinds_have_names_of_their_own() -> None:
    assert len({kind.kind for kind in KINDS}) == len(KINDS)


def test_the_bytes_are_those_of_the_format() -> None:
    assert EXAMPLE.encode() == pack(header(), list(EXAMPLE.payload))


def test_payloads_as_large_as_allowed_are_taken() -> None:
    message = replace(EXAMPLE, payload=(bytes(1000),) * 4)
    assert Update.decode(message.encode(), **BOUNDS) == message
    large = replace(EXAMPLE, payload=(bytes(2**20),))
    assert Update.decode(large.encode(), max_parts=1, max_part_bytes=2**20) == large


@given(message=ANY)
def test_an_expectation_that_holds_is_silent_and_one_that_does_not_names_both(message: Message) -> None:
    message.expect(run=message.run, round=message.round, payload=message.payload)
    with pytest.raises(MessageRefused, match=r"round .* instead of -1"):
        message.expect(run=message.run, round=-1)


# What does not


@given(message=ANY, data=st.data())
def test_no_kind_passes_for_another(message: Message, data: st.DataObject) -> None:
    other = data.draw(st.sampled_from([kind for kind in KINDS if kind is not type(message)]))
    assert f"instead of {other.kind!r}" in refused(message.encode(), other)


def test_every_truncation_is_refused() -> None:
    data = EXAMPLE.encode()
    for cut in range(len(data)):
        refused(data[:cut])
    refused(data + b"\0")
    refused(data * 2)


def test_every_flipped_byte_is_refused() -> None:
    data, rng = EXAMPLE.encode(), random.Random(0)
    for place in range(len(data)):
        for mask in (0x01, 0x80, 0xFF, rng.randrange(1, 256), rng.randrange(1, 256)):
            refused(data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :])


@given(message=ANY, data=st.data())
def test_an_altered_message_is_refused(message: Message, data: st.DataObject) -> None:
    whole = bytearray(message.encode())
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=5)):
        whole[place] ^= data.draw(st.integers(1, 255))
    if bytes(whole) != message.encode():
        refused(bytes(whole), type(message))


@given(garbage=st.binary(max_size=600))
def test_garbage_is_refused(garbage: bytes) -> None:
    refused(garbage)
    kind_of(garbage)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(value=JSON)
def test_well_formed_msgpack_that_is_no_message_is_refused(value: object) -> None:
    data = msgpack.packb(value)
    refused(data)
    assert isinstance(kind_of(data), str)


@given(first=JSON, second=JSON, third=JSON)
def test_three_things_that_are_no_message_are_refused(first: object, second: object, third: object) -> None:
    data = msgpack.packb([first, second, third])
    refused(data)
    assert isinstance(kind_of(data), str)
    data = msgpack.packb([msgpack.packb(first), second, third])
    refused(data)
    assert isinstance(kind_of(data), str)


@given(value=JSON, name=st.sampled_from(sorted(header())))
def test_a_header_field_of_another_type_is_refused(value: object, name: str) -> None:
    if type(value) is type(header()[name]) or (name == "version" and value == 1):
        return
    refused(pack(header(**{name: value}), []))


@pytest.mark.xfail(strict=True, raises=pytest.fail.Exception, reason="compared with !=, and 1 == True == 1.0")
@pytest.mark.parametrize("version", [True, 1.0])
def test_a_version_that_only_equals_the_number_is_refused(version: object) -> None:
    refused(pack(header(version=version), []))


@pytest.mark.parametrize("version", [0, 2, -1, "1", None, 2**63])
def test_another_version_is_refused_by_name(version: object) -> None:
    assert "instead of 1" in refused(pack(header(version=version), []))


@pytest.mark.parametrize("kind", ["Update", "", "train", None, 5, "x" * 200])
def test_another_kind_is_refused_by_name(kind: object) -> None:
    assert "instead of 'update'" in refused(pack(header(kind=kind), []))


@pytest.mark.parametrize("name", sorted(header()))
def test_a_missing_field_is_refused(name: str) -> None:
    refused(pack({key: value for key, value in header().items() if key != name}, []))


@pytest.mark.parametrize("extra", [{"payload": b""}, {"more": 1}, {1: 2}, {"self": 1}])
def test_an_unknown_field_is_refused(extra: dict) -> None:
    refused(pack({**header(), **extra}, []))


@pytest.mark.parametrize("name", ["round", "length"])
@pytest.mark.parametrize("value", [-1, -(2**63), True, 1.0, "1", None])
def test_a_number_that_is_no_count_is_refused(name: str, value: object) -> None:
    refused(pack(header(**{name: value}), []))


@pytest.mark.parametrize("name", ["run", "sender", "key_id", "fingerprint"])
def test_a_name_that_is_too_long_or_no_text_is_refused(name: str) -> None:
    for value in ("x" * 257, b"bytes", 5, None, ["x"]):
        refused(pack(header(**{name: value}), []))
    broken = msgpack.packb(header(**{name: "aaaa"})).replace(b"\xa4aaaa", b"\xa4\xff\xfe\xff\xfe")
    refused(pack(broken, []))


def test_a_wrong_digest_is_refused_as_such() -> None:
    for digest in (bytes(32), hashlib.sha256(msgpack.packb(header())).digest()):
        assert "altered" in refused(pack(header(), [b"payload"], digest))
    for digest in (b"", bytes(31), bytes(33)):
        refused(pack(header(), [b"payload"], digest))


def test_the_digest_knows_where_a_part_ends() -> None:
    whole = msgpack.unpackb(replace(EXAMPLE, payload=(b"ab", b"c")).encode())
    refused(msgpack.packb([whole[0], whole[1], [b"a", b"bc"]]))
    refused(msgpack.packb([whole[0], whole[1], [b"abc"]]))


def test_a_payload_over_its_bounds_is_refused() -> None:
    too_long, too_many = replace(EXAMPLE, payload=(bytes(1001),)), replace(EXAMPLE, payload=(b"",) * 5)
    refused(too_long.encode())
    refused(too_many.encode())
    refused(replace(EXAMPLE, payload=(b"x",)).encode(), max_parts=0)
    refused(replace(EXAMPLE, payload=(bytes(10**5),)).encode())
    # Parts shorter than what is read as a header are bounded too.
    refused(replace(EXAMPLE, payload=(bytes(11),)).encode(), max_part_bytes=10)


@pytest.mark.parametrize("part", ["text", 5, None, [b"x"], {}])
def test_a_payload_part_that_is_no_byte_string_is_refused(part: object) -> None:
    sha = hashlib.sha256(b"").digest()
    refused(pack(header(), [b"x", part], sha))


HUGE = [
    b"\xdd\xff\xff\xff\xff",  # a list of 2^32 - 1
    b"\xdf\xff\xff\xff\xff",  # a map
    b"\xc6\xff\xff\xff\xff",  # bytes
    b"\xdb\xff\xff\xff\xff",  # text
    b"\xc9\xff\xff\xff\xff\x01",  # an extension
    b"\x93\xc6\xff\xff\xff\xff",
    b"\x93\xdd\xff\xff\xff\xff",
    b"\x93\xc4\x01\x80\xc4\x00\xdd\xff\xff\xff\xff",
    b"\x91" * 4000,
    b"\x81\xa1a" * 1000,
]


@pytest.mark.parametrize("data", HUGE, ids=lambda data: data[:8].hex())
def test_huge_declared_lengths_are_refused_before_anything_is_allocated(data: bytes) -> None:
    tracemalloc.start()
    try:
        refused(data, max_part_bytes=2**30)
        refused(pack(data, []), max_part_bytes=2**30)
        assert kind_of(data) == kind_of(pack(data, [])) == ""
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("data", [bytearray(b"x"), memoryview(b"x"), "text", []])
def test_what_is_not_bytes_is_refused(data: object) -> None:
    refused(data)


@pytest.mark.xfail(strict=True, raises=TypeError, reason="the refusal's text takes len() of it")
@pytest.mark.parametrize("data", [None, 5])
def test_what_has_no_length_is_refused(data: object) -> None:
    refused(data)


@pytest.mark.parametrize("data", [None, 5, "text", [], {}, b"", b"\x93", bytearray(EXAMPLE.encode())[:9], object()])
def test_the_kind_of_what_is_no_message_is_empty(data: object) -> None:
    assert kind_of(data) == ""  # type: ignore[arg-type]


def test_the_kind_is_read_from_the_header_alone() -> None:
    assert kind_of(replace(EXAMPLE, payload=(bytes(10**6),)).encode()) == "update"
    assert kind_of(pack({"kind": "anything"}, [])) == "anything"


# Public keys


def public_key(key: bytes = b"the key", **changes: object) -> bytes:
    message = PublicKey("run", 0, "keyholder", key_id_of(key), "fingerprint", 0, (key,))
    return replace(message, **changes).encode()


def test_a_public_key_is_read_from_its_message() -> None:
    assert PublicKey.read(public_key(), run="run", fingerprint="fingerprint") == b"the key"


@pytest.mark.parametrize(
    "changes",
    [
        {"run": "other"}, {"round": 1}, {"fingerprint": "other"}, {"key_id": key_id_of(b"other")}, {"key_id": ""},
        {"payload": ()}, {"payload": (b"other",)}, {"payload": (b"the key", b"the key")},
    ],
    ids=str,
)  # fmt: skip
def test_a_public_key_of_another_run_scheme_or_name_is_refused(changes: dict) -> None:
    with pytest.raises(MessageRefused):
        PublicKey.read(public_key(**changes), run="run", fingerprint="fingerprint")


def test_keys_have_ids_of_their_own() -> None:
    ids = {key_id_of(bytes([i])) for i in range(200)}
    assert len(ids) == 200 and {len(i) for i in ids} == {32}
