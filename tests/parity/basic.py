"""The first solvers: ddim, euler, heun, DPM-Solver++ multistep, UniPC, LMS, DEIS."""

from typing import Any

import numpy as np

import fastdiff_jax as fd

from ..golden_cases import NotYet, VPClock, continuous, path, refuse, steps


def ddim(case, o, arrays):
    if o.get("timestep_spacing") == "linspace":
        return _ddim_linspace(case, o, arrays)
    process, ts = path(case, arrays)
    step = o.get("step", {})
    # the noise direction stays that of the raw prediction, unless asked otherwise
    second = bool(o.get("clip_sample") or o.get("thresholding"))
    second = second and not step.get("use_clipped_model_output")
    return fd.solvers.ddim(process, ts, eta=step.get("eta", 0.0), second_noise=second)


def _ddim_linspace(case, o, arrays):
    """Steps of 1000 // N from labels that lie 999 / (N - 1) apart: they do not join."""
    if o.get("step") or o.get("clip_sample") or o.get("thresholding"):
        raise NotYet("linspace with noise or clipping")
    process = fd.processes.vp_discrete(interpolation="rho")
    labels = arrays["eval_label"]
    lands = np.maximum(labels - 1000 // case["N"], -1.0)
    if not o.get("set_alpha_to_one", True):
        lands = np.maximum(lands, 0.0)
    a, s = process.alpha(labels), process.sigma(labels)
    b, r = process.alpha(lands), process.sigma(lands)
    level = fd.plan.Level(labels, a, s)
    x, d = fd.plan.register(0), fd.plan.prediction()
    return fd.plan.build(
        level,
        fd.plan.Level(lands[-1], b[-1], r[-1]),
        [(0, r / s * x + (b - r / s * a) * d)],
    )


def analytic_first(plan, o):
    """diff-sampler's afs: the first direction is x / sqrt(1 + sigma^2), no call."""
    return fd.plan.analytic_first_step(plan, "unit") if o.get("afs") else plan


def euler(case, o, arrays):
    process, ts = continuous(case, arrays)
    return analytic_first(fd.solvers.euler(process, ts), o)


def flow_euler(case, o, arrays):
    refuse(o, "stochastic_sampling", "invert_sigmas")
    return euler(case, o, arrays)


def heun(case, o, arrays):
    process, ts = path(case, arrays)
    if o.get("denoise_to_zero"):
        process, ts = _to_zero(arrays)
    return analytic_first(fd.solvers.edm_heun(process, ts), o)


def flow_heun(case, o, arrays):
    process, ts = continuous(case, arrays)
    return fd.solvers.heun(process, ts)


def _to_zero(arrays: dict) -> tuple[Any, np.ndarray]:
    """The case's levels with a clean one after them."""
    alpha, sigma = arrays["grid_alpha"], arrays["grid_sigma"]
    if sigma[-1] > 0:
        alpha, sigma = np.append(alpha, 1.0), np.append(sigma, 0.0)
    process = fd.processes.tabulated(alpha, sigma)
    return process, np.arange(len(alpha))[::-1].astype(float)


def _dpm_options(case, o, arrays) -> dict[str, Any]:
    """order, prediction, end rule and second-order form in each oracle's words."""
    n, oracle = steps(arrays), case["oracle"]
    if oracle == "diffusers":
        return dict(
            order=o["solver_order"],
            prediction="data" if o["algorithm_type"] == "dpmsolver++" else "noise",
            lower=o["lower_order_final"] and n < 15,
            exact=o["solver_type"] == "heun",
            euler=o["euler_at_final"],
        )
    if oracle == "k-diffusion":
        return dict(order=2, prediction="data", lower=False, exact=False, euler=False)
    if oracle == "dpm-solver":
        return dict(
            order=o["order"],
            prediction="data" if o["algorithm"] == "dpmsolver++" else "noise",
            lower=o.get("lower_order_final", True) and n < 10,
            exact=o.get("solver_type") == "taylor",
            euler=False,
        )
    if oracle == "diff-sampler":
        return dict(
            order=o["max_order"],
            prediction="data" if o.get("predict_x0", True) else "noise",
            lower=o.get("lower_order_final", True),
            exact=False,
            euler=False,
        )
    raise NotYet(f"oracle {oracle}")


def dpm_multistep(case, o, arrays):
    return analytic_first(_dpm_multistep(case, o, arrays), o)


def _dpm_multistep(case, o, arrays):
    d = _dpm_options(case, o, arrays)
    process, ts = path(case, arrays)
    if o.get("denoise_to_zero"):
        process, ts = _to_zero(arrays)
    shared = dict(
        prediction=d["prediction"],
        lower_order_final=d["lower"],
        euler_at_final=d["euler"],
    )
    if o.get("denoise_to_zero"):
        ts, shared["denoise"] = ts[:-1], True
    form = "exact" if d["exact"] else "midpoint"
    if d["order"] == 1:
        return fd.solvers.ddim(
            process, np.append(ts, 0.0) if o.get("denoise_to_zero") else ts
        )
    if d["order"] == 2:
        return fd.solvers.dpmpp_2m(process, ts, variant=form, **shared)
    return fd.solvers.dpmpp_3m(
        process, ts, variant=form, compat=not o.get("corrected"), **shared
    )


def unipc(case, o, arrays):
    oracle = case["oracle"]
    process, ts = path(case, arrays)
    if oracle == "diffusers":
        order, variant = o["solver_order"], o["solver_type"]
        data, off = o["predict_x0"], o["disable_corrector"]
    elif oracle == "unipc":
        order, variant, off = o["order"], o["variant"], ()
        data = o.get("algorithm", "data_prediction") == "data_prediction"
    else:
        order, variant, off = o["max_order"], o.get("variant", "bh2"), ()
        data = o.get("predict_x0", True)
    denoise = bool(o.get("denoise_to_zero"))
    if denoise:
        process, ts = _to_zero(arrays)
        ts = ts[:-1]
    plan = fd.solvers.unipc(
        process,
        ts,
        order=order,
        variant=variant,
        prediction="data" if data else "noise",
        lower_order_final=o.get("lower_order_final", True),
        disable_corrector=off,
        denoise=denoise,
    )
    return analytic_first(plan, o)


def lms(case, o, arrays):
    process, ts = path(case, arrays)
    order = o.get("order") or o.get("step", {}).get("order", 4)
    return fd.solvers.adams(process, ts, order=order)


def deis_tab(case, o, arrays):
    if case["oracle"] == "deis":
        process, ts = continuous(case, arrays)
        rule = "left" if o["quad"] == "native" else "midpoint"
        return fd.solvers.deis_tab(process, ts, order=o["ab_order"], quadrature=rule)
    sigma = arrays["grid_sigma"]
    process = VPClock(sigma[0], sigma[-1])
    rule = "midpoint" if o.get("quad") == "midpoint" else "ends"
    ts, order = process.times(sigma), o["max_order"] - 1
    plan = fd.solvers.deis_tab(
        process, ts, order=order, quadrature=rule, exact_first=True
    )
    return analytic_first(plan, o)


def deis_rhoab(case, o, arrays):
    process, ts = path(case, arrays)
    order = o["ab_order"] + 1 if "ab_order" in o else o["max_order"]
    return analytic_first(fd.solvers.adams(process, ts, order=order), o)


FAMILIES = {
    "ddim": ddim,
    "euler": euler,
    "flow-euler": flow_euler,
    "heun": heun,
    "flow-heun": flow_heun,
    "dpmsolver-multistep": dpm_multistep,
    "unipc": unipc,
    "lms": lms,
    "deis-tab": deis_tab,
    "deis-rhoab": deis_rhoab,
}
