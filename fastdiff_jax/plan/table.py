"""A plan as text: one line per evaluation, weights newest first as in the papers."""

from typing import Any

import jax
import numpy as np

from .core import Plan

__all__ = ["columns", "table"]


def _scalar(weights: Any) -> np.ndarray | None:
    """Per-row numbers, averaged over elements; None if absent or tree-valued."""
    if weights is None or jax.tree.structure(weights) != jax.tree.structure(0):
        return None
    return np.asarray(weights, np.float64)


def _flat(weights: np.ndarray, lead: int) -> np.ndarray:
    """Mean over the element axes."""
    return weights.reshape(*weights.shape[:lead], -1).mean(-1)


def _leveled(name: str, level: Any) -> dict[str, np.ndarray]:
    """A level as a column, or as one per leaf where the state is a tree."""
    return {
        name + jax.tree_util.keystr(path): _flat(np.asarray(leaf, np.float64), 1)
        for path, leaf in jax.tree_util.tree_leaves_with_path(level)
    }


def columns(plan: Plan) -> dict[str, np.ndarray]:
    """Named columns of numbers, each (rows,), zero ones left out.

    `x` is the anchor's weight, `m0` this row's evaluation, `m1`, `m2`... the stored
    ones, newest first; `p:` marks the move that predicts the next point.
    """
    rows = plan.rows
    out: dict[str, np.ndarray] = {}
    for name, level in zip(("t", "alpha", "sigma"), rows.level, strict=True):
        out.update(_leveled(name, level))
    found: dict[str, np.ndarray] = {}

    def add(name: str, weights: Any, lead: int = 1) -> None:
        values = _scalar(weights)
        if values is None:
            return
        values = _flat(values, lead)
        if lead == 1:
            found[name] = values
            return
        for k in range(values.shape[1]):
            found[f"{name}{k}"] = values[:, k]

    a, p = rows.advance, rows.predict
    add("x", a.anchor)
    add("point", a.point)
    evaluation = _scalar(a.evaluation)
    if evaluation is not None:
        flat = _flat(evaluation, 2)
        for k in range(flat.shape[1]):
            found["m0" if k == 0 else f"m0'{k}"] = flat[:, k]
    _history(found, "", a.history, plan, pushed=False)
    add("z", a.noise)
    add("register", a.register)
    add("p:x", p.anchor)
    _history(found, "p:", p.history, plan, pushed=True)
    add("p:z", p.noise)
    add("p:register", p.register)
    active = plan.rows.active
    if active is not None:  # padding says nothing
        keep = np.asarray(active)
        found = {name: np.where(keep, values, 0.0) for name, values in found.items()}
        if "p:x" in found:
            found["p:x"] = np.where(keep, found["p:x"], 1.0)
    identity = np.all(found.get("p:x", np.ones(1)) == 1)
    for name, values in found.items():
        if np.any(values != 0) and not (name == "p:x" and identity):
            out[name] = values
    return out


def _history(
    found: dict[str, np.ndarray], prefix: str, weights: Any, plan: Plan, pushed: bool
) -> None:
    """Slots back to columns m1, m2... by following what each slot holds."""
    values = _scalar(weights)
    if values is None or plan.slots == 0:
        return
    values, slots = _flat(values, 2), np.asarray(plan.rows.push.slot)
    holds: dict[int, tuple[int, int]] = {}  # slot -> (row, write) stored in it
    for i in range(plan.length):
        own = {int(s): (i, w) for w, s in enumerate(slots[i])}
        if pushed:
            holds.update(own)
        for slot, (row, write) in holds.items():
            name = f"{prefix}m{i - row}" + (f"'{write}" if write else "")
            column = found.setdefault(name, np.zeros(plan.length))
            column[i] = values[i, slot]
        holds.update(own)


def table(plan: Plan, digits: int = 5) -> str:
    """The printable table.

    Example:
        >>> import fastdiff_jax as fd
        >>> flow = fd.processes.flow()
        >>> print(fd.plan.table(fd.solvers.ddim(flow, [1.0, 0.5, 0.0])))
        row          t      alpha      sigma          x         m0
          0          1          0          1        0.5        0.5
          1        0.5        0.5        0.5          0          1
        end          0          1          0
    """
    cols = columns(plan)
    active = plan.rows.active
    keep = np.ones(plan.length, bool) if active is None else np.asarray(active)
    width = {name: max(digits + 6, len(name) + 2) for name in cols}

    def line(head: str, values: list[float]) -> str:
        names = list(cols)[: len(values)]
        cells = [
            f"{v:{width[n]}.{digits}g}" for n, v in zip(names, values, strict=True)
        ]
        return f"{head:>3}" + "".join(cells)

    head = "row" + "".join(f"{n:>{width[n]}}" for n in cols)
    body = [
        line(str(int(plan.rows.index[i])), [float(c[i]) for c in cols.values()])
        for i in np.flatnonzero(keep)
    ]
    end = [float(np.mean(v)) for v in jax.tree.leaves(plan.end)]
    return "\n".join([head, *body, line("end", end)])
