"""Facts about the flax scheduler classes: of diffusers up to 0.35, of maxdiffusion.

They know fewer settings than the classes they are named after and end otherwise;
`Facts.pinned` says where.
"""

from ._facts import (
    ALL,
    BETAS,
    CLIP,
    NOISE_V,
    SHAPES,
    SPACED,
    THRESHOLD,
    Facts,
)

__all__ = ["FLAX", "MAXDIFFUSION", "REFUSED"]

FLAX: dict[str, Facts] = {  # diffusers up to 0.35
    "FlaxDDIMScheduler": Facts(
        BETAS | CLIP | {"set_alpha_to_one": True, "steps_offset": 0},
        {},
        like="DDIMScheduler",
    ),
    "FlaxDDPMScheduler": Facts(
        BETAS | {"variance_type": "fixed_small", "clip_sample": True},
        {},
        values={"variance_type": ("fixed_small", "fixed_large")},
        like="DDPMScheduler",
    ),
    "FlaxPNDMScheduler": Facts(
        BETAS | {"skip_prk_steps": False, "set_alpha_to_one": False, "steps_offset": 0},
        {},
        NOISE_V,
        like="PNDMScheduler",
        pinned={"set_alpha_to_one": False},
    ),
    "FlaxDPMSolverMultistepScheduler": Facts(
        BETAS
        | THRESHOLD
        | SPACED
        | {
            "solver_order": 2,
            "algorithm_type": "dpmsolver++",
            "solver_type": "midpoint",
            "lower_order_final": True,
        },
        {},
        values={
            "algorithm_type": ("dpmsolver++", "dpmsolver"),
            "solver_type": ("midpoint", "heun"),
        },
        like="DPMSolverMultistepScheduler",
        pinned={"final_sigmas_type": "sigma_min"},
    ),
    "FlaxEulerDiscreteScheduler": Facts(
        BETAS | {"timestep_spacing": "linspace"},
        {},
        NOISE_V,
        {"timestep_spacing": ("linspace", "leading")},
        like="EulerDiscreteScheduler",
        pinned={"steps_offset": 1},
    ),
}
MAXDIFFUSION: dict[str, Facts] = {
    "FlaxUniPCMultistepScheduler": Facts(
        BETAS
        | THRESHOLD
        | SHAPES
        | SPACED
        | {
            "solver_order": 2,
            "predict_x0": True,
            "solver_type": "bh2",
            "lower_order_final": True,
            "disable_corrector": (),
            "solver_p": None,
            "use_flow_sigmas": False,
            "flow_shift": 1.0,
            "final_sigmas_type": "zero",
            "rescale_zero_terminal_snr": False,
        },
        {},
        ALL,
        {"solver_type": ("bh1", "bh2")},
        like="UniPCMultistepScheduler",
    ),
    "FlaxFlowMatchScheduler": Facts(
        {
            "num_train_timesteps": 1000,
            "shift": 3.0,
            "sigma_max": 1.0,
            "sigma_min": 0.003 / 1.002,
            "inverse_timesteps": False,
            "extra_one_step": False,
            "reverse_sigmas": False,
            "use_dynamic_shifting": False,
            "time_shift_type": "linear",
        },
        {"denoising_strength": 1.0, "shift": None},
        ("flow_prediction",),
    ),
    "FlaxRectifiedFlowMultistepScheduler": Facts(
        {
            "num_train_timesteps": 1000,
            "trained_betas": None,
            "beta_schedule": "linear",
            "rescale_zero_terminal_snr": False,
            "beta_start": 0.0001,
            "beta_end": 0.02,
            "shifting": None,
            "base_resolution": 1024,
            "target_shift_terminal": None,
            "sampler": "Uniform",
            "shift": None,
        },
        {"samples_shape": None, "timesteps": None},
        ("flow_prediction",),
    ),
}
MAXDIFFUSION["RectifiedFlowScheduler"] = MAXDIFFUSION[  # its name in the files
    "FlaxRectifiedFlowMultistepScheduler"
]._replace(like="FlaxRectifiedFlowMultistepScheduler")

REFUSED = {
    "FlaxLMSDiscreteScheduler": "its published step joins the derivatives of all "
    "elements into one list and uses single numbers of it; use LMSDiscreteScheduler",
    "FlaxKarrasVeScheduler": "its published grid holds squares of sigma, and its draw "
    "of noise fails; build fd.solvers.edm_churn on fd.grids.karras",
    "FlaxScoreSdeVeScheduler": "its published step fails on every input; build "
    "fd.solvers.predictor_corrector with fd.processes.ve",
}
"""Published classes that have no numbers to reproduce: why, and what instead."""
