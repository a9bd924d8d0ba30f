"""SA-Solver: stochastic Adams, predictor and corrector driven by the same noise.

The reverse SDE with noise rate tau^2(t) has the path's marginals for any tau >= 0. With
a = 1 + tau^2 constant over a step, h its length in half log-SNR lambda, and l_k the
Lagrange basis on the evaluations in use,

    data   x_t = (σ_t/σ_s) e^{-tau² h} x_s + α_t Σ_k D_k int a e^{-a(λ_t-λ)} l_k(λ) dλ
                 + σ_t sqrt(1 - e^{-2 tau² h}) z
    noise  x_t = (α_t/α_s) x_s - a σ_t Σ_k E_k int e^{λ_t-λ} l_k(λ) dλ
                 + tau σ_t sqrt(e^{2h} - 1) z

The predictor's nodes are past evaluations; the corrector adds the one at the step's
end, and keeps the z of the predictor: a fresh one would cost an order.
Xue et al. 2023 (2309.05019), eqs 14 and 17, algorithm 1.
"""

from collections.abc import Callable

import numpy as np

from ... import plan
from ...numerics import (
    Levels,
    exponential_weights,
    gather_columns,
    keep_factor,
    levels,
    namespace,
    step_orders,
    steps_left,
)
from ...typing import Array, ArrayLike, Process
from .._noise import amount, exact_weights, is_noisy, sde_step, sqrt_safe
from ..registry import solver

__all__ = ["sa_solver"]


# order 4 without noise
@solver(order=2, stochastic=("tau2",), paper="Xue 2023, 2309.05019")
def sa_solver(
    process: Process,
    ts: ArrayLike,
    *,
    predictor_order: int = 3,
    corrector_order: int = 4,
    tau2: ArrayLike | Callable[[Array], ArrayLike] = 1.0,
    prediction: str = "data",
    variant: str = "exact",
    lower_order_final: bool | None = None,
    compat: bool = False,
) -> plan.Plan:
    """Stochastic Adams-Bashforth predictor, Adams-Moulton corrector. 1 call per step.

    x_t = (σ_t/σ_s) e^{-tau² h} x_s + α_t Σ_k b_k D_k + σ_t sqrt(1 - e^{-2 tau² h}) z,
    once with b on past evaluations, and again, with the same z, when the evaluation
    at the predicted point is there. With tau2 = 0 of order
    min(predictor_order + 1, corrector_order), or predictor_order without corrector;
    with noise the samples' law converges at order 2 at most.

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,). A step into sigma = 0 is of first
            order and not corrected: x = D. Repeat the last time to have the last
            step corrected too, for one more call.
        predictor_order: number of past evaluations it reads, 1 to 6.
        corrector_order: number of evaluations it reads, the newest included, 0 to 6;
            0 for no corrector.
        tau2: 0 = ODE, 1 = the reverse SDE, the square of the paper's tau; a scalar, one
            per step, shape (N,), or a function of the steps' first times. The paper's
            images: `lambda t: np.where((t >= 0.2) & (t <= 0.8), 1.0, 0.0)`.
        prediction: 'data' or 'noise'; with large steps and noise the noise form
            amplifies what the data form damps.
        variant: 'exact', or 'few_step': the published weights of order 2 in data
            prediction, which differ from the exact ones by O(h^3).
        lower_order_final: orders ..., 2, 1 at the last steps of non-zero length; None:
            only below 15 steps.
        compat: a repeated time counts as a step there, as in current libraries whose
            last level may stand twice.

    Returns:
        A plan of N rows, one draw per row.

    Raises:
        ValueError: an order out of range, an unknown variant, a negative or infinite
            tau2 or one per step of the wrong length, or noise prediction at alpha = 0.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> made = fd.solvers.sa_solver(process, fd.grids.log_snr(process, 8), tau2=0.5)
        >>> made.nfe, made.stochastic
        (8, True)

    Reference: Xue et al. 2023 (2309.05019), algorithm 1; 'few_step': its official code.
    """
    _check_order("predictor_order", predictor_order, 1)
    _check_order("corrector_order", corrector_order, 0)
    if variant not in ("exact", "few_step"):
        raise ValueError(f"variant must be 'exact' or 'few_step', got {variant!r}.")
    lv = levels(process, ts).require(prediction)
    rate = amount(lv, tau2(lv.time[:-1]) if callable(tau2) else tau2)
    left = lv.steps - np.arange(lv.steps) if compat else steps_left(lv)
    lower = left[0] < 15 if lower_order_final is None else lower_order_final
    before = step_orders(lv, predictor_order)
    after = _corrector_orders(lv, corrector_order)
    if lower:
        before, after = np.minimum(before, left.clip(1)), np.minimum(after, left + 1)

    def weights(ahead: bool) -> Callable[[np.ndarray, int], Array]:
        return lambda rows, count: _weights(
            lv, rate, rows, count, ahead, prediction, variant == "few_step"
        )

    keep, noise = _transition(lv, rate, prediction)
    return plan.corrected(
        lv,
        basis=prediction,
        keep=keep,
        predict=gather_columns(before, weights(False)),
        correct=gather_columns(after, weights(True)),
        steps=after > 0,
        noise=noise,
    )


def _check_order(name: str, value: int, low: int) -> None:
    if not low <= value <= 6:
        raise ValueError(f"sa_solver needs {name} in {low}..6, got {value}.")


def _corrector_orders(lv: Levels, order: int) -> np.ndarray:
    """How many evaluations correct each step, (N,): 0 where nothing does."""
    n = lv.steps
    if order == 0:
        return np.zeros(n, int)
    orders = np.full(n, order)
    if order > 1:  # the newest, and past ones as a predictor of one order less
        orders = 1 + step_orders(lv, order - 1)
    orders[-1] = 0  # nothing is evaluated at the end
    if isinstance(lv.lam, np.ndarray):  # nor is there a polynomial on an infinite step
        h = lv.h.reshape(n, -1)
        orders[~(np.isfinite(h) & (h != 0)).all(axis=1)] = 0
    return orders


def _weights(
    lv: Levels,
    rate: Array,
    rows: np.ndarray,
    count: int,
    ahead: bool,
    prediction: str,
    few_step: bool,
) -> Array:
    """Weights of the evaluations in the steps `rows`, newest first, (S, ..., count)."""
    xp = namespace(lv.lam, rate)
    if count == 0:
        return xp.zeros((*lv.lam[rows].shape, 1))
    h, a = lv.h[rows], 1 + rate[rows]
    ahead = ahead and count > 1  # one evaluation weighs the same wherever it is
    if prediction == "noise":
        return a[..., None] * exponential_weights(lv, rows, count, prediction, ahead)
    if few_step and count == 2:
        share = a * h / 2 if ahead else -a * h**2 / (2 * lv.h[rows - 1])
        rest = -xp.expm1(-a * h) - share
        found = xp.stack([share, rest] if ahead else [rest, share], axis=-1)
        return lv.alpha[rows + 1][..., None] * found
    return exact_weights(lv, rate, rows, count, ahead)


def _transition(lv: Levels, rate: Array, prediction: str) -> tuple[Array, Array | None]:
    """Weights of the state and of z over each step; None where nothing is drawn."""
    if prediction == "data":
        keep, noise = sde_step(lv.starts, lv.ends, rate, lv.h)
    else:
        low, high = lv.rho[1:], lv.rho[:-1]
        keep = keep_factor(lv, prediction)
        noise = lv.alpha[1:] * sqrt_safe(rate * (high - low) * (high + low))
    return keep, noise if is_noisy(rate) else None
