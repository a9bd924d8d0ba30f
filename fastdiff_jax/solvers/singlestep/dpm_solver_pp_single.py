"""DPM-Solver++ singlestep: exponential Runge-Kutta in data prediction.

x_t = (σ_t/σ_s) x_s + α_t [P_1 D_0 + ...] with inner stages of one call each. Lu et al.
2022 (2211.01095), algorithm 1 (2S). Formulas as in `dpm_solver`, with D in place of E.
"""

from ... import plan
from ...typing import ArrayLike, Process
from ..registry import solver
from ._singlestep import Inner, every_step

__all__ = ["dpmpp_2s", "dpmpp_3s"]


@solver(order=2, calls=2, paper="Lu 2022, 2211.01095")
def dpmpp_2s(
    process: Process,
    ts: ArrayLike,
    *,
    r: float = 0.5,
    inner: Inner = "log_snr",
    variant: str = "dpmsolver",
    denoise: bool = False,
) -> plan.Plan:
    """DPM-Solver++(2S): `dpm_solver_2` in data prediction. Order 2, 2 calls per step.

    Args:
        process: the path; alpha = 0 at the start is fine.
        ts: the steps' ends, non-increasing times, shape (N + 1,).
        r, inner, variant, denoise: as in `dpm_solver_2`.

    Returns:
        A plan of 2N rows; a step from alpha = 0 or into sigma = 0 costs one row.

    Raises:
        ValueError: as `dpm_solver_2`.

    Example:
        >>> import fastdiff_jax as fd
        >>> flow = fd.processes.flow()
        >>> fd.solvers.dpmpp_2s(flow, fd.grids.uniform(flow, 4, end=0.0)).nfe
        6

    Reference: 2211.01095, algorithm 1.
    """
    return every_step(process, ts, 2, (r,), inner, variant, "data", denoise)


@solver(order=3, calls=3, paper="Lu 2022, 2211.01095")
def dpmpp_3s(
    process: Process,
    ts: ArrayLike,
    *,
    r: tuple[float, float] = (1 / 3, 2 / 3),
    inner: Inner = "log_snr",
    variant: str = "dpmsolver",
    denoise: bool = False,
) -> plan.Plan:
    """DPM-Solver++(3S): `dpm_solver_3` in data prediction. Order 3, 3 calls per step.

    Args:
        process: the path; alpha = 0 at the start is fine.
        ts: the steps' ends, non-increasing times, shape (N + 1,).
        r, inner, variant, denoise: as in `dpm_solver_3`.

    Returns:
        A plan of 3N rows; a step from alpha = 0 or into sigma = 0 costs one row.

    Raises:
        ValueError: as `dpm_solver_3`.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.dpmpp_3s(process, fd.grids.log_snr(process, 4)).nfe
        12

    Reference: 2211.01095, section 4 (the third-order member of the family).
    """
    return every_step(process, ts, 3, tuple(r), inner, variant, "data", denoise)
