"""RDDM: residual and noise are predicted and removed apart. 2308.13712.

    x = x_0 + abar R + bbar E,  R = y - x_0;  x_T = y + bbar_T z

Where the network gives only one of them, the other follows from x:

    E = (x - y + (1 - abar) R) / bbar,    R = y - (x - abar y - bbar E) / (1 - abar)
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from .. import solvers
from ..guards import checked
from ..plan import Plan
from ..states import align, like_state
from ..trees import pytree
from ..typing import Array, ArrayLike, Context, Process, PyTree
from .network import Restorer, denoiser

__all__ = ["ResidualModel", "rddm", "rddm_times", "residual_model"]

_OUTPUTS = ("both", "residual", "noise")
_ORDERS = ("together", "residual_first", "noise_first")


@pytree
class ResidualModel:
    """A network as the pair (R, E): for `solvers.residual_noise`, not for others."""

    gives: ClassVar[tuple[str, ...]] = ("residual", "noise")

    net: Restorer
    outputs: str = dataclasses.field(metadata={"static": True})

    def __call__(
        self, x: PyTree, context: Context, carry: PyTree
    ) -> tuple[tuple[PyTree, PyTree], PyTree]:
        """(R, E) at x."""
        out = self.net.net.raw(x, context)
        if self.outputs == "both":
            return tuple(out), carry
        out = like_state(x, out)

        def other(value: Array, found: Array, y: Any) -> Array:
            y = align(jnp.asarray(y).astype(value.dtype), value)
            alpha, sigma = align(context.alpha, value), align(context.sigma, value)
            if self.outputs == "noise":
                return y - (value - (1 - alpha) * y - sigma * found) / alpha
            gone = sigma == 0  # no noise is left: its weight is 0 as well
            noise = (value - y + alpha * found) / jnp.where(gone, 1, sigma)
            return jnp.where(gone, 0, noise)

        second = jax.tree.map(other, x, out, self.net.y)
        return ((out, second) if self.outputs == "residual" else (second, out)), carry

    def check_plan(self, plan: Any) -> None:
        """ValueError where R does not follow."""
        alpha = plan.rows.level.alpha
        if self.outputs == "noise" and isinstance(alpha, np.ndarray):
            if (alpha == 0).any():
                row = int(np.argwhere(alpha == 0)[0][0])
                raise ValueError(
                    "a noise network says nothing about the residual where abar = 1, "
                    f"as at row {row}, time {plan.rows.level.time[row]:g}. Start the "
                    "grid a label later, or use a network that gives the residual."
                )


@checked
def residual_model(
    fn: Callable,
    process: Process,
    y: PyTree,
    *,
    outputs: str = "both",
    **options: Any,
) -> ResidualModel:
    """A network of the residual, the noise or both as the pair (R, E).

    For a plan of the data prediction (any solver, `restore.sample`) give
    `restore.denoiser` the data instead: D = y - R, or prediction='noise'.

    Args:
        fn: fn([params,] x, y, t[, condition]) -> (R, E), R or E, trees like x.
        process: `processes.rddm(...)`.
        y: the degraded input, a tree like x.
        outputs: what fn returns: 'both', 'residual' or 'noise'.
        **options: params, condition, dtype, batch_time, as in `restore.denoiser`.

    Returns:
        A denoiser for plans of `restore.rddm` and `solvers.residual_noise` only.

    Raises:
        ValueError: unknown outputs.

    Example:
        >>> import fastdiff_jax as fd
        >>> process, y = fd.processes.rddm(), jnp.zeros((1, 4))
        >>> model = residual_model(lambda x, y, t: (y - x, 0 * x), process, y)

    Reference: 2308.13712, eq 8 and appendix A.
    """
    if outputs not in _OUTPUTS:
        raise ValueError(f"outputs must be one of {_OUTPUTS}, got {outputs!r}.")
    net = denoiser(fn, process, y, prediction="data", **options)
    return ResidualModel(net, outputs)


@checked
def rddm_times(
    process: Process, steps: int = 5, order: str = "together"
) -> tuple[np.ndarray, np.ndarray | None]:
    """The published labels, and the order in which residual and noise leave.

    Args:
        process: `processes.rddm(...)`.
        steps: number of steps of each clock.
        order: 'together'; 'residual_first' or 'noise_first': one after the other.

    Returns:
        (ts, noise_ts) for `solvers.residual_noise`; noise_ts is None if together.

    Raises:
        ValueError: an unknown order, or steps outside 1..T.

    Example:
        >>> import fastdiff_jax as fd
        >>> rddm_times(fd.processes.rddm(10), 2, "residual_first")
        (array([ 9.,  4., -1., -1., -1.]), array([ 9.,  9.,  9.,  4., -1.]))
    """
    if order not in _ORDERS:
        raise ValueError(f"order must be one of {_ORDERS}, got {order!r}.")
    total = int(process.start) + 1
    if not 1 <= steps <= total:
        raise ValueError(f"steps must lie in 1..{total}, the labels; got {steps}.")
    ts = np.trunc(np.linspace(-1, total - 1, steps + 1))[::-1] + 0.0
    if order == "together":
        return ts, None
    first = np.concatenate([ts, np.full(steps, ts[-1])])
    second = np.concatenate([np.full(steps, ts[0]), ts])
    return (first, second) if order == "residual_first" else (second, first)


@checked
def rddm(
    process: Process,
    steps: int = 5,
    *,
    eta: ArrayLike = 0.0,
    order: str = "together",
) -> Plan:
    """RDDM's sampler for restoration. Order 1.

    Start it from `restore.first_state` and run it with `fd.sample` and
    `restore.residual_model`.

    Args:
        process: `processes.rddm(...)`.
        steps: number of steps; published: 5 to 10 for restoration.
        eta: 0 = deterministic, as published for restoration; 1 = posterior.
        order: 'together', or 'residual_first' / 'noise_first', which take 2 steps
            calls of a network that is told both times (`context.controls`).

    Returns:
        A plan that integrates (R, E).

    Example:
        >>> import jax, fastdiff_jax as fd
        >>> process, y = fd.processes.rddm(), jnp.ones((2, 3))
        >>> exact = lambda x, y, t: y - 2.0  # the residual of x_0 = 2
        >>> model = residual_model(exact, process, y, outputs="residual")
        >>> x = fd.restore.first_state(process, y, jax.random.key(0))
        >>> bool(abs(fd.sample(rddm(process), model, x) - 2.0).max() < 1e-5)
        True

    Reference: 2308.13712, algorithm 2.
    """
    ts, noise_ts = rddm_times(process, steps, order)
    return solvers.residual_noise(process, ts, eta=eta, noise_ts=noise_ts)
