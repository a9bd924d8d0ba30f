"""UniPC: an exponential multistep predictor and a corrector that costs no call.

One evaluation per step, at the predicted point; it corrects the step that led there
and is never repeated. Zhao et al. 2023 (2302.04867), algorithms 1-4. Order p + 1.
"""

from collections.abc import Sequence

import numpy as np

from ... import plan
from ...numerics import levels, step_orders, with_clean
from ...typing import ArrayLike, Process
from .._starting import Start, begin
from ..registry import solver
from ._unipc import assemble

__all__ = ["unipc"]

_VARIANTS = ("bh1", "bh2", "vary", "exact")


@solver(order=lambda p: p + 1, orders=(1, 2, 3, 4), paper="Zhao 2023, 2302.04867")
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
    compat: bool = False,
    start: Start = "published",
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
        variant: 'bh1', 'bh2', or 'vary' = 'exact': the paper's varying coefficients,
            which are the exact integrals at every order.
        prediction: 'data' or 'noise'.
        lower_order_final: orders p, ..., 2, 1 at the end; None: only below 15 steps
            (the paper's code: always).
        disable_corrector: steps whose result is not corrected (strong guidance).
        corrector: False leaves UniP.
        denoise: one more evaluation, from the last time to sigma = 0.
        compat: the published corrector of 'vary', which leaves terms of its sum out
            and so is of order 1 for p >= 2. No effect on the other variants.
        start: 'published' warms up with orders 1, 2, ...; 'graded' cuts the first step
            into N^(1 - 3/(p + 1)) growing parts, one call each (N^(1 - 2/p) where it is
            not corrected), and so keeps the order on every grid.

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
    if variant not in _VARIANTS:
        raise ValueError(f"variant must be one of {_VARIANTS}, got {variant!r}.")
    if variant == "vary" and not compat:
        variant = "exact"
    lv = levels(process, ts)
    closed = corrector and 0 not in disable_corrector  # the first step, by an order
    lv, part = begin(process, lv, start, order + corrector, 1 + closed)
    lower = lv.steps < 15 if lower_order_final is None else lower_order_final
    orders = step_orders(lv, order, lower_final=lower)
    corrected = np.ones(lv.steps, bool) if corrector else np.zeros(lv.steps, bool)
    corrected[-1] = False  # the last step's end is never evaluated
    corrected &= ~np.isin(part, disable_corrector)
    if denoise:
        lv = with_clean(process, lv)
        orders, corrected = np.append(orders, 1), np.append(corrected, False)
    return assemble(lv, orders, corrected, variant, prediction)
