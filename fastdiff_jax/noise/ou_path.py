"""Noise that belongs to the path and not to the grid: an Ornstein-Uhlenbeck tree.

The noise a reverse SDE adds from s to t, over sigma_t, is U(t) - e^{-T} U(s) with T the
integral of tau^2 over half log-SNR and U a stationary process of unit variance and
covariance e^{-|T(a) - T(b)|}. U lives on a dyadic tree over a fixed interval: its ends
first, then midpoints, each drawn given its two neighbours l, r,

    mean = [rho_1 (1 - rho_2^2) U_l + rho_2 (1 - rho_1^2) U_r] / (1 - rho_1^2 rho_2^2),
    variance = (1 - rho_1^2)(1 - rho_2^2) / (1 - rho_1^2 rho_2^2),

with rho_1, rho_2 the correlations to either side. Every node has a number and a key of
its own, so two grids see one path, and increments compose exactly. Grid times are known
on the host: all weights are float64 numbers, and a row only draws its nodes' normals.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..guards import checked, must, within
from ..plan import Plan, replay, slice_rows
from ..trees import pytree
from ..typing import ArrayLike, Key, PyTree
from ._ou_tree import Clock, rows_of
from .streams import PATH, keys_of, normal

__all__ = ["OUPath", "ou_path"]


@pytree
class OUPath:
    """A noise source for one plan: pass it as `noise` to `fd.sample`.

    Attributes:
        key: a key, or one per sample.
        nodes: numbers of the tree's nodes that each row reads, (R, K) uint32.
        weights: of their normals in the row's z, (R, K).
        alpha, sigma: the plan's levels, (R,), to refuse another plan.
    """

    key: Key
    nodes: Any
    weights: Any
    alpha: Any
    sigma: Any

    def __call__(self, row: Any, like: PyTree) -> PyTree:
        """The row's z: the increment of the path over its interval, unit variance."""
        fold = partial(jax.random.fold_in, data=PATH)
        key = fold(self.key) if self.key.ndim == 0 else jax.vmap(fold)(self.key)
        keys = keys_of(key, like)
        nodes = jnp.asarray(self.nodes)[row]
        weights = jnp.asarray(self.weights)[row]

        def add(k: Any, total: PyTree) -> PyTree:
            xi = normal(keys, nodes[k], like)
            return jax.tree.map(
                lambda t, v: t + weights[k].astype(v.real.dtype) * v, total, xi
            )

        zero = jax.tree.map(jnp.zeros_like, like)
        return jax.lax.fori_loop(0, nodes.shape[0], add, zero)

    def check_plan(self, plan: Plan) -> None:
        """ValueError for a plan this path was not made for."""
        level = plan.rows.level
        if not all(isinstance(v, np.ndarray) for v in (level.alpha, self.alpha)):
            return
        if np.shape(level.alpha) != np.shape(self.alpha) or not (
            np.allclose(level.alpha, self.alpha, 1e-9)
            and np.allclose(level.sigma, self.sigma, 1e-9)
        ):
            raise ValueError(
                "noise must be the path of the plan that is run: this OUPath was made "
                f"for {len(self.alpha)} rows at other levels than this plan's "
                f"{plan.length}. Use noise.ou_path(plan, key)."
            )


