"""How every grid is placed and checked."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..guards import bounded
from ..numerics import check_times
from ..typing import Array, Clock

__all__ = ["check_power", "count", "ends", "finish", "placed", "root"]


def count(steps: int, lowest: int = 1) -> int:
    """A number of steps, checked."""
    return bounded("steps", steps, lowest, fix="One step is one interval.")


def ends(process: Clock, start: float | None, end: float | None) -> tuple[float, float]:
    """First and last time: given, or the process' own; checked."""
    start = process.start if start is None else float(start)
    end = process.end if end is None else float(end)
    check_times(process, np.asarray([start, end]), "(start, end)", strict=True)
    return start, end


def finish(process: Clock, ts: np.ndarray, to_zero: bool) -> np.ndarray:
    """The times, with the clean one appended if asked for; checked."""
    if to_zero:
        ts = np.append(ts, process.clean)
    check_times(process, ts, "ts", strict=True)
    return ts


def placed(
    process: Clock,
    steps: int,
    start: float | None,
    end: float | None,
    to_zero: bool,
    place: Callable[[np.ndarray, float, float], Array],
) -> np.ndarray:
    """Times at fractions 0..1 of the way, both ends exact."""
    steps = count(steps)
    if steps == 1 and to_zero:
        start = process.start if start is None else float(start)
        return finish(process, np.asarray([start]), True)
    first, last = ends(process, start, end)
    points = steps + (0 if to_zero else 1)
    ts = np.asarray(place(np.linspace(0, 1, points), first, last), np.float64)
    ts[0], ts[-1] = first, last  # no rounding at the ends
    return finish(process, ts, to_zero)


def root(r: np.ndarray, a: Any, b: Any, power: float) -> np.ndarray:
    """Even steps in the power-th root, from a to b."""
    return (a ** (1 / power) + r * (b ** (1 / power) - a ** (1 / power))) ** power


def check_power(power: float) -> None:
    """Raise ValueError for a power that is not finite and positive."""
    if not (np.isfinite(power) and power > 0):
        raise ValueError(f"power (rho) must be finite and > 0, got {power}.")
