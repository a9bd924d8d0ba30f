"""Any network as a denoiser: predictions of every kind become data predictions."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ..guards import checked, must
from ..numerics import PREDICTIONS, stray, to_data
from ..states import align, like_state, real_dtype
from ..trees import concrete, pytree
from ..typing import Array, Context, DType, Process, PyTree

__all__ = ["Model", "denoiser", "from_flax", "from_linen", "from_nnx"]

_ALIASES = {
    "epsilon": "noise",
    "eps": "noise",
    "sample": "data",
    "x0": "data",
    "v_prediction": "v",
    "flow_prediction": "velocity",
    "flow": "velocity",
}


@pytree
class Model:
    """A network as a denoiser: (x, context, carry) -> (data prediction, carry).

    A pytree whose leaves are the parameters, the condition and the process' constants:
    passed through jit as an argument, so new numbers do not recompile.
    """

    gives: ClassVar[tuple[str, ...]] = ("data",)

    params: PyTree
    condition: PyTree
    process: Any
    fn: Callable = dataclasses.field(metadata={"static": True})
    prediction: str = dataclasses.field(metadata={"static": True})
    dtype: Any = dataclasses.field(default=None, metadata={"static": True})
    batch_time: bool = dataclasses.field(default=False, metadata={"static": True})

    def __call__(
        self, x: PyTree, context: Context, carry: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The data prediction at x."""
        out = like_state(x, self.raw(x, context))
        rates: tuple = ()
        if self.prediction == "velocity":
            rates = self.process.rates(jnp.asarray(context.time))
        level = (context.alpha, context.sigma)

        def leaf(value: Array, found: Array) -> Array:
            scales, speeds = (tuple(align(v, value) for v in w) for w in (level, rates))
            return to_data(self.prediction, value, found, scales, speeds)

        return jax.tree.map(leaf, x, out), carry

    def raw(self, x: PyTree, context: Context) -> PyTree:
        """The network's own output."""
        condition = self.condition if context.condition is None else context.condition
        first = jax.tree.leaves(x)[0]
        inputs = x
        if self.dtype is not None:
            inputs = jax.tree.map(lambda v: v.astype(self.dtype), x)
        args = [] if self.params is None else [self.params]
        args += [inputs, self._time(context, first)]
        return self.fn(*args, *([] if condition is None else [condition]))

    def _time(self, context: Context, x: Array) -> Array:
        """What the network is told: controls win, then the process' clock."""
        told = context.control("model_time")
        if told is not None:
            time = jnp.asarray(told)
        elif self.process is None:
            time = jnp.asarray(context.time)
        else:
            time = self.process.model_time(jnp.asarray(context.time))
        time = time.astype(real_dtype(x) if self.dtype is None else jnp.float32)
        if self.batch_time and time.ndim == 0:
            time = jnp.broadcast_to(time, x.shape[:1])
        return time

    def check_plan(self, plan: Any) -> None:
        """ValueError for another process' plan, or where the data cannot be told."""
        level = plan.rows.level
        if not all(isinstance(v, np.ndarray) for v in (level.time, level.alpha)):
            return
        if self.prediction in ("noise", "score") and (level.alpha == 0).any():
            row = int(np.argwhere(level.alpha == 0)[0][0])
            raise ValueError(
                f"a {self.prediction} prediction says nothing about the data where "
                f"alpha = 0, as at row {row}, time {level.time[row]:g}. "
                "Start the grid a little later, or use a v, velocity or data model."
            )
        _check_process(self.process, level, plan.rows.controls)


def _check_process(process: Any, level: Any, controls: PyTree) -> None:
    """Raise ValueError where the plan's levels are not the process' at its times."""
    told = isinstance(controls, dict) and "model_time" in controls
    if process is None or told or not concrete(process):
        return
    found = stray(jax.tree.map(np.asarray, process), level)
    if found is not None:
        row, time, name, has, own = found
        raise ValueError(
            f"plan must be built for the model's process: at row {row}, time "
            f"{time:.6g}, the plan has {name} = {has:.6g} and "
            f"{type(process).__name__} has {own:.6g}. Build both with one process, or "
            "give the network its times as controls['model_time']."
        )


