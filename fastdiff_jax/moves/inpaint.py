"""Inpainting: known elements are set, at the level reached, after each row.

    x <- m (alpha_t y + sigma_t z) + (1 - m) x,  z drawn anew in each row

Song et al. 2021 (2011.13456), appendix I.2.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np

from ..engine import Info, State
from ..guards import checked, must
from ..plan import Level, Plan, Row
from ..states import arrays, spread
from ..trees import concrete, pytree
from ..typing import PyTree
from ._common import at_level, floats, refuse_open_rows

__all__ = ["Inpaint", "inpaint"]


@pytree
class Inpaint:
    """The move of `inpaint`."""

    known: PyTree
    mask: PyTree
    stream: int = dataclasses.field(default=0, metadata={"static": True})

    def __call__(self, state: State, _: Info, row: Row, reached: Level) -> State:
        """The state with the known elements at the level reached."""
        x = state.point
        known, mask = spread(self.known, x, "known"), spread(self.mask, x, "mask")
        noisy = at_level(known, reached, state.key, row.index, self.stream, "inpaint")
        mixed = jax.tree.map(lambda m, y, v: m * y + (1 - m) * v, mask, noisy, x)
        return state.at(mixed)

    def check_plan(self, plan: Plan) -> None:
        """ValueError for a plan with rows that do not end a step."""
        refuse_open_rows(plan, "inpaint")


@checked
def inpaint(known: PyTree, mask: PyTree) -> Inpaint:
    """Keep known elements while the others are sampled.

    After each row x <- m (alpha_t y + sigma_t z) + (1 - m) x at the level the row
    reached; z is drawn anew each time, from the sample's own key. End the plan at
    sigma = 0 (`to_zero=True` in `fd.grids`), and the known elements are exact; above
    it they carry the noise of that level. The others follow only what the denoiser
    sees, so at a finite number of steps they are not exact draws of the conditional
    law: corrector rows (`fd.solvers.predictor_corrector`) bring them nearer.

    Args:
        known: y; one array or a tree like the state, of one sample (D...) or of all
            (B, D...). Unknown elements may hold anything finite.
        mask: m, 1 where known, 0 where not; values between are a mixture.

    Returns:
        A move for `fd.sample(plan, ..., move=...)`.

    Raises:
        ValueError: a mask outside [0, 1] or known values that are not finite; when
            sampling, shapes that do not broadcast, no key, or a plan with stages.

    Example:
        >>> import jax, fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> ts = fd.grids.log_snr(process, 20, to_zero=True)
        >>> plan, key = fd.solvers.sde_dpmpp_2m(process, ts), jax.random.key(0)
        >>> x = fd.prior(process, key, (4, 2))
        >>> move = inpaint([0.5, 0.0], [1, 0])
        >>> out = fd.sample(plan, fd.models.gaussian(), x, key=key, move=move)
        >>> out[:, 0].tolist()
        [0.5, 0.5, 0.5, 0.5]

    Reference: Song et al. 2021 (2011.13456), appendix I.2.
    """
    known = jax.tree.map(partial(floats, "known"), known, is_leaf=_listed)
    arrays("known", known)
    mask = jax.tree.map(_as_mask, mask, is_leaf=_listed)
    if concrete(known):
        bad = [not np.isfinite(np.asarray(v)).all() for v in jax.tree.leaves(known)]
        if any(bad):
            fix = "Where the mask is 0, too: put 0 there."
            raise must("known", "finite", known, fix)
    return Inpaint(known, mask)


def _listed(value: Any) -> bool:
    """Nested lists are arrays, not trees."""
    return isinstance(value, list)


def _as_mask(mask: Any) -> Any:
    mask = arrays("mask", floats("mask", mask))
    if np.iscomplexobj(mask):
        raise must("mask", "real, in [0, 1]", mask)
    if concrete(mask) and not ((mask >= 0) & (mask <= 1)).all():
        raise ValueError(
            "mask must lie in [0, 1], 1 where the element is known; got values from "
            f"{mask.min()} to {mask.max()}."
        )
    return mask
