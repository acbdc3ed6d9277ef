"""Rounds of HyperLock beside the same rounds of other projects' own code, each in an environment of
its own: `python -m benchmarks peers`.

What runs in a peer's environment (`round_*`, `encrypt_nvflare`, `mask_flower` and what they import)
imports nothing of HyperLock.
"""
