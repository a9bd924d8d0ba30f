"""Sampling as a policy: log-probabilities of the steps of a stochastic plan.

A row that adds noise c z to a mean is a Gaussian decision of the denoiser,

    x_{i+1} ~ N(mean_i, c_i^2),
    log p = -|x_{i+1} - mean_i|^2 / (2 c_i^2) - d log c_i - (d / 2) log 2 pi,

where mean_i depends on the path up to x_i. So a run has a likelihood under other
parameters, which policy gradients need: `rollout` records a path, `log_prob` scores it
again. Rows without noise give 0. Liu et al. 2025 (2505.05470), Flow-GRPO; Li et al.
2025 (2507.21802), MixGRPO.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import engine
from ..engine.kernels import density, deviation, drawn, mean_of, start, trusted
from ..guards import checked, must
from ..noise.streams import needed, normal
from ..plan import Plan, Row
from ..states import arrays, floating, nan_where
from ..typing import Array, ArrayLike, Denoiser, Key, PyTree
from .paths import Path, levels_agree, path_of

__all__ = ["Rollout", "log_prob", "noise_of", "ppo_loss", "ratio", "rollout"]


class Rollout(NamedTuple):
    """A recorded run.

    Attributes:
        sample: the result, a tree like x.
        path: the states, x first and the sample last, and their levels, a `Path`.
        log_prob: (rows, B), or (rows,) for a single sample; a constant, without
            gradient.
    """

    sample: PyTree
    path: Path
    log_prob: Array


@checked
def rollout(
    plan: Plan,
    denoiser: Denoiser,
    x: PyTree,
    key: Key | None = None,
    *,
    noise: PyTree = None,
    mean: bool = False,
) -> Rollout:
    """Run a stochastic plan; record its path and log-probabilities.

    The sample is that of `fd.sample` with the same key, to rounding. Pure: jit it. A
    plan that is an argument of the jitted function is checked by its structure; if its
    rows then do not all end a step, the log-probabilities are NaN.

    Args:
        plan: a plan whose every row ends a step and adds fresh noise, such as
            `fd.solvers.sde_dpmpp_2m(process, ts, tau2=window(...))`.
        denoiser: (x, context, carry) -> (data prediction, carry).
        x: noise at the plan's first level, leaves (B, ...) or one sample.
        key: a key, or one per sample.
        noise: recorded noise with a leading axis of rows, instead of a key.
        mean: average the log-density over the elements, as the published code does,
            instead of adding them up.

    Returns:
        A `Rollout`.

    Raises:
        ValueError: a plan whose rows have no Gaussian density, or no key.

    Example:
        >>> import jax, fastdiff_jax as fd
        >>> process = fd.processes.flow()
        >>> ts = fd.grids.uniform(process, 10, end=0.0)
        >>> plan = fd.solvers.sde_dpmpp_2m(
        ...     process, ts, tau2=fd.policy.window(10, 2, 4, 0.245))
        >>> x = fd.prior(process, jax.random.key(0), (8, 2))
        >>> run = rollout(plan, fd.models.gaussian([0.0, 0.0]), x, jax.random.key(1))
        >>> run.log_prob.shape, (run.log_prob != 0).any(1).nonzero()[0].tolist()
        ((10, 8), [2, 3, 4, 5])
    """
    first = start(plan, denoiser, x, key)
    if noise is None:
        needed(key)
    else:
        _recorded(plan, noise, first.point)

    def body(state: engine.State, each: tuple[Row, PyTree]) -> tuple:
        row, z = each
        after = mean_of(plan, denoiser, state, row)
        if z is None:
            z = normal(needed(state.key), row.index, state.point)
        reached = jax.tree.map(jnp.add, after.point, drawn(row, z))
        score = density(row, reached, after.point, mean)
        return after.at(reached), (reached, score)

    last, (states, scores) = jax.lax.scan(body, first, (plan.rows, noise))
    path = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first.point, states)
    path = path_of(plan, path)
    return Rollout(last.point, path, jax.lax.stop_gradient(trusted(plan, scores)))


def _recorded(plan: Plan, noise: PyTree, like: PyTree) -> None:
    """Noise of every row, a tree like the state."""
    arrays("noise", noise)
    rule = f"a tree like x with {plan.length} rows before its axes"
    if jax.tree.structure(noise) != jax.tree.structure(like):
        raise must("noise", rule, noise)
    for z, x in zip(jax.tree.leaves(noise), jax.tree.leaves(like), strict=True):
        if np.shape(z) != (plan.length, *x.shape):
            raise must("noise", rule, z)


@checked
def log_prob(
    plan: Plan,
    denoiser: Denoiser,
    path: Path | PyTree,
    *,
    mean: bool = False,
    checkpoint: bool = False,
) -> Array:
    """Log-probability of every step of a recorded path, under this denoiser.

    log N(x_{i+1}; mean_i(x_0..x_i), c_i^2). The history of a multistep plan is built
    along the path, so its gradient is that of the likelihood. Differentiate it with
    respect to the denoiser; the path is data.

    Args:
        plan: the plan of the rollout.
        denoiser: the same with other parameters.
        path: from `rollout`, all of its leaves (rows + 1, B, ...). A bare tree of
            states is taken for one at the plan's levels.
        mean: average over the elements instead of adding up. In float32 a sum over d
            elements carries a rounding error of about 1e-7 d.
        checkpoint: in reverse mode, evaluate the rows again instead of storing them.

    Returns:
        (rows, B), or (rows,) for a single sample; 0 in rows without noise.

    Raises:
        ValueError: as `rollout`, or a path of another length or at other levels; if
            the levels are traced, the result is NaN.

    Example:
        >>> import jax, fastdiff_jax as fd
        >>> process = fd.processes.flow()
        >>> plan = fd.solvers.sde_dpmpp_1(process, fd.grids.uniform(process, 4))
        >>> x = fd.prior(process, jax.random.key(0), (8, 2))
        >>> old = rollout(plan, fd.models.gaussian([0.0, 0.0]), x, jax.random.key(1))
        >>> def surprise(model):
        ...     return -log_prob(plan, model, old.path).sum()
        >>> jax.grad(surprise)(fd.models.gaussian([0.0, 0.0])).means.shape
        (1, 2)
    """

    def score(row: Row, there: PyTree, expected: PyTree) -> Array:
        return density(row, there, expected, mean)

    return trusted(plan, _along(plan, denoiser, path, score, checkpoint))


@checked
def noise_of(plan: Plan, denoiser: Denoiser, path: Path | PyTree) -> PyTree:
    """The noise that takes the denoiser along a path, z = (x_{i+1} - mean_i) / c_i.

    Args:
        plan, denoiser, path: as `log_prob`.

    Returns:
        A tree like x with a leading axis of rows, 0 where there is no noise: the
        `noise` with which `fd.sample` repeats the path.
    """

    def recover(row: Row, there: PyTree, expected: PyTree) -> PyTree:
        def leaf(v: Array, m: Array, c: Array) -> Array:
            return jnp.where(c > 0, (v - m) / jnp.where(c > 0, c, 1), 0)

        return jax.tree.map(leaf, there, expected, deviation(row, there))

    return _along(plan, denoiser, path, recover, False)


@checked
def ratio(new: Array, old: Array) -> Array:
    """p_new / p_old of every step: exp(new - old), 1 in rows without noise.

    Args:
        new, old: log-probabilities, (rows, B).
    """
    _paired(new, old)
    return jnp.exp(new - old)


def _paired(new: Array, old: Array) -> None:
    """Log-probabilities of the same steps."""
    if np.ndim(new) not in (1, 2):
        raise must("new", "log-probabilities (rows, B)", new)
    if np.shape(old) != np.shape(new):
        raise must("old", f"of the shape of new, {np.shape(new)}", old)


@checked
def ppo_loss(
    new: Array,
    old: ArrayLike,
    advantage: ArrayLike,
    *,
    clip: float = 1e-4,
    rows: ArrayLike | None = None,
) -> Array:
    """The clipped policy loss, averaged over samples and the rows that count.

    mean max(-A r, -A min(max(r, 1 - clip), 1 + clip)),  r = exp(new - old).

    Args:
        new: log-probabilities under the parameters to train, (rows, B).
        old: the rollout's.
        advantage: (B,), e.g. (reward - group mean) / group deviation.
        clip: half width of the ratio's range. The published 1e-4 goes with log-
            probabilities averaged over elements (`mean=True`).
        rows: which rows count, (rows,) bool; None: those with old != 0.

    Returns:
        A scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> old = jnp.array([[-1.0, -2.0], [0.0, 0.0]])
        >>> float(ppo_loss(old, old, jnp.array([1.0, 3.0])))
        -2.0

    Reference: Liu et al. 2025 (2505.05470); Schulman et al. 2017 (1707.06347).
    """
    old = jax.lax.stop_gradient(jnp.asarray(old))
    if np.ndim(new) != 2:
        raise must("new", "log-probabilities (rows, B)", new)
    r = ratio(new, old)
    if np.shape(advantage) != r.shape[1:]:
        raise must("advantage", f"one number per sample, {r.shape[1:]}", advantage)
    if not 0 < clip < 1:
        raise must("clip", "in (0, 1)", clip)
    if rows is not None:
        bits = jnp.asarray(rows)
        if bits.shape != r.shape[:1] or bits.dtype != bool:
            raise must("rows", f"truth values, one per row {r.shape[:1]}", rows)
    advantage = jnp.asarray(advantage, r.dtype)[None]
    worst = jnp.maximum(-advantage * r, -advantage * jnp.clip(r, 1 - clip, 1 + clip))
    count = (old != 0).any(1) if rows is None else jnp.asarray(rows)
    weight = count.astype(r.dtype)[:, None]
    return (weight * worst).sum() / (weight.sum() * r.shape[1])


def _along(
    plan: Plan, denoiser: Denoiser, path: Path | PyTree, read: Any, checkpoint: bool
) -> Any:
    """read(row, next state, its mean) for every row, given the path up to it."""
    arrays("path", path)
    lengths = {np.shape(v)[0] if np.ndim(v) else 0 for v in jax.tree.leaves(path)}
    if lengths != {plan.length + 1}:
        raise ValueError(
            f"path must have a leading axis of {plan.length + 1} states (the plan's "
            f"rows and the start), got {sorted(lengths)}. Pass rollout(...).path."
        )
    agree = levels_agree(plan, path) if isinstance(path, Path) else True
    path = floating(path.states if isinstance(path, Path) else path)
    here, there = (
        jax.tree.map(lambda v, s=s: v[s], path) for s in (slice(-1), slice(1, None))
    )
    first = start(plan, denoiser, jax.tree.map(lambda v: v[0], path), None)

    def body(state: engine.State, each: tuple[Row, PyTree, PyTree]) -> tuple:
        row, x, reached = each
        state = state.at(x)  # its other registers are the path's
        after = mean_of(plan, denoiser, state, row)
        return after, read(row, reached, after.point)

    body = jax.checkpoint(body) if checkpoint else body
    found = jax.lax.scan(body, first, (plan.rows, here, there))[1]
    return nan_where(jnp.logical_not(agree), found)
