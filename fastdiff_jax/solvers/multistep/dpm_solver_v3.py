"""DPM-Solver-v3: exponential multistep in the model's own best parametrisation.

With tables l, s, b over the half log-SNR λ (`fd.tune.ems`), per element,

    f = (σ E - l x) / α = (1 - l)/α x - D,    d(x/α)/dλ = -(l x/α + f),   f' ≈ s f + b
    x_t = (α_t/α_s) e^{L_s-L_t} x_s - α_t e^{L_s-L_t} ∫ W (g + β) dλ
    W = e^{L-L_s+S-S_s},  β = ∫_s e^{S_s-S} b,  g = e^{S_s-S} f - β

where L, S are the integrals of l, s and g is replaced by a polynomial through stored
evaluations. Zheng et al. 2023 (2310.13268), eqs 10-16, algorithm 1. 1 call per step.
"""

import math
from collections.abc import Sequence

import numpy as np

from ... import plan
from ...numerics import Levels, gather_columns, levels, namespace, step_orders
from ...typing import Array, ArrayLike, Process
from .._starting import Start, begin
from ..registry import solver
from ._v3_integrals import Integrals, Statistics, integrals, weights, wide

__all__ = ["dpm_solver_v3"]


@solver(
    order=lambda p: p,
    orders=(1, 2, 3, 4),
    paper="Zheng 2023, 2310.13268",
    needs="statistics of the model, fd.tune.ems.estimate",
)
def dpm_solver_v3(
    process: Process,
    ts: ArrayLike,
    statistics: Statistics,
    *,
    order: int = 3,
    p_pseudo: bool = False,
    corrector: bool = True,
    c_pseudo: bool = False,
    half: bool = False,
    disable_corrector: Sequence[int] = (),
    lower_order_final: bool = True,
    compat: bool = False,
    start: Start = "published",
) -> plan.Plan:
    """DPM-Solver-v3. Order p (at most 2 with the pseudo options), 1 call per step.

    l, s, b are read as piecewise linear between the table's nodes and integrated
    exactly; the order shows on steps longer than the nodes' spacing. The corrector
    uses the evaluation at the predicted point, which is not repeated. Published
    settings: order 3 without guidance, 2 with; `p_pseudo` at 5 evaluations or fewer.

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,), inside the table's range; the first
            may be at alpha = 0 and the last at sigma = 0, each a step of order 1 in D.
        statistics: from `fd.tune.ems.estimate` or `fd.tune.ems.load`.
        order: p, 1 to 4.
        p_pseudo: the predictor takes the k-th derivative from k + 1 evaluations
            instead of solving for all at once. Differs from order 3 on.
        corrector: correct each step with the next evaluation.
        c_pseudo: the corrector has one more node than the predictor, and takes
            derivatives as `p_pseudo` does (published for guided and latent models).
            False: as many nodes, solved at once; order 1 is then not corrected.
        half: correct only the steps that end in the noisy half of the process' time.
        disable_corrector: steps whose result is not corrected.
        lower_order_final: orders p, ..., 2, 1 at the end (published: always).
        compat: the published arithmetic: times moved to the nearest node, trapezoid
            sums over the nodes. Converges to an error of (node spacing)^2 only.
        start: 'published' warms up with orders 1, 2, ...; 'graded' cuts the first step
            into N^(1 - 2/p) growing parts, one call each, and so keeps the
            order on every grid (with lower_order_final=False).

    Returns:
        A plan of N rows whose weights have the statistics' event shape.

    Raises:
        ValueError: an order outside 1..4, times per element, times outside the table,
            `compat` times that fall on one node, or `half` without a clean time.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> table = fd.tune.ems.degenerated(process)
        >>> fd.solvers.dpm_solver_v3(process, fd.grids.log_snr(process, 6), table).nfe
        6
    """
    if not 1 <= order <= 4:
        raise ValueError(f"dpm_solver_v3 needs order in 1..4, got {order}.")
    lv = levels(process, ts)
    if lv.time.ndim > 1:
        raise ValueError(
            f"dpm_solver_v3 needs times of shape (N + 1,), got {lv.time.shape}: its "
            "tables are per element, its times are not."
        )
    lv, part = begin(process, lv, start, order)
    if compat:
        lv = _snap(process, lv, statistics)
    _check_range(lv, statistics)
    orders = step_orders(lv, order, lower_final=lower_order_final)
    corrected = np.full(lv.steps, corrector)
    corrected[-1] = False  # the last step's end is never evaluated
    corrected &= ~np.isin(part, disable_corrector)
    if half:
        corrected &= _noisy_half(process, lv)
    if isinstance(lv.lam, np.ndarray):  # no polynomial through a point at infinity
        corrected &= np.isfinite(lv.h) & (lv.h != 0)
        # D of the predicted point is the sample: nothing left to correct
        corrected[:-1] &= lv.lam[2:] != np.inf
    found = integrals(lv, statistics, compat)
    ahead = orders + (1 if c_pseudo else 0)
    ahead = np.where(corrected & (ahead > 1), ahead, 0)
    predict = gather_columns(
        orders,
        lambda rows, p: _predictor(found, rows, p, p_pseudo),
        int(orders.max()) + 1,
    )
    correct = gather_columns(
        ahead,
        lambda rows, p: _corrector(found, rows, p, c_pseudo),
        int(ahead.max()) + 1,
    )
    return _assemble(found, predict, correct, ahead > 0)


# -------------------------------------------------------------------------- the levels


