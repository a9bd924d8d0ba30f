"""phi functions and the integrals behind multistep weights, without cancellation."""

import math

import numpy as np

from ..typing import Array, ArrayLike
from .arrays import along_last, as_float, namespace

__all__ = ["adams_weights", "exp_adams_weights", "lagrange", "phi"]

_TERMS = 30  # Taylor terms of phi: 1/33! is below float64 resolution for |z| < 1
_NODES = 64  # Gauss-Legendre nodes: e^{-hu} to 1e-14 for h up to about 500


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
