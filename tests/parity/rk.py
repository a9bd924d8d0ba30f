"""Runge-Kutta in rho, DPM-2, DEIS in log rho, UniPC with varying coefficients."""

import numpy as np

import fastdiff_jax as fd

from ..golden_cases import NotYet, continuous, path
from .basic import _to_zero

RHO_RK = {
    "1euler": "euler",
    "2heun": "heun2",
    "3kutta": "kutta3",
    "3ral": "ralston3",
    "3heun": "heun3",
    "3vdh": "van_der_houwen3",
    "3ssprk": "ssprk3",
    "4rk": "rk4",
}


def rho_rk(case, o, arrays):
    process, ts = continuous(case, arrays)
    return fd.solvers.rho_rk(process, ts, variant=RHO_RK[o.get("rk_method", "3kutta")])


def dpm2(case, o, arrays):
    if o.get("s_churn"):
        raise NotYet("s_churn")
    process, ts = continuous(case, arrays)
    if o.get("denoise_to_zero") and arrays["grid_sigma"][-1] > 0:
        ts = np.append(ts, 0.0)
    plan = fd.solvers.dpm2(process, ts, r=o.get("r", 0.5))
    return fd.plan.analytic_first_step(plan, "unit") if o.get("afs") else plan


def deis_logrho(case, o, arrays):
    process, ts = path(case, arrays)
    lower = o["lower_order_final"] and len(ts) - 1 < 15
    order = o["solver_order"]
    return fd.solvers.deis_logrho(process, ts, order=order, lower_order_final=lower)


def unipc_vary(case, o, arrays):
    process, ts = path(case, arrays)
    denoise = bool(o["denoise_to_zero"])
    if denoise:
        process, ts = _to_zero(arrays)
        ts = ts[:-1]
    return fd.solvers.unipc(
        process,
        ts,
        order=o["order"],
        variant="vary",
        compat=not o["corrected"],
        prediction="data" if o["algorithm"] == "data_prediction" else "noise",
        lower_order_final=o["lower_order_final"],
        denoise=denoise,
    )


FAMILIES = {
    "deis-rhork": rho_rk,
    "dpm2": dpm2,
    "deis-logrho": deis_logrho,
    "unipc-vary": unipc_vary,
}
