"""Speech enhancement: SGMSE+ and StoRM on OUVE, and the Schroedinger bridge SB-VE.

SGMSE+ alternates, at each of N times, a Langevin correction and an Euler-Maruyama step
of the reverse SDE; with S the score, g the noise rate and f the drift,

    x <- x + 2 (snr sigma)^2 S + 2 snr sigma z
    x <- x - (f - g^2 S) dt + g sqrt(dt) z,      the last without z

StoRM restores in two stages: y_hat = predict(y), then SGMSE+ from y_hat with a network
conditioned on both:

    y_hat = predict(y)
    model = restore.denoiser(fn, process, y_hat, prediction="score", condition=y)
    x = restore.sample(restore.sgmse(process, 50), model, process, y_hat, key=key)

States may be complex spectra: complex noise has total variance 1, as published.
Richter et al. 2022 (2208.05830), Lemercier et al. 2022 (2212.11851), Jukic et al. 2024
(2407.16074).
"""

import dataclasses
from typing import Literal

import numpy as np

from .. import plan as plans
from .. import solvers
from ..guards import checked, must
from ..numerics import Levels, levels
from ..plan import Plan, Row
from ..processes import OUVE, SBVE
from ..typing import Array, ArrayLike, Process

__all__ = ["sb_ve", "sgmse"]


@checked
def sgmse(
    process: OUVE,
    steps: int = 30,
    *,
    snr: float = 0.5,
    corrections: int = 1,
    final: Literal["mean", "data"] = "mean",
) -> Plan:
    """SGMSE+'s predictor-corrector sampler. Order 1, 1 + corrections calls per step.

    Run it with `restore.sample`, whose start is y + sigma_1 z. Fewer calls: any other
    plan on the process, e.g. `solvers.dpmpp_2m` or `solvers.sde_dpmpp_2m`.

    Args:
        process: `processes.ouve(...)`.
        steps: N times from 1 to the process' end 0.03; one more step leads to 0.
        snr: step size of a correction.
        corrections: Langevin corrections per time, 0 for none.
        final: 'mean': the last step is the reverse SDE's Euler step without its
            noise, as published. 'data': it is the data prediction.

    Returns:
        A plan of N (1 + corrections) rows for the state x - y.

    Raises:
        ValueError: steps < 2, snr < 0, corrections < 0, or an unknown final.

    Example:
        >>> import fastdiff_jax as fd
        >>> sgmse(fd.processes.ouve()).nfe
        60

    Reference: 2208.05830, section III.C; Song et al. 2021 (2011.13456), algorithm 3.
    """
    for name, value, low in (("steps", steps, 2), ("corrections", corrections, 0)):
        if value < low:
            raise must(name, f">= {low}", value)
    if snr < 0:
        raise must("snr", ">= 0", snr)
    ts = np.append(np.linspace(process.start, process.end, steps), process.clean)
    lv = levels(process, ts)
    euler = _euler(process, lv, final)
    share = np.full(steps, 2 * snr**2)
    sigma = lv.sigma[:-1]
    langevin = (1 - share, share * lv.alpha[:-1], sigma * np.sqrt(2 * share))
    rows = np.repeat(np.arange(steps), 1 + corrections)
    moves = np.arange(rows.size) % (1 + corrections) == corrections
    keep, weight, noise = (
        np.where(moves, step[rows], correction[rows])
        for step, correction in zip(euler, langevin, strict=True)
    )
    at = np.append(rows, steps)
    return plans.multistep(
        lv.take(at),
        keep=keep,
        weights=weight[:, None],
        noise=noise,
        exact=False,  # Euler steps are not exact on a constant
    )


def _euler(process: Process, lv: Levels, final: str) -> tuple[Array, ...]:
    """Weights of (x, D, z) in the reverse SDE's Euler steps around y, (N,) each."""
    dt, alpha, sigma = lv.time[:-1] - lv.time[1:], lv.alpha[:-1], lv.sigma[:-1]
    d_alpha, d_sigma = process.rates(lv.time[:-1])
    growth = 2 * (d_sigma / sigma - d_alpha / alpha)  # g^2 / sigma^2
    keep = 1 - dt * (d_alpha / alpha + growth)
    weight = dt * growth * alpha
    noise = sigma * np.sqrt(growth * dt)
    noise[-1] = 0.0
    if final == "data":
        keep[-1], weight[-1] = 0.0, 1.0
    return keep, weight, noise


@checked
def sb_ve(
    process: SBVE,
    steps: int = 50,
    *,
    sde: bool = True,
    ts: ArrayLike | None = None,
    first_noise: bool = True,
    compat: bool = False,
) -> Plan:
    """Sampler of the Schroedinger bridge between speech and noisy speech. Order 1.

    SDE: x_t = (s_t^2/s_s^2) x_s + (1 - s_t^2/s_s^2) D + c z, the last without z.
    ODE: r is the ratio of standard deviations. At t = 1 the state is y itself and that
    ratio does not exist: the first step draws noise, x = alpha D + beta y + sigma z.

    Start it from y and run it with `fd.sample` and `restore.with_endpoint`; the
    network predicts the data.

    Args:
        process: `processes.sb_ve(...)`.
        steps: N steps from 1 to the process' end 1e-4, published: 50.
        sde: the stochastic sampler; False: the ODE.
        ts: times instead, decreasing from 1.
        first_noise: False leaves the noise of the ODE's first step out: that step then
            gives the mean, and the samples are too narrow.
        compat: the authors' speech repository. It tells the network the time of each
            step's end. Its ODE draws no noise: at t = 1 the ratio is 0 / 0, which a
            small constant turns into the further weight sigma_t (1 - 1 / s_1) on y.

    Returns:
        A plan of N rows that integrates (D, y).

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.sb_ve()
        >>> sb_ve(process, 10, sde=False, compat=True).stochastic
        False

    Reference: 2407.16074, eqs 13-16.
    """
    if steps < 1:
        raise must("steps", ">= 1", steps)
    own = np.linspace(process.start, process.end, steps + 1)
    eta, drawn = (1.0 if sde else 0.0), sde or (first_noise and not compat)
    made = solvers.two_endpoint(
        process, own if ts is None else ts, eta=eta, first_noise=drawn
    )
    rows = made.rows
    if sde and rows.noise is not None:
        last = (np.arange(made.length) < made.length - 1).reshape(-1, 1)
        rows = rows._replace(noise=rows.noise * last)
    if compat:
        rows = _as_published(process, made, rows, sde)
    return dataclasses.replace(made, rows=rows)


def _as_published(process: Process, made: Plan, rows: Row, sde: bool) -> Row:
    """The rows with the repository's times, and with its ODE's first weight on y."""
    ends = np.append(rows.level.time[1:], made.end.time)
    if not sde:
        alpha, sigma = process.alpha(0.5), process.sigma(0.5)
        spread = sigma / np.sqrt(alpha * (1 - alpha))  # s_1, the same at any time
        predictions = np.array(rows.predictions)
        predictions[0, :, 1] += process.sigma(ends[0]) * (1 - 1 / spread)
        rows = rows._replace(predictions=predictions)
    return rows._replace(level=rows.level._replace(time=ends))
