"""Decompression bombs: refused by reason, within memory that does not depend on what they would
inflate to."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REASONS = (
    r"inflates? to|does not inflate|wrong nested header|unknown compression|"
    r"bytes instead of|bytes where at most"
)
KILOBYTES = 8 * 1024  # of 16 MiB and 256 MiB that they would inflate to

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="reads Linux's account of memory"
)


@pytest.fixture(scope="module")
def offered() -> dict[str, tuple[str, int]]:
    """By name of the bomb, what was said and by how many kilobytes memory grew, in a process of its
    own."""
    command = [sys.executable, "-m", "tests.security.bombs"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return {name: tuple(values) for name, values in json.loads(done.stdout).items()}


def test_every_bomb_is_refused_by_reason(offered: dict[str, tuple[str, int]]) -> None:
    bombs = {
        name: text
        for name, (text, _) in offered.items()
        if name != "control" and not name.startswith("header")
    }
    assert len(bombs) > 120
    assert {name: text for name, text in bombs.items() if not re.search(REASONS, str(text))} == {}


def test_no_bomb_takes_memory(offered: dict[str, tuple[str, int]]) -> None:
    text, grown = offered.pop("control")
    assert text == str(2**28) and grown > 200 * 1024
    assert {
        name: kilobytes for name, (_, kilobytes) in offered.items() if kilobytes > KILOBYTES
    } == {}


def test_headers_of_very_many_things_are_refused(offered: dict[str, tuple[str, int]]) -> None:
    headers = {name: text for name, (text, _) in offered.items() if name.startswith("header")}
    assert len(headers) == 4
    reasons = "no header|not take messages|bytes where at most"
    assert {name for name, text in headers.items() if not re.search(reasons, text)} == set()
