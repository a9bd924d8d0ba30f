"""What one value must be: each rule returns it, on the host, or raises `Wrong`."""

import functools
import inspect
import math
from typing import Any

import jax
import jax.core
import numpy as np

from .refusals import Wrong, shown

__all__ = [
    "LEVELS",
    "TIMES",
    "anything",
    "array",
    "bridge",
    "callable_",
    "denoiser",
    "dtype",
    "fits",
    "flag",
    "host",
    "is_key",
    "key",
    "number",
    "numbers",
    "process",
    "traced",
    "tree",
    "whole",
]

_BRIDGE = ("alpha", "beta", "sigma", "rates", "model_time", "domain")
LEVELS, TIMES = ("alpha", "sigma", "half_log_snr"), ("start", "end", "domain")
_MOST = 2**63 - 1
_LOOKED_AT = 1 << 20  # numbers: more are data, not constants, and are not read


def traced(value: Any) -> bool:
    """Whether a value is known only inside jit, vmap or grad."""
    return isinstance(value, jax.core.Tracer)


def host(value: Any) -> Any:
    """A concrete jax array as NumPy; anything else as it is."""
    if isinstance(value, jax.Array) and not traced(value) and not is_key(value):
        return np.asarray(value)
    return value


def is_key(value: Any) -> bool:
    """Whether an array holds random keys of the new kind."""
    return jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key)


def whole(value: Any) -> Any:
    """A whole number of 63 bits, no truth value."""
    if isinstance(value, bool | np.bool_) or traced(value):
        raise Wrong("a whole number")
    try:
        found = host(value).__index__()
    except (AttributeError, TypeError):
        raise Wrong("a whole number") from None
    if abs(found) > _MOST:
        raise Wrong("a whole number of 63 bits")
    return found


def number(value: Any, infinite: bool = False) -> Any:
    """One real number; `infinite`: also an infinite one."""
    rule = "a real number, not NaN" if infinite else "a finite real number"
    if traced(value):
        if value.ndim or not jax.numpy.issubdtype(value.dtype, np.number):
            raise Wrong("one real number")
        return value
    value = host(value)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bool | np.bool_) or not isinstance(
        value, int | float | np.integer | np.floating
    ):
        raise Wrong(rule)
    try:
        size = float(value)
    except OverflowError:
        raise Wrong(rule) from None
    if math.isnan(size) or (math.isinf(size) and not infinite):
        raise Wrong(rule)
    return value


def flag(value: Any) -> Any:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise Wrong("True or False")
    return bool(value)


def numbers(value: Any, nan: bool = False, finite: bool = False) -> Any:
    """Real numbers in a regular shape; `nan`: NaN may show, `finite`: no infinity."""
    rule = "real numbers"
    if value is None or isinstance(value, str | bytes | dict | set | bool):
        raise Wrong(rule)
    if isinstance(value, np.ma.MaskedArray):
        raise Wrong("an array without a mask", "Fill it first: x.filled(...).")
    if traced(value):
        kind = value.dtype
        if jax.numpy.issubdtype(kind, np.complexfloating):
            raise Wrong(rule)
        return value
    found = host(value)
    if isinstance(found, list | tuple) and any(map(traced, jax.tree.leaves(found))):
        return value
    try:
        array = np.asarray(found)
    except (ValueError, TypeError):  # ragged
        raise Wrong("real numbers in a regular shape") from None
    real = array.dtype.kind in "iufb" or jax.numpy.issubdtype(array.dtype, np.floating)
    if not real:
        raise Wrong(rule)
    if not array.size:
        raise Wrong("one real number or more")
    seen = array.size <= _LOOKED_AT and array.dtype.kind not in "iub"
    if seen and not nan and np.isnan(array.astype(np.float64)).any():
        raise Wrong("real numbers without NaN")
    if seen and finite and not np.isfinite(array.astype(np.float64)).all():
        raise Wrong("finite real numbers")
    return found


