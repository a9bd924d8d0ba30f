"""Ancestral steps, and Euler-Maruyama on the reverse-time SDE.

With u = x / alpha, rho = sigma / alpha and e^{-h} = rho_t / rho_s, an ancestral step
goes deterministically from rho_s to rho_down and adds fresh noise back up to rho_t:

    rho_up = rho_t min(1, eta sqrt(1 - e^{-2h})),  rho_down^2 = rho_t^2 - rho_up^2

eta = 0 is the probability-flow ODE, eta = 1 the posterior of the forward process. Above
1 rho_up meets its bound, sooner in short steps; at the bound in every step, eta =
infinity, x_s is forgotten: x_t = alpha_t D + sigma_t z.
"""

import math

import numpy as np

from ... import plan
from ...guards import must
from ...numerics import Levels, levels, namespace
from ...plan import Leg
from ...typing import Array, ArrayLike, Process
from .._noise import amount, ancestral_split, is_noisy, scaled
from ..registry import solver
from ._score_sde import euler_maruyama_jump, jumps_plan

__all__ = ["dpm2_ancestral", "euler_ancestral", "euler_maruyama"]


@solver(order=1, stochastic=("eta",), paper="Karras 2022, 2206.00364")
def euler_ancestral(
    process: Process, ts: ArrayLike, *, eta: ArrayLike = 1.0, s_noise: float = 1.0
) -> plan.Plan:
    """k-diffusion's Euler ancestral. Order 1, 1 call per step.

    x_t = (rho_down/rho_s) (alpha_t/alpha_s) x_s + alpha_t (1 - rho_down/rho_s) D
          + s_noise alpha_t rho_up z

    The same as `ddim(eta=eta)` on any path.

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,).
        eta: scalar or one per step, shape (N,), in [0, 1]: 0 = ODE, 1 = DDPM; or
            np.inf, all noise drawn anew (diffusers' stochastic flow sampling).
        s_noise: factor on the fresh noise.

    Returns:
        A plan of N rows.

    Raises:
        ValueError: eta < 0, or larger than a step's noise allows and not infinite;
            s_noise not finite; or times that increase.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.edm()
        >>> fd.solvers.euler_ancestral(process, fd.grids.edm(process, 10)).stochastic
        True

    Reference: Song et al. 2021 (2010.02502), eq 16; k-diffusion's form.
    """
    lv = levels(process, ts)
    eta = amount(lv, eta, "eta", infinite=True)
    _check_share(lv.h, eta)
    share, up = ancestral_split(lv.h, eta)
    keep = share * lv.sigma[1:] / lv.sigma[:-1]
    weights = lv.alpha[1:] - keep * lv.alpha[:-1]
    return plan.multistep(
        lv,
        keep=keep,
        weights=weights[..., None],
        noise=scaled(s_noise) * lv.sigma[1:] * up if is_noisy(eta) else None,
    )


def _check_share(h: Array, eta: Array) -> None:
    """A finite eta draws no more noise anew than a step's end holds."""
    if not all(isinstance(v, np.ndarray) for v in (h, eta)):
        return
    given = np.where(np.isfinite(eta), eta, 0.0)
    beyond = (h > 0) & (-np.expm1(-2 * h) * given**2 > 1 + 1e-9)
    if beyond.any():
        at = tuple(int(i) for i in np.argwhere(beyond)[0])
        most = 1 / math.sqrt(-math.expm1(-2 * h[at]))
        rule = f"at most {most:g} in step {at[0]}, where all noise is new, or infinite"
        raise must("eta", rule, float(eta[at]))


