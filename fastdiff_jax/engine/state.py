"""What a run carries from row to row, and what a row reports."""

from typing import NamedTuple

from ..typing import Array, Key, PyTree

__all__ = ["Info", "State"]


class State(NamedTuple):
    """What the next row needs.

    Attributes:
        anchor: the point the current step started from, a tree like x.
        point: where the model is evaluated next; after the last row, the sample.
        history: stored evaluations, a tree like x with a leading axis of slots.
        register: composed noise, a tree like x, or None.
        key: one key per sample, or None.
        carry: the denoiser's own state.
    """

    anchor: PyTree
    point: PyTree
    history: PyTree
    register: PyTree
    key: Key | None
    carry: PyTree


class Info(NamedTuple):
    """What a row did; pass `collect` to keep some of it.

    Attributes:
        index: the row.
        time, alpha, sigma: level of the evaluation.
        anchor: the anchor before the row.
        point: where the model was evaluated.
        denoised: the data prediction there (the first, if there are several).
        predictions: all that the denoiser returned, a tuple.
        evaluations: the same in the basis the plan integrates in, a tuple.
        noise: the z that was drawn, or None.
        sample: the anchor after the row: a solution at the step's end.
    """

    index: Array
    time: Array
    alpha: Array
    sigma: Array
    anchor: PyTree
    point: PyTree
    denoised: PyTree
    predictions: tuple
    evaluations: tuple
    noise: PyTree
    sample: PyTree
