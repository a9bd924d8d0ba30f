"""The one engine: init, step, run, sample. A scan over a plan's rows.

All are pure and work under jit, vmap and grad. State arithmetic runs in the state's
dtype, float32 at least; the model sees what its adapter casts to.
"""

from .noise import normal as normal
from .noise import prior as prior
from .noise import side_noise as side_noise
from .rows import init as init
from .rows import step as step
from .runs import Post as Post
from .runs import run as run
from .runs import sample as sample
from .state import Info as Info
from .state import State as State
