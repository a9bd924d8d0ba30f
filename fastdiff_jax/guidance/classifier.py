"""Classifier guidance: a condition through the gradient of log p(c | x_t).

The conditional score is S + grad log p(c | x_t), so with S = (alpha D - x) / sigma^2

    D' = D + scale (sigma^2 / alpha) grad_x log p(c | x_t)

Song et al. 2021 (2011.13456), appendix I.1; Dhariwal & Nichol 2021 (2105.05233), whose
scales above 1 sharpen p(c | x)^scale.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..guards import checked, within
from ..hooks import Wrapped
from ..states import align, per_sample
from ..trees import pytree
from ..typing import Array, ArrayLike, Context, Denoiser, PyTree

__all__ = ["Classified", "classifier"]


@pytree
class Classified(Wrapped):
    """A denoiser guided by a classifier on noisy states."""

    inner: Any
    scale: Any
    params: PyTree
    log_prob: Callable = dataclasses.field(metadata={"static": True})

    def __call__(
        self, x: PyTree, context: Context, carry: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The guided data prediction."""
        out, carry = self.inner(x, context, carry)
        args = () if self.params is None else (self.params,)

        def total(x: PyTree) -> Array:
            return jnp.sum(self.log_prob(*args, x, context))

        slope = jax.grad(total)(x)
        scale = jnp.asarray(context.control("classifier_scale", self.scale))
        guided = jax.tree.map(lambda d, g: _guide(d, g, scale, context), out, slope)
        return guided, carry

    def check_plan(self, plan: Any) -> None:
        """ValueError where alpha = 0; else as the inner denoiser."""
        alpha = plan.rows.level.alpha
        if isinstance(alpha, np.ndarray) and (alpha == 0).any():
            at = int(np.argwhere(alpha == 0)[0][0])
            raise ValueError(
                "classifier guidance needs alpha > 0, where x_t says something about "
                f"the class; alpha = 0 at row {at}, time {plan.rows.level.time[at]}. "
                "Start the grid a little later, e.g. start=0.999."
            )
        super().check_plan(plan)


def _guide(data: Array, slope: Array, scale: Array, context: Context) -> Array:
    """D + scale sigma^2 / alpha slope; unguided where alpha = 0 in a traced plan."""
    alpha, sigma = (align(v, slope, real=True) for v in (context.alpha, context.sigma))
    scale = per_sample(scale, slope)
    nothing = alpha == 0
    gain = jnp.where(nothing, 0.0, sigma**2 / jnp.where(nothing, 1.0, alpha))
    return jnp.asarray(data).astype(slope.dtype) + scale * gain * slope


@checked
def classifier(
    denoiser: Denoiser,
    log_prob: Callable,
    scale: ArrayLike = 1.0,
    *,
    params: PyTree = None,
) -> Classified:
    """Guide a denoiser by a classifier of noisy states: D + scale sigma^2/alpha grad.

    With the exact log p(c | x_t) and scale 1 this is the posterior mean given c. Scales
    per row come through controls: `controls={"classifier_scale": array of (rows,)}`.

    Args:
        denoiser: the unconditional denoiser.
        log_prob: ([params,] x, context) -> log p(c | x_t) of the wanted condition, (B,)
            or a scalar; row i may depend on sample i alone. The context holds time,
            alpha and sigma. It is differentiated in x; the denoiser is not.
        scale: 1 is Bayes' rule, 0 is off; a scalar, or (B,) for one per sample.
        params: the classifier's parameters and labels, a pytree, None for none: new
            values do not recompile.

    Returns:
        A denoiser.

    Raises:
        ValueError: log_prob not callable; when sampling, a plan with a row at
            alpha = 0. (Inside a trace, where this cannot be seen, that row is left
            unguided.)

    Example:
        >>> import jax, jax.numpy as jnp, fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> plan = fd.solvers.ddim(process, fd.grids.log_snr(process, 20))
        >>> def positive(x, context):  # of two points at -1 and 1
        ...     rate = 2 * context.alpha / context.sigma**2
        ...     return jax.nn.log_sigmoid(rate * x[:, 0])
        >>> model = fd.models.gaussian_mixture([0.5, 0.5], [[-1.0], [1.0]], 1e-6)
        >>> x = fd.prior(process, jax.random.key(0), (50, 1))
        >>> out = fd.sample(plan, classifier(model, positive), x)
        >>> bool((out > 0.9).all())
        True
    """
    within("[0, inf)", scale=scale)
    return Classified(denoiser, scale, params, log_prob)
