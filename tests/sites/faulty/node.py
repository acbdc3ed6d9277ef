"""A site's node that is killed, with its party, in the middle of an upload: when the first part of
an answer as large as FAULTY_FILE says is at the SuperLink, and the others are not."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

RELAY = Path(os.environ["FAULTY_RELAY"])
FAULT = Path(os.environ["FAULTY_FILE"])
sys.path.insert(0, str(RELAY))

import node  # noqa: E402

answer = node.SuperLink.answer


def patched(superlink: Any, message: Any, content: Any, seconds: float) -> None:
    """Send an answer; of one that is large enough, a part."""
    _, _, body = node.opened(content)
    call = superlink._call
    pushed = []

    def counted(method: Any, request: Any) -> Any:
        if "object_content" in request.DESCRIPTOR.fields_by_name:
            if pushed:
                FAULT.unlink()
                os.kill(os.getppid(), signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)
            pushed.append(request)
        return call(method, request)

    if FAULT.exists() and len(body) >= int(FAULT.read_text().split()[1]):
        superlink._call = counted
    answer(superlink, message, content, seconds)


node.SuperLink.answer = patched
sys.exit(node.main())
