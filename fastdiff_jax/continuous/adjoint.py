"""Gradients through sampling in constant memory: the adjoint ODE, AdjointDPM.

The linear part of the probability-flow ODE goes into a change of variables, as in the
exponential solvers: with m = alpha, q = sigma / alpha, P = E (prediction 'noise'), or
m = sigma, q = alpha / sigma, P = D ('data'),

    y = x / m,      dy/dq = P(m y, t(q))
    a = dL/dy:      da/dq = -m (dP/dx)^T a
    g = dL/dtheta:  dg/dq = -(dP/dtheta)^T a

a and g are integrated from the last level back to the first and y is computed again on
the way, so nothing is stored per step. The paper's y has a constant factor
alpha_T more, which changes nothing. Pan et al. 2023 (2307.10711), section 3.

Both directions are tables that the one engine scans: y and a are the state, g is the
denoiser's carry. diffrax's `BacksolveAdjoint` is not used: it would invert q(t) at run
time in the state's precision where q spans four decades (the tables are float64 from
the host), it compiles per grid, and it keeps a Runge-Kutta stage of the size of the
parameters per evaluation where g needs one sum.
"""

import difflib

import jax
import jax.numpy as jnp
import numpy as np

from ..engine.step import level_of
from ..guards import checked
from ..hooks import accepts, answer, carry_of
from ..numerics import Levels, levels
from ..plan import Plan
from ..states import floating, like_state
from ..trees import concrete
from ..typing import ArrayLike, Context, Denoiser, Process, PyTree
from ._adjoint import Adjoint, hoisted, solve
from ._adjoint_tables import METHODS, back_plan, there_plan

__all__ = ["Adjoint", "adjoint_plan", "adjoint_run", "adjoint_sample"]


@checked
def adjoint_plan(
    process: Process,
    ts: ArrayLike,
    *,
    method: str = "heun",
    prediction: str = "noise",
    forward: Plan | None = None,
) -> Adjoint:
    """The tables that `adjoint_run` runs: a plan, and the adjoint's on the same grid.

    Args:
        process: the path.
        ts: times, decreasing strictly, shape (N + 1,), concrete. A last time of
            sigma = 0 is reached by x = D, one call, differentiated as it is.
        method: 'euler' (order 1, one call per step), 'midpoint', 'heun' (2, two
            calls), 'kutta3' (3, three), 'rk4' (4, four). The backward run makes as
            many vector-Jacobian products.
        prediction: 'noise' needs alpha > 0 on the grid; 'data' starts at alpha = 0,
            as the flow path at t = 1 does.
        forward: any deterministic plan from ts[0] to ts[-1] > the clean time instead
            of `method`'s, such as `fd.solvers.unipc(process, ts)`. The gradient's
            order is the lower of the two.

    Returns:
        An `Adjoint`, a pytree of arrays: new numbers do not recompile.

    Raises:
        ValueError: an unknown option, times that are traced, repeat or have trailing
            axes, alpha = 0 in noise prediction, or a `forward` that does not fit.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> made = adjoint_plan(process, fd.grids.log_snr(process, 10))
        >>> made.forward.nfe, made.backward.nfe
        (20, 20)
    """
    if method not in METHODS:
        near = difflib.get_close_matches(str(method), METHODS, 1, 0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"method must be one of {', '.join(METHODS)}, got {method!r}.{hint}"
        )
    lv, clean = _levels(process, ts, prediction)
    if forward is None:
        forward = there_plan(process, lv, method, prediction)
    else:
        _check_forward(forward, lv, clean)
    backward = back_plan(process, lv, method, prediction)
    return Adjoint(forward, backward, clean, prediction)


def _levels(process: Process, ts: ArrayLike, prediction: str) -> tuple[Levels, bool]:
    """Levels of the grid without a clean end, and whether it had one."""
    if isinstance(ts, jax.Array):
        if not concrete(ts):
            raise ValueError(
                "ts must be concrete: the adjoint holds the grid fixed. Build the "
                "plan outside of jit and grad, or differentiate fd.sample."
            )
        ts = np.asarray(ts, np.float64)
    lv = levels(process, ts)
    if lv.time.ndim > 1 or (np.diff(lv.time) >= 0).any():
        raise ValueError(
            "ts must be one decreasing sequence without repeats for the adjoint, got "
            f"shape {lv.time.shape}, smallest step {-np.diff(lv.time, axis=0).max():g}."
            " Every element shares one clock; use fd.sample for times per element."
        )
    clean = bool(lv.sigma[-1] == 0)
    if clean:
        lv = lv.take(slice(None, -1))
        if lv.steps < 1:
            raise ValueError(
                "ts must have a step before the clean time, got 2 times. Use a finer "
                "grid: a single step into sigma = 0 is x = D, jax.grad does it."
            )
    if prediction not in ("noise", "data"):
        raise ValueError(f"prediction must be 'noise' or 'data', got {prediction!r}.")
    if prediction == "noise" and (lv.alpha == 0).any():
        raise ValueError(
            "prediction='noise' does not exist where alpha = 0, as at time "
            f"{lv.time[lv.alpha == 0][0]:g}: y = x / alpha. Use prediction='data', or "
            "start the grid a little later."
        )
    return lv, clean


