"""Solvers: functions that compute a sampler's table of weights, once, on the host.

Every solver is `solver(process, ts, *, ...) -> Plan`. SOLVERS lists them by name, each
line beside its builder. The rooms are families; a solver knows numbers and plans, no
network.
"""

from .multistep import adams as adams
from .multistep import dc_solver as dc_solver
from .multistep import deis_logrho as deis_logrho
from .multistep import deis_tab as deis_tab
from .multistep import dpm_solver_v3 as dpm_solver_v3
from .multistep import dpmpp_2m as dpmpp_2m
from .multistep import dpmpp_2m_hb as dpmpp_2m_hb
from .multistep import dpmpp_3m as dpmpp_3m
from .multistep import exp_adams as exp_adams
from .multistep import f_pndm as f_pndm
from .multistep import ghvb as ghvb
from .multistep import hb as hb
from .multistep import ipndm as ipndm
from .multistep import ipndm_v as ipndm_v
from .multistep import nt as nt
from .multistep import plms as plms
from .multistep import s_pndm as s_pndm
from .multistep import unipc as unipc
from .paired import interpolant as interpolant
from .paired import residual_noise as residual_noise
from .paired import tau2_from_diffusion as tau2_from_diffusion
from .paired import two_endpoint as two_endpoint
from .registry import SOLVERS as SOLVERS
from .registry import Solver as Solver
from .registry import find as find
from .searched import Decision as Decision
from .searched import Schedule as Schedule
from .searched import Unrolled as Unrolled
from .searched import bespoke as bespoke
from .searched import olss as olss
from .searched import repair as repair
from .searched import unroll as unroll
from .searched import usf as usf
from .searched import usf_schedule as usf_schedule
from .singlestep import dpm2 as dpm2
from .singlestep import dpm_solver_2 as dpm_solver_2
from .singlestep import dpm_solver_3 as dpm_solver_3
from .singlestep import dpm_solver_fast as dpm_solver_fast
from .singlestep import dpmpp_2s as dpmpp_2s
from .singlestep import dpmpp_3s as dpmpp_3s
from .singlestep import edm_heun as edm_heun
from .singlestep import etdrk2 as etdrk2
from .singlestep import etdrk4 as etdrk4
from .singlestep import euler as euler
from .singlestep import flow_turbo as flow_turbo
from .singlestep import heun as heun
from .singlestep import ho_3 as ho_3
from .singlestep import krogstad as krogstad
from .singlestep import res_2 as res_2
from .singlestep import res_3 as res_3
from .singlestep import rho_rk as rho_rk
from .stochastic import ddim as ddim
from .stochastic import ddpm as ddpm
from .stochastic import dpm2_ancestral as dpm2_ancestral
from .stochastic import dpmpp_2s_ancestral as dpmpp_2s_ancestral
from .stochastic import dpmpp_sde as dpmpp_sde
from .stochastic import edm_churn as edm_churn
from .stochastic import er_sde as er_sde
from .stochastic import euler_ancestral as euler_ancestral
from .stochastic import euler_maruyama as euler_maruyama
from .stochastic import flow_grpo as flow_grpo
from .stochastic import predictor_corrector as predictor_corrector
from .stochastic import reverse_diffusion as reverse_diffusion
from .stochastic import sa_solver as sa_solver
from .stochastic import score_sde_ancestral as score_sde_ancestral
from .stochastic import sde_dpmpp_1 as sde_dpmpp_1
from .stochastic import sde_dpmpp_2m as sde_dpmpp_2m
from .stochastic import sde_dpmpp_3m as sde_dpmpp_3m
from .stochastic import seeds as seeds
