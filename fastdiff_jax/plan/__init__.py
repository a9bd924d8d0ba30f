"""Plan: the table of numbers that is a sampler, and what can be done with one.

The room knows levels and weights, no process' name, no solver and no network. What an
author of a solver needs: `levels`, the forms (`register`, `evaluation`, `ring`,
`NOISE`), and the builders `multistep`, `corrected`, `stages`, `between`, `build`.
"""

from ..numerics import Basis as Basis
from ..numerics import Level as Level
from ..numerics import Levels as Levels
from ..numerics import basis_of as basis_of
from ..numerics import between as between
from ..numerics import levels as levels
from .builders import build as build
from .builders import corrected as corrected
from .builders import multistep as multistep
from .checks import replay as replay
from .checks import self_check as self_check
from .checks import walk as walk
from .combine import pad as pad
from .combine import slice_rows as slice_rows
from .combine import stack as stack
from .core import Plan as Plan
from .core import Row as Row
from .core import Start as Start
from .core import ends_step as ends_step
from .elements import per_element as per_element
from .forms import NOISE as NOISE
from .forms import ONE as ONE
from .forms import Form as Form
from .forms import Ring as Ring
from .forms import evaluation as evaluation
from .forms import prediction as prediction
from .forms import register as register
from .serial import from_json as from_json
from .serial import load as load
from .serial import save as save
from .serial import to_json as to_json
from .stages import Leg as Leg
from .stages import stages as stages
from .table import columns as columns
from .table import spell as spell
from .table import table as table
from .transform import analytic_first_step as analytic_first_step
from .transform import skip_first as skip_first
from .validity import validate as validate
