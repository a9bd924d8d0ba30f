"""Where a run is stochastic: windows of noise, and their schedule."""

import math
from typing import Any

import numpy as np

from ..guards import bounded, checked, must, within
from ..numerics import namespace
from ..trees import concrete
from ..typing import Array, ArrayLike

__all__ = ["flow_grpo_tau2", "window", "window_at"]

MODES = ("progressive", "random", "decay", "exp_decay")


@checked
def flow_grpo_tau2(eta: ArrayLike = 0.7) -> float | Array:
    """tau^2 = eta^2 / 2: Flow-GRPO's noise level as the solvers' `tau2`.

    Its SDE has g^2 = eta^2 t / (1 - t), half as much per eta^2 as tau^2 times the
    reverse SDE's 2 t / (1 - t).

    Args:
        eta: the published noise level, a scalar or one per step.

    Returns:
        `tau2` for `fd.solvers.sde_dpmpp_2m` and the like.

    Example:
        >>> round(flow_grpo_tau2(0.7), 3)
        0.245

    Reference: Liu et al. 2025 (2505.05470), eq 9.
    """
    within("[0, inf)", eta=eta)
    value: Any = np.asarray(eta) if isinstance(eta, list | tuple) else eta
    return value * value / 2


@checked
def window(steps: int, first: int | Array, width: int, tau2: ArrayLike) -> Array:
    """tau^2 per step: `tau2` on steps first..first + width - 1, the ODE elsewhere.

    A plan made with it has noise weights in every row, 0 outside the window: moving
    the window changes numbers, not shapes, and nothing recompiles.

    Args:
        steps: number of steps N.
        first: first step of the window, a whole number (traced: not checked).
        width: number of steps in it.
        tau2: noise in the window, > 0, e.g. `flow_grpo_tau2(0.7)`.

    Returns:
        A vector (N,), for the `tau2` of a stochastic solver.

    Raises:
        ValueError: a window outside the run, or tau2 not positive.

    Example:
        >>> window(6, 1, 2, 0.5).tolist()
        [0.0, 0.5, 0.5, 0.0, 0.0, 0.0]

    Reference: Li et al. 2025 (2507.21802), MixGRPO.
    """
    xp = namespace(first, tau2)
    if concrete(first, tau2):
        first = bounded("first", first)
        if np.shape(tau2) not in ((), (steps,)):
            raise must("tau2", f"one number, or one per step ({steps},)", tau2)
        if not 1 <= width <= steps or not 0 <= first <= steps - width:
            raise ValueError(
                f"the window must lie in the {steps} steps, got {first=}, {width=}. "
                f"Use 1 <= width <= {steps} and first <= steps - width."
            )
        if not (np.isfinite(tau2).all() and np.all(np.asarray(tau2) > 0)):
            raise ValueError(
                f"tau2 must be finite and > 0 in the window, got {tau2}. Without noise "
                "there is no density; use a plan of the ODE instead."
            )
    at = np.arange(steps)
    inside = (at >= first) & (at < first + width)
    return xp.where(inside, xp.asarray(tau2, dtype=float), 0.0)


@checked
def window_at(
    iteration: int,
    steps: int,
    *,
    width: int = 4,
    every: int = 25,
    stride: int = 1,
    mode: str = "progressive",
    roll_back: bool = False,
    threshold: int = 13,
    rate: float = 0.1,
    seed: int = 0,
) -> int:
    """First step of MixGRPO's window at a training iteration: a pure function.

    The window stays d(p) iterations at position p, then moves by `stride`:

        progressive  d = every
        decay        d = every (1 - p / N) + max(1, every // 4) p / N, rounded down
        exp_decay    d = ceil(every exp(-rate max(0, p - threshold)))
        random       a position drawn anew at every iteration, from (seed, iteration)

    It stops at the last full window, or starts again with `roll_back`. (Published code
    lets the window run out of the steps, so that it shrinks at the end.)

    Args:
        iteration: number of the training iteration, from 0.
        steps: number of steps N of the run.
        width: steps in the window.
        every: iterations at a position.
        stride: steps by which it moves.
        mode: 'progressive', 'decay', 'exp_decay' or 'random'.
        roll_back: start again at 0 after the last position.
        threshold, rate: of 'exp_decay'.
        seed: of 'random'.

    Returns:
        The first step, for `window(steps, first, width, tau2)`.

    Raises:
        ValueError: an unknown mode, or numbers out of range.

    Example:
        >>> [window_at(i, 25) for i in (0, 24, 25, 50, 10_000)]
        [0, 0, 1, 2, 21]

    Reference: Li et al. 2025 (2507.21802), section 3.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}.")
    whole = {"iteration": iteration, "every": every, "stride": stride, "width": width}
    for name, value in whole.items():
        bounded(name, value, int(name != "iteration"))
    bounded("seed", seed, 0)
    within("[0, inf)", rate=rate)
    if width > steps:
        raise ValueError(f"width must be <= steps={steps}, got {width}.")
    if mode == "random":
        draw = np.random.default_rng([seed, iteration])
        return int(draw.integers(0, steps - width + 1))
    last = steps - width
    places = np.arange(0, last + stride, stride).clip(max=last)
    places = np.unique(places)
    ends = np.cumsum(
        [_stay(int(p), steps, mode, every, threshold, rate) for p in places]
    )
    if roll_back:
        iteration = iteration % int(ends[-1])
    at = int(np.searchsorted(ends, iteration, side="right"))
    return int(places[min(at, len(places) - 1)])


def _stay(
    place: int, steps: int, mode: str, every: int, threshold: int, rate: float
) -> int:
    """Iterations that the window stays at a position."""
    if mode == "decay":
        low = max(1, every // 4)
        share = place / steps
        return max(low, int(every * (1 - share) + low * share))
    if mode == "exp_decay":
        return math.ceil(every * math.exp(-rate * max(0, place - threshold)))
    return every
