"""The adjoint run: two scans of the engine behind one `custom_vjp`; see `adjoint`."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import engine
from ..hooks import answer
from ..plan import Level, Plan
from ..programs import compiled
from ..states import like_state, real_dtype, scale
from ..trees import is_function, pytree
from ..typing import Array, Context, Denoiser, PyTree

__all__ = ["Adjoint", "hoisted", "solve"]


@pytree
class Adjoint:
    """The two tables of an adjoint run, a pytree; made by `adjoint_plan`.

    Attributes:
        forward: a plan for x.
        backward: a plan for (y, a); `controls` are the weights of the sum g.
        clean: whether x = D follows, the exact step into sigma = 0.
        prediction: 'noise' or 'data', which variables.
    """

    forward: Plan
    backward: Plan
    clean: bool = dataclasses.field(metadata={"static": True})
    prediction: str = dataclasses.field(metadata={"static": True})

    def m(self, level: Any) -> Any:
        """The factor of x = m y."""
        return level.alpha if self.prediction == "noise" else level.sigma


class _Static(NamedTuple):
    """What a compiled run is made for: the denoiser without its arrays."""

    structure: Any
    fixed: tuple  # leaves that are no arrays, None elsewhere


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | int | float | complex)


def _is_smooth(leaf: Any) -> bool:
    """Whether a gradient with respect to it exists: no labels, no keys."""
    return _is_array(leaf) and jnp.issubdtype(jax.dtypes.result_type(leaf), jnp.inexact)


def _split(denoiser: Denoiser) -> tuple[_Static, tuple, tuple]:
    """Static part, leaves to differentiate, and other arrays; None elsewhere."""
    leaves, structure = jax.tree.flatten(denoiser)
    weights = tuple(v if _is_smooth(v) else None for v in leaves)
    rest = tuple(v if _is_array(v) and not _is_smooth(v) else None for v in leaves)
    fixed = tuple(None if _is_array(v) else v for v in leaves)
    return _Static(structure, fixed), weights, rest


def _join(static: _Static, weights: tuple, rest: tuple) -> Denoiser:
    """The denoiser with the given arrays."""
    parts = zip(weights, rest, static.fixed, strict=True)
    leaves = [next((v for v in p if v is not None), None) for p in parts]
    return static.structure.unflatten(leaves)


@pytree
class _Function:
    """A plain function with the traced arrays of its closure as leaves."""

    closed: Any
    fn: Any = dataclasses.field(metadata={"static": True})

    def __call__(
        self, x: PyTree, context: Context, carry: PyTree
    ) -> tuple[PyTree, PyTree]:
        return self.fn(x, context, *self.closed), carry


def hoisted(denoiser: Denoiser, x: PyTree, level: Level) -> Denoiser:
    """A plain function that closes over arrays under differentiation, as a pytree."""
    if not is_function(denoiser):
        return denoiser
    context = Context(jnp.int32(0), *level)

    def call(x: PyTree, context: Context) -> PyTree:
        return answer(denoiser, x, context, None)[0]

    fn, closed = jax.closure_convert(call, x, context)
    return _Function(closed, fn) if closed else denoiser


@dataclasses.dataclass(frozen=True)
class _Field:
    """The augmented field: (y, a) -> (P, -m (dP/dx)^T a), with g as the carry."""

    made: Adjoint
    static: _Static
    weights: tuple
    rest: tuple

    def __call__(
        self, x: tuple, context: Context, carry: PyTree
    ) -> tuple[tuple, PyTree]:
        y, a = x
        share = context.controls
        context = context._replace(controls=None)

        def slope(weights: tuple, y: PyTree) -> PyTree:
            x = scale(self.made.m(context), y)
            denoiser = _join(self.static, weights, self.rest)
            found = like_state(x, answer(denoiser, x, context, None)[0])
            if self.made.prediction == "data":
                return found

            def to_noise(v: Array, d: Array) -> Array:
                alpha, sigma = (jnp.asarray(w, real_dtype(v)) for w in context[2:4])
                return (v - alpha * d) / sigma

            return jax.tree.map(to_noise, x, found)

        value, pull = jax.vjp(slope, self.weights, y)
        of_weights, of_y = pull(a)

        def add(sum_: Array, term: Array) -> Array:  # dg/dq = -(dP/dtheta)^T a
            return sum_ - jnp.asarray(share, sum_.dtype) * term.astype(sum_.dtype)

        carry = jax.tree.map(add, carry, of_weights)
        return (value, jax.tree.map(jnp.negative, of_y)), carry


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _solve(
    static: _Static, made: Adjoint, weights: tuple, rest: tuple, x: PyTree
) -> PyTree:
    denoiser = _join(static, weights, rest)
    state, _ = engine.run(made.forward, denoiser, engine.init(made.forward, x))
    return state.point


def _there(
    static: _Static, made: Adjoint, weights: tuple, rest: tuple, x: PyTree
) -> tuple[PyTree, tuple]:
    end = _solve(static, made, weights, rest, x)
    return end, (made, weights, rest, end)


def _back(static: _Static, kept: tuple, bar: PyTree) -> tuple:
    made, weights, rest, end = kept
    m = made.m(jax.tree.map(lambda v: v[0], made.backward.rows.level))
    start = (scale(1 / m, end), scale(m, bar))
    state = engine.init(made.backward, start, carry=jax.tree.map(_zero, weights))
    field = _Field(made, static, weights, rest)
    state, _ = engine.run(made.backward, field, state)
    of_x = scale(1 / made.m(made.backward.end), state.point[1])
    of_weights = jax.tree.map(lambda w, g: g.astype(w.dtype), weights, state.carry)
    # None: the tables are constants of the adjoint
    return None, of_weights, jax.tree.map(_no_gradient, rest), of_x


def _zero(weight: Any) -> Array:
    """Where the sum g starts; float32 at least, as many small terms are added."""
    narrow = jnp.finfo(weight.dtype).bits < 32
    return jnp.zeros(weight.shape, jnp.float32 if narrow else weight.dtype)


def _no_gradient(leaf: Any) -> np.ndarray:
    return np.zeros(leaf.shape, jax.dtypes.float0)


_solve.defvjp(_there, _back)


def _run(
    made: Adjoint, weights: tuple, rest: tuple, x: PyTree, *, static: _Static
) -> PyTree:
    return _solve(static, made, weights, rest, x)


_compiled = compiled(_run, static=("static",))


def solve(made: Adjoint, denoiser: Denoiser, x: PyTree) -> PyTree:
    """The state at the last level, compiled once per structure and shapes."""
    static, weights, rest = _split(denoiser)
    return _compiled(made, weights, rest, x, static=static)
