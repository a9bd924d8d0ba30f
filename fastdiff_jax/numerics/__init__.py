"""Exponential integrals in float64, levels of a grid, weights of its steps.

Everything here is written against the array namespace of its input.
"""

from .arrays import along_last as along_last
from .arrays import as_float as as_float
from .arrays import namespace as namespace
from .integrals import adams_weights as adams_weights
from .integrals import exp_adams_weights as exp_adams_weights
from .integrals import lagrange as lagrange
from .integrals import phi as phi
from .levels import Level as Level
from .levels import Levels as Levels
from .levels import between as between
from .levels import check_times as check_times
from .levels import levels as levels
from .levels import stray as stray
from .levels import with_clean as with_clean
from .predictions import PREDICTIONS as PREDICTIONS
from .predictions import Basis as Basis
from .predictions import basis_of as basis_of
from .predictions import to_data as to_data
from .steps import equal_adams_weights as equal_adams_weights
from .steps import exponential_weights as exponential_weights
from .steps import gather_columns as gather_columns
from .steps import history_nodes as history_nodes
from .steps import keep_factor as keep_factor
from .steps import step_orders as step_orders
from .steps import steps_left as steps_left
