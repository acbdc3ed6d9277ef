"""A site's node: Flower's Fleet protocol towards the SuperLink, the party's socket on this side.

    python -P node.py --superlink HOST:PORT --ca FILE --key FILE --party SOCKET

It runs in Flower's environment, in place of a stock SuperNode, and runs nothing that the SuperLink
ships: it never asks for the app, and hands each message to the party's process as bytes. It holds
the key that the SuperLink knows the node by, and the certificate of the authority that the
SuperLink's own is checked against; no data, and no key of the party's.

Where several requests wait, the newest is served and the older ones are answered "superseded", so
that a party that was slow catches up. SIGTERM and SIGINT sign the node off, so that it may come
back at once; after a kill the SuperLink takes 20 s, or twice `--alive`, to believe that it is gone.

Exit status, for a supervisor that restarts it: 0 stopped by a signal; 2 wrong arguments or files;
10 the SuperLink cannot be reached; 11 its certificate is not trusted; 12 it does not admit the key,
or no longer; 13 it speaks no TLS; 14 anything else, such as another version of Flower. Once it has
joined, a SuperLink that is away is waited for.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.supercore.error import FlowerError
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

sys.path.append(str(Path(__file__).resolve().parent))
from letters import ask_party, letter, opened

STOPPED = 0
WRONG_FILES = 2
UNREACHABLE = 10
UNTRUSTED = 11
REFUSED = 12
NO_TLS = 13
OTHER = 14

_ALIVE_EVERY = 0.7  # of the seconds in which it should give a sign of life
_LONGEST_WAIT = 3.0  # seconds before a SuperLink that is away is tried again
_NOT_ADMITTED = 2004  # Flower's code: the key is not registered, or its node counts as online
_BUSY = (502, 503, 504)
_SERVER_ERROR = 500
_EASE = 4.0  # times as long as a SuperLink that has much to do kept us waiting, it is left alone,
_MOST_PAUSE = 10.0  # but no more seconds than these
_MOST_ERRORS = 30.0  # seconds in which a request may fail for the SuperLink's own errors
_AT_ONCE = 4  # requests under way, each of which takes the way there and back


class Ended(Exception):
    """The node cannot go on; `code` is its exit status."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class RunOver(Exception):
    """A message that is nobody's concern any more: its run is over, or it is none."""


