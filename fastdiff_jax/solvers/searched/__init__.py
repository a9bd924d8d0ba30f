"""Tables whose numbers are decisions or fitted weights, from a search or `fd.tune`.

A family imports the rooms below and what these families share, never another family.
"""

from .linear import Unrolled as Unrolled
from .linear import bespoke as bespoke
from .linear import olss as olss
from .linear import unroll as unroll
from .usf import Decision as Decision
from .usf import Schedule as Schedule
from .usf import repair as repair
from .usf import usf as usf
from .usf import usf_schedule as usf_schedule
