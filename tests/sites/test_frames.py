"""Frames: what is sent arrives, and whatever else comes is refused before it costs anything."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperlock.runtime.relay.frames import MOST_HEADER, FrameError, receive_frame, send_frame

Pair = tuple[socket.socket, socket.socket]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
HEADERS = st.dictionaries(st.text(max_size=10), VALUES, max_size=5)


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = socket.socketpair()
    here.settimeout(10)
    there.settimeout(10)
    with here, there:
        yield here, there


def received(data: bytes, **bounds: int) -> tuple[dict[str, object], bytearray]:
    """What is read where these bytes came and then the end."""
    here, there = socket.socketpair()
    with here, there:
        here.sendall(data)
        here.shutdown(socket.SHUT_WR)
        there.settimeout(10)
        return receive_frame(there, **bounds)


def frame(header: object, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<IQ", len(text), len(body)) + text + body


@given(st.lists(st.tuples(HEADERS, st.binary(max_size=3000)), max_size=4))
def test_frames_arrive_in_order_and_then_the_end(
    frames: list[tuple[dict[str, object], bytes]],
) -> None:
    here, there = socket.socketpair()
    with here, there:
        there.settimeout(10)
        for header, body in frames:
            send_frame(here, header, body)
        here.shutdown(socket.SHUT_WR)
        for header, body in frames:
            assert receive_frame(there) == (header, body)
        with pytest.raises(EOFError):
            receive_frame(there)


def test_a_large_body_arrives(pair: Pair) -> None:
    body = bytes(range(256)) * 40_000
    writer = threading.Thread(target=send_frame, args=(pair[0], {"id": 1}, memoryview(body)))
    writer.start()
    header, got = receive_frame(pair[1])
    writer.join()
    assert (header, got) == ({"id": 1}, body)


@given(st.data())
def test_a_cut_frame_is_no_frame(data: st.DataObject) -> None:
    whole = frame({"id": 7}, b"body of a frame")
    cut = data.draw(st.integers(1, len(whole) - 1))
    with pytest.raises(FrameError, match="cut"):
        received(whole[:cut])


@given(st.binary(max_size=64))
def test_any_bytes_are_a_frame_or_refused(data: bytes) -> None:
    # Small bounds, so that sizes that happen to be plausible do not wait for bytes.
    with contextlib.suppress(FrameError, EOFError):
        received(data, most_header=32, most_body=32)


@pytest.mark.parametrize(
    ("header", "body"), [(MOST_HEADER + 1, 0), (2**32 - 1, 0), (2, 2**31 + 1), (2, 2**64 - 1)]
)
def test_hostile_sizes_allocate_nothing(header: int, body: int) -> None:
    data = struct.pack("<IQ", header, body) + b"{}"
    tracemalloc.start()
    with pytest.raises(FrameError, match="are the most"):
        received(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000


def test_bounds_can_be_told() -> None:
    assert received(frame({}, b"1234"), most_body=4) == ({}, b"1234")
    with pytest.raises(FrameError, match="a body of 5 bytes; 4 are the most"):
        received(frame({}, b"12345"), most_body=4)


@pytest.mark.parametrize("text", [b"", b"[]", b"1", b"{", b"\xff{}", b"[" * 60_000, b"9" * 5000])
def test_a_header_must_be_a_json_object(text: bytes) -> None:
    with pytest.raises(FrameError, match="JSON"):
        received(struct.pack("<IQ", len(text), 0) + text)


def test_a_header_that_nobody_would_read_is_not_sent(pair: Pair) -> None:
    with pytest.raises(FrameError, match="are the most"):
        send_frame(pair[0], {"reason": "x" * MOST_HEADER})
