"""Dataclasses as pytrees, told apart by their class; functions as trees."""

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax.core

from .guards import checked

__all__ = ["Function", "as_tree", "concrete", "is_function"]
__all__ += ["pytree", "register"]

T = TypeVar("T")


def register(cls: type[T], data: tuple[str, ...], static: tuple[str, ...]) -> type[T]:
    """Register a dataclass as a pytree with the given fields as leaves and constants.

    Not `jax.tree_util.register_dataclass`: as of jax 0.10 to 0.12 the tree structures
    that makes compare equal for different classes with as many fields, so that, once
    their hashes fall together, jit runs the program of one class on the numbers of the
    other (a VP process for a sub-VP one).
    """
    keys = tuple(jax.tree_util.GetAttrKey(name) for name in data)

    def flatten(tree: Any) -> tuple[tuple, tuple]:
        leaves = tuple(getattr(tree, name) for name in data)
        return leaves, tuple(getattr(tree, name) for name in static)

    def flatten_with_keys(tree: Any) -> tuple[tuple, tuple]:
        leaves, constants = flatten(tree)
        return tuple(zip(keys, leaves, strict=True)), constants

    def unflatten(constants: tuple, leaves: Any) -> Any:
        tree = object.__new__(cls)  # leaves may be anything here: no checks
        for name, value in zip(data + static, (*leaves, *constants), strict=True):
            object.__setattr__(tree, name, value)
        return tree

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


@checked
@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def pytree(cls: type[T]) -> type[T]:
    """A frozen dataclass that is a pytree; metadata {"static": True} marks constants.

    Example:
        >>> @pytree
        ... class Scale:
        ...     by: float
        ...     name: str = dataclasses.field(metadata={"static": True})
        >>> jax.tree.map(lambda v: 2 * v, Scale(3.0, "x"))
        Scale(by=6.0, name='x')
    """
    if "__dataclass_params__" not in vars(cls):
        cls = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(cls)  # pyright: ignore[reportArgumentType] it is one
    cls.__init__ = checked(cls.__init__)
    static = tuple(f.name for f in fields if f.metadata.get("static", False))
    data = tuple(f.name for f in fields if f.name not in static)
    return register(cls, data, static)


def concrete(*values: Any) -> bool:
    """Whether every array can be looked at, outside of a trace."""
    return not any(isinstance(v, jax.core.Tracer) for v in jax.tree.leaves(values))


def is_function(part: Any) -> bool:
    """Whether a part is called and holds no arrays that jax could see."""
    return callable(part) and jax.tree_util.all_leaves([part])


@pytree
class Function:
    """A plain function as a tree: it is compiled in, one program per function."""

    fn: Any = dataclasses.field(metadata={"static": True})

    def __call__(self, *args: Any) -> Any:
        """What the function returns."""
        return self.fn(*args)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(object.__getattribute__(self, "fn"), name)


def as_tree(part: Any) -> Any:
    """A part as an argument of a compiled run: a function is a constant of it.

    Arrays and parts that are pytrees, callable or not, stay as they are.

    Example:
        >>> jax.tree.leaves(as_tree(abs)), as_tree(2.0)
        ([], 2.0)
    """
    return Function(part) if is_function(part) else part
