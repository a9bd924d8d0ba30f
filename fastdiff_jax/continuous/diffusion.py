"""The probability-flow ODE and the reverse SDEs as diffrax terms.

With lambda = log(alpha / sigma), tilde sigma = e^{-lambda} and W a Brownian motion in
lambda, every reverse SDE with the right marginals has u = x / alpha obey

    du = (1 + tau^2) (D - u) dlambda + tau sqrt(2) e^{-lambda} dW

since g^2 dt = 2 sigma^2 dlambda; tau^2 = 0 is the probability-flow ODE, 1 the reverse
of Anderson 1982. lambda grows from noise to data, as a diffrax Brownian path needs.
Song et al. 2021 (2011.13456), section 4; Zhang & Chen 2023 (2204.13902).
"""

import diffrax

from ..guards import checked, within
from ..numerics.arrays import as_float
from ..typing import ArrayLike, Denoiser, Process, PyTree
from ._fields import Denoised, Kick, PathClock, Velocity, interval, known
from .brownian import NoiseTerm
from .semilinear import ProcessClock, SemilinearTerm

__all__ = ["interval", "probability_flow", "reverse_sde", "velocity_term"]


@checked
def probability_flow(
    process: Process,
    denoiser: Denoiser,
    *,
    variable: str = "half_log_snr",
    condition: PyTree = None,
    controls: PyTree = None,
) -> SemilinearTerm:
    """The probability-flow ODE of the state x, its linear part kept apart.

    'half_log_snr': u = x / alpha, du/dlambda = -u + D. 'asinh_snr': y = x / r with
    r = sqrt(alpha^2 + sigma^2), dy/dv = -y + [D + (1 - tanh v) y]; starts at alpha = 0
    too. 'time': as the first, run over the process' time, downwards.

    Any diffrax solver takes it; those of this package treat the linear part exactly.
    The state is x itself; the denoiser sees it whole, so give it a batch axis.

    Args:
        process: the path.
        denoiser: (x, context, carry) -> (data prediction, carry); stateless.
        variable: what diffrax calls t; `interval` gives its ends.
        condition, controls: for the context.

    Returns:
        A `SemilinearTerm` for `diffrax.diffeqsolve`.

    Raises:
        ValueError: an unknown variable, or (on evaluation) a stateful denoiser.

    Example:
        >>> import diffrax, jax, fastdiff_jax as fd
        >>> from fastdiff_jax import continuous as c
        >>> process, model = fd.processes.vp_linear(), fd.models.gaussian(2.0, 0.25)
        >>> x = fd.prior(process, jax.random.key(0), (5, 1))
        >>> t0, t1 = c.interval(process)
        >>> out = diffrax.diffeqsolve(
        ...     c.probability_flow(process, model), c.res_3(), t0, t1, 0.1, x,
        ...     stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3))
        >>> out.ys.shape
        (1, 5, 1)
    """
    known(variable)
    path = PathClock(process, variable)
    field = Denoised(path, denoiser, 1.0, condition, controls)
    clock = ProcessClock(process) if variable == "time" else path
    return SemilinearTerm(-1.0, field, clock)


@checked
def velocity_term(
    process: Process,
    denoiser: Denoiser,
    *,
    condition: PyTree = None,
    controls: PyTree = None,
) -> diffrax.ODETerm:
    """The probability-flow ODE as published: dx/dt = alpha' D + sigma' E, in time.

    Args:
        process: the path; t runs downwards, from noise to data.
        denoiser: (x, context, carry) -> (data prediction, carry); stateless.
        condition, controls: for the context.

    Returns:
        An ODETerm, for solvers that know no linear part.

    Example:
        >>> import jax.numpy as jnp, fastdiff_jax as fd
        >>> term = velocity_term(fd.processes.flow(), fd.models.gaussian(0.0, 1.0))
        >>> float(term.vf(0.5, jnp.ones((1, 1)), None)[0, 0])
        0.0
    """
    path = PathClock(process, "time")
    return diffrax.ODETerm(Velocity(Denoised(path, denoiser, 1.0, condition, controls)))


@checked
def reverse_sde(
    process: Process,
    denoiser: Denoiser,
    control: diffrax.AbstractPath,
    *,
    tau2: ArrayLike = 1.0,
    condition: PyTree = None,
    controls: PyTree = None,
) -> diffrax.MultiTerm:
    """The reverse SDE of the state x in half log-SNR, a drift and a noise term.

    dx = [dlog sigma/dlambda - tau^2] x dlambda + (1 + tau^2) alpha D dlambda
         + tau sqrt(2) sigma dW

    The noise is additive, so Ito and Stratonovich solvers agree. The drift is a
    `SemilinearTerm` with L = -(1 + tau^2) in x / alpha, for
    `StochasticExponentialEuler`.

    Args:
        process: the path.
        denoiser: (x, context, carry) -> (data prediction, carry); stateless.
        control: the path of W over half log-SNR, see `brownian`.
        tau2: tau^2, how much noise: 0 is the ODE, 1 the reverse SDE.
        condition, controls: for the context.

    Returns:
        A MultiTerm for `diffrax.diffeqsolve`, from t0 to t1 of `interval(process)`.

    Raises:
        ValueError: tau2 < 0.

    Example:
        >>> import diffrax, jax, fastdiff_jax as fd
        >>> from fastdiff_jax import continuous as c
        >>> process, model = fd.processes.vp_linear(), fd.models.gaussian(2.0, 0.25)
        >>> x = fd.prior(process, jax.random.key(0), (5, 1))
        >>> path = c.brownian(process, jax.random.key(1), x)
        >>> terms = c.reverse_sde(process, model, path)
        >>> t0, t1 = c.interval(process)
        >>> step = (t1 - t0) / 64
        >>> diffrax.diffeqsolve(terms, diffrax.Euler(), t0, t1, step, x).ys.shape
        (1, 5, 1)
    """
    within("[0, inf)", tau2=tau2)
    _, (tau2,) = as_float(tau2)
    path = PathClock(process, "half_log_snr")
    field = Denoised(path, denoiser, 1 + tau2, condition, controls)
    drift = SemilinearTerm(-(1 + tau2), field, path)
    return diffrax.MultiTerm(drift, NoiseTerm(Kick(path, tau2), control))
