"""What rounds moved, on a disk before they are released: after a restart a round may be taken from
the key holder's ledger, and then moves nothing."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Traffic:
    """What a round moved.

    Attributes:
        uplink: mean bytes a client sent.
        downlink: bytes a client was sent.
        replies: clients that answered.
        refused: updates that the server refused.
        lost: clients that did not answer.
        proofs: bytes of commitments, rosters and the witness, over all parties; 0 at trust=curious.
    """

    uplink: float
    downlink: int
    replies: int
    refused: int
    lost: int
    proofs: int = 0


class Journal:
    """A line a round.

    Args:
        folder: where it is written; in memory alone if None.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file = None if folder is None else folder / "rounds.jsonl"
        self._known: dict[int, Traffic] = {}
        if self._file is not None and self._file.exists():
            text = self._file.read_text()
            for line in text.splitlines():
                # One that was not written to its end is no reason not to go on: these are figures.
                with suppress(ValueError, TypeError, KeyError, AttributeError):
                    entry = json.loads(line)
                    number = entry.pop("round")
                    self._known[number] = Traffic(**entry)
            if not text.endswith("\n"):
                self._write("")

    def keep(self, round_number: int, traffic: Traffic) -> None:
        """Note it."""
        self._known[round_number] = traffic
        self._write(json.dumps({"round": round_number, **asdict(traffic)}))

    def _write(self, line: str) -> None:
        if self._file is not None:
            with open(self._file, "a") as file:
                file.write(f"{line}\n")

    def find(self, round_number: int) -> Traffic:
        """What a round moved, as far as is known."""
        return self._known.get(round_number, Traffic(0.0, 0, 0, 0, 0))