def _snap(process: Process, lv: Levels, table: Statistics) -> Levels:
    """Finite levels moved to the table's nodes."""
    xp = namespace(lv.lam)
    cell = (table.high - table.low) / (np.shape(table.l)[0] - 1)
    finite = xp.isfinite(lv.lam)
    node = table.low + cell * xp.round((xp.where(finite, lv.lam, 0) - table.low) / cell)
    moved = finite & (xp.abs(xp.where(finite, lv.lam, node) - node) > 1e-9 * cell)
    time = xp.where(moved, process.half_log_snr_inverse(node), lv.time)
    if isinstance(lv.lam, np.ndarray):
        merged = (np.diff(node) == 0) & (lv.h != 0) & finite[1:] & finite[:-1]
        if merged.any():
            i = int(np.argmax(merged))
            raise ValueError(
                f"compat moves ts[{i}]={lv.time[i]:.6g} and ts[{i + 1}]="
                f"{lv.time[i + 1]:.6g} to one table node. Use compat=False, fewer "
                "steps, or statistics on more nodes."
            )
    new = levels(process, time)
    return new._replace(lam=xp.where(finite, node, lv.lam))


def _check_range(lv: Levels, table: Statistics) -> None:
    if not isinstance(lv.lam, np.ndarray):
        return
    slack = 1e-6 * (table.high - table.low)
    off = (lv.lam < table.low - slack) | (lv.lam > table.high + slack)
    off &= np.isfinite(lv.lam)
    if off.any():
        i = int(np.argmax(off))
        raise ValueError(
            f"ts[{i}]={lv.time[i]:.6g} has half log-SNR {lv.lam[i]:.4g}, outside the "
            f"statistics' range [{table.low:.4g}, {table.high:.4g}]. Estimate them "
            "over the grid's range, or move the grid's end."
        )


def _noisy_half(process: Process, lv: Levels) -> np.ndarray:
    """Which steps end above the middle of the process' time."""
    if not (math.isfinite(process.clean) and math.isfinite(process.start)):
        raise ValueError(
            f"half needs a clock with finite ends, {type(process).__name__} has clean="
            f"{process.clean}. Use disable_corrector=[steps]."
        )
    middle = (process.start + process.clean) / 2
    return np.asarray(lv.time[1:]) > middle


def _predictor(found: Integrals, rows: np.ndarray, order: int, pseudo: bool) -> Array:
    at = rows[:, None] - np.arange(order)
    return weights(found, rows, at, pseudo and order > 2)


def _corrector(found: Integrals, rows: np.ndarray, order: int, pseudo: bool) -> Array:
    """The newest evaluation stands at the step's end; order 0 does not correct."""
    xp = namespace(found.measure)
    if order == 0:
        return xp.zeros((*found.drift[rows].shape, 1))
    back = np.concatenate([[0, -1], np.arange(1, order - 1)])  # s, t, s1, ...
    columns = weights(found, rows, rows[:, None] - back, pseudo and order > 2)
    newest_first = np.concatenate([[0, 2, 1], np.arange(3, order + 1)])
    return columns[..., newest_first]


def _ends(found: Integrals, predict: Array) -> tuple[Array, Array]:
    """Weights of x_s and (bias, f...) over each step, exact ends included."""
    xp, lv = namespace(predict), found.lv
    event = found.drift.ndim - 1
    fade = xp.exp(found.drift[:-1] - found.drift[1:])
    alpha, sigma = wide(lv.alpha, event), wide(lv.sigma, event)
    safe = xp.where(alpha == 0, 1.0, alpha)[:-1]
    keep, scale = alpha[1:] / safe * fade, -alpha[1:] * fade
    # across an infinite step, order 1 in D: x_t = (sigma_t / sigma_s) x_s + alpha_t D
    # from alpha = 0, where f = -D, and x_t = alpha_t D into sigma = 0
    lost, still = (wide(v, event) for v in (xp.isinf(lv.h), lv.h == 0))
    into = alpha[1:] * _slope(found)[:-1]
    out = sigma[1:] / xp.where(sigma[:-1] == 0, 1.0, sigma[:-1])
    keep = xp.where(lost, xp.where(sigma[1:] == 0, into, out), keep)
    column = np.arange(predict.shape[-1]).reshape((1,) * (event + 1) + (-1,))
    newest = xp.where(column == 1, -alpha[1:, ..., None], 0.0)
    predict = xp.where(lost[..., None], newest, predict * scale[..., None])
    return xp.where(still, 1.0, keep), xp.where(still[..., None], 0.0, predict)


def _slope(found: Integrals) -> Array:
    """(1 - l) / alpha, the weight of x in f; 0 at alpha = 0, where f = -D."""
    alpha = wide(found.lv.alpha, found.drift.ndim - 1)
    xp = namespace(alpha, found.linear)
    safe = xp.where(alpha == 0, 1.0, alpha)
    return xp.where(alpha == 0, 0.0, (1 - found.linear) / safe)


def _assemble(
    found: Integrals, predict: Array, correct: Array, corrected: np.ndarray
) -> plan.Plan:
    """Predictor and corrector in f, constants included."""
    xp, lv = namespace(predict), found.lv
    keep, predict = _ends(found, predict)
    event = keep.ndim - 1
    fade = xp.exp(found.drift[:-1] - found.drift[1:])
    scale = -wide(lv.alpha[1:], event) * fade
    correct = correct * scale[..., None]
    return plan.corrected(
        lv,
        keep=keep,
        predict=predict[..., 1:],
        correct=correct[..., 1:],
        bias=(predict[..., 0], correct[..., 0]),
        steps=corrected,
        basis=plan.Basis(_slope(found)[:-1], xp.full_like(lv.alpha[1:], -1.0)),
    )
