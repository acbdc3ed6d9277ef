"""Bytes as the content of Flower's messages, and the way from a node to its party.

A letter is one ConfigRecord with the first part of the body, and further ones where it is large:
three objects for Flower to move, each of which is a request over HTTP. What says whom a letter is
for is not in it, so that the same body for many parties is uploaded once.
"""

from __future__ import annotations

import socket

from flwr.app import ConfigRecord, RecordDict
from frames import FrameError, receive_frame, send_frame

_PART = 16 * 1024**2  # bytes of one object, which Flower holds in memory several times over
_MOST_PARTS = 128  # 2 GiB, as in frames


def letter(body: bytes | bytearray, problem: str = "", reason: str = "") -> RecordDict:
    """A message's content: a body; of an answer that is none, what kind of problem there is (`away`
    or `failed`), and why."""
    view = memoryview(body)
    starts = range(0, max(len(view), 1), _PART)
    records = {
        str(i): ConfigRecord({"body": bytes(view[at : at + _PART])}) for i, at in enumerate(starts)
    }
    records["0"]["problem"] = problem
    records["0"]["reason"] = reason
    records["0"]["parts"] = len(records)
    return RecordDict(records)


def opened(content: RecordDict) -> tuple[str, str, bytes]:
    """What kind of problem there is, "" for none, and why; and the body.

    Raises:
        ValueError: it is no letter.
    """
    try:
        first = content["0"]
        parts = first["parts"]
        if not (type(parts) is int and 0 < parts <= _MOST_PARTS and len(content) == parts):
            raise ValueError
        body = b"".join(content[str(i)]["body"] for i in range(parts))
        return str(first["problem"]), str(first["reason"]), body
    except (KeyError, TypeError, ValueError):
        raise ValueError("a message that is no letter of this relay") from None


def ask_party(path: str, number: str, body: bytes) -> RecordDict:
    """Hand a message to the party's process, wait for its answer, and make a letter of it.

    As long as the party works on it this waits: asked again meanwhile it could not answer sooner.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            send_frame(connection, {"id": number}, body)
            header, answer = receive_frame(connection)
    except (FileNotFoundError, ConnectionRefusedError):
        return letter(b"", "away", "the party's process is not running")
    except (EOFError, ConnectionError):
        return letter(b"", "away", "the party's process ended before it answered")
    except (OSError, FrameError) as error:
        return letter(b"", "failed", f"the party's process cannot be asked: {error}")
    if header.get("ok") is True:
        return letter(answer)
    problem = "away" if header.get("kind") == "away" else "failed"
    return letter(b"", problem, str(header.get("reason", "no reason given"))[:1000])
