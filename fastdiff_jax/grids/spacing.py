"""Grids even in some variable: time, its powers, half log-SNR, sigma."""

from collections.abc import Callable

import numpy as np

from ..guards import checked
from ..typing import Array, Clock, Process
from .place import check_power, count, ends, finish, placed, root

__all__ = [
    "edm",
    "exponential",
    "karras",
    "log_snr",
    "polynomial",
    "quadratic",
    "rho_polynomial",
    "uniform",
]


@checked
def uniform(
    process: Clock,
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
    return placed(process, steps, start, end, to_zero, lambda r, a, b: a + r * (b - a))


@checked
def polynomial(
    process: Clock,
    steps: int,
    *,
    power: float = 2.0,
    start: float | None = None,
    end: float | None = None,
    to_zero: bool = False,
) -> np.ndarray:
    """Equal steps in time^(1 / power): DEIS' "t" grid (2204.13902, appendix)."""
    check_power(power)
    return placed(
        process, steps, start, end, to_zero, lambda r, a, b: root(r, a, b, power)
    )


@checked
def quadratic(
    process: Clock,
    steps: int,
    *,
    start: float | None = None,
    end: float | None = None,
    to_zero: bool = False,
) -> np.ndarray:
    """Equal steps in sqrt(time), denser near the data."""
    return polynomial(process, steps, start=start, end=end, to_zero=to_zero)


@checked
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
    first, last = ends(process, start, end) if not to_zero else (start, end)
    first = process.start if first is None else first
    if not np.isneginf(process.half_log_snr(first)):
        return _by_lambda(process, steps, start, end, to_zero, lambda r: r)
    if count(steps) == 1:
        return placed(process, 1, first, last, to_zero, lambda r, a, b: a + r * b)
    inner = float(process.half_log_snr_inverse(-6.0))
    if steps == 2 and to_zero:
        return finish(process, np.asarray([first, inner]), True)
    rest = _by_lambda(process, steps - 1, inner, last, to_zero, lambda r: r)
    return finish(process, np.append(first, rest), False)


def _by_lambda(
    process: Process,
    steps: int,
    start: float | None,
    end: float | None,
    to_zero: bool,
    ramp: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Lambda = lambda_start + ramp (lambda_end - lambda_start)."""

    def place(r: np.ndarray, a: float, b: float) -> Array:
        lam = process.half_log_snr(np.asarray([a, b]))
        if not np.isfinite(lam).all():
            at = a if not np.isfinite(lam[0]) else b
            raise ValueError(
                f"half log-SNR is infinite at t={at:g}; this grid needs a finite one. "
                "Move start or end inside, or use to_zero=True for sigma = 0."
            )
        return process.half_log_snr_inverse(lam[0] + ramp(r) * (lam[1] - lam[0]))

    return placed(process, steps, start, end, to_zero, place)


@checked
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
    check_power(power)
    return _by_lambda(
        process, steps, start, end, to_zero, lambda r: 1 - (1 - r) ** power
    )


@checked
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
    check_power(power)

    def place(r: np.ndarray, a: float, b: float) -> Array:
        ratio = np.exp(-process.half_log_snr(np.asarray([a, b])))
        if not np.isfinite(ratio).all():
            raise ValueError(
                f"sigma / alpha is infinite at t={a:g}; this grid needs alpha > 0 "
                "at its start. Move start inside, e.g. start=0.999."
            )
        rho = root(r, ratio[0], ratio[1], power)
        return process.half_log_snr_inverse(-np.log(rho))

    return placed(process, steps, start, end, to_zero, place)


@checked
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


@checked
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
