"""Clipping and dynamic thresholding of the data prediction.

    clip:    D <- min(max(D, low), high)
    dynamic: s = max(quantile_q |D|, floor) per sample;  D <- clip(D, -s, s) floor / s

Saharia et al. 2022 (2205.11487), section 2.3. For data in pixel space only. Solver
order means nothing where the prediction is not smooth: expect first order at best.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..guards import checked, must, shown, within
from ..hooks import Wrapped
from ..trees import concrete, pytree
from ..typing import Array, ArrayLike, Context, Denoiser, PyTree

__all__ = ["Transformed", "clip", "dynamic_threshold"]


@pytree
class Transformed(Wrapped):
    """A denoiser whose every prediction goes through a map."""

    inner: Any
    options: tuple
    fn: Any = dataclasses.field(metadata={"static": True})
    outputs: bool = dataclasses.field(default=False, metadata={"static": True})

    def __call__(
        self, x: PyTree, context: Context, carry: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The mapped prediction, or (mapped, raw)."""
        out, carry = self.inner(x, context, carry)
        mapped = jax.tree.map(lambda v: self.fn(v, *self.options), out)
        return ((mapped, out) if self.outputs else mapped), carry

    @property
    def gives(self) -> tuple[str, ...] | None:
        """With `outputs`, the prediction that tells the noise's direction as well."""
        return ("data", "direction") if self.outputs else super().gives


def _clip(value: Array, low: Any, high: Any) -> Array:
    cast = lambda v: jnp.asarray(v, value.dtype)  # noqa: E731
    return jnp.clip(value, cast(low), cast(high))


@checked
def clip(
    denoiser: Denoiser,
    low: ArrayLike = -1.0,
    high: ArrayLike = 1.0,
    *,
    outputs: bool = False,
) -> Transformed:
    """Keep the data prediction inside [low, high].

    Args:
        denoiser: the denoiser.
        low, high: bounds; scalars or arrays that broadcast to a prediction.
        outputs: return (clipped, raw), for plans that read (data, direction).

    Raises:
        ValueError: low >= high.
    """
    if concrete(low, high) and not np.all(np.asarray(low) < np.asarray(high)):
        raise must("high", f"above low = {shown(low)}", high)
    return Transformed(denoiser, (low, high), _clip, outputs)


def _dynamic(value: Array, quantile: Any, floor: Any, ceiling: Any) -> Array:
    cast = lambda v: jnp.asarray(v, value.dtype)  # noqa: E731
    flat = jnp.abs(value).reshape(value.shape[0], -1)
    s = jnp.quantile(flat, cast(quantile), axis=1)
    s = jnp.maximum(s, cast(floor))
    if ceiling is not None:
        s = jnp.minimum(s, cast(ceiling))
    s = s.reshape((-1,) + (1,) * (value.ndim - 1))
    return jnp.clip(value, -s, s) / s * cast(floor)


@checked
def dynamic_threshold(
    denoiser: Denoiser,
    quantile: ArrayLike = 0.995,
    *,
    floor: ArrayLike = 1.0,
    ceiling: ArrayLike | None = None,
    outputs: bool = False,
) -> Transformed:
    """Clip each sample's prediction at a quantile of its magnitudes, and rescale.

    Args:
        denoiser: the denoiser; leaves (B, ...).
        quantile: in (0, 1), linear interpolation.
        floor: bound of the data's range; samples inside it are untouched.
        ceiling: largest threshold, None for none (diffusers' `sample_max_value`).
        outputs: return (thresholded, raw), for plans that read (data, direction).

    Raises:
        ValueError: a quantile outside (0, 1], or floor <= 0.
    """
    within("(0, 1]", quantile=quantile)
    within("(0, inf)", floor=floor)
    above = ceiling is None or not concrete(floor, ceiling)
    if not (above or np.all(np.asarray(ceiling) >= np.asarray(floor))):
        raise must("ceiling", f"at least floor = {shown(floor)}, or None", ceiling)
    return Transformed(denoiser, (quantile, floor, ceiling), _dynamic, outputs)
