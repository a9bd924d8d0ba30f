"""From weights in the literature's order (newest first) to a checked Plan."""

from typing import Any

import jax
import numpy as np

from ..numerics import Levels, namespace
from ..typing import Array, PyTree
from .checks import check, validate
from .core import Convert, Level, Move, Plan, Push, Register, Row, Start

__all__ = ["basis", "build", "multistep", "runge_kutta", "take"]


def take(lv: Levels, at: Any) -> Level:
    """The levels at the given grid positions."""
    return Level(lv.time[at], lv.alpha[at], lv.sigma[at])


def basis(level: Level, kind: str) -> Convert:
    """Conversion from the data prediction D into the basis a method integrates in.

    'data': d = D. 'noise': d = E = (x - alpha D) / sigma.

    Raises:
        ValueError: another kind, or noise prediction where it does not exist.
    """
    xp = namespace(level.alpha)
    one, zero = xp.ones_like(level.alpha), xp.zeros_like(level.alpha)
    if kind == "data":
        return Convert(zero[:, None], one[:, None])
    if kind != "noise":
        raise ValueError(f"prediction must be 'data' or 'noise', got {kind!r}.")
    for name, scale in (("sigma", level.sigma), ("alpha", level.alpha)):
        if isinstance(scale, np.ndarray) and (scale == 0).any():
            at = tuple(int(i) for i in np.argwhere(scale == 0)[0])
            raise ValueError(
                f"noise prediction does not exist where {name} = 0, as at row {at[0]}, "
                f"time {np.asarray(level.time)[at]:g}. Integrate in data prediction."
            )
    return Convert((1 / level.sigma)[:, None], (-level.alpha / level.sigma)[:, None])


def _ring(weights: PyTree, count: int, slots: int, pushed: bool) -> PyTree:
    """Newest-first columns (R, count, ...) to absolute slots (R, slots, ...).

    Evaluation i lives in slot i mod slots. Column j is evaluation i - j if this row's
    own is already pushed, else i - 1 - j.
    """

    def rotate(w: Array) -> Array:
        xp = namespace(w)
        rows = w.shape[0]
        i, k = np.arange(rows)[:, None], np.arange(slots)[None, :]
        column = (i - k - (0 if pushed else 1)) % slots
        pad = [(0, 0), (0, slots - count)] + [(0, 0)] * (w.ndim - 2)
        return xp.pad(w, pad)[i, column]

    return jax.tree.map(rotate, weights)


def _columns(weights: PyTree) -> int:
    return 0 if weights is None else jax.tree.leaves(weights)[0].shape[1]


def build(
    level: Level,
    end: Level,
    *,
    convert: Convert,
    advance: Move,
    predict: Move | None = None,
    push: PyTree = None,
    slots: int | None = None,
    register: Register | None = None,
    start: Start | None = None,
    controls: PyTree = None,
    matrix: bool = False,
) -> Plan:
    """Assemble and check a plan whose history is a ring of the newest evaluations.

    Args:
        level: time, alpha, sigma of each row's evaluation, arrays (R, ...).
        end: level of the sample.
        convert: basis of the evaluations.
        advance: weights of the anchor's move. `history` (R, J, ...) is newest first:
            column 0 is the evaluation pushed by the row before. May be None.
        predict: weights of the point's move; `history` is newest first, column 0 this
            row's own push. None: the point is the anchor.
        push: weights (R, 1 + J, ...) of what is stored: on this row's d, then on the
            history newest first. None stores d itself.
        slots: size of the history, None for the smallest that serves.
        register: the noise register's weights.
        start: how x becomes the first state.
        controls: per-row values for the denoiser, leading axis R.
        matrix: see `Plan.matrix`.

    Raises:
        ValueError: shapes that do not agree, NaN, or too few slots.
    """
    rows = level.time.shape[0]
    xp = namespace(level.alpha)
    zeros, ones = xp.zeros(rows), xp.ones(rows)
    predict = Move(ones, None) if predict is None else predict
    depth = (
        _columns(advance.history),
        _columns(predict.history),
        _columns(push) - 1,
        0 if start is None else _lead(start.history),
    )
    need = max(0, *depth)
    if slots is None:
        slots = need
    elif slots < need:
        raise ValueError(
            f"slots={slots} is too small: this method reads {need} stored "
            f"evaluations. Use slots>={need}, or leave it None."
        )

    def ring(weights: PyTree, pushed: bool) -> PyTree:
        if weights is None or slots == 0:
            return xp.zeros((rows, slots))
        return _ring(weights, _columns(weights), slots, pushed)

    if advance.evaluation is None:
        advance = advance._replace(evaluation=xp.zeros((rows, 1)))
    if advance.point is None:
        advance = advance._replace(point=zeros)
    writes = 1 if slots else 0
    count = jax.tree.leaves(convert.prediction)[0].shape[1]
    if push is None:
        stored = np.zeros((rows, writes, count))
        stored[:, :, 0] = 1
        kept = xp.zeros((rows, writes, slots))
    else:
        stored = jax.tree.map(lambda w: w[:, None, None, 0], push)
        rest = jax.tree.map(lambda w: w[:, 1:], push)
        kept = jax.tree.map(lambda w: w[:, None], ring(rest, False))
    table = Row(
        index=np.arange(rows, dtype=np.int32),
        level=Level(*level),
        convert=convert,
        advance=advance._replace(history=ring(advance.history, False)),
        push=Push(_slots(rows, slots, writes), stored, kept),
        predict=predict._replace(history=ring(predict.history, True)),
        register=register,
        controls=controls,
    )
    plan = Plan(table, Level(*end), start, matrix)
    validate(plan)
    return plan


