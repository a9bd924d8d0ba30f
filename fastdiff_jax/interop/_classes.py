"""Facts about the published scheduler classes: their settings and defaults.

Every class lists the settings its constructor takes, with the library's defaults, and
the options its `set_timesteps` and `step` take.
"""

import math

from ._facts import (
    ALGORITHMS,
    ALL,
    BETAS,
    CLIP,
    COG,
    DPM,
    DPM_VALUES,
    FEW,
    FEW_OPTIONS,
    FLOW_MATCH,
    KARRAS,
    MULTISTEP,
    NOISE_V,
    SHAPES,
    SLOW,
    SPACED,
    THRESHOLD,
    VE,
    Facts,
)
from ._flax import FLAX, MAXDIFFUSION

__all__ = ["CLASSES", "EDM", "EXACT", "SCALED", "base"]

DIFFUSERS: dict[str, Facts] = {
    "DDIMScheduler": Facts(
        BETAS
        | THRESHOLD
        | CLIP
        | {
            "set_alpha_to_one": True,
            "steps_offset": 0,
            "timestep_spacing": "leading",
            "rescale_betas_zero_snr": False,
        },
        {"eta": 0.0, "use_clipped_model_output": False},
    ),
    "DDPMScheduler": Facts(
        BETAS
        | THRESHOLD
        | CLIP
        | {
            "variance_type": "fixed_small",
            "steps_offset": 0,
            "timestep_spacing": "leading",
            "rescale_betas_zero_snr": False,
        },
        {"timesteps": None},
    ),
    "PNDMScheduler": Facts(
        BETAS
        | {
            "skip_prk_steps": False,
            "set_alpha_to_one": False,
            "timestep_spacing": "leading",
            "steps_offset": 0,
        },
        {},
        NOISE_V,
    ),
    "DPMSolverMultistepScheduler": Facts(
        DPM
        | SPACED
        | {
            "euler_at_final": False,
            "use_lu_lambdas": False,
            "rescale_betas_zero_snr": False,
        },
        {"mu": None, "timesteps": None},
        ALL,
        DPM_VALUES,
    ),
    "DPMSolverSinglestepScheduler": Facts(
        DPM | {"lower_order_final": False},
        {"mu": None, "timesteps": None},
        ALL,
        DPM_VALUES,
    ),
    "DEISMultistepScheduler": Facts(
        MULTISTEP
        | SPACED
        | {
            "algorithm_type": "deis",
            "solver_type": "logrho",
            "lower_order_final": True,
        },
        {"mu": None},
        ALL,
        DPM_VALUES,
    ),
    "UniPCMultistepScheduler": Facts(
        MULTISTEP
        | SPACED
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
        ALL,
    ),
    "EulerDiscreteScheduler": Facts(
        VE
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
        BETAS | SPACED | {"rescale_betas_zero_snr": False}, {}
    ),
    "HeunDiscreteScheduler": Facts(
        VE | SLOW | CLIP | {"clip_sample": False}, {"timesteps": None}
    ),
    "LMSDiscreteScheduler": Facts(VE, {"order": 4}),
    "KDPM2DiscreteScheduler": Facts(VE | SLOW, {}, NOISE_V),
    "IPNDMScheduler": Facts(
        {"num_train_timesteps": 1000, "trained_betas": None}, {}, ("v_prediction",)
    ),
    "FlowMatchEulerDiscreteScheduler": Facts(
        FLOW_MATCH | {"stochastic_sampling": False},
        {"mu": None, "tokens": None, "sigmas": None, "timesteps": None},
        ("flow_prediction",),
    ),
    "FlowMatchHeunDiscreteScheduler": Facts(
        {"num_train_timesteps": 1000, "shift": 1.0}, {}, ("flow_prediction",)
    ),
    "EDMEulerScheduler": Facts(KARRAS, {}, NOISE_V),
    "EDMDPMSolverMultistepScheduler": Facts(
        KARRAS
        | THRESHOLD
        | {
            "solver_order": 2,
            "algorithm_type": "dpmsolver++",
            "solver_type": "midpoint",
            "lower_order_final": True,
            "euler_at_final": False,
        },
        {},
        NOISE_V,
    ),
    "SASolverScheduler": Facts(
        BETAS
        | THRESHOLD
        | SHAPES
        | SPACED
        | {
            "predictor_order": 2,
            "corrector_order": 2,
            "tau_func": None,
            "algorithm_type": "data_prediction",
            "lower_order_final": True,
            "use_flow_sigmas": False,
            "flow_shift": 1.0,
            "lambda_min_clipped": -math.inf,
            "variance_type": None,
        },
        {"tau_func": None},
        ALL,
        {"algorithm_type": ("data_prediction", "noise_prediction")},
    ),
    "KDPM2AncestralDiscreteScheduler": Facts(VE | SLOW, {}, NOISE_V),
    "DPMSolverSDEScheduler": Facts(
        VE | SLOW | {"noise_sampler_seed": None}, {"s_noise": 1.0}, NOISE_V
    ),
    "LCMScheduler": Facts(FEW, FEW_OPTIONS),
    "TCDScheduler": Facts(FEW, FEW_OPTIONS | {"eta": 0.3}),
    "CosineDPMSolverMultistepScheduler": Facts(
        KARRAS
        | {
            "sigma_min": 0.3,
            "sigma_max": 500,
            "sigma_data": 1.0,
            "sigma_schedule": "exponential",
            "prediction_type": "v_prediction",
            "solver_order": 2,
            "solver_type": "midpoint",
            "lower_order_final": True,
            "euler_at_final": False,
        },
        {},
        NOISE_V,
        pinned={"algorithm_type": "sde-dpmsolver++"},
    ),
    "CogVideoXDDIMScheduler": Facts(COG, {}),
    "CogVideoXDPMScheduler": Facts(COG, {}),
    "DDIMInverseScheduler": Facts(
        BETAS
        | CLIP
        | {
            "set_alpha_to_one": True,
            "steps_offset": 0,
            "timestep_spacing": "leading",
            "rescale_betas_zero_snr": False,
        },
        {},
        values={"timestep_spacing": ("leading", "trailing")},
    ),
    "DPMSolverMultistepInverseScheduler": Facts(
        BETAS
        | THRESHOLD
        | SHAPES
        | SPACED
        | {
            "solver_order": 2,
            "algorithm_type": "dpmsolver++",
            "solver_type": "midpoint",
            "lower_order_final": True,
            "euler_at_final": False,
            "use_flow_sigmas": False,
            "flow_shift": 1.0,
            "lambda_min_clipped": -math.inf,
            "variance_type": None,
        },
        {},
        ALL,
        {"algorithm_type": ALGORITHMS},
    ),
    "FlowMatchLCMScheduler": Facts(
        FLOW_MATCH | {"scale_factors": None, "upscale_mode": "bicubic"},
        {"mu": None, "tokens": None, "sigmas": None, "timesteps": None},
        ("flow_prediction",),
        like="FlowMatchEulerDiscreteScheduler",
        pinned={"stochastic_sampling": True},
    ),
}

CLASSES: dict[str, Facts] = DIFFUSERS | FLAX | MAXDIFFUSION
"""Every class that can be read, by the library's name."""


def base(name: str) -> str:
    """The class whose grid, method and network a class shares, or the class itself."""
    return CLASSES[name].like or name


EDM = (
    "EDMEulerScheduler",
    "EDMDPMSolverMultistepScheduler",
    "CosineDPMSolverMultistepScheduler",
)
"""Classes whose network is preconditioned as in EDM."""

EXACT = (
    "DDIMScheduler",
    "DDPMScheduler",
    "LCMScheduler",
    "TCDScheduler",
    "CogVideoXDDIMScheduler",
    "CogVideoXDPMScheduler",
    "DDIMInverseScheduler",
)
"""Classes in which zero terminal SNR is exact."""

SCALED = (
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDEScheduler",
)
"""Classes that integrate x / alpha."""