@checked
def ou_path(
    plan: Plan,
    key: Key,
    *,
    tau2: ArrayLike = 1.0,
    depth: int = 12,
    span: float = 20.0,
    exact: bool = True,
) -> OUPath:
    """One noise path for any grid: the same at 10, 20 or 160 rows.

    z_row = [U(t) - e^{-T} U(s)] / sqrt(1 - e^{-2T}), T = int tau^2 d lambda over the
    row, from its evaluation's level to the next row's.

    Args:
        plan: any plan that draws the noise of a reverse SDE: the SDE solvers in their
            exponential form, DDIM with eta = 1, SEEDS, SA-Solver.
        key: a key, or one per sample of shape (B,). The path is a function of it.
        tau2: what the plan was built with: a scalar, or one per row, shape (R,). Grids
            share a path where tau2 is the same function of half log-SNR.
        depth: levels of the tree: paths agree down to 2 span / 2^depth of half log-SNR
            (0.01 by default), and a row draws about twice as many normals.
        span: the tree covers half log-SNR from -span to span.
        exact: check that the plan's noise is that of this tau2. False allows plans
            whose noise only tends to it (Euler-Maruyama, `s_noise`).

    Returns:
        A noise source: `fd.sample(plan, model, x, noise=path)`. Sample i is the same
        at any batch size, and a sliced plan continues its path.

    Raises:
        ValueError: a plan that draws none or with per-element levels, another noise
            than tau2's, a level outside the span, or rows closer than the tree tells
            apart.

    Example:
        >>> import jax, fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> plan = fd.solvers.sde_dpmpp_2m(process, fd.grids.log_snr(process, 10))
        >>> path = ou_path(plan, jax.random.key(0))
        >>> x = fd.prior(process, jax.random.key(1), (2, 3))
        >>> fd.sample(plan, fd.models.gaussian(0.0, 1.0), x, noise=path).shape
        (2, 3)
    """
    lam, rate = _intervals(plan, tau2)
    clock = Clock(lam, rate)
    nodes, weights = rows_of(lam, clock, depth, span)
    if exact:
        _check_noise(plan, clock, lam)
    level = plan.rows.level
    return OUPath(key, nodes, weights, np.asarray(level.alpha), np.asarray(level.sigma))


def _intervals(plan: Plan, tau2: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Half log-SNR of the rows' ends, (R + 1,), and tau^2 of each row, (R,)."""
    level = plan.rows.level
    if not plan.stochastic:
        raise ValueError(
            "plan must draw noise, this one is deterministic. Drop noise=."
        )
    if plan.start is not None and plan.start.noise is not None:
        raise ValueError(
            "plan must not draw noise before its first row, as churn does: that noise "
            "belongs to no interval. Use s_churn=0 or an SDE solver."
        )
    alpha = np.append(level.alpha, [plan.end.alpha], axis=0)
    sigma = np.append(level.sigma, [plan.end.sigma], axis=0)
    if alpha.ndim > 1:
        raise ValueError(
            f"plan must have one level per row, got levels of shape {alpha.shape}: "
            "per-element times have no path here. Draw with key=... instead."
        )
    with np.errstate(divide="ignore"):
        lam = np.log(alpha) - np.log(sigma)
    rate = np.asarray(tau2, np.float64)
    if rate.shape not in ((), (plan.length,)):
        raise must("tau2", f"one number, or one per row, ({plan.length},)", tau2)
    within("[0, inf)", tau2=tau2)
    back = np.flatnonzero(np.diff(lam) < 0)
    if back.size:
        raise ValueError(
            f"plan must go from noise to data; row {back[0] + 1} stands before row "
            f"{back[0]}. Its noise has no interval."
        )
    return lam, np.broadcast_to(rate, (plan.length,))


def _check_noise(plan: Plan, clock: Clock, lam: np.ndarray) -> None:
    """Raise ValueError unless a constant D leaves the noise of this clock.

    With D = 0 the sample is sum_i c_i z_i, and the path's own c_i is
    sigma_N e^{-T(i + 1 -> N)} sqrt(1 - e^{-2 T_i}).
    """
    if any(np.any(w[:, 0]) for w in jax.tree.leaves(plan.rows.basis)):
        return  # noise prediction: D = 0 is no eigenfunction of its extrapolation
    last = plan.length if np.isfinite(lam[-1]) else plan.length - 1
    if last == 0 or plan.predictions != 1:
        return
    got = replay(
        slice_rows(plan, 0, last),
        lambda x, _: 0.0 * x,
        np.zeros(last),
        np.eye(last),
    )
    with np.errstate(invalid="ignore"):
        at = np.where(np.isfinite(lam[: last + 1]), clock(lam[: last + 1]), -np.inf)
        gap = np.where(np.isinf(at[:-1]), np.inf, at[1:] - at[:-1])
    end = (
        plan.end
        if last == plan.length
        else jax.tree.map(lambda w: w[last], plan.rows.level)
    )
    want = end.sigma * np.exp(-(at[-1] - at[1:])) * np.sqrt(-np.expm1(-2 * gap))
    off = np.abs(got - want) > 1e-6 * end.sigma
    if off.any():
        i = int(np.flatnonzero(off)[0])
        raise ValueError(
            f"tau2 must be the plan's own: row {i} brings noise of weight "
            f"{got[i]:.6g} to the end, tau2's path {want[i]:.6g}. Pass the tau2 the "
            "plan was built with, or exact=False if its noise only tends to it."
        )
