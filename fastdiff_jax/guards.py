"""Arguments against their annotations, before anything runs.

`@checked` reads a function's annotations once and checks every call's arguments by
them, so that a rule is written where a reader looks for it:

    int                 a whole number, no truth value
    float               a finite real number; `Extended` may be infinite
    bool                True or False
    Literal["a", "b"]   one of these
    ArrayLike, Array    real numbers, none of them NaN
    Key                 a random key of jax, of the old kind or the new
    Process, Denoiser   what has their methods; a plain f(x, t) is no Denoiser
    a class             an instance of it
    X | Y, tuple[X]     one of them; each of them

Numbers of concrete jax arrays become NumPy's; traced ones pass.
"""

import collections.abc
import dataclasses
import functools
import inspect
import math
import os
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, TypeVar, Union

import jax
import jax.core
import numpy as np

from .typing import Array, ArrayLike, Clock, Denoiser, Process

__all__ = ["bounded", "checked", "must", "positive", "shown", "within"]

F = TypeVar("F", bound=Callable[..., Any])
_LEVELS, _TIMES = ("alpha", "sigma", "half_log_snr"), ("start", "end", "domain")
_MOST = 2**63 - 1
_LOOKED_AT = 1 << 20  # numbers: more are data, not constants, and are not read


class _Wrong(Exception):
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


def within(interval: str, **values: Any) -> None:
    """Numbers, and all numbers of arrays, lie in an interval; None and tracers pass.

    Raises:
        ValueError: naming the first that does not.

    Example:
        >>> within("(0, 1]", quantile=0.5)
        >>> within("(0, 1]", quantile=2.0)
        Traceback (most recent call last):
            ...
        ValueError: quantile must be in (0, 1], got 2.0.
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    for name, value in values.items():
        leaves = jax.tree.leaves(value)
        if value is None or any(map(_traced, leaves)):
            continue
        for leaf in map(np.asarray, leaves):
            above = leaf >= low if interval[0] == "[" else leaf > low
            below = leaf <= high if interval[-1] == "]" else leaf < high
            if not np.all(above & below):
                raise must(name, f"in {interval}", value)


def positive(**values: Any) -> None:
    """Constants are > 0; None, arrays and tracers pass.

    Raises:
        ValueError: naming the first that is not.
    """
    for name, value in values.items():
        if isinstance(value, int | float | np.number) and not float(value) > 0:
            raise must(name, "> 0", value)


def bounded(
    name: str,
    value: Any,
    low: int | None = None,
    high: int | None = None,
    fix: str = "",
) -> int:
    """A whole number from low to high, both legal.

    Raises:
        ValueError: no whole number, or one outside.

    Example:
        >>> bounded("rows", 3, 1)
        3
    """
    try:
        found = _whole(value)
    except _Wrong as wrong:
        raise must(name, wrong.must, value) from None
    below, above = low is not None and found < low, high is not None and found > high
    if below or above:
        rule = f">= {low}" if high is None else f"in {low}..{high}"
        raise must(name, rule, value, fix)
    return found


# ---------------------------------------------------------------------- the rules


def _traced(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer)


def _host(value: Any) -> Any:
    """A concrete jax array as NumPy; anything else as it is."""
    if isinstance(value, jax.Array) and not _traced(value) and not _is_key(value):
        return np.asarray(value)
    return value


def _is_key(value: Any) -> bool:
    return jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key)


def _whole(value: Any) -> Any:
    if isinstance(value, bool | np.bool_) or _traced(value):
        raise _Wrong("a whole number")
    try:
        found = _host(value).__index__()
    except (AttributeError, TypeError):
        raise _Wrong("a whole number") from None
    if abs(found) > _MOST:
        raise _Wrong("a whole number of 63 bits")
    return found


def _number(value: Any, infinite: bool = False) -> Any:
    rule = "a real number, not NaN" if infinite else "a finite real number"
    if _traced(value):
        if value.ndim or not jax.numpy.issubdtype(value.dtype, np.number):
            raise _Wrong("one real number")
        return value
    value = _host(value)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bool | np.bool_) or not isinstance(
        value, int | float | np.integer | np.floating
    ):
        raise _Wrong(rule)
    try:
        size = float(value)
    except OverflowError:
        raise _Wrong(rule) from None
    if math.isnan(size) or (math.isinf(size) and not infinite):
        raise _Wrong(rule)
    return value


def _flag(value: Any) -> Any:
    if not isinstance(value, bool | np.bool_):
        raise _Wrong("True or False")
    return bool(value)


def _numbers(value: Any) -> Any:
    rule = "real numbers"
    if value is None or isinstance(value, str | bytes | dict | set | bool):
        raise _Wrong(rule)
    if isinstance(value, np.ma.MaskedArray):
        raise _Wrong("an array without a mask", "Fill it first: x.filled(...).")
    if _traced(value):
        kind = value.dtype
        if jax.numpy.issubdtype(kind, np.complexfloating):
            raise _Wrong(rule)
        return value
    found = _host(value)
    if isinstance(found, list | tuple) and any(map(_traced, jax.tree.leaves(found))):
        return value
    try:
        array = np.asarray(found)
    except (ValueError, TypeError):  # ragged
        raise _Wrong("real numbers in a regular shape") from None
    real = array.dtype.kind in "iufb" or jax.numpy.issubdtype(array.dtype, np.floating)
    if not real:
        raise _Wrong(rule)
    if array.size <= _LOOKED_AT and np.isnan(array.astype(np.float64)).any():
        raise _Wrong("real numbers without NaN")
    return found


def _array(value: Any) -> Any:
    """An array of any numbers: complex states and NaN pass."""
    plain = isinstance(value, np.ndarray | np.generic | int | float | complex)
    if isinstance(value, jax.Array) or (plain and np.asarray(value).dtype.kind != "O"):
        return value
    raise _Wrong("an array of numbers")


def _key(value: Any) -> Any:
    fix = "Make one with jax.random.key(0)."
    if not isinstance(value, jax.Array | np.ndarray):
        raise _Wrong("a random key of jax", fix)
    if _is_key(value):
        return value
    if value.dtype != np.uint32:
        raise _Wrong("a random key of jax", fix)
    try:  # here, as a compiled program would not see another jax_default_prng_impl
        return jax.random.wrap_key_data(jax.numpy.asarray(value))
    except TypeError:
        raise _Wrong("a random key of the kind jax_default_prng_impl", fix) from None


def _process(value: Any, methods: tuple[str, ...] = _LEVELS) -> Any:
    if isinstance(value, type) or not all(hasattr(value, m) for m in methods):
        fix = "Make one, e.g. fd.processes.vp_linear()."
        if inspect.isroutine(value):
            fix = "Call it first: it makes the process."
        raise _Wrong("a process", fix)
    return value


def _fits(function: Any, count: int) -> bool:
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
    return _fits(cls.__call__, 4)


def _takes_three(value: Any) -> bool:
    plain = inspect.isroutine(value) or isinstance(value, functools.partial)
    return _fits(value, 3) if plain else _calls_fit(type(value))


def _denoiser(value: Any) -> Any:
    if not callable(value) or isinstance(value, type):
        fix = "Wrap your network: fd.models.denoiser(net, process, prediction='noise')."
        raise _Wrong("a denoiser", fix)
    if not _takes_three(value):
        raise _Wrong(
            "a denoiser (x, context, carry) -> (prediction, carry)",
            "Wrap a plain f(x, t): fd.models.denoiser(f, process, prediction='noise').",
        )
    return value


def _callable(value: Any) -> Any:
    if not callable(value) or isinstance(value, type):
        raise _Wrong("a function")
    return value


def _anything(value: Any) -> Any:
    return value


def _tree(value: Any) -> Any:
    """A tree whose leaves are numbers or arrays of them; functions are no leaves."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(value):
        kind = getattr(getattr(leaf, "dtype", None), "kind", "O")
        number = isinstance(leaf, bool | int | float | complex)
        masked = isinstance(leaf, np.ma.MaskedArray)
        if masked or not (number or isinstance(leaf, jax.Array) or kind in "biufcV"):
            place = jax.tree_util.keystr(path)
            where = f": {shown(leaf)} stands at {place}" if path else ""
            raise _Wrong(f"a tree of arrays{where}")
    return value


