"""Solvers: functions that compute a sampler's table of weights, once, on the host.

Every solver is `solver(process, ts, *, ...) -> Plan`. SOLVERS lists them by name.
"""

import difflib
import math
from collections.abc import Callable
from typing import NamedTuple

from ..plan import Plan
from .adams import adams as adams
from .ancestral import ddpm as ddpm
from .ancestral import dpm2_ancestral as dpm2_ancestral
from .ancestral import euler_ancestral as euler_ancestral
from .ancestral import euler_maruyama as euler_maruyama
from .churn import edm_churn as edm_churn
from .dc_solver import dc_solver as dc_solver
from .ddim import ddim as ddim
from .deis import deis_tab as deis_tab
from .dpm_solver import dpm_solver_2 as dpm_solver_2
from .dpm_solver import dpm_solver_3 as dpm_solver_3
from .dpm_solver import dpm_solver_fast as dpm_solver_fast
from .dpm_solver_pp import dpmpp_2m as dpmpp_2m
from .dpm_solver_pp import dpmpp_3m as dpmpp_3m
from .dpm_solver_pp_single import dpmpp_2s as dpmpp_2s
from .dpm_solver_pp_single import dpmpp_3s as dpmpp_3s
from .dpm_solver_v3 import dpm_solver_v3 as dpm_solver_v3
from .dpmpp_2m_hb import dpmpp_2m_hb as dpmpp_2m_hb
from .dpmpp_sde import dpmpp_2s_ancestral as dpmpp_2s_ancestral
from .dpmpp_sde import dpmpp_sde as dpmpp_sde
from .er_sde import er_sde as er_sde
from .exp_adams import deis_logrho as deis_logrho
from .exp_adams import exp_adams as exp_adams
from .exp_rk import etdrk2 as etdrk2
from .exp_rk import etdrk4 as etdrk4
from .exp_rk import ho_3 as ho_3
from .exp_rk import krogstad as krogstad
from .exp_rk import res_2 as res_2
from .exp_rk import res_3 as res_3
from .flow_turbo import flow_turbo as flow_turbo
from .interpolant import interpolant as interpolant
from .interpolant import tau2_from_diffusion as tau2_from_diffusion
from .ipndm import ipndm as ipndm
from .ipndm import ipndm_v as ipndm_v
from .linear import Table as Table
from .linear import bespoke as bespoke
from .linear import olss as olss
from .linear import unroll as unroll
from .momentum import ghvb as ghvb
from .momentum import hb as hb
from .momentum import nt as nt
from .pndm import f_pndm as f_pndm
from .pndm import plms as plms
from .pndm import s_pndm as s_pndm
from .predictor_corrector import predictor_corrector as predictor_corrector
from .residual_noise import residual_noise as residual_noise
from .reverse_diffusion import reverse_diffusion as reverse_diffusion
from .reverse_diffusion import score_sde_ancestral as score_sde_ancestral
from .rho_rk import dpm2 as dpm2
from .rho_rk import rho_rk as rho_rk
from .rk import edm_heun as edm_heun
from .rk import euler as euler
from .rk import heun as heun
from .sa_solver import sa_solver as sa_solver
from .sde_dpm_solver_pp import sde_dpmpp_1 as sde_dpmpp_1
from .sde_dpm_solver_pp import sde_dpmpp_2m as sde_dpmpp_2m
from .sde_dpm_solver_pp import sde_dpmpp_3m as sde_dpmpp_3m
from .seeds import seeds as seeds
from .teleport import Gaussian as Gaussian
from .teleport import fit_gaussian as fit_gaussian
from .teleport import jump as jump
from .teleport import teleport as teleport
from .two_endpoint import two_endpoint as two_endpoint
from .unipc import unipc as unipc
from .usf import Decision as Decision
from .usf import Schedule as Schedule
from .usf import repair as repair
from .usf import usf as usf
from .usf import usf_schedule as usf_schedule

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


def _at_most_2(order: float) -> int:
    """Equal-step weights on a grid that is uneven in sigma / alpha."""
    return min(math.ceil(order), 2)


def _lagging(order: float) -> int:
    """The same; a velocity (an order that is not whole) lags by a step."""
    return _at_most_2(order) if order == int(order) else 1


