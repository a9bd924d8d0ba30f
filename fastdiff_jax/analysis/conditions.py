"""Order conditions: a plan on polynomial predictions, beside the exact integral.

In half log-SNR lambda, with tau = 0 for the ODE and tau^2 the noise of an SDE, the
(mean of the) exact solution moves from s to t, h = lambda_t - lambda_s, as

    x_t = (sigma_t/sigma_s) e^{-tau^2 h} x_s
          + alpha_t int (1 + tau^2) e^{-(1 + tau^2)(lambda_t - l)} D(l) dl
    x_t = (alpha_t/alpha_s) x_s - alpha_t int (1 + tau^2) e^{-l} E(l) dl
    x_t = x_s + int v(t) dt

where D, E or v is a given function of the level alone. A method that interpolates
that quantity by polynomials of degree p - 1 is exact for degrees below p; another of
order p leaves a step residual of O(h^{p+1}) that halving the steps reveals.
"""

from typing import NamedTuple

import numpy as np

from .. import plan as plans
from ..typing import Process
from .linear import HostState, advance, begin, scalar
from .places import Place, anchors, copies, from_point, moves, noise_rates, place, pure

__all__ = ["BASES", "VARIABLES", "Conditions", "order_conditions"]

BASES = ("data", "noise", "velocity")
VARIABLES = ("half_log_snr", "rho", "time")
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)
_PANEL = 1.0  # half log-SNR per panel of the exact integral: 1e-15 for degree 4


class Conditions(NamedTuple):
    """Residuals of the order conditions; degree k = 0, 1, ... is the last axis.

    All are relative to sqrt(alpha^2 + sigma^2) at the level reached; NaN where a level
    has infinite half log-SNR, or a row leaves the anchor or the point where it was.

    Attributes:
        basis, variable: what was a polynomial, and in what.
        total: the whole plan run from an exact start, (K,): warm-up errors included.
        step: of each row's new anchor from exact inputs, (rows, K): local errors. Where
            the anchor is the point the row before predicted, that prediction's.
        stage: of each row's next point from an exact anchor and history, (rows, K).
        degrees: how many leading degrees hold in each step, (steps,); steps from or to
            an infinite half log-SNR left out. A settled step of order p has p.
    """

    basis: str
    variable: str
    total: np.ndarray
    step: np.ndarray
    stage: np.ndarray
    degrees: np.ndarray

    def holds(self, tol: float = 1e-9) -> int:
        """How many leading degrees the whole plan integrates exactly."""
        return _leading(self.total, tol)


def _leading(residuals: np.ndarray, tol: float) -> int:
    good = np.abs(residuals) < tol
    return len(good) if good.all() else int(np.argmin(good))


def order_conditions(
    plan: plans.Plan,
    process: Process,
    *,
    basis: str = "data",
    variable: str = "half_log_snr",
    degrees: int = 5,
    tol: float = 1e-9,
) -> Conditions:
    """Residuals for predictions ((u - u_mid) / (u_max - u_mid))^k, k < degrees.

    u is the half log-SNR, rho = sigma / alpha, or time, over the plan's finite levels.
    A stochastic plan is compared, in the mean, with the SDE whose tau in each step
    is the one that its weight on the state has.

    Args:
        plan: a plan of scalar weights.
        process: the path it was made for.
        basis: what is a polynomial: 'data' (D), 'noise' (E) or 'velocity' (dx/dt);
            'data' for a stochastic plan, whose tau its response to D = 0 tells.
        variable: in 'half_log_snr', 'rho' or 'time'.
        degrees: how many, K.
        tol: a residual below it holds; for `degrees` of the result.

    Returns:
        The residuals.

    Raises:
        ValueError: an unknown basis or variable, another basis than 'data' for a
            stochastic plan, weights that are not scalar, or fewer than two finite
            levels.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> ts = fd.grids.log_snr(process, 6)
        >>> plan = fd.solvers.unipc(process, ts, order=2, variant="exact",
        ...                         corrector=False, lower_order_final=False)
        >>> order_conditions(plan, process).degrees.tolist()
        [1, 2, 2, 2, 2, 2]
    """
    if basis not in BASES:
        raise ValueError(f"basis must be one of {BASES}, got {basis!r}.")
    if variable not in VARIABLES:
        raise ValueError(f"variable must be one of {VARIABLES}, got {variable!r}.")
    if plan.stochastic and basis != "data":
        raise ValueError(
            f"a stochastic plan has order conditions in basis='data', got {basis!r}."
        )
    plan = scalar(plan, "order_conditions")
    test = _Test(plan, process, basis, variable, degrees)
    step, stage, total = _compare(plan, test)
    where, last = anchors(plan), plan.length - 1
    ends = [i for i in range(plan.length) if where[i] != where[i + 1]]
    residuals = [step[i] for i in ends] + ([] if pure(plan, last) else [stage[last]])
    count = [_leading(r, tol) for r in residuals if not np.isnan(r[0])]
    return Conditions(basis, variable, total, step, stage, np.array(count, int))


