"""Grids: N + 1 decreasing times from noise to data, float64.

Every grid takes `(process, steps, *, start, end, to_zero, ...)` and returns shape
(steps + 1,). `start` and `end` are times of the process (its defaults otherwise).
With `to_zero` the formula places `steps` points from start to end and the exact clean
time (sigma = 0) comes after them: still `steps` steps.
"""

from collections.abc import Callable

from ..typing import Array
from .elements import align as align
from .elements import block_lagged as block_lagged
from .elements import known_prefix as known_prefix
from .elements import offset as offset
from .elements import per_modality as per_modality
from .elements import pyramid as pyramid
from .fopp import fopp as fopp
from .library import leading as leading
from .library import linspace as linspace
from .library import trailing as trailing
from .own import custom as custom
from .own import from_sigmas as from_sigmas
from .published import ays as ays
from .published import beta as beta
from .published import flow_shift as flow_shift
from .spacing import edm as edm
from .spacing import exponential as exponential
from .spacing import karras as karras
from .spacing import log_snr as log_snr
from .spacing import polynomial as polynomial
from .spacing import quadratic as quadratic
from .spacing import rho_polynomial as rho_polynomial
from .spacing import uniform as uniform

__all__ = ["GRIDS"]

GRIDS: dict[str, Callable[..., Array]] = {
    "uniform": uniform,
    "quadratic": quadratic,
    "log_snr": log_snr,
    "karras": karras,
    "edm": edm,
    "exponential": exponential,
    "flow_shift": flow_shift,
    "beta": beta,
    "ays": ays,
    "linspace": linspace,
    "leading": leading,
    "trailing": trailing,
}
"""Grids by the name the command line uses."""
