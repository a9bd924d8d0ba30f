"""EDM's churn: add noise, then solve the ODE from the raised level. Order 1 in mean.

With u = x / alpha and rho = sigma / alpha, step i first goes back up,

    rho^_i = rho_i (1 + gamma_i),  u^ = u + s_noise sqrt(rho^_i^2 - rho_i^2) z,

and then takes a deterministic step from rho^_i to rho_{i+1}, the model's time being
that of rho^_i. gamma_i = min(s_churn / N, sqrt(2) - 1) if s_min <= rho_i <= s_max,
else 0. Karras et al. 2022 (2206.00364), algorithm 2.
"""

import math
from typing import NamedTuple

import numpy as np

from ... import plan
from ...guards import within
from ...numerics import Levels, levels, namespace
from ...plan import Leg
from ...typing import Array, ArrayLike, Process
from ..registry import solver

__all__ = ["edm_churn"]

_VARIANTS = ("heun", "euler", "dpm2")
_MOST = math.sqrt(2) - 1  # no step more than doubles the noise variance


class _Churn(NamedTuple):
    """Where each step starts once its noise is in, (N, ...) each."""

    level: plan.Level  # at rho^
    std: Array  # of the noise that u gets
    rho: Array  # rho^


@solver(  # order 2 without noise; with it 1
    order=2, calls=2, stochastic=("s_churn",), paper="Karras 2022, 2206.00364"
)
def edm_churn(
    process: Process,
    ts: ArrayLike,
    *,
    variant: str = "heun",
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
        variant: 'heun', 'euler' or 'dpm2'.
        s_churn: 0 = no noise. More than (sqrt(2) - 1) N changes nothing.
        s_min, s_max: the range of rho = sigma / alpha where noise is added.
        s_noise: factor on the noise; slightly above 1 offsets a net's loss of detail.
        compat: None, or, for variant 'euler', diffusers' rule for a net that predicts
            'noise' or 'velocity': the model is asked before the noise is added.

    Returns:
        A plan of 2N rows (Euler: N); 2N - 1 if the last level is clean.

    Raises:
        ValueError: an unknown variant or compat, alpha = 0 on the grid, options that
            are negative or NaN, or a raised level that the path does not have.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.edm()
        >>> plan = fd.solvers.edm_churn(process, fd.grids.edm(process, 18), s_churn=30)
        >>> plan.nfe, plan.stochastic
        (35, True)

    Reference: Karras et al. 2022 (2206.00364), algorithm 2 and table 5.
    """
    _check(variant, compat, s_churn, s_min, s_max, s_noise)
    lv = levels(process, ts).require("noise")
    own = lv.rho[:-1]
    xp = namespace(own)
    inside = (own >= s_min) & (own <= s_max)
    most = min(s_churn / lv.steps, _MOST)
    gamma = xp.where(inside, most, 0.0) if most > 0 else np.zeros(own.shape)
    moved = _raise(process, lv, gamma, s_noise)
    if compat is not None:
        return _late(lv, moved, compat)
    _same_levels(moved, lv)
    return _solve(process, lv, moved, variant)


def _check(
    variant: str,
    compat: str | None,
    s_churn: float,
    s_min: float,
    s_max: float,
    s: float,
) -> None:
    if variant not in _VARIANTS:
        raise ValueError(
            f"variant must be one of {', '.join(_VARIANTS)}, got {variant!r}."
        )
    if compat not in (None, "noise", "velocity"):
        raise ValueError(f"compat must be None, 'noise' or 'velocity', got {compat!r}.")
    if compat is not None and variant != "euler":
        raise ValueError(
            f"compat={compat!r} is a rule of variant='euler', got {variant!r}."
        )
    if not (0 <= s_churn < math.inf):
        raise ValueError(f"s_churn must be finite and >= 0, got {s_churn}.")
    if not s_min <= s_max:
        raise ValueError(
            f"s_min <= s_max must hold, got {s_min} and {s_max}. Swap them."
        )
    within("[0, inf)", s_noise=s, s_min=s_min)


def _raise(process: Process, lv: Levels, gamma: Array, s_noise: float) -> _Churn:
    """The raised levels; a step without churn keeps its own to the last bit."""
    xp, own = namespace(lv.rho, gamma), lv.rho[:-1]
    quiet = gamma == 0
    if isinstance(quiet, np.ndarray) and quiet.all():
        return _Churn(lv.starts, gamma, own)
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


def _solve(process: Process, lv: Levels, moved: _Churn, variant: str) -> plan.Plan:
    """The steps rho^_i -> rho_{i+1}, each ending in the scale of the next start.

    The churn of step i + 1 is the noise of step i's last line, the first the start's.
    """
    steps = np.arange(lv.steps)
    twice = steps[: 0 if variant == "euler" else lv.steps - lv.clean]
    once = np.setdiff1d(steps, twice)
    xp, start = namespace(lv.lam, moved.rho), moved.level
    # the next step's churn multiplies u, whatever its noise: end in its alpha
    to = xp.concatenate([start.alpha[1:], lv.alpha[-1:]])
    jump, keep = to * (lv.rho[1:] - moved.rho), to / start.alpha
    noise, first = _noise(lv, moved)

    def at(rows: np.ndarray) -> plan.Level:
        return plan.Level(*(v[rows] for v in start))

    def drawn(rows: np.ndarray) -> Array | None:
        return None if noise is None else noise[rows]

    groups = [(once, [Leg(at(once), keep[once], (jump[once],), drawn(once))])]
    if len(twice):
        inner, weights = lv.at(twice + 1), (jump[twice] / 2, jump[twice] / 2)
        if variant == "dpm2":
            inner = _middle(process, lv, moved, twice)
            weights = (0 * jump[twice], jump[twice])
        reach = inner.alpha * (inner.sigma / inner.alpha - moved.rho[twice])
        inward = Leg(at(twice), inner.alpha / start.alpha[twice], (reach,))
        outward = Leg(inner, keep[twice], weights, drawn(twice))
        groups.append((twice, [inward, outward]))
    return plan.stages(groups, lv.end, basis="noise", start=first)


def _middle(
    process: Process, lv: Levels, moved: _Churn, rows: np.ndarray
) -> plan.Level:
    """Half-way between rho^_i and rho_{i+1} in log rho."""
    xp = namespace(lv.lam, moved.rho)
    rho = xp.sqrt(moved.rho[rows] * lv.rho[rows + 1])
    time = process.half_log_snr_inverse(-xp.log(rho))
    return plan.Level(time, process.alpha(time), process.sigma(time))


def _noise(
    lv: Levels, moved: _Churn
) -> tuple[Array | None, dict[int, plan.Form] | None]:
    """Noise at the steps' ends, (N, ...), and the start; None for none."""
    known = isinstance(moved.std, np.ndarray)
    if known and not moved.std.any():
        return None, None
    std = moved.level.alpha * moved.std
    xp, start = namespace(std), None
    if not known or np.any(std[0]):
        scale = moved.level.alpha[:1] / lv.alpha[:1]
        start = {0: scale * plan.register(0) + std[:1] * plan.NOISE}
    after = xp.concatenate([std[1:], xp.zeros_like(std[:1])])
    return (after if not known or after.any() else None), start


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
    random = not isinstance(moved.std, np.ndarray) or bool(moved.std.any())
    return plan.multistep(
        lv,
        basis="noise",
        keep=lv.alpha[1:] / lv.alpha[:-1],
        weights=(lv.alpha[1:] * jump * slope)[..., None],
        noise=lv.alpha[1:] * drawn if random else None,
        exact=False,
    )
