"""`python -m benchmarks peers`: the same rounds by HyperLock and by other projects' own code, each
in a process and an environment of its own, all of them taking turns."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from benchmarks.peers import encryption, environments, training
from hyperlock.process import end_on_signals

ENVIRONMENTS = {  # peer: where it runs
    **{name: name for name in training.MODULES},
    **{name: environment for name, (environment, _) in encryption.PLAYERS.items()},
}


def add_command(commands: Any) -> None:
    """Add `peers` to the command line."""
    parser = commands.add_parser(
        "peers", help="the same rounds by fedjax, pfl, Flower, NVFlare and SecAgg+ themselves"
    )
    parser.add_argument(
        "--peers",
        type=names,
        default=list(ENVIRONMENTS),
        help=f"separated by commas, of {', '.join(ENVIRONMENTS)}; default: all",
    )
    parser.add_argument("--repeats", type=positive, default=5, help="turns of each; default: 5")
    parser.add_argument(
        "--clients",
        type=positive,
        default=100,
        help="in a round of training, 600 samples each, 100 at most; default: 100",
    )
    parser.add_argument(
        "--size",
        type=positive,
        default=1_663_370,
        help="parameters in a round of encryption; default: 1663370",
    )
    parser.add_argument(
        "--install-only", action="store_true", help="make the environments and measure nothing"
    )
    parser.set_defaults(run=measure)


def names(text: str) -> list[str]:
    """Peers as they are named on the command line."""
    chosen = list(dict.fromkeys(text.split(",")))
    unknown = sorted(set(chosen) - set(ENVIRONMENTS))
    if unknown:
        known = ", ".join(ENVIRONMENTS)
        raise argparse.ArgumentTypeError(f"no such peer: {', '.join(unknown)}; there are {known}")
    return chosen


def positive(text: str) -> int:
    """A number of anything."""
    number = int(text.replace("_", ""))
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def measure(arguments: argparse.Namespace) -> None:
    """Make what environments are missing, then measure, print tables, and keep the figures as
    JSON."""
    end_on_signals()  # so that the processes that it started end with it, Ray's among them
    chosen = allowed(arguments.peers)
    for environment in dict.fromkeys(ENVIRONMENTS[name] for name in chosen):
        environments.install(environment)
    if arguments.install_only or not chosen:
        return
    report = {}
    training_peers = [name for name in chosen if name in training.MODULES]
    if training_peers:
        report["training"] = training.measure(training_peers, arguments.clients, arguments.repeats)
    others = [name for name in chosen if name in encryption.PLAYERS]
    if others:
        report["encryption"] = encryption.measure(others, arguments.size, arguments.repeats)
    written = environments.HOME / "peers.json"
    written.write_text(json.dumps(report, indent=1))
    print(f"written to {written}", file=sys.stderr)


def allowed(chosen: list[str]) -> list[str]:
    """Those that may be run on this machine; of the others it is said why not."""
    if environments.isolation():
        return chosen
    for name in training.ISOLATED.intersection(chosen):
        print(
            f"{name} is skipped: Ray opens ports, so it is run only in a network namespace with "
            "loopback alone, and this machine gives none "
            "(`unshare --net --pid --fork --mount-proc true`)",
            file=sys.stderr,
        )
    return [name for name in chosen if name not in training.ISOLATED]
