"""USF's schedules: one decision per step, checked, mutable and serialisable.

Liu et al. 2023 (2312.07243): what S^3 searches over.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...guards import checked, must
from ...typing import Finite

__all__ = [
    "CORRECTORS",
    "Decision",
    "MAX_ORDER",
    "PREDICTIONS",
    "RELAXATIONS",
    "Schedule",
    "node_sets",
    "repair",
    "usf_schedule",
    "validate",
]

MAX_ORDER = 4
PREDICTIONS = ("data", "noise")
CORRECTORS = ("none", "pseudo")
RELAXATIONS = (
    "none",
    "linear",
    "dpmsolver-2",
    "unipc-bh1",
    "unipc-bh2",
    "+.5exp",
    "-.5exp",
)


@dataclasses.dataclass(frozen=True)
class Decision:
    """How one step goes. Evaluations are counted back from the step's own, which is 0.

    Attributes:
        time: where the row evaluates the model, and where the step starts.
        prediction: 'data' or 'noise', the basis of this step.
        order: 1 + the number of derivatives, 1 to 4.
        nodes: per derivative n = 1..order-1, which evaluations its difference uses
            besides the one at the start point: n or more. None: the newest order - 1,
            for every derivative (the exact exponential Adams weights).
        relaxation: R, the factor on f'. With g = chi h: 'linear' 1 + slope h;
            'dpmsolver-2' and 'unipc-bh2' phi_1(g) / (2 phi_2(g)) (the midpoint rule);
            'unipc-bh1' 1 / (2 phi_2(g)); '+.5exp' and '-.5exp' 1 +- expm1(g) / 2.
        slope: of 'linear', any sign.
        corrector: 'pseudo' redoes the step at one order more, once the next row has
            evaluated at its end; that evaluation is kept as it is. Nothing evaluates
            the end of the last step, which therefore stays as predicted.
        corrector_relaxation: the same factors for the corrector (UniC-1: 'unipc-bh2').
        start: the step starts from the state of the row start - 1 rows back: 1 is
            multistep, p closes a singlestep block of p evaluations.
    """

    time: float
    prediction: str = "data"
    order: int = 1
    nodes: tuple[tuple[int, ...], ...] | None = None
    relaxation: str = "none"
    slope: float = 0.0
    corrector: str = "none"
    corrector_relaxation: str = "none"
    start: int = 1


@dataclasses.dataclass(frozen=True)
class Schedule:
    """One decision per evaluation, and the time of the sample. Hashable, immutable."""

    rows: tuple[Decision, ...]
    end: float

    @property
    def times(self) -> np.ndarray:
        """The grid, (N + 1,)."""
        return np.asarray([*(r.time for r in self.rows), self.end], np.float64)

    def change(self, row: int, **choices: Any) -> "Schedule":
        """A schedule with other choices at one row."""
        rows = list(self.rows)
        rows[row] = dataclasses.replace(rows[row], **choices)
        return dataclasses.replace(self, rows=tuple(rows))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and words: ready for JSON."""
        rows = [dataclasses.asdict(r) for r in self.rows]
        for row in rows:
            row["nodes"] = row["nodes"] and [list(q) for q in row["nodes"]]
        return {"rows": rows, "end": self.end}

    @staticmethod
    def from_dict(tree: Mapping[str, Any]) -> "Schedule":
        """What `to_dict` wrote, checked.

        Raises:
            ValueError: missing or unknown entries, or choices that are not legal.
        """
        known = {f.name for f in dataclasses.fields(Decision)}
        try:
            rows = [dict(r) for r in tree["rows"]]
            for row in rows:
                if set(row) - known:
                    raise KeyError(*sorted(set(row) - known))
                if row.get("nodes") is not None:
                    row["nodes"] = tuple(tuple(q) for q in row["nodes"])
            found = Schedule(tuple(Decision(**r) for r in rows), float(tree["end"]))
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"not a schedule: {type(error).__name__}: {error}. Expected 'rows', a "
                f"list of dicts of {', '.join(sorted(known))}, and 'end'."
            ) from error
        validate(found)
        return found