@solver(  # order 2 without noise; with it 1
    order=2, calls=2, stochastic=("eta",), paper="Lu 2022, 2206.00927; k-diffusion"
)
def dpm2_ancestral(
    process: Process, ts: ArrayLike, *, eta: ArrayLike = 1.0, s_noise: float = 1.0
) -> plan.Plan:
    """DPM-2 down to rho_down, then noise. Order 2 at eta = 0, else 1; 2 calls.

    x_m = (alpha_m/alpha_s) x_s + alpha_m (rho_m - rho_s) E_s,  rho_m^2 = rho_s rho_down
    x_t = (alpha_t/alpha_s) x_s + alpha_t (rho_down - rho_s) E_m
          + s_noise alpha_t rho_up z

    Args:
        process: the path, with a clock between its levels; alpha > 0 on the grid.
        ts: times, non-increasing, shape (N + 1,). A step whose rho_down is 0 takes one
            call, Euler's.
        eta: scalar or one per step, shape (N,), in [0, 1]: 0 = ODE, 1 = posterior.
        s_noise: factor on the fresh noise.

    Returns:
        A plan of 2N rows, 2N - 1 if the last level is clean.

    Raises:
        ValueError: alpha = 0 on the grid, eta outside [0, 1], s_noise not finite.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.edm()
        >>> fd.solvers.dpm2_ancestral(process, fd.grids.edm(process, 10)).nfe
        19

    Reference: Lu et al. 2022 (2206.00927); k-diffusion.
    """
    lv = levels(process, ts).require("noise")
    eta = amount(lv, eta, "eta", most=1)
    share, up = ancestral_split(lv.h, eta)
    single = np.zeros(lv.steps, bool)  # rho_down is 0: there is nothing in between
    for zero in ((share == 0) & (lv.h > 0), lv.sigma[1:] == 0):
        if isinstance(zero, np.ndarray):
            single |= zero.reshape(lv.steps, -1).any(axis=1)
    noise = scaled(s_noise) * lv.sigma[1:] * up if is_noisy(eta) else None
    return _dpm2(process, lv, share * lv.rho[1:], noise, single)


@solver(order=1, stochastic=("tau2",), paper="Song 2021, 2011.13456")
def euler_maruyama(
    process: Process, ts: ArrayLike, *, tau2: ArrayLike = 1.0
) -> plan.Plan:
    """Euler-Maruyama on the reverse SDE in the process' time. Order 1, 1 call per step.

    x_t = x_s + (t-s) [v + tau2 r (x_s - alpha_s D)] + sigma_s sqrt(2 tau2 r (s-t)) z
    v = alpha' D + sigma' E,  r = sigma'/sigma - alpha'/alpha = g^2 / (2 sigma^2)

    The baseline: not even a constant D is integrated exactly. Prefer `ddim(eta=1)`.

    Args:
        process: the path; its clock is the SDE's.
        ts: times, non-increasing, shape (N + 1,). A step into sigma = 0 is Euler's.
        tau2: scalar or one per step, shape (N,), >= 0: 0 = ODE, 1 = reverse SDE.

    Returns:
        A plan of N rows.

    Raises:
        ValueError: tau2 negative or not finite, or alpha = 0 where noise is added.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.euler_maruyama(process, fd.grids.uniform(process, 100)).nfe
        100

    Reference: Song et al. 2021 (2011.13456), eq 6; Anderson 1982.
    """
    lv = levels(process, ts)
    jump = euler_maruyama_jump(process, lv, amount(lv, tau2), "euler_maruyama")
    return jumps_plan(lv, jump)


def _dpm2(
    process: Process,
    lv: Levels,
    down: Array,
    noise: Array | None,
    single: np.ndarray,
) -> plan.Plan:
    """Two evaluations on the way to rho_down, one where that is 0."""
    steps = np.arange(lv.steps)
    twice, once = steps[~single], steps[single]
    xp, rho = namespace(lv.lam, down), lv.rho
    low = down[twice]
    middle = _level(process, lv, -xp.log(xp.sqrt(rho[twice] * low)), twice)
    start, end = lv.at(twice), lv.alpha[twice + 1]

    def drawn(rows: np.ndarray) -> Array | None:
        return None if noise is None else noise[rows]

    first = Leg(
        start,
        middle.alpha / start.alpha,
        (middle.sigma - middle.alpha * rho[twice],),
    )
    jump = end * (low - rho[twice])
    last = Leg(middle, end / start.alpha, (0 * jump, jump), drawn(twice))
    ends = lv.alpha[once + 1]
    alone = Leg(
        lv.at(once),
        ends / lv.alpha[once],
        (ends * (down[once] - rho[once]),),
        drawn(once),
    )
    groups = [(twice, [first, last]), (once, [alone])]
    return plan.stages(groups, lv.end, basis="noise")


def _level(process: Process, lv: Levels, lam: Array, rows: np.ndarray) -> plan.Level:
    """Levels at half log-SNR `lam`: rho_m may lie beyond the step's end."""
    xp = namespace(lam)
    time = process.half_log_snr_inverse(lam)
    time = xp.clip(time, process.domain[0], lv.time[rows])
    return plan.Level(time, process.alpha(time), process.sigma(time))
