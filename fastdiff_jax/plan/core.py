"""Plan: a sampler as a table of numbers, one row per call of the network.

A run keeps K registers, each like x. A row asks the network at register 0 and writes,

    D                 = denoiser(register 0), P predictions
    register[to_w]   <- sum_k registers_wk register_k + sum_p predictions_wp D_p
                        + noise_w z + bias_w,    w = 1..W, z ~ N(0, I)

all from what the registers held before the row. Register 0 is where the network is
asked next, and the sample after the last row. One more line of weights, the last, is
written nowhere: it is the sample as it stands after the row.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from ..guards import checked
from ..numerics import Level, namespace
from ..states import mix
from ..trees import concrete, pytree
from ..typing import Array, PyTree

__all__ = ["Level", "Plan", "Row", "Start", "advance", "begin", "ends_step", "line"]


class Row(NamedTuple):
    """What one evaluation needs; in a Plan every leaf has a leading row axis.

    Attributes:
        index: number of the row in the whole plan, (R,) int32.
        level: where the network is asked, (R, ...).
        to: the register of each write, (R, W) int32; write 0 goes to register 0.
        registers: weights of the registers, (R, W + 1, K, ...).
        predictions: weights of the predictions, (R, W + 1, P, ...).
        basis: (R, 2, ...): what the method integrates is basis_0 x + basis_1 D. A
            label: it tells the printed table in which terms to speak.
        noise: weights of z in the first writes, as many as draw, and in the sample,
            (R, <= W + 1, ...); None for none.
        bias: (R, W + 1, ...), None for none.
        controls: what the denoiser is told, a tree with the rows' axis.
        active: (R,) bool, only in padded plans: False is the identity, no call.
    """

    index: Array
    level: Level
    to: Array
    registers: PyTree
    predictions: PyTree
    basis: PyTree
    noise: PyTree = None
    bias: PyTree = None
    controls: PyTree = None
    active: Array | None = None


class Start(NamedTuple):
    """register_k = x_k x + noise_k z + bias_k before the first row, (K, ...) each."""

    x: PyTree
    noise: PyTree = None
    bias: PyTree = None


@pytree
class Plan:
    """A sampler: rows of weights, how to start, and the level of the sample.

    Made by `fd.solvers.NAME(process, ts)` or `plan.build`. A pytree of arrays: pass it
    through jit, vmap and grad like any other. Weights are float64 NumPy until the
    engine casts them to the state's dtype.

    Attributes:
        rows: the table, leading axis = rows.
        end: level of the sample.
        start: how x becomes the first registers; None where a plan goes on from the
            registers that other rows left.
        reads: what the network's predictions must be, by name.
        matrix: weights with two or more axes are (k, k) matrices on the state's axis 1.
    """

    rows: Row
    end: Level
    start: Start | None
    reads: tuple[str, ...] = dataclasses.field(
        default=("data",), metadata={"static": True}
    )
    matrix: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def length(self) -> int:
        """Number of rows, padding included."""
        return self.rows.index.shape[-1]

    @property
    def nfe(self) -> int:
        """Number of model evaluations: rows that are not padding.

        Raises:
            ValueError: a traced padded plan, or a stack of plans.
        """
        active = self.rows.active
        if active is None:
            return self.length
        if not concrete(active) or np.ndim(active) != 1:
            raise ValueError(
                "nfe is the number of one plan outside jit, got a "
                f"{'stack' if concrete(active) else 'traced plan'}. Use plan.length "
                "for the rows, or plan.rows.active.sum(-1)."
            )
        return int(np.sum(active))

    @property
    def registers(self) -> int:
        """Number of registers K."""
        lead = self.rows.index.ndim  # 2 in a stack of plans
        return jax.tree.leaves(self.rows.registers)[0].shape[lead + 1]

    @property
    def writes(self) -> int:
        """Number of writes per row, W."""
        return self.rows.to.shape[-1]

    @property
    def predictions(self) -> int:
        """Number of predictions P that the denoiser returns."""
        return len(self.reads)

    @property
    def stochastic(self) -> bool:
        """Whether the plan draws noise."""
        start = self.start
        return self.rows.noise is not None or (
            start is not None and start.noise is not None
        )

    def __str__(self) -> str:
        from .table import table

        return table(self)


def pick(weights: PyTree, *at: int) -> PyTree:
    """Weights at a position of their leading axes."""
    return jax.tree.map(lambda w: w[at], weights)


def line(
    row: Row, number: int, registers: tuple, predictions: tuple, z: PyTree, matrix: bool
) -> PyTree:
    """One line of a row: what a write puts into its register; -1 is the sample."""
    terms = [
        (pick(row.registers, number, k), value) for k, value in enumerate(registers)
    ]
    terms += [
        (pick(row.predictions, number, p), value) for p, value in enumerate(predictions)
    ]
    if row.noise is not None and z is not None:
        terms.append((pick(row.noise, number), z))
    bias = None if row.bias is None else pick(row.bias, number)
    return mix(terms, bias, matrix)


def begin(start: Start, x: PyTree, z: PyTree, matrix: bool) -> tuple:
    """The registers before the first row, each from x, 0 times x included."""
    of_x = jax.tree.map(lambda w: w[:, None], start.x)
    no = np.zeros(0, np.int32)  # a line reads the weights alone
    row = Row(no, Level(0, 0, 0), no, of_x, None, None, start.noise, start.bias)
    count = jax.tree.leaves(start.x)[0].shape[0]
    return tuple(line(row, k, (x,), (), z, matrix) for k in range(count))


def advance(
    row: Row, registers: tuple, predictions: tuple, z: PyTree, matrix: bool
) -> tuple:
    """The registers after a row; `to` may be traced, so others are selected by it."""
    writes = row.to.shape[0]
    draws = 0 if row.noise is None else jax.tree.leaves(row.noise)[0].shape[0] - 1
    new = [
        line(row, w, registers, predictions, z if w < draws else None, matrix)
        for w in range(writes)
    ]
    out = [new[0]]
    for k, value in enumerate(registers[1:], 1):
        for w in range(1, writes):
            here = row.to[w] == k
            value = jax.tree.map(
                lambda a, b, here=here: namespace(a, b).where(here, a, b), new[w], value
            )
        out.append(value)
    return tuple(out)


@checked
def ends_step(rows: Row) -> Array:
    """Which rows end a step, (R,): register 0 is the sample, nothing to come."""
    found: Any = True
    for w in jax.tree.leaves((rows.registers, rows.predictions, rows.noise, rows.bias)):
        found = found & (w[:, 0] == w[:, -1]).reshape(w.shape[0], -1).all(axis=1)
    return found
