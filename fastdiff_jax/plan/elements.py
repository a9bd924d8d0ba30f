"""Plans in which every element (frame, modality, pixel) has a time of its own.

Each element runs the rows of the plan of its own distinct times, and where its time
repeats all its registers stay as they are.

Vectorised time: Chen et al. 2024 (2407.01392), Liu et al. 2024 (2410.03160), Sun et al.
2025 (2503.07418); per modality: Bao et al. 2023 (2303.06555).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ..grids.columns import Columns, columns_of
from ..guards import checked
from ..numerics import levels
from ..trees import concrete
from ..typing import Array, Process, PyTree
from .combine import dense, pad, relined, sparse, writes_of
from .core import Level, Plan, Start
from .validity import validate

__all__ = ["per_element"]


@checked
def per_element(
    solver: Callable[[Process, np.ndarray], Plan],
    process: Process,
    ts: PyTree,
    **options: Any,
) -> Plan:
    """Per-element plan: each element is solved on its own distinct times.

    An element whose time repeats from one row to the next waits there: it does not
    move, draws no noise, stores nothing, and keeps its order when it goes on. So the
    order of a multistep method does not suffer from elements that run at different
    paces, as it does when the same `ts` is given to the solver itself. The denoiser
    sees the times of all elements, `context.time` of shape (...), and is evaluated at
    waiting elements too (their context may matter); what it says of those is unused.

    Args:
        solver: a function (process, ts, **options) -> Plan with one evaluation per
            step, such as `fd.solvers.dpmpp_2m` or `unipc`.
        process: the path.
        ts: times, shape (M + 1, ...), non-increasing along the first axis; the other
            axes broadcast against the state's last ones (see `fd.grids.align`). Or a
            dict of such arrays for a state that is a dict with these keys.
        **options: of the solver. It sees each element's distinct times: rules such as
            "order 1 at the last step below 15 steps" go by the element's own count.

    Returns:
        A plan of at most M rows: a row in which no element moves is left out. Weights
        that all elements share stay numbers, so equal columns give the solver's own
        plan.

    Note:
        x holds each element at its own first time: alpha(ts[0]) x_0 + sigma(ts[0]) z,
        so known values for an element that stays at the clean time. What the denoiser
        says of a waiting element is multiplied by 0 and must be finite. Where elements
        depend on one another, one that starts or stops bends the others' predictions:
        orders above 2 then tend to 2, unless only one moves at a time.

    Raises:
        ValueError: times that increase, differ in length or are traced; no element
            moves; a solver with several evaluations per step, a start move or controls.

    Example:
        Three frames, each two steps behind the one before; the first is known.

        >>> import jax, jax.numpy as jnp, fastdiff_jax as fd
        >>> process = fd.processes.flow()
        >>> base = fd.grids.uniform(process, 6, end=0.0)
        >>> ts = fd.grids.block_lagged(process, base, blocks=2, lag=2)
        >>> ts = fd.grids.known_prefix(process, ts, 1)
        >>> plan = fd.plan.per_element(fd.solvers.dpmpp_2m, process, ts)
        >>> plan.nfe, plan.rows.level.time.shape
        (8, (8, 3))
        >>> x = fd.prior(process, jax.random.key(0), (5, 3))
        >>> x = x.at[:, 0].set(0.7)  # known values enter through x
        >>> out = fd.sample(plan, fd.models.gaussian(1.0, 0.1), x)
        >>> bool(jnp.all(out[:, 0] == x[:, 0]))
        True
    """
    grid = columns_of(process, ts)
    plans: dict[bytes, Plan] = {}
    own: list[Plan | None] = []  # each column's plan
    for u in range(grid.times.shape[1]):
        times = grid.times[np.append(grid.moves[:, u], True), u]
        key = times.tobytes()
        if len(times) > 1 and key not in plans:
            plans[key] = _checked(solver, process, times, options)
        own.append(plans.get(key))
    made = _plan(process, grid, own, list(plans.values()))
    validate(made)
    return made


def _checked(solver: Any, process: Process, times: np.ndarray, options: dict) -> Plan:
    """The solver's plan of one element, refused where it cannot wait between steps."""
    plan = solver(process, times, **options)
    name = getattr(solver, "__name__", str(solver))
    if not concrete(plan):
        raise ValueError(
            f"per_element needs {name}'s options as numbers, got traced ones. Build "
            "the plan outside jit, and pass it in."
        )
    plan = jax.tree.map(np.asarray, plan)
    level = plan.rows.level.time
    if plan.length != len(times) - 1 or not np.array_equal(level, times[:-1]):
        raise ValueError(
            "per_element needs one evaluation per step, at the step's own time; "
            f"{name} makes {plan.length} rows for {len(times) - 1} steps. Use a "
            "multistep solver, such as dpmpp_2m, unipc or sa_solver."
        )
    begin = plan.start and (plan.start.x.tolist(), *plan.start[1:])
    alone = ([1.0] + [0.0] * (plan.registers - 1), None, None)
    extras = {
        "a start move": begin != alone,
        "controls": plan.rows.controls is not None,
        "padding": plan.rows.active is not None,
        "matrix weights": plan.matrix,
    }
    found = [what for what, there in extras.items() if there]
    if found:
        raise ValueError(
            f"per_element does not join plans with {' and '.join(found)}, as {name} "
            "makes. Leave those options out, or add controls to the joined plan."
        )
    return plan


