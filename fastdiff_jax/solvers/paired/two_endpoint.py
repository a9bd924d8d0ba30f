"""Paths between two endpoints: x = alpha x_0 + beta y + sigma eps, y known.

    x_t = r x_s + (alpha_t - r alpha_s) D + (beta_t - r beta_s) y + c z
    c^2 = eta^2 sigma_t^2 (1 - q^2),  r = sqrt(sigma_t^2 - c^2) / sigma_s,
    q = g sigma_t / sigma_s,  g the gain of the forward chain from t to s

Order 1, 1 call per step. For exact D the marginals are exact at any eta: 0 is the ODE
(DDIM), 1 the posterior of the forward chain. g = alpha_s / alpha_t for a chain that
scales (mean-reverting, OUVE, the bridge given y), 1 for one that adds increments
(ResShift 2307.12348, RDDM 2308.13712), a_s / a_t for Resfusion (2311.14900).
"""

import math
from typing import Any

import numpy as np

from ... import plan
from ...numerics import Levels, levels, namespace
from ...typing import Array, ArrayLike, Process
from .._noise import amount, ancestral_split
from ..registry import solver

__all__ = ["two_endpoint"]

_CHAINS = ("markov", "increments")


@solver(
    order=1,
    stochastic=("eta",),
    paper="Yue 2023, 2307.12348",
    needs="a process of two endpoints, and a denoiser of (data, degraded)",
)
def two_endpoint(
    process: Process,
    ts: ArrayLike,
    *,
    eta: ArrayLike = 0.0,
    chain: str | None = None,
    endpoint: bool = True,
    first_noise: bool = True,
) -> plan.Plan:
    """First-order step between two endpoints, deterministic or not.

    x_t = r x_s + (alpha_t - r alpha_s) D + (beta_t - r beta_s) y + c z

    The denoiser must return y as well, the pair (data, degraded) of
    `restore.with_endpoint(denoiser, y)`, so that the table stays numbers.

    Args:
        process: a path with `beta(t)`, the weight of y.
        ts: times, non-increasing, shape (N + 1,).
        eta: 0 = ODE, 1 = the forward chain's posterior; scalar or one per step, shape
            (N,), in [0, 1].
        chain: the gain g: 'markov' (alpha_s / alpha_t), 'increments' (1), or None for
            the process' own (its `gain`, else 'markov').
        endpoint: False gives the table for x - k y, k the process' centre, with the
            single prediction D - k y: for `restore.sample`.
        first_noise: where the path starts pinned to y (sigma_s = 0), its first step
            is x_t = alpha_t D + beta_t y + sigma_t z at any eta. False leaves z out, as
            published ODE samplers of bridges do; the marginals are then too narrow.

    Returns:
        A plan of N rows that integrates two predictions (one if not `endpoint`).

    Raises:
        ValueError: a process without `beta` or centre, an unknown chain, eta outside
            [0, 1], or a gain above sigma_s / sigma_t.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.sb_ve()
        >>> plan = two_endpoint(process, fd.grids.uniform(process, 50, end=0.0))
        >>> plan.nfe, plan.predictions
        (50, 2)

    Reference: Yue et al. 2023 (2307.12348), eq 6; Jukic et al. 2024 (2407.16074).
    """
    beta_of = getattr(process, "beta", None)
    if beta_of is None:
        raise ValueError(
            f"process must have two endpoints, with beta(t) the weight of y; got "
            f"{type(process).__name__}. Use e.g. processes.resshift(), or ddim for a "
            "path without one."
        )
    if not endpoint and getattr(process, "centre", None) is None:
        raise ValueError(
            f"endpoint=False needs a process with a centre; {type(process).__name__} "
            "has none. Leave endpoint=True and use restore.with_endpoint."
        )
    lv = levels(process, ts)
    eta = amount(lv, eta, "eta", most=1)
    keep, noise = _keep_and_noise(process, lv, eta, chain, first_noise)
    weights = [(lv.alpha[1:] - keep * lv.alpha[:-1])[..., None]]
    if endpoint:
        beta = beta_of(lv.time)
        weights.append((beta[1:] - keep * beta[:-1])[..., None])
    return plan.multistep(
        lv,
        keep=keep,
        weights=tuple(weights),
        noise=noise,
        reads=("data", "degraded")[: len(weights)],
    )


def _gain(process: Any, lv: Levels, chain: str | None) -> Array:
    """Weight of x_t in x_s along the forward chain, (N, ...)."""
    own = getattr(process, "gain", None)
    if chain is None and own is not None:
        return own(lv.time[:-1], lv.time[1:])
    if chain not in (None, *_CHAINS):
        raise ValueError(f"chain must be None or one of {_CHAINS}, got {chain!r}.")
    xp = namespace(lv.alpha)
    if chain == "increments":
        return xp.ones_like(lv.alpha[1:])
    low = xp.where(lv.alpha[1:] == 0, 1.0, lv.alpha[1:])
    return xp.where(lv.alpha[1:] == 0, 1.0, lv.alpha[:-1] / low)


def _keep_and_noise(
    process: Any, lv: Levels, eta: Array, chain: str | None, first_noise: bool
) -> tuple[Array, Array | None]:
    """(r, c): weight of the state and standard deviation of the noise, (N, ...)."""
    xp = namespace(lv.alpha, eta)
    start, end = lv.sigma[:-1], lv.sigma[1:]
    still = lv.time[:-1] == lv.time[1:]  # a step of length zero: the identity
    pinned = (start == 0) & ~still
    ratio = xp.where(still, 1.0, end / xp.where(start == 0, 1.0, start))
    ratio = xp.where(pinned, 0.0, ratio)
    q = xp.where(still, 1.0, _gain(process, lv, chain) * ratio)
    q = xp.where(pinned, 0.0, q)
    if isinstance(q, np.ndarray) and isinstance(eta, np.ndarray):
        _check(q, eta, lv)
    eta = xp.where(still | pinned, 0.0, eta)
    inner = xp.where(q < 1, q, 1.0)
    h = xp.where(q > 0, -xp.log(xp.where(q > 0, inner, 1.0)), math.inf)
    share, lost = ancestral_split(h, eta)
    keep = ratio * xp.where(q < 1, share, xp.sqrt((1 - eta**2) + eta**2 * q**2))
    noise = end * (xp.where(pinned, float(first_noise), 0.0) + lost)
    if isinstance(noise, np.ndarray) and not noise.any():
        return keep, None
    return keep, noise


def _check(q: np.ndarray, eta: np.ndarray, lv: Levels) -> None:
    """A chain whose posterior variance is negative does not exist."""
    bad = (q > 1 + 1e-9) & (np.broadcast_to(eta, q.shape) > 0)
    if bad.any():
        at = int(np.argwhere(bad)[0][0])
        raise ValueError(
            "chain gives a posterior of negative variance: its gain times "
            f"sigma_t / sigma_s is {q[bad].ravel()[0]:.4g} > 1 at "
            f"ts[{at}]={lv.time[at]}. Use chain='markov', or eta=0."
        )
