"""Exponential Runge-Kutta on the diffusion ODE: one-step methods, exact linear part.

In half log-SNR the ODE is semilinear, u' = L u + N(u):

    data prediction   u = x / alpha:  L = -1, N = D
    noise prediction  u = x / sigma:  L = +1, N = -E

A table (a, b, c) of functions of z = L h gives, at lambda_j = lambda_s + c_j h,

    u_j = e^{c_j z} u_s + h sum_k a_jk(z) N_k,   u_t = e^z u_s + h sum_k b_k(z) N_k

phi_k(z) = int_0^1 e^{(1-s)z} s^{k-1}/(k-1)! ds. Cox & Matthews 2002; Krogstad 2005;
Hochbruck & Ostermann 2005; Zhang et al. 2023 (2308.02157, RES). DPM-Solver-3 (Lu et
al. 2022, 2206.00927) is ho_3 in noise prediction.
"""

from collections.abc import Callable

from ... import plan
from ...numerics import Level, levels, phi
from ...typing import Array, ArrayLike, Process
from ..registry import solver
from ._steps import exponential_stages

__all__ = ["etdrk2", "etdrk4", "ho_3", "krogstad", "res_2", "res_3"]

_Weights = list[list[Array]]


@solver(order=2, calls=2, paper="Zhang 2023, 2308.02157")
def res_2(
    process: Process, ts: ArrayLike, *, c2: float = 0.5, prediction: str = "data"
) -> plan.Plan:
    """RES-2, the two-stage method of stiff order 2. Order 2, 2 calls per step.

    a_21 = c2 φ_1(c2 z),  b_1 = φ_1 - φ_2/c2,  b_2 = φ_2/c2.

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,). A step from alpha = 0 or into sigma
            = 0 is of first order and takes one call.
        c2: where the second stage stands, in (0, 1].
        prediction: 'data' or 'noise'.

    Returns:
        A plan of 2N rows, one less for each first-order step.

    Raises:
        ValueError: c2 outside (0, 1].

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.res_2(process, fd.grids.log_snr(process, 5)).nfe
        10

    Reference: Hochbruck & Ostermann 2005, SIAM J. Numer. Anal. 43, section 5.
    """
    _inside("res_2", c2=c2)

    def table(z: Array) -> _Weights:
        b2 = phi(2, z) / c2
        return [[c2 * phi(1, c2 * z)], [phi(1, z) - b2, b2]]

    return _assemble(process, ts, (0, c2), table, prediction)


@solver(order=2, calls=2, paper="Cox & Matthews 2002")
def etdrk2(process: Process, ts: ArrayLike, *, prediction: str = "data") -> plan.Plan:
    """ETDRK2: `res_2` with the second stage at the step's end. Order 2, 2 calls.

    a = ETD1(u_s);  u_t = a + h φ_2 (N(a) - N_s).

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,); ends as in `res_2`.
        prediction: 'data' or 'noise'.

    Returns:
        A plan of 2N rows, one less for each first-order step.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.etdrk2(process, fd.grids.log_snr(process, 5)).nfe
        10

    Reference: Cox & Matthews 2002, J. Comput. Phys. 176, eqs 20-22.
    """
    return res_2(process, ts, c2=1.0, prediction=prediction)


@solver(order=3, calls=3, paper="Zhang 2023, 2308.02157")
def res_3(
    process: Process,
    ts: ArrayLike,
    *,
    c2: float = 0.5,
    c3: float = 1.0,
    prediction: str = "data",
) -> plan.Plan:
    """RES-3, three stages of stiff order 3, free nodes. Order 3, 3 calls per step.

    With γ = c3 (3 c3 - 2) / (c2 (2 - 3 c2)):

    a_32 = γ c2 φ_2(c2 z) + (c3²/c2) φ_2(c3 z),  a_31 = c3 φ_1(c3 z) - a_32
    b_3 = φ_2 / (γ c2 + c3),  b_2 = γ b_3,  b_1 = φ_1 - b_2 - b_3

    The condition b_2 c2² + b_3 c3² = 2 φ_3 at z = 0 asks for this γ (not 3 c3³ - 2 c3).

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,); ends as in `res_2`.
        c2: where the second stage stands, in (0, 1], not 2/3.
        c3: where the third stage stands, in (0, 1].
        prediction: 'data' or 'noise'.

    Returns:
        A plan of 3N rows, two less for each first-order step.

    Raises:
        ValueError: nodes outside (0, 1], c2 = 2/3, or c3 = c2.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.res_3(process, fd.grids.log_snr(process, 5)).nfe
        15

    Reference: Hochbruck & Ostermann 2005, section 5.2; Zhang et al. 2023 (2308.02157).
    """
    _inside("res_3", c2=c2, c3=c3)
    if abs(c2 - 2 / 3) < 1e-9 or abs(c2 - c3) < 1e-9:
        raise ValueError(
            f"res_3 needs c2 != 2/3 and c2 != c3, got {c2=}, {c3=}. Use c2=0.5, c3=1."
        )
    gamma = c3 * (3 * c3 - 2) / (c2 * (2 - 3 * c2))

    def table(z: Array) -> _Weights:
        a32 = gamma * c2 * phi(2, c2 * z) + c3**2 / c2 * phi(2, c3 * z)
        b3 = phi(2, z) / (gamma * c2 + c3)
        return [
            [c2 * phi(1, c2 * z)],
            [c3 * phi(1, c3 * z) - a32, a32],
            [phi(1, z) - (1 + gamma) * b3, gamma * b3, b3],
        ]

    return _assemble(process, ts, (0, c2, c3), table, prediction)


