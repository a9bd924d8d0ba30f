"""What each setting of a published scheduler config may be.

A scheduler_config.json may also hold settings left over from another class, which the
library ignores; `inert` says which of those may be dropped, and are then reported.
"""

import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ._classes import CLASSES
from ._facts import ALGORITHMS

__all__ = ["MOST", "OPTIONS", "RULES", "Rule", "inert"]


MOST = 10**6  # labels of a training schedule: what comes from a file asks for memory


class Rule(NamedTuple):
    """What a setting may be: a test, and the same in words."""

    test: Callable[[Any], bool]
    words: str


def _number(value: Any) -> bool:
    """A number that a float holds, NaN and infinities included."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, float) or (whole and abs(value) <= sys.float_info.max)


def _scalar(value: Any) -> bool:
    """A number of NumPy's or of Python's."""
    return _number(value.item() if isinstance(value, np.generic) else value)


def _listed(value: Any) -> bool:
    return isinstance(value, list | tuple) and 1 < len(value) <= MOST


def _one_of(*values: Any) -> Rule:
    words = "one of " + ", ".join(repr(v) for v in values)
    return Rule(lambda v: any(type(v) is type(w) and v == w for w in values), words)


_SWITCH = Rule(lambda v: isinstance(v, bool), "true or false")
_FINITE = Rule(lambda v: _number(v) and math.isfinite(v), "a finite number")
_POSITIVE = Rule(lambda v: _number(v) and 0 < v < math.inf, "a number > 0")
_MAYBE = Rule(
    lambda v: v is None or (_number(v) and 0 < v < math.inf), "null or a number > 0"
)
_WHOLE = Rule(
    lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 1,
    "a whole number >= 1",
)
_COUNT = Rule(lambda v: _WHOLE.test(v) and v <= MOST, f"a whole number in 1..{MOST}")
_INDEX = Rule(
    lambda v: isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= MOST,
    f"a whole number >= 0 and <= {MOST}",
)
_FRACTION = Rule(lambda v: _number(v) and 0 < v <= 1, "a number in (0, 1]")
_RATE = Rule(lambda v: _number(v) and 0 < v < 1, "a number in (0, 1)")
_TERMINAL = Rule(lambda v: v is None or _RATE.test(v), "null or a number in (0, 1)")
_ORDER = _one_of(1, 2, 3, 4)
_SOLVERS = ("midpoint", "heun", "logrho", "bh1", "bh2")
_ALGORITHMS = (*ALGORITHMS, "data_prediction", "noise_prediction")
_BETA_NAMES = (
    "linear",
    "scaled_linear",
    "squaredcos_cap_v2",
    "sigmoid",
    "laplace",
    "exp",
)

RULES: dict[str, Rule] = {
    "num_train_timesteps": _COUNT,
    "beta_start": _RATE,
    "beta_end": _RATE,
    "beta_schedule": _one_of(*_BETA_NAMES),
    "trained_betas": Rule(
        lambda v: (
            v is None
            or (
                isinstance(v, list | tuple)
                and 1 < len(v) <= MOST
                and all(map(_number, v))
            )
        ),
        f"null or a list of 2 to {MOST} numbers",
    ),
    "predict_epsilon": Rule(lambda v: v is True, "true (or use prediction_type)"),
    "tensor_format": Rule(lambda v: v is None or isinstance(v, str), "a name"),
    "prediction_type": _one_of("epsilon", "sample", "v_prediction", "flow_prediction"),
    "solver_order": _WHOLE,
    "algorithm_type": _one_of(*_ALGORITHMS),
    "solver_type": _one_of(*_SOLVERS),
    "final_sigmas_type": _one_of("zero", "sigma_min"),
    "lambda_min_clipped": Rule(
        lambda v: _number(v) and not math.isnan(v) and v < math.inf,
        "a number or -Infinity",
    ),
    "variance_type": Rule(lambda v: v is None or isinstance(v, str), "null or a name"),
    "timestep_spacing": _one_of("linspace", "leading", "trailing"),
    "steps_offset": _INDEX,
    "dynamic_thresholding_ratio": _FRACTION,
    "sample_max_value": _POSITIVE,
    "clip_sample_range": _POSITIVE,
    "flow_shift": _POSITIVE,
    "shift": _MAYBE,
    "time_shift_type": _one_of("exponential", "linear"),
    "disable_corrector": Rule(
        lambda v: isinstance(v, list | tuple) and all(_INDEX.test(i) for i in v),
        "a list of step numbers",
    ),
    "solver_p": Rule(lambda v: v is None, "null (a second scheduler is not supported)"),
    "sigma_min": _MAYBE,
    "sigma_max": _MAYBE,
    "sigma_data": _POSITIVE,
    "sigma_schedule": _one_of("karras", "exponential"),
    "rho": Rule(lambda v: _POSITIVE.test(v) and v >= 0.1, "a number >= 0.1"),
    "shift_terminal": _TERMINAL,
    "interpolation_type": _one_of("linear", "log_linear"),
    "timestep_type": _one_of("discrete", "continuous"),
    "base_shift": _FINITE,
    "max_shift": _FINITE,
    "predictor_order": _ORDER,
    "corrector_order": _ORDER,
    "tau_func": Rule(lambda v: v is None, "null (give tau_func as an option)"),
    "noise_sampler_seed": Rule(
        lambda v: v is None or isinstance(v, int | list), "null or a whole number"
    ),
    "original_inference_steps": _COUNT,
    "timestep_scaling": _POSITIVE,
    "snr_shift_scale": _POSITIVE,
    "scale_factors": Rule(
        lambda v: v is None or v == [], "null (a changing size is not supported)"
    ),
    "upscale_mode": Rule(lambda v: isinstance(v, str), "a name"),
    "shifting": _one_of(None, "SD3", "SimpleDiffusion"),
    "sampler": _one_of("Uniform", "LinearQuadratic", "Constant"),
    "base_resolution": Rule(
        lambda v: v is None or _WHOLE.test(v), "null or a whole number >= 1"
    ),
    "target_shift_terminal": _TERMINAL,
    "base_image_seq_len": _WHOLE,
    "max_image_seq_len": _WHOLE,
} | {
    key: _SWITCH
    for facts in CLASSES.values()
    for key, value in facts.settings.items()
    if isinstance(value, bool)
}
"""What each setting may be, whatever the class."""

_SHARE = Rule(lambda v: _number(v) and 0 <= v <= 1, "a number in [0, 1]")
_AMOUNT = Rule(lambda v: _FINITE.test(v) and v >= 0, "a finite number >= 0")
_SHIFT = Rule(lambda v: _number(v) and abs(v) <= 100, "a number in [-100, 100]")
_LEVELS = Rule(
    lambda v: np.ndim(v) == 1 and 0 < len(v) <= MOST and all(map(_scalar, v)),
    "a list of decreasing numbers >= 0",
)

OPTIONS: dict[str, Rule] = {
    "eta": _SHARE,
    "use_clipped_model_output": _SWITCH,
    "mu": _SHIFT,
    "tokens": _WHOLE,
    "timesteps": _LEVELS,
    "sigmas": _LEVELS,
    "order": _WHOLE,
    "s_churn": _AMOUNT,
    "s_tmin": _AMOUNT,
    "s_tmax": Rule(lambda v: _number(v) and v >= 0, "a number >= 0 or infinity"),
    "s_noise": _FINITE,
    "tau_func": Rule(callable, "a function of the label"),
    "original_inference_steps": _COUNT,
    "strength": Rule(lambda v: _number(v) and 0 < v <= 1, "a number in (0, 1]"),
    "denoising_strength": _SHARE,
    "shift": _SHIFT,
    "samples_shape": Rule(
        lambda v: (
            isinstance(v, list | tuple)
            and len(v) in (3, 4, 5)
            and all(map(_WHOLE.test, v))
        ),
        "(B, tokens, C), (B, C, H, W) or (B, C, F, H, W)",
    ),
}
"""What each option of a call may be; null where that is its default."""

_CHANGES = {  # a switch that is on would change the samples, had the class it
    "thresholding",
    "clip_sample",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "use_flow_sigmas",
    "use_dynamic_shifting",
    "rescale_betas_zero_snr",
    "rescale_zero_terminal_snr",
    "invert_sigmas",
    "reverse_sigmas",
    "inverse_timesteps",
    "extra_one_step",
    "stochastic_sampling",
    "euler_at_final",
}


def inert(key: str, value: Any) -> bool:
    """Whether a setting of another class asks for nothing that would be missed."""
    return not (key in _CHANGES and value)
