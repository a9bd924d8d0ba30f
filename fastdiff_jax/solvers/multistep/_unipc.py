"""The table of UniPC's rows, shared by the solvers built on it.

Zhao et al. 2023 (2302.04867), algorithms 1-4: `unipc` itself and DC-Solver.
"""

import numpy as np

from ... import plan
from ...numerics import (
    Levels,
    exponential_weights,
    gather_columns,
    history_nodes,
    keep_factor,
    namespace,
    phi,
)
from ...typing import Array

__all__ = ["assemble"]


def assemble(
    lv: Levels,
    orders: np.ndarray,
    corrected: np.ndarray,
    variant: str,
    prediction: str,
    push: Array | None = None,
) -> plan.Plan:
    """Row i: correct step i - 1 with the new evaluation, then predict step i.

    Args:
        lv: levels of the grid.
        orders: order of each step, (N,).
        corrected: whether the result of each step is corrected, (N,).
        variant: 'bh1', 'bh2', 'exact', or 'vary' with its published corrector.
        prediction: 'data' or 'noise'.
        push: what row i stores before it predicts, see `plan.corrected`.
    """
    if isinstance(lv.lam, np.ndarray):  # a step of length zero has nothing to correct
        h = lv.h.reshape(lv.steps, -1)
        corrected = corrected & (h != 0).all(axis=1)
        if variant in ("exact", "vary"):  # no polynomial on an infinite interval
            corrected &= np.isfinite(h).all(axis=1)
    keep = keep_factor(lv, prediction)
    predict = gather_columns(
        orders, lambda rows, p: _predictor(lv, rows, p, variant, prediction)
    )
    correct = gather_columns(
        np.where(corrected, orders, 0),
        lambda rows, p: _corrector(lv, rows, p, variant, prediction),
        int(np.where(corrected, orders, 0).max()) + 1,
    )
    return plan.corrected(
        lv,
        basis=prediction,
        keep=keep,
        predict=predict,
        correct=correct,
        steps=corrected,
        push=push,
    )


def _difference(
    lv: Levels, rows: np.ndarray, variant: str, prediction: str
) -> tuple[Array, Array]:
    """G P_1, and half the published B(h) with its scale, sign included."""
    xp = namespace(lv.lam)
    chi = -1 if prediction == "data" else 1
    scale = lv.alpha[rows + 1] if chi < 0 else lv.sigma[rows + 1]
    z = chi * lv.h[rows]
    b = z if variant == "bh1" else xp.expm1(z)
    first = exponential_weights(lv, rows, 1, prediction)[..., 0]
    return first, scale * b / 2


def _predictor(
    lv: Levels, rows: np.ndarray, order: int, variant: str, prediction: str
) -> Array:
    if order != 2 or variant in ("exact", "vary"):
        return exponential_weights(lv, rows, order, prediction)
    first, half = _difference(lv, rows, variant, prediction)
    step = half * lv.h[rows] / lv.h[rows - 1]
    return namespace(first).stack([first - step, step], axis=-1)


def _corrector(
    lv: Levels, rows: np.ndarray, order: int, variant: str, prediction: str
) -> Array:
    xp = namespace(lv.lam)
    if order == 0:  # this step is not corrected
        return xp.zeros((*lv.lam[rows].shape, 1))
    if order > 1 and variant == "vary":
        return _published_vary(lv, rows, order, prediction)
    if order > 1 or variant in ("exact", "vary"):
        return exponential_weights(lv, rows, order + 1, prediction, ahead=True)
    first, half = _difference(lv, rows, variant, prediction)
    return xp.stack([-half, first + half], axis=-1)


def _published_vary(lv: Levels, rows: np.ndarray, p: int, prediction: str) -> Array:
    """The published corrector with varying coefficients, for p >= 2.

    With nodes r = (r_1, ..., r_{p-1}, 1), D_i = (m_i - m_0) / r_i and A the inverse of
    C_ik = r_i^{k-1} / k!, the exact corrector is G P_1 m_0 - s sum_k z phi_{k+1}(z)
    (A D)_k over k = 1..p. The published sum stops at k = p - 1 for the past
    evaluations, and of the new one keeps z phi_{p+1}(z) A_{p-1,p} only.
    """
    xp = namespace(lv.lam)
    chi = -1 if prediction == "data" else 1
    scale = lv.alpha[rows + 1] if chi < 0 else lv.sigma[rows + 1]
    h = lv.h[rows]
    z, length = chi * h, xp.where(h == 0, 1.0, h)  # a step of length 0 weighs nothing
    nodes = history_nodes(lv.lam, rows, p)[..., 1:] / length[..., None]
    r = xp.concatenate([nodes, xp.ones_like(h)[..., None]], axis=-1)
    columns = [xp.ones_like(r)]
    for k in range(2, p + 1):
        columns.append(columns[-1] * r / k)
    inverse = xp.linalg.inv(xp.stack(columns, axis=-1))
    terms = xp.stack([-scale * z * phi(k + 1, z) for k in range(1, p + 1)], axis=-1)
    past = (terms[..., :-1, None] * inverse[..., :-1, :-1]).sum(-2) / nodes
    new = (terms[..., -1] * inverse[..., -2, -1])[..., None]
    first = exponential_weights(lv, rows, 1, prediction)
    newest = first - past.sum(-1, keepdims=True) - new
    return xp.concatenate([new, newest, past], axis=-1)
