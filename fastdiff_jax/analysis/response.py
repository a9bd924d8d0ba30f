"""A plan on the host: row by row in float64, and its exact response to a linear model.

The rows run on the host as the engine scans over them (`plan.walk`), so what is said
here about a plan is said about the run itself.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from .. import plan as plans
from ..guards import checked, must, within
from ..plan.checks import HostRow
from ..typing import ArrayLike, Finite

__all__ = [
    "Response",
    "final",
    "numeric",
    "posterior_slope",
    "respond",
    "scalar",
    "start_level",
]


class Response(NamedTuple):
    """Sample = state x_T + mean m + constant + sum_j noise_j z_j + sum_i error_i e_i.

    Attributes:
        state: gain on the start x_T, (event).
        mean: gain on the data's mean m, (event).
        constant: what the plan's biases add, (event).
        noise: gain on each draw, (draws, event): the start's first, if it draws, then
            one per row. Zero rows if the plan is deterministic.
        error: gain on an error e_i added to row i's prediction, (rows, event).
    """

    state: np.ndarray
    mean: np.ndarray
    constant: np.ndarray
    noise: np.ndarray
    error: np.ndarray


def numeric(plan: plans.Plan) -> plans.Plan:
    """The plan with NumPy weights, checked to be what the host can run.

    Raises:
        ValueError: weights that are matrices, or trees matching a state's structure.
    """
    if plan.matrix:
        raise ValueError(
            "analysis needs weights that are numbers or arrays of the state's shape; "
            "this plan's are matrices (matrix=True). Analyse one channel at a time."
        )
    structure = jax.tree.structure(plan.rows.registers)
    if structure != jax.tree.structure(0):
        raise ValueError(
            f"analysis needs one array per weight, got a tree {structure}. Analyse one "
            "leaf at a time."
        )
    return jax.tree.map(np.asarray, plan)


def scalar(plan: plans.Plan, what: str) -> plans.Plan:
    """`numeric`, and one number per weight.

    Raises:
        ValueError: per-element weights.
    """
    plan = numeric(plan)
    shapes = {np.shape(plan.rows.registers)[3:], np.shape(plan.rows.level.alpha)[1:]}
    if shapes != {()}:
        raise ValueError(
            f"{what} needs one number per weight; this plan's weights have shapes "
            f"{sorted(shapes)}. Take one element of them first."
        )
    return plan


def draws_at_start(plan: plans.Plan) -> bool:
    """Whether the start needs a z."""
    return plan.start is not None and plan.start.noise is not None


def final(states: Iterator[HostRow]) -> HostRow:
    """The last state of a walk."""
    return deque(states, maxlen=1).pop()


@checked
def start_level(plan: plans.Plan) -> tuple[np.ndarray, np.ndarray]:
    """Alpha and sigma of x_T: row 0's, undone by the start move if there is one.

    Where the start is a step of the forward process (churn), x_0 = c x_T + n z:
    alpha_T = alpha_0 / c, sigma_T = sqrt(sigma_0^2 - n^2) / c.
    """
    alpha, sigma = (np.asarray(w[0]) for w in plan.rows.level[1:])
    s = plan.start
    if s is None:
        return alpha, sigma
    scale = np.where(s.x[0] == 0, 1.0, s.x[0])
    n = 0.0 if s.noise is None else s.noise[0]
    return alpha / scale, np.sqrt(np.maximum(sigma**2 - np.square(n), 0)) / scale


@checked
def posterior_slope(alpha: Finite, sigma: Finite, variance: Finite) -> np.ndarray:
    """dD/dx of the exact denoiser of N(m, v): alpha v / (alpha^2 v + sigma^2).

    Example:
        >>> float(posterior_slope(1.0, 1.0, 3.0))
        0.75
    """
    within("[0, inf)", variance=variance)
    alpha, sigma, v = (np.asarray(w, np.float64) for w in (alpha, sigma, variance))
    total = alpha**2 * v + sigma**2
    return np.where(total == 0, 0.0, alpha * v / np.where(total == 0, 1.0, total))


def _biased(plan: plans.Plan) -> bool:
    begin = plan.start
    return plan.rows.bias is not None or (begin is not None and begin.bias is not None)


@checked
def respond(
    plan: plans.Plan,
    variance: ArrayLike,
    *,
    slope: Callable[[int], ArrayLike] | None = None,
    noise: bool = True,
    error: bool = False,
) -> Response:
    """The exact response of a plan to the affine model D = m + k (x - alpha m).

    Unit inputs are run side by side; the plan is affine, so the outputs are its gains.

    Args:
        plan: any plan of scalar or per-element weights.
        variance: data variance v per direction, (event); sets k by `posterior_slope`.
        slope: row -> k, broadcastable to the event, instead of the posterior's.
        noise: compute the noise gains (else zero rows of them).
        error: compute the gains on errors of the prediction (else zero rows).

    Returns:
        The gains.

    Example:
        >>> import fastdiff_jax as fd
        >>> flow = fd.processes.flow()
        >>> plan = fd.solvers.ddim(flow, [1.0, 0.5, 0.0])
        >>> found = respond(plan, [0.0, 1.0])
        >>> found.state.tolist(), found.mean.tolist()
        ([0.0, 0.5], [1.0, 1.0])
    """
    plan = numeric(plan)
    v = _variance(variance)
    event, rows = v.shape, plan.length
    first = draws_at_start(plan)
    draws = rows + first if noise and plan.stochastic else 0
    faults = rows if error else 0
    width = 3 + draws + faults  # nothing, x_T, m, then the draws and the errors

    def unit(k: int) -> np.ndarray:
        out = np.zeros((width, *event))
        out[k] = 1.0
        return out

    mean = unit(2)

    def predict(x: np.ndarray, i: int) -> np.ndarray:
        alpha, sigma = plan.rows.level.alpha[i], plan.rows.level.sigma[i]
        k = posterior_slope(alpha, sigma, v) if slope is None else slope(i)
        found = mean + k * (x - alpha * mean)
        return found + unit(3 + draws + i) if faults else found

    def draw(i: int) -> np.ndarray | None:
        return unit(3 + first + i) if draws and i + first >= 0 else None

    out = final(plans.walk(plan, predict, unit(1), draw)).registers[0]
    if _biased(plan):
        out = np.concatenate([out[:1], out[1:] - out[:1]])
    return Response(out[1], out[2], out[0], out[3 : 3 + draws], out[3 + draws :])


def _variance(variance: ArrayLike) -> np.ndarray:
    v = np.atleast_1d(np.asarray(variance, np.float64))
    if not (np.isfinite(v) & (v >= 0)).all():
        raise must("variance", "finite and >= 0", variance)
    return v