class SuperLink:
    """What a node says to a SuperLink, tried again while it is away.

    Args:
        address: HOST:PORT.
        ca: path of the authority's certificate.
        key: the node's.
        patience: seconds in which to join.
        alive: seconds between two signs of life, at most; after twice that it counts as gone.
    """

    def __init__(
        self, address: str, ca: str, key: Any, patience: float, alive: float = 10.0
    ) -> None:
        self._address = address
        self._key = key
        self._client = FleetHttpClient.from_server_address(
            address,
            False,
            Path(ca).read_bytes(),
            [
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(key, key.public_key()),
            ],
        )
        self._patience: float | None = patience
        self._alive = alive
        self._left = threading.Event()
        self._gone: Ended | None = None
        self._beside = ThreadPoolExecutor(_AT_ONCE)
        self.node = Node()

    def join(self) -> None:
        """Become online, and stay it by signs of life.

        Raises:
            Ended: the SuperLink cannot be reached, or does not admit this node.
        """
        request = ActivateNodeRequest(
            public_key=public_key_to_bytes(self._key.public_key()),
            heartbeat_interval=self._alive,
        )
        assert self._patience is not None
        deadline = time.monotonic() + self._patience
        while True:
            try:
                answer = self._call(self._client.ActivateNode, request)
                break
            except Ended as error:
                # A node that was killed counts as online for a while, and the code is the same.
                if error.code != REFUSED or time.monotonic() > deadline:
                    raise
                time.sleep(1)
        self.node = Node(node_id=answer.node_id)
        self._patience = None
        threading.Thread(target=self._live, daemon=True).start()

    def leave(self) -> None:
        """Sign off; a SuperLink that is away is not waited for."""
        self._left.set()
        if self.node.node_id:
            with contextlib.suppress(httpx.HTTPError, RuntimeError):
                self._client.DeactivateNode(DeactivateNodeRequest(node_id=self.node.node_id))

    def next_request(self) -> tuple[Message, ObjectTree] | None:
        """The oldest message that nobody has fetched yet, still without its content."""
        answer = self._call(self._client.PullMessages, PullMessagesRequest(node=self.node))
        if not answer.messages_list:
            return None
        try:
            return message_from_proto(answer.messages_list[0]), answer.message_object_trees[0]
        except Exception as error:  # what Flower makes of hostile bytes is not specified
            raise RunOver(f"a message that cannot be read ({error})") from None

    def fetch(self, message: Message, tree: ObjectTree) -> tuple[RecordDict, Future[None]]:
        """The content of a message, and the end of what goes on: all else of it comes, and is
        confirmed then. A letter of one record is that record, and nothing else is waited for.

        Raises:
            RunOver: it is not to be had any more.
        """
        meta = message.metadata
        deadline = time.monotonic() + meta.ttl
        coming = {
            part.object_id: self._beside.submit(self._object, meta.run_id, part.object_id, deadline)
            for part in iterate_object_tree(tree)
        }
        confirmed = self._beside.submit(self._confirm_after, message, list(coming.values()))
        records = tree.children[0].children if len(tree.children) == 1 else []
        try:
            if len(records) == 1 and not records[0].children:
                content = coming[records[0].object_id].result()
                if get_object_id(content) != records[0].object_id:
                    raise RunOver("a message of another content than it says")
                return RecordDict({"0": ConfigRecord.inflate(content)}), confirmed
            contents = {key: part.result() for key, part in coming.items()}
            whole = inflate_object_from_contents(meta.message_id, contents)
        except (Ended, RunOver):
            raise
        except Exception as error:  # what Flower makes of hostile bytes is not specified
            raise RunOver(f"a message that cannot be read ({error})") from None
        if not (isinstance(whole, Message) and whole.has_content()):
            raise RunOver("what came is no message")
        return whole.content, confirmed

    def _confirm_after(self, message: Message, coming: list[Future[bytes]]) -> None:
        """The SuperLink drops a message when it is confirmed, and must not while the relay has
        still to bring parts of it."""
        for part in coming:
            part.result()
        self.confirm(message)

    def confirm(self, message: Message) -> None:
        """Say that its content is not needed any more."""
        meta = message.metadata
        self._call(
            self._client.ConfirmMessageReceived,
            ConfirmMessageReceivedRequest(
                node=self.node, run_id=meta.run_id, message_object_id=meta.message_id
            ),
        )

    def answer(self, message: Message, content: Any, seconds: float) -> None:
        """Send the answer to a message; nothing if it would be too late."""
        meta = message.metadata
        if meta.created_at + meta.ttl <= time.time():
            return
        reply = Message(content, reply_to=message)
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            objects = get_all_nested_objects(reply)
            sent = self._call(
                self._client.PushMessages,
                PushMessagesRequest(
                    node=self.node,
                    messages_list=[message_to_proto(remove_content_from_message(reply))],
                    message_object_trees=[get_object_tree(reply)],
                    clientapp_runtime_list=[seconds],
                ),
            )

        def push(key: str) -> None:
            self._call(
                self._client.PushObject,
                PushObjectRequest(
                    node=self.node,
                    run_id=meta.run_id,
                    object_id=key,
                    object_content=objects[key].deflate(),
                    session_id=sent.session_id,
                ),
            )

        # The body first, which takes longest and so the connection that is open already.
        wanted = set(sent.objects_to_push)
        list(self._beside.map(push, [key for key in objects if key in wanted]))

    def _object(self, run: int, key: str, deadline: float) -> bytes:
        """A part of a message; waited for while its sender still uploads it."""
        request = PullObjectRequest(node=self.node, run_id=run, object_id=key)
        wait = 0.05
        while True:
            answer = self._call(self._client.PullObject, request)
            if not answer.object_found or time.monotonic() > deadline:
                raise RunOver("the message is not there any more")
            if answer.object_available:
                return answer.object_content
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    def _live(self) -> None:
        request = SendNodeHeartbeatRequest(node=self.node, heartbeat_interval=self._alive)
        while not self._left.wait(_ALIVE_EVERY * self._alive):
            try:
                self._client.SendNodeHeartbeat(request)
            except httpx.HTTPStatusError as error:
                if error.response.status_code == httpx.codes.UNAUTHORIZED:
                    self._gone = _refused(self._address)
            except (httpx.TransportError, RuntimeError):
                pass  # the next one tells

    def _call(self, method: Callable[[Any], Any], request: Any) -> Any:
        """One request, tried again while the SuperLink is away.

        Raises:
            Ended: it cannot be reached, or does not admit this node.
            RunOver: Flower's run is over.
        """
        began = time.monotonic()
        wait = 0.2
        while True:
            if self._gone is not None:
                raise self._gone
            if self._left.is_set():  # what goes on beside the end of the process
                raise Ended(STOPPED, "stopped")
            try:
                return method(request)
            except httpx.HTTPStatusError as error:
                problem = self._judge(error)
            except httpx.TransportError as error:
                problem = self._unreachable(error)
            patience = self._patience
            if patience is None and problem.code == OTHER:
                patience = _MOST_ERRORS
            if patience is not None and time.monotonic() - began > patience:
                raise problem
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    def _judge(self, error: httpx.HTTPStatusError) -> Ended:
        """What it means; raises what makes trying again senseless."""
        status = error.response.status_code
        flower = FlowerError.from_json(error.response.text)
        code = None if flower is None else flower.code
        if status == httpx.codes.UNAUTHORIZED or code == _NOT_ADMITTED:
            raise _refused(self._address)
        if status in _BUSY:
            return Ended(UNREACHABLE, f"the SuperLink at {self._address} answers {status}")
        if status == httpx.codes.FORBIDDEN:
            raise RunOver("the run is over")
        told = error.response.text[:300] if flower is None else flower.message
        unclear = Ended(OTHER, f"the SuperLink at {self._address} answers {status}: {told}")
        if status == _SERVER_ERROR:
            return unclear
        raise unclear

    def _unreachable(self, error: httpx.TransportError) -> Ended:
        """What it means; raises what will not go away by itself."""
        text = str(error)
        if "CERTIFICATE_VERIFY_FAILED" in text:
            why = text.split("certificate verify failed:")[-1].split("(_ssl")[0].strip()
            raise Ended(
                UNTRUSTED,
                f"the certificate of the SuperLink at {self._address} is not trusted: {why}\n"
                "  try: the ca.crt of the kit that the coordinator sent, the address that the "
                "certificate was made for, and this machine's clock",
            )
        if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
            raise Ended(
                NO_TLS,
                f"what listens at {self._address} speaks no TLS: no SuperLink of "
                "this project\n  try: another port",
            )
        return Ended(
            UNREACHABLE,
            f"the SuperLink at {self._address} cannot be reached ({text})\n"
            "  try: its address and port, and whether a firewall lets them through",
        )


