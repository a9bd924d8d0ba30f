"""A finished plan on the host in float64: its run, and a constant integrated."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from ..guards import checked, must, real, within
from ..numerics import PREDICTIONS, Basis, Levels
from ..states import some_arrays
from ..typing import PyTree
from .core import Plan, advance, begin, line
from .validity import valid

__all__ = ["HostRow", "replay", "self_check", "walk"]


class HostRow(NamedTuple):
    """What a row left: the registers, each like x, and the sample."""

    registers: tuple
    sample: PyTree


@checked
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
    some_arrays(x, "x")
    x = jax.tree.map(lambda v: real("x", v), x)
    start = valid(plan).start
    if start is None:
        raise ValueError("this plan goes on from other rows; give it their registers.")
    registers = begin(start, x, noise and noise(-1), plan.matrix)
    yield HostRow(registers, registers[0])
    for i in range(plan.length):
        row = jax.tree.map(lambda w, i=i: w[i], plan.rows)
        found = predict(registers[0], i)
        found = found if isinstance(found, tuple) else (found,) * plan.predictions
        parts = (row, registers, found, noise and noise(i), plan.matrix)
        sample, registers = line(parts[0], -1, *parts[1:]), advance(*parts)
        yield HostRow(registers, sample)


@checked
def replay(
    plan: Plan,
    predict: Callable[[PyTree, int], Any],
    x: PyTree,
    z: np.ndarray | None = None,
) -> Any:
    """Run a plan on the host in float64, one row at a time; its sample.

    Args:
        plan: a plan of NumPy weights.
        predict: (x, row index) -> data prediction (or a tuple of P of them).
        x: initial state, a float or NumPy array.
        z: one draw per row, one more in front if the start draws too, as `fd.sample`
            takes recorded noise; None for none.

    Raises:
        ValueError: another number of draws.
    """
    first = int(plan.start is not None and plan.start.noise is not None)
    if first and z is not None and plan.rows.active is not None:
        first = int(np.shape(z)[:1] != (plan.length,))  # a padded start only could draw
    if z is not None and np.shape(z)[:1] != (plan.length + first,):
        told = ", the start first" if first else ""
        raise must("z", f"{plan.length + first} draws (one per row{told})", z)

    def draw(i: int) -> Any:
        return None if z is None or i + first < 0 else z[i + first]

    return deque(walk(plan, predict, x, draw), maxlen=1).pop().registers[0]


@checked
def self_check(plan: Plan, lv: Levels, basis: str | Basis, tol: float = 1e-11) -> None:
    """A constant prediction is integrated exactly over the whole plan.

    Data:  x_N = (sigma_N / sigma_0) x_0 + (alpha_N - alpha_0 sigma_N / sigma_0) D
    Noise: x_N = (alpha_N / alpha_0) x_0 + (sigma_N - sigma_0 alpha_N / alpha_0) E

    Within `tol`, and what float64 loses where weights larger than their sum cancel: an
    extrapolation from evaluations that stand close together over a longer step.

    Raises:
        ValueError: the weights do not sum to the integral of a constant, or cancel so
            far that it cannot be said.
    """
    weights = jax.tree.leaves((plan.rows, plan.start))
    within("[0, inf)", tol=tol)
    if isinstance(basis, str) and basis not in PREDICTIONS:
        raise must("basis", f"one of {', '.join(PREDICTIONS)}", basis)
    if basis not in ("data", "noise"):
        return
    if lv.alpha.ndim > 1 or not all(isinstance(w, np.ndarray) for w in weights):
        return  # traced or per-element weights: the same formulas, checked as scalars
    (a0, a1), (s0, s1) = lv.alpha[[0, -1]], lv.sigma[[0, -1]]
    if basis == "data":
        want = s1 / s0 + (a1 - a0 * s1 / s0)
    else:
        want = a1 / a0 + (s1 - s0 * a1 / a0)
    size = 1.0 + abs(a1) + abs(s1) + abs(want)
    got, lost = _constant(plan, basis == "noise")
    if np.any(lost > _LEGIBLE * size):
        largest = max(np.abs(w).max() for w in jax.tree.leaves(plan.rows.predictions))
        raise ValueError(
            f"the plan's weights reach {largest:.1g} and cancel: float64 keeps the "
            "sample to within "
            f"{np.max(lost):.1g}. A step of ts is far longer than those before it; "
            "use a lower order, or a grid whose steps change less."
        )
    if not np.all(abs(got - want) <= tol * size + lost):
        raise ValueError(
            "the plan's weights do not integrate a constant prediction exactly: got "
            f"{np.ravel(got)[0]:.17g}, exact {float(want):.17g}. A coefficient is "
            "wrong."
        )


_ROUNDING = 100 * np.finfo(np.float64).eps  # of a weight, of its product
_LEGIBLE = 0.1  # of the sample: rounding beyond that leaves nothing to check


def _constant(plan: Plan, noise: bool) -> tuple[np.ndarray, np.ndarray]:
    """The sample from x = 1 at constant D = 1, or E = 1, and a bound on its rounding.

    Every product of every row is rounded; what is lost there reaches the sample through
    the rows after it, D's dependence on x included: E = 1 forgets errors of x.
    """
    a, b, level = plan.rows.registers, plan.rows.predictions, plan.rows.level

    def predict(x: Any, i: int) -> Any:
        return (x - level.sigma[i]) / level.alpha[i] if noise else np.ones_like(x)

    found = [np.stack(s.registers) for s in walk(plan, predict, np.ones(a.shape[3:]))]
    held = abs(np.stack(found))
    as_lines = (-1,) + (1,) * (a.ndim - 2)
    alpha, sigma = (v.reshape(as_lines) for v in level[1:])
    slope = 1 / alpha if noise else 0 * alpha
    answer = slope * (held[:-1, :1] + sigma) if noise else 1.0
    rounded = (abs(a) * held[:-1, None]).sum(2) + abs(b).sum(2) * answer
    jacobian = a.copy()
    jacobian[:, :, 0] += b.sum(2) * slope
    weight = np.zeros(a.shape[2:])  # of what each register holds, in the sample
    weight[0] = 1.0
    lost = np.zeros(a.shape[3:])
    for i in reversed(range(plan.length)):
        to = plan.rows.to[i]
        read, weight[to] = weight[to], 0.0
        lost = lost + (abs(read) * rounded[i, :-1]).sum(0)
        weight = weight + (read[:, None] * jacobian[i, :-1]).sum(0)
    return found[-1][0], _ROUNDING * lost