class _Test:
    """The polynomial predictions, and what they integrate to."""

    def __init__(
        self,
        plan: plans.Plan,
        process: Process,
        basis: str,
        variable: str,
        degrees: int,
    ) -> None:
        self.process, self.basis, self.variable = process, basis, variable
        self.powers = np.arange(degrees)
        places = [place(plan, i) for i in range(plan.length + 1)]
        u = np.array([self._u(p) for p in places if np.isfinite(p.lam)])
        if len(u) < 2 or u.min() == u.max():
            raise ValueError(
                "order_conditions needs two levels of finite half log-SNR, got "
                f"{len(set(u.tolist()))}. Use a grid of more steps."
            )
        self.mid, self.half = (u.max() + u.min()) / 2, (u.max() - u.min()) / 2

    def _u(self, at: Place) -> float:
        rho = at.sigma / at.alpha if at.alpha else np.inf
        values = {"half_log_snr": at.lam, "rho": rho, "time": at.time}
        return float(values[self.variable])

    def polynomials(self, u: np.ndarray) -> np.ndarray:
        """(..., K)."""
        return ((np.asarray(u)[..., None] - self.mid) / self.half) ** self.powers

    def prediction(self, at: Place, x: np.ndarray) -> np.ndarray:
        """The data prediction D whose basis quantity is the polynomial."""
        if not np.isfinite(at.lam):
            return np.zeros(len(self.powers))
        p = self.polynomials(np.array(self._u(at)))
        if self.basis == "data":
            return p
        if self.basis == "noise":
            return (x - at.sigma * p) / at.alpha
        d_alpha, d_sigma = self.process.rates(np.float64(at.time))
        rate = d_sigma / at.sigma
        return (p - rate * x) / (d_alpha - at.alpha * rate)

    def flow(self, s: Place, t: Place, x: np.ndarray, tau2: float) -> np.ndarray:
        """The exact solution at t from x at s."""
        if s == t:
            return x
        if self.basis == "velocity":
            time = s.time + (t.time - s.time) * (_NODES + 1) / 2
            mass = _WEIGHTS * (t.time - s.time) / 2
            return x + mass @ self.polynomials(self._along(time=time))
        h = t.lam - s.lam
        panels = max(1, int(np.ceil(abs(h) / _PANEL)))
        part = ((np.arange(panels)[:, None] + (_NODES + 1) / 2) / panels).ravel()
        mass = np.tile(_WEIGHTS, panels) * h / (2 * panels) * (1 + tau2)
        p = self.polynomials(self._along(lam=s.lam + h * part))
        if self.basis == "data":
            keep = t.sigma / s.sigma * np.exp(-tau2 * h)
            return keep * x + t.alpha * (
                (mass * np.exp((1 + tau2) * h * (part - 1))) @ p
            )
        drift = (mass * np.exp(-(s.lam + h * part))) @ p
        return t.alpha / s.alpha * x - t.alpha * drift

    def _along(
        self, lam: np.ndarray | None = None, time: np.ndarray | None = None
    ) -> np.ndarray:
        """The polynomials' variable at half log-SNRs, or at times."""
        if self.variable == "time":
            return self.process.half_log_snr_inverse(lam) if time is None else time
        lam = self.process.half_log_snr(time) if lam is None else lam
        return lam if self.variable == "half_log_snr" else np.exp(-lam)


def _compare(
    plan: plans.Plan, test: _Test
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Step and stage residuals from exact inputs, and the whole plan's."""
    where = anchors(plan)
    tau2 = noise_rates(plan, where)
    count = len(test.powers)
    step, stage = np.full((2, plan.length, count), np.nan)
    total = np.full(count, np.nan)
    fresh = lambda level: np.full(count, level.size)  # noqa: E731
    exact = fresh(where[0])
    true = run = begin(plan, exact)
    for i in range(plan.length):
        here, new, after = place(plan, i), where[i + 1], place(plan, i + 1)
        old = where[i]
        if from_point(plan, i):
            old, exact = here, true.point
        true = advance(plan, i, true, test.prediction(here, true.point))
        run = advance(plan, i, run, test.prediction(here, run.point))
        if np.isfinite(old.lam) and np.isfinite(new.lam):
            exact = test.flow(old, new, exact, tau2[i, 0])
            if i and copies(plan, i):
                step[i] = stage[i - 1]
            elif moves(plan, i):
                step[i] = (true.anchor - exact) / new.size
        elif np.isfinite(new.lam):  # from alpha = 0: begin again where it is finite
            exact = fresh(new)
            run = run._replace(anchor=exact, point=exact)
        point = _exact_point(plan, test, i, exact, (new, after), tau2[i, 1])
        if point is not None:
            if not pure(plan, i):
                stage[i] = (true.point - point) / after.size
            total = (run.point - point) / after.size
            true = HostState(exact, point, *true[2:])
    return step, stage, total


def _exact_point(
    plan: plans.Plan,
    test: _Test,
    i: int,
    anchor: np.ndarray,
    places: tuple[Place, Place],
    tau2: float,
) -> np.ndarray | None:
    """Row i's next point from an exact anchor, None at an infinite half log-SNR."""
    new, after = places
    if not (np.isfinite(new.lam) and np.isfinite(after.lam)):
        return None
    if pure(plan, i):
        return plan.rows.predict.anchor[i] * anchor
    return test.flow(new, after, anchor, tau2)