def _function_of(count: int) -> Callable:
    """A function that takes so many arguments."""

    def rule(value: Any) -> Any:
        if not callable(value) or isinstance(value, type):
            raise _Wrong("a function")
        if not _fits(value, count):
            raise _Wrong(f"a function of {count} arguments")
        return value

    return rule


def _one_of(*options: Any) -> Callable:
    def rule(value: Any) -> Any:
        if not any(type(value) is type(o) and value == o for o in options):
            raise _Wrong(f"one of {', '.join(map(repr, options))}")
        return value

    return rule


_NAMES = {"Plan": "a plan", "State": "a state", "PathLike": "a path", "str": "text"}
_FIXES = {
    "Plan": "Make one, e.g. fd.solvers.unipc(process, ts).",
    "State": "Make one: fd.init(plan, x, key).",
}


def _instance(cls: type) -> Callable:
    name = cls.__name__
    fix = _FIXES.get(name, "")

    def rule(value: Any) -> Any:
        if isinstance(value, cls):
            return value
        if name == "Plan" and inspect.isroutine(value):
            raise _Wrong("a plan", "Call the solver first: solver(process, ts).")
        raise _Wrong(_NAMES.get(name, f"a {name}"), fix)

    return rule


def _each(kinds: tuple, container: type, length: int | None = None) -> Callable:
    """A container whose items all follow their rule."""
    rules = [_rule(kind) for kind in kinds]
    what = "a sequence" if length is None else f"a tuple of {length}"

    def rule(value: Any) -> Any:
        value = _host(value)
        if isinstance(value, np.ndarray) and value.ndim:
            value = tuple(value)
        if isinstance(value, str | bytes) or not isinstance(value, container):
            raise _Wrong(what)
        if length is not None and len(value) != length:
            raise _Wrong(what)
        items = rules if length is not None else rules[:1] * len(value)
        try:
            found = [check(v) for check, v in zip(items, value, strict=True)]
        except _Wrong as wrong:
            raise _Wrong(f"{what}, each {wrong.must}", wrong.fix) from None
        return type(value)(found) if isinstance(value, list | tuple) else value

    return rule


