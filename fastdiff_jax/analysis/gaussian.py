"""Gaussian data: the exact law of a plan's samples, without a network.

For data N(m, v) the denoiser is affine, D = m + alpha v / (alpha^2 v + sigma^2)
(x - alpha m), and so is the plan: the sample is Gaussian with known moments. A full
covariance is diagonalised first; each eigenvalue is a direction of its own.
"""

from typing import NamedTuple

import numpy as np

from .. import plan as plans
from ..guards import checked
from ..typing import ArrayLike, Finite
from .response import Response, numeric, respond, start_level

__all__ = ["Constant", "GaussianError", "constant", "gaussian_error", "transfer"]


class Constant(NamedTuple):
    """How far a plan is from integrating a constant prediction exactly.

    Attributes:
        mean: (gain on m) - alpha_N for x_T of mean alpha_T m: the sum of weights.
        spread: (standard deviation of the sample) - sigma_N for x_T of sigma_T.
    """

    mean: float
    spread: float


class GaussianError(NamedTuple):
    """The law of the samples beside the law they should have, per direction.

    Attributes:
        mean, variance: of the samples, (event).
        target_mean, target_variance: of the data, or of the path's last level.
        distance: 2-Wasserstein distance per direction, (event).
        w2: 2-Wasserstein distance of the joint laws.
        covariance: of the samples in the given coordinates, (d, d), where a full
            covariance was given; the means are then in these coordinates too, the
            variances and distances in its eigenvectors', eigenvalues ascending.
    """

    mean: np.ndarray
    variance: np.ndarray
    target_mean: np.ndarray
    target_variance: np.ndarray
    distance: np.ndarray
    w2: float
    covariance: np.ndarray | None = None


@checked
def transfer(plan: plans.Plan, variance: ArrayLike) -> Response:
    """The plan's linear transfer function on Gaussian data of the given variances.

    sample = state x_T + mean m + constant + sum_j noise_j z_j, exact in float64.

    Args:
        plan: any plan, deterministic or stochastic. One that integrates several
            predictions gets the data prediction for each of them.
        variance: per direction, (event), >= 0. Any number of directions.

    Returns:
        The gains, each with the variances' shape; noise (draws, event).

    Raises:
        ValueError: a negative variance, or matrix or tree weights.

    Example:
        >>> import fastdiff_jax as fd
        >>> flow = fd.processes.flow()
        >>> plan = fd.solvers.ddim(flow, fd.grids.uniform(flow, 50, end=0.0))
        >>> bool(abs(transfer(plan, 1.0).state[0] - 1.0) < 0.03)
        True
    """
    return respond(plan, variance)


@checked
def constant(plan: plans.Plan) -> Constant:
    """Sum-of-weights check: the plan on data that are one point (v = 0, D = m).

    The exact sample is alpha_N m + sigma_N eps whatever the solver, for a
    deterministic plan and for one that draws noise.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> plan = fd.solvers.ddim(process, fd.grids.log_snr(process, 8), eta=1.0)
        >>> max(map(abs, constant(plan))) < 1e-12
        True
    """
    plan = numeric(plan)
    found = respond(plan, _blank(plan))
    alpha, sigma = start_level(plan)
    mean = found.state * alpha + found.mean - plan.end.alpha
    std = np.sqrt((found.state * sigma) ** 2 + (found.noise**2).sum(0))
    spread = std - plan.end.sigma
    return Constant(_largest(mean), _largest(spread))


def _blank(plan: plans.Plan) -> np.ndarray:
    """Zero variance in the weights' own shape."""
    return np.zeros(np.broadcast_shapes(np.shape(plan.rows.registers)[3:], (1,)))


def _largest(values: np.ndarray) -> float:
    return float(values.ravel()[np.argmax(np.abs(values))])


