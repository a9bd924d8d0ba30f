"""Which settings and options of a config change nothing, found by leaving them out."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ._classes import CLASSES
from ._parse import chosen, known

__all__ = ["sentence", "unused"]

Settings = dict[str, Any]


def unused(
    name: str,
    config: Mapping[str, Any],
    options: Settings,
    made: Any,
    build: Callable[[Settings, Settings], Any],
) -> dict[str, str]:
    """Settings and options that change nothing of what was made, and why.

    A setting that the class has counts if it differs from the default and the same
    comes out without it.

    Args:
        name: the class.
        config: the config, checked.
        options: the options that the caller gave.
        made: what was built, a tree of arrays and constants.
        build: (settings given, options given) -> the same for other settings.
    """
    given, facts = chosen(config), CLASSES[name]
    out = {k: f"{name} has no such setting" for k in given if not known(name, k)}
    given = {k: v for k, v in given.items() if known(name, k)}

    def idle(keys: Settings, defaults: Settings, made_without: Callable) -> None:
        for key, value in keys.items():
            if key in defaults and _equal(value, defaults[key]):
                continue  # it says what would be so without it
            if _unchanged(made, made_without, key):
                out[key] = "no effect beside the others"

    def less(keys: Settings, key: str) -> Settings:
        return {k: v for k, v in keys.items() if k != key}

    idle(given, facts.settings, lambda key: build(less(given, key), options))
    idle(options, facts.options, lambda key: build(given, less(options, key)))
    return out


def sentence(name: str, found: Mapping[str, str], values: Mapping[str, Any]) -> str:
    """One line that says what changes nothing."""
    groups: dict[str, list[str]] = {}
    for key, why in found.items():
        groups.setdefault(why, []).append(f"{key}={values[key]!r}")
    said = "; ".join(f"{', '.join(keys)} ({why})" for why, keys in groups.items())
    return f"{name}: these change nothing: {said}. See Scheduler.unused."


def _unchanged(made: Any, made_without: Callable, key: str) -> bool:
    try:
        other = made_without(key)
    except ValueError:  # what is left is not legal: it matters
        return False
    return _same(made, other)


def _equal(a: Any, b: Any) -> bool:
    """Whether two settings are equal, lists and tuples alike."""
    kinds = list | tuple
    both = isinstance(a, kinds) and isinstance(b, kinds)
    return list(a) == list(b) if both else a is b or bool(np.array_equal(a, b))


def _same(a: Any, b: Any) -> bool:
    """Whether two trees are equal, number by number."""
    one, two = jax.tree.flatten(a), jax.tree.flatten(b)
    if one[1] != two[1]:
        return False
    pairs = zip(one[0], two[0], strict=True)
    return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in pairs)
