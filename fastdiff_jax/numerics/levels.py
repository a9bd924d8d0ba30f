"""The noise levels of a grid of times, checked."""

import math
from typing import NamedTuple

import numpy as np

from ..typing import Array, ArrayLike, Process
from .arrays import as_float, namespace

__all__ = ["Levels", "check_times", "levels", "with_clean"]


class Levels(NamedTuple):
    """The noise levels of a grid: time, alpha, sigma, lambda, each (N + 1, ...)."""

    time: Array
    alpha: Array
    sigma: Array
    lam: Array

    @property
    def steps(self) -> int:
        """Number of steps N."""
        return self.time.shape[0] - 1

    @property
    def h(self) -> Array:
        """Step lengths in half log-SNR, (N, ...): infinite next to an exact end."""
        xp = namespace(self.lam)
        lo, hi = self.lam[:-1], self.lam[1:]
        return xp.where(lo == hi, 0.0, hi - xp.where(lo == hi, 0.0, lo))

    @property
    def rho(self) -> Array:
        """Sigma / alpha, (N + 1, ...): infinite where alpha = 0."""
        xp = namespace(self.alpha)
        safe = xp.where(self.alpha == 0, 1.0, self.alpha)
        return xp.where(self.alpha == 0, math.inf, self.sigma / safe)


def levels(process: Process, ts: ArrayLike, name: str = "ts") -> Levels:
    """Noise levels of a grid of times, after checking it.

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1, ...), N >= 1. A repeated time is a
            step of length zero, which every solver turns into the identity.
        name: what to call the times in an error message.

    Returns:
        Levels with leading axis N + 1.

    Raises:
        ValueError: fewer than two times, NaN, an increase, or outside the domain.
    """
    _, (ts,) = as_float(ts)
    if ts.ndim < 1 or ts.shape[0] < 2:
        raise ValueError(
            f"{name} needs at least 2 times (1 step), got shape {ts.shape}. "
            "Make a grid, e.g. grids.log_snr(process, 8)."
        )
    if isinstance(ts, np.ndarray):
        check_times(process, ts, name)
    with np.errstate(divide="ignore"):
        return Levels(
            ts, process.alpha(ts), process.sigma(ts), process.half_log_snr(ts)
        )


def with_clean(process: Process, lv: Levels) -> Levels:
    """The levels with the clean time (sigma = 0) after them: one step more."""
    xp = namespace(lv.time)
    clean = xp.full_like(lv.time[:1], process.clean)
    return levels(process, xp.concatenate([lv.time, clean]))


def check_times(
    process: Process, ts: np.ndarray, name: str = "ts", strict: bool = False
) -> None:
    """Raise ValueError if times are NaN, out of the domain or do not decrease."""
    if np.isnan(ts).any():
        at = int(np.argwhere(np.isnan(ts))[0][0])
        raise ValueError(f"{name} must not hold NaN; {name}[{at}] is NaN. Remove it.")
    bad = ts[1:] >= ts[:-1] if strict else ts[1:] > ts[:-1]
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        i, rest = at[0], at[1:]
        fix = "Drop the repeat." if ts[1:][at] == ts[at] else "Sort them downwards."
        raise ValueError(
            f"{name} must decrease{' strictly' if strict else ''} (noise to data); "
            f"{name}[{i}]={ts[(i, *rest)]:.6g} is followed by "
            f"{name}[{i + 1}]={ts[(i + 1, *rest)]:.6g}. {fix}"
        )
    low, high = process.domain
    for value in (float(ts.max()), float(ts.min())):
        if not low <= value <= high:
            raise ValueError(
                f"{name} must lie in [{low:g}, {high:g}], the domain of "
                f"{type(process).__name__}; got {value:.17g}. Clip or rescale the grid."
            )
