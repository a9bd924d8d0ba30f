"""USF: every choice of an exponential multistep sampler, taken step by step.

    x_t = E x_s + G [P_1 m_s + R P_2 h f' + P_3 h^2 f'' + P_4 h^3 f''']

with h = lambda_t - lambda_s, P_k = h phi_k(chi h), each derivative a difference of
stored evaluations, and R a relaxation of the first. m = D: E = sigma_t / sigma_s,
G = alpha_t, chi = -1; m = E: E = alpha_t / alpha_s, G = -sigma_t, chi = +1. Liu et al.
2023 (2312.07243): the search space of S^3.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ... import plan
from ...numerics import Levels, levels, namespace, phi
from ...typing import ArrayLike, Process
from ..registry import solver
from ._usf import (
    MAX_ORDER,
    PREDICTIONS,
    Decision,
    Schedule,
    node_sets,
    repair,
    usf_schedule,
    validate,
)

__all__ = ["Decision", "Schedule", "repair", "usf", "usf_schedule"]


@solver(
    order=1,
    paper="Liu 2023, 2312.07243",
    needs="a schedule of decisions, usf_schedule(ts)",
)
def usf(
    process: Process, schedule: Schedule, *, ts: ArrayLike | None = None
) -> plan.Plan:
    """The plan of a schedule: one evaluation per row. Order: the lowest of its steps'.

    Steps in data and in noise prediction mix freely: both D_j and
    E_j = (x_j - alpha_j D_j) / sigma_j of an evaluation are stored where both are
    read, and then x_j = alpha_j D_j + sigma_j E_j needs no place of its own.

    Args:
        process: the path.
        schedule: the decisions, see `usf_schedule` and `Schedule.from_dict`.
        ts: times in place of the schedule's, (N + 1,); JAX arrays give traced weights.

    Returns:
        A plan of one row per decision. A step into sigma = 0 is of order 1, and a node
        at an infinite half log-SNR, or at a level used already, drops out.

    Raises:
        ValueError: an illegal choice (the row is named), a noise-prediction step from
            alpha = 0, or times that increase.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> s = usf_schedule(fd.grids.log_snr(process, 6), relaxation="dpmsolver-2")
        >>> usf(process, s.change(3, prediction="noise")).nfe
        6
    """
    validate(schedule)
    lv = levels(process, schedule.times if ts is None else ts)
    rows = schedule.rows
    if lv.time.shape != (len(rows) + 1,):
        raise ValueError(
            f"ts must have {len(rows) + 1} times, one more than the schedule has rows; "
            f"got shape {lv.time.shape}."
        )
    store = _store(rows)
    for i, row in enumerate(rows):
        if row.prediction == "noise":  # alpha = 0 fails here, by name
            lv.at(slice(i + 1 - row.start, i + 2 - row.start)).require("noise")
    made = _assemble(lv, rows, store)
    plan.self_check(made, lv, store.kinds[0])
    return made


# ---------------------------------------------------------------------- the weights


class _Grid(NamedTuple):
    """The levels and the steps' integrals, one number each: rows differ in kind."""

    alpha: list
    sigma: list
    lam: list
    h: list  # length of each step, from its own start point
    moments: list  # P_1 .. P_5 of each step


def _grid(lv: Levels, rows: Sequence[Decision]) -> _Grid:
    xp = namespace(lv.lam)
    s = np.asarray([i + 1 - row.start for i, row in enumerate(rows)])
    chi = np.asarray([-1.0 if row.prediction == "data" else 1.0 for row in rows])
    lo, hi = lv.lam[s], lv.lam[1:]
    h = xp.where(lo == hi, 0.0, hi - xp.where(lo == hi, 0.0, lo))
    finite = xp.where(xp.isinf(h), 1.0, h)
    z = xp.asarray(chi, dtype=h.dtype)
    first = z * xp.expm1(z * xp.where(xp.isinf(h) & (z > 0), 1.0, h))
    # P_2 tends to 1 in data prediction; nothing else is read of an infinite step
    more = [
        xp.where(xp.isinf(h), 1.0, finite * phi(k, z * finite))
        for k in range(2, MAX_ORDER + 2)
    ]
    moments = [list(p) for p in zip(first, *more, strict=True)]
    return _Grid(list(lv.alpha), list(lv.sigma), list(lv.lam), list(h), moments)


