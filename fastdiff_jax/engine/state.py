"""What a run carries from row to row, and what a row reports."""

from typing import NamedTuple

from ..typing import Array, Key, PyTree

__all__ = ["Info", "State"]


class State(NamedTuple):
    """What the next row needs.

    Attributes:
        registers: K trees like x. The first is where the network is asked next; after
            the last row it is the sample.
        key: one key per sample, or None.
        carry: the denoiser's own state.
    """

    registers: tuple
    key: Key | None
    carry: PyTree

    @property
    def point(self) -> PyTree:
        """Where the network is asked next; after the last row, the sample."""
        return self.registers[0]

    def at(self, x: PyTree) -> "State":
        """The state with x as its point."""
        return self._replace(registers=(x, *self.registers[1:]))


class Info(NamedTuple):
    """What a row did; pass `collect` to keep some of it.

    Attributes:
        index: the row.
        time, alpha, sigma: level of the evaluation.
        point: where the model was evaluated.
        denoised: the data prediction there (the first, if there are several).
        predictions: all that the denoiser returned, a tuple.
        noise: the z that was drawn, or None.
        sample: the sample as it stands after the row: a solution at a step's end, or
            inside a step the one it started from.
    """

    index: Array
    time: Array
    alpha: Array
    sigma: Array
    point: PyTree
    denoised: PyTree
    predictions: tuple
    noise: PyTree
    sample: PyTree
