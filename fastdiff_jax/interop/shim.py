"""A stateless scheduler for code that owned a flax one: same calls, our plans.

    scheduler = Shim("scheduler_config.json")
    state = scheduler.create_state()
    state = scheduler.set_timesteps(state, 20, latents.shape)
    for t in state.timesteps:
        x = scheduler.scale_model_input(state, latents, t)
        latents, state = scheduler.step(state, network(x, t), t, latents)

Every call is pure and works under jit, scan and fori_loop. A step is one row of the
plan, found by a counter in the state; `timestep` is never looked up, so repeated or
rounded labels are safe.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import engine, processes
from ..plan import Row
from ..states import per_sample
from ..trees import concrete
from ..typing import Array, ArrayLike, Key
from ._classes import EDM, EXACT, SCALED, base
from ._parse import load
from ._schedules import trained
from .config import from_scheduler_config, read
from .denoisers import network

__all__ = ["Shim", "ShimState", "StepOutput"]


class ShimState(NamedTuple):
    """What the calls hand on; a pytree.

    Attributes:
        timesteps: what the network is told at each call, (R,).
        init_noise_sigma: what unit noise is multiplied by to start.
        index: calls of `step` so far.
        rows: the plan's rows, or None before `set_timesteps`.
        run: the engine's state.
    """

    timesteps: Array
    init_noise_sigma: float | Array
    index: int | Array = 0
    rows: Row | None = None
    run: engine.State | None = None


class StepOutput(NamedTuple):
    """The next state of the sample, where the network is evaluated next."""

    prev_sample: Array
    state: ShimState

    def to_tuple(self) -> tuple[Array, ShimState]:
        """(prev_sample, state)."""
        return self.prev_sample, self.state


class Shim:
    """A published scheduler behind the calls of the flax ones.

    Args:
        config: a scheduler_config.json, its path or its contents.
        options: as in `from_scheduler_config`: eta, mu, order, ...

    Raises:
        ValueError: an unknown or contradictory setting, by name.

    Example:
        >>> shim = Shim({"_class_name": "FlaxDDIMScheduler", "clip_sample": False})
        >>> state = shim.set_timesteps(shim.create_state(), 4, (1, 2))
        >>> [int(t) for t in state.timesteps]
        [750, 500, 250, 0]
    """

    def __init__(
        self, config: Mapping[str, Any] | str | os.PathLike[str], **options: Any
    ):
        self._config = dict(load(config))
        self.name, self.settings = read(self._config)
        self.options = options
        self._base = base(self.name)
        count = self.settings.get("num_train_timesteps", 1000)
        self._count = float(count)
        self._flow = self.settings["prediction_type"] == "flow_prediction"
        self._own = self._base in EDM or self._base == "IPNDMScheduler"
        if not (self._flow or self._own):
            path = trained(self.settings, self._base in EXACT)
            labels = np.arange(count)
            self._alpha, self._sigma = path.alpha(labels), path.sigma(labels)

    @property
    def process(self) -> Any:
        """The path that a velocity refers to; other predictions need none."""
        return processes.flow(self._count) if self._flow else None

    @property
    def _unit(self) -> float:
        """The label of a flow's noise end."""
        own = self._base == "FlaxRectifiedFlowMultistepScheduler"
        return 1.0 if own else self._count

    def create_state(self) -> ShimState:
        """A state before `set_timesteps`: the labels of training, noise first."""
        labels = np.arange(self._count)[::-1].copy()
        start = 1.0
        if self._base in SCALED:
            start = float(self._sigma[-1] / self._alpha[-1])
            leading = self.settings["timestep_spacing"] == "leading"
            start = float(np.hypot(start, 1.0)) if leading else start
        elif self._base in EDM:
            start = float(np.hypot(self.settings["sigma_max"], 1.0))
        return ShimState(labels, start)

    def set_timesteps(
        self,
        state: ShimState,
        num_inference_steps: int | None = None,
        shape: tuple[int, ...] = (),
        *,
        dtype: Any = jnp.float32,
        begin: int = 0,
        **options: Any,
    ) -> ShimState:
        """The state before the first step of a run.

        Args:
            state: any state of this scheduler.
            num_inference_steps: N, static under jit.
            shape: of the sample.
            dtype: of the sample's arithmetic, float32 or wider.
            begin: steps to leave out at the start (image to image). `timesteps` then
                begins there, and methods with a history warm up there.
            options: over those given to the constructor.
        """
        del state
        made = from_scheduler_config(
            self._config, num_inference_steps, begin=begin, **self.options | options
        )
        rows = made.plan.rows
        run = engine.init(made.plan, jnp.zeros(shape, dtype))
        index = jnp.asarray(0, jnp.int32)
        return ShimState(made.labels, made.initial, index, rows, run)

    def scale_model_input(
        self, state: ShimState, sample: Array, timestep: ArrayLike | None = None
    ) -> Array:
        """What the network gets: x / sqrt(sigma^2 + 1) for Euler, Heun, LMS, KDPM2."""
        if self._base not in SCALED and self._base not in EDM:
            return sample
        rows, _, index = self._ready(state, timestep)
        spread = self.settings["sigma_data"] if self._base in EDM else 1.0
        sigma = jnp.asarray(rows.level.sigma)[index]
        return sample * per_sample(jax.lax.rsqrt(sigma**2 + spread**2), sample)

    def step(
        self,
        state: ShimState,
        model_output: Array,
        timestep: ArrayLike,
        sample: Array,
        key: Key | None = None,
        *,
        noise: Array | None = None,
        return_dict: bool = True,
    ) -> StepOutput:
        """One row of the plan.

        Args:
            state: from `set_timesteps` or the step before.
            model_output: what the network returned for `scale_model_input(sample)`.
            timestep: the label it was told; only checked, and only outside jit.
            sample: the sample, as the step before returned it or changed since.
            key: for a scheduler that draws noise, a new one per step.
            noise: the noise itself instead.
            return_dict: accepted; the result is a tuple with names either way.

        Returns:
            (prev_sample, state). After the last row, prev_sample is NaN.

        Raises:
            ValueError: before `set_timesteps`, after the last row, or (outside jit)
                with another row's timestep.
        """
        del return_dict
        rows, run, index = self._ready(state, timestep)
        row = jax.tree.map(lambda w: jnp.asarray(w)[index], rows)
        x = jnp.asarray(sample, run.point.dtype)
        z = noise
        if z is None and key is not None:
            z = jax.random.normal(key, x.shape, x.dtype)
        run = run.at(x)._replace(carry=None)
        denoiser = network(
            self.name,
            self.settings,
            self.process,
            lambda *_: model_output,
            predictions=rows.predictions.shape[2],
        )
        after, _ = engine.step(run, row, denoiser, noise=z)
        left = index < rows.index.shape[0]
        out = jnp.where(left, after.point, jnp.nan).astype(jnp.asarray(sample).dtype)
        return StepOutput(out, state._replace(index=index + 1, run=after))

    def add_noise(
        self, state: ShimState, original_samples: Array, noise: Array, timesteps: Array
    ) -> Array:
        """Alpha x + sigma z at given labels, scalar or one per sample.

        Before `set_timesteps` labels are those of training; after it, schedulers of
        x / alpha and of sigma itself use the run's level with the nearest label.
        """
        label = jnp.asarray(timesteps)
        x = jnp.asarray(original_samples)
        if self._own or (self._base in SCALED and state.rows is not None):
            level = self._ready(state, None)[0].level
            known = jnp.asarray(state.timesteps)
            told = label.astype(known.dtype)[..., None]
            gap = jnp.abs(known.reshape((1,) * label.ndim + (-1,)) - told)
            near = jnp.argmin(gap, axis=-1)
            alpha, sigma = (jnp.asarray(v)[near] for v in (level.alpha, level.sigma))
        elif self._flow:
            sigma = label.astype(jnp.result_type(float)) / self._unit
            turned = ("invert_sigmas", "reverse_sigmas")
            sigma = 1 - sigma if any(map(self.settings.get, turned)) else sigma
            alpha = 1 - sigma
        else:
            whole = jnp.round(label).astype(jnp.int32)
            alpha, sigma = (jnp.asarray(v)[whole] for v in (self._alpha, self._sigma))
            if self._base in SCALED:
                alpha, sigma = jnp.ones_like(alpha), sigma / alpha
        return per_sample(alpha, x) * x + per_sample(sigma, x) * jnp.asarray(
            noise, x.dtype
        )

    def _ready(self, state: ShimState, timestep: Any) -> tuple[Row, engine.State, Any]:
        """The rows, the run and the counter, after checking what can be checked."""
        if state.rows is None or state.run is None:
            raise ValueError(
                "this state has no plan; call set_timesteps(state, steps, shape) first."
            )
        index = state.index
        if not concrete(index, state.timesteps):
            return state.rows, state.run, index
        if int(index) >= len(state.timesteps):
            raise ValueError(
                f"all {len(state.timesteps)} steps are taken; call set_timesteps again."
            )
        want = float(state.timesteps[int(index)])
        if timestep is not None and concrete(timestep):
            told = float(np.asarray(timestep).ravel()[0])
            if abs(told - want) >= 1:
                raise ValueError(
                    f"timestep={told:g}, but call {int(index)} is at {want:g}. Take "
                    "the steps in the order of state.timesteps; to start later, give "
                    "set_timesteps(..., begin=...)."
                )
        return state.rows, state.run, index
