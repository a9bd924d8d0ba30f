"""Everything at once: a report on a plan that prints, plots and turns into JSON."""

from typing import Any, NamedTuple

import numpy as np

from .. import plan as plans
from ..guards import checked, must, within
from ..numerics import stray
from ..typing import ArrayLike, Finite, Process
from .conditions import Conditions, order_conditions
from .gaussian import Constant, GaussianError, constant, gaussian_error, transfer
from .response import Response, numeric
from .stability import amplification, guidance_limit

__all__ = ["FAMILIES", "Report", "report"]

FAMILIES = (
    ("data", "half_log_snr"),
    ("noise", "half_log_snr"),
    ("noise", "rho"),
    ("noise", "time"),
    ("velocity", "time"),
)
"""What the known methods interpolate, and in what variable."""
SPECTRUM = np.geomspace(1e-4, 10.0, 51)


class Report(NamedTuple):
    """What can be said about a plan without a network; made by `report`.

    Attributes:
        nfe: model evaluations.
        stochastic: whether it draws noise.
        constant: sum-of-weights residuals.
        conditions: order conditions, one per family asked for.
        variance: the spectrum, (V,).
        transfer: gains per variance.
        gaussian: moments and W2 per variance, each direction's target the data.
        discretisation: the same from the exact start to the path's own end level: what
            the solver alone costs.
        error_gain: from a unit error at each row to the sample, (rows,), at the
            variance `reaction`.
        error_total: under independent errors of the given sizes.
        guidance_limit: see `stability.guidance_limit`.
        columns: the plan's weights by name, see `plan.columns`.
    """

    nfe: int
    stochastic: bool
    constant: Constant
    conditions: tuple[Conditions, ...]
    variance: np.ndarray
    transfer: Response
    gaussian: GaussianError
    discretisation: GaussianError
    error_gain: np.ndarray
    error_total: float
    guidance_limit: float
    columns: dict[str, np.ndarray]

    def to_dict(self) -> dict[str, Any]:
        """Lists, numbers and strings only, for JSON; NaN becomes None."""
        return _plain(self)

    def __str__(self) -> str:
        kind = "stochastic" if self.stochastic else "deterministic"
        worst = int(np.argmax(self.discretisation.distance))
        lines = [
            f"{self.nfe} evaluations, {kind}",
            f"constant prediction   mean off by {self.constant.mean:.1e}, "
            f"spread by {self.constant.spread:.1e}",
            "order conditions      residual of the whole plan by degree; degrees exact",
        ]
        lines += [f"  {_line(c)}" for c in self.conditions]
        lines += [
            f"Gaussian data         W2 {self.gaussian.w2:.2e} to the data, "
            f"{self.discretisation.w2:.2e} from the solver alone, over "
            f"{len(self.variance)} variances",
            f"  worst direction     variance {self.variance[worst]:.1e}, off by "
            f"{self.discretisation.distance[worst]:.2e}",
            f"model error           largest gain {np.abs(self.error_gain).max():.3g} "
            f"(row {int(np.abs(self.error_gain).argmax())}), independent errors "
            f"{self.error_total:.3g}",
            f"guidance limit        {self.guidance_limit:.3g}",
        ]
        return "\n".join(lines)


def _line(c: Conditions) -> str:
    steps = c.degrees.tolist()
    shown = " ".join(map(str, steps[:12])) + (" ..." if len(steps) > 12 else "")
    numbers = " ".join(f"{abs(r):.0e}" for r in c.total)
    return f"{c.basis + ' in ' + c.variable:22}{numbers}  [{shown}]"


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


@checked
def report(
    plan: plans.Plan,
    process: Process,
    *,
    variance: ArrayLike = SPECTRUM,
    mean: Finite = 0.0,
    reaction: float = 0.0,
    error_size: ArrayLike = 1.0,
    families: tuple[tuple[str, str], ...] = FAMILIES,
) -> Report:
    """All of this package on one plan of scalar weights.

    Args:
        plan: any plan, deterministic or stochastic, any solver.
        process: the path it was made for.
        variance: spectrum of the Gaussian data, (V,).
        mean: of the data, broadcastable to the spectrum.
        reaction: data variance at which rows react to an earlier error; 0: not.
        error_size: of the prediction's error at each row, a number or (rows,).
        families: (basis, variable) of the order conditions to compute; only those
            in data prediction for a stochastic plan.

    Returns:
        The report; `print` it, or give several to `plots.plot_analysis`.

    Raises:
        ValueError: per-element, tree or matrix weights, or a plan of another process.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> made = report(fd.solvers.ddim(process, fd.grids.log_snr(process, 8)),
        ...               process)
        >>> made.nfe, made.conditions[0].holds()
        (8, 1)
    """
    plan = numeric(plan)
    found = stray(process, plan.rows.level)
    if found is not None:
        row, _, name, has, own = found
        raise ValueError(
            f"plan must be built for process: at row {row} it has {name} = {has:.6g}, "
            f"and {type(process).__name__} has {own:.6g}."
        )
    if np.ndim(variance) > 1 or not np.size(variance):
        raise must("variance", "a number or numbers (V,)", variance)
    if np.shape(mean) not in ((), np.shape(variance)):
        raise must("mean", "one number, or one per variance", mean)
    within("[0, inf)", error_size=error_size)
    if np.shape(error_size) not in ((), (plan.length,)):
        raise must(
            "error_size", f"a number or one per row, ({plan.length},)", error_size
        )
    spectrum = np.atleast_1d(np.asarray(variance, np.float64))
    error = amplification(plan, reaction, error_size)
    return Report(
        plan.nfe,
        plan.stochastic,
        constant(plan),
        tuple(
            order_conditions(plan, process, basis=basis, variable=variable)
            for basis, variable in families
            if basis == "data" or not plan.stochastic
        ),
        spectrum,
        transfer(plan, spectrum),
        gaussian_error(plan, mean, spectrum),
        gaussian_error(plan, mean, spectrum, exact_start=True, target="level"),
        error.gain[:, 0],
        float(error.total[0]),
        guidance_limit(plan),
        plans.columns(plan),
    )
