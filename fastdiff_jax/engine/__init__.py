"""The one engine: init, step, run, sample. A scan over a plan's rows.

All are pure and work under jit, vmap and grad. State arithmetic runs in the state's
dtype, float32 at least; the model sees what its adapter casts to. The room knows plans
and noise, and of a network only what `hooks` names.
"""

from .run import Move as Move
from .run import run as run
from .run import sample as sample
from .state import Info as Info
from .state import State as State
from .step import init as init
from .step import step as step
