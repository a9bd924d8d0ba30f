"""Measured order of convergence, on the exact two-mode mixture.

Data 0.4 N(-1, 0.2) + 0.6 N(1.2, 0.3) on the line, half log-SNR from -3 to 3, 41 starts:
the RMS error at the end against a reference at 1e-13 for grids of N and 2N steps. In
y = x / alpha and rho = sigma / alpha the solution is the same on every process.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .. import plan as plans
from ..guards import checked, must, within
from ..typing import Process
from .gaussian import gaussian_error
from .response import numeric

__all__ = [
    "MIXTURE",
    "OrderFit",
    "fit_order",
    "graded_times",
    "measured_order",
    "measured_weak_order",
    "order_problem",
]

MIXTURE = (np.array([0.4, 0.6]), np.array([-1.0, 1.2]), np.array([0.2, 0.3]))
"""Weights, means and variances of the test's data."""
LOW, HIGH = -3.0, 3.0
FLOOR = 2e-12  # the reference's own error: below it a slope means nothing
Build = Callable[[Process, np.ndarray], plans.Plan]
Run = Callable[[plans.Plan, np.ndarray], np.ndarray]


class OrderFit(NamedTuple):
    """A measured order.

    Attributes:
        order: slope of log error over log steps between the two finest usable grids.
        steps: numbers of steps, (G,).
        errors: RMS errors in y = x / alpha at the end, (G,).
    """

    order: float
    steps: np.ndarray
    errors: np.ndarray


