"""ResShift: few-step restoration in a latent space. Yue et al. 2023 (2307.12348).

    x_t = (eta_t / eta_s) x_s + (1 - eta_t / eta_s) D + kappa sqrt(eta_t (eta_s - eta_t)
          / eta_s) z,      x_T = y + kappa sqrt(eta_T) z

The network predicts D, sees x / sqrt(eta kappa^2 + 1) (`normalized`), and the last
step adds no noise. The path is centred on y: any other plan runs on it too.
"""

import numpy as np

from .. import solvers
from ..guards import checked
from ..plan import Plan
from ..typing import ArrayLike, Process

__all__ = ["labels", "resshift"]


def labels(process: Process) -> np.ndarray:
    """Every label of the process from its start down to the clean -1."""
    return np.arange(process.start, process.clean - 1, -1.0)


@checked
def resshift(
    process: Process, ts: ArrayLike | None = None, *, eta: ArrayLike = 1.0
) -> Plan:
    """ResShift's sampler: one network call per label. Order 1.

    x_t = (eta_t / eta_s) x_s + (1 - eta_t / eta_s) D + c z

    Run it with `restore.sample`, whose start is y + kappa sqrt(eta_T) z. For fewer
    calls than labels, or the same calls and more accuracy, run a high-order plan, e.g.
    `solvers.dpmpp_2m(process, ts)`, the same way.

    Args:
        process: `processes.resshift(...)`.
        ts: times, non-increasing, None for every label.
        eta: 1 = the published posterior sampler, 0 = its ODE.

    Returns:
        A plan of T rows for the state x - y.

    Example:
        >>> import jax, fastdiff_jax as fd
        >>> process, y = fd.processes.resshift(), jax.numpy.zeros((4000, 1))
        >>> model = fd.models.gaussian(0.5, 0.01)
        >>> x = fd.restore.sample(
        ...     resshift(process), model, process, y, key=jax.random.key(0)
        ... )
        >>> bool(abs(x.mean() - 0.5) < 0.05)
        True

    Reference: 2307.12348, eqs 5-7.
    """
    ts = labels(process) if ts is None else ts
    return solvers.two_endpoint(process, ts, eta=eta, endpoint=False)
