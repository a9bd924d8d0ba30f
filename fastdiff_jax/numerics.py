"""Exponential integrals in float64 and linear mixing of trees.

Everything here is written against the array namespace of its input: NumPy in, float64
NumPy out; JAX in, traced and differentiable out.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .typing import Array, ArrayLike, Process, PyTree

__all__ = [
    "Levels",
    "adams_weights",
    "along_last",
    "as_float",
    "check_times",
    "equal_adams_weights",
    "exp_adams_weights",
    "exponential_weights",
    "gather_columns",
    "history_nodes",
    "history_terms",
    "keep_factor",
    "lagrange",
    "levels",
    "mix",
    "namespace",
    "phi",
    "scale",
    "step_orders",
]

_TERMS = 30  # Taylor terms of phi: 1/33! is below float64 resolution for |z| < 1
_NODES = 64  # Gauss-Legendre nodes: e^{-hu} to 1e-14 for h up to about 500


def namespace(*values: Any) -> Any:
    """`jax.numpy` if any value is a JAX array or tracer, else `numpy`."""
    return jnp if any(isinstance(v, jax.Array) for v in values) else np


def as_float(*values: Any) -> tuple[Any, tuple[Any, ...]]:
    """The namespace of the values, and the values as floating arrays of it."""
    xp = namespace(*values)
    if xp is np:
        return xp, tuple(np.asarray(v, np.float64) for v in values)
    found = (jnp.asarray(v) for v in values)
    whole = jnp.result_type(float)
    return xp, tuple(
        v if jnp.issubdtype(v.dtype, jnp.inexact) else v.astype(whole) for v in found
    )


def phi(k: int, z: ArrayLike) -> Array:
    """phi_k(z) = int_0^1 e^{(1-u)z} u^{k-1} / (k-1)! du, with phi_0 = exp.

    Taylor series below |z| = 1, recurrence from `expm1` above: relative error 2e-15
    for k <= 4, where the plain recurrence loses all digits near 0.

    Args:
        k: which function, >= 0.
        z: argument, any shape.

    Returns:
        phi_k(z), same shape.

    Example:
        >>> float(phi(1, 0.0)), float(phi(2, 0.0))
        (1.0, 0.5)
    """
    xp, (z,) = as_float(z)
    if k == 0:
        return xp.exp(z)
    small = xp.abs(z) < 1
    z_small, z_large = xp.where(small, z, 0.0), xp.where(small, 1.0, z)
    series = xp.ones_like(z)
    for j in reversed(range(1, _TERMS)):
        series = 1 + z_small / (k + j) * series
    series = series / math.factorial(k)
    value = xp.expm1(z_large) / z_large
    for j in range(1, k):
        value = (value - 1 / math.factorial(j)) / z_large
    return xp.where(small, series, value)


def lagrange(nodes: Array, u: Array) -> Array:
    """Lagrange basis on `nodes` (..., K) at points `u` (..., Q): shape (..., K, Q)."""
    xp = namespace(nodes, u)
    count = nodes.shape[-1]
    basis = []
    for k in range(count):
        value = xp.ones_like(u)
        for j in range(count):
            if j != k:
                gap = nodes[..., k, None] - nodes[..., j, None]
                value = value * (u - nodes[..., j, None]) / gap
        basis.append(value)
    return xp.stack(basis, axis=-2)


def along_last(values: np.ndarray, like: Array) -> Array:
    """Constants on a new last axis of `like`, in its dtype: shape (1, ..., Q)."""
    xp = namespace(like)
    return xp.asarray(values, dtype=like.dtype).reshape((1,) * like.ndim + (-1,))


def exp_adams_weights(h: Array, nodes: Array, chi: int) -> Array:
    """Weights of the exponential Adams step: int_0^h e^{chi (h-u)} l_k(u) du.

    `chi` is -1 in data prediction and +1 in noise prediction, u counts half log-SNR
    from the start of the step, and l_k is the Lagrange basis on the nodes.

    Args:
        h: step lengths, shape (S, ...). One node: may be infinite if chi is -1.
        nodes: u of the evaluations, newest first, shape (S, ..., K).
        chi: -1 or +1.

    Returns:
        Weights, shape (S, ..., K), newest first. They sum to h phi_1(chi h).
    """
    xp = namespace(h, nodes)
    if nodes.shape[-1] == 1:
        return (chi * xp.expm1(chi * h))[..., None]
    points, mass = np.polynomial.legendre.leggauss(_NODES)
    u = h[..., None] * along_last((points + 1) / 2, h)
    factor = xp.exp(chi * (h[..., None] - u)) * h[..., None]
    factor = factor * along_last(mass / 2, h)
    return (lagrange(nodes, u) * factor[..., None, :]).sum(axis=-1)


def adams_weights(length: Array, nodes: Array) -> Array:
    """Weights of the plain Adams step: int_0^length l_k(u) du, exact for polynomials.

    Args:
        length: step lengths (either sign), shape (S, ...).
        nodes: positions of the evaluations from the start of the step, newest first,
            shape (S, ..., K).

    Returns:
        Weights, shape (S, ..., K), newest first. They sum to `length`.
    """
    points, mass = np.polynomial.legendre.leggauss(max(1, (nodes.shape[-1] + 1) // 2))
    u = length[..., None] * along_last((points + 1) / 2, length)
    factor = length[..., None] * along_last(mass / 2, length)
    return (lagrange(nodes, u) * factor[..., None, :]).sum(axis=-1)


class Levels(NamedTuple):
    """The noise levels of a grid: time, alpha, sigma, lambda, each (N + 1, ...)."""

    time: Array
    alpha: Array
    sigma: Array
    lam: Array

    @property
    def steps(self) -> int:
        """Number of steps N."""
        return self.time.shape[0] - 1

    @property
    def h(self) -> Array:
        """Step lengths in half log-SNR, (N, ...): infinite next to an exact end."""
        xp = namespace(self.lam)
        lo, hi = self.lam[:-1], self.lam[1:]
        return xp.where(lo == hi, 0.0, hi - xp.where(lo == hi, 0.0, lo))

    @property
    def rho(self) -> Array:
        """Sigma / alpha, (N + 1, ...): infinite where alpha = 0."""
        xp = namespace(self.alpha)
        safe = xp.where(self.alpha == 0, 1.0, self.alpha)
        return xp.where(self.alpha == 0, math.inf, self.sigma / safe)


def levels(process: Process, ts: ArrayLike, name: str = "ts") -> Levels:
    """Noise levels of a grid of times, after checking it.

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1, ...), N >= 1. A repeated time is a
            step of length zero, which every solver turns into the identity.
        name: what to call the times in an error message.

    Returns:
        Levels with leading axis N + 1.

    Raises:
        ValueError: fewer than two times, NaN, an increase, or outside the domain.
    """
    _, (ts,) = as_float(ts)
    if ts.ndim < 1 or ts.shape[0] < 2:
        raise ValueError(
            f"{name} needs at least 2 times (1 step), got shape {ts.shape}. "
            "Make a grid, e.g. grids.log_snr(process, 8)."
        )
    if isinstance(ts, np.ndarray):
        check_times(process, ts, name)
    with np.errstate(divide="ignore"):
        return Levels(
            ts, process.alpha(ts), process.sigma(ts), process.half_log_snr(ts)
        )


def check_times(
    process: Process, ts: np.ndarray, name: str = "ts", strict: bool = False
) -> None:
    """Raise ValueError if times are NaN, out of the domain or do not decrease."""
    if np.isnan(ts).any():
        at = int(np.argwhere(np.isnan(ts))[0][0])
        raise ValueError(f"{name} must not hold NaN; {name}[{at}] is NaN. Remove it.")
    bad = ts[1:] >= ts[:-1] if strict else ts[1:] > ts[:-1]
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        i, rest = at[0], at[1:]
        fix = "Drop the repeat." if ts[1:][at] == ts[at] else "Sort them downwards."
        raise ValueError(
            f"{name} must decrease{' strictly' if strict else ''} (noise to data); "
            f"{name}[{i}]={ts[(i, *rest)]:.6g} is followed by "
            f"{name}[{i + 1}]={ts[(i + 1, *rest)]:.6g}. {fix}"
        )
    low, high = process.domain
    for value in (float(ts.max()), float(ts.min())):
        if not low <= value <= high:
            raise ValueError(
                f"{name} must lie in [{low:g}, {high:g}], the domain of "
                f"{type(process).__name__}; got {value:.17g}. Clip or rescale the grid."
            )


def step_orders(
    lv: Levels,
    order: int,
    *,
    lower_final: bool = False,
    final: int | None = None,
    infinite: bool = False,
) -> np.ndarray:
    """Order of each multistep step: warm-up, end rules, exact ends, repeated times.

    Step i may use evaluations i, i-1, ...; it never uses one at an infinite half
    log-SNR beyond the newest, nor one that stands at the same level as a newer one.

    Args:
        lv: levels of the grid.
        order: the method's order.
        lower_final: bring the order down to 1 at the last step (order 2 before it).
        final: highest order of the last step, None for no limit.
        infinite: the method's own variable stays finite where the half log-SNR does
            not (Adams in sigma / alpha): a step into sigma = 0 keeps its order.

    Returns:
        Integers in 1..order, shape (N,).
    """
    n = lv.steps
    orders = np.minimum(order, np.arange(n) + 1)
    if lower_final:
        orders = np.minimum(orders, n - np.arange(n))
    if final is not None:
        orders[-1] = min(orders[-1], final)
    if isinstance(lv.lam, np.ndarray):
        h = lv.h.reshape(n, -1)
        usable = (np.isfinite(h) & (h != 0)).all(axis=1)
        for i in range(n):
            run = 1
            while run < orders[i] and usable[i - run]:
                run += 1
            orders[i] = 1 if np.isinf(h[i]).any() and not infinite else run
    return orders


def gather_columns(orders: np.ndarray, compute: Any, width: int) -> Array:
    """Rows of weights computed in one vectorised call per distinct order.

    Args:
        orders: order of each step, shape (N,).
        compute: (rows, order) -> weights of those steps, (len(rows), ..., order).
        width: number of columns of the result; missing ones are zero.

    Returns:
        Weights, shape (N, ..., width).
    """
    parts, where = [], []
    for order in np.unique(orders):
        rows = np.flatnonzero(orders == order)
        part = compute(rows, int(order))
        xp = namespace(part)
        pad = [(0, 0)] * (part.ndim - 1) + [(0, width - part.shape[-1])]
        parts.append(xp.pad(part, pad))
        where.append(rows)
    xp = namespace(*parts)
    return xp.concatenate(parts, axis=0)[np.argsort(np.concatenate(where))]


def history_nodes(position: Array, rows: np.ndarray, count: int) -> Array:
    """Positions of the newest `count` evaluations seen from the start of each step.

    Args:
        position: coordinate of the grid's points, (N + 1, ...).
        rows: the steps, (S,).
        count: how many nodes.

    Returns:
        position[i - k] - position[i] for k = 0..count-1, shape (S, ..., count).
    """
    xp = namespace(position)
    now = position[rows]
    if count == 1:  # the position itself may be infinite
        return xp.zeros_like(now)[..., None]
    return xp.stack([position[rows - k] - now for k in range(count)], axis=-1)


def equal_adams_weights(orders: np.ndarray, width: int) -> np.ndarray:
    """Adams-Bashforth weights of equal steps: (1), (3, -1)/2, (23, -16, 5)/12, ...

    Args:
        orders: order of each step, shape (N,).
        width: number of columns of the result; missing ones are zero.

    Returns:
        Weights, newest first, shape (N, width), NumPy. Each row sums to 1.
    """

    def weights(rows: np.ndarray, order: int) -> np.ndarray:
        nodes = np.broadcast_to(-np.arange(order, dtype=float), (len(rows), order))
        return adams_weights(np.ones(len(rows)), nodes)

    return gather_columns(orders, weights, width)


def keep_factor(lv: Levels, prediction: str) -> Array:
    """Weight of the state over each step: sigma_t / sigma_s, or alpha_t / alpha_s."""
    scale = lv.sigma if prediction == "data" else lv.alpha
    return scale[1:] / scale[:-1]


def exponential_weights(
    lv: Levels, rows: np.ndarray, count: int, prediction: str, ahead: bool = False
) -> Array:
    """Exact exponential Adams weights of the steps `rows` on `count` nodes.

    Data:  alpha_t int e^{-(lambda_t - l)} l_k(l) dl
    Noise: -sigma_t int e^{lambda_t - l} l_k(l) dl

    Args:
        lv: levels of the grid.
        rows: the steps, (S,).
        count: number of nodes.
        prediction: 'data' or 'noise'.
        ahead: the newest node is the step's end (a corrector), not its start.

    Returns:
        Weights, newest first, (S, ..., count).
    """
    xp = namespace(lv.lam)
    h, chi = lv.h[rows], -1 if prediction == "data" else 1
    if prediction == "noise" and count == 1 and not ahead:
        ratio = lv.alpha[rows + 1] / lv.alpha[rows]  # finite at sigma_t = 0
        return (lv.sigma[rows + 1] - ratio * lv.sigma[rows])[..., None]
    nodes = history_nodes(lv.lam, rows, count - ahead)
    if ahead:
        nodes = xp.concatenate([h[..., None], nodes], axis=-1)
    scale = lv.alpha[rows + 1] if chi < 0 else -lv.sigma[rows + 1]
    return scale[..., None] * exp_adams_weights(h, nodes, chi)


# ---------------------------------------------------------------- mixing of trees


def _fit(weight: Any, value: Any, lead: int = 0) -> Any:
    """Cast a weight to the value's dtype and align its trailing axes."""
    xp = namespace(weight, value)
    dtype = value.dtype if xp is jnp else np.float64
    weight = xp.asarray(weight, dtype=dtype)
    gap = value.ndim - (weight.ndim - lead)
    shape = weight.shape[:lead] + (1,) * gap + weight.shape[lead:]
    return weight.reshape(shape)