SOLVERS: dict[str, Solver] = {
    "adams": Solver(
        adams, lambda p: p, (1, 2, 3, 4, 5, 6), 1, (), "LMS / rhoAB, 2204.13902"
    ),
    "dc_solver": Solver(
        dc_solver, lambda p: p + 1, (1, 2, 3, 4), 1, (), "Zhao 2024, 2409.03755"
    ),
    "ddim": Solver(ddim, _fixed(1), (), 1, ("eta",), "Song 2021, 2010.02502"),
    "deis_logrho": Solver(
        deis_logrho, lambda p: p, (1, 2, 3, 4, 5, 6), 1, (), "Zhang 2023, 2204.13902"
    ),
    "deis_tab": Solver(
        deis_tab, lambda r: r + 1, (0, 1, 2, 3), 1, (), "Zhang 2023, 2204.13902"
    ),
    "dpm2": Solver(dpm2, _fixed(2), (), 2, (), "Lu 2022, 2206.00927"),
    "dpm2_ancestral": Solver(
        dpm2_ancestral,
        _fixed(2),  # without noise; with it 1
        (),
        2,
        ("eta",),
        "Lu 2022, 2206.00927; k-diffusion",
    ),
    "dpm_solver_2": Solver(dpm_solver_2, _fixed(2), (), 2, (), "Lu 2022, 2206.00927"),
    "dpm_solver_3": Solver(dpm_solver_3, _fixed(3), (), 3, (), "Lu 2022, 2206.00927"),
    "dpm_solver_fast": Solver(  # order 3 ends in a first-order step for most N
        dpm_solver_fast, _fixed(2), (2, 3), 1, (), "Lu 2022, 2206.00927"
    ),
    "dpmpp_2m": Solver(dpmpp_2m, _fixed(2), (), 1, (), "Lu 2022, 2211.01095"),
    "dpmpp_2m_hb": Solver(
        dpmpp_2m_hb, _fixed(1), (), 1, (), "Wizadwongsa 2023, 2307.11118"
    ),
    "dpmpp_2s": Solver(dpmpp_2s, _fixed(2), (), 2, (), "Lu 2022, 2211.01095"),
    "dpmpp_2s_ancestral": Solver(
        dpmpp_2s_ancestral, _fixed(1), (), 2, ("eta",), "Karras 2022, 2206.00364"
    ),
    "dpmpp_3m": Solver(dpmpp_3m, _fixed(3), (), 1, (), "Lu 2022, 2211.01095"),
    "dpmpp_3s": Solver(dpmpp_3s, _fixed(3), (), 3, (), "Lu 2022, 2211.01095"),
    "dpmpp_sde": Solver(dpmpp_sde, _fixed(2), (), 2, ("tau2",), "Lu 2022, 2211.01095"),
    "edm_churn": Solver(  # without noise; with it 1
        edm_churn, _fixed(2), (), 2, ("s_churn",), "Karras 2022, 2206.00364"
    ),
    "edm_heun": Solver(edm_heun, _fixed(2), (), 2, (), "Karras 2022, 2206.00364"),
    "er_sde": Solver(
        er_sde, lambda p: p, (1, 2, 3), 1, ("eta",), "Cui 2023, 2309.06169"
    ),
    "etdrk2": Solver(etdrk2, _fixed(2), (), 2, (), "Cox & Matthews 2002"),
    "etdrk4": Solver(etdrk4, _fixed(4), (), 4, (), "Cox & Matthews 2002"),
    "euler": Solver(euler, _fixed(1), (), 1, (), "Euler, in the path's own time"),
    "euler_ancestral": Solver(
        euler_ancestral, _fixed(1), (), 1, ("eta",), "Karras 2022, 2206.00364"
    ),
    "euler_maruyama": Solver(
        euler_maruyama, _fixed(1), (), 1, ("tau2",), "Song 2021, 2011.13456"
    ),
    "exp_adams": Solver(
        exp_adams, lambda p: p, (1, 2, 3, 4, 5, 6), 1, (), "exponential Adams, exact"
    ),
    "f_pndm": Solver(f_pndm, _fixed(2), (), 1, (), "Liu 2022, 2202.09778"),
    "flow_turbo": Solver(flow_turbo, _fixed(2), (), 1, (), "Zhao 2024, 2409.18128"),
    "ghvb": Solver(
        ghvb, _at_most_2, (1, 2, 3, 4, 5), 1, (), "Wizadwongsa 2023, 2307.11118"
    ),
    "hb": Solver(hb, _lagging, (1, 2, 3, 4, 5), 1, (), "Wizadwongsa 2023, 2307.11118"),
    "heun": Solver(heun, _fixed(2), (), 2, (), "Heun, in the path's own time"),
    "ho_3": Solver(ho_3, _fixed(3), (), 3, (), "Hochbruck & Ostermann 2005"),
    "ipndm": Solver(ipndm, _at_most_2, (1, 2, 3, 4), 1, (), "Zhang 2023, 2204.13902"),
    "ipndm_v": Solver(
        ipndm_v, lambda p: p, (1, 2, 3, 4), 1, (), "Zhang 2023, 2204.13902"
    ),
    "krogstad": Solver(krogstad, _fixed(4), (), 4, (), "Krogstad 2005"),
    "nt": Solver(nt, _lagging, (1, 2, 3, 4, 5), 1, (), "Wizadwongsa 2023, 2307.11118"),
    "plms": Solver(plms, _fixed(2), (2, 3, 4), 1, (), "Liu 2022, 2202.09778"),
    "predictor_corrector": Solver(
        predictor_corrector, _fixed(1), (), 2, ("tau2", "snr"), "Song 2021, 2011.13456"
    ),
    "res_2": Solver(res_2, _fixed(2), (), 2, (), "Zhang 2023, 2308.02157"),
    "res_3": Solver(res_3, _fixed(3), (), 3, (), "Zhang 2023, 2308.02157"),
    "reverse_diffusion": Solver(
        reverse_diffusion, _fixed(1), (), 1, ("tau2",), "Song 2021, 2011.13456"
    ),
    "rho_rk": Solver(rho_rk, _fixed(3), (), 3, (), "Zhang 2023, 2204.13902"),
    "s_pndm": Solver(s_pndm, _fixed(2), (), 1, (), "Liu 2022, 2202.09778"),
    "sa_solver": Solver(  # order 4 without noise
        sa_solver, _fixed(2), (), 1, ("tau",), "Xue 2023, 2309.05019"
    ),
    "sde_dpmpp_1": Solver(
        sde_dpmpp_1, _fixed(1), (), 1, ("tau2",), "Lu 2022, 2211.01095"
    ),
    "sde_dpmpp_2m": Solver(
        sde_dpmpp_2m, _fixed(2), (), 1, ("tau2",), "Lu 2022, 2211.01095"
    ),
    "sde_dpmpp_3m": Solver(  # order 3 without noise
        sde_dpmpp_3m, _fixed(2), (), 1, ("tau2",), "Lu 2022, 2211.01095"
    ),
    "seeds": Solver(  # order=3: 3 calls per step, and order 3 without noise
        seeds, _fixed(2), (2, 3), 2, ("tau2",), "Gonzalez 2023, 2305.14267"
    ),
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
