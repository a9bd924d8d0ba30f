"""EDM's churn: add noise, then solve the ODE from the raised level. Order 1 in mean.

With u = x / alpha and rho = sigma / alpha, step i first goes back up,

    rho^_i = rho_i (1 + gamma_i),  u^ = u + s_noise sqrt(rho^_i^2 - rho_i^2) z,

and then takes a deterministic step from rho^_i to rho_{i+1}, the model's time being
that of rho^_i. gamma_i = min(s_churn / N, sqrt(2) - 1) if s_min <= rho_i <= s_max,
else 0. Karras et al. 2022 (2206.00364), algorithm 2.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from .. import plan
from ..numerics import Levels, levels, namespace
from ..typing import Array, ArrayLike, Process

__all__ = ["edm_churn"]

_METHODS = ("heun", "euler", "dpm2")
_MOST = math.sqrt(2) - 1  # no step more than doubles the noise variance


class _Churn(NamedTuple):
    """Where each step starts once its noise is in, (N, ...) each."""

    level: plan.Level  # at rho^
    std: Array  # of the noise that u gets
    rho: Array  # rho^


def edm_churn(
    process: Process,
    ts: ArrayLike,
    *,
    method: str = "heun",
    s_churn: float = 0.0,
    s_min: float = 0.0,
    s_max: float = math.inf,
    s_noise: float = 1.0,
    compat: str | None = None,
) -> plan.Plan:
    """EDM's stochastic sampler: churn and a step of Heun, Euler or DPM-2 in rho.

    x^ = (alpha^/alpha_i) x + alpha^ s_noise sqrt(rho^^2 - rho_i^2) z, then from rho^ to
    rho_{i+1} as in `edm_heun`, `ddim` or `dpm2`. Order 1; 2 calls per step (Euler: 1).

    Args:
        process: the path, with a clock between its levels; alpha > 0 on the grid.
        ts: times, non-increasing, shape (N + 1,). A last step into sigma = 0 is
            Euler's, one call.
        method: 'heun', 'euler' or 'dpm2'.
        s_churn: 0 = no noise. More than (sqrt(2) - 1) N changes nothing.
        s_min, s_max: the range of rho = sigma / alpha where noise is added.
        s_noise: factor on the noise; slightly above 1 offsets a net's loss of detail.
        compat: None, or, for 'euler', diffusers' rule for a net that predicts 'noise'
            or 'velocity': the model is asked before the noise is added.

    Returns:
        A plan of 2N rows (Euler: N); 2N - 1 if the last level is clean.

    Raises:
        ValueError: an unknown method or compat, alpha = 0 on the grid, options that
            are negative or NaN, or a raised level that the path does not have.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.edm()
        >>> plan = fd.solvers.edm_churn(process, fd.grids.edm(process, 18), s_churn=30)
        >>> plan.nfe, plan.stochastic
        (35, True)

    Reference: Karras et al. 2022 (2206.00364), algorithm 2 and table 5.
    """
    _check(method, compat, s_churn, s_min, s_max, s_noise)
    lv = levels(process, ts)
    plan.basis(plan.take(lv, slice(None, -1)), "noise")  # alpha = 0 fails here, by name
    own = lv.rho[:-1]
    xp = namespace(own)
    inside = (own >= s_min) & (own <= s_max)
    most = min(s_churn / lv.steps, _MOST)
    gamma = xp.where(inside, most, 0.0) if most > 0 else np.zeros(own.shape)
    moved = _raise(process, lv, gamma, s_noise)
    if compat is not None:
        return _late(lv, moved, compat)
    _same_levels(moved, lv)
    made, closes = _solve(process, lv, moved, method)
    return _with_noise(made, lv, moved, closes)


def _check(
    method: str,
    compat: str | None,
    s_churn: float,
    s_min: float,
    s_max: float,
    s: float,
) -> None:
    if method not in _METHODS:
        raise ValueError(
            f"method must be one of {', '.join(_METHODS)}, got {method!r}."
        )
    if compat not in (None, "noise", "velocity"):
        raise ValueError(f"compat must be None, 'noise' or 'velocity', got {compat!r}.")
    if compat is not None and method != "euler":
        raise ValueError(
            f"compat={compat!r} is a rule of method='euler', got {method!r}. Drop one."
        )
    if not (0 <= s_churn < math.inf):
        raise ValueError(f"s_churn must be finite and >= 0, got {s_churn}.")
    if not s_min <= s_max:
        raise ValueError(
            f"s_min <= s_max must hold, got {s_min} and {s_max}. Swap them."
        )
    if not math.isfinite(s):
        raise ValueError(f"s_noise must be finite (1 = exact), got {s}.")


def _raise(process: Process, lv: Levels, gamma: Array, s_noise: float) -> _Churn:
    """The raised levels; a step without churn keeps its own to the last bit."""
    xp, own = namespace(lv.rho, gamma), lv.rho[:-1]
    quiet = gamma == 0
    if isinstance(quiet, np.ndarray) and quiet.all():
        return _Churn(plan.take(lv, slice(None, -1)), gamma, own)
    std = s_noise * own * xp.sqrt(gamma * (2 + gamma))
    time = process.half_log_snr_inverse(lv.lam[:-1] - xp.log1p(gamma))
    found = (time, process.alpha(time), process.sigma(time))
    kept = (lv.time, lv.alpha, lv.sigma)
    level = (xp.where(quiet, k[:-1], f) for k, f in zip(kept, found, strict=True))
    return _Churn(plan.Level(*level), std, own * (1 + gamma))


def _same_levels(moved: _Churn, lv: Levels) -> None:
    """The path really has the raised levels: a table has not, nor beyond its end."""
    rho, level = moved.rho, moved.level
    if not (isinstance(rho, np.ndarray) and isinstance(level.alpha, np.ndarray)):
        return
    gap = np.abs(level.sigma - rho * level.alpha) > 1e-6 * level.sigma
    if gap.any():
        at = int(np.argwhere(gap)[0][0])
        raise ValueError(
            f"edm_churn raises sigma / alpha at ts[{at}]={lv.time[at]} to "
            f"{rho.ravel()[at]:.6g}, a level this process does not have. Use a process "
            "with a continuous clock, or keep s_max below the levels near its start."
        )


def _solve(
    process: Process, lv: Levels, moved: _Churn, method: str
) -> tuple[plan.Plan, np.ndarray]:
    """The steps rho^_i -> rho_{i+1}, each ending in the scale of the next start."""
    clean = isinstance(lv.sigma, np.ndarray) and bool((lv.sigma[-1] == 0).any())
    count = np.full(lv.steps, 1 if method == "euler" else 2)
    count[-1] -= clean and method != "euler"
    step = np.repeat(np.arange(lv.steps), count)
    second = np.arange(len(step)) - np.repeat(np.cumsum(count) - count, count) == 1
    closes = second | (count[step] == 1)

    xp = namespace(lv.lam, moved.rho)
    jump = lv.rho[1:] - moved.rho
    # the next step's churn multiplies u, whatever its noise: end in its alpha
    to = xp.concatenate([moved.level.alpha[1:], lv.alpha[-1:]])

    def only(mask: np.ndarray, yes: Array, no: Array) -> Array:
        mask = mask.reshape((-1,) + (1,) * (jump.ndim - 1))
        return xp.where(mask, yes[step], no[step])

    inner, newest, older = plan.take(lv, slice(1, None)), to * jump, xp.zeros_like(jump)
    if method == "heun":
        newest = older = to * jump / 2
    elif method == "dpm2":
        inner = _middle(process, lv, moved, clean)
    reach = inner.alpha * (inner.sigma / inner.alpha - moved.rho)
    level = plan.Level(
        *(only(second, a, b) for a, b in zip(inner, moved.level, strict=True))
    )
    first = only(count[step] == 1, to * jump, reach)
    mask = second.reshape((-1,) + (1,) * (jump.ndim - 1))
    weights = [xp.where(mask, newest[step], first), only(second, older, 0 * older)]
    made = plan.runge_kutta(
        level,
        plan.take(lv, -1),
        convert=plan.basis(level, "noise"),
        keep=only(closes, to, inner.alpha) / moved.level.alpha[step],
        weights=xp.stack(weights[: count.max()], axis=1),
        closes=closes,
    )
    return made, closes


def _middle(process: Process, lv: Levels, moved: _Churn, clean: bool) -> plan.Level:
    """Half-way between rho^_i and rho_{i+1} in log rho."""
    xp = namespace(lv.lam, moved.rho)
    ahead = lv.rho[1:]
    if clean:  # the last step has no second row: any finite level
        ahead = xp.concatenate([ahead[:-1], moved.rho[-1:]])
    time = process.half_log_snr_inverse(-xp.log(xp.sqrt(moved.rho * ahead)))
    return plan.Level(time, process.alpha(time), process.sigma(time))


def _with_noise(
    made: plan.Plan, lv: Levels, moved: _Churn, closes: np.ndarray
) -> plan.Plan:
    """Churn of step i + 1 in the advance of step i's last row, the first in the start.

    Anchor and point of the start get the same z: they are one state.
    """
    if isinstance(moved.std, np.ndarray) and not moved.std.any():
        return made
    std = moved.level.alpha * moved.std
    known = isinstance(std, np.ndarray)
    xp = namespace(std)
    rows, start = made.rows, None
    if not known or np.any(std[0]):
        scale, first = (
            xp.asarray(moved.level.alpha[0] / lv.alpha[0]),
            xp.asarray(std[0]),
        )
        start = plan.Start(scale, scale, anchor_noise=first, point_noise=first)
    if not known or std[1:].any():
        after = xp.concatenate([std[1:], xp.zeros_like(std[:1])])
        noise = after[np.cumsum(closes) - closes]
        noise = xp.where(closes.reshape((-1,) + (1,) * (std.ndim - 1)), noise, 0.0)
        rows = rows._replace(advance=rows.advance._replace(noise=noise))
    return dataclasses.replace(made, rows=rows, start=start)


def _late(lv: Levels, moved: _Churn, predicts: str) -> plan.Plan:
    """diffusers: the model sees x before the noise, the step goes from rho^.

    It takes D from the raised x and the old output: with a noise-predicting net the
    slope stays E, with a velocity one D gets n / (1 + rho^2) of the noise n too.
    """
    own = lv.rho[:-1]
    jump, drawn, slope = lv.rho[1:] - moved.rho, moved.std, 1.0
    if predicts == "velocity":
        slope = own / moved.rho
        drawn = drawn * (1 + jump / moved.rho * own**2 / (1 + own**2))
    level = plan.take(lv, slice(None, -1))
    random = not isinstance(moved.std, np.ndarray) or bool(moved.std.any())
    return plan.build(
        level,
        plan.take(lv, -1),
        convert=plan.basis(level, "noise"),
        advance=plan.Move(
            lv.alpha[1:] / lv.alpha[:-1],
            None,
            evaluation=(lv.alpha[1:] * jump * slope)[:, None],
            noise=lv.alpha[1:] * drawn if random else None,
        ),
    )