def _times(weight: Any, value: Any, matrix: bool) -> Any:
    if matrix and weight.ndim >= 2:  # (k, k) acts on the channel axis after the batch
        weight = jnp.asarray(weight, dtype=value.dtype)
        return jnp.einsum("ij,bj...->bi...", weight, value)
    return _fit(weight, value) * value


def scale(weight: PyTree, x: PyTree, matrix: bool = False) -> PyTree:
    """Weight * x, where the weight is one array for all leaves or a tree like x."""
    if jax.tree.structure(weight) == jax.tree.structure(0):
        return jax.tree.map(lambda v: _times(weight, v, matrix), x)
    return jax.tree.map(lambda v, w: _times(w, v, matrix), x, weight)


def mix(
    terms: list[tuple[PyTree, PyTree]], bias: PyTree = None, matrix: bool = False
) -> PyTree:
    """Sum of weight * tree over the terms whose weight is not None, plus a bias."""
    parts = [scale(w, x, matrix) for w, x in terms if w is not None]
    if bias is not None:
        like = terms[0][1]
        one = jax.tree.structure(bias) == jax.tree.structure(0)
        spread = jax.tree.map(lambda _: bias, like) if one else bias
        parts.append(jax.tree.map(lambda v, b: _fit(b, v), like, spread))
    return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *parts)


def history_terms(weights: PyTree, history: PyTree) -> list[tuple[PyTree, PyTree]]:
    """One (weight, slot) term per slot; both have the slots as their leading axis."""
    count = jax.tree.leaves(history)[0].shape[0]

    def slot(tree: PyTree, k: int) -> PyTree:
        return jax.tree.map(lambda w: w[k], tree)

    return [(slot(weights, k), slot(history, k)) for k in range(count)]
