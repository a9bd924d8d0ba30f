"""Processes beyond scalar Gaussian paths, their solver, and denoisers for them.

Linear SDEs over several channels, states (B, k, ...): `cld` (critically damped
Langevin), `fractional` (approximate fractional noise), `linear_sde` (your own), sampled
by the plans of `gddim`; `denoiser`, `lift` and `gaussian` make their denoisers. A
process that is diagonal in some basis, such as blurring diffusion in the cosine
transform, needs none of this: give the ordinary solvers times or levels per element and
keep the state in that basis.
"""

from .cld import cld as cld
from .cld import vp as vp
from .denoisers import Gaussian as Gaussian
from .denoisers import Lifted as Lifted
from .denoisers import Network as Network
from .denoisers import denoiser as denoiser
from .denoisers import gaussian as gaussian
from .denoisers import lift as lift
from .fractional import MarkovApproximation as MarkovApproximation
from .fractional import fractional as fractional
from .fractional import markov_approximation as markov_approximation
from .gddim import gddim as gddim
from .linear_sde import LinearSDE as LinearSDE
from .linear_sde import linear_sde as linear_sde
from .linear_sde import prior as prior
