"""Grids: N + 1 decreasing times from noise to data, float64.

Every grid takes `(process, steps, *, start, end, to_zero, ...)` and returns shape
(steps + 1,). `start` and `end` are times of the process (its defaults otherwise).
With `to_zero` the formula places `steps` points from start to end and the exact clean
time (sigma = 0) comes after them: still `steps` steps.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from .numerics import check_times
from .typing import Array, ArrayLike, Process

__all__ = [
    "GRIDS",
    "ays",
    "beta",
    "custom",
    "edm",
    "exponential",
    "flow_shift",
    "from_sigmas",
    "karras",
    "leading",
    "linspace",
    "log_snr",
    "polynomial",
    "quadratic",
    "rho_polynomial",
    "trailing",
    "uniform",
]


def _count(steps: int, lowest: int = 1) -> int:
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer):
        raise ValueError(f"steps must be a whole number >= {lowest}, got {steps!r}.")
    if steps < lowest:
        raise ValueError(
            f"steps must be >= {lowest}, got {steps}. One step is one interval."
        )
    return int(steps)


def _ends(
    process: Process, start: float | None, end: float | None
) -> tuple[float, float]:
    start = process.start if start is None else float(start)
    end = process.end if end is None else float(end)
    check_times(process, np.asarray([start, end]), "(start, end)", strict=True)
    return start, end


def _finish(process: Process, ts: np.ndarray, to_zero: bool) -> np.ndarray:
    if to_zero:
        ts = np.append(ts, process.clean)
    check_times(process, ts, "ts", strict=True)
    return ts


def _placed(
    process: Process,
    steps: int,
    start: float | None,
    end: float | None,
    to_zero: bool,
    place: Callable[[np.ndarray, float, float], np.ndarray],
) -> np.ndarray:
    """Times at fractions 0..1 of the way, both ends exact."""
    steps = _count(steps)
    if steps == 1 and to_zero:
        start = process.start if start is None else float(start)
        return _finish(process, np.asarray([start]), True)
    first, last = _ends(process, start, end)
    points = steps + (0 if to_zero else 1)
    ts = np.asarray(place(np.linspace(0, 1, points), first, last), np.float64)
    ts[0], ts[-1] = first, last  # no rounding at the ends
    return _finish(process, ts, to_zero)


def uniform(
    process: Process,
    steps: int,
    *,
    start: float | None = None,
    end: float | None = None,
    to_zero: bool = False,
) -> np.ndarray:
    """Equal steps in time.

    Args:
        process: the path.
        steps: number of steps N >= 1.
        start, end: first and last time, None for the process' own.
        to_zero: append the exact clean time; the formula then places N points.

    Returns:
        Times, shape (N + 1,), strictly decreasing.

    Raises:
        ValueError: N < 1, start <= end, or a time outside the process' domain.
    """
    return _placed(process, steps, start, end, to_zero, lambda r, a, b: a + r * (b - a))


def polynomial(
    process: Process,
    steps: int,
    *,
    power: float = 2.0,
    start: float | None = None,
    end: float | None = None,
    to_zero: bool = False,
) -> np.ndarray:
    """Equal steps in time^(1 / power): DEIS' "t" grid (2204.13902, appendix)."""
    _power(power)
    return _placed(
        process, steps, start, end, to_zero, lambda r, a, b: _root(r, a, b, power)
    )


def quadratic(
    process: Process,
    steps: int,
    *,
    start: float | None = None,
    end: float | None = None,
    to_zero: bool = False,
) -> np.ndarray:
    """Equal steps in sqrt(time), denser near the data."""
    return polynomial(process, steps, start=start, end=end, to_zero=to_zero)


def log_snr(
    process: Process,
    steps: int,
    *,
    start: float | None = None,
    end: float | None = None,
    to_zero: bool = False,
) -> np.ndarray:
    """Equal steps in half log-SNR (DPM-Solver, 2206.00927, section 3.2).

    Where the log-SNR is infinite at the start (flow at t = 1, zero terminal SNR) the
    first step goes from that exact start to `lambda = -6`, and the rest are equal.
    """
    first, last = _ends(process, start, end) if not to_zero else (start, end)
    first = process.start if first is None else first
    if not np.isneginf(process.half_log_snr(first)):
        return _by_lambda(process, steps, start, end, to_zero, lambda r: r)
    if _count(steps) == 1:
        return _placed(process, 1, first, last, to_zero, lambda r, a, b: a + r * b)
    inner = float(process.half_log_snr_inverse(-6.0))
    if steps == 2 and to_zero:
        return _finish(process, np.asarray([first, inner]), True)
    rest = _by_lambda(process, steps - 1, inner, last, to_zero, lambda r: r)
    return _finish(process, np.append(first, rest), False)


