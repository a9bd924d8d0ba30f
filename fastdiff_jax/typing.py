"""Shared types: what a process is, what a denoiser is, what a denoiser is told."""

import difflib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np

__all__ = [
    "CONTROLS",
    "Array",
    "ArrayLike",
    "Bridge",
    "Clock",
    "Context",
    "DType",
    "Denoiser",
    "Extended",
    "Finite",
    "Key",
    "NoiseSource",
    "Process",
    "PyTree",
    "Real",
    "check_controls",
    "declare_control",
]

Array: TypeAlias = jax.Array | np.ndarray
ArrayLike: TypeAlias = jax.typing.ArrayLike | Sequence[Any]
Key: TypeAlias = Annotated[jax.Array, "key"]
Extended: TypeAlias = Annotated[float, "extended"]
Finite: TypeAlias = Annotated[jax.typing.ArrayLike | Sequence[Any], "finite"]
Real: TypeAlias = Annotated[jax.typing.ArrayLike | Sequence[Any], "real"]
DType: TypeAlias = Annotated[Any, "dtype"]
PyTree: TypeAlias = Annotated[Any, "tree"]
NoiseSource: TypeAlias = PyTree | Callable[[Array, PyTree], PyTree]


CONTROLS: dict[str, str] = {
    "classifier_scale": "scale of `guidance.classifier`",
    "dual_fast": "coefficient of `transforms.dual_fast`",
    "guidance_scale": "scale of `guidance.cfg`",
    "model": "which model of `transforms.stitch` runs",
    "model_time": "the time that the network is told, in place of the process'",
    "noise_time": "the clock of the noise in `solvers.residual_noise`",
    "pool": "weights of the channels, for `augmented.lift`",
    "refine": "stage of a refined step, for `transforms.velocity_refiner`",
    "residual_time": "the clock of the residual in `solvers.residual_noise`",
    "spread": "noise of the pooled channels, for `augmented.lift`",
}
"""Names of per-row values that a denoiser may read, and what each is."""


def declare_control(name: str, meaning: str) -> None:
    """Make a name of one's own legal among the controls of a plan.

    Args:
        name: what `context.control(name)` asks for.
        meaning: one line for whoever reads the table.

    Example:
        >>> declare_control("temperature", "of my sampler's head")
    """
    CONTROLS[name] = meaning


def _known(name: Any) -> None:
    if name not in CONTROLS:
        near = difflib.get_close_matches(str(name), CONTROLS, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"unknown control {name!r}.{hint} Known: {', '.join(sorted(CONTROLS))}. "
            "Declare one of your own with fd.declare_control(name, meaning)."
        )


def check_controls(controls: PyTree) -> None:
    """Controls given by name have names that somebody may read.

    Raises:
        ValueError: an unknown name, with the nearest one.
    """
    if isinstance(controls, dict):
        for name in controls:
            _known(name)


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

    index: int | Array
    time: float | Array
    alpha: float | Array
    sigma: float | Array
    controls: PyTree = None
    condition: PyTree = None

    def control(self, name: str, default: Any = None) -> Any:
        """The row's value of a control, the default if the plan has none.

        Raises:
            ValueError: a name that is not in `CONTROLS`.
        """
        _known(name)
        if isinstance(self.controls, dict) and name in self.controls:
            return self.controls[name]
        return default


@runtime_checkable
class Clock(Protocol):
    """What has times: where a grid starts and ends."""

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


@runtime_checkable
class Bridge(Protocol):
    """A path between two laws, x_t = alpha x_0 + beta x_1 + sigma z."""

    @property
    def domain(self) -> tuple[float, float]:
        """Lowest and highest legal time."""
        ...

    def alpha(self, t: ArrayLike) -> Array:
        """Scale of x_0 at times t."""
        ...

    def beta(self, t: ArrayLike) -> Array:
        """Scale of x_1 at times t."""
        ...

    def sigma(self, t: ArrayLike) -> Array:
        """Noise level at times t."""
        ...

    def rates(self, t: ArrayLike) -> tuple[Array, Array, Array]:
        """Derivatives of alpha, beta and sigma."""
        ...

    def model_time(self, t: ArrayLike) -> Array:
        """What the network is told at times t."""
        ...


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

    def alpha(self, t: float | Array) -> Array:
        """Signal scale."""
        ...

    def sigma(self, t: float | Array) -> Array:
        """Noise scale."""
        ...

    def half_log_snr(self, t: float | Array) -> Array:
        """Lambda = log(alpha / sigma)."""
        ...

    def half_log_snr_inverse(self, half_log_snr: float | Array) -> Array:
        """The time at which lambda has the given value."""
        ...

    def rates(self, t: float | Array) -> tuple[Array, Array]:
        """D alpha / dt and d sigma / dt."""
        ...

    def model_time(self, t: float | Array) -> Array:
        """What a network trained on this process expects as its time input."""
        ...


class Denoiser(Protocol):
    """Predicts the clean data: (x, context, carry) -> (prediction, carry).

    The prediction has the structure and shapes of x. A plan that integrates several
    quantities takes a tuple of such trees. A stateless denoiser returns the carry it
    got. A stateful one may define `initial_carry(x)`; one that returns something else
    than the data prediction names it in `gives`.
    """

    def __call__(
        self, x: PyTree, context: Context, carry: PyTree, /
    ) -> tuple[PyTree, PyTree]:
        """The prediction at x, and the carry for the next row."""
        ...
