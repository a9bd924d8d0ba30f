"""What a plan does to model error, and how much guidance it bears."""

from typing import NamedTuple

import numpy as np

from .. import plan as plans
from ..guards import checked, must, within
from ..typing import ArrayLike, Finite
from .response import (
    numeric,
    posterior_slope,
    respond,
    scalar,
    start_level,
)

__all__ = ["Amplification", "amplification", "guidance_growth", "guidance_limit"]

_COARSE, _FINE, _ROUNDS = 65, 33, 5  # the last bracket is 2e-8 of the first


class Amplification(NamedTuple):
    """Gain from an error of the prediction to the sample.

    Attributes:
        gain: of a unit error at each row, (rows, event).
        total: standard deviation of the sample under independent errors, (event).
    """

    gain: np.ndarray
    total: np.ndarray


@checked
def amplification(
    plan: plans.Plan, variance: ArrayLike = 0.0, size: ArrayLike = 1.0
) -> Amplification:
    """How much an error of the model's data prediction at each row moves the sample.

    D_i = m + k_i (x - alpha_i m) + e_i; gain_i = d sample / d e_i and, for independent
    e_i of standard deviation size_i, total = sqrt(sum_i (gain_i size_i)^2).

    Args:
        plan: any plan; one of several predictions has the same error on all of them.
        variance: of the data, (event): how later rows react to the error. 0: not at
            all, the gains are the rows' net weights on the sample.
        size: of the error at each row, a number or (rows,).

    Returns:
        Gains and total.

    Raises:
        ValueError: sizes that are not one per row.

    Example:
        >>> import fastdiff_jax as fd
        >>> flow = fd.processes.flow()
        >>> plan = fd.solvers.ddim(flow, [1.0, 0.5, 0.0])
        >>> amplification(plan).gain[:, 0].tolist()
        [0.0, 1.0]
    """
    plan = numeric(plan)
    within("[0, inf)", size=size)
    size = np.asarray(size, np.float64)
    if size.shape not in ((), (plan.length,)):
        raise ValueError(
            f"size must be a number or one per row, ({plan.length},), got shape "
            f"{size.shape}."
        )
    gain = respond(plan, variance, noise=False, error=True).error
    scaled = gain * size.reshape((-1,) + (1,) * (gain.ndim - 1))
    return Amplification(gain, np.sqrt((scaled**2).sum(0)))


