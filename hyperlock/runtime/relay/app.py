"""The Flower app: a relay between the coordinator's socket and the nodes of a SuperLink.

The relay (`server`) connects to the coordinator and moves bytes that it does not understand. It may
be killed at any moment and be started again (`flwr run`): it keeps nothing, and the coordinator
sends the requests that are still open to the new one. `client` is for a stock SuperNode, whose
`--node-config` names the party's socket as `party`; a site's own node (node.py) never loads it.

Frames (`frames`), from the coordinator:

    {"id": n > 0, "party": name, "timeout": seconds} + body    deliver, and bring the answer
    {"id": n, "cancel": true}                                  nobody waits for it any more
    {"id": 0}                                                  the run is over

and to it:

    {"hello": 1, "flwr": version}                              first of all
    {"id": n, "ok": true} + body                               the party's answer
    {"id": n, "ok": false, "kind": kind, "reason": text}       unreachable, away, failed or expired
    {"nodes": {name: "online" | "offline"}}                    whenever that changed
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from functools import partial
from logging import INFO, WARNING
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullAppMessagesResponse
from flwr.serverapp import Grid, ServerApp
from flwr.supercore import log
from flwr.supercore.version import package_version
from flwr.superlink.grid import http_grid
from frames import FrameError, receive_frame, send_frame
from letters import ask_party, letter, opened

_LOOK_NODES = 1.0  # seconds between two looks at who is there
_LOOK_PARTS = 0.2  # seconds between two looks for parts of an answer that is announced, at most
_SLOWEST_POLL = 1.0  # seconds
_POLL_SHARE = 0.02  # of the time since anything happened
_BATCH = 64 * 1024**2  # bytes of bodies given to Flower at once,
_MESSAGES = (
    16  # and messages: until all of them are there, their nodes ask for each again and again
)
_FETCHES = 32  # answers fetched at once, which ask as long as their nodes still send them
_TOLERANCE = 0.5  # seconds after a timeout in which an error of Flower's is taken for it

client = ClientApp()
server = ServerApp()


@client.query()
def forward(message: Message, context: Context) -> Message:
    """Hand a message to the party whose socket the stock SuperNode was told."""
    _, _, body = opened(message.content)
    path = str(context.node_config["party"])
    return Message(ask_party(path, message.metadata.message_id, body), reply_to=message)


@server.main()
def relay(grid: Grid, context: Context) -> None:
    """Move messages until the coordinator says goodbye.

    Raises:
        RuntimeError: the coordinator is gone without a goodbye.
    """
    settings = context.run_config
    # An answer is announced before its last bytes are there, and Flower then looks again after a
    # whole second. It gives up as late as before.
    http_grid.pull_objects = partial(
        http_grid.pull_objects,
        initial_backoff=0.05,
        backoff_cap=_LOOK_PARTS,
        max_tries_per_object=None,
    )
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(settings["socket"]))
        Relay(grid, connection, float(settings["poll"]), float(settings["absent"])).serve()


@dataclass(frozen=True)
class Request:
    """What the coordinator wants delivered; times are of time.monotonic()."""

    number: int
    party: str
    body: bytearray
    came: float
    deadline: float


class Announced:
    """Flower's client, to which a message was announced already."""

    def __init__(self, client: Any, announced: PullAppMessagesResponse) -> None:
        self._client = client
        self._announced = announced

    def PullMessages(self, request: Any) -> PullAppMessagesResponse:
        """What was announced."""
        return self._announced

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class Relay:
    """One coordinator's messages.

    Args:
        grid: Flower's.
        connection: to the coordinator.
        poll: seconds between two looks for answers, at least.
        absent: seconds that a request waits for a party that is not online.
    """

    def __init__(self, grid: Any, connection: socket.socket, poll: float, absent: float) -> None:
        self._grid = grid
        self._connection = connection
        self._poll = poll
        self._absent = absent
        self._frames: queue.SimpleQueue[tuple[dict[str, Any], bytearray] | Message | Exception]
        self._frames = queue.SimpleQueue()
        self._unsent: dict[int, Request] = {}
        self._sent: dict[str, Request] = {}  # by Flower's message id
        self._fetching: set[str] = set()  # of these, whose answer is announced
        self._fetches = threading.Semaphore(_FETCHES)
        self._nodes: dict[str, int] = {}  # who is online, and their ids
        self._shown: dict[str, str] = {}
        self._happened = time.monotonic()
        self._next_pull = 0.0
        self._next_look = 0.0

    def serve(self) -> None:
        """Until the goodbye."""
        send_frame(self._connection, {"hello": 1, "flwr": package_version})
        threading.Thread(target=self._read, daemon=True).start()
        while self._take_frames():
            now = time.monotonic()
            if now >= self._next_look:
                self._look_for_nodes()
                self._next_look = now + _LOOK_NODES
            self._push()
            if self._sent and time.monotonic() >= self._next_pull:
                self._pull()
                idle = time.monotonic() - self._happened
                wait = min(max(self._poll, _POLL_SHARE * idle), _SLOWEST_POLL)
                self._next_pull = time.monotonic() + wait
            self._expire()
        log(INFO, "the coordinator said goodbye")

    def _read(self) -> None:
        try:
            while True:
                self._frames.put(receive_frame(self._connection))
        except (EOFError, OSError, FrameError) as error:
            self._frames.put(error)

    def _take_frames(self) -> bool:
        """Wait for frames, no longer than until something else is due; False at the goodbye."""
        due = min(self._next_look, self._next_pull) if self._sent else self._next_look
        wait = max(due - time.monotonic(), 0.001)
        try:
            frame = self._frames.get(timeout=wait)
            while True:
                if not self._take(frame):
                    return False
                frame = self._frames.get_nowait()
        except queue.Empty:
            return True

    def _take(self, frame: tuple[dict[str, Any], bytearray] | Message | Exception) -> bool:
        if isinstance(frame, Message):
            self._fetched(frame)
            return True
        if isinstance(frame, Exception):
            raise RuntimeError(f"the coordinator is gone: {frame}")
        header, body = frame
        number = header["id"]
        if number == 0:
            return False
        if header.get("cancel"):
            self._forget(number)
            return True
        now = time.monotonic()
        request = Request(number, header["party"], body, now, now + float(header["timeout"]))
        self._unsent[number] = request
        self._happened = now
        return True

    def _forget(self, number: int) -> None:
        self._unsent.pop(number, None)
        self._sent = {key: kept for key, kept in self._sent.items() if kept.number != number}

    def _look_for_nodes(self) -> None:
        self._nodes = {
            node.name: node.node_id for node in self._grid.get_nodes() if node.status == "online"
        }
        # Flower names only who is online: who is not named any more has left.
        shown = dict.fromkeys(self._shown, "offline") | dict.fromkeys(self._nodes, "online")
        if shown != self._shown:
            self._shown = shown
            self._say({"nodes": shown})

    def _push(self) -> None:
        """Give Flower what can be delivered, several messages at once."""
        batch: list[Request] = []
        size = 0
        for request in list(self._unsent.values()):
            if len(batch) == _MESSAGES:
                break
            if request.party in self._nodes and (not batch or size + len(request.body) <= _BATCH):
                batch.append(request)
                size += len(request.body)
        if not batch:
            return
        now = time.monotonic()
        messages = [
            Message(
                letter(request.body),
                dst_node_id=self._nodes[request.party],
                message_type="query",
                ttl=max(request.deadline - now, 0.001),
            )
            for request in batch
        ]
        ids = list(self._grid.push_messages(messages)) or [None] * len(batch)
        for request, key in zip(batch, ids, strict=True):
            del self._unsent[request.number]
            if key is None:
                self._fail(request, "unreachable", "Flower does not deliver to its node")
            else:
                self._sent[key] = request
        self._happened = time.monotonic()
        self._next_pull = self._happened + self._poll

    def _pull(self) -> None:
        """Have what is announced fetched, each answer in a thread of its own: one that is slow, or
        whose node was killed in the midst of it, holds up no other."""
        self._fetching &= self._sent.keys()
        waiting = [key for key in self._sent if key not in self._fetching]
        if not waiting:
            return
        client = self._grid._runtime_client
        answer = client.PullMessages(PullAppMessagesRequest(message_ids=waiting))
        for told, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            self._fetching.add(told.metadata.reply_to_message_id)
            alone = PullAppMessagesResponse(messages_list=[told], message_object_trees=[tree])
            threading.Thread(target=self._fetch, args=(alone,), daemon=True).start()
            self._happened = time.monotonic()

    def _fetch(self, announced: PullAppMessagesResponse) -> None:
        """Flower's own way from what is announced to a message."""
        grid: Any = copy(self._grid)
        grid._client = Announced(grid._runtime_client, announced)
        try:
            with self._fetches:
                for message in grid.pull_messages([]):
                    self._frames.put(message)
        except Exception as error:  # of Flower's many kinds; the request expires in its time
            log(WARNING, "an answer cannot be fetched: %s", error)

    def _fetched(self, message: Message) -> None:
        request = self._sent.pop(message.metadata.reply_to_message_id, None)
        if request is None:
            return
        self._happened = time.monotonic()
        if message.has_error():
            self._undelivered(request, message)
        else:
            self._answer(request, message)

    def _undelivered(self, request: Request, message: Message) -> None:
        """Flower's own answer, in place of a node's."""
        now = time.monotonic()
        error = message.error
        if now + _TOLERANCE >= request.deadline:
            self._fail(request, "expired", "no answer in time")
        elif error.code == ErrorCode.NODE_UNAVAILABLE and now < request.came + self._absent:
            # Its node left since it was looked for, and may be back in a moment.
            self._nodes.pop(request.party, None)
            self._unsent[request.number] = request
        else:
            self._fail(request, "unreachable", f"{error.reason} (Flower's code {error.code})")

    def _answer(self, request: Request, message: Message) -> None:
        try:
            problem, reason, body = opened(message.content)
        except ValueError as error:
            self._fail(request, "failed", str(error))
            return
        if problem:
            self._fail(request, problem, reason)
        else:
            self._say({"id": request.number, "ok": True}, body)

    def _expire(self) -> None:
        now = time.monotonic()
        for request in list(self._unsent.values()):
            if request.party in self._nodes and now < request.deadline:
                continue  # others are given to Flower first
            if now >= min(request.deadline, request.came + self._absent):
                del self._unsent[request.number]
                self._fail(request, "unreachable", "its node is not online")
        for key, request in list(self._sent.items()):
            if now >= request.deadline:
                del self._sent[key]
                self._fail(request, "expired", "no answer in time")

    def _fail(self, request: Request, kind: str, reason: str) -> None:
        log(WARNING, "%s, request %d: %s", request.party, request.number, reason)
        self._say({"id": request.number, "ok": False, "kind": kind, "reason": reason})

    def _say(self, header: Mapping[str, Any], body: bytes = b"") -> None:
        send_frame(self._connection, header, body)
