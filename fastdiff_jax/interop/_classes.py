"""Facts about the published scheduler classes: their settings and defaults.

Every class lists the settings its constructor takes, with the library's defaults, and
the options its `set_timesteps` and `step` take.
"""

import math
from typing import Any, NamedTuple

__all__ = ["CLASSES", "EDM", "EXACT", "SCALED", "Facts"]


class Facts(NamedTuple):
    """What a scheduler class can be told.

    Attributes:
        settings: keys of its config, with defaults.
        options: arguments of its `set_timesteps` and `step`, with defaults.
        predictions: legal values of `prediction_type`.
    """

    settings: dict[str, Any]
    options: dict[str, Any]
    predictions: tuple[str, ...] = ("epsilon", "sample", "v_prediction")


_BETAS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
}
_THRESHOLD = {
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
}
_SPACED = {"timestep_spacing": "linspace", "steps_offset": 0}
_SHAPES = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
_FLOW = {
    "use_flow_sigmas": False,
    "flow_shift": 1.0,
    "use_dynamic_shifting": False,
    "time_shift_type": "exponential",
}
_MULTISTEP = _BETAS | _THRESHOLD | _SHAPES | _FLOW | {"solver_order": 2}
_DPM = _MULTISTEP | {
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "lower_order_final": True,
    "final_sigmas_type": "zero",
    "lambda_min_clipped": -math.inf,
    "variance_type": None,
}
_EDM = {
    "num_train_timesteps": 1000,
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "sigma_schedule": "karras",
    "prediction_type": "epsilon",
    "rho": 7.0,
    "final_sigmas_type": "zero",
}
_CLIP = {"clip_sample": True, "clip_sample_range": 1.0}
_VE = _BETAS | _SPACED | _SHAPES
_SLOW = {"beta_start": 0.00085, "beta_end": 0.012}
_ALL = ("epsilon", "sample", "v_prediction", "flow_prediction")

CLASSES: dict[str, Facts] = {
    "DDIMScheduler": Facts(
        _BETAS
        | _THRESHOLD
        | _CLIP
        | {
            "set_alpha_to_one": True,
            "steps_offset": 0,
            "timestep_spacing": "leading",
            "rescale_betas_zero_snr": False,
        },
        {"eta": 0.0, "use_clipped_model_output": False},
    ),
    "DDPMScheduler": Facts(
        _BETAS
        | _THRESHOLD
        | _CLIP
        | {
            "variance_type": "fixed_small",
            "steps_offset": 0,
            "timestep_spacing": "leading",
            "rescale_betas_zero_snr": False,
        },
        {"timesteps": None},
    ),
    "PNDMScheduler": Facts(
        _BETAS
        | {
            "skip_prk_steps": False,
            "set_alpha_to_one": False,
            "timestep_spacing": "leading",
            "steps_offset": 0,
        },
        {},
        ("epsilon", "v_prediction"),
    ),
    "DPMSolverMultistepScheduler": Facts(
        _DPM
        | _SPACED
        | {
            "euler_at_final": False,
            "use_lu_lambdas": False,
            "rescale_betas_zero_snr": False,
        },
        {"mu": None, "timesteps": None},
        _ALL,
    ),
    "DPMSolverSinglestepScheduler": Facts(
        _DPM | {"lower_order_final": False}, {"mu": None, "timesteps": None}, _ALL
    ),
    "DEISMultistepScheduler": Facts(
        _MULTISTEP
        | _SPACED
        | {
            "algorithm_type": "deis",
            "solver_type": "logrho",
            "lower_order_final": True,
        },
        {"mu": None},
        _ALL,
    ),
    "UniPCMultistepScheduler": Facts(
        _MULTISTEP
        | _SPACED
        | {
            "predict_x0": True,
            "solver_type": "bh2",
            "lower_order_final": True,
            "disable_corrector": (),
            "solver_p": None,
            "final_sigmas_type": "zero",
            "rescale_betas_zero_snr": False,
            "sigma_min": None,
            "sigma_max": None,
            "shift_terminal": None,
        },
        {"mu": None, "sigmas": None},
        _ALL,
    ),
    "EulerDiscreteScheduler": Facts(
        _VE
        | {
            "interpolation_type": "linear",
            "sigma_min": None,
            "sigma_max": None,
            "timestep_type": "discrete",
            "rescale_betas_zero_snr": False,
            "final_sigmas_type": "zero",
        },
        {
            "timesteps": None,
            "sigmas": None,
            "s_churn": 0.0,
            "s_tmin": 0.0,
            "s_tmax": math.inf,
            "s_noise": 1.0,
        },
    ),
    "EulerAncestralDiscreteScheduler": Facts(
        _BETAS | _SPACED | {"rescale_betas_zero_snr": False}, {}
    ),
    "HeunDiscreteScheduler": Facts(
        _VE | _SLOW | _CLIP | {"clip_sample": False}, {"timesteps": None}
    ),
    "LMSDiscreteScheduler": Facts(_VE, {"order": 4}),
    "KDPM2DiscreteScheduler": Facts(_VE | _SLOW, {}, ("epsilon", "v_prediction")),
    "IPNDMScheduler": Facts(
        {"num_train_timesteps": 1000, "trained_betas": None}, {}, ("v_prediction",)
    ),
    "FlowMatchEulerDiscreteScheduler": Facts(
        _SHAPES
        | {
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
            "stochastic_sampling": False,
        },
        {"mu": None, "tokens": None, "sigmas": None, "timesteps": None},
        ("flow_prediction",),
    ),
    "FlowMatchHeunDiscreteScheduler": Facts(
        {"num_train_timesteps": 1000, "shift": 1.0}, {}, ("flow_prediction",)
    ),
    "EDMEulerScheduler": Facts(_EDM, {}, ("epsilon", "v_prediction")),
    "EDMDPMSolverMultistepScheduler": Facts(
        _EDM
        | _THRESHOLD
        | {
            "solver_order": 2,
            "algorithm_type": "dpmsolver++",
            "solver_type": "midpoint",
            "lower_order_final": True,
            "euler_at_final": False,
        },
        {},
        ("epsilon", "v_prediction"),
    ),
}
"""Every class that can be read, by the library's name."""

EDM = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
"""Classes whose network is preconditioned as in EDM."""

EXACT = ("DDIMScheduler", "DDPMScheduler")
"""Classes in which zero terminal SNR is exact."""

SCALED = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "KDPM2DiscreteScheduler",
)
"""Classes that integrate x / alpha."""
