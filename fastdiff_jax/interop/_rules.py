"""What each setting of a published scheduler config may be.

A scheduler_config.json may also hold settings left over from another class, which the
library ignores; `inert` says which of those may be dropped without a word.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ._classes import CLASSES

__all__ = ["RULES", "Rule", "inert"]


class Rule(NamedTuple):
    """What a setting may be: a test, and the same in words."""

    test: Callable[[Any], bool]
    words: str


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _one_of(*values: Any) -> Rule:
    words = "one of " + ", ".join(repr(v) for v in values)
    return Rule(lambda v: any(type(v) is type(w) and v == w for w in values), words)


_SWITCH = Rule(lambda v: isinstance(v, bool), "true or false")
_POSITIVE = Rule(lambda v: _number(v) and 0 < v < math.inf, "a number > 0")
_MAYBE = Rule(
    lambda v: v is None or (_number(v) and 0 < v < math.inf), "null or a number > 0"
)
_WHOLE = Rule(
    lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 1,
    "a whole number >= 1",
)
_INDEX = Rule(
    lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= 0,
    "a whole number >= 0",
)
_FRACTION = Rule(lambda v: _number(v) and 0 < v <= 1, "a number in (0, 1]")
_RATE = Rule(lambda v: _number(v) and 0 < v < 1, "a number in (0, 1)")
_SOLVERS = ("midpoint", "heun", "logrho", "bh1", "bh2")
_ALGORITHMS = ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis")
_BETA_NAMES = (
    "linear",
    "scaled_linear",
    "squaredcos_cap_v2",
    "sigmoid",
    "laplace",
    "exp",
)

RULES: dict[str, Rule] = {
    "num_train_timesteps": _WHOLE,
    "beta_start": _RATE,
    "beta_end": _RATE,
    "beta_schedule": _one_of(*_BETA_NAMES),
    "trained_betas": Rule(
        lambda v: v is None or (isinstance(v, list | tuple) and len(v) > 1),
        "null or a list of numbers",
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
    "shift": _POSITIVE,
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
    "rho": _POSITIVE,
    "shift_terminal": Rule(
        lambda v: v is None or _RATE.test(v), "null or a number in (0, 1)"
    ),
    "interpolation_type": _one_of("linear", "log_linear"),
    "timestep_type": _one_of("discrete", "continuous"),
    "base_shift": Rule(_number, "a number"),
    "max_shift": Rule(_number, "a number"),
    "base_image_seq_len": _WHOLE,
    "max_image_seq_len": _WHOLE,
} | {
    key: _SWITCH
    for facts in CLASSES.values()
    for key, value in facts.settings.items()
    if isinstance(value, bool)
}
"""What each setting may be, whatever the class."""

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
    "invert_sigmas",
    "stochastic_sampling",
    "euler_at_final",
}


def inert(key: str, value: Any) -> bool:
    """Whether a setting of another class asks for nothing that would be missed."""
    return not (key in _CHANGES and value)
