"""FlowTurbo's refiner: a small network corrects the last velocity on some rows.

Let u = dx/dt in the process' time. A row with controls["refine"] = 0 runs the model
and keeps its u as v. The two stages of a refined step run R instead of the model:

    1:  d  = v + R(x, t, v)          2:  d' = d + R(x', t', v), then v <- d

Zhao et al. 2024 (2409.18128) (there time runs from noise 0
to data 1, and v has the other sign: our R(x, t, v) = -R_theirs(x, 1 - t, -v)).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..guards import checked
from ..hooks import Wrapped, carry_of
from ..numerics import to_data
from ..states import align
from ..trees import pytree
from ..typing import Array, Context, Denoiser, Process, PyTree

__all__ = ["VelocityRefined", "velocity_refiner"]


class _Carry(NamedTuple):
    inner: PyTree
    velocity: PyTree  # v, what the blocks pass on
    first: PyTree  # d, of the first stage


@pytree
class VelocityRefined(Wrapped):
    """A denoiser that hands the rows marked `refine` to a small network."""

    inner: Any
    params: PyTree
    process: Any
    fn: Callable = dataclasses.field(metadata={"static": True})

    def __call__(
        self, x: PyTree, context: Context, carry: _Carry
    ) -> tuple[PyTree, _Carry]:
        """The model's prediction, or the one that belongs to the refined velocity."""
        refine = context.control("refine")
        if refine is None:
            raise ValueError(
                "velocity_refiner reads controls['refine'] (0: model, 1 and 2: stages "
                "of a refined step); solvers.flow_turbo(..., refine=c) sets it."
            )
        stages = (self._model, self._first, self._second)
        return jax.lax.switch(refine, stages, x, context, carry)

    def _model(self, x: PyTree, context: Context, carry: _Carry) -> tuple:
        data, inner = self.inner(x, context, carry.inner)
        data = jax.tree.map(lambda v, d: jnp.asarray(d).astype(v.dtype), x, data)
        velocity = jax.tree.map(lambda v, d: _velocity(self, context, v, d), x, data)
        return data, _Carry(inner, velocity, carry.first)

    def _first(self, x: PyTree, context: Context, carry: _Carry) -> tuple:
        d = self._refined(x, context, carry.velocity, carry.velocity)
        return self._data(x, context, d), carry._replace(first=d)

    def _second(self, x: PyTree, context: Context, carry: _Carry) -> tuple:
        d = self._refined(x, context, carry.first, carry.velocity)
        return self._data(x, context, d), carry._replace(velocity=carry.first)

    def _refined(
        self, x: PyTree, context: Context, base: PyTree, velocity: PyTree
    ) -> PyTree:
        args = () if self.params is None else (self.params,)
        time = self.process.model_time(jnp.asarray(context.time))
        change = self.fn(*args, x, time, velocity)
        return jax.tree.map(lambda b, c: b + c.astype(b.dtype), base, change)

    def _data(self, x: PyTree, context: Context, velocity: PyTree) -> PyTree:
        return jax.tree.map(lambda v, u: _data(self, context, v, u), x, velocity)

    def initial_carry(self, x: PyTree) -> _Carry:
        """No velocity yet: the first row runs the model."""
        zeros = jax.tree.map(jnp.zeros_like, x)
        return _Carry(carry_of(self.inner, x), zeros, zeros)

    def check_plan(self, plan: Any) -> None:
        """ValueError for rows this cannot serve."""
        controls = plan.rows.controls
        if isinstance(controls, dict) and "refine" in controls:
            refine = controls["refine"]
            if isinstance(refine, np.ndarray) and (
                refine[0] != 0 or refine.min() < 0 or refine.max() > 2
            ):
                raise ValueError(
                    "controls['refine'] must be 0, 1 or 2 and start with 0 (the first "
                    f"velocity is the model's), got {refine.tolist()}."
                )
        super().check_plan(plan)


def _rates(self: VelocityRefined, context: Context, x: Array) -> tuple:
    """Alpha, sigma, alpha', sigma' in the dtype of a leaf, with as many axes."""
    rates = self.process.rates(jnp.asarray(context.time))
    return tuple(align(v, x, real=True) for v in (context.alpha, context.sigma, *rates))


def _velocity(self: VelocityRefined, context: Context, x: Array, data: Array) -> Array:
    """The velocity alpha' D + sigma' (x - alpha D) / sigma."""
    alpha, sigma, d_alpha, d_sigma = _rates(self, context, x)
    return d_alpha * data + d_sigma * (x - alpha * data) / sigma


def _data(self: VelocityRefined, context: Context, x: Array, velocity: Array) -> Array:
    """The data prediction that a velocity stands for."""
    known = _rates(self, context, x)
    return to_data("velocity", x, velocity, known[:2], known[2:])


@checked
def velocity_refiner(
    denoiser: Denoiser,
    refiner: Callable,
    process: Process,
    *,
    params: PyTree = None,
) -> VelocityRefined:
    """Let a small network refine the velocity on the rows that a plan marks.

    The model is not run on those rows. Plans: `fd.solvers.flow_turbo(process, ts,
    heun=a, pseudo=b, refine=c)`.

    Args:
        denoiser: the full model.
        refiner: R([params,] x, model time, v) -> change of the velocity dx/dt, a tree
            like x. Trained on ||R(x + s v, t + s, v) + v - u(x + s v, t + s)||^2.
        process: the path; its rates turn velocities into data predictions.
        params: the refiner's parameters, a pytree, None for none.

    Raises:
        ValueError: when sampling with a plan whose rows are not marked.

    Example:
        >>> import jax.numpy as jnp, fastdiff_jax as fd
        >>> flow = fd.processes.flow()
        >>> small = lambda x, t, v: jnp.zeros_like(v)
        >>> model = velocity_refiner(fd.models.gaussian(0.0, 0.1), small, flow)
    """
    return VelocityRefined(denoiser, params, process, refiner)
