"""Linear forms on the host: what a write is, in the terms of the paper.

A row knows its registers, the network's predictions, one draw z and constants. A form
is a weighted sum of them, with one weight per row (or more, where weights have the
state's shape), so that a method's formula can be written as it stands in the paper:

    x, d = register(0), evaluation(level, "noise")
    build(level, end, [(0, keep * x + gain * d)])

`a @ form` multiplies by matrices, for plans of matrix weights.
"""

import dataclasses
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ..guards import bounded, checked
from ..numerics import Basis, Level, basis_of, namespace
from ..typing import ArrayLike, Process

__all__ = ["ONE", "Form", "NOISE", "Ring", "evaluation", "prediction", "register"]

Part = tuple  # ("register", k) ("ring", first, size, age) ("prediction", p) ("noise",)


def _aligned(a: Any, b: Any) -> tuple[Any, Any]:
    """Two weights with as many axes: the rows' first, the others at the end."""
    width = max(np.ndim(a), np.ndim(b))
    return _widened(a, width), _widened(b, width)


def _widened(weight: Any, width: int) -> Any:
    if np.ndim(weight) in (0, width):
        return weight
    gap = (1,) * (width - weight.ndim)
    return weight.reshape(weight.shape[:1] + gap + weight.shape[1:])


class Form:
    """A weighted sum of a row's parts; +, -, and multiplication by weights."""

    __slots__ = ("parts",)
    __array_ufunc__ = None  # so that array * form asks the form

    def __init__(self, parts: Mapping[Part, Any]):
        self.parts = dict(parts)

    def __add__(self, other: Any) -> "Form":
        more = other.parts if isinstance(other, Form) else {("one",): other}
        parts = dict(self.parts)
        for part, weight in more.items():
            if part in parts:
                one, two = _aligned(parts[part], weight)
                weight = one + two
            parts[part] = weight
        return Form(parts)

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Form":
        return self + (-1.0) * other

    def _each(self, weight: Any, times: Callable) -> "Form":
        return Form({p: times(*_aligned(weight, w)) for p, w in self.parts.items()})

    def __rmul__(self, weight: Any) -> "Form":
        return self._each(weight, operator.mul)

    __mul__ = __rmul__

    def __rmatmul__(self, weight: Any) -> "Form":
        def times(a: Any, b: Any) -> Any:  # a number stands for that many identities
            return a @ b if np.ndim(b) else a * b

        return self._each(weight, times)

    def put(self, known: Mapping[Part, "Form"], matrix: bool = False) -> "Form":
        """The form with some of its parts written out."""
        times = operator.matmul if matrix else operator.mul
        out = Form({p: w for p, w in self.parts.items() if p not in known})
        for part, weight in self.parts.items():
            if part in known:
                out = out + times(weight, known[part])
        return out


ONE = Form({("one",): 1.0})
"""The constant 1: a bias."""

NOISE = Form({("noise",): 1.0})
"""The row's own draw z, standard normal."""


@checked
def register(k: int, one: ArrayLike = 1.0) -> Form:
    """What register k holds before the row; 0 is where the network is asked."""
    return Form({("register", bounded("k", k, 0)): one})


@checked
def prediction(p: int = 0, one: ArrayLike = 1.0) -> Form:
    """What the network answers on this row, its p-th prediction."""
    return Form({("prediction", bounded("p", p, 0)): one})


@dataclasses.dataclass(frozen=True)
class Ring:
    """Registers first..first + size - 1, written in turn: the newest of many rows.

    `(ring, form)` is the write that stores a form over the oldest one.
    """

    first: int
    size: int

    def __getitem__(self, age: int) -> Form:
        """What was pushed 1 + age rows ago."""
        if not 0 <= age < self.size:
            raise IndexError(f"this ring holds {self.size} rows, asked for {age}.")
        return Form({("ring", self.first, self.size, age): 1.0})


def total(terms: Iterable[Form]) -> Form:
    """The sum of at least one form."""
    first, *others = terms
    for term in others:
        first = first + term
    return first


@checked
def evaluation(
    level: Level, basis: str | Basis = "data", process: Process | None = None
) -> Form:
    """What the network answers on this row, in a method's own terms.

    Args:
        level: where the network is asked, arrays (R, ...).
        basis: as in `basis_of`, or a `Basis` of one's own.
        process: as in `basis_of`.
    """
    if isinstance(basis, str) and basis == "data":
        return prediction()
    found = basis_of(level, basis, process) if isinstance(basis, str) else basis
    return found.point * register(0) + found.data * prediction()


def lines_of(registers: Any, predictions: Any, noise: Any, bias: Any) -> list[Form]:
    """The lines of rows as forms, the sample last: of weights (R, L, ...), no trees."""
    parts = {("register", k): registers[:, :, k] for k in range(registers.shape[2])}
    for p in range(predictions.shape[2]):
        parts["prediction", p] = predictions[:, :, p]
    parts |= {("noise",): noise, ("one",): bias}
    lines = registers.shape[1]
    parts = {p: every_line(w, lines) for p, w in parts.items() if w is not None}
    return [
        Form({p: w[:, n] for p, w in parts.items() if not _nothing(w[:, n])})
        for n in range(lines)
    ]


def every_line(weights: Any, lines: int) -> Any:
    """Weights of a row's first lines and of the last, with 0 for those between."""
    have = weights.shape[1]
    return namespace(weights).insert(weights, np.full(lines - have, have - 1), 0, 1)


def _nothing(weight: Any) -> bool:
    return isinstance(weight, np.ndarray) and not weight.any()
