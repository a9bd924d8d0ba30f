"""Plan: a sampler as a table of numbers, one row per model evaluation.

State: `anchor` (the point the current step started from), `point` (where the model is
evaluated next), `history` (K stored evaluations) and, where a method composes noise,
a noise `register`. A row evaluates the model at `point`, with z ~ N(0, I), and moves

    d_p     = convert.point_p point + convert.prediction_p prediction_p + bias_p
    anchor' = advance: linear in (anchor, point, d, history, z, register)
    history'[slot_w] = push: linear in (d, history), for each of W writes
    register' = keep register + draw z
    point'  = predict: linear in (anchor', history', z, register')

After the last row `point` is the sample.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from ..numerics import history_terms, mix, namespace
from ..trees import pytree
from ..typing import Array, PyTree

__all__ = [
    "Convert",
    "Level",
    "Move",
    "Plan",
    "Push",
    "Register",
    "Row",
    "Start",
    "move",
]


class Convert(NamedTuple):
    """d_p = point_p * point + prediction_p * prediction_p + bias_p, p = 1..P."""

    point: PyTree  # (R, P, ...)
    prediction: PyTree  # (R, P, ...)
    bias: PyTree = None  # (R, P, ...)


class Move(NamedTuple):
    """Weights of one linear move; None is a weight of zero for every row."""

    anchor: PyTree  # (R, ...)
    history: PyTree  # (R, K, ...)
    point: PyTree = None  # (R, ...), advance only
    evaluation: PyTree = None  # (R, P, ...), advance only
    noise: PyTree = None  # (R, ...), on the row's fresh z
    register: PyTree = None  # (R, ...), on the noise register
    bias: PyTree = None  # (R, ...)


class Push(NamedTuple):
    """history[slot_w] <- evaluation_w . d + history_w . history, for w = 1..W."""

    slot: Array  # (R, W) int32
    evaluation: PyTree  # (R, W, P, ...)
    history: PyTree  # (R, W, K, ...)


class Register(NamedTuple):
    """register <- keep * register + draw * z."""

    keep: PyTree  # (R, ...)
    draw: PyTree  # (R, ...)


class Start(NamedTuple):
    """How x becomes the first state: each part is weight * x + noise * z + bias."""

    anchor: PyTree  # (...)
    point: PyTree  # (...)
    history: PyTree = None  # (K, ...) weights of x; None stores zeros
    anchor_noise: PyTree = None
    point_noise: PyTree = None
    register_noise: PyTree = None
    anchor_bias: PyTree = None
    point_bias: PyTree = None


class Level(NamedTuple):
    """A noise level: time, alpha, sigma."""

    time: PyTree
    alpha: PyTree
    sigma: PyTree


class Row(NamedTuple):
    """What one evaluation needs; in a Plan every leaf has a leading row axis."""

    index: Array  # (R,) int32
    level: Level  # (R, ...), where the model is evaluated
    convert: Convert
    advance: Move
    push: Push
    predict: Move
    register: Register | None = None
    controls: PyTree = None
    active: Array | None = None  # (R,) bool; None: every row is


@pytree
class Plan:
    """A sampler: rows of weights, how to start, and the level of the sample.

    Made by `fd.solvers.NAME(process, ts)` or `plan.build`. A pytree of arrays: pass it
    through jit, vmap and grad like any other. Weights are float64 NumPy until the
    engine casts them to the state's dtype.

    Attributes:
        rows: the table, leading axis = rows.
        end: level of the sample.
        start: how x becomes the first state, None for anchor = point = x.
        matrix: weights with two or more axes are (k, k) matrices on the state's axis 1.
    """

    rows: Row
    end: Level
    start: Start | None = None
    matrix: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def length(self) -> int:
        """Number of rows, padding included."""
        return self.rows.index.shape[0]

    @property
    def nfe(self) -> int:
        """Number of model evaluations: rows that are not padding."""
        active = self.rows.active
        return self.length if active is None else int(np.sum(active))

    @property
    def slots(self) -> int:
        """Number of history slots K."""
        return (
            self.rows.push.slot.shape[1]
            and jax.tree.leaves(self.rows.push.history)[0].shape[2]
        )

    @property
    def predictions(self) -> int:
        """Number of predictions P that the denoiser returns."""
        return jax.tree.leaves(self.rows.convert.prediction)[0].shape[1]

    @property
    def stochastic(self) -> bool:
        """Whether the plan draws noise."""
        rows, start = self.rows, self.start
        noisy = (rows.advance.noise, rows.predict.noise, rows.register)
        if start is not None:
            noisy += (start.anchor_noise, start.point_noise, start.register_noise)
        return any(weight is not None for weight in noisy)

    def __str__(self) -> str:
        from .table import table

        return table(self)


def _row_of(weights: PyTree, k: int) -> PyTree:
    """Weights of one prediction or slot, or None."""
    return None if weights is None else jax.tree.map(lambda w: w[k], weights)


def _write(history: PyTree, slot: Any, value: PyTree) -> PyTree:
    """History with one slot replaced."""
    if namespace(slot, *jax.tree.leaves(history)) is np:

        def put(h: Any, v: Any) -> Any:
            h = h.copy()
            h[slot] = v
            return h

        return jax.tree.map(put, history, value)
    return jax.tree.map(
        lambda h, v: jax.lax.dynamic_update_index_in_dim(h, v, slot, 0), history, value
    )


def convert(row: Row, point: PyTree, predictions: tuple, matrix: bool) -> tuple:
    """The evaluations d_p of a row, in the basis that the method integrates in."""
    w = row.convert
    return tuple(
        mix(
            [(_row_of(w.point, p), point), (_row_of(w.prediction, p), prediction)],
            _row_of(w.bias, p),
            matrix,
        )
        for p, prediction in enumerate(predictions)
    )


def move(
    row: Row,
    anchor: PyTree,
    point: PyTree,
    history: PyTree,
    register: PyTree,
    evaluations: tuple,
    z: PyTree,
    matrix: bool = False,
) -> tuple[PyTree, PyTree, PyTree, PyTree]:
    """Advance, push and predict: (anchor, point, history, register) after a row."""

    def noise_terms(w: Move, reg: PyTree) -> list:
        return [(w.noise, z), (w.register, reg)]

    a, p = row.advance, row.predict
    terms = [(a.anchor, anchor), (a.point, point)]
    terms += [(_row_of(a.evaluation, i), d) for i, d in enumerate(evaluations)]
    terms += history_terms(a.history, history) + noise_terms(a, register)
    anchor = mix(terms, a.bias, matrix)

    old = history  # every write of the row sees the history before the row
    for w in range(row.push.slot.shape[0]):
        weights = _row_of(row.push.evaluation, w)
        parts = [(_row_of(weights, i), d) for i, d in enumerate(evaluations)]
        parts += history_terms(_row_of(row.push.history, w), old)
        history = _write(history, row.push.slot[w], mix(parts, None, matrix))

    if row.register is not None:
        register = mix(
            [(row.register.keep, register), (row.register.draw, z)], None, matrix
        )
    terms = [(p.anchor, anchor), *history_terms(p.history, history)]
    point = mix(terms + noise_terms(p, register), p.bias, matrix)
    return anchor, point, history, register
