"""How a wrong argument is told: one line with its name, the rule and the value."""

import dataclasses
import inspect
from typing import Any

import jax
import numpy as np

__all__ = ["Wrong", "must", "shown"]


class Wrong(Exception):
    """What a value must be, and how to make it so."""

    def __init__(self, must: str, fix: str = ""):
        super().__init__(must)
        self.must, self.fix = must, fix


def shown(value: Any) -> str:
    """A value on one short line of an error."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if inspect.isroutine(value):
        name = getattr(value, "__qualname__", None) or repr(value)
        return f"the function {name.replace('<locals>.', '')}"
    if isinstance(value, np.ndarray | jax.Array) and value.size > 6:
        return f"{value.dtype} of shape {value.shape}"
    if dataclasses.is_dataclass(value) or hasattr(value, "_fields"):
        return f"a {type(value).__name__}"
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # a whole number of too many digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:50]}... ({type(value).__name__})"


def must(name: str, rule: str, value: Any, fix: str = "") -> ValueError:
    """The one line that every refused argument gets: name, rule, value, fix."""
    return ValueError(f"{name} must be {rule}, got {shown(value)}.{fix and ' ' + fix}")
