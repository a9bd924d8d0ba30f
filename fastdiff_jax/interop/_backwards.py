"""From data to noise: the inverse schedulers of diffusers.

Their paths are the trained ones with the clock reversed, so that times still fall.
"""

from typing import Any

import numpy as np

from .. import plan as plans
from ..numerics import as_float
from ..plan import Plan
from ..trees import pytree
from ..typing import Array, ArrayLike
from ._schedules import bend, kind, spaced, table, to_label, trained
from .grids import Grid

__all__ = ["Backwards", "ddim_inverse", "dpm_inverse", "inverse_grid"]

Settings = dict[str, Any]


@pytree
class Backwards:
    """A path of labels with its clock reversed: time u = T - 1 - label.

    `start` is the data end, `end` and `clean` the noise end.
    """

    inner: Any

    @property
    def start(self) -> float:
        """The data, label -1."""
        return self.inner.start - self.inner.clean

    @property
    def end(self) -> float:
        """The last label."""
        return 0.0

    clean = end

    @property
    def domain(self) -> tuple[float, float]:
        """(0, T)."""
        return 0.0, self.start

    def _label(self, t: ArrayLike) -> Array:
        _, (t,) = as_float(t)
        return self.inner.start - t

    def alpha(self, t: ArrayLike) -> Array:
        """Signal scale."""
        return self.inner.alpha(self._label(t))

    def sigma(self, t: ArrayLike) -> Array:
        """Noise scale."""
        return self.inner.sigma(self._label(t))

    def half_log_snr(self, t: ArrayLike) -> Array:
        """Lambda, which falls as the time does."""
        return self.inner.half_log_snr(self._label(t))

    def half_log_snr_inverse(self, half_log_snr: ArrayLike) -> Array:
        """The time at which lambda has the given value."""
        return self.inner.start - self.inner.half_log_snr_inverse(half_log_snr)

    def rates(self, t: ArrayLike) -> tuple[Array, Array]:
        """D alpha / dt and d sigma / dt."""
        alpha, sigma = self.inner.rates(self._label(t))
        return -alpha, -sigma

    def model_time(self, t: ArrayLike) -> Array:
        """The label."""
        return self._label(t)


def inverse_grid(name: str, settings: Settings, steps: int, options: Settings) -> Grid:
    """DDIMInverse: the state is T // N labels below the one the network is told.

    `lands` are the levels after the steps.

    Raises:
        ValueError: more steps than labels.
    """
    del options
    path = trained(settings, exact=True)
    count = settings["num_train_timesteps"]
    if steps > count:
        raise ValueError(f"{name} takes at most {count} steps, got {steps}.")
    labels = np.round(spaced(settings, steps, count))[::-1]
    below = labels - count // steps
    first = path.clean if settings["set_alpha_to_one"] else 0.0
    below = np.where(below < 0, first, below)
    ends = path.start - labels
    ts = np.append(path.start - below, ends[-1])
    return Grid(Backwards(path), ts, labels, lands=ends)


def ddim_inverse(
    settings: Settings, grid: Grid, options: Settings
) -> tuple[Plan, np.ndarray]:
    """DDIM upwards, alpha_t D + sigma_t E, both from one answer of the network."""
    del settings, options
    path, ends = grid.process, np.asarray(grid.lands)
    level = [v(grid.ts) for v in (path.alpha, path.sigma)]
    known = plans.Level(grid.ts[:-1], *(v[:-1] for v in level))
    end = plans.Level(grid.ts[-1], *(v[-1] for v in level))
    move = path.alpha(ends) * plans.prediction(0) + path.sigma(ends) * plans.prediction(
        1
    )
    return plans.build(known, end, [(0, move)], reads=("data", "noise")), grid.labels


def dpm_inverse(name: str, settings: Settings, steps: int, options: Settings) -> Grid:
    """The DPM-Solver's labels or levels upwards, to the noisiest one that is used."""
    del name, options
    path = trained(settings)
    known, curve = table(path), kind(settings)
    last = len(known) - int((-np.log(known) < settings["lambda_min_clipped"]).sum())
    if curve is None:
        labels = np.round(_upwards(settings, steps, last))
        rho, top = np.interp(labels, np.arange(len(known)), known), last - 1.0
        times = labels
    else:
        rho = bend(curve, known[-1], known[0], steps)
        labels = to_label(rho, known)
        labels = np.trunc(np.round(labels) if curve == "karras" else labels)
        times = path.half_log_snr_inverse(-np.log(rho))
        top = times[-1]
    return Grid(Backwards(path), path.start - np.append(times, top), labels)


def _upwards(settings: Settings, steps: int, last: int) -> np.ndarray:
    """Labels from the lowest up; of N + 1 points the highest is left out."""
    if settings["timestep_spacing"] == "trailing":
        return spaced(settings, steps, last)[::-1]
    if settings["timestep_spacing"] == "linspace":
        return np.linspace(0, last - 1, steps + 1)[:-1]
    return np.arange(steps) * (last // (steps + 1)) + float(settings["steps_offset"])
