"""Generalised DDIM: exponential multistep on linear SDEs with matrix weights.

Deterministic, with eps = R^{-1} (u - Psi D) interpolated in time,

    u_t = Psi(t, s) u_s + sum_j [int_s^t l_j(tau) d(Psi(t, tau) R_tau)] eps_j;

stochastic, exact for a constant data prediction, with Psi^ the transition of
F + (1 + lambda^2) / 2 G G^T Sigma^{-1},

    u_t = Psi^ u_s + (Psi(t, 0) - Psi^ Psi(s, 0)) D + N(0, P),
    P = Sigma_t - Psi^ Sigma_s Psi^T.

Zhang, Tao & Chen 2022 (2206.05564), eqs 19, 22 and 25. The published code's covariance
ODE lacks a transpose and its last covariance is set to zero; here both are the law's.
"""

import numpy as np
from scipy.integrate import solve_ivp

from .. import plan
from ..numerics import Levels, as_float, check_times
from ..solvers._starting import Start, cut
from ..solvers.registry import solver
from ..typing import ArrayLike
from .linear_sde import LinearSDE, transposed

__all__ = ["gddim"]

_NODES = 64


@solver(
    order=lambda p: p,
    orders=(1, 2, 3, 4),
    stochastic=("tau2",),
    paper="Zhang 2022, 2206.05564",
    needs="a linear SDE, fd.augmented.cld(), and a denoiser of all channels",
)
def gddim(
    process: LinearSDE,
    ts: ArrayLike,
    *,
    order: int = 2,
    tau2: float = 0.0,
    corrector: bool = False,
    root: str = "gddim",
    start: Start = "published",
) -> plan.Plan:
    """GDDIM on a linear SDE with several channels: a plan of matrix weights.

    Args:
        process: `fd.augmented.cld()`, `fractional(...)`, `linear_sde(...)`.
        ts: times (N + 1,), decreasing; the covariance must be positive definite there.
        order: evaluations that a deterministic step uses, 1 to 4 (the paper's q + 1).
        tau2: amount of noise, the square of the paper's lambda: 0 = ODE, 1 = the
            reverse SDE. With noise the order is 1.
        corrector: correct each point with the evaluation made there (N evaluations
            all the same); raises the order by one.
        root: 'gddim', the R that keeps eps still, or 'cholesky', the lower factor: the
            paper's comparison, not exact for data that are one point.
        start: 'published' warms up with orders 1, 2, ...; 'graded' cuts the first step
            into N^(1 - 2/p) growing parts (N^(1 - 3/(p + 1)) with a corrector), one
            call each, and so keeps the order on every grid.

    Returns:
        A plan of N rows for states (B, k, ...). The denoiser returns D = E[u_0 | u],
        all k channels. Its context holds Psi(t, 0) as alpha and R_t as sigma, both
        (k, k); `fd.augmented.denoiser` and `lift` make one of a network.

    Raises:
        ValueError: a covariance that is not positive definite on the grid, an unknown
            root, an order or tau2 out of range, noise with order > 1 or a corrector.

    Example:
        >>> import numpy as np, fastdiff_jax as fd
        >>> process = fd.augmented.cld()
        >>> plan = gddim(process, np.linspace(1, 0.03, 11) ** 2, order=2)
        >>> plan.nfe, plan.rows.registers.shape
        (10, (10, 3, 2, 2, 2))

    Reference: Zhang et al. 2022 (2206.05564), proposition 2 and section 4.
    """
    ts = _checked(process, ts, order, tau2, corrector, root)
    ts = np.asarray(cut(ts, start, order + corrector, 1 + corrector)[0])
    psi = process.transition(ts, np.zeros_like(ts))
    r = process.root(ts) if root == "gddim" else process.cholesky(ts)
    lv, steps = Levels(ts, psi, r, np.zeros_like(ts)), np.arange(len(ts) - 1)
    controls = _pooled(psi[:-1], process.cholesky(ts[:-1]))
    common = {"controls": controls, "matrix": True}
    if tau2 > 0 or (order == 1 and root == "gddim" and not corrector):
        keep, weight, noise = _one_step(process, ts, psi, tau2)
        one = {"keep": keep, "predict": weight[..., None], "correct": weight}
        return plan.corrected(lv, **one, steps=steps < 0, noise=noise, **common)
    inverse = np.linalg.inv(r[:-1])
    ahead = _all_weights(process, ts, order, root, False)
    back = _all_weights(process, ts, order + 1, root, True) if corrector else ahead
    return plan.corrected(
        lv,
        keep=process.transition(ts[1:], ts[:-1]),
        predict=ahead,
        correct=back,
        steps=(steps < len(steps) - 1) & corrector,
        basis=plan.Basis(inverse, -(inverse @ psi[:-1])),
        **common,
    )


def _checked(
    process: LinearSDE,
    ts: ArrayLike,
    order: int,
    tau2: float,
    corrector: bool,
    root: str,
) -> np.ndarray:
    if order not in (1, 2, 3, 4):
        raise ValueError(f"order must be 1, 2, 3 or 4, got {order!r}.")
    if root not in ("gddim", "cholesky"):
        raise ValueError(f"root must be 'gddim' or 'cholesky', got {root!r}.")
    if not (0 <= tau2 < np.inf):
        raise ValueError(f"tau2 must be finite and >= 0 (0 = ODE), got {tau2}.")
    if tau2 > 0 and (order > 1 or corrector):
        raise ValueError(
            f"with noise (tau2={tau2}) gddim is of first order; use order=1 and "
            f"corrector=False, got order={order}, corrector={corrector}."
        )
    _, (ts,) = as_float(ts)
    if not isinstance(ts, np.ndarray):
        raise ValueError(
            "gddim solves matrix ODEs on the host: ts must be NumPy, not a JAX array. "
            "Use np.asarray(ts)."
        )
    if ts.ndim != 1 or len(ts) < 2:
        raise ValueError(f"ts must be 1-D with at least 2 times, got shape {ts.shape}.")
    check_times(process, ts, strict=True)
    return ts


