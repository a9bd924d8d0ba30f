"""Ancestral steps, and Euler-Maruyama on the reverse-time SDE.

With u = x / alpha, rho = sigma / alpha and e^{-h} = rho_t / rho_s, an ancestral step
goes deterministically from rho_s to rho_down and adds fresh noise back up to rho_t:

    rho_up = rho_t min(1, eta sqrt(1 - e^{-2h})),  rho_down^2 = rho_t^2 - rho_up^2

eta = 0 is the probability-flow ODE, eta = 1 the posterior of the forward process, and
eta = infinity forgets the noise of x_s: x_t = alpha_t D + sigma_t z.
"""

import dataclasses

import numpy as np

from .. import plan
from ..numerics import Levels, as_float, levels, namespace
from ..typing import Array, ArrayLike, Process
from ._score_sde import ancestral_jump, jumps_plan

__all__ = ["ddpm", "dpm2_ancestral", "euler_ancestral", "euler_maruyama"]


def euler_ancestral(
    process: Process, ts: ArrayLike, *, eta: ArrayLike = 1.0, s_noise: float = 1.0
) -> plan.Plan:
    """k-diffusion's Euler ancestral. Order 1, 1 call per step.

    x_t = (rho_down/rho_s) (alpha_t/alpha_s) x_s + alpha_t (1 - rho_down/rho_s) D
          + s_noise alpha_t rho_up z

    The same as `ddim(eta=eta)` on any path, and defined for eta > 1 too.

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,).
        eta: scalar or one per step, shape (N,), >= 0: 0 = ODE, 1 = DDPM, np.inf = all
            noise drawn anew in every step (diffusers' stochastic flow sampling).
        s_noise: factor on the fresh noise.

    Returns:
        A plan of N rows.

    Raises:
        ValueError: eta negative or NaN, s_noise not finite, or times that increase.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.edm()
        >>> fd.solvers.euler_ancestral(process, fd.grids.edm(process, 10)).stochastic
        True

    Reference: Song et al. 2021 (2010.02502), eq 16; k-diffusion's form.
    """
    lv = levels(process, ts)
    eta, s_noise = _factors(eta, s_noise)
    share, up, _ = _split(lv, eta)
    keep = share * lv.sigma[1:] / lv.sigma[:-1]
    weights = lv.alpha[1:] - keep * lv.alpha[:-1]
    return plan.multistep(
        lv,
        prediction="data",
        keep=keep,
        weights=weights[..., None],
        noise=s_noise * lv.sigma[1:] * up if _random(eta) else None,
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
        eta: scalar or one per step, shape (N,), >= 0: 0 = ODE, 1 = posterior.
        s_noise: factor on the fresh noise.

    Returns:
        A plan of 2N rows, 2N - 1 if the last level is clean.

    Raises:
        ValueError: alpha = 0 on the grid, eta negative or NaN, s_noise not finite.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.edm()
        >>> fd.solvers.dpm2_ancestral(process, fd.grids.edm(process, 10)).nfe
        19

    Reference: Lu et al. 2022 (2206.00927); k-diffusion.
    """
    lv = levels(process, ts)
    plan.basis(plan.take(lv, slice(None, -1)), "noise")  # alpha = 0 fails here, by name
    eta, s_noise = _factors(eta, s_noise)
    share, up, full = _split(lv, eta)
    single = np.zeros(lv.steps, bool)  # rho_down is 0: there is nothing in between
    for zero in (full, lv.sigma[1:] == 0):
        if isinstance(zero, np.ndarray):
            single |= zero.reshape(lv.steps, -1).any(axis=1)
    made, step, closes = _dpm2_rows(process, lv, share, single)
    if not _random(eta):
        return made
    fresh = (s_noise * lv.sigma[1:] * up)[step]
    xp = namespace(fresh)
    fresh = xp.where(closes.reshape((-1,) + (1,) * (fresh.ndim - 1)), fresh, 0.0)
    advance = made.rows.advance._replace(noise=fresh)
    return dataclasses.replace(made, rows=made.rows._replace(advance=advance))


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
    level = plan.take(lv, slice(None, -1))
    _, (tau2,) = as_float(tau2)
    if isinstance(tau2, np.ndarray) and not ((tau2 >= 0) & np.isfinite(tau2)).all():
        raise ValueError(
            f"tau2 must be finite and >= 0 (0 = ODE, 1 = reverse SDE), got {tau2}."
        )
    random = _random(tau2)
    xp = namespace(lv.time, tau2)
    d_alpha, d_sigma = process.rates(level.time)
    rate, step = d_sigma / level.sigma, lv.time[1:] - lv.time[:-1]
    point, prediction, noise = rate, d_alpha - level.alpha * rate, None
    if random:
        tau2 = xp.where(lv.sigma[1:] == 0, 0.0, tau2)  # the end is Euler's: no noise
        _refuse_pure_noise(level, tau2)
        gap = rate - d_alpha / xp.where(level.alpha == 0, 1.0, level.alpha)
        point = point + tau2 * gap
        prediction = prediction - tau2 * gap * level.alpha
        noise = level.sigma * xp.sqrt(-2 * tau2 * gap * step)
    return plan.build(
        level,
        plan.take(lv, -1),
        convert=plan.Convert(point[:, None], prediction[:, None]),
        advance=plan.Move(
            xp.ones_like(step), None, evaluation=step[:, None], noise=noise
        ),
    )


def ddpm(process: Process, ts: ArrayLike, *, variance: str = "posterior") -> plan.Plan:
    """DDPM's ancestral step. Order 1, 1 call per step.

    x_t = r x_s + (alpha_t - r alpha_s) D + c z,  r = e^{-h} sigma_t / sigma_s
    'posterior': c = sigma_t sqrt(1 - e^{-2h}), the same as `ddim(eta=1)`
    'large':     c = sigma_s sqrt(1 - e^{-2h}), the forward step's, sqrt(beta) on VP

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,). No noise goes into sigma = 0.
        variance: 'posterior' or 'large'. With 'large' the marginals are too wide.

    Returns:
        A plan of N rows.

    Raises:
        ValueError: an unknown variance.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.ddpm(process, fd.grids.uniform(process, 100)).stochastic
        True

    Reference: Ho et al. 2020 (2006.11239), section 3.2.
    """
    if variance not in ("posterior", "large"):
        raise ValueError(f"variance must be 'posterior' or 'large', got {variance!r}.")
    lv = levels(process, ts)
    return jumps_plan(lv, ancestral_jump(lv, variance))


def _factors(eta: ArrayLike, s_noise: float) -> tuple[Array, Array]:
    """The options of an ancestral step as arrays, checked."""
    _, (eta,) = as_float(eta)
    _, (s_noise,) = as_float(s_noise)
    if isinstance(eta, np.ndarray) and not (eta >= 0).all():
        raise ValueError(
            "eta must be >= 0 (0 = ODE, 1 = posterior, np.inf = all noise anew), got "
            f"{eta}."
        )
    if isinstance(s_noise, np.ndarray) and not np.isfinite(s_noise).all():
        raise ValueError(f"s_noise must be finite (1 = exact), got {s_noise}.")
    return eta, s_noise


def _random(amount: Array) -> bool:
    """Whether noise is drawn; an amount known at run time only may need it."""
    return not isinstance(amount, np.ndarray) or bool((amount > 0).any())


def _split(lv: Levels, eta: Array) -> tuple[Array, Array, Array]:
    """rho_down / rho_t, rho_up / rho_t, and where rho_down is 0; (N, ...) each."""
    xp, h, moves = namespace(lv.lam, eta), lv.h, lv.h > 0
    lost = xp.where(moves, -xp.expm1(-2 * h), 1.0)
    full = moves & (eta**2 * lost >= 1)
    eta = xp.where(full | ~moves, 0.0, eta)
    # (1 - eta^2) + eta^2 q^2, not 1 - eta^2 lost: exact at eta = 1, for any h
    left = (1 - eta**2) + eta**2 * xp.exp(-2 * h)
    share = xp.where(full, 0.0, xp.sqrt(xp.where(full, 1.0, left)))
    return share, xp.where(full, 1.0, eta * xp.sqrt(lost)), full


def _level(process: Process, lv: Levels, lam: Array) -> plan.Level:
    """Levels at half log-SNR `lam` inside the steps; eta > 1 may reach beyond them."""
    xp = namespace(lam)
    time = process.half_log_snr_inverse(lam)
    time = xp.clip(time, process.domain[0], lv.time[:-1])
    return plan.Level(time, process.alpha(time), process.sigma(time))


def _refuse_pure_noise(level: plan.Level, tau2: Array) -> None:
    if not (isinstance(level.alpha, np.ndarray) and isinstance(tau2, np.ndarray)):
        return
    bad = (level.alpha == 0) & (tau2 > 0)
    if bad.any():
        at = int(np.argwhere(bad)[0][0])
        raise ValueError(
            "euler_maruyama needs alpha > 0 where it adds noise: the drift is infinite "
            f"at ts[{at}]={np.asarray(level.time)[at]}. Start the grid below it, e.g. "
            "start=0.999, or give tau2=0 for that step."
        )


def _dpm2_rows(
    process: Process, lv: Levels, share: Array, single: np.ndarray
) -> tuple[plan.Plan, np.ndarray, np.ndarray]:
    """The deterministic part to rho_down; the step of each row, and where one ends."""
    count = 2 - single
    step = np.repeat(np.arange(lv.steps), count)
    second = np.arange(len(step)) - np.repeat(np.cumsum(count) - count, count) == 1
    closes = second | single[step]

    xp = namespace(lv.lam, share)
    start, down = lv.rho[:-1], share * lv.rho[1:]

    def only(mask: np.ndarray, yes: Array, no: Array) -> Array:
        return xp.where(mask.reshape((-1,) + (1,) * (down.ndim - 1)), yes, no)

    inner = only(single, start, down)  # not used in single rows: any finite level
    middle = _level(process, lv, -xp.log(xp.sqrt(start * inner)))
    own = plan.take(lv, slice(None, -1))
    level = plan.Level(
        *(only(second, m[step], w[step]) for m, w in zip(middle, own, strict=True))
    )
    jump, reach = lv.alpha[1:] * (down - start), middle.sigma - middle.alpha * start
    newest = only(closes, jump[step], reach[step])
    made = plan.runge_kutta(
        level,
        plan.take(lv, -1),
        convert=plan.basis(level, "noise"),
        keep=only(closes, lv.alpha[1:][step], middle.alpha[step]) / own.alpha[step],
        weights=xp.stack([newest, xp.zeros_like(newest)], axis=1),
        closes=closes,
    )
    return made, step, closes
