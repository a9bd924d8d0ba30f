"""Singlestep DPM-Solver with ancestral noise: every step stops early and adds noise.

With rho = sigma / alpha, a step from s to t walks without noise to rho_down and ends at
alpha_t (x / alpha + rho_up z), rho_up^2 = rho_t^2 - rho_down^2, where ideally
rho_up = eta rho_t sqrt(1 - rho_t^2 / rho_s^2). rho_down is not let below the grid's end
(k-diffusion's `sample_dpm_fast`), so the last steps may draw less, or nothing.
"""

import numpy as np

from ... import plan
from ...numerics import Levels, namespace
from ...typing import Array, Process
from .._noise import ancestral_split, sqrt_safe
from ._singlestep import Inner, even, finite_orders, inner_stages, legs_of

__all__ = ["with_ancestral_noise"]


def with_ancestral_noise(
    process: Process,
    outer: Levels,
    orders: np.ndarray,
    options: tuple[str, str, bool],
    inner: Inner,
    noise: tuple[float, Array],
) -> plan.Plan:
    """The plan of steps of the given orders; noise is eta and the factor on it."""
    eta, s_noise = noise
    stop, up = _stops(process, outer, eta)
    steps = np.arange(outer.steps)
    xp = namespace(outer.lam)
    # each step beside the level where it stops: s_0, stop_0, s_1, stop_1, ...
    both = Levels(
        *(
            xp.stack([a[:-1], b], axis=1).reshape((-1, *a.shape[1:]))
            for a, b in zip(outer, stop, strict=True)
        )
    )
    orders = finite_orders(np.repeat(orders, 2)[:-1], both)[::2]

    def place(at: np.ndarray, count: int) -> tuple[list, list]:
        return inner_stages(process, both, at, even(count), inner)

    groups = []
    for order in np.unique(orders):
        mine = steps[orders == order]
        legs = legs_of(process, both, 2 * mine, place, int(order), options)
        grow = outer.alpha[1:][mine] / stop.alpha[mine]
        last = legs[-1]
        legs[-1] = last._replace(
            keep=grow * last.keep,
            weights=tuple(grow * w for w in last.weights),
            noise=(s_noise * up)[mine],
        )
        groups.append((mine, legs))
    return plan.stages(groups, outer.end, basis=options[0])


def _stops(process: Process, outer: Levels, eta: float) -> tuple[Levels, Array]:
    """Where each step stops, (N, ...), and the noise it adds, in units of sigma."""
    xp, rho = namespace(outer.lam), outer.rho
    share, _ = ancestral_split(outer.h, xp.full_like(outer.h, eta))
    down = xp.maximum(rho[1:] * share, rho[-1])
    with np.errstate(divide="ignore"):
        lam = -xp.log(down)
    end = rho[1:] == down  # nothing to add: the step's end as it is, unrounded
    time = process.half_log_snr_inverse(lam)
    time = xp.where(end, outer.time[1:], xp.minimum(time, outer.time[:-1]))
    at = (time, process.alpha(time), process.sigma(time))
    stop = [xp.where(end, b[1:], a) for a, b in zip(at, outer[:3], strict=True)]
    up = outer.alpha[1:] * sqrt_safe(xp.where(end, 0.0, rho[1:] ** 2 - down**2))
    return Levels(*stop, lam=xp.where(end, outer.lam[1:], lam)), up