def _relaxed(g: _Grid, i: int, chi: int, relaxation: str, slope: float) -> Any:
    """R P_2 of step i; it may be infinite where the step is."""
    h, (p1, p2, *_) = g.h[i], g.moments[i]
    if relaxation == "linear" and slope:
        return p2 * (1 + slope * h)
    if relaxation == "unipc-bh1":
        return h / 2
    if relaxation in ("dpmsolver-2", "unipc-bh2"):
        return p1 / 2
    if relaxation.endswith("exp"):  # expm1(chi h) = chi P_1
        return p2 * (1 + (chi if relaxation == "+.5exp" else -chi) * p1 / 2)
    return p2


def _weights(g: _Grid, row: Decision, i: int, ahead: bool) -> dict[int, Any]:
    """Weight of each evaluation in step i; `ahead`: with the one at its end too."""
    s, t, lam, h = i + 1 - row.start, i + 1, g.lam, g.h[i]
    concrete = isinstance(h, np.generic)
    chi = -1 if row.prediction == "data" else 1
    sets, relaxation = node_sets(row, i), row.relaxation
    if concrete and h == 0:
        return {s: h}
    scale = g.alpha[t] if chi < 0 else -g.sigma[t]
    if chi < 0:
        weights = {s: scale * g.moments[i][0]}
    else:  # finite at sigma_t = 0
        weights = {s: g.sigma[t] - g.alpha[t] / g.alpha[s] * g.sigma[s]}
    if ahead:
        everything = sorted({j for nodes in sets for j in nodes})
        sets = [(t, *nodes) for nodes in (*sets, everything)]
        relaxation = row.corrector_relaxation
    for n, nodes in enumerate(sets, 1):
        if concrete:
            nodes = _usable(lam, s, t, nodes)
        if len(nodes) < n:
            continue
        p = g.moments[i][n]
        if n == 1:
            p = _relaxed(g, i, chi, relaxation, row.slope)
        factor = scale * p
        if concrete and not np.isfinite(factor):
            continue
        r = [1.0 if j == t else (lam[j] - lam[s]) / h for j in nodes]
        for j, w in zip(nodes, _difference(r, n), strict=True):
            weights[j] = weights.get(j, 0.0) + factor * w
            weights[s] = weights[s] - factor * w
    return weights


def _difference(r: Sequence[Any], n: int) -> list[Any]:
    """Weights of m_j - m_s in h^n times the n-th derivative at the start point.

    The polynomial through m_s at 0 and m_j at r_j: w_j is n! times the coefficient of
    r^n in its basis r / r_j prod_k (r - r_k) / (r_j - r_k).
    """
    weights = []
    for j, here in enumerate(r):
        terms = [1 / here]  # coefficients of r^1, r^2, ...
        for k, other in enumerate(r):
            if k != j:
                low, high = [-other * c for c in terms] + [0.0], [0.0, *terms]
                pairs = zip(low, high, strict=True)
                terms = [(a + b) / (here - other) for a, b in pairs]
        weights.append(math.factorial(n) * terms[n - 1])
    return weights


def _usable(lam: Sequence[Any], s: int, t: int, nodes: Sequence[int]) -> list[int]:
    """Nodes at finite levels of their own; the step's end, if asked for, first."""
    kept: list[int] = []
    for j in nodes:
        finite = np.isfinite([lam[j], lam[s], lam[t]]).all()
        own = lam[j] not in [lam[k] for k in (s, *kept)]
        if (j == t and np.isfinite(lam[t])) or (finite and own):
            kept.append(j)
    return kept


# --------------------------------------------------------------------- the history


