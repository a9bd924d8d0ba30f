"""The spacings other libraries use, with their integer labels."""

import numpy as np

from ..guards import checked
from ..typing import Process
from .place import count, finish

__all__ = ["leading", "linspace", "trailing"]


def _labels(process: Process) -> int:
    count = int(process.start) + 1
    if process.clean != -1.0:
        raise ValueError(
            "library spacings are integer labels; they need processes.vp_discrete, "
            f"got {type(process).__name__}."
        )
    return count


def _library(
    process: Process, labels: np.ndarray, steps: int, total: int, final: str
) -> np.ndarray:
    if steps > total:
        raise ValueError(f"steps must be <= {total} training steps, got {steps}.")
    if final not in ("zero", "sigma_min"):
        raise ValueError(f"final must be 'zero' or 'sigma_min', got {final!r}.")
    last = process.clean if final == "zero" else 0.0
    return finish(process, np.append(labels.astype(np.float64), last), False)


@checked
def linspace(
    process: Process, steps: int, *, final: str = "zero", multistep: bool = True
) -> np.ndarray:
    """Labels of the libraries' "linspace": rounded, evenly spaced over 0..N-1.

    Args:
        process: a `vp_discrete`.
        steps: number of steps.
        final: 'zero' (end at sigma = 0) or 'sigma_min' (end at label 0).
        multistep: the rule of the DPM-Solver, UniPC and DEIS schedulers, which place
            steps + 1 labels and drop the last; False for the DDIM and Euler rule.

    Returns:
        Integer-valued times, shape (steps + 1,), the last one -1 or 0.
    """
    steps, total = count(steps), _labels(process)
    points = steps + 1 if multistep else steps
    labels = np.round(np.linspace(0, total - 1, points))[::-1][:steps]
    return _library(process, labels, steps, total, final)


@checked
def leading(
    process: Process,
    steps: int,
    *,
    offset: int = 0,
    final: str = "zero",
    multistep: bool = True,
) -> np.ndarray:
    """Labels of the libraries' "leading": multiples of N // steps, plus an offset.

    Arguments as in `linspace`; offset is the libraries' `steps_offset`.
    """
    steps, total = count(steps), _labels(process)
    points = steps + 1 if multistep else steps
    labels = (np.arange(points) * (total // points))[::-1][:steps] + offset
    return _library(process, labels, steps, total, final)


@checked
def trailing(process: Process, steps: int, *, final: str = "zero") -> np.ndarray:
    """Labels of the libraries' "trailing": from N - 1 down in steps of N / steps."""
    steps, total = count(steps), _labels(process)
    labels = np.round(np.arange(total, 0, -total / steps))[:steps] - 1
    return _library(process, labels, steps, total, final)