@solver(order=3, calls=3, paper="Hochbruck & Ostermann 2005")
def ho_3(
    process: Process, ts: ArrayLike, *, c2: float = 1 / 3, prediction: str = "data"
) -> plan.Plan:
    """HO-3, three stages with the last at 2/3, as DPM-Solver-3. Order 3, 3 calls.

    a_32 = 4/(9 c2) φ_2(2z/3),  a_31 = 2/3 φ_1(2z/3) - a_32
    b_1 = φ_1 - 3/2 φ_2,  b_2 = 0,  b_3 = 3/2 φ_2

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,); ends as in `res_2`.
        c2: where the second stage stands, in (0, 1].
        prediction: 'data', or 'noise' (c2 = 1/3: DPM-Solver-3).

    Returns:
        A plan of 3N rows, two less for each first-order step.

    Raises:
        ValueError: c2 outside (0, 1].

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.ho_3(process, fd.grids.log_snr(process, 5)).nfe
        15

    Reference: Hochbruck & Ostermann 2005, section 5.2; Lu et al. 2022 (2206.00927).
    """
    _inside("ho_3", c2=c2)
    c3 = 2 / 3

    def table(z: Array) -> _Weights:
        a32, b3 = c3**2 / c2 * phi(2, c3 * z), 1.5 * phi(2, z)
        return [
            [c2 * phi(1, c2 * z)],
            [c3 * phi(1, c3 * z) - a32, a32],
            [phi(1, z) - b3, 0 * b3, b3],
        ]

    return _assemble(process, ts, (0, c2, c3), table, prediction)


@solver(order=4, calls=4, paper="Cox & Matthews 2002")
def etdrk4(process: Process, ts: ArrayLike, *, prediction: str = "data") -> plan.Plan:
    """ETDRK4 of Cox and Matthews. Order 4 (not stiff order), 4 calls per step.

    a = e^{z/2} u + h/2 φ_1(z/2) N_s,  b = e^{z/2} u + h/2 φ_1(z/2) N_a
    c = e^{z/2} a + h/2 φ_1(z/2) (2 N_b - N_s), and with φ's at z
    b = (φ_1 - 3φ_2 + 4φ_3, 2φ_2 - 4φ_3, 2φ_2 - 4φ_3, 4φ_3 - φ_2)

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,); ends as in `res_2`.
        prediction: 'data' or 'noise'.

    Returns:
        A plan of 4N rows, three less for each first-order step.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.etdrk4(process, fd.grids.log_snr(process, 5)).nfe
        20

    Reference: Cox & Matthews 2002, J. Comput. Phys. 176, eqs 26-29.
    """

    def table(z: Array) -> _Weights:
        half = phi(1, z / 2) / 2
        return [
            [half],
            [0 * half, half],
            [half * (phi(0, z / 2) - 1), 0 * half, 2 * half],
            _last_of_four(z),
        ]

    return _assemble(process, ts, (0, 0.5, 0.5, 1), table, prediction)


@solver(order=4, calls=4, paper="Krogstad 2005")
def krogstad(process: Process, ts: ArrayLike, *, prediction: str = "data") -> plan.Plan:
    """Krogstad's ETDRK4-B. Order 4 (stiff order 3), 4 calls per step.

    a_21 = φ_1(z/2)/2,  a_31 = φ_1(z/2)/2 - φ_2(z/2),  a_32 = φ_2(z/2)
    a_41 = φ_1 - 2φ_2,  a_43 = 2φ_2,  and the last weights of `etdrk4`.

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,); ends as in `res_2`.
        prediction: 'data' or 'noise'.

    Returns:
        A plan of 4N rows, three less for each first-order step.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.krogstad(process, fd.grids.log_snr(process, 5)).nfe
        20

    Reference: Krogstad 2005, J. Comput. Phys. 203 (ETDRK4-B).
    """

    def table(z: Array) -> _Weights:
        half, second, p2 = phi(1, z / 2) / 2, phi(2, z / 2), phi(2, z)
        return [
            [half],
            [half - second, second],
            [phi(1, z) - 2 * p2, 0 * p2, 2 * p2],
            _last_of_four(z),
        ]

    return _assemble(process, ts, (0, 0.5, 0.5, 1), table, prediction)


def _last_of_four(z: Array) -> list[Array]:
    p1, p2, p3 = (phi(k, z) for k in (1, 2, 3))
    middle = 2 * p2 - 4 * p3
    return [p1 - 3 * p2 + 4 * p3, middle, middle, 4 * p3 - p2]


def _inside(who: str, **nodes: float) -> None:
    for name, value in nodes.items():
        if not 0 < value <= 1:
            raise ValueError(f"{who} needs {name} in (0, 1], got {value}.")


def _assemble(
    process: Process,
    ts: ArrayLike,
    nodes: tuple[float, ...],
    table: Callable[[Array], _Weights],
    prediction: str,
) -> plan.Plan:
    """A table's weights times h and the scale of each move's end."""
    lv = levels(process, ts).require(prediction)
    rows = lv.inside  # an infinite step has nothing inside it
    h = lv.h[rows]

    def stage(c: float) -> Level:
        if c in (0, 1):
            return lv.at(rows + int(c))
        return plan.between(process, lv, rows, lv.lam[rows] + c * h)

    stages = [stage(c) for c in nodes]
    data, ends = prediction == "data", [*stages[1:], lv.at(rows + 1)]
    scale = [(s.alpha if data else -s.sigma) * h for s in ends]
    moves = table(-h if data else h)
    weights = [[s * w for w in line] for s, line in zip(scale, moves, strict=True)]
    return exponential_stages(
        lv, basis=prediction, rows=rows, levels=stages, weights=weights
    )
