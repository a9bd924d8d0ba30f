"""Plan: the table of numbers that is a sampler, and what can be done with one."""

from .build import basis as basis
from .build import build as build
from .build import check as check
from .build import multistep as multistep
from .build import replay as replay
from .build import runge_kutta as runge_kutta
from .build import take as take
from .build import validate as validate
from .combine import pad as pad
from .combine import slice_rows as slice_rows
from .combine import stack as stack
from .core import Convert as Convert
from .core import Level as Level
from .core import Move as Move
from .core import Plan as Plan
from .core import Push as Push
from .core import Register as Register
from .core import Row as Row
from .core import Start as Start
from .serial import from_json as from_json
from .serial import load as load
from .serial import save as save
from .serial import to_json as to_json
from .table import columns as columns
from .table import table as table
