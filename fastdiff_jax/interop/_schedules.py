"""The schedule a network was trained on, and how the library moves between levels.

Levels rho_n = sigma_n / alpha_n are known at labels n = 0..T-1. Between labels rho is
linear in the label; the label of a level is linear in log rho. Both as published.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from scipy import stats

from ..processes import vp_discrete
from ..typing import Process

__all__ = ["bend", "betas", "kind", "spaced", "to_label", "table", "trained"]

Settings = dict[str, Any]
_SNAP = 1e-9  # a label this near a whole number is that number: log(exp(x)) rounds
_TINY = 2.0**-24  # the library's alpha^2 in place of 0 at zero terminal SNR


def _alpha_bar(name: str, t: np.ndarray) -> np.ndarray:
    if name == "squaredcos_cap_v2":
        return np.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    if name == "exp":
        return np.exp(-12.0 * t)
    side = np.copysign(1.0, 0.5 - t)  # laplace
    snr = np.exp(-0.5 * side * np.log(1 - 2 * np.abs(0.5 - t) + 1e-6))
    return np.sqrt(snr / (1 + snr))


def betas(settings: Settings) -> np.ndarray:
    """The training schedule's betas, (T,)."""
    count = settings["num_train_timesteps"]
    low, high = settings["beta_start"], settings["beta_end"]
    name = settings["beta_schedule"]
    if settings["trained_betas"] is not None:
        return np.asarray(settings["trained_betas"], np.float64)
    if name == "linear":
        return np.linspace(low, high, count)
    if name == "scaled_linear":
        return np.linspace(low**0.5, high**0.5, count) ** 2
    if name == "sigmoid":
        return (high - low) / (1 + np.exp(-np.linspace(-6, 6, count))) + low
    level = _alpha_bar(name, np.arange(count + 1) / count)
    return np.minimum(1 - level[1:] / level[:-1], 0.999)


def trained(settings: Settings, exact: bool = False) -> Any:
    """The path that the network was trained on, time = label.

    Args:
        settings: a parsed config.
        exact: with `rescale_betas_zero_snr`, alpha is exactly 0 at the last label
            (DDIM, DDPM); otherwise alpha^2 = 2^-24 there, as in the other classes.
    """
    beta = betas(settings)
    shift = settings.get("snr_shift_scale")
    if shift is not None:  # alpha^2 -> alpha^2 / (s + (1 - s) alpha^2), CogVideoX
        bar = np.cumprod(1 - beta)
        bar = bar / (shift + (1 - shift) * bar)
        beta = 1 - bar / np.append(1.0, bar[:-1])
    zero = settings.get("rescale_betas_zero_snr", False)
    if not zero or exact:
        return vp_discrete(beta, zero_terminal_snr=zero, interpolation="rho")
    whole = vp_discrete(beta, zero_terminal_snr=True, interpolation="rho")
    rho = whole.table.copy()  # may fall at the last label; only its inverse would mind
    rho[-1] = math.sqrt(1 / _TINY - 1)
    return dataclasses.replace(whole, table=rho, zero_terminal=False)


def table(path: Process) -> np.ndarray:
    """Rho at labels 0..T-1."""
    labels = np.arange(int(path.start) + 1)
    return np.exp(-path.half_log_snr(labels))


def to_label(rho: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fractional labels of levels, linear in log rho and clipped to 0..T-1.

    A table whose last level is not the highest (zero terminal SNR with alpha^2 = 2^-24)
    has two answers near it: the later label, as the library has it but for rounding.
    """
    rho, last = np.maximum(rho, 1e-10), len(known) - 1
    after = np.minimum.accumulate(known[::-1])[::-1]  # lowest level from here on
    low = np.searchsorted(after, rho * (1 + 1e-12), side="right") - 1
    low = np.clip(low, 0, last - 1)
    a, b = np.log(known[low]), np.log(known[low + 1])
    found = low + np.clip((np.log(rho) - a) / (b - a), 0, 1)
    whole = np.round(found)
    return np.where(np.abs(found - whole) < _SNAP, whole, found)


def kind(settings: Settings) -> str | None:
    """Which of the four curves over levels the settings ask for, if any."""
    for name in ("karras", "exponential", "beta"):
        if settings.get(f"use_{name}_sigmas"):
            return name
    return "lu" if settings.get("use_lu_lambdas") else None


def bend(
    name: str, low: float, high: float, steps: int, power: float = 7.0
) -> np.ndarray:
    """`steps` levels from high to low.

    'karras' is uniform in rho^(1 / power); 'exponential' and 'lu' are uniform in
    log rho; 'beta' takes quantiles of a Beta(0.6, 0.6) law.
    """
    ramp = np.linspace(0, 1, steps)
    if name == "karras":
        top, bottom = high ** (1 / power), low ** (1 / power)
        levels = (top + ramp * (bottom - top)) ** power
    elif name == "beta":
        levels = low + stats.beta.ppf(1 - ramp, 0.6, 0.6) * (high - low)
    else:
        levels = np.exp(np.linspace(math.log(high), math.log(low), steps))
    levels[-1], levels[0] = low, high  # no rounding at the ends
    return levels


def spaced(settings: Settings, steps: int, last: int, extra: int = 0) -> np.ndarray:
    """Labels by `timestep_spacing`, before any rounding of 'linspace'.

    Args:
        settings: a parsed config.
        steps: N.
        last: labels below this one are used.
        extra: 1 places N + 1 points and drops the lowest (DPM-Solver, UniPC, DEIS).

    Raises:
        ValueError: a first label beyond the last trained one.
    """
    count = settings["num_train_timesteps"]
    spacing = settings.get("timestep_spacing", "linspace")
    points = steps + extra
    if spacing == "linspace":
        return np.linspace(0, last - 1, points)[::-1][:steps]
    if spacing == "trailing":
        return np.round(np.arange(last, 0, -count / steps))[:steps] - 1
    labels = (np.arange(points) * (last // points))[::-1][:steps]
    labels = labels + float(settings["steps_offset"])
    if labels[0] > count - 1:
        raise ValueError(
            f"steps_offset={settings['steps_offset']} moves the first of {steps} steps "
            f"to label {labels[0]:g}, but labels end at {count - 1}. Use fewer steps "
            "or a smaller offset."
        )
    return labels
