"""Read a published scheduler_config.json: the same levels, labels and samples.

scheduler = from_scheduler_config("scheduler_config.json", steps=20)
denoiser = scheduler.denoiser(network)
x0 = fd.sample(scheduler.plan, denoiser, scheduler.initial * noise)
"""

import dataclasses
import math
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..guards import checked
from ..plan import Plan
from ..typing import Array, Denoiser, Process, PyTree
from ._classes import EDM, EXACT, SCALED, base
from ._flaws import check_steps
from ._parse import count, filled, load, options_of, read
from ._readers import reader
from ._schedules import trained
from ._unused import sentence, unused
from .denoisers import PREDICTIONS, network, output_map
from .grids import Grid

__all__ = ["Scheduler", "from_scheduler_config", "read"]

Settings = dict[str, Any]


class Scheduler(NamedTuple):
    """A published scheduler as a plan.

    Attributes:
        name: the library's class.
        process: the path in the coordinates that the scheduler integrates. Euler,
            Heun, LMS, KDPM2 and DPMSolverSDE integrate x / alpha, so their process has
            alpha = 1; their networks see x / sqrt(sigma^2 + 1), which `denoiser` takes
            care of. The inverse classes' clocks run from the data to the noise.
        ts: times of the levels in that process, (N + 1,).
        plan: one row per call of the network. Its controls are {'model_time': labels},
            which every model of `fd.models` and `denoiser` hands to the network.
        labels: what the network is told at each row, (R,). Where the library rounds,
            this is not quite the level that the row works with.
        prediction: 'noise', 'data', 'v' or 'velocity': what the network returns.
        initial: what unit noise is multiplied by to start (`init_noise_sigma`).
        settings: the config with every default filled in.
        unused: settings and options that change nothing here, and why: another
            class's, or idle beside the others. `from_scheduler_config` warns of them.
    """

    name: str
    process: Process
    ts: np.ndarray
    plan: Plan
    labels: np.ndarray
    prediction: str
    initial: float
    settings: Settings
    unused: dict[str, str] = {}

    def label_levels(self) -> tuple[Array, Array]:
        """Alpha and sigma that the labels stand for, (R,) each.

        In the coordinates of `process`. They differ from the rows' own levels where the
        library rounds labels: a network evaluated there is 1e-3 off.
        """
        settings, labels = self.settings, np.asarray(self.labels)
        name = base(self.name)
        if name == "IPNDMScheduler":
            return self.plan.rows.level.alpha, self.plan.rows.level.sigma
        if name == "CosineDPMSolverMultistepScheduler":
            return np.ones_like(labels), np.tan(labels * math.pi / 2)
        log = name in EDM or (
            settings.get("timestep_type") == "continuous" and self.prediction == "v"
        )
        if log:
            return np.ones_like(labels), np.exp(4 * labels)
        if self.prediction == "velocity" or settings.get("use_flow_sigmas"):
            own = name == "FlaxRectifiedFlowMultistepScheduler"
            t = labels if own else labels / settings["num_train_timesteps"]
            turned = settings.get("invert_sigmas") or settings.get("reverse_sigmas")
            t = 1 - t if turned else t
            return 1 - t, t
        path = trained(settings, name in EXACT)
        if name in SCALED:
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
    whole = isinstance(begin, int | np.integer) and not isinstance(begin, bool)
    if not whole or not 0 <= begin < len(grid.labels):
        raise ValueError(
            f"begin must lie in 0..{len(grid.labels) - 1}, a step of the grid; got "
            f"{begin!r}."
        )
    if begin and base(name) in ("PNDMScheduler", "DPMSolverSinglestepScheduler"):
        raise ValueError(f"begin={begin}: {name} can only start at its first step.")
    lands = None if grid.lands is None else grid.lands[begin:]
    return grid._replace(ts=grid.ts[begin:], labels=grid.labels[begin:], lands=lands)


def _made(
    name: str, settings: Settings, steps: int | None, begin: int, given: Settings
) -> Scheduler:
    """The scheduler of checked settings."""
    options = options_of(name, settings, given)
    steps = count(name, steps, options)
    read_as = reader(name)
    whole = read_as.grid(base(name), settings, steps, options)
    check_steps(name, settings, steps, whole.labels)
    grid = _later(name, whole, begin)
    options |= {"steps": steps, "begin": begin}
    if not (np.diff(grid.ts) <= 0).all():
        at = int(np.argmax(np.diff(grid.ts) > 0))
        raise ValueError(
            f"{name} with {steps} steps has no decreasing grid: level {at} is "
            f"{grid.ts[at]:g}, level {at + 1} is {grid.ts[at + 1]:g}. Use fewer steps."
        )
    plan, labels = read_as.build(settings, grid, options)
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


def _outcome(made: Scheduler) -> tuple:
    """All that a setting can change, as a tree to compare."""
    scale = made.settings.get("sigma_data"), made.settings.get("timestep_scaling")
    turned = made.settings.get("invert_sigmas"), made.settings.get("reverse_sigmas")
    said = (made.prediction, output_map(made.name, made.settings), turned)
    return made.plan, made.initial, scale, tuple(map(hash, said))


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
    1e-6; with zero terminal SNR and a bent grid its rounding may also tell the network
    another first label). Step counts at which its grid breaks (a label -1) end one
    step earlier. Names that begin with Flax get the flax classes' own ends. Published
    behaviour that nobody can mean is refused with the reason: noise at the end
    (`invert_sigmas` with renoising), one step on an exponential grid of sigma.

    A setting that changes nothing (one of another class, or idle beside the others) is
    said, in one warning and in `Scheduler.unused`.

    Args:
        config: a scheduler_config.json, its path or its contents.
        steps: number of steps N; None where `timesteps` or `sigmas` is given.
        begin: steps to leave out at the start, to go on from a noised sample; a method
            with a history warms up there.
        options: arguments of the library's `set_timesteps` and `step`: `mu` (or
            `tokens`), `timesteps`, `sigmas`, `eta`, `use_clipped_model_output`,
            `order`, `s_churn`, `s_tmin`, `s_tmax`, `s_noise`, `strength`,
            `original_inference_steps`, `tau_func`, `denoising_strength`, `shift`,
            `samples_shape`, where the class has them.

    Returns:
        The scheduler: process, times, plan, labels, what the network predicts.

    Raises:
        ValueError: an unknown or contradictory setting or option, by name.

    Example:
        >>> config = {"_class_name": "DDIMScheduler", "steps_offset": 1}
        >>> from_scheduler_config(config, 4).labels
        array([751., 501., 251.,   1.])
    """
    config = load(config)
    name, settings = read(config)
    made = _made(name, settings, steps, begin, options)

    def other(settings: Settings, options: Settings) -> tuple:
        return _outcome(_made(name, filled(name, settings), steps, begin, options))

    idle = unused(name, config, options, _outcome(made), other)
    if idle:
        warnings.warn(sentence(name, idle, {**config, **options}), stacklevel=2)
    return made._replace(unused=idle)
