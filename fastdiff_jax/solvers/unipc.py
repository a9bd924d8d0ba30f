"""UniPC: an exponential multistep predictor and a corrector that costs no call.

One evaluation per step, at the predicted point; it corrects the step that led there
and is never repeated. Zhao et al. 2023 (2302.04867), algorithms 1-4. Order p + 1.
"""

from collections.abc import Sequence

import numpy as np

from .. import plan
from ..numerics import (
    Levels,
    exponential_weights,
    gather_columns,
    keep_factor,
    levels,
    namespace,
    step_orders,
)
from ..typing import Array, ArrayLike, Process

__all__ = ["unipc"]


def unipc(
    process: Process,
    ts: ArrayLike,
    *,
    order: int = 3,
    variant: str = "bh2",
    prediction: str = "data",
    lower_order_final: bool | None = None,
    disable_corrector: Sequence[int] = (),
    corrector: bool = True,
    denoise: bool = False,
) -> plan.Plan:
    """UniPC-p. Order p + 1 (p without corrector), 1 call per step.

    The predictor of order p integrates the polynomial through the newest p
    evaluations; the corrector adds the evaluation at the predicted point. As
    published, the order-2 predictor and the order-1 corrector take the weight 1/2 on
    their difference, times B(h) = h ('bh1') or e^h - 1 ('bh2'); from order 3 (2) on
    both variants are the exact integral.

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,).
        order: p, 1 to 6.
        variant: 'bh1', 'bh2', or 'exact' (exact integrals at every order).
        prediction: 'data' or 'noise'.
        lower_order_final: orders p, ..., 2, 1 at the end; None: only below 15 steps
            (the paper's code: always).
        disable_corrector: steps whose result is not corrected (strong guidance).
        corrector: False leaves UniP.
        denoise: one more evaluation, from the last time to sigma = 0.

    Returns:
        A plan of N rows (N + 1 with `denoise`). A step into sigma = 0 gives D.

    Raises:
        ValueError: an order outside 1..6 or an unknown variant.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.unipc(process, fd.grids.log_snr(process, 8), order=3).nfe
        8
    """
    if not 1 <= order <= 6:
        raise ValueError(f"unipc needs order in 1..6, got {order}.")
    if variant not in ("bh1", "bh2", "exact"):
        raise ValueError(f"variant must be 'bh1', 'bh2' or 'exact', got {variant!r}.")
    lv = levels(process, ts)
    lower = lv.steps < 15 if lower_order_final is None else lower_order_final
    orders = step_orders(lv, order, lower_final=lower)
    corrected = np.ones(lv.steps, bool) if corrector else np.zeros(lv.steps, bool)
    corrected[-1] = False  # the last step's end is never evaluated
    corrected[[i for i in disable_corrector if 0 <= i < lv.steps]] = False
    if denoise:
        xp = namespace(lv.time)
        end = xp.full_like(lv.time[:1], process.clean)
        lv = levels(process, xp.concatenate([lv.time, end]))
        orders, corrected = np.append(orders, 1), np.append(corrected, False)
    return _assemble(lv, orders, corrected, order, variant, prediction)


def _assemble(
    lv: Levels,
    orders: np.ndarray,
    corrected: np.ndarray,
    order: int,
    variant: str,
    prediction: str,
) -> plan.Plan:
    """Row i: correct step i - 1 with the new evaluation, then predict step i."""
    xp = namespace(lv.lam)
    keep = keep_factor(lv, prediction)
    predict = gather_columns(
        orders, lambda rows, p: _predictor(lv, rows, p, variant, prediction), order
    )
    correct = gather_columns(
        np.where(corrected, orders, 0),
        lambda rows, p: _corrector(lv, rows, p, variant, prediction),
        order + 1,
    )
    done = np.concatenate([[False], corrected[:-1]])  # row i corrects step i - 1
    shape = (-1,) + (1,) * (keep.ndim - 1)
    use = done.reshape(shape)
    before = np.maximum(np.arange(lv.steps) - 1, 0)
    weights = xp.where(use[..., None], correct[before], 0.0)
    weights, predict = xp.moveaxis(weights, -1, 1), xp.moveaxis(predict, -1, 1)
    level = plan.take(lv, slice(None, -1))
    made = plan.build(
        level,
        plan.take(lv, -1),
        convert=plan.basis(level, prediction),
        advance=plan.Move(
            anchor=xp.where(use, keep[before], 0.0),
            point=xp.where(use, 0.0, xp.ones_like(keep)),
            evaluation=weights[:, :1],
            history=weights[:, 1:],
        ),
        predict=plan.Move(anchor=keep, history=predict),
    )
    plan.check(made, lv, prediction)
    return made


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
    if order != 2 or variant == "exact":
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
    if order > 1 or variant == "exact":
        return exponential_weights(lv, rows, order + 1, prediction, ahead=True)
    first, half = _difference(lv, rows, variant, prediction)
    return xp.stack([-half, first + half], axis=-1)
