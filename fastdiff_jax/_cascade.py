"""DC-Solver's cascade polynomial regression: ratios of settings not searched.

With u = k / N (k = 1..N counts the steps), c = scale / 12 and n = N / 50,

    r_k = sum_{p, j, q} theta_{p j q} u^p c^{2 - j} n^{2 - q},   theta (4, 3, 3)

Zhao et al. 2024 (2409.03755), section 3.3.
"""

from collections.abc import Iterable

import numpy as np

from .typing import ArrayLike

__all__ = ["fit_cascade", "predict_ratios"]

_SCALE, _STEPS = 12.0, 50.0  # the paper's units of guidance scale and step count
_SHAPE = (4, 3, 3)


def _features(steps: int, scale: float, first: int) -> np.ndarray:
    """Monomials u^p c^{2-j} n^{2-q} of the steps k > first, (N - first, 4, 3, 3)."""
    u = np.arange(first + 1, steps + 1) / steps
    c, n = scale / _SCALE, steps / _STEPS
    powers = u[:, None] ** np.arange(4), c ** np.arange(2.0, -1, -1)
    return np.einsum("kp,j,q->kpjq", *powers, n ** np.arange(2.0, -1, -1))


def fit_cascade(
    table: Iterable[tuple[float, ArrayLike]], *, dc_order: int = 2
) -> np.ndarray:
    """Cascade polynomial regression on searched ratios, by one least-squares fit.

    The degree in scale (steps) is at most the number of distinct scales (step counts)
    in the table minus one, so that what was never varied has no influence.

    Args:
        table: pairs (guidance scale, ratios of shape (N,)), of any N.
        dc_order: d of the searches; the first d ratios are not fitted.

    Returns:
        theta, (4, 3, 3): power of u, then of c and n from the second down to 0.

    Raises:
        ValueError: no ratio to fit.

    Example:
        >>> theta = fit_cascade([(7.5, [1, 1, 0.9, 0.8]), (7.5, [1, 1, 0.9, 0.8, 0.7])])
        >>> predict_ratios(theta, 4, 7.5).shape
        (4,)
    """
    pairs = [(float(g), np.asarray(r, np.float64)) for g, r in table]
    pairs = [(g, r) for g, r in pairs if r.ndim == 1 and len(r) > dc_order]
    if not pairs:
        raise ValueError(
            f"fit_cascade needs ratios of shape (N,) with N > dc_order={dc_order}."
        )
    rows = np.concatenate([_features(len(r), g, dc_order) for g, r in pairs])
    wanted = np.concatenate([r[dc_order:] for _, r in pairs])
    use = np.ones(_SHAPE, bool)
    use[:, : 2 - min(2, len({g for g, _ in pairs}) - 1)] = False
    use[:, :, : 2 - min(2, len({len(r) for _, r in pairs}) - 1)] = False
    theta = np.zeros(_SHAPE)
    theta[use] = np.linalg.lstsq(rows[:, use], wanted, rcond=None)[0]
    return theta


def predict_ratios(
    theta: ArrayLike, steps: int, scale: float = 1.0, *, dc_order: int = 2
) -> np.ndarray:
    """Ratios of a setting from the regression; 1 for the first `dc_order` steps.

    Args:
        theta: from `fit_cascade`, (4, 3, 3).
        steps: N.
        scale: guidance scale.
        dc_order: d, as in the fit.

    Returns:
        Ratios, (N,).

    Raises:
        ValueError: theta of another shape, or steps < 1.
    """
    theta = np.asarray(theta, np.float64)
    if theta.shape != _SHAPE:
        raise ValueError(f"theta must have shape {_SHAPE}, got {theta.shape}.")
    if steps < 1:
        raise ValueError(f"steps must be >= 1, got {steps}.")
    ratios = np.ones(steps)
    found = np.einsum("kpjq,pjq->k", _features(steps, scale, dc_order), theta)
    ratios[dc_order:] = found[: max(0, steps - dc_order)]
    return ratios
