"""Solvers: functions that compute a sampler's table of weights, once, on the host.

Every solver is `solver(process, ts, *, ...) -> Plan`. SOLVERS lists them by name.
"""

import difflib
from collections.abc import Callable
from typing import NamedTuple

from ..plan import Plan
from .adams import adams as adams
from .ddim import ddim as ddim
from .deis import deis_tab as deis_tab
from .dpm_solver_pp import dpmpp_2m as dpmpp_2m
from .dpm_solver_pp import dpmpp_3m as dpmpp_3m
from .rk import edm_heun as edm_heun
from .rk import euler as euler
from .rk import heun as heun
from .unipc import unipc as unipc

__all__ = ["SOLVERS", "Solver", "find"]


class Solver(NamedTuple):
    """A line of the registry.

    Attributes:
        build: (process, ts, *, ...) -> Plan.
        order: formal order of convergence, as a function of the `order` option.
        orders: legal values of the `order` option, empty if there is none.
        calls: model evaluations per step.
        stochastic: options that make it draw noise, empty if none do.
        paper: where it comes from.
    """

    build: Callable[..., Plan]
    order: Callable[[int], int]
    orders: tuple[int, ...]
    calls: int
    stochastic: tuple[str, ...]
    paper: str


def _fixed(order: int) -> Callable[[int], int]:
    return lambda _: order


SOLVERS: dict[str, Solver] = {
    "adams": Solver(
        adams, lambda p: p, (1, 2, 3, 4, 5, 6), 1, (), "LMS / rhoAB, 2204.13902"
    ),
    "ddim": Solver(ddim, _fixed(1), (), 1, ("eta",), "Song 2021, 2010.02502"),
    "deis_tab": Solver(
        deis_tab, lambda r: r + 1, (0, 1, 2, 3), 1, (), "Zhang 2023, 2204.13902"
    ),
    "dpmpp_2m": Solver(dpmpp_2m, _fixed(2), (), 1, (), "Lu 2022, 2211.01095"),
    "dpmpp_3m": Solver(dpmpp_3m, _fixed(3), (), 1, (), "Lu 2022, 2211.01095"),
    "edm_heun": Solver(edm_heun, _fixed(2), (), 2, (), "Karras 2022, 2206.00364"),
    "euler": Solver(euler, _fixed(1), (), 1, (), "Euler, in the path's own time"),
    "heun": Solver(heun, _fixed(2), (), 2, (), "Heun, in the path's own time"),
    "unipc": Solver(
        unipc, lambda p: p + 1, (1, 2, 3, 4), 1, (), "Zhao 2023, 2302.04867"
    ),
}
"""Every solver by its name; the command line, tests and README table read it."""


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
