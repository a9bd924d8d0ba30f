"""Brownian paths in half log-SNR that do not depend on the steps, and their term."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax

from ..guards import checked, must
from ..noise.streams import keys_of
from ..states import shaped
from ..typing import Array, Key, Process, PyTree
from ._fields import interval
from .semilinear import real_like

__all__ = ["NoiseTerm", "SampleBrownian", "brownian"]


class SampleBrownian(diffrax.AbstractBrownianPath):
    """A virtual Brownian tree per sample: sample i's path does not see the batch."""

    trees: diffrax.VirtualBrownianTree  # its arrays lead with the batch
    ends: tuple[float | Array, float | Array]

    @property
    def t0(self) -> float | Array:
        """Where the path begins."""
        return self.ends[0]

    @property
    def t1(self) -> float | Array:
        """Where it ends."""
        return self.ends[1]

    @property
    def levy_area(self) -> Any:
        """What else than W the path knows."""
        return self.trees.levy_area

    def evaluate(
        self,
        t0: float | Array,
        t1: float | Array | None = None,
        left: bool = True,
        use_levy: bool = False,
    ) -> PyTree:
        """W(t1) - W(t0), leaves (B, ...)."""
        found = eqx.filter_vmap(lambda tree: tree.evaluate(t0, t1, left, use_levy))(
            self.trees
        )
        if use_levy:  # the step length is common
            found = eqx.tree_at(lambda v: v.dt, found, replace_fn=lambda v: v[0])
        return found


@checked
def brownian(
    process: Process,
    key: Key,
    like: PyTree,
    *,
    start: float | None = None,
    end: float | None = None,
    tol: float | None = None,
    levy_area: Any = diffrax.BrownianIncrement,
) -> SampleBrownian:
    """A Brownian path in half log-SNR, one per sample, the same for any steps.

    Args:
        process: the path of the diffusion.
        key: one key, or one per sample.
        like: a tree of leaves (B, ...) whose shapes and dtypes the path takes.
        start, end: times, None for the process' own; half log-SNR finite at both.
        tol: below this distance the tree interpolates; keep it far below the smallest
            step, or increments lose variance. None: 2^-14 of the whole.
        levy_area: as in diffrax; another one is another path for the same key.

    Returns:
        A control for `reverse_sde`.

    Raises:
        ValueError: an infinite half log-SNR at an end, or tol <= 0.

    Example:
        >>> import jax, jax.numpy as jnp, fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> path = brownian(process, jax.random.key(0), jnp.zeros((3, 2)))
        >>> path.evaluate(path.t0, path.t1).shape
        (3, 2)
    """
    t0, t1 = interval(process, start, end)
    tol = (t1 - t0) / 2**14 if tol is None else tol
    if not 0 < tol < t1 - t0:
        raise must("tol", f"in (0, {t1 - t0:.3g}), less than the whole", tol)
    if not (isinstance(levy_area, type) and hasattr(levy_area, "__dataclass_fields__")):
        raise must("levy_area", "a type of diffrax, e.g. BrownianIncrement", levy_area)
    shaped("like", like)
    shapes = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape[1:], v.dtype), like)

    def tree(key: Key) -> diffrax.VirtualBrownianTree:
        return diffrax.VirtualBrownianTree(t0, t1, tol, shapes, key, levy_area)

    trees = eqx.filter_vmap(tree)(keys_of(key, like))
    # equinox types the abstract `levy_area` of the base class as a field
    return SampleBrownian(trees, (t0, t1))  # pyright: ignore[reportCallIssue]


class NoiseTerm(diffrax.AbstractTerm):
    """G(t) dW with a number G, the same for every element of the state."""

    coefficient: Callable[[float | Array], Array]
    control: diffrax.AbstractPath

    def vf(self, t: float | Array, y: PyTree, args: Any) -> Array:
        """G(t)."""
        del y, args
        return self.coefficient(t)

    def contr(self, t0: float | Array, t1: float | Array, **kwargs: Any) -> PyTree:
        """W(t1) - W(t0)."""
        return self.control.evaluate(t0, t1, **kwargs)

    def prod(self, vf: Array, control: PyTree) -> PyTree:
        """G dW."""
        return jax.tree.map(lambda w: real_like(vf, w) * w, control)
