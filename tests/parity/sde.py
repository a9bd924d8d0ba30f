"""Solvers of the reverse SDEs: diffusers' and k-diffusion's."""

import numpy as np

import fastdiff_jax as fd
from fastdiff_jax.numerics import gather_columns, levels, step_orders
from fastdiff_jax.solvers import _noise as sde
from fastdiff_jax.solvers.singlestep.dpm_solver import fast_orders

from ..golden_cases import NotYet, path, steps
from .singlestep import clock


def multistep(case, o, arrays):
    process, ts = path(case, arrays)
    if case["oracle"] == "k-diffusion":
        return fd.solvers.sde_dpmpp_2m(
            process,
            ts,
            tau2=o["eta"],
            variant=_form(o),
            lower_order_final=False,
            s_noise=o["s_noise"],
        )
    shared = {"prediction": "data" if o["algorithm_type"][-2:] == "++" else "noise"}
    if o["solver_order"] == 1:
        return fd.solvers.sde_dpmpp_1(process, ts, **shared)
    shared["lower_order_final"] = o["lower_order_final"] and steps(arrays) < 15
    shared["euler_at_final"] = o["euler_at_final"]
    if o["solver_order"] == 2:
        return fd.solvers.sde_dpmpp_2m(process, ts, variant=_form(o), **shared)
    if not o.get("corrected") and shared["prediction"] == "data":
        return _diffusers_third(process, ts, _form(o), shared)
    return fd.solvers.sde_dpmpp_3m(process, ts, variant=_form(o), **shared)


def _diffusers_third(process, ts, form, shared):
    """Its second difference has -(phi_2 + 1/2) where k-diffusion has 1/2 - phi_2.

    The published half weight with a sign lost: what remains is of order 1.
    """
    lv = levels(process, ts)
    tau2 = np.ones(lv.steps)
    orders = step_orders(
        lv,
        3,
        lower_final=shared["lower_order_final"],
        final=1 if shared["euler_at_final"] else None,
    )

    def weights(rows, count):
        if count == 2 and form == "midpoint":
            return sde.midpoint_weights(lv, tau2, rows)
        if count < 3:
            return sde.exact_weights(lv, tau2, rows, count)
        h, h0, h1 = lv.h[rows], lv.h[rows - 1], lv.h[rows - 2]
        lost = -lv.alpha[rows + 1] * h / (h0 + h1)  # of the two slopes' difference
        change = [lost * h / h0, -lost * h / h0 - lost * h / h1, lost * h / h1]
        return sde.published_third_weights(lv, tau2, rows) + np.stack(change, -1)

    keep, noise = sde.sde_step(lv.starts, lv.ends, tau2, lv.h)
    columns = gather_columns(orders, weights, 3)
    return fd.plan.multistep(lv, keep=keep, weights=columns, noise=noise)


def _form(o):
    return "exact" if o["solver_type"] == "heun" else "midpoint"


def third(case, o, arrays):
    return fd.solvers.sde_dpmpp_3m(
        *path(case, arrays),
        tau2=o["eta"],
        compat=not o.get("corrected"),
        lower_order_final=False,
        s_noise=o["s_noise"],
    )


def dpmpp_sde(case, o, arrays):
    return fd.solvers.dpmpp_sde(
        *clock(case, arrays),
        tau2=o["eta"] ** 2,
        r=o["r"],
        compat=True,
        s_noise=o["s_noise"],
    )


def ancestral_2s(case, o, arrays):
    process, ts = clock(case, arrays)
    return fd.solvers.dpmpp_2s_ancestral(
        process, ts, eta=o["eta"], s_noise=o["s_noise"]
    )


def shared_grid(case, o, arrays):
    """Steps of order k over k grid nodes, each node with noise of its own.

    Published as such: a step restarts from the state k - 1 nodes back, and the noise
    of its inner node is not part of its own.
    """
    if o["solver_order"] > 2:
        raise NotYet("SDE singlestep of order 3")
    process, ts = path(case, arrays)
    n = steps(arrays)
    alpha, sigma, lam = (f(ts) for f in (process.alpha, process.sigma, _lam(process)))
    keep, noise, newest, older = (np.zeros(n) for _ in range(4))
    closes = np.zeros(n, bool)
    orders = fast_orders(n, o["solver_order"], bool(o["lower_order_final"]))
    i = 0
    for order in orders:
        for k in range(1, order + 1):  # from node i to node i + k
            row = i + k - 1
            h = lam[i + k] - lam[i]
            keep[row] = sigma[i + k] / sigma[i] * np.exp(-h)
            noise[row] = sigma[i + k] * np.sqrt(-np.expm1(-2 * h))
            total = -alpha[i + k] * np.expm1(-2 * h)
            slope = 0.0
            if k == 2:
                unit = total / 2
                if o["solver_type"] == "heun":
                    unit = alpha[i + k] * (np.expm1(-2 * h) / (2 * h) + 1)
                slope = unit * h / (lam[i + 1] - lam[i])
            newest[row], older[row] = (total, 0) if k == 1 else (slope, total - slope)
            closes[row] = k == order
        i += order
    level = fd.plan.Level(ts[:-1], alpha[:-1], sigma[:-1])
    # register 1: the state that the step restarts from; 2: the node's own evaluation
    begin, d = fd.plan.register(1), fd.plan.prediction()
    ahead = keep * begin + newest * d + noise * fd.plan.NOISE
    ahead = ahead + older * fd.plan.register(2)
    after = closes * ahead + (1.0 - closes) * begin
    return fd.plan.build(
        level,
        fd.plan.Level(ts[-1], alpha[-1], sigma[-1]),
        [(0, ahead), (1, after), (2, d)],
        sample=after,
        start={1: fd.plan.register(0)},
    )


def _lam(process):
    def at(ts):
        with np.errstate(divide="ignore"):
            return process.half_log_snr(ts)

    return at


FAMILIES = {
    "sde-dpmsolver-multistep": multistep,
    "sde-dpmsolver-singlestep-sharedgrid": shared_grid,
    "dpmpp-3m-sde": third,
    "dpmpp-sde": dpmpp_sde,
    "dpmpp-2s-ancestral": ancestral_2s,
}
# the draw of each row, where it is not draw i for row i
NOISE_ROWS = {"dpmpp-2s-ancestral": lambda case, plan: np.arange(plan.length) // 2}
