"""Where a plan's state stands: the level of its anchor and point after each row."""

from typing import NamedTuple

import numpy as np

from .. import plan as plans
from .linear import start_level, walk

__all__ = [
    "Place",
    "anchors",
    "copies",
    "from_point",
    "moves",
    "noise_rates",
    "place",
    "pure",
]


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


def place(plan: plans.Plan, i: int) -> Place:
    """Level of row i, or of the sample."""
    level = plan.end if i == plan.length else plans.Level(*(w[i] for w in plan.rows[1]))
    return Place(*(float(w) for w in level))


def _zero(weights: object, i: int) -> bool:
    return weights is None or not np.any(np.asarray(weights)[i])


def pure(plan: plans.Plan, i: int) -> bool:
    """Whether row i's point is its anchor, at most moved along the forward process."""
    p = plan.rows.predict
    return _zero(p.history, i) and _zero(p.register, i) and _zero(p.bias, i)


def moves(plan: plans.Plan, i: int) -> bool:
    """Whether row i moves the anchor."""
    a = plan.rows.advance
    others = (a.history, a.point, a.evaluation, a.noise, a.register, a.bias)
    return bool(a.anchor[i] != 1) or not all(_zero(w, i) for w in others)


def from_point(plan: plans.Plan, i: int) -> bool:
    """Whether row i steps from its point (after churn, say), not from the anchor."""
    a = plan.rows.advance
    return bool(a.anchor[i] == 0 and a.point[i] != 0)


def copies(plan: plans.Plan, i: int) -> bool:
    """Whether row i accepts its point as the anchor, uncorrected."""
    a = plan.rows.advance
    others = (a.anchor, a.history, a.evaluation, a.noise, a.register, a.bias)
    return bool(a.point[i] == 1) and all(_zero(w, i) for w in others)


def anchors(plan: plans.Plan) -> list[Place]:
    """Where the anchor is before the first row and after each row.

    At the next evaluation's level if that is where the row's point comes from without
    the history (multistep rows, a stage method's last stage); unmoved if `advance`
    does nothing (stages); else at the row's own level (a corrector).
    """
    alpha, sigma = (float(w) for w in start_level(plan))
    first = place(plan, 0)
    s = plan.start
    same = s is None or (float(s.anchor) == float(s.point) and not s.point_noise)
    found = [first if same else Place(first.time, alpha, sigma)]
    for i in range(plan.length):
        if pure(plan, i):
            found.append(_before_predict(plan, i))
        else:
            found.append(place(plan, i) if moves(plan, i) else found[-1])
    return found


def _before_predict(plan: plans.Plan, i: int) -> Place:
    """The next level with the forward move of `predict` undone."""
    p, after = plan.rows.predict, place(plan, i + 1)
    noise = 0.0 if p.noise is None else float(p.noise[i])
    scale = float(p.anchor[i]) or 1.0
    if noise == 0 and scale == 1:
        return after
    sigma = np.sqrt(max(after.sigma**2 - noise**2, 0.0)) / scale
    return Place(after.time, after.alpha / scale, float(sigma))


def noise_rates(plan: plans.Plan, where: list[Place]) -> np.ndarray:
    """tau^2 of each row's move of the anchor and of the point, (rows, 2), from D = 0.

    With D = 0 an exact step multiplies x / sigma by e^{-tau^2 h}.
    """
    out = np.zeros((plan.length, 2))
    if not plan.stochastic:
        return out
    states = list(walk(plan, lambda x, _: np.zeros_like(x), np.ones(1)))

    def rate(s: Place, t: Place, x: float, y: float) -> float:
        h = t.lam - s.lam
        if not np.isfinite(h) or h == 0 or x == 0:
            return 0.0
        ratio = y / x * s.sigma / t.sigma
        return float(-np.log(ratio) / h) if ratio > 0 else 0.0

    for i in range(plan.length):
        before, after = states[i], states[i + 1]
        y, z = float(after.anchor[0]), float(after.point[0])
        if from_point(plan, i):
            origin, x = place(plan, i), float(before.point[0])
        else:
            origin, x = where[i], float(before.anchor[0])
        out[i, 0] = rate(origin, where[i + 1], x, y)
        out[i, 1] = rate(where[i + 1], place(plan, i + 1), y, z)
    return out
