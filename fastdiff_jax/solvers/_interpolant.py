"""What the interpolants' tables share: rates given in three ways, and integrals."""

import math
from collections.abc import Callable

import numpy as np

from ..numerics import along_last, as_float, namespace
from ..typing import Array, ArrayLike

__all__ = ["Rate", "gauss", "is_noisy", "rate_at", "slopes"]

_NODES = 32
Rate = ArrayLike | Callable[[Array], Array]


def is_noisy(eps: Rate) -> bool:
    """Whether a plan with this rate draws noise: a function or a traced one may."""
    if callable(eps):
        return True
    _, (value,) = as_float(eps)
    return not isinstance(value, np.ndarray) or bool((value != 0).any())


def rate_at(eps: Rate, ts: Array, at: Array, rows: np.ndarray) -> Array:
    """The rate eps at the times `at` (len(rows), ...) of the given steps, checked."""
    steps = ts.shape[0] - 1
    _, (value,) = as_float(eps(at) if callable(eps) else eps)
    if callable(eps):
        value = namespace(value).broadcast_to(value, at.shape)
    elif value.shape not in ((), (steps,)):
        raise ValueError(
            f"eps must be a number, one value per step, shape ({steps},), or a "
            f"function of times; got shape {value.shape}."
        )
    if isinstance(value, np.ndarray) and not ((value >= 0) & np.isfinite(value)).all():
        bad = value[~((value >= 0) & np.isfinite(value))].ravel()[0]
        raise ValueError(f"eps must be finite and >= 0 (0 = ODE), got {bad:g}.")
    if not callable(eps) and value.ndim:
        value = value[rows].reshape((-1,) + (1,) * (at.ndim - 1))
    return value


def gauss(low: Array, high: Array) -> tuple[Array, Array]:
    """Nodes and masses of an integral from low to high, on a new last axis."""
    x, w = np.polynomial.legendre.leggauss(_NODES)
    span = (high - low)[..., None]
    x, w = (along_last(v, low) for v in ((x + 1) / 2, w / 2))
    return low[..., None] + span * x, span * w


def slopes(nodes: Array, u: Array) -> Array:
    """Derivatives of the Lagrange basis on nodes (S, K) at u (S, Q): (S, K, Q)."""
    xp = namespace(nodes, u)
    count, out = nodes.shape[-1], []
    for k in range(count):
        total = xp.zeros_like(u)
        others = [j for j in range(count) if j != k]
        scale = math.prod(nodes[:, k, None] - nodes[:, j, None] for j in others)
        for j in others:
            rest = [u - nodes[:, m, None] for m in others if m != j]
            total = total + math.prod(rest, start=xp.ones_like(u))
        out.append(total / scale)
    return xp.stack(out, -2)
