"""Methods that draw noise: ancestral steps, SDE solvers, correctors.

A family imports the rooms below and what these families share, never another family.
"""

from .ancestral import dpm2_ancestral as dpm2_ancestral
from .ancestral import euler_ancestral as euler_ancestral
from .ancestral import euler_maruyama as euler_maruyama
from .churn import edm_churn as edm_churn
from .ddim import ddim as ddim
from .dpmpp_sde import dpmpp_2s_ancestral as dpmpp_2s_ancestral
from .dpmpp_sde import dpmpp_sde as dpmpp_sde
from .er_sde import er_sde as er_sde
from .flow_grpo import flow_grpo as flow_grpo
from .predictor_corrector import predictor_corrector as predictor_corrector
from .sa_solver import sa_solver as sa_solver
from .score_sde import ddpm as ddpm
from .score_sde import reverse_diffusion as reverse_diffusion
from .score_sde import score_sde_ancestral as score_sde_ancestral
from .sde_dpm_solver_pp import sde_dpmpp_1 as sde_dpmpp_1
from .sde_dpm_solver_pp import sde_dpmpp_2m as sde_dpmpp_2m
from .sde_dpm_solver_pp import sde_dpmpp_3m as sde_dpmpp_3m
from .seeds import seeds as seeds
