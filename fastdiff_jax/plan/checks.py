"""A finished plan on the host in float64: its run, and a constant integrated."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from ..numerics import Basis, Levels
from ..typing import PyTree
from .core import Plan, advance, begin, line
from .validity import checked

__all__ = ["HostRow", "replay", "self_check", "walk"]


class HostRow(NamedTuple):
    """What a row left: the registers, each like x, and the sample."""

    registers: tuple
    sample: PyTree


def walk(
    plan: Plan,
    predict: Callable[[PyTree, int], Any],
    x: PyTree,
    noise: Callable[[int], PyTree] | None = None,
) -> Iterator[HostRow]:
    """A plan on the host in float64: what stands before the first row and after each.

    Args:
        plan: NumPy weights.
        predict: (point, row index) -> data prediction (or a tuple of P of them).
        x: initial state.
        noise: row -> z or None; row -1 is the start's. None: no noise.
    """
    x = jax.tree.map(lambda v: np.asarray(v, np.float64), x)
    checked(plan)
    if plan.start is None:
        raise ValueError("this plan goes on from other rows; give it their registers.")
    registers = begin(plan.start, x, noise and noise(-1), plan.matrix)
    yield HostRow(registers, registers[0])
    for i in range(plan.length):
        row = jax.tree.map(lambda w, i=i: w[i], plan.rows)
        found = predict(registers[0], i)
        found = found if isinstance(found, tuple) else (found,) * plan.predictions
        parts = (row, registers, found, noise and noise(i), plan.matrix)
        sample, registers = line(parts[0], -1, *parts[1:]), advance(*parts)
        yield HostRow(registers, sample)


def replay(plan: Plan, predict: Any, x: Any, z: np.ndarray | None = None) -> Any:
    """Run a plan on the host in float64, one row at a time; its sample.

    Args:
        plan: a plan of NumPy weights.
        predict: (x, row index) -> data prediction (or a tuple of P of them).
        x: initial state, a float or NumPy array.
        z: noise per row, one draw more in front if the start draws too; None for none.
    """
    first = plan.start is not None and plan.start.noise is not None
    extra = int(first and z is not None and len(z) == plan.length + 1)

    def draw(i: int) -> Any:
        return None if z is None or i + extra < 0 else z[i + extra]

    return deque(walk(plan, predict, x, draw), maxlen=1).pop().registers[0]


def self_check(plan: Plan, lv: Levels, basis: str | Basis, tol: float = 1e-9) -> None:
    """A constant prediction is integrated exactly over the whole plan.

    Data:  x_N = (sigma_N / sigma_0) x_0 + (alpha_N - alpha_0 sigma_N / sigma_0) D
    Noise: x_N = (alpha_N / alpha_0) x_0 + (sigma_N - sigma_0 alpha_N / alpha_0) E

    Raises:
        ValueError: the weights do not sum to the integral of a constant.
    """
    weights = jax.tree.leaves((plan.rows, plan.start))
    if basis not in ("data", "noise"):
        return
    if lv.alpha.ndim > 1 or not all(isinstance(w, np.ndarray) for w in weights):
        return  # traced or per-element weights: the same formulas, checked as scalars
    (a0, a1), (s0, s1) = lv.alpha[[0, -1]], lv.sigma[[0, -1]]
    a, s = plan.rows.level.alpha, plan.rows.level.sigma
    if basis == "data":
        got = replay(plan, lambda x, _: np.ones_like(x), 1.0)
        want = s1 / s0 + (a1 - a0 * s1 / s0)
    else:
        got = replay(plan, lambda x, i: (x - s[i]) / a[i], 1.0)
        want = a1 / a0 + (s1 - s0 * a1 / a0)
    size = 1.0 + abs(a1) + abs(s1) + abs(want)
    if not abs(got - want) <= tol * size:
        raise ValueError(
            "the plan's weights do not integrate a constant prediction exactly: got "
            f"{float(got):.17g}, exact {float(want):.17g}. A coefficient is wrong."
        )
