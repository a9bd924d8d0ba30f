"""The rule that an annotation asks for, and the decorator that applies them."""

import collections.abc
import functools
import inspect
import os
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, TypeVar, Union

import jax
import numpy as np

from ..typing import Array, ArrayLike, Bridge, Clock, Denoiser, Process
from .refusals import Wrong, must, shown
from .values import (
    TIMES,
    anything,
    array,
    bridge,
    callable_,
    denoiser,
    dtype,
    fits,
    flag,
    host,
    key,
    number,
    numbers,
    process,
    tree,
    whole,
)

__all__ = ["checked"]

F = TypeVar("F", bound=Callable[..., Any])


def _function_of(count: int) -> Callable:
    """A function that takes so many arguments."""

    def rule(value: Any) -> Any:
        if not callable(value) or isinstance(value, type):
            raise Wrong("a function")
        if not fits(value, count):
            raise Wrong(f"a function of {count} arguments")
        return value

    return rule


def _one_of(*options: Any) -> Callable:
    def rule(value: Any) -> Any:
        if not any(type(value) is type(o) and value == o for o in options):
            raise Wrong(f"one of {', '.join(map(repr, options))}")
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
            raise Wrong("a plan", "Call the solver first: solver(process, ts).")
        raise Wrong(_NAMES.get(name, f"a {name}"), fix)

    return rule


def _each(kinds: tuple, container: type, length: int | None = None) -> Callable:
    """A container whose items all follow their rule."""
    rules = [_rule(kind) for kind in kinds]
    what = "a sequence" if length is None else f"a tuple of {length}"

    def rule(value: Any) -> Any:
        value = host(value)
        if isinstance(value, np.ndarray) and value.ndim:
            value = tuple(value)
        if isinstance(value, str | bytes) or not isinstance(value, container):
            raise Wrong(what)
        if length is not None and len(value) != length:
            raise Wrong(what)
        items = rules if length is not None else rules[:1] * len(value)
        try:
            found = [check(v) for check, v in zip(items, value, strict=True)]
        except Wrong as wrong:
            raise Wrong(f"{what}, each {wrong.must}", wrong.fix) from None
        return type(value)(found) if isinstance(value, list | tuple) else value

    return rule


def _either(rules: list[Callable], none: bool) -> Callable:
    def rule(value: Any) -> Any:
        if value is None and none:
            return None
        wrong: list[Wrong] = []
        for check in rules:
            try:
                return check(value)
            except Wrong as error:
                wrong.append(error)
        texts = list(dict.fromkeys(w.must for w in wrong)) + ["None"] * none
        raise Wrong(" or ".join(texts), next((w.fix for w in wrong if w.fix), ""))

    return rule


_SIMPLE: dict[Any, Callable] = {
    int: whole,
    float: number,
    bool: flag,
    Process: process,
    Clock: functools.partial(process, methods=TIMES),
    Denoiser: denoiser,
    Bridge: bridge,
    collections.abc.Callable: callable_,
    jax.Array: array,
    np.ndarray: array,
}
_MARKED = {
    "extended": functools.partial(number, infinite=True),
    "finite": functools.partial(numbers, finite=True),
    "real": functools.partial(numbers, nan=True),
    "dtype": dtype,
    "key": key,
    "tree": tree,
}


def _rule(kind: Any) -> Callable:
    """The check that an annotation asks for."""
    if kind == ArrayLike:
        return numbers
    if kind == Array:
        return array
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
        return _instance(kind) if kind is os.PathLike else anything
    if vars(kind).get("_is_protocol") and not vars(kind).get("_is_runtime_protocol"):
        return anything
    return _instance(kind)


def _union(args: tuple) -> Callable:
    """One of several; the members of ArrayLike count as one."""
    alike = set(typing.get_args(ArrayLike))
    given = [a for a in args if a is not type(None)]
    rules: list[Callable] = []
    if alike <= set(given):
        given = [a for a in given if a not in alike]
        rules.append(numbers)
    rules = [_rule(a) for a in given] + rules
    if anything in rules:
        return anything
    return _either(list(dict.fromkeys(rules)), type(None) in args)


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
            except Wrong as wrong:
                fix = wrong.fix or _default(parameter)
                raise must(name, wrong.must, value, fix) from None
        return function(*bound.args, **bound.kwargs)

    return typing.cast(F, call)


def _default(parameter: inspect.Parameter) -> str:
    """The fix where nothing better is known: what the function takes by itself."""
    if parameter.default is parameter.empty or parameter.default is None:
        return ""
    return f"Leave it out for {shown(parameter.default)}."
