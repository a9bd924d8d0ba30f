"""Compiled programs whose functions are looked through at every call.

jit freezes what a plain function captures: a network's weights of the first call would
be sampled with for ever. Here the arrays, modules and numbers that a function reaches
(closure, defaults, attributes, partial, the globals that it names) are compared at each
call, and a change compiles again.
"""

import collections
import functools
import hashlib
import pickle
import random
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.core
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from .trees import as_tree

__all__ = ["compiled"]

_PLAIN = (int, float, complex, str, bytes, bool, type(None), np.generic, np.dtype)
_RANDOM = (np.random.Generator, np.random.RandomState, random.Random)
_KEYS = jax.dtypes.prng_key
_MANY = 100_000  # things looked at before a function counts as always new
_KEPT = 64  # programs of plain functions, the latest used


class _Same:
    """Equal to itself only, and keeps its object alive, so that no id comes back."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value

    __hash__ = None  # type: ignore[assignment]


@functools.lru_cache(4096)
def _library(file: str) -> bool:
    """Whether code of a file is somebody's package, whose globals do not change."""
    own = __file__.rsplit("programs", 1)[0]
    places = ("site-packages", "dist-packages", own)
    return any(p in file for p in places) or file.startswith((sys.base_prefix, "<froz"))


def _names(code: types.CodeType) -> Iterator[str]:
    """Names that a code looks up among globals and attributes."""
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _names(const)


class _Look:
    """Everything that functions reach, as tokens to compare; and random generators."""

    def __init__(self, parts: Any):
        self.tokens: list[Any] = []
        self.generators: list[Any] = [np.random, random]
        self.changes = False  # whether anything was found that could change
        self.traced = False
        seen: dict[int, tuple[int, Any]] = {}  # kept alive, so that no id comes back
        todo = collections.deque([parts])
        while todo:
            if len(self.tokens) > _MANY:
                self.changes = True
                self.tokens.append(object())
                return
            value = todo.popleft()
            if isinstance(value, _PLAIN):
                self.tokens.append((type(value), repr(value)))
                continue
            if id(value) in seen:
                self.tokens.append(seen[id(value)][0])
                continue
            seen[id(value)] = len(self.tokens), value
            todo.extend(self._into(value))

    def _into(self, value: Any) -> Iterator[Any]:
        """Note a value; what to look at behind it."""
        if isinstance(value, np.ndarray) and value.dtype == object:
            value = value.tolist()
        if isinstance(value, np.ndarray):
            self.changes = True
            data = hashlib.blake2b(value.tobytes()).digest()
            self.tokens.append((value.shape, value.dtype, data))
            return
        if isinstance(value, list | tuple | set | frozenset | collections.deque):
            self.tokens.append((type(value), len(value)))
            self.changes |= not isinstance(value, tuple | frozenset)
            yield from value
            return
        if isinstance(value, dict):
            self.changes = True
            self.tokens.append((dict, len(value)))
            for key, item in value.items():
                yield key
                yield item
            return
        if isinstance(value, types.FunctionType):
            self.tokens.append(_Same(value.__code__))
            yield from self._function(value)
        elif isinstance(value, functools.partial):
            yield from (value.func, value.args, value.keywords)
        elif isinstance(value, types.MethodType):
            yield from (value.__func__, value.__self__)
        elif isinstance(value, jax.Array):
            self.tokens.append(_Same(value))
            self.changes = True
            self.traced |= isinstance(value, jax.core.Tracer)
        elif any(c.__module__ == "flax.linen.module" for c in type(value).__mro__):
            self.tokens.append(value)  # immutable, and its weights stand elsewhere
        elif isinstance(value, type):
            self.tokens.append(_Same(value))
            yield from self._class(value)
        elif not isinstance(value, types.ModuleType):
            yield from self._object(value)

    def _function(self, function: types.FunctionType) -> Iterator[Any]:
        """What a function holds; a user's also reaches globals, which are rebound."""
        yield from (function.__defaults__, function.__kwdefaults__)
        yield from vars(function).values()
        for cell in function.__closure__ or ():
            try:
                yield cell.cell_contents
            except ValueError:  # not filled yet
                continue
        if _library(function.__code__.co_filename):
            return
        self.changes = True
        names = set(_names(function.__code__))
        for name in sorted(names & function.__globals__.keys()):
            found = function.__globals__[name]
            if not isinstance(found, types.ModuleType):
                yield found
            elif not _library(getattr(found, "__file__", None) or "<frozen>"):
                yield from (getattr(found, n) for n in names if hasattr(found, n))

    def _class(self, cls: type) -> Iterator[Any]:
        """What a user's class defines, and those that it is made of."""
        module = sys.modules.get(cls.__module__)
        if not _library(getattr(module, "__file__", None) or "<frozen>"):
            names = (k for k in vars(cls) if k[:2] != "__" or k == "__call__")
            yield from (vars(cls)[k] for k in names)
            yield from cls.__bases__

    def _object(self, value: Any) -> Iterator[Any]:
        """An object's attributes, and its class; one without any is itself."""
        if isinstance(value, _RANDOM):
            self.generators.append(value)
        found = dict(getattr(value, "__dict__", None) or {})
        for cls in type(value).__mro__:
            slots = cls.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                    found[name] = getattr(value, name)
        self.tokens.append(_Same(type(value)) if found else _itself(value))
        self.changes |= bool(found)
        yield type(value)
        yield from found.values()
        # of jitted functions, builtin methods, properties
        for name in ("__wrapped__", "__self__", "fget"):
            if (inner := getattr(value, name, None)) is not None:
                yield inner


