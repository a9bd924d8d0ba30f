"""Transforms: a denoiser in, a denoiser out that still predicts the same data.

Cheaper, steadier or clipped; no condition is added. The room knows trees, states and
what a row tells a denoiser; no plan, no engine.
"""

from .dual_fast import DualFast as DualFast
from .dual_fast import dual_fast as dual_fast
from .dual_fast import dual_fast_schedule as dual_fast_schedule
from .stitch import Stitched as Stitched
from .stitch import stitch as stitch
from .stitch import stitch_schedule as stitch_schedule
from .thresholding import Transformed as Transformed
from .thresholding import clip as clip
from .thresholding import dynamic_threshold as dynamic_threshold
from .time_shift import TimeShifted as TimeShifted
from .time_shift import time_shift as time_shift
from .velocity_refiner import VelocityRefined as VelocityRefined
from .velocity_refiner import velocity_refiner as velocity_refiner
