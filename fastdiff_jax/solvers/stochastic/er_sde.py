"""ER-SDE: a reverse SDE whose noise is set by a function phi of sigma / alpha.

With y = x / alpha, rho = sigma / alpha, g = phi / rho, q = g_t / g_s and the Lagrange
basis l_k in rho on past evaluations, the exact step is

    y_t = q (rho_t/rho_s) y_s + Σ_k D_k phi_t int_{rho_t}^{rho_s} (phi'/phi²) l_k du
          + rho_t sqrt(1 - q²) z

phi = rho is the ODE, phi = rho^2 the reverse SDE of Anderson: the noise rate tau^2 of
SA-Solver is dlog g / dlog rho. Cui et al. 2023 (2309.06169), eqs 11 to 15.
"""

from collections.abc import Callable

import numpy as np

from ... import plan
from ...numerics import (
    Levels,
    along_last,
    gather_columns,
    history_nodes,
    levels,
    namespace,
    step_orders,
)
from ...typing import Array, ArrayLike, Process
from .._noise import sqrt_safe
from .._starting import Start, begin
from ..registry import solver

__all__ = ["er_sde"]

Phi = Callable[[Array], Array]
_NODES = 64  # of the integrals of 1 / g in log rho: 1e-14 on a step of length 8
_ROUNDING = 1e-14  # of 1 - q^2: phi = 3 rho draws no noise


