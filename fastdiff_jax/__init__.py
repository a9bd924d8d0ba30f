"""fastdiff_jax: fast samplers for diffusion and flow models in JAX.

A sampler is a table of numbers; one scan runs every table.

Rooms and names load on first use: extras stay out of the import, and the command line
is there to hear Ctrl-C before jax is.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import analysis as analysis
    from . import augmented as augmented
    from . import continuous as continuous
    from . import engine as engine
    from . import grids as grids
    from . import guidance as guidance
    from . import hooks as hooks
    from . import interop as interop
    from . import models as models
    from . import moves as moves
    from . import noise as noise
    from . import plan as plan
    from . import policy as policy
    from . import processes as processes
    from . import reports as reports
    from . import restore as restore
    from . import solvers as solvers
    from . import starts as starts
    from . import transforms as transforms
    from . import tune as tune
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

_ROOMS = """analysis augmented continuous engine grids guidance hooks interop models
moves noise plan policy processes reports restore solvers starts transforms
tune""".split()
_HOMES = {
    **dict.fromkeys(("Info", "State", "init", "run", "sample", "step"), "engine"),
    **dict.fromkeys(("Context", "declare_control"), "typing"),
    "Plan": "plan",
    "prior": "starts",
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    return globals().setdefault(name, found)


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOMS, *_HOMES])
