"""Tables given as arrays: every step linear in x_T and in all evaluations so far.

    x_{i+1} = w_i x_T + sum_{j <= i} W_ij m_j

OLSS fits w, W by least squares to a teacher with m = E (Duan et al. 2023, 2305.14677);
bespoke non-stationary solvers learn them, and the times, with m = dx/dt
(Shaul et al. 2024, 2403.01329). Every deterministic linear sampler has this form:
`unroll` writes a plan in it.
"""

from typing import NamedTuple

import jax
import numpy as np

from ... import plan
from ...guards import checked
from ...numerics import as_float, levels
from ...typing import Array, ArrayLike, Finite, Process
from ..registry import solver

__all__ = ["Unrolled", "bespoke", "olss", "unroll"]

PREDICTIONS = ("data", "noise", "velocity")


class Unrolled(NamedTuple):
    """x_{i+1} = state_i x_T + sum_j weights_ij m_j.

    Attributes:
        times: of the evaluations and of the sample, (N + 1,).
        state: weights of x_T, (N,).
        weights: of the evaluations, lower triangular, (N, N).
    """

    times: Array
    state: Array
    weights: Array


@solver(
    order=1,
    paper="Duan 2023, 2305.14677",
    needs="fitted weights of x_T and of the evaluations",
)
def olss(
    process: Process,
    ts: ArrayLike,
    state: Finite,
    weights: Finite,
    *,
    prediction: str = "noise",
) -> plan.Plan:
    """A plan from its unrolled weights. Keeps x_T and all N evaluations.

    Args:
        process: the path.
        ts: times of the evaluations and of the sample, non-increasing, (N + 1,).
        state: w, weights of x_T, (N,). JAX arrays stay traced: fit them.
        weights: W, (N, N), row i on the evaluations 0..i, in order of time.
        prediction: what m is: 'data', 'noise' (OLSS), or 'velocity' (dx/dt).

    Returns:
        A plan of N rows and N + 1 registers. Its order is that of the weights.

    Raises:
        ValueError: another prediction, wrong shapes, weights on later evaluations.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> known = fd.solvers.unipc(process, fd.grids.log_snr(process, 6))
        >>> olss(process, *unroll(known)).nfe
        6
    """
    lv = levels(process, ts)
    xp, (state, weights) = as_float(state, weights)
    n = lv.steps
    if state.shape != (n,) or weights.shape != (n, n):
        raise ValueError(
            f"{n} steps need state ({n},) and weights ({n}, {n}), got {state.shape} "
            f"and {weights.shape}."
        )
    if prediction not in PREDICTIONS:
        raise ValueError(
            f"prediction must be one of {', '.join(PREDICTIONS)}; got {prediction!r}."
        )
    if isinstance(weights, np.ndarray) and np.triu(weights, 1).any():
        i, j = (int(k) for k in np.argwhere(np.triu(weights, 1))[0])
        raise ValueError(
            f"weights[{i}, {j}] must be 0: step {i} knows evaluations 0..{i}. Newest "
            "first? Reverse each row's first i + 1 entries."
        )
    x, made = plan.register(1), lv.starts
    known = plan.basis_of(made, prediction, process)
    m, row = plan.evaluation(made, known), np.arange(n)
    move = state * x + weights[row, row] * m
    for j in range(n - 1):  # register 2 + j holds evaluation j
        move = move + xp.where(row > j, weights[:, j], 0.0) * plan.register(2 + j)
    writes = [(0, move), (np.minimum(2 + row, max(n, 2)), m)]
    return plan.build(
        made, lv.end, writes[: min(n, 2)], basis=known, start={1: plan.register(0)}
    )


@solver(
    order=1,
    paper="Shaul 2024, 2403.01329",
    needs="learned weights of x_T and of the velocities",
)
def bespoke(
    process: Process, ts: ArrayLike, state: Finite, weights: Finite
) -> plan.Plan:
    """A bespoke non-stationary solver: `olss` on velocities dx/dt, learnable times.

    Args:
        process: the path; its clock is the velocity's.
        ts: times, (N + 1,); JAX arrays stay traced.
        state: a, weights of x_T, (N,).
        weights: b, weights of the velocities, (N, N), lower triangular.

    Returns:
        A plan of N rows.

    Raises:
        ValueError: as `olss`.

    Example:
        >>> import fastdiff_jax as fd
        >>> flow = fd.processes.flow()
        >>> start = fd.solvers.euler(flow, fd.grids.uniform(flow, 4))
        >>> table = unroll(start, flow, prediction="velocity")
        >>> bool((abs(table.state - 1) < 1e-12).all())
        True
    """
    return olss(process, ts, state, weights, prediction="velocity")


@checked
def unroll(
    known: plan.Plan, process: Process | None = None, *, prediction: str = "noise"
) -> Unrolled:
    """A plan's weights on x_T and on each evaluation: what `olss` takes.

    `olss(process, *unroll(plan))` draws the same samples.

    Args:
        known: a deterministic plan of scalar NumPy weights on one prediction.
        process: needed for 'velocity'.
        prediction: of the result, whatever basis the plan integrates in.

    Returns:
        Times, weights of x_T and weights of the evaluations, one row per evaluation.

    Raises:
        ValueError: noise, biases, several predictions, padding, weights that are not
            scalar NumPy arrays, or a prediction that does not exist at a row.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> ddim = fd.solvers.ddim(process, fd.grids.log_snr(process, 5))
        >>> unroll(ddim).weights.shape
        (5, 5)
    """
    if prediction not in PREDICTIONS:
        raise ValueError(
            f"prediction must be one of {', '.join(PREDICTIONS)}; got {prediction!r}."
        )
    _check_plain(known)
    level, n = known.rows.level, known.length
    basis = plan.basis_of(level, prediction, process)
    unit, points = np.eye(n + 1), []

    def data(x: np.ndarray, i: int) -> np.ndarray:
        points.append(x)  # m_i = u x + w D: what D is, if m_i is the unit vector
        return (unit[i + 1] - basis.point[i] * x) / basis.data[i]

    points.append(plan.replay(known, data, unit[0]))
    after = np.stack(points[1:])
    times = np.append(level.time, known.end.time)
    return Unrolled(times, after[:, 0], after[:, 1:])


def _check_plain(known: plan.Plan) -> None:
    """Raise ValueError if a plan is more than scalar weights on x_T and D."""
    rows, start = known.rows, known.start
    whole = (rows.registers, rows.predictions, start)
    plain = all(isinstance(w, np.ndarray) for w in jax.tree.leaves(whole))
    biases = (rows.bias, start and start.bias)
    if (
        known.stochastic
        or known.predictions != 1
        or rows.active is not None
        or not plain
        or np.ndim(rows.registers) != 3
        or any(b is not None and np.any(b) for b in biases)
    ):
        raise ValueError(
            "unroll needs a deterministic plan of scalar NumPy weights on one "
            "prediction, without biases or padding."
        )
