"""DC-Solver: UniPC whose newest stored evaluation is moved along time, ratio by ratio.

Before step i the newest evaluation m(t_i) is replaced by the polynomial through the
last d + 1 stored ones, read at another time:

    m~(t_i) = sum_k l_k(t') m~_k,   t' = t_{i-1} + r_i (t_i - t_{i-1})

Zhao et al. 2024 (2409.03755), section 3.2 and algorithm 1. `fd.tune.dc_ratios`
finds the ratios. 1 call per step.
"""

from collections.abc import Sequence

import numpy as np

from ... import plan
from ...numerics import Levels, as_float, lagrange, levels, namespace, step_orders
from ...typing import Array, ArrayLike, Finite, Process
from .._starting import Start, begin, parts_of
from ..registry import solver
from ._unipc import assemble

__all__ = ["dc_solver"]


@solver(order=lambda p: p + 1, orders=(1, 2, 3, 4), paper="Zhao 2024, 2409.03755")
def dc_solver(
    process: Process,
    ts: ArrayLike,
    ratios: Finite = 1.0,
    *,
    order: int = 3,
    dc_order: int = 2,
    variant: str = "bh2",
    prediction: str = "data",
    lower_order_final: bool | None = None,
    disable_corrector: Sequence[int] = (),
    corrector: bool = True,
    start: Start = "published",
) -> plan.Plan:
    """DC-Solver: dynamic compensation on UniPC-p. Order p + 1 at ratios 1.

    The predictor and the corrector of a step both use the compensated evaluation,
    which stays in the history; the corrector of the step before used the raw one.

    Args:
        process: the path. Its clock is the one the evaluations are interpolated in.
        ts: times, non-increasing, shape (N + 1,).
        ratios: r of each step, a scalar or (N,); NumPy, or JAX for traced weights.
            Ratio 1 changes nothing. The first `dc_order` steps have too few stored
            evaluations, a step of length zero has no line to move along: their
            ratios are not used.
        order: p of UniPC, 1 to 6.
        dc_order: degree d of the interpolation, 1 to 5.
        variant: 'bh1', 'bh2', or 'exact', as in `unipc`.
        prediction: 'data' or 'noise'.
        lower_order_final: orders p, ..., 2, 1 at the end; None: only below 15 steps.
        disable_corrector: steps whose result is not corrected.
        corrector: False compensates the predictor alone.
        start: as in `unipc`; the parts of the first step share its ratio.

    Returns:
        A plan of N rows.

    Raises:
        ValueError: an order, a degree or a variant that does not exist, or ratios of
            another length.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> ts = fd.grids.log_snr(process, 6)
        >>> fd.solvers.dc_solver(process, ts, [1, 1, 0.97, 0.95, 1.04, 1.03]).nfe
        6
    """
    if not 1 <= order <= 6:
        raise ValueError(f"dc_solver needs order in 1..6, got {order}.")
    if not 1 <= dc_order <= 5:
        raise ValueError(f"dc_solver needs dc_order in 1..5, got {dc_order}.")
    if variant not in ("bh1", "bh2", "exact"):
        raise ValueError(f"variant must be 'bh1', 'bh2' or 'exact', got {variant!r}.")
    lv = levels(process, ts)
    _, (ratios,) = as_float(ratios)
    if ratios.shape not in ((), (lv.steps,)):
        raise ValueError(
            f"ratios must be a scalar or one per step, shape ({lv.steps},), got shape "
            f"{ratios.shape}."
        )
    closed = corrector and 0 not in disable_corrector  # the first step, by an order
    lv, part = begin(process, lv, start, order + corrector, 1 + closed)
    ratios = parts_of(ratios, part)
    lower = lv.steps < 15 if lower_order_final is None else lower_order_final
    orders = step_orders(lv, order, lower_final=lower)
    corrected = np.full(lv.steps, corrector)
    corrected[-1] = False  # the last step's end is never evaluated
    corrected &= ~np.isin(part, disable_corrector)
    push = _compensation(lv, ratios, dc_order)
    return assemble(lv, orders, corrected, variant, prediction, push)


def _compensated(lv: Levels, degree: int) -> np.ndarray:
    """The steps whose last d + 1 evaluations stand at distinct times."""
    distinct = np.ones(lv.steps, bool)
    if isinstance(lv.time, np.ndarray):
        distinct = np.all(np.diff(lv.time, axis=0).reshape(lv.steps, -1), axis=1)
    runs = np.arange(lv.steps)
    return np.asarray(
        [i for i in runs if i >= degree and distinct[i - degree : i].all()], int
    )


def _compensation(lv: Levels, ratios: Array, degree: int) -> Array:
    """Weights of what is stored on (new evaluation, stored ones), (N, ..., 1 + d)."""
    xp = namespace(lv.time, ratios)
    time = xp.asarray(lv.time)
    ratios = xp.asarray(ratios, dtype=time.dtype)
    zeros = xp.zeros((*time[:-1].shape, degree), dtype=time.dtype)
    push = xp.concatenate([xp.ones_like(zeros[..., :1]), zeros], axis=-1)
    rows = _compensated(lv, degree)
    if rows.size:
        gap = time[rows] - time[rows - 1]
        ratio = xp.broadcast_to(ratios, (lv.steps,))[rows]
        ratio = ratio.reshape((-1,) + (1,) * (gap.ndim - 1)) + xp.zeros_like(gap)
        # in units of the last interval, from its end: t' is r - 1, the nodes 0, -1, ..
        nodes = [(time[rows - k] - time[rows]) / gap for k in range(degree + 1)]
        mixed = lagrange(xp.stack(nodes, axis=-1), (ratio - 1)[..., None])[..., 0]
        steps = np.arange(lv.steps)
        use = np.isin(steps, rows).reshape((-1,) + (1,) * gap.ndim)
        at = np.searchsorted(rows, steps).clip(max=rows.size - 1)
        push = xp.where(use, mixed[at], push)
    return push
