"""A party for tests: answers each message with its bytes reversed. `python echo_party.py SOCKET`.

A message that begins with `sleep SECONDS ` is answered late; one that is `count` with how many came
before it.
"""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

from hyperlock.runtime.relay.frames import receive_frame, send_frame


def main() -> None:
    path = Path(sys.argv[1])
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    served = 0
    while True:
        connection, _ = listener.accept()
        with connection:
            _, body = receive_frame(connection)
            if body.startswith(b"sleep "):
                time.sleep(float(body.split()[1]))
            if body == b"refuse":
                send_frame(connection, {"ok": False, "reason": "not today"})
            else:
                answer = str(served).encode() if body == b"count" else bytes(body)[::-1]
                send_frame(connection, {"ok": True}, answer)
            served += 1


if __name__ == "__main__":
    main()
