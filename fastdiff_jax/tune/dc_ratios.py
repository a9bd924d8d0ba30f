"""Compensation ratios for DC-Solver: searched for one setting, predicted for others.

Greedy over the steps, with the ratios before it fixed: the ratio r_i minimises

    | x_{i+1}(r_i) - x*_{i+1} |^2

over a few samples, where x_{i+1} is the corrected state after step i and x* a fine
solution from the same noise. For settings not searched, `fit_cascade` on the ratios
found and `predict_ratios`. Zhao et al. 2024 (2409.03755), section 3.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from .. import engine
from ..engine.run import check_rows
from ..guards import bounded, checked, must, positive
from ..hooks import carry_of
from ..numerics import levels
from ..plan import Plan
from ..solvers import dc_solver, unipc
from ..states import floating
from ..trees import as_tree
from ..typing import Array, ArrayLike, Denoiser, Process, PyTree

__all__ = ["Search", "fit_cascade", "predict_ratios", "reference", "search"]

_SCALE, _STEPS = 12.0, 50.0  # the paper's units of guidance scale and step count
_SHAPE = (4, 3, 3)


class Search(NamedTuple):
    """What a search found.

    Attributes:
        ratios: one per step, (N,); 1 where there was nothing to choose.
        errors: mean squared deviation from the reference after each step, (N,).
        plain: the same at ratio 1 for the step, given the ratios before it, (N,).
    """

    ratios: np.ndarray
    errors: np.ndarray
    plain: np.ndarray


@checked
def reference(
    denoiser: Denoiser,
    process: Process,
    ts: ArrayLike,
    x: PyTree,
    *,
    refine: int = 20,
    solver: Callable[[Process, np.ndarray], Plan] | None = None,
    controls: PyTree = None,
) -> PyTree:
    """A fine solution read at the times of a grid.

    Args:
        denoiser: (x, context, carry) -> (data prediction, carry).
        process: the path.
        ts: times, decreasing, shape (N + 1,).
        x: noise at ts[0], leaves (B, ...).
        refine: steps inside each interval, equal in half log-SNR where that is finite
            at both ends, else in time.
        solver: (process, times) -> plan of one row per step; None: `unipc`.
        controls: values for the denoiser, one per interval, leading axis N.

    Returns:
        The state at ts[1], ..., ts[N], leaves (N, B, ...).

    Raises:
        ValueError: refine < 1.
    """
    if refine < 1:
        raise ValueError(f"refine must be >= 1, got {refine}.")
    lv = levels(process, ts)
    ts, lam = lv.time, lv.lam
    if ts.ndim != 1:
        raise must("ts", "1-D", ts)
    fine: list[Array] = [ts[:1]]
    for i in range(len(ts) - 1):
        ramp = np.arange(1, refine + 1) / refine
        if np.isfinite(lam[i : i + 2]).all():
            part = process.half_log_snr_inverse(lam[i] + ramp * (lam[i + 1] - lam[i]))
        else:
            part = ts[i] + ramp * (ts[i + 1] - ts[i])
        part[-1] = ts[i + 1]
        fine.append(part)
    times = np.concatenate(fine)
    made = (unipc if solver is None else solver)(process, times)
    if not isinstance(made, Plan):
        raise must("solver", "a function (process, ts) -> plan", solver)
    check_rows(controls, len(ts) - 1)
    rows = np.repeat(np.arange(len(ts) - 1), refine)
    if made.length != len(times) - 1:
        raise ValueError(
            f"solver must give one row per step, {len(times) - 1}, got {made.length}."
        )
    last, points = engine.sample(
        made,
        denoiser,
        x,
        controls=jax.tree.map(lambda w: w[rows], controls),
        collect=lambda _, info: info.point,
    )
    return jax.tree.map(
        lambda p, end: jnp.concatenate([p[refine::refine], end[None]]), points, last
    )


@checked
def search(
    denoiser: Denoiser,
    process: Process,
    ts: ArrayLike,
    x: PyTree,
    target: PyTree,
    *,
    iterations: int = 40,
    learning_rate: float = 0.1,
    bound: float | None = None,
    controls: PyTree = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Search:
    """Find DC-Solver's ratios for one grid, one denoiser and a few samples.

    Each ratio starts at 1 and takes `iterations` Adam steps on the deviation from the
    target after its step; the best ratio seen is kept, so no ratio is worse than 1 for
    its own step. One evaluation (and its reverse pass) per iteration.

    Args:
        denoiser: (x, context, carry) -> (data prediction, carry), differentiable.
        process: the path.
        ts: times, decreasing, shape (N + 1,).
        x: noise at ts[0], leaves (B, ...); the paper takes B = 10.
        target: states at ts[1..N], leaves (N, B, ...), see `reference`.
        iterations: Adam steps per ratio.
        learning_rate: of Adam.
        bound: keep the ratios within 1 +- bound, None for no limit.
        controls: per-row values for the denoiser, leading axis N.
        progress: called as (steps done, N).
        **options: of `solvers.dc_solver`, e.g. order, dc_order, variant.

    Returns:
        Search; its `ratios` go to `solvers.dc_solver(process, ts, ratios, **options)`.

    Raises:
        ValueError: a target without a state per step or with NaN, iterations < 1, or a
            learning rate or bound that is not > 0.
    """
    ts, x = levels(process, ts).time, floating(x)
    steps = len(ts) - 1
    bounded("iterations", iterations, 1)
    positive(learning_rate=learning_rate, bound=bound)
    check_rows(controls, steps)
    shapes = jax.tree.map(lambda v: (steps, *v.shape), x)
    if jax.tree.map(np.shape, target) != shapes:
        fix = "Make it with tune.dc_ratios.reference(denoiser, process, ts, x)."
        raise must("target", f"the state at each step, shapes {shapes}", target, fix)

    def table(ratios: Array) -> Plan:
        made = dc_solver(process, ts, ratios, **options)
        return dataclasses.replace(made, rows=made.rows._replace(controls=controls))

    first = table(np.full(steps, 0.5))
    live = _moves(table, first)
    walk = _Walk(denoiser, table, steps, bound, iterations, learning_rate)
    state = engine.init(first, x, carry=carry_of(denoiser, x))
    ratios, errors, plain = np.ones(steps), np.zeros(steps), np.zeros(steps)
    for i in range(steps):
        goal = jax.tree.map(lambda v, i=i: v[i], target)
        state, ratio, *found = walk(state, ratios, i, goal, bool(live[i]))
        ratios[i], errors[i], plain[i] = float(ratio), *map(float, found)
        if not np.isfinite(plain[i]):
            raise ValueError(
                f"target must be at a finite distance, and after step {i} it is not: "
                "is there a NaN in it, in x or in what the denoiser returns?"
            )
        if progress is not None:
            progress(i + 1, steps)
    return Search(ratios, errors, plain)


def _moves(table: Callable[[Array], Plan], made: Plan) -> np.ndarray:
    """Which ratios change the plan, (N,) bool."""
    other = table(np.full(made.length, 2.0))
    pairs = zip(jax.tree.leaves(made.rows), jax.tree.leaves(other.rows), strict=True)
    out = np.zeros(made.length, bool)
    for a, b in pairs:
        out |= (np.asarray(a) != np.asarray(b)).reshape(made.length, -1).any(axis=1)
    return out


class _Walk:
    """One step of the search, compiled once for all steps but the last."""

    def __init__(
        self,
        denoiser: Denoiser,
        table: Callable[[Array], Plan],
        steps: int,
        bound: float | None,
        iterations: int,
        learning_rate: float,
    ):
        self.denoiser, self.table, self.steps = as_tree(denoiser), table, steps
        self.bound, self.iterations = bound, iterations
        self.adam = optax.adam(learning_rate)
        self.compiled = jax.jit(self._walk, static_argnames=("last", "live"))

    def __call__(
        self, state: engine.State, ratios: Array, i: int, goal: PyTree, live: bool
    ) -> tuple:
        """(state after row i, ratio, its error, the error at ratio 1)."""
        last = i == self.steps - 1
        ratios = jnp.asarray(ratios, jnp.result_type(float))
        return self.compiled(
            self.denoiser, state, ratios, jnp.int32(i), goal, last=last, live=live
        )

    def _walk(
        self,
        denoiser: Any,
        state: engine.State,
        ratios: jax.Array,
        i: Array,
        goal: PyTree,
        *,
        last: bool,
        live: bool,
    ) -> tuple:
        one = jnp.ones((), ratios.dtype)

        def row(ratio: Array, at: Array) -> Any:
            rows = self.table(ratios.at[i].set(ratio)).rows
            return jax.tree.map(lambda w: jnp.asarray(w)[at], rows)

        after, info = engine.step(state, row(one, i), denoiser)
        # the evaluation does not depend on the ratio: do it once
        known = lambda *_: (info.denoised, after.carry)  # noqa: E731

        def loss(ratio: Array) -> Array:
            moved, _ = engine.step(state, row(ratio, i), known)
            end = moved.point
            if not last:
                end = engine.step(moved, row(ratio, i + 1), denoiser)[1].sample
            gaps = jax.tree.map(lambda a, b: jnp.abs(a - b) ** 2, end, goal)
            first, *rest = jax.tree.leaves(gaps)
            size = first.size + sum(v.size for v in rest)
            return sum((v.sum() for v in rest), first.sum()) / size

        if not live:
            error = loss(one)
            return after, one, error, error
        ratio, error, plain = self._minimise(loss, one)
        return engine.step(state, row(ratio, i), known)[0], ratio, error, plain

    def _minimise(
        self, loss: Callable[[Array], Array], one: Array
    ) -> tuple[Array, Array, Array]:
        """(best ratio, its loss, loss at 1)."""

        def ratio_of(w: Array) -> Array:
            return 1 + (w if self.bound is None else self.bound * jnp.tanh(w))

        slope = jax.value_and_grad(lambda w: loss(ratio_of(w)))

        def improve(each: tuple, _: None) -> tuple[tuple, Array]:
            w, memory, best, lowest = each
            value, gradient = slope(w)
            better = value < lowest
            best = jnp.where(better, w, best)
            lowest = jnp.where(better, value, lowest)
            with jax.numpy_dtype_promotion("standard"):  # optax mixes float and int
                update, memory = self.adam.update(gradient, memory)
            return (w + update, memory, best, lowest), value

        zero = jnp.zeros_like(one)
        plain = loss(one)
        start = (zero, self.adam.init(zero), zero, plain)
        found, _ = jax.lax.scan(improve, start, None, length=self.iterations + 1)
        return ratio_of(found[2]), found[3], plain


# ---------------------------------------------- ratios of settings not searched


def _features(steps: int, scale: float, first: int) -> np.ndarray:
    """Monomials u^p c^{2-j} n^{2-q} of the steps k > first, (N - first, 4, 3, 3)."""
    u = np.arange(first + 1, steps + 1) / steps
    c, n = scale / _SCALE, steps / _STEPS
    powers = u[:, None] ** np.arange(4), c ** np.arange(2.0, -1, -1)
    return np.einsum("kp,j,q->kpjq", *powers, n ** np.arange(2.0, -1, -1))


@checked
def fit_cascade(
    table: Sequence[tuple[float, Sequence[float]]], *, dc_order: int = 2
) -> np.ndarray:
    """Cascade polynomial regression on searched ratios, by one least-squares fit.

    The degree in scale (steps) is at most the number of distinct scales (step counts)
    in the table minus one, so that what was never varied has no influence.

    Args:
        table: pairs (guidance scale, ratios of shape (N,)), of any N.
        dc_order: d of the searches; the first d ratios are not fitted.

    Returns:
        theta, (4, 3, 3): power of u, then of c and n from the second down to 0.

    Raises:
        ValueError: no ratio to fit.

    Example:
        >>> theta = fit_cascade([(7.5, [1, 1, 0.9, 0.8]), (7.5, [1, 1, 0.9, 0.8, 0.7])])
        >>> predict_ratios(theta, 4, 7.5).shape
        (4,)
    """
    bounded("dc_order", dc_order, 0)
    pairs = [(float(g), np.asarray(r, np.float64)) for g, r in table]
    pairs = [(g, r) for g, r in pairs if len(r) > dc_order]
    if not pairs:
        rule = f"pairs (scale, ratios of shape (N,)), some N > dc_order = {dc_order}"
        raise must("table", rule, table)
    rows = np.concatenate([_features(len(r), g, dc_order) for g, r in pairs])
    wanted = np.concatenate([r[dc_order:] for _, r in pairs])
    use = np.ones(_SHAPE, bool)
    use[:, : 2 - min(2, len({g for g, _ in pairs}) - 1)] = False
    use[:, :, : 2 - min(2, len({len(r) for _, r in pairs}) - 1)] = False
    theta = np.zeros(_SHAPE)
    theta[use] = np.linalg.lstsq(rows[:, use], wanted, rcond=None)[0]
    return theta


@checked
def predict_ratios(
    theta: ArrayLike, steps: int, scale: float = 1.0, *, dc_order: int = 2
) -> np.ndarray:
    """Ratios of a setting from the regression; 1 for the first `dc_order` steps.

    Args:
        theta: from `fit_cascade`, (4, 3, 3).
        steps: N.
        scale: guidance scale.
        dc_order: d, as in the fit.

    Returns:
        Ratios, (N,).

    Raises:
        ValueError: theta of another shape, or steps < 1.
    """
    theta = np.asarray(theta, np.float64)
    if theta.shape != _SHAPE:
        raise ValueError(f"theta must have shape {_SHAPE}, got {theta.shape}.")
    bounded("steps", steps, 1)
    bounded("dc_order", dc_order, 0)
    ratios = np.ones(steps)
    found = np.einsum("kpjq,pjq->k", _features(steps, scale, dc_order), theta)
    ratios[dc_order:] = found[: max(0, steps - dc_order)]
    return ratios
