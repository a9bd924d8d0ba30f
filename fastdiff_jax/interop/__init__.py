"""Other libraries' schedulers: their config files read, their calls answered."""

from .config import Scheduler as Scheduler
from .config import from_scheduler_config as from_scheduler_config
from .config import read as read
from .shim import Shim as Shim
from .shim import ShimState as ShimState