def _lead(weights: PyTree) -> int:
    return 0 if weights is None else jax.tree.leaves(weights)[0].shape[0]


def _slots(rows: int, slots: int, writes: int) -> np.ndarray:
    ring = np.arange(rows, dtype=np.int32)[:, None] % max(slots, 1)
    return np.broadcast_to(ring, (rows, writes)).astype(np.int32)


def multistep(
    lv: Levels,
    *,
    prediction: str,
    keep: Array,
    weights: Array,
    noise: Array | None = None,
    check_constant: bool = True,
) -> Plan:
    """x_{i+1} = keep_i x_i + sum_j weights_ij m_{i-j} + noise_i z: a plan of N rows.

    Args:
        lv: levels of the grid, N + 1.
        prediction: 'data' or 'noise', what m is.
        keep: weight of the state, (N, ...).
        weights: weights of the evaluations, newest first, (N, ..., J).
        noise: standard deviation of the step's noise, (N, ...), None for none.
        check_constant: verify that a constant m is integrated exactly.
    """
    xp = namespace(weights)
    weights = xp.moveaxis(weights, -1, 1)  # (N, J, ...)
    used = weights.shape[1]
    if isinstance(weights, np.ndarray):  # keep the history as small as the method needs
        live = np.flatnonzero(weights.reshape(len(weights), used, -1).any((0, 2)))
        used = int(live[-1]) + 1 if live.size else 1
    level = take(lv, slice(None, -1))
    advance = Move(
        anchor=keep,
        history=weights[:, 1:used] if used > 1 else None,
        evaluation=weights[:, :1],
        noise=noise,
    )
    plan = build(level, take(lv, -1), convert=basis(level, prediction), advance=advance)
    if check_constant and noise is None:
        check(plan, lv, prediction)
    return plan


def runge_kutta(
    level: Level,
    end: Level,
    *,
    convert: Convert,
    keep: Array,
    weights: Array,
    closes: np.ndarray,
    controls: PyTree = None,
) -> Plan:
    """One-step methods: each row reaches a stage, or closes the step.

    Row j of a step goes from the step's start x to keep_j x + sum_k w_jk d_k, with the
    step's own evaluations d newest first; that is the next stage's point, or, on the
    row that closes the step, the new anchor.

    Args:
        level: levels of the evaluations, (R, ...).
        end: level of the sample.
        convert: basis of the evaluations.
        keep: weight of the step's start, (R, ...).
        weights: of the step's evaluations, newest first, (R, S, ...).
        closes: whether a row closes its step, (R,) bool.
        controls: per-row values for the denoiser.
    """
    xp = namespace(weights, keep)
    stages = weights.shape[1]

    def only(mask: np.ndarray, w: Array, other: float = 0.0) -> Array:
        return xp.where(mask.reshape((-1,) + (1,) * (w.ndim - 1)), w, other)

    advance = Move(
        anchor=only(closes, keep, 1.0),
        history=only(closes, weights[:, 1:]) if stages > 1 else None,
        evaluation=only(closes, weights[:, :1]),
    )
    predict = Move(
        anchor=only(~closes, keep, 1.0),
        history=only(~closes, weights[:, : stages - 1]) if stages > 1 else None,
    )
    return build(
        level, end, convert=convert, advance=advance, predict=predict, controls=controls
    )