def _by_lambda(
    process: Process,
    steps: int,
    start: float | None,
    end: float | None,
    to_zero: bool,
    ramp: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Lambda = lambda_start + ramp (lambda_end - lambda_start)."""

    def place(r: np.ndarray, a: float, b: float) -> np.ndarray:
        lam = process.half_log_snr(np.asarray([a, b]))
        if not np.isfinite(lam).all():
            at = a if not np.isfinite(lam[0]) else b
            raise ValueError(
                f"half log-SNR is infinite at t={at:g}; this grid needs a finite one. "
                "Move start or end inside, or use to_zero=True for sigma = 0."
            )
        return process.half_log_snr_inverse(lam[0] + ramp(r) * (lam[1] - lam[0]))

    return _placed(process, steps, start, end, to_zero, place)


def exponential(
    process: Process,
    steps: int,
    *,
    power: float = 1.0,
    start: float | None = None,
    end: float | None = None,
    to_zero: bool = False,
) -> np.ndarray:
    """log(sigma / alpha) = min + (1 - i/N)^power (max - min): (poly)exponential.

    Power 1 is `log_snr`; k-diffusion's polyexponential otherwise.
    """
    _power(power)
    return _by_lambda(
        process, steps, start, end, to_zero, lambda r: 1 - (1 - r) ** power
    )


def _root(r: np.ndarray, a: Any, b: Any, power: float) -> np.ndarray:
    return (a ** (1 / power) + r * (b ** (1 / power) - a ** (1 / power))) ** power


def _power(power: float) -> None:
    if not (np.isfinite(power) and power > 0):
        raise ValueError(f"power (rho) must be finite and > 0, got {power}.")


def rho_polynomial(
    process: Process,
    steps: int,
    *,
    power: float = 7.0,
    start: float | None = None,
    end: float | None = None,
    to_zero: bool = False,
) -> np.ndarray:
    """Equal steps in (sigma / alpha)^(1 / power); power 7 is Karras' grid."""
    _power(power)

    def place(r: np.ndarray, a: float, b: float) -> np.ndarray:
        ratio = np.exp(-process.half_log_snr(np.asarray([a, b])))
        if not np.isfinite(ratio).all():
            raise ValueError(
                f"sigma / alpha is infinite at t={a:g}; this grid needs alpha > 0 "
                "at its start. Move start inside, e.g. start=0.999."
            )
        rho = _root(r, ratio[0], ratio[1], power)
        return process.half_log_snr_inverse(-np.log(rho))

    return _placed(process, steps, start, end, to_zero, place)


def karras(
    process: Process,
    steps: int,
    *,
    rho: float = 7.0,
    start: float | None = None,
    end: float | None = None,
    to_zero: bool = False,
) -> np.ndarray:
    """(s_max^(1/rho) + i/N (s_min^(1/rho) - s_max^(1/rho)))^rho, s = sigma / alpha.

    Reference: Karras et al. 2022 (2206.00364), eq 5. `edm` appends sigma = 0.
    """
    return rho_polynomial(
        process, steps, power=rho, start=start, end=end, to_zero=to_zero
    )


def edm(
    process: Process,
    steps: int,
    *,
    rho: float = 7.0,
    start: float | None = None,
    end: float | None = None,
) -> np.ndarray:
    """EDM's sampling grid: `karras` points, then sigma = 0 (2206.00364, eq 5)."""
    return karras(process, steps, rho=rho, start=start, end=end, to_zero=True)


def flow_shift(
    process: Process,
    steps: int,
    *,
    shift: float = 3.0,
    mu: float | None = None,
    tokens: int | None = None,
    terminal: float | None = None,
    start: float | None = None,
    end: float | None = None,
    to_zero: bool = False,
) -> np.ndarray:
    """Uniform times moved by t <- g t / (1 + (g - 1) t), for paths with t in [0, 1].

    Args:
        process: the path, usually `flow`.
        steps: number of steps N.
        shift: g, static.
        mu: dynamic shift, g = e^mu; replaces `shift`.
        tokens: image tokens; mu = 0.5 at 256, 1.15 at 4096, linear between and beyond.
        terminal: stretch so that the last non-clean time equals it.
        start, end, to_zero: as in `uniform`, before the shift. Default end: exactly 0.

    Reference: Esser et al. 2024 (2403.03206), eq 23.
    """
    if mu is not None and tokens is not None:
        raise ValueError(f"give mu or tokens, not both; got {mu=}, {tokens=}.")
    if tokens is not None:
        mu = 0.5 + (tokens - 256) * (1.15 - 0.5) / (4096 - 256)
    g = math.exp(mu) if mu is not None else float(shift)
    if not (math.isfinite(g) and g > 0):
        raise ValueError(f"shift must be finite and > 0, got {g}.")
    low, high = process.domain
    if (low, high) != (0.0, 1.0):
        raise ValueError(
            f"flow_shift needs a process with times in [0, 1], got [{low:g}, {high:g}]."
        )
    end = 0.0 if end is None and not to_zero else end
    ts = uniform(process, steps, start=start, end=end, to_zero=to_zero)
    ts = g * ts / (1 + (g - 1) * ts)
    if terminal is not None:
        last = ts[ts > 0][-1]
        if not 0 < terminal < 1:
            raise ValueError(f"terminal must be in (0, 1), got {terminal}.")
        stretched = 1 - (1 - ts) * (1 - terminal) / (1 - last)
        ts = np.where(ts > 0, stretched, 0.0)
    return _finish(process, ts, False)


def beta(
    process: Process,
    steps: int,
    *,
    a: float = 0.6,
    b: float = 0.6,
    start: float | None = None,
    end: float | None = None,
    to_zero: bool = False,
) -> np.ndarray:
    """Quantiles of a Beta(a, b) law over sigma / alpha (2407.12173)."""

    def place(r: np.ndarray, first: float, last: float) -> np.ndarray:
        high, low = np.exp(-process.half_log_snr(np.asarray([first, last])))
        if not np.isfinite(high):
            raise ValueError(
                f"sigma / alpha is infinite at t={first:g}; move start inside."
            )
        rho = low + stats.beta.ppf(1 - r, a, b) * (high - low)
        return process.half_log_snr_inverse(-np.log(rho))

    return _placed(process, steps, start, end, to_zero, place)


# Sabour et al. 2024 (2404.14507), the released 10-step tables of sigma / alpha.
_AYS = {
    "sd15": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113),
    "svd": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034),
}


