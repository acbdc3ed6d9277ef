"""Many sites in one process: what their parties answer, over a socket each.

    python -m benchmarks.federation.crowd FOLDER...

Every one is the party that `python -m hyperlock.sites serve` would be, with its own keys, samples
and copy of the model; they share a processor, one of them answering at a time. Their nodes are
other processes' (`nodes.py`).
"""

from __future__ import annotations

import logging
import selectors
import sys
from pathlib import Path

from hyperlock.experiment import simulation
from hyperlock.process import end_on_signals
from hyperlock.sites.folder import Folder
from hyperlock.sites.party import Party
from hyperlock.sites.serve import SOCKET, answer_one, listen


def main(folders: list[Path]) -> None:
    """Answer until a signal."""
    end_on_signals()
    simulation.import_tensorflow()
    selector = selectors.DefaultSelector()
    for folder in folders:
        party = Party(Folder(folder))
        selector.register(listen(folder / SOCKET), selectors.EVENT_READ, party)
    while True:
        for key, _ in selector.select():
            answer_one(key.data, key.fileobj)  # type: ignore[arg-type]


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    main([Path(word) for word in sys.argv[1:]])
