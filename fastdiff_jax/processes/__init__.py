"""Gaussian paths x_t = alpha(t) x_0 + sigma(t) eps, one class per published schedule.

Every process gives alpha, sigma, lambda = log(alpha / sigma) and its inverse, for
arrays of any shape, NumPy (float64 out) or JAX. Formulas avoid cancellation: sigma
comes from `expm1`, never from 1 - alpha^2, so both ends are exact. A process is a
frozen dataclass whose constants are pytree leaves: new constants do not recompile.

Papers: DDPM (Ho et al. 2020), improved DDPM (Nichol & Dhariwal 2021, eq 17),
score-SDE (Song et al. 2021, eqs 29-33), EDM (Karras et al. 2022, table 1),
flow matching and rectified flow (Lipman et al. 2023; Liu et al. 2023).
"""

from .cosine import VPCosine as VPCosine
from .cosine import vp_cosine as vp_cosine
from .discrete import Tabulated as Tabulated
from .discrete import VPDiscrete as VPDiscrete
from .discrete import tabulated as tabulated
from .discrete import vp_discrete as vp_discrete
from .exploding import EDM as EDM
from .exploding import VE as VE
from .exploding import edm as edm
from .exploding import ve as ve
from .interpolant import Interpolant as Interpolant
from .interpolant import interpolant as interpolant
from .linear_beta import SubVP as SubVP
from .linear_beta import VPLinear as VPLinear
from .linear_beta import sub_vp as sub_vp
from .linear_beta import vp_linear as vp_linear
from .mean_reverting import MeanReverting as MeanReverting
from .mean_reverting import mean_reverting as mean_reverting
from .rddm import RDDM as RDDM
from .rddm import rddm as rddm
from .resfusion import Resfusion as Resfusion
from .resfusion import resfusion as resfusion
from .resshift import ResShift as ResShift
from .resshift import resshift as resshift
from .speech import OUVE as OUVE
from .speech import SBVE as SBVE
from .speech import ouve as ouve
from .speech import sb_ve as sb_ve
from .straight import Flow as Flow
from .straight import flow as flow
