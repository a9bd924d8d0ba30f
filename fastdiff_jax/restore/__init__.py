"""Restoration: networks trained on pairs, from a clean x_0 to a degraded y.

`sample` runs any plan around k y; `denoiser` makes a network of (x, y, t) a denoiser.
A path's numbers are in `processes`; here are the recipes of papers.
"""

from ..starts import first_state as first_state
from .centred import Centred as Centred
from .centred import centred as centred
from .centred import sample as sample
from .endpoint import Normalized as Normalized
from .endpoint import WithEndpoint as WithEndpoint
from .endpoint import normalized as normalized
from .endpoint import with_endpoint as with_endpoint
from .mr_sampler import mr_sampler as mr_sampler
from .mr_sampler import steps as steps
from .network import Restorer as Restorer
from .network import denoiser as denoiser
from .rddm import ResidualModel as ResidualModel
from .rddm import rddm as rddm
from .rddm import rddm_times as rddm_times
from .rddm import residual_model as residual_model
from .resfusion import ResidualNoise as ResidualNoise
from .resfusion import resfusion as resfusion
from .resfusion import resnoise_denoiser as resnoise_denoiser
from .resshift import resshift as resshift
from .speech import sb_ve as sb_ve
from .speech import sgmse as sgmse
