"""Classifier-free guidance, in one batched call of the network.

    D = D_null + scale (D_cond - D_null)

Scale 1 is the conditional model, 0 the unconditional one. Ho & Salimans 2022
(2207.12598), with their w + 1 as the scale. The guidance interval is Kynkaanniemi et
al. 2024 (2404.07724): outside it the scale is 1.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..guards import broadcasts, checked, must, within
from ..hooks import Wrapped, carry_of
from ..states import arrays, per_sample
from ..trees import concrete, pytree
from ..typing import Array, ArrayLike, Context, Denoiser, Extended, PyTree

__all__ = ["Guided", "cfg"]


def _double(tree: PyTree, batch: int) -> PyTree:
    """Per-sample arrays twice along the batch; everything else as it is."""

    def leaf(v: Any) -> Any:
        v = jnp.asarray(v)
        per_sample = v.ndim and v.shape[0] == batch
        return jnp.concatenate([v, v]) if per_sample else v

    return jax.tree.map(leaf, tree)


@pytree
class Guided(Wrapped):
    """A denoiser with classifier-free guidance."""

    inner: Any
    condition: PyTree
    null: PyTree
    scale: Any
    interval: Any
    outputs: bool = dataclasses.field(default=False, metadata={"static": True})

    def __call__(
        self, x: PyTree, context: Context, carry: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The guided prediction, or (guided, conditional, unconditional)."""
        batch = jax.tree.leaves(x)[0].shape[0]
        self._fits(batch)
        both = jax.tree.map(
            lambda c, n: jnp.concatenate([c, jnp.broadcast_to(n, c.shape)]),
            self.condition,
            self.null,
        )
        twice = context._replace(
            time=_double(context.time, batch),
            alpha=_double(context.alpha, batch),
            sigma=_double(context.sigma, batch),
        )
        doubled = jax.tree.map(lambda v: jnp.concatenate([v, v]), x)

        def evaluate(condition: PyTree) -> tuple[PyTree, PyTree]:
            return self.inner(doubled, twice._replace(condition=condition), carry)

        if not concrete(x) and _ignored(evaluate, both):
            raise ValueError(
                "condition must reach the prediction, and this network ignores it: "
                "guidance would change nothing. Read context.condition, or with "
                "fd.models.denoiser the last argument of fn(x, t, condition)."
            )
        out, carry = evaluate(both)
        cond = jax.tree.map(lambda v: v[:batch], out)
        null = jax.tree.map(lambda v: v[batch:], out)
        scale = self._scale(context)
        guided = jax.tree.map(lambda c, n: _guide(c, n, scale), cond, null)
        return ((guided, cond, null) if self.outputs else guided), carry

    def _fits(self, batch: int) -> None:
        """One condition per sample, and one scale for all or for each."""
        for leaf in jax.tree.leaves(self.condition):
            if leaf.shape[:1] != (batch,):
                raise must("condition", f"one per sample, ({batch}, ...)", leaf)
        if np.shape(self.scale) not in ((), (batch,)):
            raise must("scale", f"one number, or one per sample ({batch},)", self.scale)

    def _scale(self, context: Context) -> Array:
        """The row's scale: controls win, 1 outside the interval."""
        scale = jnp.asarray(context.control("guidance_scale", self.scale))
        if self.interval is None:
            return scale
        low, high = (jnp.asarray(v) for v in self.interval)
        rho = jnp.where(
            jnp.asarray(context.alpha) == 0,
            jnp.inf,
            jnp.asarray(context.sigma) / jnp.asarray(context.alpha),
        )
        inside = (rho > low.astype(rho.dtype)) & (rho <= high.astype(rho.dtype))
        return jnp.where(inside, scale, jnp.ones_like(scale))

    def initial_carry(self, x: PyTree) -> PyTree:
        """The inner denoiser's carry, for the doubled batch."""
        return carry_of(self.inner, jax.tree.map(lambda v: jnp.concatenate([v, v]), x))

    @property
    def gives(self) -> tuple[str, ...] | None:
        """The data prediction, with `outputs` the two it is made of as well."""
        return ("data", "conditional", "unconditional") if self.outputs else None


