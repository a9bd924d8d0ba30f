"""Log-likelihood of data under a diffusion or flow model, by its diffusion ODE.

Along the ODE dx/dt = f the density obeys d log p / dt = -div f, so

    log p(x) = log p_T(x_T) + int_end^start div f dt,        p_T = N(0, sigma_T^2)

with x followed from the clean end to the noise, and p_T corrected for the little that
x_T still knows of x_0 (`_augmented._excess`). In the clock v = asinh(alpha / sigma)
and y = x / sqrt(alpha^2 + sigma^2), dy/dv = D - tanh(v) y (`_clock`): the linear part
of the divergence is known and only tr dD/dy is integrated,

    log p(x) = log p_T(x_T) + d (lambda_end + log sigma_T) + int tr(dD/dy) dv.

Chen et al. 2018 (1806.07366); Grathwohl et al. 2019 (1810.01367) for the random trace;
Song et al. 2021 (2011.13456), section 4.3 and appendix D.2.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from .. import solvers
from ..guards import checked, must, positive
from ..hooks import accepts
from ..noise.streams import keys_of
from ..numerics import check_times
from ..numerics.arrays import as_float
from ..states import batch_of, floating, per_batch
from ..trees import as_tree, concrete
from ..typing import Array, Denoiser, Key, Process, PyTree, Real
from ._augmented import Settings, normal_log_prob, size_of, solved

__all__ = ["Likelihood", "bits_per_dim", "log_likelihood"]


class Likelihood(NamedTuple):
    """The result of `log_likelihood`, one entry per sample.

    Attributes:
        log_prob: log-density in nats, (B,).
        latent: the noise x_T that the sample came from, a tree like x.
        standard_error: of log_prob over the probes, (B,); NaN for a single probe, 0
            for the exact divergence.
        evaluations: denoiser calls, (B,); each also costs d (exact) or `probes`
            products with its Jacobian.
        failed: `max_steps` was reached; log_prob is then NaN, (B,).
    """

    log_prob: Array
    latent: PyTree
    standard_error: Array
    evaluations: Array
    failed: Array


@checked
def log_likelihood(
    denoiser: Denoiser,
    process: Process,
    x: PyTree,
    *,
    key: Key | None = None,
    divergence: str = "exact",
    probes: int = 1,
    probe: str = "rademacher",
    start: float | None = None,
    end: float | None = None,
    log_prior: Callable[[PyTree], Array] | str = "matched",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    solver: diffrax.AbstractERK | None = None,
    steps: int | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    max_steps: int = 4096,
    chunk: int = 128,
    condition: PyTree = None,
    controls: PyTree = None,
) -> Likelihood:
    """Log-density of the data x under the model, in nats.

    What is measured is the density of x_0 + (sigma/alpha)(end) eps at the point x: the
    data blurred by the noise left at `end`, which differs from the data's own density
    by O((sigma/alpha)^2 / scale^2) where the data's density is smooth on that scale.

    Each sample has its own steps and does not depend on the batch. The denoiser sees
    samples one at a time, under vmap, with a batch axis of 1, so what differs between
    samples goes into `condition`. Differentiable (reverse mode) in x, the denoiser's
    parameters and the process' constants.

    Args:
        denoiser: (x, context, carry) -> (data prediction, carry); stateless.
        process: the path; sigma(end) > 0. alpha(start) = 0 is fine.
        x: data, a tree whose leaves are (B, ...) and real.
        key: for the probes; one key, or one per sample.
        divergence: 'exact', the trace from d Jacobian products, or 'hutchinson', its
            unbiased estimate by random probes kept along the trajectory.
        probes: number of probes, averaged.
        probe: 'rademacher' (signs, least variance) or 'gaussian'.
        start, end: noise end and clean end, None for the process' own.
        log_prior: log-density of x_T: 'matched' for the marginal that the denoiser
            implies there, to second order in alpha / sigma (two calls more), which
            gives the data's density; 'normal' for N(0, sigma_T^2) as published, which
            gives the sampler's (0.01 to 0.05 nats apart on the published VP and VE
            paths); or a function tree (B, ...) -> (B,).
        rtol, atol: tolerances of a step, for x / sqrt(alpha^2 + sigma^2) in the root
            mean square and for log_prob / d.
        solver: an explicit Runge-Kutta solver of diffrax, None for Tsit5.
        steps: number of equal steps in asinh(alpha / sigma), in place of error control.
        adjoint: how diffrax differentiates the solve; None: `DirectAdjoint` with
            `steps`, else `RecursiveCheckpointAdjoint`. (As of jax 0.12 the latter
            cannot give gradients in what samples share, such as parameters: pass
            `diffrax.DirectAdjoint()` there.)
        max_steps: bound on trial steps.
        chunk: Jacobian products at a time, to bound memory.
        condition: for `context.condition`, leaves with a leading axis of the batch.
        controls: for `context.controls`, the same at every evaluation.

    Returns:
        A `Likelihood`.

    Raises:
        ValueError: an option out of range, no key for the probes, a stateful denoiser.

    Example:
        >>> import jax, jax.numpy as jnp, fastdiff_jax as fd
        >>> from fastdiff_jax.continuous import log_likelihood
        >>> process, model = fd.processes.vp_linear(), fd.models.gaussian(0.0, 1.0)
        >>> found = log_likelihood(model, process, jnp.zeros((1, 2)))
        >>> round(float(found.log_prob[0]), 2)  # -log(2 pi)
        -1.84

    Reference: Song et al. 2021 (2011.13456), eqs 38-39; there x itself is put at `end`,
    here alpha(end) x, which leaves no bias of first order.
    """
    x = _batch(floating(x))
    per_batch("condition", condition, x)
    start = process.start if start is None else start
    end = process.end if end is None else end
    solver = diffrax.Tsit5() if solver is None else solver
    _check_options(divergence, probe, solver, log_prior)
    counts = {"probes": probes, "max_steps": max_steps, "chunk": chunk, "steps": steps}
    positive(rtol=rtol, atol=atol, **counts)
    _check_path(process, denoiser, start, end)
    exact = divergence == "exact"
    if key is None and not exact:
        raise ValueError("'hutchinson' draws probes; pass key=jax.random.key(0).")
    keys = None if exact or key is None else keys_of(key, x)
    settings = Settings(
        probes=1 if exact else probes,
        probe=probe,
        solver=solver,
        steps=steps,
        max_steps=max(max_steps, steps or 0),
        chunk=chunk,
        matched=log_prior == "matched",
        adjoint=_adjoint(steps) if adjoint is None else adjoint,
    )
    parts = (as_tree(denoiser), process)
    numbers = (start, end, rtol, atol)
    latent, volume, excess, lam, sigma, evaluations, failed = solved(
        parts, x, keys, numbers, condition, controls, s=settings
    )
    each = _prior(log_prior, latent, sigma)[:, None] + excess  # (B, probes)
    each = each + size_of(x) * (volume + lam + jnp.log(sigma))
    with jax.debug_nans(False):  # these NaN are meant
        log_prob = jnp.where(failed, jnp.nan, each.mean(1))
        spread = jnp.full_like(log_prob, 0.0 if exact else jnp.nan)
    if each.shape[1] > 1:
        spread = each.std(1, ddof=1) / math.sqrt(each.shape[1])
    return Likelihood(log_prob, latent, spread, evaluations, failed)


@checked
def bits_per_dim(
    log_prob: Real,
    shape: tuple[int, ...],
    *,
    bins: int = 256,
    low: float = -1.0,
    high: float = 1.0,
) -> Array:
    """Bits per dimension of quantised data, from the log-density of dequantised data.

    -log p(x) / (d log 2) + log2(bins / (high - low)): 7 is added for 256 levels on
    [-1, 1], 8 on [0, 1]. With noise uniform over a bin it bounds the bits of the
    quantised data from above.

    Args:
        log_prob: nats, any shape.
        shape: of one sample, without the batch.
        bins: number of levels, each of width (high - low) / bins.
        low, high: the whole range, from the lower edge of the first bin to the upper
            edge of the last.

    Returns:
        Bits per dimension, shaped like log_prob.

    Example:
        >>> float(bits_per_dim(np.zeros(()), (8, 8, 1)))
        7.0

    Reference: Theis et al. 2016 (1511.01844), section 3.1.
    """
    if not high > low:
        raise ValueError(f"high must be above low, got {low=}, {high=}.")
    positive(bins=bins)
    size = math.prod(shape)
    if not shape or min(shape) < 1:
        fix = "One number per sample is (1,)."
        raise must("shape", "that of one sample, sizes >= 1", shape, fix)
    _, (nats,) = as_float(log_prob)
    return -nats / (size * math.log(2)) + math.log2(bins / (high - low))


# ------------------------------------------------------------------------------ checks


def _prior(log_prior: Any, latent: PyTree, sigma: Any) -> Any:
    """The log-density of x_T, one number per sample."""
    if not callable(log_prior):
        return normal_log_prob(latent, sigma=sigma)
    found, count = log_prior(latent), batch_of(latent)
    if getattr(found, "shape", ()) != (count,):
        rule = f"a function that gives one number per sample, ({count},)"
        raise must("log_prior", rule, found, "Sum over all other axes.")
    return found


def _batch(x: PyTree) -> PyTree:
    shapes = [v.shape for v in jax.tree.leaves(x)]
    if not shapes or not all(shapes) or len({s[0] for s in shapes}) > 1:
        raise ValueError(
            f"the leaves of x must share a leading batch axis, got shapes {shapes}. "
            "Add one, e.g. x[None]."
        )
    if any(jnp.iscomplexobj(v) for v in jax.tree.leaves(x)):
        raise ValueError("x must be real; split it into real and imaginary parts.")
    return x


def _adjoint(steps: int | None) -> diffrax.AbstractAdjoint:
    if steps is None:
        return diffrax.RecursiveCheckpointAdjoint()
    return diffrax.DirectAdjoint()


def _check_options(divergence: str, probe: str, solver: Any, log_prior: Any) -> None:
    if not callable(log_prior) and log_prior not in ("normal", "matched"):
        raise ValueError(
            "log_prior must be 'normal', 'matched' or a function of x_T, got "
            f"{log_prior!r}."
        )
    if divergence not in ("exact", "hutchinson"):
        raise ValueError(
            f"divergence must be 'exact' or 'hutchinson', got {divergence!r}."
        )
    if probe not in ("rademacher", "gaussian"):
        raise ValueError(f"probe must be 'rademacher' or 'gaussian', got {probe!r}.")
    if not isinstance(solver, diffrax.AbstractERK):
        raise ValueError(
            "solver must be an explicit Runge-Kutta solver of diffrax, e.g. "
            f"diffrax.Dopri8(); got {solver!r}."
        )


def _check_path(process: Process, denoiser: Denoiser, start: Any, end: Any) -> None:
    if not concrete(start, end, process):
        return
    ts = np.asarray([start, end], np.float64)
    check_times(process, ts, "[start, end]", strict=True)
    if not float(process.sigma(ts[1])) > 0:
        raise ValueError(
            f"sigma is 0 at end={end:g}, where the density need not exist. End above "
            f"the clean time, e.g. end={process.end:g}."
        )
    accepts(denoiser, solvers.ddim(process, ts))
