"""Plans that read two predictions of the network.

A family imports the rooms below and what these families share, never another family.
"""

from .interpolant import interpolant as interpolant
from .interpolant import tau2_from_diffusion as tau2_from_diffusion
from .residual_noise import residual_noise as residual_noise
from .two_endpoint import two_endpoint as two_endpoint