def _itself(value: Any) -> Any:
    """A token of something that cannot be looked into: its own equality, if any."""
    try:
        hash(value)
    except TypeError:
        return _Same(value)
    return value


def _drawn(generators: list[Any]) -> list[bytes]:
    """How far host random generators have come."""

    def state(g: Any) -> Any:
        if isinstance(g, np.random.Generator):
            return g.bit_generator.state
        return g.get_state() if hasattr(g, "get_state") else g.getstate()

    return [pickle.dumps(state(g)) for g in generators]


def _varies(function: Callable, args: tuple) -> bool:
    """Whether what was drawn while tracing is a function's own.

    Draws of another thread leave no number in the traces: they are all alike.
    """
    if threading.active_count() == 1:
        return True
    return len({tuple(_trace(function, args)) for _ in range(8)}) > 1


def _trace(function: Callable, args: tuple) -> Iterator[Any]:
    """The operations of a function, and the numbers in it."""
    anew = functools.partial(function)  # jax keeps the trace of a function it knows
    todo: list[Any] = [jax.make_jaxpr(anew)(*args)]
    while todo:
        part = todo.pop()
        if isinstance(part, ClosedJaxpr):
            yield from map(_number, part.consts)
            part = part.jaxpr
        for eqn in part.eqns:
            yield eqn.primitive.name
            yield from (_number(v.val) for v in eqn.invars if isinstance(v, Literal))
            inner = jax.tree.leaves(list(eqn.params.values()))
            todo += [v for v in inner if isinstance(v, ClosedJaxpr | Jaxpr)]


def _number(value: Any) -> Any:
    """A constant's bytes; what is no array of numbers is the same in every trace."""
    kind = getattr(value, "dtype", np.dtype(float))
    opaque = isinstance(value, jax.core.Tracer) or jax.numpy.issubdtype(kind, _KEYS)
    return None if opaque else np.asarray(value).tobytes()


def _constants(structure: Any) -> Iterator[Any]:
    """What the nodes of a tree hold beside their leaves."""
    found = structure.node_data()
    if found is not None and found[0] not in (tuple, list, dict):
        yield found[1]
    for child in structure.children():
        yield from _constants(child)


class compiled:  # noqa: N801  a decorator
    """A function under jit, compiled again where what its functions capture changes.

    Args:
        function: of trees, in which plain functions are constants (`trees.as_tree`).
        static: names of its hashable keyword arguments.
        host: of these, the ones that are called on the host and so are never frozen.
    """

    def __init__(
        self,
        function: Callable,
        static: tuple[str, ...] = (),
        host: tuple[str, ...] = (),
    ):
        self.plain, self.static, self.host = function, static, host
        self.traces = 0
        self.shared = self._program()
        self.own: collections.OrderedDict[Any, tuple] = collections.OrderedDict()
        self.still: set[Any] = set()  # reach nothing that could change

    def _program(self) -> Callable:
        return jax.jit(functools.partial(self._watched), static_argnames=self.static)

    def _watched(self, *args: Any, **options: Any) -> Any:
        """The function while it is traced: it must not draw on the host."""
        self.traces += 1
        generators = _Look(self._parts(args, options)).generators
        before = _drawn(generators)
        out = self.plain(*args, **options)
        plain = functools.partial(self.plain, **options)
        if _drawn(generators) != before and _varies(plain, args):
            raise ValueError(
                "a function of this run draws random numbers on the host (numpy or "
                "random): compiled, they would be drawn once and used for ever. Draw "
                "them before and give them, e.g. noise=array with an axis of rows."
            )
        return out

    def _parts(self, args: tuple, options: dict) -> tuple:
        seen = (v for k, v in options.items() if k not in self.host)
        return (*_constants(jax.tree.structure(args)), *seen)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """What the function returns, by a program that is up to date."""
        args = jax.tree.map(as_tree, args)  # functions inside wrappers, too
        key = (jax.tree.structure(args), tuple(options.items()))
        try:
            if key in self.still:
                return self.shared(*args, **options)
        except TypeError:  # an unhashable constant cannot key a program
            return self._watched(*args, **options)
        look = _Look(self._parts(args, options))
        if look.traced:
            return self._watched(*args, **options)
        if not look.changes:
            self.still.add(key)
            return self.shared(*args, **options)
        tokens, program = self.own.get(key, (None, None))
        if tokens != look.tokens:
            if program is not None:
                _warn()
            program = self._program()
        before = self.traces
        out = program(*args, **options)
        if self.traces != before:  # what a trace itself leaves is no change
            look = _Look(self._parts(args, options))
        self.own.pop(key, None)  # to the end, at once: other threads do the same
        self.own[key] = (look.tokens, program)
        while len(self.own) > _KEPT:
            self.own.popitem(last=False)
        return out


def _warn() -> None:
    warnings.warn(
        "what a function of this run captures has changed (a network's weights?), so "
        "it is compiled again. Give weights as arguments, and one program serves all: "
        "fd.models.denoiser(apply, process, prediction=..., params=params), or "
        "fd.models.from_nnx(net, process, prediction=...).",
        stacklevel=4,
    )
