"""What is known of a scheduler class, and the settings that many classes share."""

import math
from typing import Any, NamedTuple

__all__ = [
    "Facts",
    "ALGORITHMS",
    "ALL",
    "BETAS",
    "CLIP",
    "COG",
    "DPM",
    "DPM_VALUES",
    "KARRAS",
    "FEW",
    "FEW_OPTIONS",
    "FLOW",
    "FLOW_MATCH",
    "MULTISTEP",
    "NOISE_V",
    "SHAPES",
    "SHIFT",
    "SLOW",
    "SPACED",
    "THRESHOLD",
    "VE",
]


class Facts(NamedTuple):
    """What a scheduler class can be told.

    Attributes:
        settings: keys of its config, with defaults.
        options: arguments of its `set_timesteps` and `step`, with defaults.
        predictions: legal values of `prediction_type`.
        values: of settings that may be less than elsewhere: the legal values.
        like: the class whose grid and method it shares; empty for its own.
        pinned: settings of that class which this one has not, but behaves as if.
    """

    settings: dict[str, Any]
    options: dict[str, Any]
    predictions: tuple[str, ...] = ("epsilon", "sample", "v_prediction")
    values: dict[str, tuple] = {}
    like: str = ""
    pinned: dict[str, Any] = {}


BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
}
THRESHOLD = {
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
}
SPACED = {"timestep_spacing": "linspace", "steps_offset": 0}
SHAPES = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
FLOW = {
    "use_flow_sigmas": False,
    "flow_shift": 1.0,
    "use_dynamic_shifting": False,
    "time_shift_type": "exponential",
}
MULTISTEP = BETAS | THRESHOLD | SHAPES | FLOW | {"solver_order": 2}
DPM = MULTISTEP | {
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "lower_order_final": True,
    "final_sigmas_type": "zero",
    "lambda_min_clipped": -math.inf,
    "variance_type": None,
}
KARRAS = {
    "num_train_timesteps": 1000,
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "sigma_schedule": "karras",
    "prediction_type": "epsilon",
    "rho": 7.0,
    "final_sigmas_type": "zero",
}
CLIP = {"clip_sample": True, "clip_sample_range": 1.0}
VE = BETAS | SPACED | SHAPES
SLOW = {"beta_start": 0.00085, "beta_end": 0.012}
ALL = ("epsilon", "sample", "v_prediction", "flow_prediction")
FLOW_MATCH = SHAPES | {
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "use_dynamic_shifting": False,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "invert_sigmas": False,
    "shift_terminal": None,
    "time_shift_type": "exponential",
}
NOISE_V = ("epsilon", "v_prediction")
FEW = (  # networks of few steps, which know only the labels they were distilled on
    BETAS
    | SLOW
    | THRESHOLD
    | CLIP
    | {
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "original_inference_steps": 50,
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "timestep_spacing": "leading",
        "timestep_scaling": 10.0,
        "rescale_betas_zero_snr": False,
    }
)
FEW_OPTIONS = {"original_inference_steps": None, "timesteps": None, "strength": 1.0}
COG = (
    BETAS
    | SLOW
    | CLIP
    | {
        "beta_schedule": "scaled_linear",
        "set_alpha_to_one": True,
        "steps_offset": 0,
        "sample_max_value": 1.0,
        "timestep_spacing": "leading",
        "rescale_betas_zero_snr": False,
        "snr_shift_scale": 3.0,
    }
)
ALGORITHMS = ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis")
SHIFT = {"time_shift_type": ("exponential",)}
DPM_VALUES = {"algorithm_type": ALGORITHMS} | SHIFT
