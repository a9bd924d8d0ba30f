"""Singlestep DPM-Solver with ancestral noise: every step stops early and adds noise.

With rho = sigma / alpha, a step from s to t walks without noise to rho_down and ends at
alpha_t (x / alpha + rho_up z), rho_up^2 = rho_t^2 - rho_down^2, where ideally
rho_up = eta rho_t sqrt(1 - rho_t^2 / rho_s^2). rho_down is not let below the grid's end
(k-diffusion's `sample_dpm_fast`), so the last steps may draw less, or nothing.
"""

import dataclasses

import numpy as np

from .. import plan
from ..numerics import Levels, namespace
from ..typing import Array, Process
from ._singlestep import assemble, finite_orders, inner_stages
from ._stochastic import root

__all__ = ["with_ancestral_noise"]


def with_ancestral_noise(
    process: Process,
    outer: Levels,
    orders: np.ndarray,
    options: tuple,
    eta: float,
    noise_scale: float,
) -> plan.Plan:
    """The plan of steps of the given orders; options are those of `assemble`."""
    inner, variant, prediction, compat = options
    lower, up = _stops(process, outer, eta)
    xp = namespace(outer.lam)

    def woven(start: Array, stop: Array) -> Array:
        return xp.stack([start[:-1], stop], axis=1).reshape((-1, *start.shape[1:]))

    both = Levels(*(woven(a, b) for a, b in zip(outer, lower, strict=True)))

    orders = finite_orders(orders, both, 2)

    def place(steps: np.ndarray, count: int) -> tuple[list, list]:
        parts = tuple((j + 1) / count for j in range(count - 1))
        return inner_stages(process, both, steps, parts, inner)

    made = assemble(
        process, both, orders, place, variant, prediction, compat, False, stride=2
    )
    closes = np.zeros(made.length, bool)
    closes[np.cumsum(orders) - 1] = True
    return _noisy(made, closes, outer, lower, noise_scale * up)


def _stops(process: Process, outer: Levels, eta: float) -> tuple[Levels, Array]:
    """Where each step stops, (N, ...), and the noise it adds, in units of sigma."""
    xp, rho = namespace(outer.lam), outer.rho
    ratio = xp.where(rho[:-1] == 0, 0.0, rho[1:] / xp.where(rho[:-1] == 0, 1, rho[:-1]))
    down = rho[1:] * root((1 - eta**2) + (eta * ratio) ** 2)
    down = xp.maximum(down, rho[-1])
    with np.errstate(divide="ignore"):
        lam = -xp.log(down)
    end = rho[1:] == down  # nothing to add: the step's end as it is, unrounded
    time = process.half_log_snr_inverse(lam)
    time = xp.where(end, outer.time[1:], xp.minimum(time, outer.time[:-1]))
    at = (time, process.alpha(time), process.sigma(time))
    stop = [xp.where(end, b[1:], a) for a, b in zip(at, outer[:3], strict=True)]
    up = outer.alpha[1:] * root(xp.where(end, 0.0, rho[1:] ** 2 - down**2))
    return Levels(*stop, xp.where(end, outer.lam[1:], lam)), up


def _noisy(
    made: plan.Plan, closes: np.ndarray, outer: Levels, stop: Levels, noise: Array
) -> plan.Plan:
    """The plan whose closing rows go on from each stop to the step's end."""
    rows, xp = made.rows, namespace(noise, made.rows.advance.anchor)
    step = np.cumsum(closes) - closes
    shape = (-1,) + (1,) * (np.ndim(noise) - 1)
    grow = xp.where(closes.reshape(shape), (outer.alpha[1:] / stop.alpha)[step], 1.0)
    fresh = xp.where(closes.reshape(shape), noise[step], 0.0)
    advance = rows.advance._replace(
        anchor=grow * rows.advance.anchor,
        evaluation=grow[:, None] * rows.advance.evaluation,
        history=grow[:, None] * rows.advance.history,
        noise=fresh,
    )
    rows = rows._replace(advance=advance)
    return dataclasses.replace(made, rows=rows, end=plan.take(outer, -1))