@solver(
    order=lambda p: p,
    orders=(1, 2, 3),
    stochastic=("eta",),
    paper="Cui 2023, 2309.06169",
)
def er_sde(
    process: Process,
    ts: ArrayLike,
    *,
    order: int = 3,
    phi: Phi | int = 7,
    eta: float = 1.0,
    compat: bool = False,
    start: Start = "published",
) -> plan.Plan:
    """Extended reverse-time SDE, orders 1 to 3. 1 call per step.

    y_t = (phi_t/phi_s) y_s + M_0 D + M_1 D' + M_2 D''/2 + sqrt(rho_t² - q² rho_s²) z,
    y = x / alpha, derivatives in rho = sigma / alpha from past evaluations, and
    M_k = phi_t int_{rho_t}^{rho_s} (phi'/phi²) (u - rho_s)^k du by quadrature.

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,). A step into sigma = 0 is of first
            order: x = D.
        order: number of evaluations p, 1 to 3.
        phi: function of rho = sigma / alpha, increasing, phi(rho) / rho not
            decreasing, or a published one by its number: 1 rho (the ODE), 2 rho^2,
            4 rho^1.5, 5 rho^2.5, 6 rho^0.9 log10(1 + 100 rho^1.5),
            7 rho (e^(rho^0.3) + 10), the paper's choice.
        eta: factor on the noise rate, >= 0: phi becomes rho (phi / rho)^eta. 1 is the
            method, 0 the ODE whatever phi.
        compat: the published order 3, whose first derivative is a backward difference:
            it converges at order 2.
        start: 'published' warms up with orders 1, 2, ...; 'graded' cuts the first step
            into N^(1 - 2/p) growing parts, one call each, and so keeps the
            order on every grid.

    Returns:
        A plan of N rows.

    Raises:
        ValueError: an order outside 1..3, an unknown phi, one that is not positive or
            whose phi / rho decreases on the grid, or a negative eta.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.edm()
        >>> fd.solvers.er_sde(process, fd.grids.edm(process, 18)).registers
        3

    Reference: Cui et al. 2023 (2309.06169), algorithms 1 and 2; phi by number: its
    official code.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"er_sde needs order 1, 2 or 3, got {order}.")
    if isinstance(eta, float | int) and not eta >= 0:
        raise ValueError(f"eta must be >= 0 (0 = ODE, 1 = the method), got {eta}.")
    lv, _ = begin(process, levels(process, ts), start, order)
    gain = _gain(phi, lv, eta)
    xp = namespace(lv.lam)
    g = gain(lv.rho)
    still = (lv.alpha[1:] == lv.alpha[:-1]) & (lv.sigma[1:] == lv.sigma[:-1])
    ratio = xp.where(still, 1.0, g[1:] / xp.where(still, 1.0, g[:-1]))
    keep = ratio * lv.sigma[1:] / xp.where(lv.sigma[:-1] == 0, 1.0, lv.sigma[:-1])
    keep = xp.where(still, 1.0, keep)
    orders = step_orders(lv, order)
    weights = gather_columns(
        orders, lambda rows, p: _weights(lv, gain, keep, rows, p, compat)
    )
    share = 1 - ratio**2
    noise = lv.sigma[1:] * sqrt_safe(xp.where(share > _ROUNDING, share, 0.0))
    silent = isinstance(noise, np.ndarray) and not noise.any()
    return plan.multistep(
        lv,
        basis="data",
        keep=keep,
        weights=weights,
        noise=None if silent else noise,
    )


def _type_6(rho: Array) -> Array:
    xp = namespace(rho)
    return rho**0.9 * xp.log10(1 + 100 * rho**1.5)


def _type_7(rho: Array) -> Array:
    xp = namespace(rho)
    return rho * (xp.exp(rho**0.3) + 10)


_PUBLISHED: dict[int, Phi] = {
    1: lambda rho: rho,
    2: lambda rho: rho**2,
    4: lambda rho: rho**1.5,
    5: lambda rho: rho**2.5,
    6: _type_6,
    7: _type_7,
}


def _gain(phi: Phi | int, lv: Levels, eta: float) -> Phi:
    """The gain (phi / rho)^eta as a function of rho, checked on the grid."""
    if not callable(phi):
        if phi not in _PUBLISHED:
            raise ValueError(
                f"phi must be a function or one of {sorted(_PUBLISHED)}, got {phi!r}. "
                "Type 3 has a parameter: write it as a function."
            )
        phi = _PUBLISHED[phi]

    def gain(rho: Array) -> Array:
        xp = namespace(rho)
        tiny = np.finfo(rho.dtype).tiny ** 0.5  # for the limits at rho = 0, infinity
        safe = xp.clip(rho, tiny, 1 / tiny)
        with np.errstate(over="ignore", under="ignore"):
            return (phi(safe) / safe) ** eta

    if isinstance(lv.alpha, np.ndarray):
        _check(gain(lv.rho), lv)
    return gain


def _check(g: Array, lv: Levels) -> None:
    inside = (lv.sigma > 0) & (lv.alpha > 0)
    if not ((g > 0) & np.isfinite(g) | ~inside).all():
        at = tuple(int(i) for i in np.argwhere(~((g > 0) & np.isfinite(g)) & inside)[0])
        raise ValueError(
            "phi must be positive and finite on the grid; it is not at sigma / alpha = "
            f"{lv.rho[at]:g}. Use e.g. phi=lambda rho: rho**2, and eta of order 1."
        )
    rising = g[1:] > g[:-1] * (1 + 1e-12)
    if rising.any():
        at = tuple(int(i) for i in np.argwhere(rising)[0])
        raise ValueError(
            "phi(rho) / rho must not decrease in rho = sigma / alpha: the noise would "
            f"have negative variance in step {at[0]}, from rho = {lv.rho[at]:g} to "
            f"{lv.rho[1:][at]:g}. Use a steeper phi, or start the grid lower."
        )


def _weights(
    lv: Levels, gain: Phi, keep: Array, rows: np.ndarray, count: int, compat: bool
) -> Array:
    """Weights of the evaluations, newest first, (S, ..., count)."""
    xp = namespace(lv.lam)
    alpha = lv.alpha[rows + 1]
    total = alpha - keep[rows] * lv.alpha[rows]
    if count == 1:
        return total[..., None]
    first, second = _moments(lv, gain, rows)
    nodes = history_nodes(lv.rho, rows, count)
    one = nodes[..., 1]
    parts = [alpha * first / one]
    if count == 3:
        two = nodes[..., 2]
        # the slope at rho_s is the backward difference less one times the curvature
        bent = alpha * (second - (0.0 if compat else one * first))
        parts = [parts[0] + bent / (one * (one - two)), bent / (two * (two - one))]
    return xp.stack([total - sum(parts[1:], parts[0]), *parts], axis=-1)


def _moments(lv: Levels, gain: Phi, rows: np.ndarray) -> tuple[Array, Array]:
    """M_1 and M_2 of the steps: by parts, so that phi' is not needed.

    M_k = k phi_t int (u - rho_s)^{k-1} / phi du - (-1)^{k+1} (rho_s - rho_t)^k
    """
    xp = namespace(lv.lam)
    s, t, h = lv.rho[rows], lv.rho[rows + 1], lv.h[rows]
    points, mass = np.polynomial.legendre.leggauss(_NODES)
    log = h[..., None] * along_last((points + 1) / 2, h)  # log(u / rho_t)
    u = t[..., None] * xp.exp(log)
    # phi_t / phi(u) du = rho_t g_t / g(u) dlog u
    density = (t * h * gain(t))[..., None] * along_last(mass / 2, h) / gain(u)
    gap = t - s
    first = gap + density.sum(axis=-1)
    second = gap**2 + 2 * (density * (u - s[..., None])).sum(axis=-1)
    return first, second