def ays(process: Process, steps: int, *, model: str = "sd15") -> np.ndarray:
    """Align Your Steps: the published table, log-interpolated, then sigma = 0.

    Args:
        process: the path; its noise end must reach the table's first level.
        steps: N >= 2; at 10 the table itself.
        model: 'sd15', 'sdxl' or 'svd'.
    """
    if model not in _AYS:
        raise ValueError(f"model must be one of {sorted(_AYS)}, got {model!r}.")
    steps = _count(steps, 2)
    table = np.log(_AYS[model])
    at = np.linspace(0, len(table) - 1, steps)
    lam = -np.interp(at, np.arange(len(table)), table)
    lowest = process.half_log_snr(process.start)
    if lam[0] < lowest - 0.01:  # tables are rounded to a few digits
        raise ValueError(
            f"the {model} table starts at sigma/alpha={np.exp(-lam[0]):.4g}, beyond "
            f"this process' {np.exp(-lowest):.4g}. Use a process with more noise."
        )
    ts = process.half_log_snr_inverse(np.maximum(lam, lowest))
    return _finish(process, ts, True)


def from_sigmas(process: Process, sigmas: ArrayLike) -> np.ndarray:
    """Times at which sigma / alpha has the given, decreasing values (0 = clean)."""
    sigmas = np.asarray(sigmas, np.float64)
    if sigmas.ndim != 1 or len(sigmas) < 2 or not (sigmas >= 0).all():
        raise ValueError(f"sigmas must be 1-D, >= 0, at least 2 of them; got {sigmas}.")
    with np.errstate(divide="ignore"):
        lam = -np.log(sigmas)
    ts = process.half_log_snr_inverse(np.where(np.isinf(lam), 0.0, lam))
    return _finish(process, np.where(np.isinf(lam), process.clean, ts), False)


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


# -------------------------------------------------------- library-compatible labels


def _labels(process: Process) -> int:
    count = int(process.start) + 1
    if process.clean != -1.0:
        raise ValueError(
            "library spacings are integer labels; they need processes.vp_discrete, "
            f"got {type(process).__name__}."
        )
    return count


def _library(
    process: Process, labels: np.ndarray, steps: int, count: int, final: str
) -> np.ndarray:
    if steps > count:
        raise ValueError(f"steps must be <= {count} training steps, got {steps}.")
    if final not in ("zero", "sigma_min"):
        raise ValueError(f"final must be 'zero' or 'sigma_min', got {final!r}.")
    last = process.clean if final == "zero" else 0.0
    return _finish(process, np.append(labels.astype(np.float64), last), False)


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
    steps, count = _count(steps), _labels(process)
    points = steps + 1 if multistep else steps
    labels = np.round(np.linspace(0, count - 1, points))[::-1][:steps]
    return _library(process, labels, steps, count, final)


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
    steps, count = _count(steps), _labels(process)
    points = steps + 1 if multistep else steps
    labels = (np.arange(points) * (count // points))[::-1][:steps] + offset
    return _library(process, labels, steps, count, final)


def trailing(process: Process, steps: int, *, final: str = "zero") -> np.ndarray:
    """Labels of the libraries' "trailing": from N - 1 down in steps of N / steps."""
    steps, count = _count(steps), _labels(process)
    labels = np.round(np.arange(count, 0, -count / steps))[:steps] - 1
    return _library(process, labels, steps, count, final)


GRIDS: dict[str, Callable[..., Array]] = {
    "uniform": uniform,
    "quadratic": quadratic,
    "log_snr": log_snr,
    "karras": karras,
    "edm": edm,
    "exponential": exponential,
    "flow_shift": flow_shift,
    "beta": beta,
    "ays": ays,
    "linspace": linspace,
    "leading": leading,
    "trailing": trailing,
}
"""Grids by the name the command line uses."""
