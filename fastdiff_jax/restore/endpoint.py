"""What plans between two endpoints need beside a denoiser: y itself, and a start.

with_endpoint   D  ->  (D, y), for `solvers.two_endpoint`
first_state     x_T = k y + sigma_T z
normalized      the network sees x / sqrt(sigma^2 + variance)
"""

from typing import Any

import jax
import jax.numpy as jnp

from ..engine import prior
from ..hooks import carry_of, check_inner
from ..models.adapter import Model, fit
from ..trees import pytree
from ..typing import Context, Denoiser, Key, Process, PyTree
from .centred import (
    _degraded,
    _Function,
    _refuse_plain_models,
    centre_of,
    spread_over,
)
from .network import Restorer

__all__ = [
    "Normalized",
    "WithEndpoint",
    "first_state",
    "normalized",
    "with_endpoint",
]


@pytree
class WithEndpoint:
    """A denoiser that returns (D, y); y is an argument of the compiled run."""

    inner: Any
    y: PyTree

    def __call__(
        self, x: PyTree, context: Context, carry: PyTree
    ) -> tuple[tuple[PyTree, PyTree], PyTree]:
        """(D, y) at x."""
        out, carry = self.inner(x, context, carry)
        y = jax.tree.map(
            lambda v, like: jnp.broadcast_to(v, like.shape), spread_over(self.y, x), x
        )
        return (out, y), carry

    def initial_carry(self, x: PyTree) -> PyTree:
        """The inner denoiser's."""
        return carry_of(self.inner, x)

    def check_plan(self, plan: Any) -> None:
        """ValueError where the plan does not take (D, y); else as the inner one."""
        if plan.predictions != 2:
            raise ValueError(
                f"with_endpoint gives (D, y) and this plan takes {plan.predictions} "
                "prediction. Build it with solvers.two_endpoint(process, ts), or run "
                "it with restore.sample, which centres the state on y."
            )
        check_inner(self.inner, plan)


def with_endpoint(denoiser: Denoiser, y: PyTree) -> WithEndpoint:
    """A denoiser for `solvers.two_endpoint`: D -> (D, y).

    Args:
        denoiser: in the process' own coordinates, e.g. `restore.denoiser(...)`.
        y: the degraded input, a tree like x; leaves broadcast against those of x.

    Returns:
        A denoiser for `fd.sample`; another y of equal shape does not recompile.

    Raises:
        ValueError: whole numbers in y, or a denoiser that converts without beta y.

    Example:
        >>> import jax, fastdiff_jax as fd
        >>> process, y = fd.processes.sb_ve(), jax.numpy.ones((4, 3))
        >>> plan = fd.restore.sb_ve(process, 20)
        >>> net = lambda x, y, t: y + 1.0  # speech is 2
        >>> net = fd.restore.denoiser(net, process, y, prediction="data")
        >>> x = fd.sample(plan, with_endpoint(net, y), y, key=jax.random.key(0))
        >>> bool(abs(x - 2.0).max() < 1e-3)
        True
    """
    y = _degraded(y)
    _refuse_plain_models(denoiser)
    if callable(denoiser) and jax.tree_util.all_leaves([denoiser]):
        denoiser = _Function(denoiser)
    return WithEndpoint(denoiser, y)


def first_state(
    process: Process, y: PyTree, key: Key, *, start: float | None = None
) -> PyTree:
    """The state that restoration starts from: x_T = k y + sigma_T z.

    What the true x_T adds, alpha_T (x_0 - k y), is not known; it is small or zero at
    the start of every published path but OUVE's.

    Args:
        process: a path with two endpoints and a centre k.
        y: the degraded input, leaves (B, ...).
        key: a key, or one per sample.
        start: the plan's first time, None for the process' own.

    Returns:
        A tree like y. Complex y gets complex noise of total variance 1.

    Example:
        >>> import jax, fastdiff_jax as fd
        >>> y = jax.numpy.ones((4000, 1))
        >>> x = first_state(fd.processes.resfusion(), y, jax.random.key(0))
        >>> abs(float(x.mean()) - 0.5) < 0.05, abs(float(x.std()) - 0.75**0.5) < 0.05
        (True, True)
    """
    y = _degraded(y)
    z = prior(process, key, y, start=start)
    shift = spread_over(y, z, centre_of(process))
    return jax.tree.map(jnp.add, z, shift)


@pytree
class Normalized:
    """A denoiser that sees x / sqrt(sigma^2 + variance)."""

    inner: Any
    variance: Any = 1.0

    def __call__(
        self, x: PyTree, context: Context, carry: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The prediction at the scaled x."""

        def leaf(v: Any) -> Any:
            sigma, variance = fit(context.sigma, v), fit(self.variance, v)
            return v * jax.lax.rsqrt(sigma**2 + variance)

        return self.inner(jax.tree.map(leaf, x), context, carry)

    def initial_carry(self, x: PyTree) -> PyTree:
        """The inner denoiser's."""
        return carry_of(self.inner, x)

    def check_plan(self, plan: Any) -> None:
        """As the inner denoiser."""
        check_inner(self.inner, plan)


def normalized(denoiser: Denoiser, variance: Any = 1.0) -> Normalized:
    """Scale what the network sees to unit variance: ResShift's latent networks.

    net(x / sqrt(sigma^2 + variance)), sigma^2 = eta kappa^2 on ResShift's path.

    Args:
        denoiser: a data predictor; its output is not scaled.
        variance: of the data in the state's units.

    Raises:
        ValueError: a network whose output is converted with x, which must see x.

    Example:
        >>> import fastdiff_jax as fd
        >>> process, y = fd.processes.resshift(), jnp.zeros((1, 4))
        >>> net = fd.restore.denoiser(lambda x, y, t: x, process, y, prediction="data")
        >>> model = normalized(net)

    Reference: Yue et al. 2023 (2307.12348), published code.
    """
    stop = (Model, Restorer)
    for part in jax.tree.leaves(denoiser, is_leaf=lambda v: isinstance(v, stop)):
        kind = part.net.prediction if isinstance(part, Restorer) else None
        kind = part.prediction if isinstance(part, Model) else kind
        if kind not in (None, "data"):
            raise ValueError(
                f"normalized needs a data predictor, got prediction={kind!r}, whose "
                "conversion needs the state itself. Scale x inside fn instead."
            )
    if callable(denoiser) and jax.tree_util.all_leaves([denoiser]):
        denoiser = _Function(denoiser)
    return Normalized(denoiser, variance)
