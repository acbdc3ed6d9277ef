"""The wire between network namespaces: a switch that hands each frame on after a delay.

    python wire.py SECONDS INTERFACE...

It stands in for netem, which not every kernel has: what it delays are frames and not streams, so
that TCP at both ends feels the distance, and as many frames are under way as the delay holds. Rates
are no concern of it: the interfaces have queues of their own (tbf), and a frame that such a queue
has no room for is lost, as at a router. Linux, and its root, alone.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import sys
import time
from collections import deque

_SOL_PACKET = 263
_PACKET_VNET_HDR = 15  # frames come, and are sent, with what the kernel left undone of them
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_ALL = 3  # ETH_P_ALL
_VNET_HEADER = 10  # bytes
_LARGEST = 2**17  # bytes: a frame may be several segments that go on as one
_BUFFER = 2**25  # bytes of frames that an interface has not sent yet
_MULTICAST = 1  # in the first byte of an address


def forward(delay: float, interfaces: list[str]) -> None:
    """Hand frames on, for ever.

    Args:
        delay: seconds.
        interfaces: of this network namespace.
    """
    ports = [_port(name) for name in interfaces]
    selector = selectors.DefaultSelector()
    for port in ports:
        selector.register(port, selectors.EVENT_READ)
    behind: dict[bytes, socket.socket] = {}
    waiting: deque[tuple[float, list[socket.socket], bytes]] = deque()
    while True:
        due = waiting[0][0] - time.monotonic() if waiting else None
        for key, _ in selector.select(None if due is None else max(due, 0)):
            came: socket.socket = key.fileobj  # type: ignore[assignment]
            frame, address = came.recvfrom(_LARGEST)
            if address[2] == socket.PACKET_OUTGOING:
                continue
            start = _VNET_HEADER
            target = frame[start : start + 6]
            behind[frame[start + 6 : start + 12]] = came
            if target[0] & _MULTICAST or target not in behind:
                targets = [port for port in ports if port is not came]
            else:
                targets = [behind[target]]
            waiting.append((time.monotonic() + delay, targets, frame))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, targets, frame = waiting.popleft()
            for port in targets:
                with contextlib.suppress(OSError):  # its queue is full
                    port.send(frame, socket.MSG_DONTWAIT)


def _port(name: str) -> socket.socket:
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    port.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    port.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER)
    port.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    port.bind((name, _ALL))
    return port


if __name__ == "__main__":
    forward(float(sys.argv[1]), sys.argv[2:])
