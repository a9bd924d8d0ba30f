"""Between which limits numbers lie; None and traced values pass."""

from typing import Any

import jax
import numpy as np

from .refusals import Wrong, must
from .values import numbers, traced, whole

__all__ = ["bounded", "broadcasts", "in_domain", "positive", "real", "within"]


def within(interval: str, **values: Any) -> None:
    """Numbers, and all numbers of arrays, lie in an interval; None and tracers pass.

    Raises:
        ValueError: naming the first that does not.

    Example:
        >>> within("(0, 1]", quantile=0.5)
        >>> within("(0, 1]", quantile=2.0)
        Traceback (most recent call last):
            ...
        ValueError: quantile must be in (0, 1], got 2.0.
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    for name, value in values.items():
        leaves = jax.tree.leaves(value)
        if value is None or any(map(traced, leaves)):
            continue
        for leaf in map(np.asarray, leaves):
            above = leaf >= low if interval[0] == "[" else leaf > low
            below = leaf <= high if interval[-1] == "]" else leaf < high
            if not np.all(above & below):
                raise must(name, f"in {interval}", value)


def positive(**values: Any) -> None:
    """Constants are > 0; None, arrays and tracers pass.

    Raises:
        ValueError: naming the first that is not.
    """
    for name, value in values.items():
        if isinstance(value, int | float | np.number) and not float(value) > 0:
            raise must(name, "> 0", value)


def in_domain(process: Any, **times: Any) -> None:
    """Times lie in the process' domain; None and tracers pass.

    Raises:
        ValueError: naming the first that does not.
    """
    low, high = process.domain
    for name, value in times.items():
        if value is None or traced(value) or traced(low):
            continue
        if not low <= float(value) <= high:
            rule = f"in [{low:g}, {high:g}], the domain of {type(process).__name__}"
            raise must(name, rule, value)


def real(name: str, value: Any) -> np.ndarray:
    """Real numbers on the host, in float64.

    Raises:
        ValueError: others, or none.
    """
    try:
        return np.asarray(numbers(value), np.float64)
    except Wrong as wrong:
        raise must(name, wrong.must, value, wrong.fix) from None


def broadcasts(value: Any, shape: tuple[int, ...]) -> bool:
    """Whether a value broadcasts to a shape, and does not widen it."""
    try:
        return np.broadcast_shapes(np.shape(value), shape) == tuple(shape)
    except ValueError:
        return False


def bounded(
    name: str,
    value: Any,
    low: int | None = None,
    high: int | None = None,
    fix: str = "",
) -> int:
    """A whole number from low to high, both legal.

    Raises:
        ValueError: no whole number, or one outside.

    Example:
        >>> bounded("rows", 3, 1)
        3
    """
    try:
        found = whole(value)
    except Wrong as wrong:
        raise must(name, wrong.must, value) from None
    below, above = low is not None and found < low, high is not None and found > high
    if below or above:
        rule = f">= {low}" if high is None else f"in {low}..{high}"
        raise must(name, rule, value, fix)
    return found
