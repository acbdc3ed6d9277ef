"""Several messages on one trip, which costs its polls and its distances however much it carries.

A party handles the messages of a bundle in order, each as if it had come alone, and its answer is
that to the last; the others are of kinds that are answered with nothing. A bundle is the messages,
end to end; the size of each, in eight bytes; how many there are, in four; and a mark that no single
message ends with, since that would be the size of its envelope (`parties/messages.py`). Numbers are
little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import pairwise

MOST = 8 * 1024**2  # bytes that are worth waiting for: with so many, a trip is mostly them
_MOST_MESSAGES = 2**16  # no message is so small that more were worth waiting for
_MARK = b"\xff\xff\xff\xff"
_COUNT = struct.Struct("<I")
_SIZE = struct.Struct("<Q")


def bundle(messages: Sequence[bytes]) -> bytes:
    """All of them in one; a single one is itself."""
    if len(messages) == 1:
        return messages[0]
    sizes = [_SIZE.pack(len(message)) for message in messages]
    return b"".join([*messages, *sizes, _COUNT.pack(len(messages)), _MARK])


def opened(data: bytes) -> list[bytes]:
    """The messages of a bundle; what is none is one message, and so is one that is malformed, which
    whoever reads it refuses."""
    tail = _COUNT.size + len(_MARK)
    if len(data) < tail or not data.endswith(_MARK):
        return [data]
    (count,) = _COUNT.unpack_from(data, len(data) - tail)
    start = len(data) - tail - count * _SIZE.size
    if not 1 < count <= _MOST_MESSAGES or start < 0:
        return [data]
    ends = [0]
    for at in range(start, len(data) - tail, _SIZE.size):
        ends.append(ends[-1] + _SIZE.unpack_from(data, at)[0])
    if ends[-1] != start:
        return [data]
    return [data[begin:end] for begin, end in pairwise(ends)]


def answered(handle: Callable[[bytes], bytes], data: bytes) -> bytes:
    """What a party answers: to each message in order, until one raises; the last answer."""
    answer = b""
    for message in opened(data):
        answer = handle(message)
    return answer