def _ignored(evaluate: Callable[[PyTree], Any], condition: PyTree) -> bool:
    """Whether the result is the same for every condition: traced, nothing is run.

    vmap knows what an axis of the input has reached, and refuses to return it once.
    """
    lead = lambda v: jax.ShapeDtypeStruct((1, *v.shape), v.dtype)  # noqa: E731
    try:
        jax.eval_shape(jax.vmap(evaluate, out_axes=None), jax.tree.map(lead, condition))
    except Exception:  # it is reached; or else the evaluation itself will say why
        return False
    return True


def _guide(cond: Array, null: Array, scale: Array) -> Array:
    """Null + scale (cond - null); a scale per sample has shape (B,)."""
    return null + per_sample(scale, cond) * (cond - null)


def _like_condition(null: Any, condition: Array) -> Array:
    """The null condition in the condition's dtype, if that keeps its value."""
    want, given = condition.dtype, jnp.asarray(null).dtype
    keyed = jnp.issubdtype(want, jax.dtypes.prng_key)
    fits = broadcasts(null, condition.shape)
    fits = fits and keyed == jnp.issubdtype(given, jax.dtypes.prng_key)
    if fits and concrete(null) and not keyed:
        found = np.asarray(null)
        exact = not jnp.issubdtype(want, np.inexact)  # labels: 0.5 is none of them
        kept = found.astype(want) if exact else np.real(found)
        fits = bool((kept == found).all())
    if not fits:
        rule = f"{want}, to broadcast to the condition's shape {condition.shape}"
        raise must("null", rule, null)
    return jnp.asarray(null, want)


@checked
def cfg(
    denoiser: Denoiser,
    scale: ArrayLike = 2.0,
    *,
    condition: PyTree,
    null: PyTree,
    interval: tuple[Extended, Extended] | None = None,
    outputs: bool = False,
) -> Guided:
    """Classifier-free guidance around a denoiser that reads `context.condition`.

    The network runs once per row on a batch of 2 B. Per-row scales come through
    controls: `fd.sample(..., controls={"guidance_scale": array of (rows,)})`.

    Args:
        denoiser: the conditional denoiser, see `fd.models.denoiser`.
        scale: guidance scale; scalar, or (B,) for one per sample. 1 is off.
        condition: per-sample condition, leaves (B, ...).
        null: the unconditional condition, broadcastable to `condition`.
        interval: (low, high] of sigma / alpha where guidance acts; None: everywhere.
        outputs: return (guided, conditional, unconditional) predictions, for plans
            that integrate several.

    Raises:
        ValueError: an interval that is empty, structures or shapes that differ, or a
            guided denoiser; in a run, not one condition per sample; when a run is
            compiled, a network whose prediction the condition does not reach.

    Example:
        >>> import jax.numpy as jnp, fastdiff_jax as fd
        >>> net = fd.models.denoiser(
        ...     lambda x, t, y: x * y[:, None], prediction="data")
        >>> y = jnp.ones(4)
        >>> guided = cfg(net, 3.0, condition=y, null=0.0)
    """
    if isinstance(denoiser, Guided):
        raise must("denoiser", "without guidance of its own", denoiser)
    arrays("condition", condition)
    if jax.tree.structure(condition) != jax.tree.structure(null):
        raise ValueError(
            "condition and null must have one structure, got "
            f"{jax.tree.structure(condition)} and {jax.tree.structure(null)}."
        )
    within("(-inf, inf)", scale=scale)
    batch = next((np.shape(c)[:1] for c in jax.tree.leaves(condition)), ())
    if np.shape(scale) not in ((), batch):
        raise must("scale", f"one number, or one per sample {batch}", scale)
    known = interval if concrete(interval) else None
    if known is not None and not 0 <= known[0] < known[1]:
        raise must("interval", "0 <= low < high in sigma/alpha", interval)
    condition = jax.tree.map(jnp.asarray, condition)
    null = jax.tree.map(_like_condition, null, condition)
    return Guided(denoiser, condition, null, scale, interval, outputs)