def _pooled(psi: np.ndarray, lower: np.ndarray) -> dict[str, np.ndarray]:
    """The best linear estimate of data in channel 0: weights of u and its spread."""
    y = np.linalg.solve(lower, psi[:, :, :1])
    precision = (y**2).sum(1)  # (R, 1)
    pool = np.linalg.solve(transposed(lower), y)[..., 0] / precision
    return {"pool": pool, "spread": precision[:, 0] ** -0.5}


def _one_step(
    process: LinearSDE, ts: np.ndarray, psi: np.ndarray, tau2: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Exact steps for a constant data prediction: weights of u, of D and of z."""
    basis = process.cholesky(ts) if tau2 == 1 else process.root(ts)
    turn = _turned(process, ts, basis, tau2)
    last, first = basis[1:], basis[:-1]
    hat = last @ turn @ np.linalg.inv(first)
    noise = None
    if tau2 > 0:
        share = np.eye(process.channels) - turn @ transposed(turn)
        values, vectors = np.linalg.eigh(share)
        # rounding may leave -1e-16 where a channel's past is known exactly
        noise = last @ (vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :])
    evaluation = psi[1:] - hat @ psi[:-1]
    return hat, evaluation, noise


def _turned(
    process: LinearSDE, ts: np.ndarray, basis: np.ndarray, tau2: float
) -> np.ndarray:
    """Psi^ = R_t Theta R_s^{-1}: Theta, a contraction, I for the ODE.

    lambda = 1: Psi^ = Sigma_t Psi(s, t)^T Sigma_s^{-1}, the law's own conditional mean.
    Otherwise Theta' = lambda^2 / 2 (R^{-1} G) (R^{-1} G)^T Theta, all steps at once.
    """
    s, t = ts[:-1], ts[1:]
    k = process.channels
    if tau2 == 0:
        return np.broadcast_to(np.eye(k), (len(s), k, k))
    if tau2 == 1:
        return transposed(
            np.linalg.solve(basis[:-1], process.transition(s, t) @ basis[1:])
        )
    ratio = np.log(t / s)

    def rate(u: float, y: np.ndarray) -> np.ndarray:
        at = s * np.exp(u * ratio)
        g = np.linalg.solve(process.root(at), process.diffusion(at))
        grow = tau2 / 2 * (g @ (transposed(g) @ y.reshape(-1, k, k)))
        return ((at * ratio)[:, None, None] * grow).ravel()

    eye = np.broadcast_to(np.eye(k), (len(s), k, k)).ravel()
    found = solve_ivp(rate, (0.0, 1.0), eye, method="DOP853", rtol=1e-11, atol=1e-12)
    return found.y[:, -1].reshape(-1, k, k)


def _all_weights(
    process: LinearSDE, ts: np.ndarray, order: int, root: str, ahead: bool
) -> np.ndarray:
    """Weights on the newest evaluations, (N, k, k, order), warming up.

    `ahead`: the newest is the step's end, for a corrector.
    """
    steps, k = len(ts) - 1, process.channels
    out = np.zeros((steps, order, k, k))
    for count in range(1, order + 1):
        ready = np.arange(steps) + 1 + ahead
        rows = np.flatnonzero(np.minimum(order, ready) == count)
        if rows.size:
            out[rows, :count] = _weights(process, ts, rows, count, root, ahead)
    return np.moveaxis(out, 1, -1)


def _weights(
    process: LinearSDE,
    ts: np.ndarray,
    rows: np.ndarray,
    count: int,
    root: str,
    ahead: bool,
) -> np.ndarray:
    """int_s^t l_j d(Psi(t, .) R) by parts: on a constant eps exact by construction."""
    s, t = ts[rows], ts[rows + 1]
    span = t - s
    nodes = np.stack([ts[rows - j + ahead] for j in range(count)], -1)
    powers = np.vander(((nodes - s[:, None]) / span[:, None]).ravel(), count, True)
    basis = np.linalg.inv(powers.reshape(-1, count, count))  # monomials of each l_j
    x, w = np.polynomial.legendre.leggauss(_NODES)
    x, w = (x + 1) / 2, w / 2
    tau = s[:, None] + span[:, None] * x
    back = process.transition(t[:, None], tau)  # (rows, Q, k, k)
    values = np.einsum("smj,qm->sjq", basis, np.vander(x, count, True))
    if root == "cholesky":  # no such derivative: 1/2 G G^T L^{-T} itself
        g = process.diffusion(tau.ravel()).reshape(*tau.shape, process.channels, -1)
        pulled = np.linalg.solve(process.cholesky(tau), g)
        inner = back @ g @ transposed(pulled) / 2
        return np.einsum("sjq,q,s,sqab->sjab", values, w, span, inner)
    place = process.root(ts)
    ends = place[rows + 1], process.transition(t, s) @ place[rows]
    inner = back @ process.root(tau)
    power = np.arange(1, count)
    slope = np.einsum(
        "smj,qm->sjq",
        basis[:, 1:] * power[:, None],
        np.vander(x, max(count - 1, 1), True)[:, : count - 1],
    )
    whole = basis.sum(1), basis[:, 0]  # l_j at the step's end and start
    out = [v[:, :, None, None] * e[:, None] for v, e in zip(whole, ends, strict=True)]
    return out[0] - out[1] - np.einsum("sjq,q,sqab->sjab", slope, w, inner)
