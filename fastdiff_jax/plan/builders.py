"""From a method's formulas to a checked plan: five builders.

`build` takes the writes of every row as linear forms (see `forms`). `multistep`,
`corrected` and `stages` are the three shapes that nearly all methods have, in the
literature's terms; `between` is a level inside a step.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

import jax
import numpy as np

from ..guards import checked, must
from ..numerics import Basis, Level, Levels, basis_of, namespace
from ..typing import Array, Process, PyTree
from .checks import self_check
from .core import Plan, Row, Start
from .forms import (
    NOISE,
    ONE,
    Form,
    Ring,
    evaluation,
    prediction,
    register,
    total,
)
from .validity import validate

__all__ = ["build", "corrected", "multistep"]

To = int | np.ndarray | Ring


@checked
def build(
    level: Level,
    end: Level,
    writes: Sequence[tuple[To, Form]],
    *,
    sample: Form | None = None,
    basis: Basis | None = None,
    start: Mapping[int, Form] | None = None,
    reads: tuple[str, ...] = ("data",),
    controls: PyTree = None,
    matrix: bool = False,
) -> Plan:
    """A plan from the writes of its rows. All see the registers before the row.

    Args:
        level: where the network is asked, arrays (R, ...).
        end: level of the sample.
        writes: (where, what): a register's number, one per row (R,), or a ring; and a
            form with weights (R, ...). The first goes to register 0.
        sample: the sample as it stands after the row; None: what register 0 gets.
        basis: the terms that a printed table speaks in; None: the data prediction.
        start: registers that do not start as 0 times x, as forms in register 0, which
            is x, noise and 1, with weights of a leading axis of 1; register 0 starts
            as x.
        reads: names of the predictions that the network must give.
        controls: per-row values for the denoiser, leading axis R.
        matrix: see `Plan.matrix`.

    Returns:
        A plan of R rows.

    Raises:
        ValueError: weights whose shapes do not agree, or that are not finite.

    Example:
        Euler's method in sigma, x' = x + (sigma_t - sigma_s) E:

        >>> import fastdiff_jax as fd
        >>> from fastdiff_jax import plan
        >>> process = fd.processes.edm()
        >>> lv = plan.levels(process, [80.0, 10.0, 1.0, 0.1])
        >>> x, e = plan.register(0), plan.evaluation(lv.starts, "noise")
        >>> made = plan.build(
        ...     lv.starts, lv.end, [(0, x + (lv.sigma[1:] - lv.sigma[:-1]) * e)])
        >>> made.nfe, made.registers
        (3, 1)
    """
    rows = level.time.shape[0]
    if not len(reads):
        raise must("reads", "one name or more", reads)
    if not writes:
        raise must("writes", "one pair (register, form) or more", writes)
    lines = [form for _, form in writes]
    lines.append(lines[0] if sample is None else sample)
    lines = [_turned(form, rows) for form in lines]
    to = np.stack([_absolute(where, rows) for where, _ in writes], 1)
    begin = {0: register(0)} | dict(start or {})
    read = [k for form in lines for word, *k in form.parts if word == "register"]
    count = 1 + max(to.max(), *begin, *(k for (k,) in read))
    weights = [w for f in (*lines, *begin.values()) for w in f.parts.values()]
    axes = axes_of(weights, matrix)
    label = [Form({("one",): w}) for w in basis or (0.0, 1.0)]
    wide = np.broadcast_shapes(axes, axes_of(basis or (), matrix))
    table = Lines(lines, rows, axes, matrix)
    made = Plan(
        Row(
            index=np.arange(rows, dtype=np.int32),
            level=Level(*level),
            to=to,
            registers=table.all([("register", k) for k in range(count)]),
            predictions=table.all([("prediction", p) for p in range(len(reads))]),
            basis=Lines(label, rows, wide, matrix).of(("one",)),
            noise=_drawing(table.of(("noise",)), lines),
            bias=table.of(("one",)),
            controls=controls,
        ),
        Level(*end),
        start_of(begin, count, axes, matrix),
        tuple(reads),
        matrix,
    )
    validate(made)
    return made


def _drawing(noise: Any, lines: Sequence[Form]) -> Any:
    """Noise weights of the first lines, as many as draw, and of the last."""
    draws = [n for n, form in enumerate(lines[:-1]) if ("noise",) in form.parts]
    return None if noise is None else noise[:, [*range(max(draws, default=0) + 1), -1]]


def _absolute(to: To, rows: int) -> np.ndarray:
    """Numbers of the registers that a write goes to, (R,)."""
    if isinstance(to, Ring):
        to = to.first + np.arange(rows) % to.size
    return np.broadcast_to(np.asarray(to, np.int32), (rows,))


def axes_of(weights: Iterable[Any], matrix: bool = False) -> tuple[int, ...]:
    """Trailing axes that all weights (R, ...) broadcast to."""
    found = np.broadcast_shapes((), *(np.shape(w)[1:] for w in weights if np.ndim(w)))
    return found if not matrix or found else (1, 1)


def weight_of(
    value: Any,
    rows: int,
    axes: tuple[int, ...],
    matrix: bool = False,
    dtype: Any = None,
) -> Array:
    """A weight as (R, *axes); numbers are diagonal matrices."""
    xp = namespace(value)
    value = xp.asarray(value, dtype=dtype)
    if matrix and value.ndim < 2:
        value = value.reshape((*value.shape, 1, 1)) * np.eye(axes[0], axes[-1])
    elif value.ndim:
        gap = (1,) * (len(axes) + 1 - value.ndim)
        value = value.reshape(value.shape[:1] + gap + value.shape[1:])
    return xp.broadcast_to(value, (rows, *axes))


class Lines:
    """The lines of all rows as arrays, axes (R, line, part, ...)."""

    def __init__(
        self, forms: Sequence[Form], rows: int, axes: tuple[int, ...], matrix: bool
    ):
        self.forms = forms
        weights = [w for form in forms for w in form.parts.values()]
        traced = [w.dtype for w in weights if isinstance(w, jax.Array)]
        dtype = max(traced, key=lambda d: d.itemsize, default=np.dtype(np.float64))
        self.xp, self.shape = namespace(*weights), (rows, axes, matrix, dtype)

    def each(self, parts: Sequence[tuple]) -> Iterator[Array]:
        """Weights of each of some parts, in every line: (R, L, ...)."""
        for part in parts:
            found = [form.parts.get(part, 0.0) for form in self.forms]
            yield self.xp.stack([weight_of(w, *self.shape) for w in found], axis=1)

    def of(self, part: tuple) -> Array | None:
        """Weights of one part in every line; None if none has it."""
        here = any(part in form.parts for form in self.forms)
        return next(self.each([part])) if here else None

    def all(self, parts: Sequence[tuple]) -> Array:
        """Weights of some parts in every line, (R, L, parts, ...)."""
        return self.xp.stack(list(self.each(parts)), axis=2)


def _turned(form: Form, rows: int) -> Form:
    """Ring parts, newest first, as registers: row i pushes to register i mod size."""
    parts = {p: w for p, w in form.parts.items() if p[0] != "ring"}
    row = np.arange(rows)
    for part, weight in form.parts.items():
        if part[0] != "ring":
            continue
        _, first, size, age = part
        for k in range(size):
            mine = (row - 1 - k) % size == age
            mine = mine.reshape((-1,) + (1,) * max(np.ndim(weight) - 1, 0))
            here = weight if size == 1 else namespace(weight).where(mine, weight, 0.0)
            at = ("register", first + k)
            parts[at] = parts[at] + here if at in parts else here
    return Form(parts)


def start_of(
    begin: Mapping[int, Form], count: int, axes: tuple[int, ...], matrix: bool
) -> Start:
    """Each register as weights of x (register 0), noise and 1, given as forms."""
    forms = [begin.get(k, Form({})) for k in range(count)]
    table = Lines(forms, 1, axes, matrix)
    parts = [table.all([("register", 0)])[:, :, 0], table.of(("noise",))]
    return Start(*(w if w is None else w[0] for w in (*parts, table.of(("one",)))))


# ------------------------------------------------------------------- three shapes


def named(
    level: Level, basis: str | Basis, process: Process | None = None
) -> Basis | None:
    """A basis by its weights; None for the data prediction itself."""
    if not isinstance(basis, str):
        return basis
    found = basis_of(level, basis, process)  # an unknown name fails here
    return None if basis == "data" else found


def _parts(weights: Array) -> list[Array]:
    """Columns of weights, newest first, from (N, ..., J)."""
    return [weights[..., j] for j in range(weights.shape[-1])]


def _per_step(count: int, axes: int = 1, **weights: Any) -> None:
    """Weights are real and have the steps in front; None passes.

    Raises:
        ValueError: naming the first that is not.
    """
    for name, value in weights.items():
        if isinstance(value, list | tuple) and not value:
            raise must(name, "one array or more", value)
        for part in value if isinstance(value, list | tuple) else (value,):
            shape, kind = np.shape(part), getattr(part, "dtype", np.dtype("O")).kind
            good = shape[:1] == (count,) and len(shape) >= axes and kind in "iufV"
            if part is not None and not good:
                rest = ", ...)" if axes == 1 else ", ..., J)"
                raise must(name, f"real, one per step, ({count}{rest}", part)


@checked
def multistep(
    lv: Levels,
    *,
    keep: Array,
    weights: Array | Sequence[Array],
    basis: str | Basis = "data",
    noise: Array | None = None,
    reads: tuple[str, ...] = ("data",),
    controls: PyTree = None,
    exact: bool = True,
) -> Plan:
    """x_{i+1} = keep_i x_i + sum_j weights_ij m_{i-j} + noise_i z: a plan of N rows.

    Args:
        lv: levels of the grid, N + 1.
        keep: weight of the state, (N, ...).
        weights: of the evaluations, newest first, (N, ..., J); one such array per
            prediction where the network gives several.
        basis: what m is: 'data', 'noise', or a `Basis`.
        noise: standard deviation of the step's noise, (N, ...), None for none.
        reads: names of the predictions.
        controls: per-row values for the denoiser.
        exact: check that a constant m is integrated exactly; False for methods that
            do not.
    """
    _per_step(lv.steps, keep=keep, noise=noise)
    _per_step(lv.steps, 2, weights=weights)
    several = isinstance(weights, Sequence)
    known = evaluation(lv.starts, basis)
    columns = [_parts(w) for w in (weights if several else [weights])]
    own = [prediction(p) if several else known for p in range(len(columns))]
    depth, terms, writes = len(columns[0]) - 1, [keep * register(0)], []
    for p, (d, line) in enumerate(zip(own, columns, strict=True)):
        terms.append(line[0] * d)
        if depth:
            past = Ring(1 + p * depth, depth)
            terms += [w * past[j] for j, w in enumerate(line[1:])]
            writes.append((past, d))
    if noise is not None:
        terms.append(noise * NOISE)
    made = build(
        lv.starts,
        lv.end,
        [(0, total(terms)), *writes],
        basis=None if several else named(lv.starts, basis),
        reads=reads,
        controls=controls,
    )
    if exact and noise is None and not several:
        self_check(made, lv, basis)
    return made


@checked
def corrected(
    lv: Levels,
    *,
    keep: Array,
    predict: Array,
    correct: Array,
    steps: np.ndarray,
    basis: str | Basis = "data",
    noise: Array | None = None,
    push: Array | None = None,
    bias: tuple[Array, Array] | None = None,
    controls: PyTree = None,
    matrix: bool = False,
) -> Plan:
    """Predictor-corrector with one evaluation per step: N rows.

        p_{i+1} = keep_i x_i + sum_j predict_ij m_{i-j}   + noise_i z
        x_{i+1} = keep_i x_i + sum_j correct_ij m_{i+1-j} + noise_i z, the same z

    The network is asked at the predicted point p. Only p and the evaluations have to
    be kept: x is p plus the difference of the two sums.

    Args:
        lv: levels of the grid, N + 1.
        keep: weight of the state over each step, (N, ...).
        predict: weights of the predictors, newest first, (N, ..., J).
        correct: weights of the correctors, newest (the step's end) first, (N, ..., C).
        steps: which steps are corrected, (N,) bool; not the last.
        basis: what the evaluations m are: 'data', 'noise', or a `Basis`.
        noise: standard deviation of each step's noise, None for none.
        push: weights (N, ..., 1 + J) on the new evaluation and the stored ones, newest
            first, of what is stored, and read by the predictor too; None: the
            evaluation itself.
        bias: constants in the predictor and in the corrector, (N, ...) each.
        controls: per-row values for the denoiser.
        matrix: weights (N, k, k) and (N, k, k, J) are matrices; see `Plan.matrix`.

    Returns:
        A plan; a deterministic one is checked on a constant.
    """
    _per_step(lv.steps, 3 if matrix else 1, keep=keep)
    _per_step(lv.steps, noise=noise, bias=bias)
    _per_step(lv.steps, 2, predict=predict, correct=correct, push=push)
    if np.shape(steps) != (lv.steps,) or np.asarray(steps).dtype != bool:
        raise must("steps", f"truth values, one per step ({lv.steps},)", steps)
    times = operator.matmul if matrix else operator.mul
    one = np.eye(keep.shape[-1])[None] if matrix else 1.0
    x, d, known = register(0, one), prediction(0, one), named(lv.starts, basis)
    if known is not None:
        d = times(known.point, x) + times(known.data, d)
    ahead, back = _parts(predict), _parts(correct) if steps.any() else []
    pushes = [] if push is None else _parts(push)
    past = Ring(1, max(len(ahead) - (not back), len(back) - 1, len(pushes) - 1))
    older = [past[j] for j in range(past.size)]

    def last(change: Any) -> Any:
        """What corrects a step, on the row after it."""
        use = np.append(False, steps[:-1]).reshape((-1,) + (1,) * (change.ndim - 1))
        before = np.maximum(np.arange(len(use)) - 1, 0)
        return namespace(change).where(use, change[before], 0.0)

    if back:  # the newest one was not there to predict
        pairs = zip_longest([None, *ahead], back)
        for (old, new), m in zip(pairs, [d, *older], strict=False):
            gain = new if old is None else -old if new is None else new - old
            x = x + times(last(gain), m)
        x = x if bias is None else x + last(bias[1] - bias[0]) * ONE
    stored = _sum(times, pushes, [d, *older]) if pushes else d
    move = times(keep, x) + _sum(times, ahead, [stored, *older])
    move = move if noise is None else move + times(noise, NOISE)
    move = move if bias is None else move + bias[0] * ONE
    made = build(
        lv.starts,
        lv.end,
        [(0, move), *([(past, stored)] if past.size else [])],
        sample=x if back else None,
        basis=known,
        controls=controls,
        matrix=matrix,
    )
    if noise is None:
        self_check(made, lv, basis)
    return made


def _sum(times: Callable, weights: Sequence[Array], parts: Sequence[Form]) -> Form:
    """The weighted sum of as many parts as there are weights."""
    return total(times(w, m) for w, m in zip(weights, parts, strict=False))
