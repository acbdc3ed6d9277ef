"""What processes hold and have computed, as Linux tells."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def memory(pids: Iterable[int], field: str = "VmRSS") -> int:
    """Bytes of resident memory of these processes together, now (VmRSS) or at most (VmHWM)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith(f"{field}:"):
                    total += int(line.split()[1]) * 1024
    return total


def busy(pids: Iterable[int]) -> float:
    """Seconds that these processes have computed."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def those(mark: str, word: str = "") -> list[int]:
    """Processes with this variable in their environment, `NAME=VALUE`, and a word in their
    command."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes()
            variables = (path / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if mark.encode() in variables and word.encode() in command and command:
            found.append(int(path.name))
    return [pid for pid in found if pid != os.getpid()]
