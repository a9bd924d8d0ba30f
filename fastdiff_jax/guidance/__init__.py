"""Guidance: a denoiser in, a denoiser out that heeds a condition.

The room knows trees, states and what a row tells a denoiser; no plan, no engine.
"""

from .cfg import Guided as Guided
from .cfg import cfg as cfg
from .classifier import Classified as Classified
from .classifier import classifier as classifier
