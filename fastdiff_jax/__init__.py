"""fastdiff_jax: fast samplers for diffusion and flow models in JAX.

A sampler is a table of numbers; one scan runs every table.
"""

import importlib
from typing import Any

from . import engine as engine
from . import grids as grids
from . import guidance as guidance
from . import hooks as hooks
from . import models as models
from . import moves as moves
from . import noise as noise
from . import plan as plan
from . import policy as policy
from . import processes as processes
from . import solvers as solvers
from . import starts as starts
from . import transforms as transforms
from .engine import Info as Info
from .engine import State as State
from .engine import init as init
from .engine import run as run
from .engine import sample as sample
from .engine import step as step
from .plan import Plan as Plan
from .starts import prior as prior
from .typing import Context as Context
from .typing import declare_control as declare_control

__version__ = "0.1.0"

# Loaded on first use: they pull in scipy's integrators, optax or plotting.
_LAZY = (
    "analysis",
    "augmented",
    "continuous",
    "interop",
    "reports",
    "restore",
    "tune",
)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