def _plan(
    process: Process, grid: Columns, own: list[Plan | None], plans: list[Plan]
) -> Plan:
    """The columns' rows side by side, as a plan of elements."""
    whole = {
        "registers": max(p.registers for p in plans),
        "noise": any(p.stochastic for p in plans),
    }
    columns = [
        _waiting(pad(plans[0] if p is None else p, **whole), moves)
        for p, moves in zip(own, grid.moves.T, strict=True)
    ]
    joined = jax.tree.map(
        lambda *w: np.stack(w, axis=-1), *(p.rows for p, _ in columns)
    )
    to = joined.to[..., 0]
    index = np.arange(len(to), dtype=np.int32)
    joined = joined._replace(index=index, to=to, active=None)
    made = dataclasses.replace(columns[0][0], rows=joined)
    made = sparse(made, np.any([written for _, written in columns], axis=0))
    rows = made.rows
    if not any(p.rows.bias is not None for p in plans):
        rows = rows._replace(bias=None)

    def spread(w: Array, always: bool = False) -> PyTree:
        """Columns to elements; one number where all elements share it."""
        if not always and (w == w[..., :1]).all():
            return w[..., 0]
        parts = []
        for of in grid.of:
            same = (w[..., of.ravel()] == w[..., of.ravel()[:1]]).all()
            alone = same and not always
            parts.append(w[..., of.flat[0]] if alone else w[..., of])
        return parts[0] if grid.structure is None else grid.structure.unflatten(parts)

    level = levels(process, grid.times)[:3]
    weights = ("registers", "predictions", "basis", "noise", "bias")
    rows = rows._replace(
        level=Level(*(spread(w[:-1], always=True) for w in level)),
        **{n: jax.tree.map(spread, getattr(rows, n)) for n in weights},
    )
    end = Level(*(spread(w[-1], always=True) for w in level))
    assert made.start is not None  # `_checked` lets no other through
    one = made.start.x
    x = jax.tree.map(lambda w: one.reshape((-1,) + (1,) * (w.ndim - 3)), rows.registers)
    return Plan(rows, end, Start(x), made.reads)


def _waiting(plan: Plan, moves: np.ndarray) -> tuple[Plan, np.ndarray]:
    """An element's rows where it moves, idle ones elsewhere; and what it writes."""
    row, still = np.maximum(np.cumsum(moves) - 1, 0), ~moves[:, None]
    written, full = writes_of(plan)[row] & ~still, dense(plan)
    rows = jax.tree.map(lambda w: w[row], full.rows)
    rows = rows._replace(basis=np.where(still, [0.0, 1.0], rows.basis))
    lines = np.arange(plan.registers + 1)
    idle = len(lines) + np.append(lines[:-1], 0)  # all kept, the sample is register 0
    there = dataclasses.replace(full, rows=rows)
    return relined(there, rows.to, np.where(still, idle, lines)), written
