"""The list of solvers: each builder's line stands beside it, as a decorator.

The command line, the tests, the README's table, sweeps and tuning read it.
"""

import difflib
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from ..guards import checked
from ..plan import Plan

__all__ = ["SOLVERS", "Solver", "find", "solver"]

B = TypeVar("B", bound=Callable[..., Plan])


class Solver(NamedTuple):
    """A line of the registry.

    Attributes:
        build: (process, ts, *, ...) -> Plan.
        order: formal order of convergence, as a function of the `order` option.
        orders: legal values of the `order` option, empty if there is none.
        calls: model evaluations per step.
        stochastic: options that make it draw noise, empty if none do.
        paper: where it comes from.
        needs: what it needs beside a process and times, empty for nothing.
        draws: whether it draws noise whatever its options.
    """

    build: Callable[..., Plan]
    order: Callable[[int], int]
    orders: tuple[int, ...]
    calls: int
    stochastic: tuple[str, ...]
    paper: str
    needs: str = ""
    draws: bool = False


SOLVERS: dict[str, Solver] = {}
"""Every solver by its name."""


def solver(
    *,
    order: int | Callable[[int], int],
    paper: str,
    orders: tuple[int, ...] = (),
    calls: int = 1,
    stochastic: tuple[str, ...] = (),
    needs: str = "",
    draws: bool = False,
) -> Callable[[B], B]:
    """Register a builder under its own name; see `Solver` for the fields.

    Args:
        order: formal order, or a function of the `order` option.
        paper, orders, calls, stochastic, needs, draws: see `Solver`.
    """
    formal = order if callable(order) else lambda _: order

    def register(build: B) -> B:
        build = checked(build)
        line = Solver(build, formal, orders, calls, stochastic, paper, needs, draws)
        SOLVERS[getattr(build, "__name__")] = line  # noqa: B009
        return build

    return register


@checked
def find(name: str) -> Solver:
    """The registry's line for a name.

    Raises:
        ValueError: an unknown name, with the nearest one.
    """
    if name not in SOLVERS:
        near = difflib.get_close_matches(name, SOLVERS, 1, 0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"unknown solver {name!r}.{hint} Known: {', '.join(sorted(SOLVERS))}."
        )
    return SOLVERS[name]
