"""Denoisers: adapters for networks, exact ones for known data, the embedded model.

The room turns a network into (x, context, carry) -> (data prediction, carry). It knows
trees, states and numbers; no plan, no engine.
"""

from ..numerics import PREDICTIONS as PREDICTIONS
from . import digits as digits
from .adapter import Model as Model
from .adapter import denoiser as denoiser
from .adapter import from_flax as from_flax
from .adapter import from_linen as from_linen
from .adapter import from_nnx as from_nnx
from .analytic import Mixture as Mixture
from .analytic import gaussian as gaussian
from .analytic import gaussian_mixture as gaussian_mixture
from .ends import GaussianEnds as GaussianEnds
from .ends import VelocityEnds as VelocityEnds
from .ends import from_velocity as from_velocity
from .ends import gaussian_ends as gaussian_ends
from .giving import Giving as Giving
from .giving import giving as giving
