"""A recorded path that knows its levels: another plan's has no density under a plan."""

import jax
import jax.numpy as jnp
import numpy as np

from ..plan import Plan
from ..states import batch_of, real_dtype
from ..trees import concrete, pytree
from ..typing import Array, PyTree

__all__ = ["Path", "levels_agree", "path_of"]


@pytree
class Path:
    """The states of a run and the levels that they stand at.

    Every leaf has the axes (rows + 1, B, ...), so that a minibatch is one index of all:
    `jax.tree.map(lambda v: v[:, chosen], path)`.

    Attributes:
        states: a tree like x with a leading axis of rows + 1: x first, the sample last.
        alpha: of each state, (rows + 1, B), or (rows + 1,) for a single sample; the
            mean where elements have levels of their own.
        sigma: likewise.
    """

    states: PyTree
    alpha: Array
    sigma: Array


def _levels(plan: Plan) -> tuple[Array, Array]:
    """Alpha and sigma of every state, (rows + 1,) each."""
    found = []
    for name in ("alpha", "sigma"):
        rows, end = (
            [jnp.asarray(v) for v in jax.tree.leaves(getattr(level, name))]
            for level in (plan.rows.level, plan.end)
        )
        means = [v.reshape(plan.length, -1).mean(1) for v in rows]
        last = sum(v.mean() for v in end)
        found.append(jnp.append(sum(means[1:], means[0]), last) / len(means))
    return found[0], found[1]


def path_of(plan: Plan, states: PyTree) -> Path:
    """The path of a plan's run."""
    first = jax.tree.map(lambda v: v[0], states)
    batch, dtype = batch_of(first), real_dtype(first)
    lead = (plan.length + 1,) if batch is None else (plan.length + 1, batch)
    spread = (
        jnp.broadcast_to(v.reshape(-1, *(1,) * (len(lead) - 1)), lead).astype(dtype)
        for v in _levels(plan)
    )
    return Path(states, *spread)


def levels_agree(plan: Plan, path: Path) -> Array | bool:
    """Whether a path stands at the plan's levels, to rounding.

    Raises:
        ValueError: it does not, and both are known.
    """
    agree: Array | bool = True
    for own, has in zip(_levels(plan), (path.alpha, path.sigma), strict=True):
        own = own.reshape(-1, *(1,) * (np.ndim(has) - 1)).astype(has.dtype)
        close = jnp.abs(own - has) <= 1e-5 * (jnp.abs(own) + jnp.abs(has))
        agree = agree & close.all()
    if concrete(agree) and not agree:
        raise ValueError(
            "path must be of this plan's levels, and it was recorded at others. Pass "
            "the plan of the rollout."
        )
    return agree
