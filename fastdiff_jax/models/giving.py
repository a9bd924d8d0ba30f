"""A function of one's own that says what it predicts."""

import dataclasses
from typing import Any

from ..guards import checked
from ..hooks import Wrapped
from ..trees import as_tree, pytree
from ..typing import Context, Denoiser, PyTree

__all__ = ["Giving", "giving"]


@pytree
class Giving(Wrapped):
    """A denoiser whose predictions have names; made by `giving`."""

    inner: Any
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})

    @property
    def gives(self) -> tuple[str, ...]:
        """The names."""
        return self.names

    def __call__(
        self, x: PyTree, context: Context, carry: PyTree
    ) -> tuple[PyTree, PyTree]:
        """What the inner denoiser says."""
        return self.inner(x, context, carry)


@checked
def giving(denoiser: Denoiser, *names: str) -> Giving:
    """Name what a denoiser predicts, for plans that read something else than the data.

    Args:
        denoiser: (x, context, carry) -> (prediction, carry); with several names the
            prediction is a tuple of as many trees like x.
        *names: of the predictions, in order, as a plan's `reads`: 'data', 'direction',
            'degraded', 'residual', 'noise', 'other_end'.

    Raises:
        ValueError: no names.

    Example:
        >>> import fastdiff_jax as fd
        >>> def twice(x, context, carry):
        ...     return (x, x), carry
        >>> pair = giving(twice, "data", "direction")
        >>> process = fd.processes.vp_linear()
        >>> ts = fd.grids.log_snr(process, 5)
        >>> plan = fd.solvers.ddim(process, ts, second_noise=True)
        >>> plan.reads == pair.gives
        True
    """
    if not names:
        raise ValueError("giving needs the names of the predictions, got none.")
    return Giving(as_tree(denoiser), tuple(names))
