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
from ..guards import checked, must
from ..numerics import to_data
from ..typing import Array, Process
from .response import scalar, start_level

__all__ = ["BASES", "VARIABLES", "Conditions", "order_conditions"]

BASES = ("data", "noise", "velocity")
VARIABLES = ("half_log_snr", "rho", "time")
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)
_PANEL = 1.0  # half log-SNR per panel of the exact integral: 1e-15 for degree 4


class Conditions(NamedTuple):
    """Residuals of the order conditions; degree k = 0, 1, ... is the last axis.

    All are relative to sqrt(alpha^2 + sigma^2) at the level reached; NaN where a level
    has infinite half log-SNR, or a row leaves the sample or the point where it was.

    Attributes:
        basis, variable: what was a polynomial, and in what.
        total: the whole plan run from an exact start, (K,): warm-up errors included.
        step: of the sample after each row, from the exact one before it and exact
            evaluations, (rows, K): local errors.
        stage: likewise of each row's next point, where it is not the sample, (rows, K).
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


@checked
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
    if degrees < 1:
        raise must("degrees", ">= 1", degrees)
    if not tol > 0:
        raise must("tol", "> 0", tol)
    plan = scalar(plan, "order_conditions")
    test = _Test(plan, process, basis, variable, degrees)
    step, stage, total = _Comparison(plan, test).run()
    lines = plans.spell(plan)
    residuals = [step[i] for i, line in enumerate(lines) if line.moved]
    if lines[-1].point is not None:
        residuals.append(stage[-1])
    count = [_leading(r, tol) for r in residuals if not np.isnan(r[0])]
    return Conditions(basis, variable, total, step, stage, np.array(count, int))


class Place(NamedTuple):
    """A level, as numbers."""

    time: float
    alpha: float
    sigma: float

    @property
    def lam(self) -> float:
        """Half log-SNR."""
        with np.errstate(divide="ignore"):
            return float(np.log(self.alpha) - np.log(self.sigma))

    @property
    def size(self) -> float:
        """sqrt(alpha^2 + sigma^2)."""
        return float(np.hypot(self.alpha, self.sigma))


def _place(plan: plans.Plan, i: int) -> Place:
    """Level of row i, or of the sample."""
    level = plan.end if i == plan.length else plan.rows.level
    at = () if i == plan.length else i
    return Place(*(float(np.asarray(w)[at]) for w in level))


def _samples(plan: plans.Plan) -> list[Place]:
    """Where the sample stands before the first row and after each row.

    At the next evaluation's level where the point is the sample; unmoved inside a
    step; at the row's own level where a corrector has just moved it.
    """
    alpha, sigma = (float(w) for w in start_level(plan))
    first = _place(plan, 0)
    begun = plan.start is not None and plan.start.noise is not None
    found = [Place(first.time, alpha, sigma) if begun else first]
    for i, line in enumerate(plans.spell(plan)):
        if line.point is None:
            found.append(_place(plan, i + 1))
        else:
            found.append(_place(plan, i) if line.moved else found[-1])
    return found


def _noise_rates(plan: plans.Plan, where: list[Place]) -> np.ndarray:
    """tau^2 of each row's move of the sample and of the point, (rows, 2), from D = 0.

    With D = 0 an exact step multiplies x / sigma by e^{-tau^2 h}.
    """
    out = np.zeros((plan.length, 2))
    if not plan.stochastic:
        return out

    def rate(s: Place, t: Place, x: float, y: float) -> float:
        h = t.lam - s.lam
        if not np.isfinite(h) or h == 0 or x == 0:
            return 0.0
        ratio = y / x * s.sigma / t.sigma
        return float(-np.log(ratio) / h) if ratio > 0 else 0.0

    states = list(plans.walk(plan, lambda x, _: np.zeros_like(x), np.ones(1)))
    for i in range(plan.length):
        x, y = float(states[i].sample[0]), float(states[i + 1].sample[0])
        z = float(states[i + 1].registers[0][0])
        out[i, 0] = rate(where[i], where[i + 1], x, y)
        out[i, 1] = rate(where[i + 1], _place(plan, i + 1), y, z)
    return out


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
        places = [_place(plan, i) for i in range(plan.length + 1)]
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

    def polynomials(self, u: Array) -> np.ndarray:
        """(..., K)."""
        return ((np.asarray(u)[..., None] - self.mid) / self.half) ** self.powers

    def prediction(self, at: Place, x: np.ndarray) -> np.ndarray:
        """The data prediction D whose basis quantity is the polynomial."""
        if not np.isfinite(at.lam):
            return np.zeros(len(self.powers))
        p = self.polynomials(np.array(self._u(at)))
        rates: tuple = ()
        if self.basis == "velocity":
            rates = self.process.rates(np.float64(at.time))
        return to_data(self.basis, x, p, (at.alpha, at.sigma), rates)

    def flow(self, s: Place, t: Place, x: np.ndarray, tau2: float) -> np.ndarray:
        """The exact solution at t from x at s."""
        if s == t:
            return x
        if self.basis == "velocity":
            time = s.time + (t.time - s.time) * (_NODES + 1) / 2
            mass = _WEIGHTS * (t.time - s.time) / 2
            return x + mass @ self.polynomials(self._along(time, True))
        h = t.lam - s.lam
        panels = max(1, int(np.ceil(abs(h) / _PANEL)))
        part = ((np.arange(panels)[:, None] + (_NODES + 1) / 2) / panels).ravel()
        mass = np.tile(_WEIGHTS, panels) * h / (2 * panels) * (1 + tau2)
        p = self.polynomials(self._along(s.lam + h * part, False))
        if self.basis == "data":
            keep = t.sigma / s.sigma * np.exp(-tau2 * h)
            return keep * x + t.alpha * (
                (mass * np.exp((1 + tau2) * h * (part - 1))) @ p
            )
        drift = (mass * np.exp(-(s.lam + h * part))) @ p
        return t.alpha / s.alpha * x - t.alpha * drift

    def _along(self, at: np.ndarray, timed: bool) -> Array:
        """The polynomials' variable at times, or at half log-SNRs."""
        if self.variable == "time":
            return at if timed else self.process.half_log_snr_inverse(at)
        lam = self.process.half_log_snr(at) if timed else at
        return lam if self.variable == "half_log_snr" else np.exp(-lam)


