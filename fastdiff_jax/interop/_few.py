"""Networks distilled to a few steps, LCM and TCD: labels, and steps that noise anew.

LCM takes the consistency function for the data and adds fresh noise: x' = alpha_t f +
sigma_t z. TCD walks to a cleaner level s by DDIM and noises up to t.
"""

from typing import Any

import numpy as np

from .. import solvers
from ..numerics import levels
from ..plan import Plan
from ._schedules import trained
from .grids import Grid

__all__ = ["few", "lcm", "tcd"]

Settings = dict[str, Any]


def few(name: str, settings: Settings, steps: int, options: Settings) -> Grid:
    """Labels of `original_inference_steps`, thinned; LCM ends clean, TCD at label 0.

    Raises:
        ValueError: more steps than labels, or labels of one's own with a strength.
    """
    path, strength = trained(settings, exact=True), options["strength"]
    labels = options["timesteps"]
    if labels is None:
        labels = _thinned(name, settings, steps, options)
    elif strength != 1:
        raise ValueError(
            f"strength={strength} does not go with timesteps: {name} then adds noise "
            "in its last step. Give the last timesteps alone."
        )
    labels = np.asarray(labels, np.float64)
    last = path.clean if name == "LCMScheduler" else 0.0
    return Grid(path, np.append(labels, last), labels)


def _thinned(
    name: str, settings: Settings, steps: int, options: Settings
) -> np.ndarray:
    count, strength = settings["num_train_timesteps"], options["strength"]
    original = options["original_inference_steps"]
    own = original is not None
    original = original if own else settings["original_inference_steps"]
    if original > count:
        raise ValueError(
            f"original_inference_steps must be a whole number in 1..{count} "
            f"(num_train_timesteps), got {original!r}."
        )
    if own and name == "TCDScheduler":  # every label, then
        known = np.arange(int(count * strength))
    else:
        known = np.arange(1, int(original * strength) + 1) * (count // original) - 1
    if steps > min(len(known), original):
        raise ValueError(
            f"{name} has {min(len(known), original)} labels to choose from "
            f"(original_inference_steps={original}, strength={strength}), got "
            f"{steps} steps. Use fewer."
        )
    at = np.floor(np.linspace(0, len(known), steps, endpoint=False)).astype(int)
    return known[::-1][at]


def lcm(settings: Settings, grid: Grid, options: Settings) -> tuple[Plan, np.ndarray]:
    """Fresh noise on the consistency function, which the denoiser makes."""
    del settings, options
    made = solvers.euler_ancestral(grid.process, grid.ts, eta=np.inf)
    return made, grid.labels


def tcd(settings: Settings, grid: Grid, options: Settings) -> tuple[Plan, np.ndarray]:
    """Gamma sampling: DDIM to label s = floor((1 - eta) t), then noise up to t."""
    del settings
    lv = levels(grid.process, grid.ts)
    s = np.floor((1 - options["eta"]) * grid.ts[1:])
    ratio = grid.process.sigma(s) / grid.process.alpha(s) / lv.rho[1:]
    fresh = np.maximum((1 - ratio) * (1 + ratio), 0.0)  # share of the variance
    whole = -np.expm1(-2 * lv.h)
    amount = np.sqrt(np.where(lv.h > 0, fresh / np.where(lv.h > 0, whole, 1), 0.0))
    return solvers.euler_ancestral(grid.process, grid.ts, eta=amount), grid.labels
