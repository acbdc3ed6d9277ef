"""The one place that imports TenSEAL.

Loaded after TensorFlow, TenSEAL 0.3.18 binds some of its symbols to TensorFlow's copies and crashes
at the first `serialize()`. RTLD_DEEPBIND makes it prefer its own, in whichever order the two are
imported (tests/test_imports.py tries both). The flag exists on Linux alone; elsewhere symbols are
bound per library.
"""

import os
import sys

_flags = sys.getdlopenflags() if hasattr(sys, "getdlopenflags") else 0
if _flags:
    sys.setdlopenflags(_flags | getattr(os, "RTLD_DEEPBIND", 0))
try:
    import tenseal
    from tenseal import sealapi
finally:
    if _flags:
        sys.setdlopenflags(_flags)

__all__ = ["sealapi", "tenseal"]
