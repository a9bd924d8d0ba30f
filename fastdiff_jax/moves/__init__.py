"""Moves after each row, for `fd.sample(..., move=move)`.

A move is (state, info, row, level reached) -> state. These are pytrees: new numbers,
masks and images do not recompile. The room knows states, rows and levels, no solver.
"""

from .chain import Chain as Chain
from .chain import chain as chain
from .colourise import LinearPart as LinearPart
from .colourise import colourise as colourise
from .colourise import linear_part as linear_part
from .inpaint import Inpaint as Inpaint
from .inpaint import inpaint as inpaint
from .langevin import Langevin as Langevin
from .langevin import langevin as langevin
