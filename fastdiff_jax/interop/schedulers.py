"""From a scheduler class, its settings and its grid to one of our solvers' plans.

Each builder returns the plan and the label that the network gets at each row.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import plan as plans
from .. import solvers
from ..numerics import levels
from ..plan import Plan
from ._landing import ancestral, second_order_sde
from ._schedules import kind, table, to_label, trained
from .grids import Grid

__all__ = [
    "Built",
    "cogvideox_ddim",
    "cogvideox_dpm",
    "ddim",
    "ddpm",
    "deis",
    "dpm",
    "euler",
    "euler_ancestral",
    "flow_euler",
    "flow_heun",
    "heun",
    "ipndm",
    "kdpm2",
    "kdpm2_ancestral",
    "lms",
    "sa",
    "singlestep",
    "unipc",
]

Settings = dict[str, Any]
Built = tuple[Plan, np.ndarray]
_FEW = 15  # `lower_order_final` acts below this many steps


def _two(labels: np.ndarray, inner: np.ndarray | None = None) -> np.ndarray:
    """Labels of two evaluations per step and one in the last: s_0, in_0, s_1, ..."""
    inner = labels[1:] if inner is None else inner
    return np.append(np.stack([labels[:-1], inner], 1).ravel(), labels[-1])


def ddim(settings: Settings, grid: Grid, options: Settings) -> Built:
    """DDIM; clipping leaves the direction term as the network gave it."""
    mapped = settings["clip_sample"] or settings["thresholding"]
    both = bool(mapped and not options["use_clipped_model_output"])
    shared = {"eta": options["eta"], "second_noise": both}
    if grid.lands is None:
        return solvers.ddim(grid.process, grid.ts, **shared), grid.labels
    return ancestral(grid, **shared), grid.labels


def ddpm(settings: Settings, grid: Grid, options: Settings) -> Built:
    """Ancestral sampling: DDIM with eta = 1, or with the larger variance beta_t."""
    del options
    made = solvers.ddim(grid.process, grid.ts, eta=1.0)
    kind = settings["variance_type"]
    if kind == "fixed_large":
        alpha = grid.process.alpha(grid.ts)
        large = np.sqrt((1 - alpha[:-1] / alpha[1:]) * (1 + alpha[:-1] / alpha[1:]))
        large = np.where(grid.labels > 0, large, 0.0)  # none after label 0
        noise = np.stack([large] * 2, axis=1)  # of the write, and of the sample
        made = dataclasses.replace(made, rows=made.rows._replace(noise=noise))
    elif kind not in ("fixed_small", "fixed_small_log"):
        raise ValueError(
            f"variance_type={kind!r} is not supported; DDPM takes 'fixed_small', "
            "'fixed_small_log' or 'fixed_large' here. A learned variance needs the "
            "network's second half."
        )
    return made, grid.labels


def ipndm(settings: Settings, grid: Grid, options: Settings) -> Built:
    """IPNDM, as published: equal-step weights, and no data mean from alpha = 0."""
    del settings, options
    return solvers.ipndm(grid.process, grid.ts, compat=True), grid.labels


def _basis(name: str, settings: Settings) -> str:
    """'data' or 'noise' of a DPM-Solver's `algorithm_type`, and its limits."""
    kind = settings["algorithm_type"]
    noisy = kind.startswith("sde")
    highest = 1 if noisy and name == "DPMSolverSinglestepScheduler" else 2
    if noisy and settings["solver_order"] > highest:
        raise ValueError(
            f"algorithm_type={kind!r} with solver_order={settings['solver_order']} is "
            f"not supported by {name}; use solver_order <= {highest}, or "
            f"{kind.removeprefix('sde-')!r}."
        )
    if settings["solver_order"] > 3:
        raise ValueError(
            f"solver_order must be 1, 2 or 3 for {name}, got "
            f"{settings['solver_order']}."
        )
    if kind.removeprefix("sde-") != "dpmsolver":  # 'deis' stands for the default
        return "data"
    if name.startswith("EDM"):
        raise ValueError(
            "algorithm_type must be 'dpmsolver++' for EDMDPMSolverMultistepScheduler, "
            f"got {kind!r}."
        )
    if settings.get("final_sigmas_type") == "zero":
        raise ValueError(
            f"final_sigmas_type='zero' does not go with algorithm_type={kind!r}; "
            f"use 'sigma_min', or {kind + '++'!r}."
        )
    return "noise"


