"""Pseudo-linear multistep: ipndm, ipndm_v, PLMS and F-PNDM."""

import numpy as np

import fastdiff_jax as fd

from ..golden_cases import NotYet, path
from .basic import _to_zero, analytic_first


def _diff_sampler(solver, case, o, arrays):
    process, ts = path(case, arrays)
    denoise = bool(o.get("denoise_to_zero"))
    if denoise:
        process, ts = _to_zero(arrays)
        ts = ts[:-1]
    plan = solver(
        process, ts, order=o.get("max_order", 3), denoise=denoise, compat=True
    )
    return analytic_first(plan, o)


def ipndm(case, o, arrays):
    if case["oracle"] == "diff-sampler":
        return _diff_sampler(fd.solvers.ipndm, case, o, arrays)
    return fd.solvers.ipndm(*path(case, arrays), compat=True)


def ipndm_v(case, o, arrays):
    return _diff_sampler(fd.solvers.ipndm_v, case, o, arrays)


def _average(o):
    return "velocity" if o.get("prediction_type") == "v_prediction" else "noise"


def plms(case, o, arrays):
    if o.get("timestep_spacing") == "linspace":
        raise NotYet("steps of 1000 // N that do not join")
    return fd.solvers.plms(*path(case, arrays), average=_average(o))


def f_pndm(case, o, arrays):
    """The middle levels of the first three steps are those of the stages."""
    if o.get("skip_prk_steps"):
        return plms(case, o, arrays)
    levels = []
    for name in ("alpha", "sigma"):
        grid, seen = arrays[f"grid_{name}"], arrays[f"eval_{name}"]
        middle = np.append(grid[1:], grid[-1])
        for i in range(min(3, len(grid) - 1)):
            middle[i] = seen[4 * i + 1]
        levels.append(np.stack([grid, middle], 1).ravel()[:-1])
    process = fd.processes.tabulated(*levels)
    ts = 2.0 * np.arange(len(arrays["grid_alpha"]))[::-1]
    return fd.solvers.f_pndm(process, ts, average=_average(o))


FAMILIES = {"ipndm": ipndm, "ipndm_v": ipndm_v, "plms": plms, "pndm": f_pndm}
