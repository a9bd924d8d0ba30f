"""Tables of the exponential Runge-Kutta methods, as combinations of phi functions.

With z = L h, the stages and the step of a method are

    u_i = e^{c_i z} u + h sum over terms (k, c, w) of phi_k(c z) sum_j w_j N_j
    u'  = e^z u + h sum_k phi_k(z) g_k,              g_k = sum_j G_kj N_j

so that g_k / (k - 1)! are the coefficients of the polynomial in theta that stands for N
along the step. Rows of G beyond the first sum to zero: a constant N is exact.
"""

from typing import NamedTuple

__all__ = ["Tableau", "cox_matthews", "euler", "krogstad", "two_stage", "three_stage"]

Term = tuple[int, float, tuple[float, ...]]
_HALF = 0.5


class Tableau(NamedTuple):
    """One method. Hashable: a method is part of the compiled program.

    Attributes:
        nodes: c of every stage; the first is 0.
        stages: terms (k, c, w) of every stage after the first.
        final: rows of G.
        error: terms of the difference to the embedded method, without h; empty if
            there is none. Their w may have one entry more, for N at the step's end.
        order: of the method, on problems that are not stiff.
        error_order: order of the local error estimate.
    """

    nodes: tuple[float, ...]
    stages: tuple[tuple[Term, ...], ...]
    final: tuple[tuple[float, ...], ...]
    error: tuple[Term, ...]
    order: int
    error_order: int

    @property
    def closing(self) -> bool:
        """Whether the error estimate uses N at the end of the step."""
        return any(len(w) > len(self.nodes) for _, _, w in self.error)


def euler() -> Tableau:
    """ETD1: e^z u + h phi_1 N."""
    return Tableau((0.0,), (), ((1.0,),), (), 1, 1)


def two_stage(c2: float) -> Tableau:
    """RES-2; c2 = 1 is ETDRK2. Embedded: ETD1, the difference is h phi_2 g_2."""
    slope = (-1 / c2, 1 / c2)
    return Tableau(
        nodes=(0.0, c2),
        stages=(((1, c2, (c2,)),),),
        final=((1.0, 0.0), slope),
        error=((2, 1.0, slope),),
        order=2,
        error_order=2,
    )


def three_stage(c2: float, c3: float) -> Tableau:
    """RES-3. Embedded: RES-2 on the first two stages."""
    gamma = c3 * (3 * c3 - 2) / (c2 * (2 - 3 * c2))
    norm = gamma * c2 + c3
    low = gamma * c2, c3**2 / c2
    slope = (-(gamma + 1) / norm, gamma / norm, 1 / norm)
    embedded = (-1 / c2, 1 / c2, 0.0)
    last = (
        (1, c3, (c3, 0.0)),
        (2, c2, (-low[0], low[0])),
        (2, c3, (-low[1], low[1])),
    )
    return Tableau(
        nodes=(0.0, c2, c3),
        stages=(((1, c2, (c2,)),), last),
        final=((1.0, 0.0, 0.0), slope),
        error=((2, 1.0, tuple(a - b for a, b in zip(slope, embedded, strict=True))),),
        order=3,
        error_order=3,
    )


# N along a step through its values at 0, 1/2 (the mean of two) and 1.
_PARABOLA = ((1.0, 0.0, 0.0, 0.0), (-3.0, 2.0, 2.0, -1.0), (4.0, -4.0, -4.0, 4.0))
# Embedded: the last stage's weight 4 phi_3 - phi_2 moves to N at the step's end. The
# classical limit (1, 2, 2, 0, 1) / 6 meets the four conditions of order 3.
_CLOSING = (0.0, 0.0, 0.0, 1.0, -1.0)
_FOURTH_ERROR = (
    (2, 1.0, tuple(-w for w in _CLOSING)),
    (3, 1.0, tuple(4 * w for w in _CLOSING)),
)


def _fourth(third: tuple[Term, ...], fourth: tuple[Term, ...]) -> Tableau:
    """Order 4 on the nodes 0, 1/2, 1/2, 1 from the terms of the last two stages."""
    second = ((1, _HALF, (_HALF,)),)
    return Tableau(
        nodes=(0.0, _HALF, _HALF, 1.0),
        stages=(second, third, fourth),
        final=_PARABOLA,
        error=_FOURTH_ERROR,
        order=4,
        error_order=4,
    )


def cox_matthews() -> Tableau:
    """ETDRK4. Its e^{z/2} phi_1(z/2) / 2 is phi_1(z) - phi_1(z/2) / 2."""
    third = ((1, _HALF, (0.0, _HALF)),)
    fourth = ((1, 1.0, (1.0, 0.0, 0.0)), (1, _HALF, (-1.0, 0.0, 1.0)))
    return _fourth(third, fourth)


def krogstad() -> Tableau:
    """Krogstad's ETDRK4-B: N is interpolated linearly inside the stages."""
    third = ((1, _HALF, (_HALF, 0.0)), (2, _HALF, (-1.0, 1.0)))
    fourth = ((1, 1.0, (1.0, 0.0, 0.0)), (2, 1.0, (-2.0, 0.0, 2.0)))
    return _fourth(third, fourth)
