"""What moves share: known values at a level, and what they ask of a plan."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..guards import must
from ..noise import side_noise
from ..plan import Level, Plan, ends_step
from ..states import arrays, mix
from ..typing import Array, Key, PyTree

__all__ = ["at_level", "floats", "refuse_open_rows"]


def floats(name: str, value: Any) -> Array:
    """An array as it is, or as floats if it holds whole numbers or truth values."""
    if isinstance(value, list):
        try:
            value = np.asarray(value)
        except ValueError:  # ragged
            raise must(name, "numbers in a regular shape", value) from None
    value = jnp.asarray(arrays(name, value))
    whole = not jnp.issubdtype(value.dtype, jnp.inexact)
    return value.astype(jnp.result_type(float)) if whole else value


def at_level(
    known: PyTree, level: Level, key: Key | None, row: Array, stream: int, name: str
) -> PyTree:
    """The known values at a level, alpha y + sigma z, with a z of this row's own."""
    if key is None:
        raise ValueError(
            f"{name} draws noise in each row; pass key=jax.random.key(0) to fd.sample, "
            "for a deterministic plan too."
        )
    z = side_noise(key, row, known, stream)
    return mix([(level.alpha, known), (level.sigma, z)])


def refuse_open_rows(plan: Plan, name: str) -> None:
    """ValueError for a plan with a row whose point is not a solution at a level."""
    ends = ends_step(plan.rows)
    if isinstance(ends, np.ndarray) and not ends.all():
        row = int(np.argmin(ends))
        raise ValueError(
            f"{name} needs rows that each end a step; after row {row} this plan goes "
            "on to a stage or a prediction that is not the step's end. Use a method "
            "of one evaluation per step without a corrector of its own: ddim, "
            "dpmpp_2m, sde_dpmpp_2m, reverse_diffusion, predictor_corrector."
        )
    first = jax.tree.leaves(plan.start and plan.start.x)
    if any(isinstance(w, np.ndarray) and w[1:].any() for w in first):
        raise ValueError(
            f"{name} needs rows that each end a step and go on from there; this plan "
            "keeps x_T and goes on from that, so a move would be lost. Use the solver "
            "itself, not its unrolled weights."
        )
