"""Methods with stages: every step forgets the one before it.

A family imports the rooms below and what these families share, never another family.
"""

from .dpm_solver import dpm_solver_2 as dpm_solver_2
from .dpm_solver import dpm_solver_3 as dpm_solver_3
from .dpm_solver import dpm_solver_fast as dpm_solver_fast
from .dpm_solver_pp_single import dpmpp_2s as dpmpp_2s
from .dpm_solver_pp_single import dpmpp_3s as dpmpp_3s
from .exp_rk import etdrk2 as etdrk2
from .exp_rk import etdrk4 as etdrk4
from .exp_rk import ho_3 as ho_3
from .exp_rk import krogstad as krogstad
from .exp_rk import res_2 as res_2
from .exp_rk import res_3 as res_3
from .flow_turbo import flow_turbo as flow_turbo
from .rho_rk import dpm2 as dpm2
from .rho_rk import rho_rk as rho_rk
from .rk import edm_heun as edm_heun
from .rk import euler as euler
from .rk import heun as heun