@checked
def gaussian_error(
    plan: plans.Plan,
    mean: Finite = 0.0,
    variance: ArrayLike | None = None,
    *,
    covariance: ArrayLike | None = None,
    start: tuple[ArrayLike, ArrayLike] | None = None,
    exact_start: bool = False,
    target: str = "data",
) -> GaussianError:
    """Exact moments of a plan's samples on Gaussian data, and their W2 error.

    W2^2 = sum over directions of (difference of means)^2 + (of standard deviations)^2.

    Args:
        plan: any plan; scalar weights if `covariance` is given.
        mean: of the data, broadcastable to the variances.
        variance: diagonal of the data's covariance, (event); None and no covariance: 1.
        covariance: full, symmetric, (d, d).
        start: alpha and sigma of x_T; None: see `start_level`.
        exact_start: x_T is drawn from the path's marginal there, which leaves the
            discretisation error alone. False: from N(0, sigma_T^2), as `fd.prior`.
        target: 'data' for N(m, v), or 'level' for the path's marginal at the plan's
            end, which leaves out what an end above sigma = 0 costs.

    Returns:
        The samples' law, the target's, and their distance.

    Raises:
        ValueError: both or wrong covariances, an unknown target.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.edm()
        >>> plan = fd.solvers.edm_heun(process, fd.grids.edm(process, 18))
        >>> found = gaussian_error(plan, 1.0, [0.01, 0.25, 4.0])
        >>> found.w2 < 0.1
        True
    """
    if target not in ("data", "level"):
        raise ValueError(f"target must be 'data' or 'level', got {target!r}.")
    plan = numeric(plan)
    m, v, vectors = _data(plan, mean, variance, covariance)
    found = respond(plan, v)
    alpha, sigma = start_level(plan) if start is None else map(np.asarray, start)
    ones = np.ones_like(m) if vectors is None else vectors.T @ np.ones_like(m)
    m_start = alpha * m if exact_start else 0.0
    v_start = sigma**2 + (alpha**2 * v if exact_start else 0.0)
    out_mean = found.state * m_start + found.mean * m + found.constant * ones
    out_var = found.state**2 * v_start + (found.noise**2).sum(0)
    a, s = (plan.end.alpha, plan.end.sigma) if target == "level" else (1.0, 0.0)
    want_mean, want_var = a * m, a**2 * v + s**2
    distance = np.hypot(out_mean - want_mean, np.sqrt(out_var) - np.sqrt(want_var))
    w2 = float(np.sqrt((distance**2).sum()))
    full = None
    if vectors is not None:
        full = (vectors * out_var) @ vectors.T
        out_mean, want_mean = vectors @ out_mean, vectors @ want_mean
    return GaussianError(out_mean, out_var, want_mean, want_var, distance, w2, full)


def _data(
    plan: plans.Plan,
    mean: ArrayLike,
    variance: ArrayLike | None,
    covariance: ArrayLike | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Mean and variances per direction, and the directions if they are not the axes."""
    if covariance is None:
        v = np.asarray(1.0 if variance is None else variance, np.float64)
        m, v = np.broadcast_arrays(np.atleast_1d(np.asarray(mean, np.float64)), v)
        return m, v, None
    if variance is not None:
        raise ValueError("give either variance or covariance, not both.")
    full = np.asarray(covariance, np.float64)
    if full.ndim != 2 or full.shape[0] != full.shape[1]:
        raise ValueError(f"covariance must be (d, d), got shape {full.shape}.")
    if not np.allclose(full, full.T):
        raise ValueError("covariance must be symmetric. Use (c + c.T) / 2.")
    if np.ndim(plan.rows.registers) > 3:
        raise ValueError(
            "per-element weights act on the axes, not on a covariance's eigenvectors. "
            "Give variance=..., the diagonal."
        )
    values, vectors = np.linalg.eigh(full)
    if values.min() < -1e-10 * max(1.0, values.max()):
        raise ValueError(f"covariance has a negative eigenvalue, {values.min():.3g}.")
    m = np.broadcast_to(np.asarray(mean, np.float64), full.shape[:1])
    return vectors.T @ m, np.maximum(values, 0.0), vectors
