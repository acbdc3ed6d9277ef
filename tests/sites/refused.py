"""What something is refused with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hyperlock.errors import HyperLockError


def refusal(read: Callable[[], Any]) -> str:
    """What it is refused with: one message, and no other error."""
    with pytest.raises(HyperLockError) as caught:
        read()
    text = str(caught.value)
    assert text and not text.startswith("\n")
    return text