class _Store(NamedTuple):
    """Which register holds what: a ring per kind of evaluation, and one of states."""

    kinds: tuple[str, ...]
    reach: int  # evaluations kept
    states: int  # states kept; 0: they follow from D and E

    def place(self, kind: str, j: int) -> int:
        """The register of evaluation j, or of the state that row j starts from."""
        if kind == "state":
            return 1 + len(self.kinds) * self.reach + j % self.states
        return 1 + self.kinds.index(kind) * self.reach + j % self.reach

    def held(self, kind: str, j: int) -> plan.Form:
        """What that register holds."""
        return plan.register(self.place(kind, j))

    def state(self, g: _Grid, j: int) -> plan.Form:
        """The state of row j, linear in the registers."""
        if self.states:
            return self.held("state", j)
        data, noise = (self.held(kind, j) for kind in PREDICTIONS)
        return g.alpha[j] * data + g.sigma[j] * noise


def _store(rows: Sequence[Decision]) -> _Store:
    kinds = tuple(k for k in PREDICTIONS if any(r.prediction == k for r in rows))
    reach = states = 1
    for i, row in enumerate(rows):
        oldest = [i - j for nodes in node_sets(row, i) for j in nodes]
        reach = max(reach, row.start, *(k + 1 for k in oldest))
        states = max(states, row.start)
    # a corrected state is not the point that was evaluated
    corrected = any(r.corrector != "none" for r in rows[:-1])
    return _Store(kinds, reach, states if corrected or len(kinds) == 1 else 0)


def _assemble(lv: Levels, rows: Sequence[Decision], store: _Store) -> plan.Plan:
    """Row by row: what is stored, and where the step leads."""
    g, first = _grid(lv, rows), store.kinds[0]
    x, data = plan.register(0), plan.prediction()
    lines, places = [], []

    def stepped(i: int, state: plan.Form, new: Mapping[tuple, plan.Form]) -> plan.Form:
        """Where step i leads, with what this row has found at first hand."""
        row, s = rows[i], i + 1 - rows[i].start
        scale = g.sigma if row.prediction == "data" else g.alpha
        total = scale[i + 1] / scale[s] * state
        ahead = (row.prediction, i + 1) in new
        for j, w in _weights(g, row, i, ahead).items():
            key = (row.prediction, j)
            total = total + w * (new[key] if key in new else store.held(*key))
        return total

    def from_(i: int, here: plan.Form, own: Mapping[str, plan.Form]) -> plan.Form:
        """The state that step i starts from."""
        j = i + 1 - rows[i].start
        if j < i:
            return store.state(g, j)
        if store.states:
            return here
        return g.alpha[i] * own["data"] + g.sigma[i] * own["noise"]

    for i in range(len(rows)):
        noise = (1 / g.sigma[i]) * x - (g.alpha[i] / g.sigma[i]) * data
        own = {k: data if k == "data" else noise for k in store.kinds}
        new = {(kind, i): form for kind, form in own.items()}
        here = x
        if i and rows[i - 1].corrector == "pseudo":
            here = stepped(i - 1, store.state(g, i - rows[i - 1].start), new)
        point = stepped(i, from_(i, here, own), new)
        stored = {store.place(kind, i): own[kind] for kind in store.kinds}
        if store.states:
            stored[store.place("state", i)] = here
        lines.append([point, *stored.values()])
        places.append([0, *stored])
    forms = [_column([line[w] for line in lines], lv) for w in range(len(lines[0]))]
    level, places = lv.starts, np.asarray(places, np.int32)
    begin = {store.place("state", 0): x} if store.states else {}
    return plan.build(
        level,
        lv.end,
        list(zip(places.T, forms, strict=True)),
        basis=None if first == "data" else plan.basis_of(level, first),
        start=begin,
    )


def _column(forms: Sequence[plan.Form], lv: Levels) -> plan.Form:
    """One form of weights by the row, out of one form of numbers per row."""
    xp = namespace(lv.lam)
    parts = sorted({part for form in forms for part in form.parts})
    zero = lv.lam.dtype.type(0) if xp is np else xp.zeros((), lv.lam.dtype)
    return plan.Form(
        {p: xp.stack([f.parts.get(p, 0.0) + zero for f in forms]) for p in parts}
    )
