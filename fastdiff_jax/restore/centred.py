"""Any solver on a path with two endpoints: subtract the degraded input.

A restoration process leads from the clean x_0 to the degraded y,

    x_t = alpha x_0 + beta y + sigma eps.

Where beta = k (1 - alpha), the process of x - k y is an ordinary Gaussian path,

    x_t - k y = alpha (x_0 - k y) + sigma eps,

so every plan, of any order, deterministic or not, runs on x - k y with the denoiser
D - k y, and k y is added to the result. k = 1 for mean-reverting processes (Luo et al.
2023, 2301.11699) and ResShift (2307.12348), 1/2 for Resfusion (2311.14900).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..engine import sample as run_plan
from ..guards import checked
from ..hooks import Wrapped, carry_of
from ..models.adapter import Model
from ..numerics import namespace
from ..plan import Plan
from ..starts import centre_of, degraded, spread_over, unit_noise
from ..states import align, arrays, floating, some_arrays
from ..trees import as_tree, pytree
from ..typing import Context, Denoiser, Key, Process, PyTree
from .network import Restorer

__all__ = ["Centred", "centred", "refuse_plain_models", "sample"]


@pytree
class Centred(Wrapped):
    """A denoiser of x as one of x - k y: (u, ...) -> D(u + k y) - k y.

    Attributes:
        inner: the denoiser in the process' own coordinates.
        y: the degraded input, a tree whose leaves broadcast against those of x.
        k: the process' centre.
    """

    inner: Any
    y: PyTree
    k: Any = 1.0

    def __call__(
        self, x: PyTree, context: Context, carry: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The data prediction of x_0 - k y."""
        shift = spread_over(self.y, x, self.k)
        out, carry = self.inner(jax.tree.map(jnp.add, x, shift), context, carry)

        def minus(found: PyTree) -> PyTree:
            return jax.tree.map(lambda d, s: d - s.astype(d.dtype), found, shift)

        whole = jax.tree.structure(x)
        if jax.tree.structure(out) == whole:
            return minus(out), carry
        if isinstance(out, tuple) and all(jax.tree.structure(o) == whole for o in out):
            return tuple(minus(o) for o in out), carry
        return out, carry  # the engine names what is wrong

    def initial_carry(self, x: PyTree) -> PyTree:
        """The inner denoiser's, at the state in the process' own coordinates."""
        shift = spread_over(self.y, x, self.k)
        return carry_of(self.inner, jax.tree.map(jnp.add, x, shift))


def refuse_plain_models(denoiser: Any) -> None:
    """A `models.denoiser` converts by x = alpha D + sigma E, without beta y."""
    stop = (Model, Restorer)
    for part in jax.tree.leaves(denoiser, is_leaf=lambda v: isinstance(v, stop)):
        if isinstance(part, Model) and part.prediction != "data":
            raise ValueError(
                f"a models.denoiser with prediction={part.prediction!r} converts by "
                "x = alpha D + sigma E, which lacks beta y. Use restore.denoiser(fn, "
                "process, y, prediction=...), whose fn takes (x, y, t)."
            )


@checked
def centred(denoiser: Denoiser, process: Process, y: PyTree) -> Centred:
    """A denoiser for plans on x - k y: D(u + k y) - k y.

    Args:
        denoiser: in the process' own coordinates, (x, context, carry) -> (D, carry),
            e.g. `restore.denoiser(...)`, guided or not.
        process: a path with two endpoints and a `centre` k.
        y: the degraded input, like x; leaves broadcast against those of x.

    Returns:
        A denoiser for `fd.sample` on x - k y.

    Raises:
        ValueError: a process without a centre, or a denoiser that converts its
            network's output without beta y.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.mean_reverting()
        >>> model = centred(fd.models.gaussian(2.0, 0.25), process, np.float32(1.0))
        >>> model.k
        1.0
    """
    some_arrays(arrays("y", y), "y")
    k = centre_of(process)
    refuse_plain_models(denoiser)
    return Centred(as_tree(denoiser), y, k)


def _same_process(plan: Plan, process: Process) -> None:
    """ValueError where the plan's first level is not the process'."""
    level = plan.rows.level
    if namespace(*jax.tree.leaves((level, process))) is not np:
        return  # traced: nothing to compare
    alpha, sigma = process.alpha(level.time[0]), process.sigma(level.time[0])
    if not (
        np.allclose(alpha, level.alpha[0], rtol=1e-4, atol=1e-6)
        and np.allclose(sigma, level.sigma[0], rtol=1e-4, atol=1e-6)
    ):
        raise ValueError(
            f"plan starts at alpha, sigma = {level.alpha[0]:.4g}, "
            f"{level.sigma[0]:.4g}; {type(process).__name__} has {alpha:.4g}, "
            f"{sigma:.4g} at that time. Build the plan with this process."
        )


@checked
def sample(
    plan: Plan,
    denoiser: Denoiser,
    process: Process,
    y: PyTree,
    *,
    key: Key | None = None,
    start: PyTree = None,
    shape: Any = None,
    **options: Any,
) -> Any:
    """Restore y: k y + (the plan on x - k y).

        x_T = k y + sigma_T z

    IR-SDE draws lambda_inf z instead, 1.00001 times as much at its default end; give
    `start` for that.

    Args:
        plan: from any solver on `process`, e.g. `restore.mr_sampler`.
        denoiser: in the process' own coordinates, e.g. `restore.denoiser(...)`.
        process: a path with two endpoints and a `centre` k.
        y: the degraded input, a tree like x.
        key: a key, or one per sample: of x_T and of the plan's noise.
        start: x_T in the process' own coordinates, instead of drawing it.
        shape: shape of x, or a tree of arrays or ShapeDtypeStructs, where y is to be
            broadcast (several samples of one y); None: y's own.
        **options: of `fd.sample`: noise, controls, collect, move, checkpoint,
            progress, preview. States and predictions that a hook gets are centred:
            add k y.

    Returns:
        The samples, a tree like x; with `collect` the pair (samples, collected).

    Raises:
        ValueError: a process without a centre, a plan of another process, whole
            numbers in y, or neither key nor start.

    Example:
        >>> import jax, fastdiff_jax as fd
        >>> process = fd.processes.mean_reverting()
        >>> plan = fd.restore.mr_sampler(process)
        >>> model, y = fd.models.gaussian(2.0, 0.01), jax.numpy.zeros((4000, 1))
        >>> x = fd.restore.sample(plan, model, process, y, key=jax.random.key(0))
        >>> bool(abs(x.mean() - 2.0) < 0.05)
        True

    Reference: Luo et al. 2023 (2301.11699), eq 6; Li et al. 2025 (2502.07856).
    """
    inner = centred(denoiser, process, y := degraded(y))
    _same_process(plan, process)
    if start is None:
        if key is None:
            raise ValueError(
                "sample draws x_T = k y + sigma_T z; pass key=jax.random.key(0), or "
                "start=x_T."
            )
        like = jax.tree.map(jnp.asarray, y) if shape is None else shape
        x = unit_noise(key, like)
        x = jax.tree.map(lambda z: z * align(plan.rows.level.sigma[0], z), x)
    else:
        x = floating(arrays("start", start))
        x = jax.tree.map(lambda v, s: v - s, x, spread_over(y, x, inner.k))
    shift = spread_over(y, x, inner.k)
    found = run_plan(plan, inner, x, key=key, **options)
    kept: Callable[[Any], Any] = lambda v: jax.tree.map(jnp.add, v, shift)  # noqa: E731
    if options.get("collect") is None:
        return kept(found)
    return kept(found[0]), found[1]