def _slopes(
    plan: plans.Plan,
    variance: float,
    conditional: float,
    slopes: tuple[ArrayLike, ArrayLike] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """k_u and k_c per row."""
    alpha, sigma = plan.rows.level.alpha, plan.rows.level.sigma
    if slopes is not None:
        base, end = (np.asarray(k, np.float64) for k in slopes)
        for k in (base, end):
            if k.shape not in ((), (1,), alpha.shape):
                raise must("slopes", f"numbers, or one per row {alpha.shape}", slopes)
        return np.broadcast_to(base, alpha.shape), np.broadcast_to(end, alpha.shape)
    unconditional = posterior_slope(alpha, sigma, variance)
    return unconditional, posterior_slope(alpha, sigma, conditional)


@checked
def guidance_growth(
    plan: plans.Plan,
    scale: Finite,
    *,
    variance: float = 1.0,
    conditional: float = 0.0,
    slopes: tuple[ArrayLike, ArrayLike] | None = None,
) -> np.ndarray:
    """Largest growth of a difference between two starts under linear guidance.

    D = (k_u + g (k_c - k_u)) x, with k the slope of the exact denoiser of data of the
    unconditional variance v_u and the conditional one v_c. With x_i the point after
    row i from x_T = 1 and n_i^2 = alpha_i^2 v_u + sigma_i^2,

        growth(g) = max_i (|x_i| n_T / n_i) / max(1, |y_i| n_T / n_i)

    where y is the exact solution, y_i = (n_i / n_T)^{1-g} (c_i / c_T)^g, and c is n for
    v_c. An exact run has growth <= 1 at every g.

    Args:
        plan: a plan of scalar weights.
        scale: guidance scales g, any shape.
        variance: v_u > 0.
        conditional: v_c >= 0; 0 is a condition that leaves one sample.
        slopes: k_u and k_c themselves, each a number or (rows,); then max(1, y) is 1.
            (0, k) is D = g k x.

    Returns:
        Growth, same shape as `scale`.

    Raises:
        ValueError: variances out of range, or weights that are not scalar.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> plan = fd.solvers.ddim(process, fd.grids.log_snr(process, 10))
        >>> found = guidance_growth(plan, [0.0, 1.0, 8.0])
        >>> bool(found[1] <= 1.0), bool(found[2] > 2.0)
        (True, True)
    """
    if not (variance > 0 and conditional >= 0):
        raise ValueError(
            f"need variance > 0 and conditional >= 0, got {variance} and {conditional}."
        )
    plan = scalar(plan, "guidance_growth")
    g = np.asarray(scale, np.float64)
    base, end = _slopes(plan, variance, conditional, slopes)
    states = plans.walk(
        plan, lambda x, i: (base[i] + g * (end[i] - base[i])) * x, np.ones_like(g)
    )
    next(states)
    alphas = np.append(plan.rows.level.alpha[1:], plan.end.alpha)
    sigmas = np.append(plan.rows.level.sigma[1:], plan.end.sigma)
    first = start_level(plan)
    worst = np.zeros_like(g)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for state, alpha, sigma in zip(states, alphas, sigmas, strict=True):
            log_u, log_c = (
                np.log(_spread(alpha, sigma, v) / _spread(*first, v))
                for v in (variance, conditional)
            )
            # log of |y_i| n_T / n_i; 0 inf at g = 0 means no guidance
            exact = 0.0 if slopes is not None else np.nan_to_num(g * (log_c - log_u))
            found = np.abs(state.registers[0]) * np.exp(-log_u - np.maximum(exact, 0.0))
            worst = np.fmax(worst, np.where(np.isnan(found), np.inf, found))
    return worst


def _spread(alpha: ArrayLike, sigma: ArrayLike, variance: float) -> np.ndarray:
    """Standard deviation of the path's marginal for data of a variance."""
    return np.sqrt(np.square(alpha) * variance + np.square(sigma))


@checked
def guidance_limit(
    plan: plans.Plan,
    *,
    variance: float = 1.0,
    conditional: float = 0.0,
    slopes: tuple[ArrayLike, ArrayLike] | None = None,
    bound: float = 2.0,
    upper: float = 1e3,
) -> float:
    """The largest guidance scale at which a plan stays bounded on the linear test.

    The g with growth(g') <= bound for all 0 <= g' <= g, growth as in
    `guidance_growth`: with D = (k_u + g (k_c - k_u)) x and a sharp condition the slope
    turns negative, and a step whose multiplier falls below -1 amplifies. Found on a
    grid of g, then by repeated section of the first bracket that fails.

    Args:
        plan: a plan of scalar weights.
        variance: v_u > 0 of the unconditional data.
        conditional: v_c >= 0 of the conditional data.
        slopes: k_u and k_c themselves instead; (0, k) tests D = g k x.
        bound: growth that still counts as bounded, > 1.
        upper: the largest g looked at, > 1.

    Returns:
        The limit; infinity if it is above `upper`, 0 if even g = 0 is unbounded.

    Raises:
        ValueError: a bound or upper end that is not above 1, or as `guidance_growth`.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> limit = lambda n: guidance_limit(
        ...     fd.solvers.ddim(process, fd.grids.log_snr(process, n)))
        >>> limit(10) < limit(20)
        True
    """
    if not (bound > 1 and upper > 1):
        raise ValueError(f"need bound > 1 and upper > 1, got {bound} and {upper}.")

    def failed(g: np.ndarray) -> np.ndarray:
        return ~(
            guidance_growth(
                plan, g, variance=variance, conditional=conditional, slopes=slopes
            )
            <= bound
        )

    g = np.append(np.linspace(0, 1, 9), np.geomspace(1, upper, _COARSE)[1:])
    bad = failed(g)
    if not bad.any():
        return float(np.inf)
    at = int(np.argmax(bad))
    if at == 0:
        return 0.0
    for _ in range(_ROUNDS):
        g = np.linspace(g[at - 1], g[at], _FINE)
        at = max(1, int(np.argmax(failed(g))))
    return float(g[at - 1])
