"""Predictor-corrector sampling: Langevin steps at each level, then a step of any SDE.

A corrector row moves nothing in time (annealed Langevin dynamics with score S):

    x <- x + eps S + sqrt(2 eps) z,  eps = 2 a^2 (snr sigma)^2

with a = alpha_s / alpha_t of the step that follows: a^2 = 1 - beta on VP, 1 on VE. It
is linear, so it is a row of the table. Song et al. 2021 (2011.13456), algorithms 2-5.
"""

import numpy as np

from ... import plan
from ...numerics import Levels, as_float, levels, namespace
from ...typing import Array, ArrayLike, Process, PyTree
from .._noise import amount, is_noisy, sqrt_safe
from ..registry import solver
from ._score_sde import (
    Jump,
    ancestral_jump,
    euler_maruyama_jump,
    exponential_jump,
    gain,
    jumps_plan,
    reverse_diffusion_jump,
    without_last_noise,
)

__all__ = ["predictor_corrector"]

_PREDICTORS = ("reverse_diffusion", "ancestral", "euler_maruyama", "sde_dpmpp_1")


@solver(order=1, calls=2, stochastic=("tau2", "snr"), paper="Song 2021, 2011.13456")
def predictor_corrector(
    process: Process,
    ts: ArrayLike,
    *,
    predictor: str | None = "reverse_diffusion",
    corrector: str | None = "ald",
    snr: ArrayLike = 0.16,
    corrections: int = 1,
    tau2: ArrayLike = 1.0,
    denoise: bool = True,
    controls: PyTree = None,
) -> plan.Plan:
    """Score-SDE's predictor-corrector sampler. Order 1; 1 + corrections calls per step.

    At each level: `corrections` times x + eps S + sqrt(2 eps) z with
    eps = 2 a^2 (snr sigma)^2, then the predictor's step.

    Langevin's step size by norms, eps = 2 a^2 (snr |z| / |S|)^2, is not linear: run
    the same plan with `fd.sample(..., move=fd.moves.langevin())`, which rescales the
    corrector rows. A fixed snr leaves a bias whatever the number of steps: where the
    variance is V, a correction pulls it to V / (1 - eps / (2 V)).

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,).
        predictor: 'reverse_diffusion', 'ancestral' (`score_sde_ancestral`),
            'euler_maruyama', 'sde_dpmpp_1', or None: correctors alone, at all N + 1
            levels.
        corrector: 'ald', or None.
        snr: signal-to-noise ratio of a correction, >= 0. Published: 0.16 (CIFAR-10),
            0.17 (CelebA), 0.075 (256 x 256), 0.15 (1024 x 1024).
        corrections: M, corrector rows per level.
        tau2: of the predictor: 1 = reverse SDE, 0 = ODE. 'ancestral' has 1 only.
        denoise: no noise in the predictor's last step, as published.
        controls: per-row values for the denoiser, leading axis N (M + 1).

    Returns:
        A plan of N (M + 1) rows; M (N + 1) without a predictor.

    Raises:
        ValueError: an unknown predictor or corrector, neither of them, snr < 0,
            corrections < 1, controls of another length, or alpha = 0 where the
            predictor cannot start.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> ts = fd.grids.uniform(process, 50)
        >>> predictor_corrector(process, ts, snr=0.16).nfe
        100
    """
    count = _corrections(corrector, corrections)
    if predictor is not None and predictor not in _PREDICTORS:
        raise ValueError(
            f"predictor must be one of {', '.join(_PREDICTORS)}, or None; got "
            f"{predictor!r}."
        )
    lv = levels(process, ts)
    if predictor is None:
        if not count:
            raise ValueError("give a predictor or a corrector; both are None.")
        rows, steps = np.repeat(np.arange(lv.steps + 1), count), None
        _refuse_clean(lv)
    else:
        jump = _jump(process, lv, predictor, amount(lv, tau2), tau2)
        steps = without_last_noise(jump) if denoise else jump
        rows = np.repeat(np.arange(lv.steps), count + 1)
    moves = np.arange(len(rows)) % (count + 1) == count
    if steps is None:
        moves = np.zeros(len(rows), bool)
    each = _rows(lv, rows, moves, steps, snr) if count or steps is None else steps
    at = np.append(rows, lv.steps)
    return jumps_plan(lv.take(at), each, controls)