def _denoise(x: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
    """E[x_0 | x] of the mixture."""
    weights, means, variances = MIXTURE
    total = alpha**2 * variances + sigma**2
    gap = np.asarray(x)[..., None] - alpha * means
    logit = np.log(weights / np.sqrt(total)) - gap**2 / total / 2
    r = np.exp(logit - logit.max(-1, keepdims=True))
    r /= r.sum(-1, keepdims=True)
    return (r * (means + alpha * variances * gap / total)).sum(-1)


@functools.cache
def order_problem() -> tuple[np.ndarray, np.ndarray]:
    """Starts and exact ends in y = x / alpha, each (41,): DOP853 in half log-SNR."""
    from scipy.integrate import solve_ivp

    def slope(lam: float, w: np.ndarray) -> np.ndarray:  # w = y / rho
        rho = np.exp(-lam)
        return _denoise(w * rho, 1.0, rho) / rho

    start = np.linspace(-2.5, 2.5, 41) * np.hypot(1.0, np.exp(-LOW))
    found = solve_ivp(
        slope, (LOW, HIGH), start * np.exp(LOW), method="DOP853", rtol=1e-13, atol=1e-14
    )
    return start, found.y[:, -1] * np.exp(-HIGH)


@checked
def graded_times(process: Process, steps: int, power: float = 1.0) -> np.ndarray:
    """Times whose half log-SNR is -3 + 6 (i / N)^power.

    A multistep method of order p starts with a step of order 1, error h_0^2: with
    h_0 = O(N^-power) and power = (p + 1) / 2 that start does not cap the order.
    """
    if steps < 1:
        raise must("steps", ">= 1", steps)
    if not power > 0:
        raise must("power", "> 0", power)
    ramp = np.linspace(0, 1, steps + 1) ** power
    return np.asarray(process.half_log_snr_inverse(LOW + ramp * (HIGH - LOW)))


def _host(plan: plans.Plan, x: np.ndarray) -> np.ndarray:
    plan = numeric(plan)
    level = plan.rows.level
    predict = lambda x, i: _denoise(x, level.alpha[i], level.sigma[i])  # noqa: E731
    return plans.replay(plan, predict, x)


@checked
def measured_order(
    build: Build,
    process: Process,
    steps: Sequence[int] = (40, 80, 160),
    *,
    power: float = 1.0,
    run: Run | None = None,
) -> OrderFit:
    """The order at which a solver's samples converge to the ODE's exact solution.

    Args:
        build: (process, times) -> a deterministic plan.
        process: the path; half log-SNR -3 to 3 must be in its range.
        steps: numbers of steps, increasing, two or more.
        power: grading of the first steps, see `graded_times`.
        run: (plan, starts (41,)) -> samples (41,); None: on the host. A caller with
            many plans can run them in one compiled program.

    Returns:
        The slope and what it is made of. Errors below 2e-12, the reference's own
        accuracy, are left out; the order is NaN where fewer than two remain.

    Raises:
        ValueError: fewer than two numbers of steps, or a plan that draws noise.

    Example:
        >>> import fastdiff_jax as fd
        >>> found = measured_order(fd.solvers.ddim, fd.processes.flow(), (20, 40))
        >>> abs(found.order - 1.0) < 0.1
        True
    """
    counts = _steps(steps)
    start, exact = order_problem()
    run = _host if run is None else run
    errors = []
    for n in counts:
        ts = graded_times(process, int(n), power)
        made = build(process, ts)
        if made.stochastic:
            raise ValueError(
                "measured_order needs a deterministic plan; this one draws noise. "
                "Turn its noise off (eta=0), or use measured_weak_order."
            )
        a0, a1 = (float(a) for a in process.alpha(ts[[0, -1]]))
        found = np.asarray(run(made, start * a0))
        errors.append(np.sqrt(np.mean((found / a1 - exact) ** 2)))
    return fit_order(counts, np.array(errors))


@checked
def measured_weak_order(
    build: Build,
    process: Process,
    steps: Sequence[int] = (20, 40, 80),
    *,
    power: float = 1.0,
) -> OrderFit:
    """The order at which the samples' law converges, on Gaussian data.

    The error is the largest relative one of the samples' standard deviation over data
    variances 0.1 to 1, from the exact law at half log-SNR -3 to 3: no Monte Carlo.
    For plans that draw noise; a deterministic plan's order shows there too.

    Args:
        build, process, steps, power: as `measured_order`.

    Returns:
        The slope and what it is made of.

    Raises:
        ValueError: fewer than two numbers of steps.

    Example:
        >>> import functools, fastdiff_jax as fd
        >>> ancestral = functools.partial(fd.solvers.ddim, eta=1.0)
        >>> found = measured_weak_order(ancestral, fd.processes.vp_linear())
        >>> abs(found.order - 1.0) < 0.2
        True
    """
    counts = _steps(steps)
    errors = []
    for n in counts:
        made = build(process, graded_times(process, int(n), power))
        law = gaussian_error(
            made, 0.0, np.linspace(0.1, 1.0, 10), exact_start=True, target="level"
        )
        ratio = np.sqrt(law.variance / law.target_variance)
        errors.append(np.abs(ratio - 1).max())
    return fit_order(counts, np.array(errors))


def _steps(steps: Sequence[int]) -> np.ndarray:
    found = np.asarray(steps)
    if found.ndim != 1 or len(found) < 2 or (np.diff(found) <= 0).any():
        raise ValueError(
            f"steps must be two or more increasing numbers, got {found.tolist()}."
        )
    return found


@checked
def fit_order(steps: np.ndarray, errors: np.ndarray) -> OrderFit:
    """The slope between the two finest grids whose error is above the floor.

    Example:
        >>> fit_order(np.array([10, 20]), np.array([4e-2, 1e-2])).order
        2.0
    """
    if np.ndim(steps) != 1 or len(steps) < 2:
        raise must("steps", "two or more numbers, (N,)", steps)
    if np.shape(errors) != np.shape(steps):
        raise must("errors", f"one number per grid, {np.shape(steps)}", errors)
    steps, errors = np.asarray(steps), np.asarray(errors)
    within("(0, inf)", steps=steps)
    good = np.flatnonzero(errors > FLOOR)[-2:]
    if len(good) < 2 or not np.isfinite(errors[good]).all():
        return OrderFit(float("nan"), steps, errors)
    (e0, e1), (n0, n1) = errors[good], steps[good]
    return OrderFit(float(np.log(e0 / e1) / np.log(n1 / n0)), steps, errors)
