"""Networks as the published pipelines call them, made into denoisers.

A scheduler that integrates x / alpha hands the network x / sqrt(sigma^2 + 1), the
variance-preserving state. An EDM scheduler hands it x / sqrt(sigma^2 + sigma_data^2)
and mixes its output with x. The others hand x itself.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .. import models
from ..states import align
from ..transforms.thresholding import clip, dynamic_threshold
from ..trees import pytree
from ..typing import Array, Context, Denoiser, Process, PyTree
from ._classes import EDM, SCALED

__all__ = ["PREDICTIONS", "Preconditioned", "Reversed", "Unscaled", "network"]

PREDICTIONS = {
    "epsilon": "noise",
    "sample": "data",
    "v_prediction": "v",
    "flow_prediction": "velocity",
}
"""The library's `prediction_type` in our words."""


def _scaled(x: PyTree, scale: Any) -> PyTree:
    return jax.tree.map(lambda v: v * align(scale, v), x)


@pytree
class Unscaled:
    """A denoiser of the variance-preserving state, used on x / alpha.

    D(x; 1, sigma) = inner(c x; c, c sigma) with c = 1 / sqrt(1 + sigma^2).
    """

    inner: Any

    def __call__(
        self, x: PyTree, context: Context, carry: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The data prediction, the same in both coordinates."""
        alpha, sigma = jnp.asarray(context.alpha), jnp.asarray(context.sigma)
        scale = jax.lax.rsqrt(alpha**2 + sigma**2)
        level = {"alpha": alpha * scale, "sigma": sigma * scale}
        return self.inner(_scaled(x, scale), context._replace(**level), carry)


@pytree
class Preconditioned:
    """D = c_skip x + c_out F(c_in x), Karras et al. 2022 (2206.00364), table 1.

    `inner` hands F's raw output on as its data prediction. `sign` is -1 for a network
    that predicts v.
    """

    inner: Any
    sigma_data: Any
    sign: Any

    def __call__(
        self, x: PyTree, context: Context, carry: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The data prediction."""
        sigma = jnp.asarray(context.sigma)
        spread = jnp.asarray(self.sigma_data, sigma.dtype)
        inverse = jax.lax.rsqrt(sigma**2 + spread**2)
        raw, carry = self.inner(_scaled(x, inverse), context, carry)
        skip = (spread * inverse) ** 2
        out = jnp.asarray(self.sign, sigma.dtype) * sigma * spread * inverse

        def mixed(value: Array, found: Array) -> Array:
            return align(skip, value) * value + align(out, value) * found

        return jax.tree.map(mixed, x, raw), carry


class Reversed:
    """A network of velocities whose time runs from noise to data, sign turned."""

    def __init__(self, fn: Callable):
        self.fn = fn

    def __call__(self, *args: Any) -> PyTree:
        """Minus the velocity."""
        return jax.tree.map(jnp.negative, self.fn(*args))

    def __hash__(self) -> int:
        return hash((Reversed, self.fn))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reversed) and self.fn == other.fn


def network(
    name: str,
    settings: Mapping[str, Any],
    process: Process,
    fn: Callable,
    *,
    predictions: int = 1,
    guidance: Callable[[Denoiser], Denoiser] | None = None,
    **options: Any,
) -> Any:
    """A network with its class's input scaling, then guidance, then clipping.

    Args:
        name: the scheduler class.
        settings: its parsed config.
        process: the path that the plan integrates.
        fn: fn([params,] x, label[, condition]) -> prediction.
        predictions: how many the plan takes; with 2 the second is left unclipped.
        guidance: denoiser -> denoiser.
        options: of `models.denoiser`.
    """
    kind = PREDICTIONS[settings["prediction_type"]]
    fn = Reversed(fn) if settings.get("invert_sigmas") else fn
    if name in EDM:
        model = models.denoiser(fn, process, prediction="data", **options)
        model = Preconditioned(
            model, settings["sigma_data"], 1.0 if kind != "v" else -1
        )
    else:
        model = models.denoiser(fn, process, prediction=kind, **options)
        model = Unscaled(model) if name in SCALED else model
    model = model if guidance is None else guidance(model)
    both = predictions > 1
    if settings.get("thresholding"):
        ratio, top = (
            settings["dynamic_thresholding_ratio"],
            settings["sample_max_value"],
        )
        return dynamic_threshold(model, ratio, ceiling=top, outputs=both)
    if settings.get("clip_sample"):
        reach = settings["clip_sample_range"]
        return clip(model, -reach, reach, outputs=both)
    return model
