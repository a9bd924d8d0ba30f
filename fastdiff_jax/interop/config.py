"""Read a published scheduler_config.json: the same levels, labels and samples.

scheduler = from_scheduler_config("scheduler_config.json", steps=20)
denoiser = scheduler.denoiser(network)
x0 = fd.sample(scheduler.plan, denoiser, scheduler.initial * noise)
"""

import dataclasses
import difflib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..plan import Plan
from ..typing import Array, Denoiser, Process, PyTree
from ._classes import CLASSES, EDM, RULES, SCALED, inert
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
        path = trained(settings, exact=True)
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


def _near(word: str, known: Any) -> str:
    found = difflib.get_close_matches(str(word), list(known), 1, 0.6)
    return f" Did you mean {found[0]!r}?" if found else ""


def _load(config: Mapping[str, Any] | str | os.PathLike[str]) -> Mapping[str, Any]:
    if isinstance(config, Mapping):
        return config
    path = Path(config)
    try:
        found = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}).") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(found).__name__}.")
    return found


def read(config: Mapping[str, Any] | str | os.PathLike[str]) -> tuple[str, Settings]:
    """The class and the checked settings of a config, defaults filled in.

    Keys that start with an underscore are not settings. A setting that only another
    class has is dropped, as the library does, unless it is a switch that is on and
    that would change the samples: that is an error.

    Args:
        config: a scheduler_config.json, its path or its contents.

    Returns:
        The class without a "Flax" in front, and its settings.

    Raises:
        ValueError: naming the key, the value and what is allowed.
    """
    config = _load(config)
    name = config.get("_class_name")
    if name is None:
        raise ValueError(
            "the config has no '_class_name'; a scheduler_config.json names its class, "
            f"one of {', '.join(CLASSES)}."
        )
    name = str(name).removeprefix("Flax")
    if name not in CLASSES:
        raise ValueError(
            f"_class_name={config['_class_name']!r} cannot be read."
            f"{_near(name, CLASSES)} Known: {', '.join(CLASSES)}."
        )
    facts, settings = CLASSES[name], dict(CLASSES[name].settings)
    for key, value in config.items():
        if key.startswith("_"):
            continue
        if key not in RULES:
            raise ValueError(
                f"unknown setting {key}={value!r} for {name}.{_near(key, RULES)} "
                f"Allowed: {', '.join(sorted(facts.settings))}."
            )
        if not RULES[key].test(value):
            raise ValueError(f"{key} must be {RULES[key].words}, got {value!r}.")
        if key in settings or key == "prediction_type":
            settings[key] = value
        elif not inert(key, value):
            raise ValueError(
                f"{key}={value!r} has no effect on {name}, which has no such setting. "
                f"Remove it, or use one of: {', '.join(sorted(facts.settings))}."
            )
    _agree(name, settings)
    return name, settings


def _agree(name: str, settings: Settings) -> None:
    """Raise ValueError for settings that contradict each other or the class."""
    curves = [
        k for k in settings if k.startswith("use_") and k.endswith(("mas", "das"))
    ]
    curves = [k for k in curves if settings[k] and k != "use_flow_sigmas"]
    if len(curves) > 1:
        raise ValueError(f"at most one of these may be true: {', '.join(curves)}.")
    flow = settings.get("use_flow_sigmas", False)
    legal = CLASSES[name].predictions
    kind = settings.setdefault("prediction_type", legal[0])
    if kind not in legal:
        raise ValueError(
            f"prediction_type must be one of {', '.join(legal)} for {name}, got {kind!r}."
        )
    if kind == "flow_prediction" and "use_flow_sigmas" in settings and not flow:
        raise ValueError(
            "prediction_type='flow_prediction' needs use_flow_sigmas=true, got false."
        )
    if flow and kind == "v_prediction":
        raise ValueError(
            "prediction_type='v_prediction' does not go with use_flow_sigmas=true; use "
            "'flow_prediction'."
        )
    if flow and curves and name != "UniPCMultistepScheduler":
        raise ValueError(f"use_flow_sigmas=true does not go with {curves[0]}=true.")
    if settings.get("shift_terminal") and not settings.get("use_flow_sigmas", True):
        raise ValueError(
            f"shift_terminal={settings['shift_terminal']} needs use_flow_sigmas=true."
        )
    linear = settings.get("time_shift_type") == "linear"
    if linear and name != "FlowMatchEulerDiscreteScheduler":
        raise ValueError(f"time_shift_type must be 'exponential' for {name}.")
    if settings.get("thresholding") and settings["sample_max_value"] < 1:
        raise ValueError(
            f"sample_max_value must be >= 1 with thresholding, got "
            f"{settings['sample_max_value']}."
        )