def _either(rules: list[Callable], none: bool) -> Callable:
    def rule(value: Any) -> Any:
        if value is None and none:
            return None
        wrong: list[_Wrong] = []
        for check in rules:
            try:
                return check(value)
            except _Wrong as error:
                wrong.append(error)
        texts = list(dict.fromkeys(w.must for w in wrong)) + ["None"] * none
        raise _Wrong(" or ".join(texts), next((w.fix for w in wrong if w.fix), ""))

    return rule


_SIMPLE: dict[Any, Callable] = {
    int: _whole,
    float: _number,
    bool: _flag,
    Process: _process,
    Clock: functools.partial(_process, methods=_TIMES),
    Denoiser: _denoiser,
    collections.abc.Callable: _callable,
    jax.Array: _array,
    np.ndarray: _array,
}
_MARKED = {
    "extended": functools.partial(_number, infinite=True),
    "key": _key,
    "tree": _tree,
}


def _rule(kind: Any) -> Callable:
    """The check that an annotation asks for."""
    if kind == ArrayLike:
        return _numbers
    if kind == Array:
        return _array
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        marks = [m for m in args[1:] if isinstance(m, str) and m in _MARKED]
        return _MARKED[marks[0]] if marks else _rule(args[0])
    if origin in (Union, types.UnionType):
        return _union(args)
    if origin is Literal:
        return _one_of(*args)
    if origin is collections.abc.Callable and args and isinstance(args[0], list):
        return _function_of(len(args[0]))
    if origin is tuple and args and args[-1] is not Ellipsis:
        return _each(args, tuple, len(args))
    if origin in (tuple, list, collections.abc.Sequence) and args:
        return _each(args[:1], origin)
    kind = origin or kind
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if kind is Any or not isinstance(kind, type) or kind in (object, os.PathLike):
        return _instance(kind) if kind is os.PathLike else _anything
    if vars(kind).get("_is_protocol") and not vars(kind).get("_is_runtime_protocol"):
        return _anything
    return _instance(kind)


def _union(args: tuple) -> Callable:
    """One of several; the members of ArrayLike count as one."""
    numbers = set(typing.get_args(ArrayLike))
    given = [a for a in args if a is not type(None)]
    rules: list[Callable] = []
    if numbers <= set(given):
        given = [a for a in given if a not in numbers]
        rules.append(_numbers)
    rules = [_rule(a) for a in given] + rules
    if _anything in rules:
        return _anything
    return _either(list(dict.fromkeys(rules)), type(None) in args)


# ------------------------------------------------------------------ the decorator


def checked(function: F) -> F:
    """Check a function's arguments against its annotations, at every call.

    Args:
        function: with annotated parameters; those without pass.

    Returns:
        The function; a wrong argument raises ValueError in one line.

    Example:
        >>> @checked
        ... def double(steps: int, *, exact: bool = False):
        ...     return 2 * steps
        >>> double(2.5)
        Traceback (most recent call last):
            ...
        ValueError: steps must be a whole number, got 2.5.
    """
    signature = inspect.signature(function)

    @functools.lru_cache(1)
    def rules() -> dict[str, Callable]:
        hints = typing.get_type_hints(function, include_extras=True)
        hints.pop("return", None)
        return {name: _rule(kind) for name, kind in hints.items()}

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            parameter = signature.parameters[name]
            check = rules().get(name)
            if check is None or value is parameter.default:
                continue
            try:
                if parameter.kind is parameter.VAR_POSITIONAL:
                    bound.arguments[name] = tuple(map(check, value))
                elif parameter.kind is parameter.VAR_KEYWORD:
                    bound.arguments[name] = {k: check(v) for k, v in value.items()}
                else:
                    bound.arguments[name] = check(value)
            except _Wrong as wrong:
                fix = wrong.fix or _default(parameter)
                raise must(name, wrong.must, value, fix) from None
        return function(*bound.args, **bound.kwargs)

    return typing.cast(F, call)


def _default(parameter: inspect.Parameter) -> str:
    """The fix where nothing better is known: what the function takes by itself."""
    if parameter.default is parameter.empty or parameter.default is None:
        return ""
    return f"Leave it out for {parameter.default!r}."
