"""Grids of maxdiffusion's own flow schedulers, whose steps are Euler's."""

import math
from typing import Any

import numpy as np

from .. import processes
from .grids import Grid

__all__ = ["flow_match", "rectified_flow"]

Settings = dict[str, Any]
_THRESHOLD = 0.025  # noise level that the linear half of 'LinearQuadratic' reaches


def _shift(g: float, sigma: np.ndarray) -> np.ndarray:
    """The static shift of a flow time."""
    return g * sigma / (1 + (g - 1) * sigma)


def flow_match(name: str, settings: Settings, steps: int, options: Settings) -> Grid:
    """FlowMatch: sigma_max to sigma_min, shifted, then 0; labels are sigma T."""
    del name
    low, high = settings["sigma_min"], settings["sigma_max"]
    start = low + (high - low) * options["denoising_strength"]
    extra = int(settings["extra_one_step"])
    sigma = np.linspace(start, low, steps + extra)[:steps]
    g = options["shift"] if options["shift"] is not None else settings["shift"]
    dynamic = settings["use_dynamic_shifting"]
    if dynamic and settings["time_shift_type"] == "exponential":
        g = math.exp(g)
    if not g > 0:
        raise ValueError(f"shift must be a number > 0, got {g}.")
    sigma = _shift(g, sigma)
    count = settings["num_train_timesteps"]
    told = 1 - sigma if settings["reverse_sigmas"] else sigma
    process = processes.flow(float(count))
    return Grid(process, np.append(sigma, 0.0), told * count)


def rectified_flow(
    name: str, settings: Settings, steps: int, options: Settings
) -> Grid:
    """RectifiedFlow: times in (0, 1] that the network is told as they are."""
    count = settings["num_train_timesteps"]
    t = options["timesteps"]
    if t is None:
        t = _sampled(name, settings, min(steps, count))
        if options["samples_shape"] is not None:
            t = _resolved(settings, t, tuple(options["samples_shape"]))
    t = np.asarray(t, np.float64)
    return Grid(processes.flow(float(count)), np.append(t, 0.0), t)


def _sampled(name: str, settings: Settings, steps: int) -> np.ndarray:
    """Times by `sampler`."""
    plain = np.linspace(1.0, 1 / steps, steps)
    if settings["sampler"] == "Uniform" or steps == 1 and _quadratic(settings):
        return plain
    if _quadratic(settings):
        return _linear_quadratic(steps)
    if settings["shift"] is None:
        raise ValueError(f"sampler='Constant' needs shift for {name}, got null.")
    return _shift(math.exp(settings["shift"]), plain)


def _quadratic(settings: Settings) -> bool:
    return settings["sampler"] == "LinearQuadratic"


def _linear_quadratic(steps: int) -> np.ndarray:
    """From 1 down: linear over the first half of the steps, then quadratic."""
    half = steps // 2
    rest, gap = steps - half, half - _THRESHOLD * steps
    square = gap / (half * rest**2)
    slope = _THRESHOLD / half - 2 * gap / rest**2
    n = np.arange(steps)
    late = square * n**2 + slope * n + square * half**2
    return 1 - np.where(n < half, n * _THRESHOLD / half, late)


def _resolved(settings: Settings, t: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Times shifted by the size of the sample."""
    kind = settings["shifting"]
    if kind is None:
        return t
    tokens = shape[1] if len(shape) == 3 else math.prod(shape[2:])
    if kind == "SimpleDiffusion":
        if settings["base_resolution"] is None:
            raise ValueError("shifting='SimpleDiffusion' needs base_resolution.")
        return _shift(tokens / settings["base_resolution"], t)
    slope = (2.05 - 0.95) / (4096 - 1024)  # the published line through two sizes
    t = _shift(math.exp(0.95 + slope * (tokens - 1024)), t)
    terminal = settings["target_shift_terminal"]
    if terminal is None:
        return t
    rest = 1 - t
    return 1 - rest / (rest[-1] / (1 - terminal))
