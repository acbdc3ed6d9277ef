"""Flower's SuperLink, with its control closed to other machines.

One port serves what nodes need, signed by their keys (/v1/fleet/), and what controls the SuperLink
(/v1/control/, /v1/runtime/), which Flower guards by nothing: whoever reaches the port could start a
run, that is, have code of his own executed here, or register a node. Here these are answered to
this machine's own processes alone, and all else gets 403. A reverse proxy on this machine would
pass for its own process: it must refuse all paths but the nodes' itself. It takes the arguments of
`flower-superlink`:

    python -P superlink.py --host HOST --port PORT ...
"""

from __future__ import annotations

import ipaddress
from typing import Any

from flwr.superlink import extensions
from flwr.superlink.cli.flower_superlink import flower_superlink
from starlette.middleware import Middleware

_OPEN = "/v1/fleet/"


class OwnMachineOnly:
    """ASGI middleware, outermost: paths other than the nodes' only for this machine.

    A request comes from this machine if its sender's address is a loopback address or the very
    address that it was sent to.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or refuse it."""
        closed = scope["type"] in ("http", "websocket") and not scope["path"].startswith(_OPEN)
        if closed and not _own(scope):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close"})
                return
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"for this machine alone"})
            return
        await self._app(scope, receive, send)


def _own(scope: Any) -> bool:
    client = scope.get("client")
    server = scope.get("server")
    if not client or not server:
        return False
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback or client[0] == server[0]


def _middleware() -> tuple[Middleware, ...]:
    return (Middleware(OwnMachineOnly),)


if __name__ == "__main__":
    extensions.get_middleware = _middleware
    flower_superlink()
