"""Denoiser transforms: each takes a denoiser and returns one."""

from .cfg import Guided as Guided
from .cfg import cfg as cfg
from .thresholding import Transformed as Transformed
from .thresholding import clip as clip
from .thresholding import dynamic_threshold as dynamic_threshold
