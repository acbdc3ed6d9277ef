"""What a client that is restarted still knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hyperlock.encryption.bfv import Bfv
from hyperlock.encryption.bfv_parameters import bfv_parameters
from hyperlock.encryption.extent import Extent
from hyperlock.errors import HyperLockError, MessageRefused
from hyperlock.parties.client import Client
from hyperlock.parties.memory import Memory
from hyperlock.parties.proofs import Cohorts
from tests.parties.cast import NAMES, Cast, Trainer
from tests.parties.verified_cast import VerifiedCast


def restarted(cast: Cast, file: Path) -> Client:
    client = cast.client(Trainer(np.zeros(cast.layout.parameters, np.float32)))
    client._memory = Memory(file)
    return client


def test_a_round_is_answered_once_also_after_a_restart(tmp_path: Path) -> None:
    cast = Cast(Bfv(bfv_parameters("auto", "auto", "auto", Extent(8), 16, 128)))
    file = tmp_path / "answered"
    request = cast.request
    assert restarted(cast, file).handle(request)
    with pytest.raises(MessageRefused, match="round 1, attempt 1 after round 1, attempt 1"):
        restarted(cast, file).handle(request)
    assert restarted(cast, tmp_path / "another").handle(request)
    assert restarted(cast, file).handle(cast.open(attempt=2))
    assert Memory(file).seen == (1, 2) and Memory(file).ranges == (0.5, 0.5)
    assert Memory(file).cohorts == b""
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_noted_is_not_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("hyperlock.parties.memory.write_whole", full)
    memory = Memory(tmp_path / "answered")
    with pytest.raises(OSError, match="no space"):
        memory.note((1, 1), (0.5,))
    assert memory.seen == (0, 0)


@pytest.mark.parametrize("content", ["", "{}", '{"seen": 3, "ranges": []}', "\0"])
def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path, content: str) -> None:
    file = tmp_path / "answered"
    file.write_text(content)
    with pytest.raises(HyperLockError, match="cannot be read"):
        Memory(file)


def test_a_restarted_client_remembers_what_cohorts_are_drawn_from(tmp_path: Path) -> None:
    """A key holder that changed its mind while the client was away would choose who takes part."""
    cast = VerifiedCast(Bfv(bfv_parameters("auto", "auto", "auto", Extent(8), 16, 128)))
    client = cast.clients[NAMES[0]]
    client._memory = Memory(tmp_path / "answered")
    cast.play()
    client._memory = Memory(tmp_path / "answered")
    cast.keyholder._cohorts = Cohorts(6, b"n" * 32)
    with pytest.raises(MessageRefused, match="draws cohorts from another seed than it said"):
        cast.play(2)
