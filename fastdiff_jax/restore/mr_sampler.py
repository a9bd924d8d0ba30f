"""MR sampler: fast plans for mean-reverting diffusion. Li et al. 2025 (2502.07856).

Around mu a mean-reverting process is an ordinary path, so the paper's updates are
tables that exist: on u = x - mu, with D - mu or E and h = lambda_t - lambda_s,

    ODE, data    u_t = (sigma_t/sigma_s) u_s + alpha_t int e^{-(lambda_t - l)} D dl
    ODE, noise   u_t = (alpha_t/alpha_s) u_s - sigma_t int e^{lambda_t - l} E dl
    SDE, data    u_t = (sigma_t/sigma_s) e^{-h} u_s
                       + 2 alpha_t int e^{-2 (lambda_t - l)} D dl
                       + sigma_t sqrt(1 - e^{-2h}) z
    SDE, noise   u_t = (alpha_t/alpha_s) u_s - 2 sigma_t int e^{lambda_t - l} E dl
                       + sigma_t sqrt(e^{2h} - 1) z

with D or E a polynomial through past evaluations. First order with noise is the
Markov (posterior) sampler of IR-SDE; `fd.solvers.euler_maruyama` on the same process
is its published reverse loop.
"""

import numpy as np

from .. import solvers
from ..guards import checked, must
from ..plan import Plan
from ..typing import ArrayLike, Process
from .centred import centre_of

__all__ = ["mr_sampler", "steps"]


@checked
def steps(process: Process, n: int = 20) -> np.ndarray:
    """The published grid: n equal steps of the label, from the noise to the clean end.

    Args:
        process: e.g. `processes.mean_reverting()`.
        n: number of steps and of network calls.

    Returns:
        Times, decreasing, shape (n + 1,). The last step gives the data prediction.

    Raises:
        ValueError: n below 1.

    Example:
        >>> import fastdiff_jax as fd
        >>> steps(fd.processes.mean_reverting(), 4)
        array([100.,  75.,  50.,  25.,   0.])
    """
    if n < 1:
        raise must("n", ">= 1", n)
    centre_of(process)
    return np.linspace(process.start, process.clean, n + 1)


@checked
def mr_sampler(
    process: Process,
    ts: ArrayLike | None = None,
    *,
    order: int = 2,
    sde: bool = False,
    tau2: ArrayLike | None = None,
    prediction: str = "data",
    compat: bool = False,
) -> Plan:
    """MR sampler: exponential multistep around the mean. Order p, 1 call per step.

    Run it with `restore.sample`. Every other solver runs on the process as well; these
    are the published choices. All steps keep the full order after the warm-up, but one
    into sigma = 0, which gives the data prediction. The published loop does so from 10
    steps on; with fewer it takes its last step but one at order 1, which no option here
    does: the samples then differ by the error of that step.

    Args:
        process: a path with two endpoints and a centre.
        ts: times, non-increasing, shape (N + 1,); None: `steps(process, 20)`.
        order: 1, 2 or 3. With noise the weak order is at most 2.
        sde: the reverse SDE (tau2 = 1) instead of the ODE.
        tau2: noise between and beyond: 0 = ODE, 1 = reverse SDE; replaces `sde`.
        prediction: what is integrated, 'data' or 'noise'; 'v' is 'data', as the paper
            converts a v network (give `restore.denoiser` prediction='v').
        compat: the published third order, whose second difference has half the factor
            that order 3 needs. For lower orders published and exact weights agree.

    Returns:
        A plan of N rows.

    Raises:
        ValueError: another order or prediction, a process without a centre, both sde
            and tau2, or `compat` with noise at order 3, which was never published.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.mean_reverting()
        >>> mr_sampler(process).nfe, mr_sampler(process, sde=True).stochastic
        (20, True)

    Reference: Li et al. 2025 (2502.07856), propositions 1-4.
    """
    centre_of(process)
    if order not in (1, 2, 3):
        raise ValueError(f"order must be 1, 2 or 3, got {order!r}.")
    if prediction not in ("data", "noise", "v"):
        raise ValueError(
            f"prediction must be 'data', 'noise' or 'v', got {prediction!r}."
        )
    if sde and tau2 is not None:
        raise ValueError(f"give either sde=True or tau2, not both; got {tau2=}.")
    noisy = sde or tau2 is not None
    if compat and noisy and order == 3:
        raise ValueError(
            "compat=True has no third order with noise: none was published. Leave "
            "compat out, or use order=2."
        )
    ts = steps(process) if ts is None else ts
    kind = "data" if prediction == "v" else prediction
    if not noisy:
        if compat and order == 3:
            return solvers.dpmpp_3m(
                process,
                ts,
                compat=True,
                variant="exact",
                prediction=kind,
                lower_order_final=False,
            )
        return solvers.exp_adams(
            process, ts, order=order, prediction=kind, lower_order_final=False
        )
    tau2 = 1.0 if tau2 is None else tau2
    if order == 1:
        return solvers.sde_dpmpp_1(process, ts, tau2=tau2, prediction=kind)
    full = {"tau2": tau2, "prediction": kind, "lower_order_final": False}
    if order == 2:
        return solvers.sde_dpmpp_2m(process, ts, variant="exact", **full)
    return solvers.sde_dpmpp_3m(process, ts, **full)