class _Comparison:
    """The rows in words, from exact inputs and as they run, beside the exact path."""

    def __init__(self, plan: plans.Plan, test: _Test):
        self.plan, self.test = plan, test
        self.lines, self.where = plans.spell(plan), _samples(plan)
        self.tau2 = _noise_rates(plan, self.where)
        self.exact: list[np.ndarray] = []  # evaluations at exact points
        self.found: list[np.ndarray] = []  # those of the run

    def _evaluation(self, i: int, x: np.ndarray) -> np.ndarray:
        """What the method integrates, at row i and the point x."""
        here, (of_x, of_data) = _place(self.plan, i), self.plan.rows.basis[i]
        return of_x * x + of_data * self.test.prediction(here, x)

    @staticmethod
    def _sum(words: dict, x: np.ndarray, evaluations: list) -> np.ndarray:
        total = words.get("x", 0.0) * x
        for name, weight in words.items():
            if name.startswith("m"):
                total = total + weight * evaluations[-1 - int(name[1:])]
        return total

    def run(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Step and stage residuals from exact inputs, and the whole plan's."""
        plan, test, count = self.plan, self.test, len(self.test.powers)
        step, stage = np.full((2, plan.length, count), np.nan)
        total = np.full(count, np.nan)
        fresh = lambda level: np.full(count, level.size)  # noqa: E731
        exact = sample = point = asked = fresh(self.where[0])
        for i, line in enumerate(self.lines):
            old, new, after = self.where[i], self.where[i + 1], _place(plan, i + 1)
            self.exact.append(self._evaluation(i, asked))
            self.found.append(self._evaluation(i, point))
            true = self._sum(line.sample, exact, self.exact)
            sample = self._sum(line.sample, sample, self.found)
            if np.isfinite(old.lam) and np.isfinite(new.lam):
                exact = test.flow(old, new, exact, self.tau2[i, 0])
                if line.moved:
                    step[i] = (true - exact) / new.size
            elif np.isfinite(new.lam):  # from alpha = 0: begin where it is finite
                exact = sample = fresh(new)
            else:
                exact = true
            point, ahead = sample, exact
            if line.point is not None:
                point = self._sum(line.point, sample, self.found)
                ahead = self._sum(line.point, exact, self.exact)
            asked = self._asked(i, exact, (new, after))
            if asked is None:
                asked = ahead
                continue
            if line.point is not None:
                stage[i] = (ahead - asked) / after.size
            total = (point - asked) / after.size
        return step, stage, total

    def _asked(
        self, i: int, exact: np.ndarray, places: tuple[Place, Place]
    ) -> np.ndarray | None:
        """Row i's next point from an exact sample, None at an infinite level."""
        new, after = places
        if not (np.isfinite(new.lam) and np.isfinite(after.lam)):
            return None
        if self.lines[i].point is None:
            return exact
        return self.test.flow(new, after, exact, self.tau2[i, 1])
