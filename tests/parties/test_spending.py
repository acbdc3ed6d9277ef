"""What was released was spent."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperlock.errors import HyperLockError
from hyperlock.parties.spending import Spending


def test_it_counts_how_often_each_client_was_in_a_sum() -> None:
    spending = Spending()
    assert (spending.releases, spending.most, spending.of("a")) == ([], 0, 0)
    spending.note(1, ["a", "b"])
    spending.note(2, ["b", "c"])
    assert (spending.releases, spending.most) == ([{"a", "b"}, {"b", "c"}], 2)
    assert [spending.of(name) for name in "abcd"] == [1, 2, 1, 0]


def test_a_restart_knows_what_was_released_and_what_was_about_to_be(tmp_path: Path) -> None:
    file = tmp_path / "spent"
    before = Spending(file)
    before.note(1, ["a", "b"])
    before.note(1, ["a"])  # again, as after a kill between the line and the Release
    with open(file, "a") as half:
        half.write('{"round": 2, "cli')
    after = Spending(file)
    assert (after.releases, after.most) == ([{"a", "b"}, {"a"}], 2)
    after.note(2, ["b"])
    assert [Spending(file).of(name) for name in "ab"] == [2, 2]
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["{}\n", "no\n", '{"clients": 3}\n', "[1]\n"])
def test_a_file_that_cannot_be_read_ends_the_party(tmp_path: Path, content: str) -> None:
    (tmp_path / "spent").write_text(content)
    with pytest.raises(HyperLockError, match="what this run has spent cannot be read"):
        Spending(tmp_path / "spent")
