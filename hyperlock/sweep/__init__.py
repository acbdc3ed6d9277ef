"""Many runs: a sweep, its study, and its record.

`conf/hydra` names `SweepRecord` and `storage` (the function, which hides its module here). Optuna
and MLflow are imported when a sweep begins, not with these.
"""

from hyperlock.sweep.callback import SweepRecord
from hyperlock.sweep.storage import storage

__all__ = ["SweepRecord", "storage"]
