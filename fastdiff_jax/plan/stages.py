"""One-step methods: steps of several evaluations, each from its start alone."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..guards import checked, must
from ..numerics import Basis, Level, namespace
from ..typing import Array, Process, PyTree
from .builders import axes_of, build, named, weight_of
from .core import Plan
from .forms import NOISE, Form, prediction, register, total

__all__ = ["Leg", "stages"]


class Leg(NamedTuple):
    """A line of a step with stages: from its start to the next stage, or to its end.

        keep x_s + sum_k weights_k d_k + noise z

    What the lines before drew is carried on like the state, in the ratio of their keep.
    """

    level: Level  # of the row's evaluation, (M, ...)
    keep: Array
    weights: tuple[Array, ...]  # of the step's evaluations, oldest first
    noise: Array | None = None


@checked
def stages(
    groups: Sequence[tuple[np.ndarray, Sequence[Leg]]],
    end: Level,
    *,
    basis: str | Basis = "data",
    process: Process | None = None,
    independent: bool = False,
    start: Mapping[int, Form] | None = None,
    controls: PyTree = None,
) -> Plan:
    """One row per stage, steps of different lengths side by side.

    Only the point and the step's evaluations are kept: its start is what is left of
    the point without them, with the noise that the step has drawn so far.

    Args:
        groups: (which steps, their lines): the numbers of the steps, (M,), and one
            `Leg` per evaluation with weights (M, ...). Together all steps, each once.
        end: level of the sample.
        basis: what d is: 'data', 'noise', 'velocity' (with the process), or a `Basis`
            with weights for all rows in order.
        process: for 'velocity'.
        independent: each line draws its noise anew and forgets that of the stage it
            left, as published samplers do; the step's start is then kept, too.
        start: see `build`.
        controls: per-row values for the denoiser.

    Returns:
        A plan of as many rows as there are lines in all steps.
    """
    if not groups:
        raise must("groups", "one pair (steps, legs) or more", groups)
    lines = [(steps, legs, j) for steps, legs in groups for j in range(len(legs))]
    step = np.concatenate([steps for steps, _, _ in lines])
    stage = np.repeat([j for *_, j in lines], [len(steps) for steps, *_ in lines])
    order = np.lexsort((stage, step))
    depth = max(len(legs) for steps, legs in groups if len(steps))
    levels = [legs[j].level for _, legs, j in lines]
    level = Level(*(_joined(v, order) for v in zip(*levels, strict=True)))
    known = named(level, basis, process)
    to, forms, at = [], [], 0
    for steps, legs, j in lines:
        d, mine = prediction(), np.argsort(order)[at : (at := at + len(steps))]
        if known is not None:
            d = known.point[mine] * register(0) + known.data[mine] * d
        targets, found = _stage(legs, j, d, depth, independent)
        to.append(np.broadcast_to(targets, (len(steps), len(targets))))
        forms.append(found)
    sizes = [len(steps) for steps, *_ in lines]
    *moves, sample = (_rows(f, sizes, order) for f in zip(*forms, strict=True))
    return build(
        level,
        end,
        list(zip(np.concatenate(to)[order].T, moves, strict=True)),
        sample=sample,
        basis=known,
        start=start,
        controls=controls,
    )


def _stage(
    legs: Sequence[Leg], j: int, d: Form, depth: int, independent: bool
) -> tuple[list[int], list[Form]]:
    """The row of stage j: where its writes go, and their forms, the sample last."""
    leg, last, p = legs[j], j == len(legs) - 1, register(0)
    first = 2 if independent else 1  # register of the step's first evaluation
    kept = [register(first + k) for k in range(j)]
    begin = p
    if j and independent:
        begin = register(1)
    elif j:
        before = legs[j - 1]
        gone = (-w * m for w, m in zip(before.weights, kept, strict=True))
        begin = (1 / before.keep) * total([p, *gone])
    terms = [w * m for w, m in zip(leg.weights, [*kept, d], strict=True)]
    drawn = [] if leg.noise is None else [leg.noise * NOISE]
    ahead = total([leg.keep * begin, *terms, *drawn])
    to, forms = [0], [ahead]
    if independent:
        to, forms = [0, 1], [ahead, begin]
    if depth > 1:  # a line that nothing reads keeps a register as it is
        to.append(first if last else first + j)
        forms.append(register(first) if last else d)
    return to, [*forms, ahead if last else begin]


def _joined(parts: Sequence[Array], order: np.ndarray) -> Array:
    return namespace(*parts).concatenate(parts, axis=0)[order]


def _rows(forms: Sequence[Form], sizes: list[int], order: np.ndarray) -> Form:
    """One form for all rows out of one per block; what a block lacks has weight 0."""
    out = {}
    for part in sorted({part for form in forms for part in form.parts}):
        weights = [form.parts.get(part, 0.0) for form in forms]
        axes = axes_of(weights)
        each = zip(weights, sizes, strict=True)
        out[part] = _joined([weight_of(w, size, axes) for w, size in each], order)
    return Form(out)
