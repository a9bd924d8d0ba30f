"""DDIM: x_t = alpha_t D + sqrt(sigma_t^2 - c^2) E + c z. Order 1, 1 call per step.

c = eta sigma_t sqrt(1 - e^{-2h}): eta = 0 is the ODE, eta = 1 is DDPM's ancestral
step. Song et al. 2021 (2010.02502), eqs 12 and 16; Ho et al. 2020 (2006.11239).
"""

from ... import plan
from ...numerics import levels
from ...typing import ArrayLike, Process
from .._noise import amount, ancestral_split, is_noisy
from ..registry import solver

__all__ = ["ddim"]


@solver(order=1, stochastic=("eta",), paper="Song 2021, 2010.02502")
def ddim(
    process: Process,
    ts: ArrayLike,
    *,
    eta: ArrayLike = 0.0,
    prediction: str = "data",
    second_noise: bool = False,
) -> plan.Plan:
    """First-order exponential step, deterministic or ancestral.

    x_t = alpha_t D + sqrt(sigma_t^2 - c^2) E + c z, with D, E evaluated at x_s and
    c = eta sigma_t sqrt(1 - (alpha_s sigma_t / (alpha_t sigma_s))^2).

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,).
        eta: 0 = ODE, 1 = DDPM; scalar or one per step, shape (N,), in [0, 1].
        prediction: 'data' or 'noise', the basis of the arithmetic. Both give the same
            sample; 'data' is exact at alpha = 0.
        second_noise: the denoiser returns (data, direction): D is the first and E
            comes from the second (CFG++; clipping that keeps the raw direction).

    Returns:
        A plan of N rows.

    Raises:
        ValueError: eta outside [0, 1], or times that increase.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.ddim(process, fd.grids.uniform(process, 10)).nfe
        10
    """
    lv = levels(process, ts).require(prediction)
    eta = amount(lv, eta, "eta", most=1)
    share, drawn = ancestral_split(lv.h, eta)
    direction = share * lv.sigma[1:] / lv.sigma[:-1]
    noise = drawn * lv.sigma[1:] if is_noisy(eta) else None
    if second_noise:  # D from the first prediction, E from the second
        return plan.multistep(
            lv,
            keep=direction,
            weights=(lv.alpha[1:, ..., None], -(direction * lv.alpha[:-1])[..., None]),
            noise=noise,
            reads=("data", "direction"),
        )
    keep, weights = direction, lv.alpha[1:] - direction * lv.alpha[:-1]
    if prediction == "noise":
        keep = lv.alpha[1:] / lv.alpha[:-1]
        weights = share * lv.sigma[1:] - keep * lv.sigma[:-1]
    return plan.multistep(
        lv, basis=prediction, keep=keep, weights=weights[..., None], noise=noise
    )
