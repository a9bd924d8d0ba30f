"""Read a published scheduler_config.json: the same levels, labels and samples.

scheduler = from_scheduler_config("scheduler_config.json", steps=20)
denoiser = scheduler.denoiser(network)
x0 = fd.sample(scheduler.plan, denoiser, scheduler.initial * noise)
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..guards import checked
from ..plan import Plan
from ..typing import Array, Denoiser, Process, PyTree
from ._classes import EDM, EXACT, SCALED
from ._parse import count, options_of, read
from ._schedules import trained
from .denoisers import PREDICTIONS, network
from .grids import GRIDS, Grid
from .schedulers import BUILDERS

__all__ = ["Scheduler", "from_scheduler_config", "read"]

Settings = dict[str, Any]


class Scheduler(NamedTuple):
    """A published scheduler as a plan.

    Attributes:
        name: the library's class.
        process: the path in the coordinates that the scheduler integrates. Euler,
            Heun, LMS and KDPM2 integrate x / alpha, so their process has alpha = 1;
            their networks see x / sqrt(sigma^2 + 1), which `denoiser` takes care of.
        ts: times of the levels in that process, (N + 1,).
        plan: one row per call of the network. Its controls are {'model_time': labels},
            which every model of `fd.models` and `denoiser` hands to the network.
        labels: what the network is told at each row, (R,). Where the library rounds,
            this is not quite the level that the row works with.
        prediction: 'noise', 'data', 'v' or 'velocity': what the network returns.
        initial: what unit noise is multiplied by to start (`init_noise_sigma`).
        settings: the config with every default filled in.
    """

    name: str
    process: Process
    ts: np.ndarray
    plan: Plan
    labels: np.ndarray
    prediction: str
    initial: float
    settings: Settings

    def label_levels(self) -> tuple[Array, Array]:
        """Alpha and sigma that the labels stand for, (R,) each.

        In the coordinates of `process`. They differ from the rows' own levels where the
        library rounds labels: a network evaluated there is 1e-3 off.
        """
        settings, labels = self.settings, np.asarray(self.labels)
        if self.name == "IPNDMScheduler":
            return self.plan.rows.level.alpha, self.plan.rows.level.sigma
        log = self.name in EDM or (
            settings.get("timestep_type") == "continuous" and self.prediction == "v"
        )
        if log:
            return np.ones_like(labels), np.exp(4 * labels)
        if self.prediction == "velocity" or settings.get("use_flow_sigmas"):
            t = labels / settings["num_train_timesteps"]
            t = 1 - t if settings.get("invert_sigmas") else t
            return 1 - t, t
        path = trained(settings, self.name in EXACT)
        if self.name in SCALED:
            return np.ones_like(labels), np.exp(-path.half_log_snr(labels))
        return path.alpha(labels), path.sigma(labels)

    def denoiser(
        self,
        fn: Callable,
        condition: PyTree = None,
        *,
        params: PyTree = None,
        guidance: Callable[[Denoiser], Denoiser] | None = None,
        dtype: Any = None,
        batch_time: bool = False,
    ) -> Any:
        """The network as a denoiser for `plan`: scaling, label, conversion, clipping.

        Args:
            fn: fn([params,] x, label[, condition]) -> prediction, a tree like x. It
                gets x as the library's `scale_model_input` would hand it over.
            condition, params, dtype, batch_time: as in `fd.models.denoiser`.
            guidance: denoiser -> denoiser, applied before the config's clipping or
                thresholding, e.g. `lambda d: fd.guidance.cfg(d, 3.0, ...)`.
        """
        return network(
            self.name,
            self.settings,
            self.process,
            fn,
            predictions=self.plan.predictions,
            guidance=guidance,
            condition=condition,
            params=params,
            dtype=dtype,
            batch_time=batch_time,
        )


def _later(name: str, grid: Grid, begin: int) -> Grid:
    """The grid without its first steps."""
    if not 0 <= begin < len(grid.labels):
        raise ValueError(
            f"begin must lie in 0..{len(grid.labels) - 1}, a step of the grid; got "
            f"{begin}."
        )
    if begin and name in ("PNDMScheduler", "DPMSolverSinglestepScheduler"):
        raise ValueError(f"begin={begin}: {name} can only start at its first step.")
    lands = None if grid.lands is None else grid.lands[begin:]
    return grid._replace(ts=grid.ts[begin:], labels=grid.labels[begin:], lands=lands)


@checked
def from_scheduler_config(
    config: Mapping[str, Any] | str | os.PathLike[str],
    steps: int | None = None,
    *,
    begin: int = 0,
    **options: Any,
) -> Scheduler:
    """A published scheduler_config.json as a plan with the library's own numbers.

    Grids, network labels, end levels, order rules and published weights are the
    library's, computed in float64 (it works in float32, so its own samples differ by
    1e-6). Step counts at which its grid breaks (a label -1) end one step earlier.

    Args:
        config: a scheduler_config.json, its path or its contents.
        steps: number of steps N; None where `timesteps` or `sigmas` is given.
        begin: steps to leave out at the start, to go on from a noised sample; a method
            with a history warms up there.
        options: arguments of the library's `set_timesteps` and `step`: `mu` (or
            `tokens`), `timesteps`, `sigmas`, `eta`, `use_clipped_model_output`,
            `order`, `s_churn`, `s_tmin`, `s_tmax`, `s_noise`, where the class has them.

    Returns:
        The scheduler: process, times, plan, labels, what the network predicts.

    Raises:
        ValueError: an unknown or contradictory setting or option, by name.

    Example:
        >>> config = {"_class_name": "DDIMScheduler", "steps_offset": 1}
        >>> from_scheduler_config(config, 4).labels
        array([751., 501., 251.,   1.])
    """
    name, settings = read(config)
    options = options_of(name, settings, options)
    steps = count(name, steps, options)
    grid = _later(name, GRIDS[name](name, settings, steps, options), begin)
    options["steps"] = steps
    if not (np.diff(grid.ts) <= 0).all():
        at = int(np.argmax(np.diff(grid.ts) > 0))
        raise ValueError(
            f"{name} with {steps} steps has no decreasing grid: level {at} is "
            f"{grid.ts[at]:g}, level {at + 1} is {grid.ts[at + 1]:g}. Use fewer steps."
        )
    plan, labels = BUILDERS[name](settings, grid, options)
    labels = np.asarray(labels, np.float64)
    rows = plan.rows._replace(controls={"model_time": labels})
    return Scheduler(
        name,
        grid.process,
        grid.ts,
        dataclasses.replace(plan, rows=rows),
        labels,
        PREDICTIONS[settings["prediction_type"]],
        grid.initial,
        settings,
    )
