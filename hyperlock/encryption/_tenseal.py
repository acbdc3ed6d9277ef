"""The one place that imports TenSEAL.

Loaded after TensorFlow, TenSEAL 0.3.18 binds some of its symbols to TensorFlow's copies and crashes
at the first `serialize()`. RTLD_DEEPBIND makes it prefer its own, in whichever order the two are
imported (tests/test_imports.py tries both). The flag exists on Linux alone; elsewhere symbols are
bound per library.

Where other code has imported TenSEAL after TensorFlow, without the flag, the harm is done: a shared
library is loaded once. That is said before it crashes the process.
"""

import os
import sys

from hyperlock.errors import HyperLockError

_BIND_OWN = getattr(os, "RTLD_DEEPBIND", 0)


def _refuse_if_bound_to_tensorflow() -> None:
    loaded = list(sys.modules)  # in the order of their import
    both = "tenseal" in loaded and "tensorflow" in loaded
    if _BIND_OWN and both and loaded.index("tensorflow") < loaded.index("tenseal"):
        raise HyperLockError(
            "TenSEAL was imported after TensorFlow by other code, and would crash this process "
            "when it encrypts\n"
            "  try: a new process that imports tenseal before tensorflow, or hyperlock's first: "
            "from hyperlock.encryption._tenseal import tenseal"
        )


_refuse_if_bound_to_tensorflow()
_flags = sys.getdlopenflags() if hasattr(sys, "getdlopenflags") else 0
if _flags:
    sys.setdlopenflags(_flags | _BIND_OWN)
try:
    import tenseal
    from tenseal import sealapi
finally:
    if _flags:
        sys.setdlopenflags(_flags)

__all__ = ["sealapi", "tenseal"]
