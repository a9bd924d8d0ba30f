"""Orders, nodes and weights of the steps of a grid."""

from typing import Any

import numpy as np

from ..typing import Array
from .arrays import namespace
from .integrals import adams_weights, exp_adams_weights
from .levels import Levels

__all__ = [
    "equal_adams_weights",
    "exponential_weights",
    "gather_columns",
    "history_nodes",
    "keep_factor",
    "step_orders",
    "steps_left",
]


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
        usable = np.all(np.isfinite(h) & (h != 0), axis=1)
        for i in range(n):
            run = 1
            while run < orders[i] and usable[i - run]:
                run += 1
            orders[i] = 1 if np.isinf(h[i]).any() and not infinite else run
    return orders


def steps_left(lv: Levels) -> np.ndarray:
    """Number of steps of non-zero length from each step on, itself included, (N,)."""
    moves = np.ones(lv.steps, bool)
    if isinstance(lv.lam, np.ndarray):
        moves = (lv.h.reshape(lv.steps, -1) != 0).any(axis=1)
    return np.cumsum(moves[::-1])[::-1]


def gather_columns(orders: np.ndarray, compute: Any, width: int | None = None) -> Array:
    """Rows of weights computed in one vectorised call per distinct order.

    Args:
        orders: order of each step, shape (N,).
        compute: (rows, order) -> weights of those steps, (len(rows), ..., order).
        width: number of columns of the result, missing ones are zero; None: as many as
            the highest order.

    Returns:
        Weights, shape (N, ..., width).
    """
    width = max(int(orders.max()), 1) if width is None else width
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

    def weights(rows: np.ndarray, order: int) -> Array:
        nodes = np.broadcast_to(-np.arange(order, dtype=float), (len(rows), order))
        return adams_weights(np.ones(len(rows)), nodes)

    return np.asarray(gather_columns(orders, weights, width))


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