def _check_forward(forward: Plan, lv: Levels, clean: bool) -> None:
    if forward.stochastic:
        raise ValueError(
            "forward must be deterministic: the adjoint is of the ODE. This plan draws "
            "noise; use e.g. tau2=0.0, or differentiate fd.sample."
        )
    if clean:
        raise ValueError(
            "ts must end before the clean time where forward is given, got a last time "
            "with sigma = 0. Leave it out, here and in forward."
        )
    if forward.rows.controls is not None:
        raise ValueError(
            "forward must have no controls: the run backward evaluates at other rows. "
            "Put them into the denoiser as functions of context.time."
        )
    first, last = forward.rows.level.time[0], forward.end.time
    if np.shape(first) or not np.allclose([first, last], lv.time[[0, -1]], 1e-9, 0):
        raise ValueError(
            f"forward must go from ts[0]={lv.time[0]:g} to ts[-1]={lv.time[-1]:g}, got "
            f"{first} to {last}. Build it on the same ts."
        )


@checked
def adjoint_run(made: Adjoint, denoiser: Denoiser, x: PyTree) -> PyTree:
    """Run the tables of `adjoint_plan`; see `adjoint_sample`.

    Args:
        made: from `adjoint_plan`; may be an argument of a jitted function.
        denoiser: a stateless denoiser.
        x: start, at the grid's first level.

    Returns:
        The sample, a tree like x.

    Raises:
        ValueError: a denoiser with a state.
    """
    x = floating(x)
    if jax.tree.leaves(carry_of(denoiser, x)):
        raise ValueError(
            "the adjoint needs a stateless denoiser: the run backward has no carry to "
            "give it. Unwrap the caching, or differentiate fd.sample."
        )
    accepts(denoiser, made.forward)
    last = jax.tree.map(lambda v: v[0], made.backward.rows.level)
    last = level_of(last, x)  # where the run ends, in the state's dtype
    denoiser = hoisted(denoiser, x, last)
    end = solve(made, denoiser, x)
    if not made.clean:
        return end
    context = Context(jnp.int32(made.forward.length), *last)
    return like_state(end, answer(denoiser, end, context, None)[0])


@checked
def adjoint_sample(
    process: Process,
    denoiser: Denoiser,
    x: PyTree,
    ts: ArrayLike,
    *,
    method: str = "heun",
    prediction: str = "noise",
    forward: Plan | None = None,
) -> PyTree:
    """Draw samples, differentiable in memory that does not depend on the steps.

    The value is that of `fd.sample` with the method's plan. Under `jax.grad` the
    adjoint ODE gives the gradient with respect to x and to every floating array of the
    denoiser: parameters, guidance scales, conditions. It is the gradient of the ODE,
    to the order of the method, not of the plan: the two differ by the step error, and
    so does the y that is computed again from the y of the run. With few steps check it
    against `jax.grad` through `fd.sample(..., checkpoint=True)`, which is exact for
    the plan and stores one state per row.

    Args:
        process: the path.
        denoiser: (x, context, carry) -> (data prediction, carry), stateless; a pytree
            as those of `fd.models`. A plain function works too, but compiles anew
            where it closes over what is differentiated.
        x: noise at ts[0], see `fd.prior`.
        ts, method, prediction, forward: see `adjoint_plan`.

    Returns:
        The sample at ts[-1], a tree like x (float32 at least).

    Raises:
        ValueError: as `adjoint_plan`, or a denoiser with a state.

    Example:
        >>> import jax, fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> ts = fd.grids.log_snr(process, 20)
        >>> x = fd.prior(process, jax.random.key(0), (4, 2))
        >>> def loss(model):
        ...     return adjoint_sample(process, model, x, ts).sum()
        >>> slope = jax.grad(loss)(fd.models.gaussian(mean=[1.0, 2.0]))
        >>> bool(abs(slope.means - 4).max() < 0.1)  # the mean moves every sample
        True

    Reference: Pan et al. 2023 (2307.10711), AdjointDPM.
    """
    made = adjoint_plan(
        process, ts, method=method, prediction=prediction, forward=forward
    )
    return adjoint_run(made, denoiser, x)
