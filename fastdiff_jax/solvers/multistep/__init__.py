"""Methods that read evaluations of earlier steps, one call per step.

A family imports the rooms below and what these families share, never another family.
"""

from .adams import adams as adams
from .dc_solver import dc_solver as dc_solver
from .deis import deis_tab as deis_tab
from .dpm_solver_pp import dpmpp_2m as dpmpp_2m
from .dpm_solver_pp import dpmpp_3m as dpmpp_3m
from .dpm_solver_v3 import dpm_solver_v3 as dpm_solver_v3
from .exp_adams import deis_logrho as deis_logrho
from .exp_adams import exp_adams as exp_adams
from .ipndm import ipndm as ipndm
from .ipndm import ipndm_v as ipndm_v
from .momentum import dpmpp_2m_hb as dpmpp_2m_hb
from .momentum import ghvb as ghvb
from .momentum import hb as hb
from .momentum import nt as nt
from .pndm import f_pndm as f_pndm
from .pndm import plms as plms
from .pndm import s_pndm as s_pndm
from .unipc import unipc as unipc
