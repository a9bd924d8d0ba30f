"""Denoisers: adapters for networks, exact ones for Gaussian data, the digits model."""

from . import digits as digits
from .adapter import PREDICTIONS as PREDICTIONS
from .adapter import Model as Model
from .adapter import denoiser as denoiser
from .adapter import from_flax as from_flax
from .adapter import from_linen as from_linen
from .adapter import from_nnx as from_nnx
from .analytic import Mixture as Mixture
from .analytic import gaussian as gaussian
from .analytic import gaussian_mixture as gaussian_mixture
