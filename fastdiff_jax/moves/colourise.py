"""Known linear parts of the channels, such as the grey image in colourisation.

With k orthonormal rows A acting on the last axis, complete A to an orthonormal basis:
the known coordinates A x are set as in inpainting, the others are left alone,

    x <- x + A^T (alpha_t y + sigma_t z - A x)

Which basis completes A does not matter. Song et al. 2021 (2011.13456), appendix I.3.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from ..engine import Info, State
from ..guards import checked
from ..plan import Level, Plan, Row
from ..states import spread
from ..trees import concrete, pytree
from ..typing import Array, ArrayLike
from ._common import at_level, floats, refuse_open_rows

__all__ = ["LinearPart", "colourise", "linear_part"]


@pytree
class LinearPart:
    """The move of `linear_part` and `colourise`."""

    known: Array
    rows: Array
    stream: int = dataclasses.field(default=0, metadata={"static": True})

    def __call__(self, state: State, _: Info, row: Row, reached: Level) -> State:
        """The state with the known coordinates at the level reached."""
        x = state.point
        count, channels = self.rows.shape
        if not isinstance(x, jax.Array) or x.shape[-1:] != (channels,):
            raise ValueError(
                f"the state must be one array with {channels} channels on its last "
                f"axis, got {jax.tree.map(jnp.shape, x)}."
            )
        a = self.rows.astype(x.dtype)
        have = jnp.einsum("kc,...c->...k", a, x, precision="highest")
        known = spread(self.known, have, "known")
        where = (state.key, row.index, self.stream, "colourise")
        gap = at_level(known, _without_channels(reached, x), *where) - have
        back = jnp.einsum("kc,...k->...c", a, gap, precision="highest")
        return state.at(x + back)

    def check_plan(self, plan: Plan) -> None:
        """ValueError for a plan with rows that do not end a step."""
        refuse_open_rows(plan, "colourise")


def _without_channels(level: Level, x: Array) -> Level:
    """A level that is the same for all channels."""
    for value in level:
        if jnp.ndim(value) and jnp.shape(value)[-1] != 1:
            raise ValueError(
                "known channel mixtures need one level for all channels, got a level "
                f"of shape {jnp.shape(value)} for a state of shape {x.shape}."
            )
    return level


@checked
def linear_part(known: ArrayLike, rows: ArrayLike) -> LinearPart:
    """Keep known mixtures of the channels: A x_0 = y along the last axis.

    Args:
        known: y, (..., k), of one sample or of all.
        rows: A, (k, channels), orthonormal rows.

    Returns:
        A move for `fd.sample(plan, ..., move=...)`; exact where the plan ends at
        sigma = 0, as `inpaint`.

    Raises:
        ValueError: rows that are not orthonormal, or known of another k.

    Example:
        >>> move = linear_part([0.3], [[0.6, 0.8]])
    """
    known = floats("known", known)
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2 or known.ndim < 1 or known.shape[-1] != rows.shape[0]:
        raise ValueError(
            f"rows must be (k, channels) and known (..., k), got {rows.shape} and "
            f"{known.shape}."
        )
    if not np.allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-6):
        raise ValueError(
            "rows must be orthonormal; orthonormalise them and known alike, e.g. with "
            "np.linalg.qr."
        )
    if concrete(known) and not np.isfinite(np.asarray(known)).all():
        raise ValueError("known must be finite.")
    return LinearPart(known, jnp.asarray(rows, jnp.result_type(float)))


@checked
def colourise(grey: ArrayLike) -> LinearPart:
    """Colour images whose grey value, the mean of the three channels, is known.

    With M orthonormal, its first column (1, 1, 1) / sqrt 3, channel 0 of x M is
    sqrt 3 times the grey value: it is set to sqrt 3 alpha_t grey + sigma_t z after
    each row, and the result taken back by M^T.

    Args:
        grey: (..., 1) for a state (..., 3): means over the channels, of one image
            (H, W, 1) or of all (B, H, W, 1).

    Returns:
        A move for `fd.sample(plan, ..., move=...)`.

    Raises:
        ValueError: a last axis that is not 1, values that are not finite; when
            sampling, a state without three channels, or a plan with stages.

    Example:
        >>> import jax, jax.numpy as jnp, fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> ts = fd.grids.log_snr(process, 20, to_zero=True)
        >>> plan, key = fd.solvers.sde_dpmpp_2m(process, ts), jax.random.key(0)
        >>> x = fd.prior(process, key, (2, 4, 4, 3))
        >>> move = colourise(jnp.full((4, 4, 1), 0.25))
        >>> out = fd.sample(plan, fd.models.gaussian(), x, key=key, move=move)
        >>> bool(jnp.allclose(out.mean(-1), 0.25, atol=1e-6))
        True

    Reference: Song et al. 2021 (2011.13456), appendix I.3.
    """
    grey = floats("grey", grey)
    if grey.shape[-1:] != (1,):
        raise ValueError(
            f"grey must have a last axis of 1, got shape {grey.shape}. Use "
            "grey[..., None], or image.mean(-1, keepdims=True)."
        )
    third = 1 / math.sqrt(3)
    return linear_part(math.sqrt(3) * grey, np.full((1, 3), third))