@checked
def usf_schedule(
    ts: Finite,
    *,
    order: int = 2,
    prediction: str = "data",
    relaxation: str = "none",
    corrector: str = "none",
    corrector_relaxation: str = "none",
    lower_order_final: bool = False,
) -> Schedule:
    """The schedule of a published multistep method, a point to search from.

    Args:
        ts: times, non-increasing, shape (N + 1,).
        order: 1 to 4, after a warm-up 1, 2, ... .
        prediction, corrector: for every step.
        relaxation: of the steps of order 2, as published; 'dpmsolver-2' gives
            DPM-Solver++(2M), 'unipc-bh1' and 'unipc-bh2' give UniP.
        corrector_relaxation: of the corrected steps of order 1, as published.
        lower_order_final: orders ..., 2, 1 at the end.

    Raises:
        ValueError: choices that are not legal.
    """
    ts = np.asarray(ts, np.float64)
    if ts.ndim != 1 or len(ts) < 2:
        raise must("ts", "two times or more, 1-D", ts)
    n, rows = len(ts) - 1, []
    for i in range(n):
        o = min(order, i + 1, n - i if lower_order_final else order)
        relaxed = relaxation if o == 2 else "none"
        again = corrector_relaxation if o == 1 else "none"
        rows.append(
            Decision(float(ts[i]), prediction, o, None, relaxed, 0.0, corrector, again)
        )
    schedule = Schedule(tuple(rows), float(ts[-1]))
    validate(schedule)
    return schedule


@checked
def repair(schedule: Schedule) -> Schedule:
    """The nearest legal schedule after a mutation of numbers: what a search calls.

    Times are sorted downwards; orders, start points and nodes that reach before the
    first evaluation are cut, and derivatives left with too few nodes are dropped.
    """
    times = np.sort(schedule.times)[::-1]
    rows = []
    for i, row in enumerate(schedule.rows):
        start = min(max(row.start, 1), i + 1)
        order, nodes = min(max(row.order, 1), MAX_ORDER, i + 1), row.nodes
        if nodes is not None:
            legal = set(range(i + 1)) - {start - 1}
            kept = [tuple(sorted(set(q) & legal)) for q in nodes[: order - 1]]
            enough = [len(q) >= n for n, q in enumerate(kept, 1)]
            order = 1 + (enough.index(False) if False in enough else len(kept))
            nodes = tuple(kept[: order - 1])
        rows.append(
            dataclasses.replace(
                row, time=float(times[i]), order=order, start=start, nodes=nodes
            )
        )
    return Schedule(tuple(rows), float(times[-1]))


def validate(schedule: Schedule) -> None:
    """Raise ValueError, with the row, where a choice is not legal."""
    if not schedule.rows:
        raise ValueError("a schedule needs at least 1 row, got none.")
    for i, row in enumerate(schedule.rows):
        for name, legal in (
            ("prediction", PREDICTIONS),
            ("relaxation", RELAXATIONS),
            ("corrector", CORRECTORS),
            ("corrector_relaxation", RELAXATIONS),
        ):
            if getattr(row, name) not in legal:
                raise ValueError(
                    f"row {i}: {name} must be one of {', '.join(legal)}; got "
                    f"{getattr(row, name)!r}."
                )
        most = min(MAX_ORDER, i + 1)
        for name, top in (("order", most), ("start", i + 1)):
            value = getattr(row, name)
            if not isinstance(value, int | np.integer) or not 1 <= value <= top:
                raise ValueError(
                    f"row {i}: {name} must be a whole number in 1..{top}, as "
                    f"{i + 1} evaluations are known there; got {value}. Use "
                    "repair(schedule)."
                )
        if not math.isfinite(row.slope):
            raise ValueError(f"row {i}: slope must be finite, got {row.slope}.")
        if row.nodes is not None:
            _validate_nodes(i, row)


def _validate_nodes(i: int, row: Decision) -> None:
    sets = row.nodes or ()
    if len(sets) != row.order - 1:
        raise ValueError(
            f"row {i}: nodes must have {row.order - 1} sets, one per derivative of "
            f"order {row.order}; got {len(sets)}."
        )
    legal = set(range(i + 1)) - {row.start - 1}
    for n, nodes in enumerate(sets, 1):
        if len(nodes) < n or len(set(nodes)) < len(nodes) or set(nodes) - legal:
            raise ValueError(
                f"row {i}: the nodes of derivative {n} must be {n} or more different "
                f"ones of {sorted(legal)}; got {nodes}. Use repair(schedule)."
            )


def node_sets(row: Decision, i: int) -> list[tuple[int, ...]]:
    """Numbers of the evaluations that each derivative's difference uses."""
    back = row.nodes
    if back is None:
        newest = [k for k in range(i + 1) if k != row.start - 1][: row.order - 1]
        back = (tuple(newest),) * (row.order - 1)
    return [tuple(i - k for k in nodes) for nodes in back]
