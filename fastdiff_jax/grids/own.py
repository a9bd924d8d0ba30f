"""Grids of the user's own: times or noise levels, checked."""

import numpy as np

from ..guards import checked, must
from ..numerics import check_times
from ..typing import ArrayLike, Finite, Process
from .place import finish

__all__ = ["custom", "from_sigmas"]


@checked
def from_sigmas(process: Process, sigmas: Finite) -> np.ndarray:
    """Times at which sigma / alpha has the given, decreasing values (0 = clean)."""
    sigmas = np.asarray(sigmas, np.float64)
    if sigmas.ndim != 1 or len(sigmas) < 2 or not (sigmas >= 0).all():
        raise must("sigmas", "two or more numbers >= 0, 1-D", sigmas)
    with np.errstate(divide="ignore"):
        lam = -np.log(sigmas)
    ts = process.half_log_snr_inverse(np.where(np.isinf(lam), 0.0, lam))
    return finish(process, np.where(np.isinf(lam), process.clean, ts), False)


@checked
def custom(process: Process, times: ArrayLike) -> np.ndarray:
    """Your own times, checked: decreasing, inside the domain, no NaN, no repeats.

    Example:
        >>> from fastdiff_jax import processes
        >>> custom(processes.flow(), [1.0, 0.5, 0.0])
        array([1. , 0.5, 0. ])
    """
    ts = np.asarray(times, np.float64)
    if ts.ndim < 1 or ts.shape[0] < 2:
        raise ValueError(f"times needs at least 2 entries, got shape {ts.shape}.")
    check_times(process, ts, "times", strict=True)
    return ts
