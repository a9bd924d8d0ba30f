"""Shared types: what a process is, what a denoiser is, what a denoiser is told."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np

__all__ = [
    "Array",
    "ArrayLike",
    "Context",
    "Denoiser",
    "Key",
    "NoiseSource",
    "Process",
    "PyTree",
]

Array: TypeAlias = jax.Array | np.ndarray
ArrayLike: TypeAlias = jax.typing.ArrayLike
Key: TypeAlias = jax.Array
PyTree: TypeAlias = Any
NoiseSource: TypeAlias = PyTree | Callable[[Array, PyTree], PyTree]


class Context(NamedTuple):
    """What a denoiser is told about the row that asks for an evaluation.

    Attributes:
        index: number of the row in the whole plan, integer scalar.
        time: the row's time in the process' own clock; scalar, or an array that
            broadcasts against the state where elements have their own times.
        alpha: signal scale at that time, same shape as `time`.
        sigma: noise scale at that time, same shape as `time`.
        controls: the caller's per-row values at this row, or None.
        condition: what the network is conditioned on, or None for the condition
            that the denoiser carries itself. Guidance sets it.
    """

    index: ArrayLike
    time: ArrayLike
    alpha: ArrayLike
    sigma: ArrayLike
    controls: PyTree = None
    condition: PyTree = None


@runtime_checkable
class Process(Protocol):
    """A Gaussian path x_t = alpha(t) x_0 + sigma(t) eps.

    Every method takes an array of any shape, NumPy (float64 out) or JAX.

    Attributes:
        start: default first time of a grid (the noise end).
        end: default last time of a grid, where sigma is small but positive.
        clean: the time at which sigma is exactly 0.
        domain: lowest and highest legal time.
    """

    @property
    def start(self) -> float:
        """First time of a default grid."""
        ...

    @property
    def end(self) -> float:
        """Last time of a default grid."""
        ...

    @property
    def clean(self) -> float:
        """The time of sigma = 0."""
        ...

    @property
    def domain(self) -> tuple[float, float]:
        """Lowest and highest legal time."""
        ...

    def alpha(self, t: ArrayLike) -> Array:
        """Signal scale."""
        ...

    def sigma(self, t: ArrayLike) -> Array:
        """Noise scale."""
        ...

    def half_log_snr(self, t: ArrayLike) -> Array:
        """Lambda = log(alpha / sigma)."""
        ...

    def half_log_snr_inverse(self, half_log_snr: ArrayLike) -> Array:
        """The time at which lambda has the given value."""
        ...

    def rates(self, t: ArrayLike) -> tuple[Array, Array]:
        """D alpha / dt and d sigma / dt."""
        ...

    def model_time(self, t: ArrayLike) -> Array:
        """What a network trained on this process expects as its time input."""
        ...


class Denoiser(Protocol):
    """Predicts the clean data: (x, context, carry) -> (prediction, carry).

    The prediction has the structure and shapes of x. A plan that integrates several
    quantities takes a tuple of such trees. A stateless denoiser returns the carry it
    got. A stateful one may define `initial_carry(x)`.
    """

    def __call__(
        self, x: PyTree, context: Context, carry: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The prediction at x, and the carry for the next row."""
        ...
