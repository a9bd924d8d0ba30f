"""The noise levels of a grid of times, checked."""

import math
from typing import Any, NamedTuple

import numpy as np

from ..guards import checked, must
from ..typing import Array, ArrayLike, Process, PyTree
from .arrays import as_float, namespace

__all__ = ["Level", "Levels", "between", "check_times", "levels", "stray"]
__all__ += ["with_clean"]


class Level(NamedTuple):
    """Noise levels: time, alpha, sigma; numbers, or arrays of one shape."""

    time: PyTree
    alpha: PyTree
    sigma: PyTree

    def require(self, prediction: str) -> "Level":
        """The level itself, where a prediction exists.

        Raises:
            ValueError: another prediction than 'data' or 'noise', or 'noise' where
                alpha = 0 or sigma = 0.
        """
        if prediction == "data":
            return self
        if prediction != "noise":
            raise ValueError(
                f"prediction must be 'data' or 'noise', got {prediction!r}."
            )
        for name, scale in (("sigma", self.sigma), ("alpha", self.alpha)):
            if isinstance(scale, np.ndarray) and (scale == 0).any():
                at = tuple(int(i) for i in np.argwhere(scale == 0)[0])
                raise ValueError(
                    f"noise prediction does not exist where {name} = 0, as at row "
                    f"{at[0]}, time {np.asarray(self.time)[at]:g}. Integrate in data "
                    "prediction."
                )
        return self


class Levels(NamedTuple):
    """The noise levels of a grid: time, alpha, sigma, lambda, each (N + 1, ...)."""

    time: Array
    alpha: Array
    sigma: Array
    lam: Array

    def at(self, index: Any) -> Level:
        """The levels at grid positions: a number, a slice, or an array of them."""
        return Level(self.time[index], self.alpha[index], self.sigma[index])

    @property
    def starts(self) -> Level:
        """Where each step starts, (N, ...)."""
        return self.at(slice(None, -1))

    @property
    def ends(self) -> Level:
        """Where each step ends, (N, ...)."""
        return self.at(slice(1, None))

    @property
    def end(self) -> Level:
        """Where the last step ends, (...)."""
        return self.at(-1)

    def take(self, index: Any) -> "Levels":
        """A grid of some of the positions."""
        return Levels(*(v[index] for v in self))

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

    @property
    def clean(self) -> bool:
        """Whether the last level is known to be clean, sigma = 0."""
        return isinstance(self.sigma, np.ndarray) and bool((self.sigma[-1] == 0).any())

    @property
    def inside(self) -> np.ndarray:
        """The steps with levels in between: not from alpha = 0, not into sigma = 0."""
        rows = np.arange(self.steps)
        if isinstance(self.lam, np.ndarray):
            rows = rows[np.isfinite(self.h).reshape(self.steps, -1).all(axis=1)]
        return rows

    def require(self, prediction: str) -> "Levels":
        """The levels themselves, where a prediction exists at the start of each step.

        Raises:
            ValueError: as `Level.require`.
        """
        self.starts.require(prediction)
        return self


@checked
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


@checked
def between(process: Process, lv: Levels, rows: np.ndarray, lam: Array) -> Level:
    """The level at half log-SNR `lam` (S, ...), inside each of the steps `rows`.

    The time is kept within its step against rounding; on a step of length zero it is
    the step's own.
    """
    if np.ndim(rows) != 1 or np.asarray(rows).dtype.kind not in "iu":
        raise must("rows", "numbers of steps, (S,)", rows)
    if np.shape(lam)[:1] != np.shape(rows):
        raise must("lam", f"one per step, ({len(rows)}, ...)", lam)
    xp = namespace(lam)
    time = process.half_log_snr_inverse(lam)
    time = xp.clip(time, lv.time[rows + 1], lv.time[rows])
    return Level(time, process.alpha(time), process.sigma(time))


def check_times(
    process: Any, ts: np.ndarray, name: str = "ts", strict: bool = False
) -> None:
    """Raise ValueError if times are NaN, out of `process.domain` or not falling."""
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


def stray(process: Any, level: Level) -> tuple[int, float, str, float, float] | None:
    """The first row whose level is not the process' at its time; None if all are.

    Returns:
        (row, time, "alpha" or "sigma", what the level has, what the process has).
    """
    for name, has in zip(("alpha", "sigma"), level[1:], strict=True):
        own = np.asarray(getattr(process, name)(level.time))
        off = ~(np.abs(own - has) <= 1e-6 * (1 + np.abs(has)))
        if off.any():
            at = tuple(int(i) for i in np.argwhere(off)[0])
            return at[0], float(level.time[at]), name, float(has[at]), float(own[at])
    return None
