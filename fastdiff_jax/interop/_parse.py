"""Read a scheduler_config.json and check it, and the options of a call against it."""

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..files import read_bytes
from ..guards import checked
from ._classes import CLASSES, base
from ._flaws import check_flaws
from ._flax import REFUSED
from ._rules import MOST, OPTIONS, RULES, inert

__all__ = ["chosen", "count", "filled", "known", "load", "options_of", "read"]

Settings = dict[str, Any]


def _near(word: str, known: Any) -> str:
    found = difflib.get_close_matches(str(word), list(known), 1, 0.6)
    return f" Did you mean {found[0]!r}?" if found else ""


def load(config: Mapping[str, Any] | str | os.PathLike[str]) -> Mapping[str, Any]:
    """The contents of a config."""
    if isinstance(config, Mapping):
        return config
    data, path = read_bytes(config), Path(config)
    try:  # not files.read_json: these files hold -Infinity
        found = json.loads(data.decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}).") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(found).__name__}.")
    return found


def _once(pairs: list[tuple[str, Any]]) -> Settings:
    """An object of JSON, every key of it once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [k for k, _ in pairs]
        twice = next(k for k in keys if keys.count(k) > 1)
        raise ValueError(f"the key {twice!r} stands there twice")
    return found


@checked
def read(config: Mapping[str, Any] | str | os.PathLike[str]) -> tuple[str, Settings]:
    """The class and the checked settings of a config, defaults filled in.

    Keys that start with an underscore are not settings. A setting that only another
    class has is dropped, as the library does (`from_scheduler_config` reports it),
    unless it is a switch that is on and that would change the samples: an error.

    Args:
        config: a scheduler_config.json, its path or its contents.

    Returns:
        The class, and its settings; those that a flax class has not are as it behaves.

    Raises:
        ValueError: naming the key, the value and what is allowed.
    """
    config = load(config)
    name = _named(config)
    facts, given = CLASSES[name], chosen(config)
    for key, value in given.items():
        if key not in RULES:
            raise ValueError(
                f"unknown setting {key}={value!r} for {name}.{_near(key, RULES)} "
                f"Allowed: {', '.join(sorted(facts.settings))}."
            )
        if not RULES[key].test(value):
            raise ValueError(f"{key} must be {RULES[key].words}, got {value!r}.")
        if not known(name, key) and not inert(key, value):
            raise ValueError(
                f"{key}={value!r} has no effect on {name}, which has no such setting. "
                f"Remove it, or use one of: {', '.join(sorted(facts.settings))}."
            )
    settings = filled(name, {k: v for k, v in given.items() if known(name, k)})
    return name, settings


def chosen(config: Mapping[str, Any]) -> Settings:
    """What a config sets: its keys but for those that start with an underscore."""
    return {k: v for k, v in config.items() if not str(k).startswith("_")}


def known(name: str, key: str) -> bool:
    """Whether a class has a setting."""
    return key in CLASSES[name].settings or key == "prediction_type"


def filled(name: str, given: Settings) -> Settings:
    """A class's settings, defaults filled in and checked against each other.

    Raises:
        ValueError: settings that contradict each other, or the class.
    """
    facts = CLASSES[name]
    shared = CLASSES[facts.like].settings if facts.like else {}
    settings = {**shared, **facts.settings, **given, **facts.pinned}
    if "rescale_zero_terminal_snr" in facts.settings and facts.like:
        settings["rescale_betas_zero_snr"] = settings["rescale_zero_terminal_snr"]
    _agree(name, settings)
    check_flaws(name, settings)
    return settings


def _named(config: Mapping[str, Any]) -> str:
    """The class of a config."""
    name = config.get("_class_name")
    if name is None:
        raise ValueError(
            "the config has no '_class_name'; a scheduler_config.json names its class, "
            f"one of {', '.join(CLASSES)}."
        )
    name = str(name)
    if name in REFUSED:
        raise ValueError(f"_class_name={name!r} is not supported: {REFUSED[name]}.")
    if name not in CLASSES:
        plain = name.removeprefix("Flax")
        near = f" Did you mean {plain!r}?" if plain in CLASSES else _near(name, CLASSES)
        raise ValueError(
            f"_class_name={name!r} cannot be read.{near} Known: {', '.join(CLASSES)}."
        )
    return name


def _agree(name: str, settings: Settings) -> None:
    """Raise ValueError for settings that contradict each other or the class."""
    curves = _curves(settings)
    if len(curves) > 1:
        raise ValueError(f"at most one of these may be true: {', '.join(curves)}.")
    flow = settings.get("use_flow_sigmas", False)
    facts = CLASSES[name]
    for key, values in facts.values.items():
        if settings[key] not in values:
            words = "must be" if len(values) == 1 else "must be one of"
            raise ValueError(
                f"{key} {words} {', '.join(map(repr, values))} for {name}, got "
                f"{settings[key]!r}."
            )
    legal = facts.predictions
    kind = settings.setdefault("prediction_type", legal[0])
    if kind not in legal:
        raise ValueError(
            f"prediction_type must be one of {', '.join(legal)} for {name}, got "
            f"{kind!r}."
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
    if flow and curves and base(name) != "UniPCMultistepScheduler":
        raise ValueError(f"use_flow_sigmas=true does not go with {curves[0]}=true.")
    if settings.get("shift_terminal") and not settings.get("use_flow_sigmas", True):
        raise ValueError(
            f"shift_terminal={settings['shift_terminal']} needs use_flow_sigmas=true."
        )
    low, high = settings.get("sigma_min"), settings.get("sigma_max")
    needed = facts.settings.get("sigma_min") is not None
    if needed and None in (low, high):
        raise ValueError(f"sigma_min and sigma_max must be numbers > 0 for {name}.")
    if low is not None and high is not None and not low < high:
        raise ValueError(f"sigma_min={low} must be below sigma_max={high}.")
    if settings.get("thresholding") and settings["sample_max_value"] < 1:
        raise ValueError(
            f"sample_max_value must be >= 1 with thresholding, got "
            f"{settings['sample_max_value']}."
        )
    if settings.get("shift", 1.0) is None and facts.settings["shift"] is not None:
        raise ValueError(f"shift must be a number > 0 for {name}, got None.")


def options_of(name: str, settings: Settings, given: Settings) -> Settings:
    """Call options with defaults, checked against the settings."""
    facts = CLASSES[name]
    for key, value in given.items():
        if key not in facts.options:
            raise ValueError(
                f"{name} takes no option {key}={value!r}. Allowed: "
                f"{', '.join(sorted(facts.options)) or 'none'}."
            )
        if value is None and facts.options[key] is None:
            continue
        if not OPTIONS[key].test(value):
            raise ValueError(f"{key} must be {OPTIONS[key].words}, got {value!r}.")
    shared = CLASSES[facts.like].options if facts.like else {}
    options = {**shared, **facts.options, **given}
    if options.get("tokens") is not None:
        if options["mu"] is not None:
            raise ValueError("give mu or tokens, not both.")
        low, high = settings["base_image_seq_len"], settings["max_image_seq_len"]
        if low == high:
            raise ValueError(f"base_image_seq_len={low} equals max_image_seq_len.")
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
    _own_levels(name, settings, options)
    return options


def _curves(settings: Settings) -> list[str]:
    """The settings that are on and bend the grid."""
    names = ("karras_sigmas", "exponential_sigmas", "beta_sigmas", "lu_lambdas")
    return [f"use_{name}" for name in names if settings.get(f"use_{name}")]


def _own_levels(name: str, settings: Settings, options: Settings) -> None:
    """Raise ValueError where the caller's levels do not go with the settings."""
    custom = [k for k in ("sigmas", "timesteps") if options.get(k) is not None]
    if not custom:
        return
    if len(custom) > 1:
        raise ValueError("give sigmas or timesteps, not both.")
    curves = _curves(settings)
    if curves and not name.startswith("FlowMatch"):
        raise ValueError(f"{custom[0]} does not go with {curves[0]}=true.")
    flow = settings.get("use_flow_sigmas")
    if custom == ["timesteps"] and flow:
        raise ValueError("timesteps does not go with use_flow_sigmas=true.")
    if custom == ["sigmas"] and flow is False:
        raise ValueError("sigmas needs use_flow_sigmas=true.")
    levels = np.asarray(options[custom[0]], np.float64)
    if not (np.diff(levels) < 0).all() or not 0 <= levels[-1] <= levels[0] < np.inf:
        raise ValueError(
            f"{custom[0]} must be a list of decreasing numbers >= 0, got "
            f"{levels.tolist()}."
        )


def count(name: str, steps: int | None, options: Settings) -> int:
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
    if steps > MOST:
        raise ValueError(f"steps must be at most {MOST}, got {steps}.")
    if own is not None and own != steps:
        raise ValueError(f"steps={steps}, but the levels given make {own} steps.")
    return int(steps)
