"""RDDM: the residual and the noise leave the state, each along its own clock.

    x_t = x_s - (abar_s - abar_t) R - (bbar_s - sqrt(bbar_t^2 - v)) E + sqrt(v) z
    v = eta (bbar_s^2 - bbar_t^2) bbar_t^2 / bbar_s^2

Order 1, 1 call per step (of a network that gives both). Liu et al. 2023 (2308.13712),
eqs 12-14. The two predictions are the residual R = y - x_0 and the noise E, not D: a
table that moves only one of them does not disturb the other.
"""

from ... import plan
from ...numerics import levels, namespace
from ...typing import ArrayLike, Process
from .._noise import amount, is_noisy
from ..registry import solver

__all__ = ["residual_noise"]


@solver(
    order=1,
    stochastic=("eta",),
    paper="Liu 2023, 2308.13712",
    needs="a process of residual and noise, and a denoiser of (residual, noise)",
)
def residual_noise(
    process: Process,
    ts: ArrayLike,
    *,
    eta: ArrayLike = 0.0,
    noise_ts: ArrayLike | None = None,
) -> plan.Plan:
    """RDDM's reverse step, with one clock or two.

    x_t = x_s - (abar_s - abar_t) R - (bbar_s - sqrt(bbar_t^2 - v)) E + sqrt(v) z

    The denoiser must return (R, E), see `restore.residual_model`.

    Args:
        process: abar = 1 - alpha and bbar = sigma, e.g. `processes.rddm()`.
        ts: times of the residual's clock, non-increasing, shape (N + 1,).
        eta: 0 = deterministic, 1 = the forward chain's posterior; a share of the
            variance, not of the standard deviation; scalar or (N,), in [0, 1].
        noise_ts: times of the noise's clock, (N + 1,), None for the same. The
            network then finds both times in `context.controls`, as 'residual_time' and
            'noise_time', and context.sigma follows this clock.

    Returns:
        A plan of N rows that integrates two predictions.

    Raises:
        ValueError: eta outside [0, 1], or clocks of different lengths.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.rddm(1000)
        >>> residual_noise(process, fd.grids.uniform(process, 5, end=-1.0)).nfe
        5

    Reference: 2308.13712, eqs 12-14 and section 4.3 (partially path-independent).
    """
    lv = levels(process, ts)
    nv = lv if noise_ts is None else levels(process, noise_ts, "noise_ts")
    if nv.time.shape != lv.time.shape:
        raise ValueError(
            f"noise_ts must have ts' shape {lv.time.shape}, got {nv.time.shape}. "
            "Repeat a time where its clock stands still."
        )
    eta = amount(lv, eta, "eta", most=1)
    xp = namespace(lv.alpha, nv.sigma, eta)
    start, end = nv.sigma[:-1], nv.sigma[1:]
    ratio = xp.where(start == 0, 1.0, end / xp.where(start == 0, 1.0, start))
    share = eta * (1 - ratio) * (1 + ratio)  # of the variance left: v / bbar_t^2
    weights = (lv.alpha[:-1] - lv.alpha[1:], end * xp.sqrt(1 - share) - start)
    controls = None
    if noise_ts is not None:
        controls = {"residual_time": lv.time[:-1], "noise_time": nv.time[:-1]}
    return plan.multistep(
        lv._replace(sigma=nv.sigma),
        keep=xp.ones_like(start),
        weights=tuple(w[..., None] for w in weights),
        noise=end * xp.sqrt(share) if is_noisy(eta) else None,
        reads=("residual", "noise"),
        controls=controls,
    )
