"""Published behaviour that nobody can mean: refused, with the reason and what to do.

What a published class does by mistake but runs with (a rounded label, a last step of
order one) is reproduced. Refused is what cannot give a sample: pure noise at the end, a
grid that does not start where the noise does, steps that fail or never get to the data.
"""

from typing import Any

from ._classes import base

__all__ = ["check_flaws", "check_steps"]

Settings = dict[str, Any]


def _inverted(settings: Settings) -> str:
    if settings.get("invert_sigmas") and settings.get("stochastic_sampling"):
        return (
            "invert_sigmas=true with renoising steps ends in pure noise as published; "
            "set invert_sigmas to false"
        )
    return ""


def _thresholded(name: str, settings: Settings) -> str:
    if not settings.get("thresholding"):
        return ""
    if name == "FlaxDPMSolverMultistepScheduler":
        return (
            "thresholding=true takes dynamic_thresholding_ratio for a percentage as "
            "published; use DPMSolverMultistepScheduler"
        )
    if name == "FlaxUniPCMultistepScheduler":
        return "thresholding=true fails as published; use UniPCMultistepScheduler"
    if settings.get("algorithm_type") == "noise_prediction":
        return (
            "thresholding=true with algorithm_type='noise_prediction' fails as "
            "published; use 'data_prediction'"
        )
    return ""


def _unipc(settings: Settings) -> str:
    """The flax UniPC of maxdiffusion."""
    bent = [k for k in settings if k.endswith("_sigmas") and "flow" not in k]
    bent = [k for k in bent if settings[k]]
    if bent:
        return f"{bent[0]}=true fails as published; use UniPCMultistepScheduler"
    zero = settings["final_sigmas_type"] == "zero"
    if zero and not settings["predict_x0"]:
        return (
            "predict_x0=false leaves the noise in the last step as published; use "
            "true, or final_sigmas_type='sigma_min'"
        )
    if zero and not settings["lower_order_final"]:
        return (
            "lower_order_final=false extrapolates over a nearly infinite last step as "
            "published; use true, or final_sigmas_type='sigma_min'"
        )
    return ""


def _backwards(settings: Settings) -> str:
    """The inverse DPM-Solver."""
    if settings["use_flow_sigmas"]:
        return (
            "use_flow_sigmas=true runs from noise to data as published, not back; use "
            "DPMSolverMultistepScheduler for samples"
        )
    if settings["algorithm_type"].startswith("sde"):
        return (
            f"algorithm_type={settings['algorithm_type']!r} takes the root of a "
            "negative number on the way to noise; use 'dpmsolver++'"
        )
    return ""


def _flow(settings: Settings) -> str:
    """The flow class of maxdiffusion."""
    if settings["inverse_timesteps"]:
        return "inverse_timesteps=true fails as published; use reverse_sigmas"
    if not settings["sigma_max"] <= 1:
        return (
            f"sigma_max={settings['sigma_max']} is beyond the noise end of the "
            "straight path; use a number in (0, 1]"
        )
    return ""


def check_flaws(name: str, settings: Settings) -> None:
    """Raise ValueError for settings with which the published class cannot be meant."""
    own = {
        "FlaxUniPCMultistepScheduler": _unipc,
        "DPMSolverMultistepInverseScheduler": _backwards,
        "FlaxFlowMatchScheduler": _flow,
    }
    found = _inverted(settings) or _thresholded(name, settings)
    found = found or (own[name](settings) if name in own else "")
    if found:
        raise ValueError(f"{name}: {found}.")


def check_steps(name: str, settings: Settings, steps: int, labels: Any) -> None:
    """Raise ValueError where the published grid of so many steps cannot be meant."""
    if settings.get("sigma_schedule") == "exponential" and steps == 1:
        raise ValueError(
            f"{name}: sigma_schedule='exponential' with one step is a grid of "
            "sigma_min alone as published, where no noise starts; use 2 steps or more, "
            "or sigma_schedule='karras'."
        )
    count = settings.get("num_train_timesteps", 1)
    if name == "FlaxDDPMScheduler" and count // steps > 1:
        raise ValueError(
            f"{name} goes down by one label in every step as published, so that "
            f"{steps} steps leave most of the noise of {count} labels; use "
            f"DDPMScheduler, or {count} steps."
        )
    looked_up = name.startswith("Flax") and base(name).startswith(("DPM", "UniPC"))
    if looked_up or name == "DPMSolverMultistepInverseScheduler":
        repeated = len(labels) - len(set(labels.tolist()))
        if repeated:
            raise ValueError(
                f"{name} with {steps} steps rounds {repeated} labels onto others, and "
                "the published class then loses its place; use fewer steps."
            )
