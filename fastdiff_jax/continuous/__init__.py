"""Where the number of network calls depends on the data, or diffrax runs.

Error control, dense paths, adjoints and likelihoods; everything else is a table.
"""

from .adjoint import Adjoint as Adjoint
from .adjoint import adjoint_plan as adjoint_plan
from .adjoint import adjoint_run as adjoint_run
from .adjoint import adjoint_sample as adjoint_sample
from .brownian import NoiseTerm as NoiseTerm
from .brownian import SampleBrownian as SampleBrownian
from .brownian import brownian as brownian
from .diffusion import interval as interval
from .diffusion import probability_flow as probability_flow
from .diffusion import reverse_sde as reverse_sde
from .diffusion import velocity_term as velocity_term
from .dpm_adaptive import PID as PID
from .dpm_adaptive import AdaptiveInfo as AdaptiveInfo
from .dpm_adaptive import Power as Power
from .dpm_adaptive import dpm_solver_adaptive as dpm_solver_adaptive
from .exp_adams import ExponentialAdams as ExponentialAdams
from .exp_adams import exp_adams as exp_adams
from .exponential import ExponentialInterpolation as ExponentialInterpolation
from .exponential import ExponentialRungeKutta as ExponentialRungeKutta
from .exponential import etd1 as etd1
from .exponential import etdrk2 as etdrk2
from .exponential import etdrk4 as etdrk4
from .exponential import krogstad as krogstad
from .exponential import res_2 as res_2
from .exponential import res_3 as res_3
from .likelihood import Likelihood as Likelihood
from .likelihood import bits_per_dim as bits_per_dim
from .likelihood import log_likelihood as log_likelihood
from .semilinear import Clock as Clock
from .semilinear import FunctionClock as FunctionClock
from .semilinear import ProcessClock as ProcessClock
from .semilinear import SemilinearTerm as SemilinearTerm
from .semilinear import driven_term as driven_term
from .stochastic import StochasticExponentialEuler as StochasticExponentialEuler
