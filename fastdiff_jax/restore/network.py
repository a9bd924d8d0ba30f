"""A restoration network, fn(x, y, t), as a denoiser in the process' own coordinates.

The network sees the state x = alpha x_0 + beta y + sigma eps and the degraded y. With
u = x - beta y = alpha x_0 + sigma E its output becomes the data prediction,

    noise     D = (u - sigma E) / alpha
    score     D = (u + sigma^2 S) / alpha

and, around the centre (w = x - k y, beta = k (1 - alpha)) and in the unit lambda of the
process' noise (lambda_inf of a mean-reverting process, else 1),

    v         D - k y = (alpha w - sigma v / lambda) / (alpha^2 + sigma^2 / lambda^2),
              v = alpha lambda E - (sigma / lambda) (x_0 - k y)
    velocity  D - k y = (sigma' w - sigma u) / (alpha sigma' - alpha' sigma), u = dx/dt
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ..guards import checked, must
from ..models.adapter import Model
from ..models.adapter import denoiser as plain
from ..numerics import to_data
from ..states import align, arrays, like_state, some_arrays
from ..trees import pytree
from ..typing import Array, Context, DType, Process, PyTree

__all__ = ["Restorer", "denoiser"]


@dataclasses.dataclass(frozen=True)
class _WithInput:
    """fn([params,] x, y, t[, condition]) as the adapter calls it; static."""

    fn: Callable
    parameters: bool

    def __call__(self, bound: tuple, x: PyTree, t: Array, *condition: PyTree) -> PyTree:
        params, y = bound
        # the network gets both inputs in its own dtype
        y = jax.tree.map(
            lambda v, like: jnp.broadcast_to(
                jnp.asarray(v).astype(like.dtype), like.shape
            ),
            y,
            x,
        )
        return self.fn(*([params] if self.parameters else []), x, y, t, *condition)


@pytree
class Restorer:
    """A network of (x, y, t) as a denoiser; a pytree, new numbers do not recompile."""

    net: Model
    gives: ClassVar[tuple[str, ...]] = ("data",)

    @property
    def y(self) -> PyTree:
        """The degraded input."""
        return self.net.params[1]

    def __call__(
        self, x: PyTree, context: Context, carry: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The data prediction at x, in the process' own coordinates."""
        out = like_state(x, self.net.raw(x, context))

        def leaf(value: Array, found: Array, y: Any) -> Array:
            y = align(jnp.asarray(y).astype(value.dtype), value)
            return self._to_data(value, found, y, context)

        return jax.tree.map(leaf, x, out, self.y), carry

    def _to_data(self, x: Array, out: Array, y: Array, context: Context) -> Array:
        kind, process = self.net.prediction, self.net.process
        alpha, sigma = (align(v, x) for v in (context.alpha, context.sigma))
        time, rates = jnp.asarray(context.time), ()
        if kind in ("data", "noise", "score"):
            u = x if kind == "data" else x - align(process.beta(time), x) * y
            return to_data(kind, u, out, (alpha, sigma))
        shift = align(process.centre, x) * y
        if kind == "v":
            sigma = sigma / align(getattr(process, "unit", 1.0), x)
        else:
            rates = tuple(align(v, x) for v in process.rates(time))
        return shift + to_data(kind, x - shift, out, (alpha, sigma), rates)

    def check_plan(self, plan: Any) -> None:
        """ValueError where this kind of prediction does not give the data."""
        self.net.check_plan(plan)


@checked
def denoiser(
    fn: Callable,
    process: Process,
    y: PyTree,
    *,
    prediction: str,
    params: PyTree = None,
    condition: PyTree = None,
    dtype: DType | None = None,
    batch_time: bool = False,
) -> Restorer:
    """A network of the state and the degraded input as a denoiser.

    Args:
        fn: fn([params,] x, y, t[, condition]) -> prediction, a tree like x. `params`
            and `condition` are passed only where given.
        process: a path with two endpoints: `beta(t)`, the weight of y.
        y: the degraded input, a tree like x (leaves may broadcast).
        prediction: 'noise', 'data', 'v', 'score' or 'velocity' (dx/dt). 'v' is the
            rotation around the centre, as a mean-reverting network is trained on it.
        params: parameters, a pytree. Give them here and not in fn's closure.
        condition: what else to condition on. Guidance replaces it.
        dtype: of the network's x and y; the state stays float32 or wider.
        batch_time: give the network times of shape (B,) instead of a scalar.

    Returns:
        A denoiser in the process' own coordinates, for `restore.sample`.

    Raises:
        ValueError: an unknown prediction, a process without `beta`, or 'v' and
            'velocity' where the process has no centre.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.mean_reverting()
        >>> y = jax.numpy.zeros((2, 8, 8, 1))
        >>> model = denoiser(lambda x, y, t: y, process, y, prediction="data")
    """
    if not hasattr(process, "beta"):
        fix = "Use e.g. processes.mean_reverting(), or models.denoiser without y."
        raise must("process", "a path with two endpoints (beta of y)", process, fix)
    some_arrays(arrays("y", y), "y")
    bound = _WithInput(fn, params is not None)
    net = plain(
        bound,
        process,
        prediction=prediction,
        condition=condition,
        params=(params, y),
        dtype=dtype,
        batch_time=batch_time,
    )
    if net.prediction in ("v", "velocity") and getattr(process, "centre", None) is None:
        raise ValueError(
            f"prediction={prediction!r} is defined around a centre, and "
            f"{type(process).__name__} has none. Use 'noise', 'data' or 'score'."
        )
    return Restorer(net)