def array(value: Any) -> Any:
    """An array of any numbers: complex states and NaN pass."""
    plain = isinstance(value, np.ndarray | np.generic | int | float | complex)
    jaxed = isinstance(value, jax.Array) and not is_key(value)
    masked = isinstance(value, np.ma.MaskedArray)
    if jaxed or (plain and not masked and np.asarray(value).dtype.kind != "O"):
        return value
    raise Wrong("an array of numbers")


def key(value: Any) -> Any:
    """A random key of jax, of the old kind or the new."""
    fix = "Make one with jax.random.key(0)."
    if not isinstance(value, jax.Array | np.ndarray):
        raise Wrong("a random key of jax", fix)
    if is_key(value):
        return value
    if value.dtype != np.uint32:
        raise Wrong("a random key of jax", fix)
    try:  # here, as a compiled program would not see another jax_default_prng_impl
        return jax.random.wrap_key_data(jax.numpy.asarray(value))
    except TypeError:
        raise Wrong("a random key of the kind jax_default_prng_impl", fix) from None


def process(value: Any, methods: tuple[str, ...] = LEVELS) -> Any:
    """What has the methods of a process."""
    if isinstance(value, type) or not all(hasattr(value, m) for m in methods):
        fix = "Make one, e.g. fd.processes.vp_linear()."
        if inspect.isroutine(value):
            fix = "Call it first: it makes the process."
        raise Wrong("a process", fix)
    return value


def fits(function: Any, count: int) -> bool:
    """Whether a function takes so many arguments."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except ValueError:  # a builtin without a signature
        return True
    except TypeError:
        return False
    return True


@functools.cache
def _calls_fit(cls: type) -> bool:
    """Whether what a class defines as its call takes (self, x, context, carry)."""
    return fits(cls.__call__, 4)


def _takes_three(value: Any) -> bool:
    plain = inspect.isroutine(value) or isinstance(value, functools.partial)
    return fits(value, 3) if plain else _calls_fit(type(value))


def denoiser(value: Any) -> Any:
    """A function (x, context, carry), or what has such a call."""
    if not callable(value) or isinstance(value, type):
        fix = "Wrap your network: fd.models.denoiser(net, process, prediction='noise')."
        raise Wrong("a denoiser", fix)
    if not _takes_three(value):
        raise Wrong(
            "a denoiser (x, context, carry) -> (prediction, carry)",
            "Wrap a plain f(x, t): fd.models.denoiser(f, process, prediction='noise').",
        )
    return value


def callable_(value: Any) -> Any:
    """A function."""
    if not callable(value) or isinstance(value, type):
        raise Wrong("a function")
    return value


def anything(value: Any) -> Any:
    """Every value."""
    return value


def tree(value: Any) -> Any:
    """A tree whose leaves are numbers or arrays of them; functions are no leaves."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(value):
        kind = getattr(getattr(leaf, "dtype", None), "kind", "O")
        number = isinstance(leaf, bool | int | float | complex | jax.Array)
        masked = isinstance(leaf, np.ma.MaskedArray)
        huge = type(leaf) is int and abs(leaf) > _MOST
        if masked or huge or not (number or kind in "biufcV"):
            place = jax.tree_util.keystr(path)
            where = f": {shown(leaf)} stands at {place}" if path else ""
            raise Wrong(f"a tree of arrays{where}")
    return value


def dtype(value: Any) -> Any:
    """A floating or complex type, by name or as jax and NumPy have it."""
    try:
        named = isinstance(value, str | np.dtype | type)
        found = jax.numpy.dtype(value) if named else None
    except TypeError:
        found = None
    if found is None or not jax.numpy.issubdtype(found, np.inexact):
        raise Wrong("a floating type such as 'bfloat16'")
    return value


def bridge(value: Any) -> Any:
    """A path between two laws."""
    if isinstance(value, type) or not all(hasattr(value, m) for m in _BRIDGE):
        fix = "Make one, e.g. fd.processes.interpolant()."
        raise Wrong("a path between two laws", fix)
    return value