@checked
def denoiser(
    fn: Callable,
    process: Process | None = None,
    *,
    prediction: str,
    condition: PyTree = None,
    params: PyTree = None,
    dtype: DType | None = None,
    batch_time: bool = False,
) -> Model:
    """Any function as a denoiser.

    Args:
        fn: fn([params,] x, t[, condition]) -> prediction, a tree like x. `params` and
            `condition` are passed only where given.
        process: gives the network's time from the plan's (`process.model_time`), and
            a velocity's rates. None: the network takes the plan's time.
        prediction: 'noise', 'data', 'v', 'score' or 'velocity' (dx/dt).
        condition: what to condition on, e.g. labels of shape (B,). Guidance replaces
            it.
        params: parameters, a pytree. Give large ones here and not in fn's closure:
            what a closure holds is compiled into the program as constants.
        dtype: of the network's x; the state stays float32 or wider. The time stays
            float32 (bf16 would round 998.4 to 1000).
        batch_time: give the network times of shape (B,) instead of a scalar.

    Returns:
        A denoiser for `fd.sample`.

    Raises:
        ValueError: an unknown prediction, or velocity without a process.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.flow()
        >>> model = denoiser(lambda x, t: x, process, prediction="velocity")
    """
    kind = _ALIASES.get(prediction, prediction)
    if kind not in PREDICTIONS:
        near = difflib.get_close_matches(str(prediction), [*PREDICTIONS, *_ALIASES], 1)
        raise ValueError(
            f"prediction must be one of {', '.join(PREDICTIONS)}; got {prediction!r}."
            + (f" Did you mean {near[0]!r}?" if near else "")
        )
    if kind == "velocity" and process is None:
        raise ValueError(
            "prediction='velocity' needs the process it was trained on; pass e.g. "
            "processes.flow()."
        )
    return Model(params, condition, process, fn, kind, dtype, batch_time)


class _Linen:
    """A linen module's apply; equal modules compile once."""

    def __init__(self, module: Any):
        self.module = module

    def __call__(self, variables: PyTree, *args: Any) -> Any:
        return self.module.apply(variables, *args)

    def __hash__(self) -> int:
        return hash(self.module)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Linen) and self.module == other.module


@checked
def from_linen(
    module: Any,
    variables: Mapping[str, Any],
    process: Process | None = None,
    *,
    prediction: str,
    condition: PyTree = None,
    dtype: DType | None = None,
) -> Model:
    """A flax linen module as a denoiser: module.apply(variables, x, t[, condition]).

    Args:
        module: the module; t has shape (B,).
        variables: {'params': ...} as `module.init` returns, or the params alone.
        process, prediction, condition, dtype: as in `denoiser`.
    """
    if not hasattr(module, "apply"):
        raise must("module", "a flax linen module", module, "For nnx: from_nnx.")
    if not jax.tree.leaves(variables):
        raise must("variables", "what module.init returns", variables)
    if not (isinstance(variables, dict) and "params" in variables):
        variables = {"params": variables}
    return denoiser(
        _Linen(module),
        process,
        prediction=prediction,
        condition=condition,
        params=variables,
        dtype=dtype,
        batch_time=True,
    )


class _NNX:
    """An nnx graph definition applied to its state."""

    def __init__(self, graph: Any):
        self.graph = graph

    def __call__(self, state: PyTree, *args: Any) -> Any:
        from flax import nnx

        return nnx.merge(self.graph, state)(*args)

    def __hash__(self) -> int:
        return hash(self.graph)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _NNX) and self.graph == other.graph


@checked
def from_nnx(
    module: Any,
    process: Process | None = None,
    *,
    prediction: str,
    condition: PyTree = None,
    dtype: DType | None = None,
) -> Model:
    """A flax nnx module as a denoiser: module(x, t[, condition]), t of shape (B,).

    Put the module in evaluation mode first (`module.eval()`).
    """
    from flax import nnx

    if not isinstance(module, nnx.Module):
        raise must("module", "an nnx module", module, "For linen: from_linen.")
    graph, state = nnx.split(module)
    return denoiser(
        _NNX(graph),
        process,
        prediction=prediction,
        condition=condition,
        params=state,
        dtype=dtype,
        batch_time=True,
    )


@checked
def from_flax(
    module: Any,
    params: PyTree = None,
    process: Process | None = None,
    *,
    prediction: str,
    condition: PyTree = None,
    dtype: DType | None = None,
) -> Model:
    """A flax module of either kind: linen with its params, nnx without.

    Options as in `from_linen` and `from_nnx`.
    """
    from flax import nnx

    options = {"prediction": prediction, "condition": condition, "dtype": dtype}
    if isinstance(module, nnx.Module):
        if params is not None:
            raise ValueError(
                "an nnx module carries its own parameters; leave params None."
            )
        return from_nnx(module, process, **options)
    if params is None:
        raise ValueError("a linen module needs params, as module.init returned them.")
    return from_linen(module, params, process, **options)
