"""What plans between two endpoints need beside a denoiser: y itself, and a scale.

with_endpoint   D  ->  (D, y), for `solvers.two_endpoint`
normalized      the network sees x / sqrt(sigma^2 + variance)
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..guards import checked, must
from ..hooks import Wrapped
from ..models.adapter import Model
from ..starts import degraded, spread_over
from ..states import align
from ..trees import as_tree, concrete, pytree
from ..typing import Context, Denoiser, Finite, PyTree
from .centred import refuse_plain_models
from .network import Restorer

__all__ = ["Normalized", "WithEndpoint", "normalized", "with_endpoint"]


@pytree
class WithEndpoint(Wrapped):
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

    @property
    def gives(self) -> tuple[str, ...]:
        """The data and the degraded input."""
        return ("data", "degraded")


@checked
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
    y = degraded(y)
    refuse_plain_models(denoiser)
    return WithEndpoint(as_tree(denoiser), y)


@pytree
class Normalized(Wrapped):
    """A denoiser that sees x / sqrt(sigma^2 + variance)."""

    inner: Any
    variance: Any = 1.0

    def __call__(
        self, x: PyTree, context: Context, carry: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The prediction at the scaled x."""

        def leaf(v: Any) -> Any:
            sigma, variance = align(context.sigma, v), align(self.variance, v)
            return v * jax.lax.rsqrt(sigma**2 + variance)

        return self.inner(jax.tree.map(leaf, x), context, carry)


@checked
def normalized(denoiser: Denoiser, variance: Finite = 1.0) -> Normalized:
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
    if concrete(variance) and not np.all(np.asarray(variance) > 0):
        raise must("variance", "> 0", variance)
    stop = (Model, Restorer)
    for part in jax.tree.leaves(denoiser, is_leaf=lambda v: isinstance(v, stop)):
        kind = part.net.prediction if isinstance(part, Restorer) else None
        kind = part.prediction if isinstance(part, Model) else kind
        if kind not in (None, "data"):
            raise ValueError(
                f"normalized needs a data predictor, got prediction={kind!r}, whose "
                "conversion needs the state itself. Scale x inside fn instead."
            )
    return Normalized(as_tree(denoiser), variance)
