"""What can be said about a plan without a network, on the host, in float64.

`report` gathers it: sum of weights, order conditions, the exact law of the samples on
Gaussian data, amplification of model error, the guidance scale it bears.
"""

from .conditions import Conditions as Conditions
from .conditions import order_conditions as order_conditions
from .gaussian import Constant as Constant
from .gaussian import GaussianError as GaussianError
from .gaussian import constant as constant
from .gaussian import gaussian_error as gaussian_error
from .gaussian import transfer as transfer
from .order import MIXTURE as MIXTURE
from .order import OrderFit as OrderFit
from .order import fit_order as fit_order
from .order import graded_times as graded_times
from .order import measured_order as measured_order
from .order import measured_weak_order as measured_weak_order
from .order import order_problem as order_problem
from .report import Report as Report
from .report import report as report
from .response import Response as Response
from .response import posterior_slope as posterior_slope
from .response import respond as respond
from .response import start_level as start_level
from .stability import Amplification as Amplification
from .stability import amplification as amplification
from .stability import guidance_growth as guidance_growth
from .stability import guidance_limit as guidance_limit