def _refused(address: str) -> Ended:
    return Ended(
        REFUSED,
        f"the SuperLink at {address} does not admit this node's key: it is not registered there, "
        "or a node with the same key is online\n  try: ask the coordinator to register this site's "
        "node.pub; a node that was killed may come back after 20 s",
    )


def serve(superlink: SuperLink, party: str, polls: tuple[float, float, float]) -> NoReturn:
    """Hand on what comes, for ever; a SuperLink that is slower than usual is asked less often.

    Args:
        superlink: joined.
        party: path of the party's socket.
        polls: seconds between two looks for messages, at least; what part they are of the time
            since there was one; and seconds at most.
    """
    least, share, most = polls
    last = time.monotonic()
    quickest = _MOST_PAUSE
    looked = False  # and found nothing: what comes next has not waited
    while True:
        began = time.monotonic()
        try:
            waiting = superlink.next_request()
            if waiting is None:
                now = time.monotonic()
                quickest = min(quickest, now - began)
                usual = min(max(least, share * (now - last)), max(least, most))
                busy = min(_EASE * (now - began - quickest), _MOST_PAUSE)
                time.sleep(max(usual, busy))
                looked = True
                continue
            if looked:
                _serve_one(superlink, *waiting, party)
            else:
                _serve_newest(superlink, waiting, party)
        except RunOver as over:
            _say(f"a message is not served: {over}")
        last = time.monotonic()
        looked = False


