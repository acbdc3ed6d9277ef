"""The command: `python -m hyperlock.audit RUN`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

import numpy as np

from hyperlock.audit import findings, inversion, membership, replay
from hyperlock.audit.findings import Findings
from hyperlock.audit.past import Past, find
from hyperlock.errors import HyperLockError
from hyperlock.experiment import simulation
from hyperlock.experiment.private import Guarantee
from hyperlock.privacy import canaries
from hyperlock.privacy.mechanism import Mechanism


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    asked = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(message)s")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        # As an error of a checkpoint has it: what is given again comes after resume=RUN.
        past = find(asked.run.removeprefix("resume="), asked.overrides, asked.config_dir)
        found = audit(past, asked.round)
        print(found.table())
        folder = findings.write(past, found, asked.record)
    except HyperLockError as error:
        print(f"ERROR {error}", file=sys.stderr)
        return 1
    except OSError as error:  # such as a full disk
        where = "" if error.filename is None else f"{error.filename}: "
        print(f"ERROR {where}{error.strerror or error}", file=sys.stderr)
        return 1
    print(f"\n  pictures and figures: {folder}")
    return 0


def audit(past: Past, number: int | None = None) -> Findings:
    """All attacks.

    Args:
        past: the run.
        number: the round whose messages are attacked; the one after the checkpoint if None.
    """
    found = findings.begin(past)
    missing = inversion.what_is_missing(past)
    if missing:
        found.notes.append(f"inversion is not shown: {missing}")
    else:
        number = past.rounds + 1 if number is None else number
        played = replay.play(past, number, replay.model_before(past, number))
        scheme = simulation.build_scheme(past.config, past.network.sizes, past.guarantee)
        found.add_inversion(inversion.invert(past, played, scheme), played, past.rounds)
        if not scheme.security_bits:
            found.notes.append("no ciphertext is shown: encryption=none has none")
    found.add_membership(membership.infer(past), past.rounds)
    if past.guarantee is not None:
        found.add_privacy(past.guarantee, canaries.release(*_planted(past.guarantee)))
    return found


def _planted(guarantee: Guarantee) -> tuple[Mechanism, float, np.random.Generator]:
    """Canaries that nobody could have known beforehand, in one release of the run's mechanism."""
    return guarantee.mechanism, guarantee.delta, np.random.default_rng()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m hyperlock.audit",
        description="Attack a run of your own, on the machine that has its data: samples out of "
        "its updates (gradient inversion), training samples out of its model (membership), and "
        "under privacy canaries.",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="its directory, or its id in MLflow")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="as `resume=RUN` asks for: where its record is, or code of your own that it used",
    )
    parser.add_argument("--config-dir", help="a folder with options of your own, as the run had it")
    parser.add_argument(
        "--round",
        type=int,
        metavar="N",
        help="whose messages are attacked; the rounds before it are played again in the clear "
        "(the one after the checkpoint, which takes one)",
    )
    parser.add_argument(
        "--no-record",
        dest="record",
        action="store_false",
        help="leave the run's record in MLflow as it is: pictures show training samples",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