def _corrections(corrector: str | None, corrections: int) -> int:
    if corrector is None:
        return 0
    if corrector != "ald":
        hint = ""
        if corrector == "langevin":
            hint = (
                " Langevin's step sizes by norms are not linear: build the plan with "
                "'ald' and sample with move=fd.moves.langevin()."
            )
        raise ValueError(f"corrector must be 'ald' or None, got {corrector!r}.{hint}")
    if isinstance(corrections, bool) or corrections != int(corrections):
        raise ValueError(f"corrections must be a whole number, got {corrections!r}.")
    if corrections < 1:
        raise ValueError(
            f"corrections must be >= 1, got {corrections}. Use corrector=None for none."
        )
    return int(corrections)


def _refuse_clean(lv: Levels) -> None:
    if isinstance(lv.sigma, np.ndarray) and (lv.sigma[-1] == 0).any():
        raise ValueError(
            "predictor=None needs sigma > 0 at the end: a correction cannot reach "
            f"ts[{lv.steps}]={lv.time[-1]}. End the grid above it."
        )


def _jump(
    process: Process, lv: Levels, predictor: str, tau2: Array, given: ArrayLike
) -> Jump:
    if predictor == "reverse_diffusion":
        return reverse_diffusion_jump(lv, tau2, "predictor='reverse_diffusion'")
    if predictor == "euler_maruyama":
        return euler_maruyama_jump(process, lv, tau2, "predictor='euler_maruyama'")
    if predictor == "sde_dpmpp_1":
        return exponential_jump(lv, tau2)
    if isinstance(tau2, np.ndarray) and not (tau2 == 1).all():
        raise ValueError(
            f"predictor='ancestral' has tau2 = 1 only, got {given}. Use "
            "'reverse_diffusion' or 'sde_dpmpp_1'."
        )
    return ancestral_jump(lv, "published")


def _share(lv: Levels, snr: ArrayLike) -> Array:
    """The share eps / sigma^2 = 2 a^2 snr^2 at each level; the last a twice."""
    _, (snr,) = as_float(snr)
    if snr.ndim:
        raise ValueError(f"snr must be one number, got shape {snr.shape}.")
    if isinstance(snr, np.ndarray) and not (np.isfinite(snr) and snr >= 0):
        raise ValueError(f"snr must be finite and >= 0, got {snr}. Published: 0.16.")
    a = gain(lv)
    xp = namespace(a, snr)
    return 2 * (snr * xp.concatenate([a, a[-1:]])) ** 2


def _rows(
    lv: Levels,
    rows: np.ndarray,
    moves: np.ndarray,
    jump: Jump | None,
    snr: ArrayLike,
) -> Jump:
    """Corrector rows, and predictor rows where `moves`."""
    share = _share(lv, snr)[rows]
    xp = namespace(share, lv.sigma, *(v for v in jump or () if v is not None))
    keep, weight = 1 - share, share * lv.alpha[rows]
    noise = lv.sigma[rows] * sqrt_safe(2 * share) if is_noisy(share) else None
    if jump is None:
        return Jump(keep, weight, noise)
    pick = moves.reshape((-1,) + (1,) * (share.ndim - 1))
    if noise is not None or jump.noise is not None:
        off = xp.zeros_like(share)
        drawn = off if jump.noise is None else jump.noise[rows]
        noise = xp.where(pick, drawn, off if noise is None else noise)
    return Jump(
        xp.where(pick, jump.keep[rows], keep),
        xp.where(pick, jump.weight[rows], weight),
        noise,
    )