def dpm(name: str) -> Callable[[Settings, Grid, Settings], Built]:
    """DPM-Solver(++) multistep, with the published third-order weights."""

    def build(settings: Settings, grid: Grid, options: Settings) -> Built:
        order, basis = settings["solver_order"], _basis(name, settings)
        form = "exact" if settings["solver_type"] == "heun" else "midpoint"
        shared: Settings = {
            "prediction": basis,
            "lower_order_final": settings["lower_order_final"]
            and options["steps"] < _FEW,
            "euler_at_final": settings.get("euler_at_final", False),
        }
        noisy = settings["algorithm_type"].startswith("sde")
        if order == 1 and noisy:
            made = solvers.sde_dpmpp_1(grid.process, grid.ts, prediction=basis)
        elif order == 1:
            made = solvers.ddim(grid.process, grid.ts)
        elif noisy:
            made = solvers.sde_dpmpp_2m(grid.process, grid.ts, variant=form, **shared)
        elif order == 2:
            made = solvers.dpmpp_2m(grid.process, grid.ts, variant=form, **shared)
        else:
            made = solvers.dpmpp_3m(
                grid.process, grid.ts, variant=form, compat=True, **shared
            )
        return made, grid.labels

    return build


def singlestep(settings: Settings, grid: Grid, options: Settings) -> Built:
    """Singlestep DPM-Solver(++): the grid's own levels serve as inner stages."""
    basis = _basis("DPMSolverSinglestepScheduler", settings)
    if settings["algorithm_type"].startswith("sde"):  # order 1
        return dpm("DPMSolverSinglestepScheduler")(settings, grid, options)
    order, steps = settings["solver_order"], len(grid.labels)
    lower = settings["lower_order_final"] or steps % order > 0
    lower = lower or settings["final_sigmas_type"] == "zero"
    made = solvers.dpm_solver_fast(
        grid.process,
        grid.ts,
        order=order,
        lower_order_final=lower,
        variant="taylor" if settings["solver_type"] == "heun" else "dpmsolver",
        prediction=basis,
        compat=True,
    )
    return made, grid.labels


def deis(settings: Settings, grid: Grid, options: Settings) -> Built:
    """DEIS with a polynomial in log rho."""
    order = settings["solver_order"]
    if order > 3:
        raise ValueError(f"solver_order must be 1, 2 or 3 for DEIS, got {order}.")
    if settings["algorithm_type"].startswith("sde"):
        raise ValueError(
            "algorithm_type must be 'deis' for DEISMultistepScheduler, got "
            f"{settings['algorithm_type']!r}."
        )
    lower = settings["lower_order_final"] and options["steps"] < _FEW
    made = solvers.deis_logrho(
        grid.process, grid.ts, order=order, lower_order_final=lower
    )
    return made, grid.labels


def unipc(settings: Settings, grid: Grid, options: Settings) -> Built:
    """UniPC, whose order comes down at the end for any step count."""
    kind, begin = settings["solver_type"], options["begin"]
    alone = (i - begin for i in settings["disable_corrector"])  # of the whole grid
    made = solvers.unipc(
        grid.process,
        grid.ts,
        order=settings["solver_order"],
        variant=kind if kind in ("bh1", "bh2") else "bh2",
        prediction="data" if settings["predict_x0"] else "noise",
        lower_order_final=settings["lower_order_final"],
        disable_corrector=tuple(i for i in alone if i >= 0),
    )
    return made, grid.labels


def euler(settings: Settings, grid: Grid, options: Settings) -> Built:
    """Euler in sigma; with churn, the network sees the level before the churn."""
    if not options.get("s_churn"):
        return solvers.euler(grid.process, grid.ts), grid.labels
    lv, sigma = levels(grid.process, grid.ts), grid.ts[:-1]
    inside = (sigma >= options["s_tmin"]) & (sigma <= options["s_tmax"])
    most = min(options["s_churn"] / _churned(settings, options), math.sqrt(2) - 1)
    raised = sigma * (1 + np.where(inside, most, 0.0))
    drawn = options["s_noise"] * np.sqrt(raised**2 - sigma**2)
    # (x' - D') / raised of the point x' = x + drawn z, where the network saw x:
    # how much of the draw the derivative holds
    held = {
        "epsilon": 0.0 * sigma,
        "sample": 1 / raised,
        "v_prediction": sigma**2 / (1 + sigma**2) / raised,
    }[settings["prediction_type"]]
    step = grid.ts[1:] - raised
    exact = settings["prediction_type"] == "epsilon"  # the network's own E is kept
    share = step / (sigma if exact else raised)
    made = plans.multistep(
        lv,
        keep=1 + share,
        weights=-share[:, None],
        noise=drawn * (1 + step * held),
    )
    return made, grid.labels


