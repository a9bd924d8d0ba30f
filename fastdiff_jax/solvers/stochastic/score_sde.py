"""Score-SDE's predictors, reverse diffusion and ancestral sampling; DDPM's step.

With a = alpha_s / alpha_t (the forward jump's gain), g^2 = sigma_s^2 - a^2 sigma_t^2
(its noise) and S = (alpha_s D - x) / sigma_s^2. Song et al. 2021 (2011.13456); Ho et
al. 2020 (2006.11239).
"""

from ... import plan
from ...numerics import levels
from ...typing import ArrayLike, Process
from .._noise import amount
from ..registry import solver
from ._score_sde import (
    ancestral_jump,
    jumps_plan,
    reverse_diffusion_jump,
    without_last_noise,
)

__all__ = ["ddpm", "reverse_diffusion", "score_sde_ancestral"]


@solver(order=1, stochastic=("tau2",), paper="Song 2021, 2011.13456")
def reverse_diffusion(
    process: Process,
    ts: ArrayLike,
    *,
    tau2: ArrayLike = 1.0,
    denoise: bool = True,
) -> plan.Plan:
    """The reverse-diffusion predictor. Order 1, 1 call per step.

    x_t = x_s - f + (1 + tau2) / 2 g^2 S + tau g z,  f = (a - 1) x_s

    The forward chain's own drift and noise, run backwards. VP: a = sqrt(1 - beta),
    g^2 = beta; VE: a = 1, g^2 = sigma_s^2 - sigma_t^2. Here f and g are those of the
    grid's jumps on any path (the paper's code takes 1/N of a unit of time, or a table
    of N levels, whatever the grid). Prefer `ddim(eta=1)`, which is exact for a
    constant D.

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,). A step into sigma = 0 gives D.
        tau2: 1 = reverse SDE, 0 = the probability-flow ODE; a scalar or one per step,
            shape (N,).
        denoise: no noise in the last step, as published.

    Returns:
        A plan of N rows.

    Raises:
        ValueError: a negative tau2, or alpha = 0 on the grid.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.ve()
        >>> reverse_diffusion(process, fd.grids.uniform(process, 100)).nfe
        100

    Reference: Song et al. 2021 (2011.13456), section 4.2, eq 46.
    """
    lv = levels(process, ts)
    jump = reverse_diffusion_jump(lv, amount(lv, tau2), "reverse_diffusion")
    return jumps_plan(lv, without_last_noise(jump) if denoise else jump)


@solver(order=1, draws=True, paper="Song 2021, 2011.13456")
def score_sde_ancestral(
    process: Process,
    ts: ArrayLike,
    *,
    variance: str = "published",
    denoise: bool = True,
) -> plan.Plan:
    """Score-SDE's ancestral sampling. Order 1, 1 call per step.

    x_t = a (sigma_t^2 / sigma_s^2) x_s + alpha_t (g^2 / sigma_s^2) D + c z

    'posterior': c = g sigma_t / sigma_s, `ddim(eta=1)`; published for VE, where
                 c^2 = sigma_t^2 (sigma_s^2 - sigma_t^2) / sigma_s^2
    'large':     c = g, published for VP: sqrt(beta)

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,). A step into sigma = 0 gives D.
        variance: 'posterior', 'large' (the marginals are then too wide), or
            'published': 'large' where alpha^2 + sigma^2 = 1, else 'posterior' (the
            paper has none for sub-VP).
        denoise: no noise in the last step, as published.

    Returns:
        A plan of N rows.

    Raises:
        ValueError: an unknown variance.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.ve()
        >>> plan = score_sde_ancestral(process, fd.grids.uniform(process, 100))
        >>> plan.stochastic
        True

    Reference: Song et al. 2021 (2011.13456), eqs 4 and 47.
    """
    if variance not in ("published", "posterior", "large"):
        raise ValueError(
            f"variance must be 'published', 'posterior' or 'large', got {variance!r}."
        )
    lv = levels(process, ts)
    jump = ancestral_jump(lv, variance)
    return jumps_plan(lv, without_last_noise(jump) if denoise else jump)


@solver(order=1, draws=True, paper="Ho 2020, 2006.11239")
def ddpm(process: Process, ts: ArrayLike, *, variance: str = "posterior") -> plan.Plan:
    """DDPM's ancestral step. Order 1, 1 call per step.

    x_t = r x_s + (alpha_t - r alpha_s) D + c z,  r = e^{-h} sigma_t / sigma_s
    'posterior': c = sigma_t sqrt(1 - e^{-2h}), the same as `ddim(eta=1)`
    'large':     c = sigma_s sqrt(1 - e^{-2h}), the forward step's, sqrt(beta) on VP

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,). No noise goes into sigma = 0.
        variance: 'posterior' or 'large'. With 'large' the marginals are too wide.

    Returns:
        A plan of N rows.

    Raises:
        ValueError: an unknown variance.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.ddpm(process, fd.grids.uniform(process, 100)).stochastic
        True

    Reference: Ho et al. 2020 (2006.11239), section 3.2.
    """
    if variance not in ("posterior", "large"):
        raise ValueError(f"variance must be 'posterior' or 'large', got {variance!r}.")
    lv = levels(process, ts)
    return jumps_plan(lv, ancestral_jump(lv, variance))
