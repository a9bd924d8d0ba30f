"""A plan's weights in the paper's words, and plans with a planted mistake."""

import dataclasses
from typing import NamedTuple

import numpy as np

import fastdiff_jax as fd


class Words(NamedTuple):
    """What a row does to the sample: keep x + sum_j weights_j m_j + noise z."""

    keep: np.ndarray  # (R, ...)
    weights: np.ndarray  # (R, J, ...): of the row's own evaluation, then older ones
    noise: np.ndarray  # (R, ...)


def words(plan):
    """The sample's line of every row, worked out of the registers."""
    lines = [line.sample for line in fd.plan.spell(plan)]
    width = 1 + max(int(n[1:]) for w in lines for n in [*w, "m0"] if n[0] == "m")
    zero = np.zeros(plan.rows.registers.shape[3:])

    def column(name):
        return np.stack([zero + w.get(name, 0.0) for w in lines])

    return Words(
        column("x"),
        np.stack([column(f"m{j}") for j in range(width)], axis=1),
        column("z"),
    )


def with_rows(plan, **fields):
    """The plan with other weights in its rows."""
    return dataclasses.replace(plan, rows=plan.rows._replace(**fields))


def spoiled(plan, *, older=1.0, own=1.0, noise=1.0, rows=slice(None)):
    """The plan with some weights a little off, in the point and in the sample alike.

    older: of what is stored. own: of the row's evaluation. noise: of the draw.
    """
    registers = np.array(plan.rows.registers)
    predictions = np.array(plan.rows.predictions)
    for line in (0, -1):
        registers[rows, line, 1:] *= older
        predictions[rows, line] *= own
    fields = {"registers": registers, "predictions": predictions}
    if plan.rows.noise is not None:
        drawn = np.array(plan.rows.noise)
        drawn[rows] *= noise
        fields["noise"] = drawn
    return with_rows(plan, **fields)
