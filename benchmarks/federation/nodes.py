"""Many nodes in one process, in Flower's environment: each speaks the node's protocol for itself.

    python -P nodes.py --relay FOLDER --superlink HOST:PORT --ca FILE --pace A,B,C,D FOLDER...
    python -P nodes.py --relay FOLDER --superlink HOST:PORT --ca FILE --admit FILE FOLDER...

Each FOLDER is a site's, with its node.key and its party's socket. With `--admit` they are
registered instead, at the SuperLink's own machine, and noted in its file of nodes: Flower's command
would take a second for each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from flwr.proto.control_pb2 import RegisterNodeRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes


def main() -> None:
    """Admit the nodes, or join and serve until a signal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--relay", required=True)
    parser.add_argument("--superlink", required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--pace", default="")
    parser.add_argument("--admit")
    parser.add_argument("folders", nargs="+", type=Path)
    told = parser.parse_args()
    sys.path.append(told.relay)
    if told.admit:
        admit(told.superlink, told.ca, Path(told.admit), told.folders)
        return
    run(told.superlink, told.ca, told.folders, [float(word) for word in told.pace.split(",")])


def admit(address: str, ca: str, file: Path, folders: list[Path]) -> None:
    """Register the node of each folder, by its folder's name."""
    import node

    client = ControlHttpClient.from_server_address(
        address,
        False,
        Path(ca).read_bytes(),
        [RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
    )
    known = json.loads(file.read_text()) if file.exists() else {}
    for folder in folders:
        key = node._read_key(str(folder / "node.key")).public_key()
        request = RegisterNodeRequest(public_key=public_key_to_bytes(key), name=folder.name)
        number = client.RegisterNode(request=request).node_id
        text = (folder / "node.pub").read_text().split()[1]
        known[folder.name] = {"id": str(number), "key": text}
    file.write_text(json.dumps(known))


def run(address: str, ca: str, folders: list[Path], pace: list[float]) -> None:
    """Join with every node, and serve each in a thread of its own until a signal."""
    import node

    least, share, most, alive = pace
    ended = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        ended.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    links = []
    for folder in folders:
        key = node._read_key(str(folder / "node.key"))
        link = node.SuperLink(address, ca, key, 60.0, alive)
        link.join()
        links.append(link)
        party = str(folder / "party.sock")
        threading.Thread(
            target=node.serve, args=(link, party, (least, share, most)), daemon=True
        ).start()
        if ended.is_set():
            break
    print(f"{len(links)} nodes joined", flush=True)
    ended.wait()
    for link in links:
        with contextlib.suppress(Exception):
            link.leave()


if __name__ == "__main__":
    main()
