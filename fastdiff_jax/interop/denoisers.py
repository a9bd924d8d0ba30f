"""Networks as the published pipelines call them, made into denoisers.

A scheduler that integrates x / alpha hands the network x / sqrt(sigma^2 + 1), the
variance-preserving state. An EDM scheduler hands it x / sqrt(sigma^2 + sigma_data^2)
and mixes its output with x. The others hand x itself. The output of a distilled network
becomes a consistency function, that of inversion a pair of data and noise.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .. import models
from ..hooks import Wrapped
from ..states import align
from ..transforms.thresholding import clip, dynamic_threshold
from ..trees import pytree
from ..typing import Array, Context, Denoiser, Process, PyTree
from ._classes import EDM, SCALED, base

__all__ = [
    "PREDICTIONS",
    "Boundary",
    "Preconditioned",
    "Reversed",
    "Unscaled",
    "WithNoise",
    "network",
    "output_map",
]

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
class Unscaled(Wrapped):
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
class Preconditioned(Wrapped):
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


@pytree
class Boundary(Wrapped):
    """The consistency function f = c_skip x + c_out D of a network's data prediction.

    With s = scaling times the label, c_skip = 0.25 / (s^2 + 0.25) and c_out =
    s / sqrt(s^2 + 0.25): f is x itself at label 0. Luo et al. 2023 (2310.04378).
    """

    inner: Any
    scaling: Any

    def __call__(
        self, x: PyTree, context: Context, carry: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The consistency function, taken for the data."""
        found, carry = self.inner(x, context, carry)
        sigma = jnp.asarray(context.sigma)
        scaling = jnp.asarray(self.scaling, sigma.dtype)
        s = scaling * jnp.asarray(context.control("model_time"), sigma.dtype)
        skip, out = 0.25 / (s**2 + 0.25), s * jax.lax.rsqrt(s**2 + 0.25)

        def mixed(value: Array, data: Array) -> Array:
            return align(skip, value) * value + align(out, value) * data

        return jax.tree.map(mixed, x, found), carry


@pytree
class WithNoise(Wrapped):
    """Data and noise predictions from one answer, both finite at sigma = 0.

    `inner` hands the network's raw output on. The data may be clipped, the noise stays
    as the network has it.
    """

    inner: Any
    reach: Any
    kind: str = dataclasses.field(metadata={"static": True})

    @property
    def gives(self) -> tuple[str, ...]:
        """Both names."""
        return ("data", "noise")

    def __call__(
        self, x: PyTree, context: Context, carry: PyTree
    ) -> tuple[tuple[PyTree, PyTree], PyTree]:
        """The pair."""
        raw, carry = self.inner(x, context, carry)
        level = jnp.asarray(context.alpha), jnp.asarray(context.sigma)

        def data(value: Array, found: Array) -> Array:
            a, s = (align(v, value) for v in level)
            plain = {
                "noise": lambda: (value - s * found) / a,
                "data": lambda: found,
                "v": lambda: a * value - s * found,
            }[self.kind]()
            if self.reach is None:
                return plain
            reach = jnp.asarray(self.reach, plain.dtype)
            return jnp.clip(plain, -reach, reach)

        def noise(value: Array, found: Array) -> Array:
            a, s = (align(v, value) for v in level)
            return {
                "noise": lambda: found,
                "data": lambda: (value - a * found) / s,
                "v": lambda: a * found + s * value,
            }[self.kind]()

        return (jax.tree.map(data, x, raw), jax.tree.map(noise, x, raw)), carry


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


def output_map(name: str, settings: Mapping[str, Any]) -> tuple | None:
    """What a class does to the data prediction: ('clip', reach) or ('threshold', ...).

    None where its step does nothing, whatever the settings ask for.
    """
    if base(name).startswith(("TCD", "CogVideoX")):
        return None
    raw = base(name).startswith("UniPC") and not settings["predict_x0"]
    if settings.get("thresholding") and not raw:
        keys = ("dynamic_thresholding_ratio", "sample_max_value")
        return ("threshold", *(settings[k] for k in keys))
    if settings.get("clip_sample"):
        return "clip", settings["clip_sample_range"]
    return None


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
        guidance: denoiser -> denoiser; of DDIMInverse it sees the raw prediction.
        options: of `models.denoiser`.
    """
    kind, name = PREDICTIONS[settings["prediction_type"]], base(name)
    turned = settings.get("invert_sigmas") or settings.get("reverse_sigmas")
    fn = Reversed(fn) if turned else fn
    bare = name in EDM or name == "DDIMInverseScheduler"
    told = "data" if bare else kind
    model: Any = models.denoiser(fn, process, prediction=told, **options)
    if name in EDM:
        sign = 1.0 if kind != "v" else -1
        model = Preconditioned(model, settings["sigma_data"], sign)
    elif name in SCALED:
        model = Unscaled(model)
    model = model if guidance is None else guidance(model)
    how, *limits = output_map(name, settings) or ("",)
    if name == "DDIMInverseScheduler":
        return WithNoise(model, limits[0] if limits else None, kind)
    both = predictions > 1
    if how == "threshold":
        ratio, top = limits
        model = dynamic_threshold(model, ratio, ceiling=top, outputs=both)
    elif how == "clip":
        model = clip(model, -limits[0], limits[0], outputs=both)
    if name == "LCMScheduler":
        return Boundary(model, settings["timestep_scaling"])
    return model
