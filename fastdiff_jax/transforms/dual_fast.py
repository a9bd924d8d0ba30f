"""DualFast: correct the network's own error with a noise prediction from earlier on.

    E~_t = E_t + c_t (E_t - E_tau),   D~_t = (x - sigma_t E~_t) / alpha_t

Reconstructed from the paper's text (2506.13058): no code was published where we could
read it, and neither the sign nor the schedule of c is verified. Both are therefore
explicit: c > 0 extrapolates away from the earlier prediction, c < 0 averages with it,
c = 0 is off.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..guards import checked, within
from ..hooks import Wrapped, carry_of
from ..states import align
from ..trees import pytree
from ..typing import Array, Context, Denoiser, PyTree

__all__ = ["DualFast", "dual_fast", "dual_fast_schedule"]


class _Carry(NamedTuple):
    inner: PyTree
    noise: PyTree  # E_tau
    known: Array  # whether there is one yet


@pytree
class DualFast(Wrapped):
    """A denoiser whose noise prediction moves along its change since an earlier one."""

    inner: Any
    coefficient: Any
    reference: str = dataclasses.field(default="first", metadata={"static": True})

    def __call__(
        self, x: PyTree, context: Context, carry: _Carry
    ) -> tuple[PyTree, _Carry]:
        """The corrected data prediction; the carry keeps the raw noise prediction."""
        data, inner = self.inner(x, context, carry.inner)
        data = jax.tree.map(lambda v, d: jnp.asarray(d).astype(v.dtype), x, data)
        c = context.control("dual_fast", self.coefficient)

        def noise(v: Array, d: Array) -> Array:
            alpha, sigma = _level(context, v)
            return (v - alpha * d) / sigma

        def corrected(v: Array, d: Array, now: Array, then: Array) -> Array:
            alpha, sigma = _level(context, v)
            none = (alpha == 0) | ~carry.known  # nothing to compare with
            gain = sigma / jnp.where(none, 1.0, alpha) * jnp.asarray(c, alpha.dtype)
            return d - jnp.where(none, 0.0, gain) * (now - then)

        now = jax.tree.map(noise, x, data)
        out = jax.tree.map(corrected, x, data, now, carry.noise)
        keep = now
        if self.reference == "first":
            keep = jax.tree.map(
                lambda n, t: jnp.where(carry.known, t, n), now, carry.noise
            )
        return out, _Carry(inner, keep, jnp.ones_like(carry.known))

    def initial_carry(self, x: PyTree) -> _Carry:
        """Nothing known yet."""
        inner = carry_of(self.inner, x)
        return _Carry(inner, jax.tree.map(jnp.zeros_like, x), jnp.zeros((), bool))


def _level(context: Context, like: Array) -> tuple[Array, Array]:
    """Alpha and sigma in the dtype of a leaf, with as many axes."""
    return align(context.alpha, like, real=True), align(context.sigma, like, real=True)


@checked
def dual_fast(
    denoiser: Denoiser,
    coefficient: float = 0.5,
    *,
    reference: Literal["first", "previous"] = "first",
) -> DualFast:
    """Mix each noise prediction with an earlier one. A reconstruction: see above.

    A transform of the denoiser, so it serves every solver; each evaluation counts,
    those at predicted points and stages included.

    Args:
        denoiser: the denoiser.
        coefficient: c, signed, a scalar. Per-row values come through
            controls={"dual_fast": (rows,)}, see `dual_fast_schedule`, and win.
        reference: E_tau is that of the 'first' evaluation, or of the 'previous' one.

    Raises:
        ValueError: another reference.

    Example:
        >>> import fastdiff_jax as fd
        >>> model = dual_fast(fd.models.gaussian(0.0, 0.1), 0.2)
    """
    return DualFast(denoiser, coefficient, reference)


@checked
def dual_fast_schedule(
    rows: int, coefficient: float, *, power: float = 1.0
) -> dict[str, np.ndarray]:
    """Controls with c_i = coefficient (1 - i / rows)^power: power 0 is constant.

    Args:
        rows: number of evaluations, `plan.length`.
        coefficient: c of the first row, signed.
        power: how fast it decays, >= 0.

    Returns:
        {"dual_fast": (rows,)} for `fd.sample(..., controls=...)`.

    Raises:
        ValueError: no rows, or power < 0.

    Example:
        >>> dual_fast_schedule(2, 0.5)["dual_fast"].tolist()
        [0.5, 0.25]
    """
    within("[1, inf)", rows=rows)
    within("[0, inf)", power=power)
    return {"dual_fast": coefficient * (1 - np.arange(rows) / rows) ** power}
