"""Clipping records one by one, so that none moves their sum by more than it may."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def clip_records(gradients: NDArray[np.floating], clip: float) -> NDArray[np.float64]:
    """The sum of records' gradients, each cut to a norm.

    Args:
        gradients: float[k, d]; one that is not finite counts as zeros.
        clip: the L2 norm, `Promise.record_clip`.

    Returns:
        float64[d]: added in float64, in which a record moves the sum by what it is and by no
        rounding that counts (Casacuberta et al., CCS 2022, on sums in float32).
    """
    wide = gradients.astype(np.float64)
    norms = np.sqrt(np.einsum("kd,kd->k", wide, wide))
    finite = np.isfinite(norms)
    wide[~finite] = 0
    norms[~finite] = 0
    scales = np.minimum(1.0, clip / np.maximum(norms, np.finfo(np.float64).tiny))
    return scales @ wide
