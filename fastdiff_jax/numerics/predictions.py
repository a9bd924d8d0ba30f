"""What a network predicts, between the point x and the data prediction D.

With x = alpha D + sigma E, v = alpha E - sigma D, score S = -E / sigma and velocity
u = dx/dt = alpha' D + sigma' E:

    D = (x - sigma E) / alpha = (alpha x - sigma v) / (alpha^2 + sigma^2)
      = (x + sigma^2 S) / alpha = (sigma' x - sigma u) / (alpha sigma' - alpha' sigma)
"""

from typing import Any, NamedTuple

from ..guards import checked
from ..typing import Process
from .arrays import namespace
from .levels import Level

__all__ = ["Basis", "PREDICTIONS", "basis_of", "to_data"]

PREDICTIONS = ("noise", "data", "v", "score", "velocity")


def to_data(kind: str, x: Any, out: Any, scales: tuple, rates: tuple = ()) -> Any:
    """The data prediction of one array.

    Args:
        kind: what `out` is, one of `PREDICTIONS`.
        x: the point.
        out: the prediction there.
        scales: alpha and sigma, as `x` or numbers.
        rates: alpha' and sigma', for 'velocity'.
    """
    alpha, sigma = scales
    if kind == "data":
        return out
    if kind == "noise":
        return (x - sigma * out) / alpha
    if kind == "score":
        return (x + sigma**2 * out) / alpha
    if kind == "v":
        return (alpha * x - sigma * out) / (alpha**2 + sigma**2)
    d_alpha, d_sigma = rates
    return (d_sigma * x - sigma * out) / (alpha * d_sigma - d_alpha * sigma)


class Basis(NamedTuple):
    """What a method integrates, d = point x + data D, a weight per row each."""

    point: Any
    data: Any


@checked
def basis_of(level: Level, kind: str, process: Process | None = None) -> Basis:
    """What a method integrates, in terms of the point x and the data prediction D.

    'data': D. 'noise': E = (x - alpha D) / sigma. 'v': alpha E - sigma D.
    'velocity': dx/dt = (sigma' / sigma) x + (alpha' - alpha sigma' / sigma) D.

    Args:
        level: where the network is asked, arrays (R, ...).
        kind: one of the above.
        process: for 'velocity', its rates.

    Raises:
        ValueError: another kind, or a prediction that does not exist at a level.
    """
    xp = namespace(level.alpha)
    if kind == "velocity":
        if process is None:
            raise ValueError("prediction 'velocity' needs the process, for its rates.")
        d_alpha, d_sigma = process.rates(level.time)
        rate = d_sigma / level.sigma
        return Basis(rate, d_alpha - level.alpha * rate)
    one = xp.ones_like(level.alpha)
    if kind == "v":  # sigma = 0 fails, by name
        level._replace(alpha=one).require("noise")
        square = level.alpha**2 + level.sigma**2
        return Basis(level.alpha / level.sigma, -square / level.sigma)
    level.require(kind)
    if kind == "data":
        return Basis(xp.zeros_like(level.alpha), one)
    return Basis(1 / level.sigma, -level.alpha / level.sigma)
