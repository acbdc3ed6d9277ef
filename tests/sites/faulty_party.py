"""A party's process as `python -m hyperlock.sites` makes it, that fails where FOLDER/fault says.

The file holds a point and, for some, a number; it is gone when the fault happens, so that whoever
is started again is well. What is patched is where the fault strikes, and nothing that answers it.
What the key holder releases is written to FOLDER/released.jsonl, for tests to know it.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from hyperlock.experiment import simulation
from hyperlock.parties import memory
from hyperlock.parties.client import Client
from hyperlock.parties.terms import Terms
from hyperlock.parties.verifying_keyholder import VerifyingKeyHolder
from hyperlock.parties.witness import Witness
from hyperlock.sites import __main__, engine, offer, serve

FOLDER = Path(sys.argv[-1])
FAULT = FOLDER / "fault"


def due(point: str) -> str | None:
    """What the file says beside this point, and no file any more; None if it is of another."""
    if not FAULT.exists():
        return None
    named, _, more = FAULT.read_text().partition(" ")
    if named != point:
        return None
    FAULT.unlink()
    return more


def die() -> NoReturn:
    """As by kill -9."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody outlives it")


def before(owner: Any, name: str, happens: Callable[..., object]) -> None:
    """Have something happen before a function is called."""
    function = getattr(owner, name)

    def patched(*given: Any, **named: Any) -> Any:
        happens(*given)
        return function(*given, **named)

    setattr(owner, name, patched)


def training(*_: Any) -> None:
    """`training`: killed in it; `slow SECONDS`: too slow."""
    if due("training") is not None:
        die()
    seconds = due("slow")
    if seconds:
        time.sleep(float(seconds))


def sending(connection: socket.socket, header: dict[str, Any], body: bytes = b"") -> None:
    """`sending BYTES`: killed when half of an answer of so many is sent."""
    if FAULT.exists() and FAULT.read_text().startswith("sending"):
        if len(body) < int(FAULT.read_text().split()[1]):
            return
        FAULT.unlink()
        connection.sendall(len(json.dumps(header)).to_bytes(4, "little"))
        connection.sendall(len(body).to_bytes(8, "little") + json.dumps(header).encode())
        connection.sendall(body[: len(body) // 2])
        die()


def writing(*_: Any) -> None:
    """`full`: what must not be forgotten finds no room on the disk."""
    if due("full") is not None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def kill_at(point: str) -> Callable[..., None]:
    """Killed there."""

    def happens(*_: Any) -> None:
        if due(point) is not None:
            die()

    return happens


def keep_names(function: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """Note whose updates are in a sum that is released."""

    def patched(keyholder: Any, session: Any, message: Any) -> list[str]:
        names = function(keyholder, session, message)
        line = {
            "run": session.identity.run,
            "round": session.round,
            "attempt": session.attempt,
            "names": sorted(names),
        }
        with open(FOLDER / "released.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
        return names

    return patched


def at_start() -> None:
    """`version`: another HyperLock; `terms`: others than the offer's come about here; `uploading`:
    the node is killed, and its party, when a part of an answer is at the SuperLink."""
    if due("version") is not None:
        offer.VERSION = "0.0.1"
    if due("terms") is not None:
        build = simulation.build_terms

        def others(config: Any, weight_unit: float, *given: Any) -> Terms:
            return build(config, weight_unit * 2, *given)

        simulation.build_terms = others
    if FAULT.exists() and FAULT.read_text().startswith("uploading"):
        engine.RELAY = Path(__file__).parent / "faulty"
        os.environ["FAULTY_RELAY"] = str(Path(serve.__file__).parents[1] / "runtime" / "relay")
        os.environ["FAULTY_FILE"] = str(FAULT)


before(Client, "_vector", training)
before(serve, "send_frame", sending)
before(memory, "write_whole", writing)
before(VerifyingKeyHolder, "_check_sums", kill_at("releasing"))
before(VerifyingKeyHolder, "_released", kill_at("released"))
before(Witness, "_add", kill_at("adding"))
VerifyingKeyHolder._check_manifest = keep_names(  # type: ignore[method-assign]
    VerifyingKeyHolder._check_manifest
)

if __name__ == "__main__":
    at_start()
    __main__.main()
