"""T-Stitch: a small model for the noisy part of the path, larger ones after it.

At a row whose place on the path is q = (t - clean) / (start - clean), model k runs
while q >= 1 - (r_0 + ... + r_k). Pan et al. 2024 (2402.14167). The models
must share one latent space; solvers do not notice.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..guards import checked, must
from ..hooks import accepts, carry_of, gives_of
from ..trees import pytree
from ..typing import ArrayLike, Context, Denoiser, PyTree

__all__ = ["Stitched", "stitch", "stitch_schedule"]


@pytree
class Stitched:
    """Several denoisers; controls["model"] says which one runs."""

    models: tuple

    def __call__(
        self, x: PyTree, context: Context, carry: tuple
    ) -> tuple[PyTree, tuple]:
        """The prediction of the row's model; the other models' carries stay."""
        model = context.control("model")
        if model is None:
            raise ValueError(
                "stitch reads controls['model']; pass controls=stitch_schedule(ratio, "
                "plan.rows.level.time) to sample."
            )

        def branch(k: int) -> Any:
            def run(x: PyTree, context: Context, carry: tuple) -> tuple:
                out, own = self.models[k](x, context, carry[k])
                out = jax.tree.map(lambda v, d: jnp.asarray(d).astype(v.dtype), x, out)
                return out, (*carry[:k], own, *carry[k + 1 :])

            return run

        branches = [branch(k) for k in range(len(self.models))]
        return jax.lax.switch(model, branches, x, context, carry)

    @property
    def gives(self) -> tuple[str, ...] | None:
        """As the first model."""
        return gives_of(self.models[0])

    def initial_carry(self, x: PyTree) -> tuple:
        """One carry per model."""
        return tuple(carry_of(model, x) for model in self.models)

    def check_plan(self, plan: Any) -> None:
        """ValueError if the plan's controls name a model that does not exist."""
        controls = plan.rows.controls
        if isinstance(controls, dict) and isinstance(controls.get("model"), np.ndarray):
            model = controls["model"]
            bad = (model < 0) | (model >= len(self.models))
            if bad.any() or model.dtype.kind not in "iu":
                raise ValueError(
                    f"controls['model'] must hold integers in 0..{len(self.models) - 1}"
                    f", got {model.tolist()}."
                )
        for model in self.models:
            accepts(model, plan)


@checked
def stitch(models: Sequence[Denoiser]) -> Stitched:
    """One denoiser out of several, only one of which runs at each row.

    Args:
        models: small to large, denoisers of `fd.models` or transforms of them.

    Raises:
        ValueError: no models.

    Example:
        >>> import jax, fastdiff_jax as fd
        >>> small, large = fd.models.gaussian(0.0, 0.2), fd.models.gaussian(0.0, 0.1)
        >>> process = fd.processes.vp_linear()
        >>> plan = fd.solvers.ddim(process, fd.grids.uniform(process, 10))
        >>> controls = stitch_schedule(0.4, plan.rows.level.time)
        >>> controls["model"].tolist()
        [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
        >>> x = fd.prior(process, jax.random.key(0), (4, 2))
        >>> fd.sample(plan, stitch([small, large]), x, controls=controls).shape
        (4, 2)
    """
    if not models:
        raise ValueError("stitch needs at least one model, got none.")
    return Stitched(tuple(models))


@checked
def stitch_schedule(
    ratios: float | Sequence[float],
    times: ArrayLike,
    *,
    span: tuple[float, float] | None = (0.0, 1.0),
) -> dict[str, np.ndarray]:
    """The controls that give each model its share of the path, from the noisy end.

    Args:
        ratios: share of the small model, or of each model but the last, in [0, 1]; 0
            never runs it, 1 runs it alone.
        times: of the evaluations, decreasing, (rows,): `plan.rows.level.time`.
        span: the clean and the noisy end of the clock, for shares of time as in the
            published code: a model runs above its share's lower edge. None: shares of
            the rows, rounded down as published, for clocks such as EDM's sigma.

    Returns:
        {"model": (rows,) int32} for `fd.sample(..., controls=...)`.

    Raises:
        ValueError: shares outside [0, 1] or beyond 1 in total; times outside the span.
    """
    shares = np.atleast_1d(np.asarray(ratios, np.float64))
    if not shares.size:
        raise must("ratios", "one number, or one per model but the last", ratios)
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or not len(times):
        raise must("times", "one per evaluation, (rows,)", times)
    if shares.ndim != 1 or not (shares >= 0).all() or shares.sum() > 1 + 1e-9:
        raise ValueError(
            f"ratios must be >= 0 and sum to at most 1, got {shares.tolist()}."
        )
    if span is None:
        left = 1 - (1 + np.arange(len(times))) / len(times)
        past = lambda edge: left < edge - 1e-9  # noqa: E731
    else:
        clean, start = span
        if not clean < start:
            raise must("span", "(clean end, noisy end), increasing", span)
        place = (times - clean) / (start - clean)
        if not ((place >= -1e-9) & (place <= 1 + 1e-9)).all():
            raise ValueError(
                f"times must lie in span {span}, got {times.min():g} to "
                f"{times.max():g}. Give the clock's span, or span=None for shares of "
                "the rows."
            )
        # what is left of the clock is nobody's at its clean end, edge = 0
        past = lambda edge: (place <= edge + 1e-9) & (edge > 1e-9)  # noqa: E731
    edges = 1 - np.cumsum(shares)
    model = sum(past(edge).astype(np.int32) for edge in edges)
    return {"model": np.asarray(model, np.int32)}
