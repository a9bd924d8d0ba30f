"""What the process classes share."""

import dataclasses
from typing import Any

import numpy as np

from .. import trees
from ..guards import must, positive
from ..numerics import as_float
from ..typing import Array, ArrayLike

__all__ = [
    "Labelled",
    "LogRatio",
    "label_of",
    "labels_of",
    "ordered",
    "quiet",
    "register",
]


def register(*constants: str) -> Any:
    """Frozen dataclass, registered as a pytree with `constants` as its leaves."""

    def wrap(cls: type) -> type:
        cls = dataclasses.dataclass(frozen=True)(cls)
        static = [f.name for f in dataclasses.fields(cls) if f.name not in constants]
        return trees.register(cls, constants, tuple(static))

    return wrap


def quiet() -> np.errstate:
    """log(0) at an exact end is the right answer, -inf, not a warning."""
    return np.errstate(divide="ignore")


class LogRatio:
    """A path whose half log-SNR is best taken from its own alpha and sigma."""

    alpha: Any
    sigma: Any

    def half_log_snr(self, t: ArrayLike) -> Array:
        """log(alpha / sigma): -inf where alpha = 0, inf where sigma = 0."""
        xp, (t,) = as_float(t)
        with quiet():
            return xp.log(self.alpha(t)) - xp.log(self.sigma(t))


class Labelled(LogRatio):
    """A chain of T labels 0..T - 1 from y to the data, clean one label below 0."""

    steps: int
    end = 0.0
    clean = -1.0
    centre = 1.0

    @property
    def start(self) -> float:
        """The last label, T - 1."""
        return self.steps - 1.0

    @property
    def domain(self) -> tuple[float, float]:
        """(-1, T - 1)."""
        return -1.0, self.start


def label_of(t: Any, train_steps: int | None) -> Any:
    """Network time: t itself, or the integer label t N - 1 of an N-step network."""
    return t if train_steps is None else t * train_steps - 1


def labels_of(train_steps: int | None) -> int | None:
    """The number of labels a network was trained on, checked."""
    if train_steps is not None and train_steps < 1:
        raise must("train_steps", ">= 1 or None", train_steps)
    return train_steps


def ordered(**values: float) -> None:
    """Raise ValueError unless the two constants are positive and increase."""
    positive(**values)
    (low, a), (high, b) = values.items()
    if all(isinstance(v, int | float | np.generic) for v in (a, b)) and not a < b:
        raise ValueError(f"{low} must be below {high}, got {low}={a}, {high}={b}.")
