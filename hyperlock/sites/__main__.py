"""What a party's people type: `python -m hyperlock.sites COMMAND`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

from hyperlock import process
from hyperlock.errors import HyperLockError
from hyperlock.experiment import simulation
from hyperlock.parties.identity import SERVER, WITNESS
from hyperlock.sites.demo import demo
from hyperlock.sites.engine import Environment, find_environment
from hyperlock.sites.folder import Folder
from hyperlock.sites.kit import ROLES, SITE, Kit
from hyperlock.sites.meeting import (
    HAND_OVER,
    Node,
    flower_folder,
    provision,
    run_superlink,
    take_kit,
)
from hyperlock.sites.party import Party
from hyperlock.sites.serve import SOCKET, listen, serve
from hyperlock.sites.tls import DAYS

log = logging.getLogger("hyperlock")


def main() -> None:
    """Parse and run one command."""
    parser = argparse.ArgumentParser(prog="python -m hyperlock.sites", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    add = commands.add_parser("init", help="make a party's folder and its keys, which never leave")
    add.add_argument("folder", type=Path)
    add.add_argument("--role", choices=ROLES, default=SITE)
    add.add_argument("--name", default="", help="of a site: lower case letters, digits and -")
    add.add_argument("--samples", type=int, default=0, help="of a site, about: told to within a "
                     "power of two")  # fmt: skip
    add.set_defaults(run=_init)

    add = commands.add_parser("provision", help="make a project's kit, at the coordinator")
    add.add_argument("folder", type=Path, help="the server's")
    add.add_argument("--project", required=True)
    add.add_argument("--superlink", required=True, metavar="HOST:PORT", help="where parties meet")
    add.add_argument("public", type=Path, nargs="+", help="the public.json of every other party")
    add.set_defaults(run=_provision)

    add = commands.add_parser("join", help="take a project's kit, at every other party")
    add.add_argument("folder", type=Path)
    add.add_argument("kit", type=Path)
    add.set_defaults(run=_join)

    add = commands.add_parser("fingerprint", help="who is in it, to be compared by telephone")
    add.add_argument("folder", type=Path)
    add.set_defaults(run=_fingerprint)

    add = commands.add_parser("approve", help="let an offer outside a site's limits through")
    add.add_argument("folder", type=Path)
    add.add_argument("offer", help="its fingerprint, as the refusal named it")
    add.set_defaults(run=_approve)

    add = commands.add_parser("serve", help="take part: a site, a key holder or a witness")
    add.add_argument("folder", type=Path)
    add.set_defaults(run=_serve)

    add = commands.add_parser("superlink", help="run the place where parties meet")
    add.add_argument("folder", type=Path, help="the server's")
    add.add_argument("--listen", default="", help="an address of this machine")
    add.set_defaults(run=_superlink)

    add = commands.add_parser("demo", help="all of it on this machine: `make federation`")
    add.add_argument("overrides", nargs="*", help="of the run, such as federation.rounds=5")
    add.set_defaults(run=_demo)

    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, format="[%(asctime)s] %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.umask(0o077)  # what a party writes is its own alone
    process.end_on_signals()
    try:
        arguments.run(arguments)
    except HyperLockError as error:
        print(f"ERROR {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:  # such as a full disk, or a folder of another user's
        where = "" if error.filename is None else f"{error.filename}: "
        print(f"ERROR {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except (KeyboardInterrupt, process.Terminated):
        sys.exit(0)


def _init(arguments: Any) -> None:
    if arguments.role == SITE and not (arguments.name and arguments.samples):
        raise HyperLockError("a site has a name and samples\n  try: --name NAME --samples NUMBER")
    if arguments.role != SITE and arguments.samples:
        raise HyperLockError(f"--samples of a {arguments.role}\n  allowed: of a site alone")
    folder = Folder.make(arguments.folder, arguments.role, arguments.name, arguments.samples)
    if arguments.role == SERVER:
        print(f"{folder.name} lives in {folder.path}; next is `provision`")
        return
    print(f"{folder.name} lives in {folder.path}; hand over {folder.path / 'public.json'}")
    if arguments.role == SITE:
        print(f"your data and your limits: {folder.path / 'site.yaml'}")


def _provision(arguments: Any) -> None:
    server = Folder(arguments.folder)
    if server.public.role != SERVER:
        raise HyperLockError(
            f"{server.path}: a {server.public.role}'s folder, not the server's\n"
            "  try: the folder of `python -m hyperlock.sites init FOLDER --role server`"
        )
    kit = provision(server, arguments.project, arguments.superlink, arguments.public)
    print(f"project {kit.project}: {', '.join(sorted(kit.parties))}")
    print(f"give every party {server.path / HAND_OVER}; it is the same for all")
    print(f"its fingerprint, which they compare with each other:\n  {kit.fingerprint}")
    print(f"it is good for {DAYS} days; where the SuperLink runs, start it again")


def _parties(kit: Kit) -> str:
    """Who is in a project, and the fingerprint of that."""
    return f"project {kit.project}: {', '.join(sorted(kit.parties))}\n  {kit.fingerprint}"


def _join(arguments: Any) -> None:
    kit, end = take_kit(Folder(arguments.folder), arguments.kit)
    print(f"project {kit.project}: {', '.join(sorted(kit.parties))}")
    print(f"they meet at {kit.superlink}, until {end:%Y-%m-%d %H:%M} UTC")
    print(f"compare with the key holder and the witness, by telephone:\n  {kit.fingerprint}")


def _fingerprint(arguments: Any) -> None:
    print(_parties(Folder(arguments.folder).kit))


def _approve(arguments: Any) -> None:
    Folder(arguments.folder).approve(arguments.offer)
    print(f"offer {arguments.offer} is let through when it is made again")


def _serve(arguments: Any) -> None:
    folder = Folder(arguments.folder)
    if folder.public.role == SERVER:
        raise HyperLockError(
            f"{folder.path}: the server's folder\n"
            "  try: python -m hyperlock.sites superlink, and python run.py runtime=flower"
        )
    environment = find_environment(flower_folder())
    with folder.held():
        party = Party(folder)
        if folder.public.role != WITNESS:  # or the first round would wait for it
            simulation.import_tensorflow()
        _wait(folder, environment, party)


def _wait(folder: Folder, environment: Environment, party: Party) -> None:
    """Answer until a signal ends the process."""
    listener = listen(folder.path / SOCKET)
    with Node(folder, environment) as node:
        log.info("%s waits to be invited, in project %s", party.name, folder.kit.project)
        threading.Thread(target=serve, args=(party, listener), name="party", daemon=True).start()
        while True:
            node.look()
            process.end_if_asked()
            threading.Event().wait(1.0)


def _superlink(arguments: Any) -> None:
    environment = find_environment(flower_folder())
    run_superlink(Folder(arguments.folder), environment, arguments.listen)


def _demo(arguments: Any) -> None:
    demo(arguments.overrides)


if __name__ == "__main__":
    main()