def _options(name: str, settings: Settings, given: Settings) -> Settings:
    """Call options with defaults, checked against the settings."""
    known = CLASSES[name].options
    for key, value in given.items():
        if key not in known:
            raise ValueError(
                f"{name} takes no option {key}={value!r}. Allowed: "
                f"{', '.join(sorted(known)) or 'none'}."
            )
    options = {**known, **given}
    if options.get("tokens") is not None:
        if options["mu"] is not None:
            raise ValueError("give mu or tokens, not both.")
        low, high = settings["base_image_seq_len"], settings["max_image_seq_len"]
        slope = (settings["max_shift"] - settings["base_shift"]) / (high - low)
        options["mu"] = settings["base_shift"] + slope * (options["tokens"] - low)
    dynamic = settings.get("use_dynamic_shifting", False)
    if options.get("mu") is not None and not dynamic:
        raise ValueError(f"mu={options['mu']} needs use_dynamic_shifting=true.")
    strict = name.startswith(("UniPC", "FlowMatch"))
    if dynamic and options.get("mu") is None and strict:
        raise ValueError(
            "use_dynamic_shifting=true needs mu (or tokens); pass mu=1.15."
        )
    custom = [k for k in ("sigmas", "timesteps") if options.get(k) is not None]
    if len(custom) > 1:
        raise ValueError("give sigmas or timesteps, not both.")
    curves = [k for k in settings if k.startswith("use_") and settings[k]]
    if custom and [
        k for k in curves if k not in ("use_flow_sigmas", "use_dynamic_shifting")
    ]:
        if not name.startswith("FlowMatch"):
            raise ValueError(f"{custom[0]} does not go with {curves[0]}=true.")
    if custom == ["sigmas"] and settings.get("use_flow_sigmas") is False:
        raise ValueError("sigmas needs use_flow_sigmas=true.")
    return options


def _count(name: str, steps: int | None, options: Settings) -> int:
    """The number of steps, from `steps` or from the caller's own levels."""
    given = options.get("timesteps")
    own = None if given is None else len(given)
    if options.get("sigmas") is not None:
        own = len(options["sigmas"]) - (name == "EulerDiscreteScheduler")
    steps = own if steps is None else steps
    if steps is None:
        raise ValueError("steps is needed where neither timesteps nor sigmas is given.")
    if isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 1:
        raise ValueError(f"steps must be a whole number >= 1, got {steps!r}.")
    if own is not None and own != steps:
        raise ValueError(f"steps={steps}, but the levels given make {own} steps.")
    return int(steps)


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
    options = _options(name, settings, options)
    steps = _count(name, steps, options)
    grid = _later(name, GRIDS[name](name, settings, steps, options), begin)
    options["steps"] = steps
    plan, labels = BUILDERS[name](settings, grid, options)
    labels = np.asarray(labels, np.float64)
    if not (np.diff(grid.ts) <= 0).all() or len(labels) != plan.length:
        at = int(np.argmax(np.diff(grid.ts) > 0))
        raise ValueError(
            f"{name} with {steps} steps has no decreasing grid: level {at} is "
            f"{grid.ts[at]:g}, level {at + 1} is {grid.ts[at + 1]:g}."
        )
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