def _churned(settings: Settings, options: Settings) -> int:
    """What Euler divides `s_churn` by: its levels but one."""
    extra = settings.get("interpolation_type") == "log_linear"
    extra = extra and kind(settings) is None and options.get("sigmas") is None
    return options["steps"] + int(extra)


def euler_ancestral(settings: Settings, grid: Grid, options: Settings) -> Built:
    """Euler ancestral: in x / alpha this is DDIM with eta = 1."""
    del settings, options
    return solvers.ddim(grid.process, grid.ts, eta=1.0), grid.labels


def heun(settings: Settings, grid: Grid, options: Settings) -> Built:
    """Heun in sigma."""
    del settings, options
    return solvers.edm_heun(grid.process, grid.ts), _two(grid.labels)


def lms(settings: Settings, grid: Grid, options: Settings) -> Built:
    """LMS: Adams-Bashforth in sigma on uneven steps."""
    del settings
    made = solvers.adams(grid.process, grid.ts, order=options["order"])
    return made, grid.labels


def kdpm2(settings: Settings, grid: Grid, options: Settings) -> Built:
    """DPM-2: inner levels half-way in log sigma, and their own labels."""
    del options
    middle = np.sqrt(grid.ts[:-2] * grid.ts[1:-1])
    inner = to_label(middle, table(trained(settings)))
    return solvers.dpm2(grid.process, grid.ts), _two(grid.labels, inner)


def kdpm2_ancestral(settings: Settings, grid: Grid, options: Settings) -> Built:
    """DPM-2 down to sigma_t^2 / sigma_s, whose inner level is sigma_t itself."""
    del options
    inner = to_label(grid.ts[1:-1], table(trained(settings)))
    made = solvers.dpm2_ancestral(grid.process, grid.ts)
    return made, _two(grid.labels, inner)


def sa(settings: Settings, grid: Grid, options: Settings) -> Built:
    """SA-Solver; tau, of the label at a step's start, is 1 in 200..800 as published."""
    tau = options["tau_func"]
    if tau is None:
        tau = lambda label: 1.0 if 200 <= label <= 800 else 0.0  # noqa: E731
    found = np.array([np.asarray(tau(label), np.float64) for label in grid.labels])
    if found.ndim != 1 or not (np.isfinite(found) & (found >= 0)).all():
        raise ValueError(
            "tau_func must give one finite number >= 0 for every label, got "
            f"{found.ravel()[0]:g}{f' of shape {found.shape[1:]}' * (found.ndim > 1)}."
        )
    made = solvers.sa_solver(
        grid.process,
        grid.ts,
        predictor_order=settings["predictor_order"],
        corrector_order=settings["corrector_order"],
        tau2=found**2,
        prediction=settings["algorithm_type"].removesuffix("_prediction"),
        variant="few_step",
        lower_order_final=settings["lower_order_final"],
        compat=True,
    )
    return made, grid.labels


def cogvideox_ddim(settings: Settings, grid: Grid, options: Settings) -> Built:
    """DDIM without noise; the published step takes eta and a clipping and uses none."""
    del settings, options
    made = solvers.ddim(grid.process, grid.ts)
    return (made if grid.lands is None else ancestral(grid, 0.0)), grid.labels


def cogvideox_dpm(settings: Settings, grid: Grid, options: Settings) -> Built:
    """SDE-DPM-Solver++(2M)."""
    apart = settings["num_train_timesteps"] // options["steps"]
    return second_order_sde(grid, apart), grid.labels


def flow_euler(settings: Settings, grid: Grid, options: Settings) -> Built:
    """Euler in t, or fresh noise on the data prediction after every step."""
    del options
    if not settings["stochastic_sampling"]:
        return solvers.euler(grid.process, grid.ts), grid.labels
    made = solvers.euler_ancestral(grid.process, grid.ts, eta=np.inf)
    return made, grid.labels


def flow_heun(settings: Settings, grid: Grid, options: Settings) -> Built:
    """Heun in t."""
    del settings, options
    return solvers.heun(grid.process, grid.ts), _two(grid.labels)