def _serve_newest(superlink: SuperLink, first: tuple[Message, ObjectTree], party: str) -> None:
    """Flower hands messages over oldest first; all but the last of a sender are stale."""
    newest = {first[0].metadata.src_node_id: first}
    while (further := superlink.next_request()) is not None:
        old = newest.pop(further[0].metadata.src_node_id, None)
        newest[further[0].metadata.src_node_id] = further
        if old is not None:
            _give_up(superlink, old[0])
    for message, tree in newest.values():
        _serve_one(superlink, message, tree, party)


def _give_up(superlink: SuperLink, message: Message) -> None:
    with contextlib.suppress(RunOver):
        superlink.confirm(message)
        superlink.answer(message, letter(b"", "failed", "superseded"), 0.0)
        _say("a request was superseded by a newer one")


def _serve_one(superlink: SuperLink, message: Message, tree: ObjectTree, party: str) -> None:
    began = time.monotonic()
    content, confirmed = superlink.fetch(message, tree)
    try:
        _, _, body = opened(content)
    except ValueError as error:
        superlink.answer(message, letter(b"", "failed", str(error)), 0.0)
        return
    fetched = time.monotonic()
    content = ask_party(party, message.metadata.message_id, body)
    answered = time.monotonic()
    superlink.answer(message, content, answered - fetched)
    confirmed.result()
    _, reason, answer = opened(content)
    _say(
        f"{len(body)} bytes in {fetched - began:.3f} s, party {answered - fetched:.3f} s, "
        f"{len(answer)} bytes out {time.monotonic() - answered:.3f} s {reason}".rstrip()
    )


def _say(text: str) -> None:
    print(time.strftime("%H:%M:%S"), text, flush=True)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the signing off is not interrupted
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise Ended(STOPPED, "stopped")


def _read_key(path: str) -> ec.EllipticCurvePrivateKey:
    key = load_ssh_private_key(Path(path).read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("no elliptic-curve key")
    return key


def main() -> int:
    """Join and serve; the exit status."""
    parser = argparse.ArgumentParser(description="A site's node; see the top of its file.")
    parser.add_argument("--superlink", required=True, metavar="HOST:PORT")
    parser.add_argument("--ca", required=True, metavar="FILE", help="the authority's certificate")
    parser.add_argument("--key", required=True, metavar="FILE", help="the node's key, OpenSSH")
    parser.add_argument("--party", required=True, metavar="SOCKET")
    parser.add_argument("--poll", type=float, default=0.3, help="seconds, at least")
    parser.add_argument("--poll-share", type=float, default=0.02, help="of a silence")
    parser.add_argument("--poll-most", type=float, default=3.0, help="seconds, after long silence")
    parser.add_argument("--alive", type=float, default=10.0, help="seconds; gone after twice that")
    parser.add_argument("--patience", type=float, default=30.0, help="seconds in which to join")
    told = parser.parse_args()
    try:
        key = _read_key(told.key)
        superlink = SuperLink(told.superlink, told.ca, key, told.patience, told.alive)
    except (OSError, ValueError) as error:
        print(f"node: {told.key} or {told.ca} cannot be used: {error}", file=sys.stderr)
        return WRONG_FILES
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    try:
        superlink.join()
        _say(f"joined {told.superlink}")
        serve(superlink, told.party, (told.poll, told.poll_share, told.poll_most))
    except Ended as ended:
        if ended.code != STOPPED:
            print(f"node: {ended}", file=sys.stderr, flush=True)
        return ended.code
    except RunOver:
        print(f"node: the SuperLink at {told.superlink} forbids it to join", file=sys.stderr)
        return REFUSED
    finally:
        superlink.leave()


if __name__ == "__main__":
    sys.exit(main())
