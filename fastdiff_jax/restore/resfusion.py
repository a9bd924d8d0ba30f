"""Resfusion: DDPM's reverse step, unchanged, restores. Shi et al. 2023 (2311.14900).

The network predicts the residual noise

    rho = E + (1 - sqrt(alpha_t)) sqrt(1 - abar_t) / beta_t (y - x_0)

with alpha_t = 1 - beta_t of one training step. Then the posterior update of DDPM,
x_{t-1} = (x_t - beta_t rho / sqrt(1 - abar_t)) / sqrt(alpha_t) + c z, is exact for the
path, and with a = sqrt(abar_t), m = (1 - abar_t) / (1 + sqrt(alpha_t))

    D = (x - (1 - a - m) y - sqrt(1 - abar_t) rho) / (2a - 1 + m),

finite at a = 1/2, where x has forgotten x_0: sampling starts there, at
y / 2 + sqrt(3/4) z.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from .. import solvers
from ..guards import checked
from ..plan import Plan
from ..states import align
from ..trees import pytree
from ..typing import Array, ArrayLike, Context, Process, PyTree
from .network import Restorer, denoiser
from .resshift import labels

__all__ = ["ResidualNoise", "resfusion", "resnoise_denoiser"]


@pytree
class ResidualNoise:
    """A network of the residual noise rho as a denoiser."""

    net: Restorer
    gives: ClassVar[tuple[str, ...]] = ("data",)

    def __call__(
        self, x: PyTree, context: Context, carry: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The data prediction at x, in the process' own coordinates."""
        out, carry = self.net(x, context, carry)
        process, time = self.net.net.process, jnp.asarray(context.time)
        sigma, root = process.sigma(time), process.step_root(time)
        lift = sigma**2 / (1 + root)  # m
        level = (context.alpha, process.beta(time), sigma, lift)

        def leaf(value: Array, rho: Array, y: Any) -> Array:
            alpha, beta, sigma, lift = (align(v, value) for v in level)
            y = align(jnp.asarray(y).astype(value.dtype), value)
            return (value - (beta - lift) * y - sigma * rho) / (alpha + lift)

        return jax.tree.map(leaf, x, out, self.net.y), carry

    def check_plan(self, plan: Any) -> None:
        """ValueError for another process' plan."""
        self.net.check_plan(plan)


@checked
def resnoise_denoiser(
    fn: Callable, process: Process, y: PyTree, **options: Any
) -> ResidualNoise:
    """A network of the residual noise as a denoiser.

    Args:
        fn: fn([params,] x, y, t[, condition]) -> rho, a tree like x.
        process: `processes.resfusion(...)`, which knows the training step's alpha_t.
        y: the degraded input, a tree like x.
        **options: params, condition, dtype, batch_time, as in `restore.denoiser`.

    Returns:
        A denoiser in the process' own coordinates, for `restore.sample`.

    Raises:
        ValueError: a process that is not Resfusion's.

    Example:
        >>> import fastdiff_jax as fd
        >>> process, y = fd.processes.resfusion(), jnp.zeros((1, 4))
        >>> model = resnoise_denoiser(lambda x, y, t: x - y, process, y)

    Reference: 2311.14900, eqs 24 and 33.
    """
    if not hasattr(process, "step_root"):
        raise ValueError(
            "a residual-noise network needs processes.resfusion(), which knows the "
            f"training step; got {type(process).__name__}."
        )
    return ResidualNoise(denoiser(fn, process, y, prediction="data", **options))


@checked
def resfusion(
    process: Process, ts: ArrayLike | None = None, *, eta: ArrayLike = 1.0
) -> Plan:
    """Resfusion's sampler: DDPM's posterior step at every label. Order 1.

    Run it with `restore.sample`, whose start is y / 2 + sqrt(3/4) z.

    Args:
        process: `processes.resfusion(...)`.
        ts: times, non-increasing, None for every label.
        eta: 1 = DDPM's posterior, as published; 0 = the ODE.

    Returns:
        A plan for the state x - y / 2: 5 rows for the published 12-step chain.

    Example:
        >>> import fastdiff_jax as fd
        >>> resfusion(fd.processes.resfusion()).nfe
        5

    Reference: 2311.14900, eqs 28 and 33.
    """
    ts = labels(process) if ts is None else ts
    return solvers.two_endpoint(process, ts, eta=eta, endpoint=False)
