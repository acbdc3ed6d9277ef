"""Many runs: a sweep, its study, and its record."""

from hyperlock.sweep.callback import SweepRecord, storage

__all__ = ["SweepRecord", "storage"]
