"""Langevin correctors with step sizes by norms, on the corrector rows of a plan.

A row of `predictor_corrector` does x + eps S + sqrt(2 eps) z with
eps = 2 a^2 (snr sigma)^2. This move does it over with

    eps' = 2 a^2 (snr |z| / |S|)^2 = eps (|z| / |sigma S|)^2

and the same z. Song et al. 2021 (2011.13456), algorithms 4 and 5.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ..engine import Info, State
from ..guards import checked
from ..plan import Level, Plan, Row
from ..plan.core import pick
from ..states import mix, norm, per_sample
from ..trees import concrete, pytree
from ..typing import Array
from ._common import refuse_open_rows

__all__ = ["Langevin", "langevin"]


@pytree
class Langevin:
    """The move of `langevin`."""

    per_sample: bool = dataclasses.field(default=True, metadata={"static": True})

    def __call__(self, state: State, info: Info, row: Row, reached: Level) -> State:
        """The corrector row's step with its size by norms; other rows as they are."""
        if row.noise is None:
            return state
        weight, x = pick(row.noise, 0), info.point
        sigma = jax.tree.map(lambda s: jnp.where(s == 0, 1.0, s), info.sigma)
        unit = mix([(info.alpha / sigma, info.denoised), (-1 / sigma, x)])  # sigma S
        drawn, slope = norm(info.noise), norm(unit)
        if not self.per_sample:
            drawn, slope = drawn.mean(), slope.mean()
        still = slope == 0  # no score to measure: the row's own size
        ratio = jnp.where(still, 1.0, drawn / jnp.where(still, 1.0, slope))
        weight = jnp.asarray(weight)
        half = weight.astype(sigma.dtype) ** 2 / 2 / sigma
        size = mix([(half, unit)])
        noise = mix([(weight, info.noise)])
        moved = jax.tree.map(
            lambda v, s, n: v + per_sample(ratio**2, v) * s + per_sample(ratio, v) * n,
            x,
            size,
            noise,
        )
        corrects = _corrects(info.time, reached.time, weight)
        choose = lambda new, old: jnp.where(corrects, new, old)  # noqa: E731
        return state.at(jax.tree.map(choose, moved, state.point))

    def check_plan(self, plan: Plan) -> None:
        """ValueError for a plan without corrector rows, or with rows of stages."""
        refuse_open_rows(plan, "langevin")
        rows = plan.rows
        if not concrete(rows, plan.end):
            return
        times, noise = np.asarray(rows.level.time), rows.noise
        after = np.concatenate([times[1:], np.asarray(plan.end.time)[None]])
        still = (times == after).reshape(plan.length, -1).all(axis=1)
        drawn = np.zeros(plan.length, bool)
        if noise is not None:
            drawn = (np.asarray(noise)[:, 0] > 0).reshape(plan.length, -1).any(axis=1)
        if not (still & drawn).any():
            raise ValueError(
                "langevin rescales corrector rows, and this plan has none. Make it "
                "with fd.solvers.predictor_corrector(process, ts, snr=0.16)."
            )


def _corrects(time: Array, reached: Array, weight: Array) -> Array:
    """A row that draws noise and goes nowhere."""
    return jnp.all(time == reached) & jnp.any(weight > 0)


@checked
def langevin(*, per_sample: bool = True) -> Langevin:
    """Score-SDE's Langevin corrector: step sizes by the norms of noise and score.

    x <- x + eps S + sqrt(2 eps) z, eps = 2 a^2 (snr |z| / |S|)^2, on every row of a
    plan that draws noise at a step of length zero; snr is the plan's. Without this
    move those rows are annealed Langevin steps, |S| replaced by its usual size
    |z| / sigma. A score of norm 0 leaves the row's own size. Made for images: 1 / |S|^2
    has a mean of about sigma^2 / (d - 2) in d dimensions, so in a few dimensions the
    sizes scatter widely, and with 1 or 2 they have no mean.

    Args:
        per_sample: norms of each sample. False: their means over the batch, as
            published; a sample then depends on the others.

    Returns:
        A move for `fd.sample(plan, ..., move=...)`. In a chain it comes first.

    Raises:
        ValueError: when sampling with a plan that has no corrector rows.

    Example:
        >>> import jax, fastdiff_jax as fd
        >>> process = fd.processes.ve()
        >>> ts = fd.grids.uniform(process, 20)
        >>> plan = fd.solvers.predictor_corrector(process, ts, snr=0.16)
        >>> x = fd.prior(process, jax.random.key(0), (3, 8))
        >>> model = fd.models.gaussian(0.0, 0.3)
        >>> fd.sample(plan, model, x, key=jax.random.key(1), move=langevin()).shape
        (3, 8)

    Reference: Song et al. 2021 (2011.13456), algorithms 4 and 5.
    """
    return Langevin(per_sample)
