"""Frames: a header and a body on a local socket, each with its size in front.

A frame is 4 bytes, little-endian, the size of the header; 8 bytes, little-endian, the size of the
body; the header, a JSON object in UTF-8; and the body. The coordinator and its relay speak them,
and a node and its party. Standard library only: Flower's environment reads this file too.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

MOST_HEADER = 64 * 1024  # bytes
MOST_BODY = 2 * 1024**3  # bytes
_SIZES = struct.Struct("<IQ")


class FrameError(Exception):
    """What came is no frame: cut off, too large, or with a header that is no JSON object."""


def send_frame(
    connection: socket.socket, header: Mapping[str, Any], body: bytes | bytearray | memoryview = b""
) -> None:
    """Write one frame.

    Raises:
        FrameError: the header is larger than anyone would read.
        OSError: the other side is gone.
    """
    text = json.dumps(header).encode()
    if len(text) > MOST_HEADER:
        raise FrameError(f"a header of {len(text)} bytes; {MOST_HEADER} are the most")
    size = memoryview(body).nbytes
    connection.sendall(_SIZES.pack(len(text), size) + text)
    if size:
        connection.sendall(body)


def receive_frame(
    connection: socket.socket, most_header: int = MOST_HEADER, most_body: int = MOST_BODY
) -> tuple[dict[str, Any], bytearray]:
    """Read one frame: its header and its body.

    Args:
        connection: a blocking stream socket.
        most_header: bytes; a header that says it is larger is refused before anything is allocated.
        most_body: bytes; the same for the body.

    Raises:
        EOFError: the other side closed the connection between two frames.
        FrameError: a cut frame, one that is too large, or a header that is no JSON object.
        OSError: the connection broke.
    """
    sizes = bytearray(_SIZES.size)
    got = _fill(connection, sizes)
    if got == 0:
        raise EOFError("the connection was closed")
    if got < len(sizes):
        raise FrameError(f"a frame was cut after {got} bytes")
    header_size, body_size = _SIZES.unpack(sizes)
    if header_size > most_header:
        raise FrameError(f"a header of {header_size} bytes; {most_header} are the most")
    if body_size > most_body:
        raise FrameError(f"a body of {body_size} bytes; {most_body} are the most")
    header = _parsed(_whole(connection, header_size, "header"))
    return header, _whole(connection, body_size, "body")


def _whole(connection: socket.socket, size: int, part: str) -> bytearray:
    data = bytearray(size)
    got = _fill(connection, data)
    if got < size:
        raise FrameError(f"a frame's {part} was cut after {got} of {size} bytes")
    return data


def _fill(connection: socket.socket, buffer: bytearray) -> int:
    """Read until the buffer is full or the connection ends; how many bytes came."""
    got = 0
    with memoryview(buffer) as view:
        while got < len(view):
            count = connection.recv_into(view[got:])
            if count == 0:
                break
            got += count
    return got


def _parsed(text: bytearray) -> dict[str, Any]:
    try:
        header = json.loads(text.decode())
    except (ValueError, RecursionError):
        raise FrameError("a frame's header is no JSON") from None
    if not isinstance(header, dict):
        raise FrameError("a frame's header is no JSON object")
    return header
