"""Singlestep DPM-Solver(++): official, diffusers (shared grid) and k-diffusion."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import fastdiff_jax as fd
from fastdiff_jax.continuous import PID, Power, dpm_solver_adaptive
from fastdiff_jax.solvers.singlestep.dpm_solver import fast_orders

from ..golden_cases import NotYet, path, refuse, steps

CLOCKS = {"logSNR": "log_snr"}


def clock(case, arrays):
    """The continuous process of a case and its outer grid: stages lie in between."""
    with np.errstate(divide="ignore"):
        lam = np.log(arrays["grid_alpha"]) - np.log(arrays["grid_sigma"])
    made = {
        "vp_linear": fd.processes.vp_linear,
        "sd": fd.processes.vp_discrete,
        "edm": fd.processes.edm,
        "flow": fd.processes.flow,
    }
    if case["process"] not in made:
        raise NotYet(f"no clock for {case['process']}")
    process = made[case["process"]]()
    ts = np.asarray(process.half_log_snr_inverse(lam))
    ts[arrays["grid_sigma"] == 0] = process.clean
    return process, ts


def official(o):
    """What the official sampler's options mean here."""
    return dict(
        prediction="data" if o["algorithm"] == "dpmsolver++" else "noise",
        inner=CLOCKS.get(o["skip_type"], o["skip_type"]),
        variant=o["solver_type"],
        denoise=bool(o["denoise_to_zero"]),
    )


def outer_grid(case, o, arrays):
    process, ts = clock(case, arrays)
    return process, ts[:-1] if o["denoise_to_zero"] and ts[-1] <= process.clean else ts


def singlestep(case, o, arrays):
    if case["oracle"] == "k-diffusion":
        refuse(o, "eta")
        return fd.solvers.dpmpp_2s(*clock(case, arrays))
    process, ts = outer_grid(case, o, arrays)
    budget = case["N"]
    orders = fast_orders(budget, o["order"])
    return fd.solvers.dpm_solver_fast(process, ts, orders=orders, **official(o))


def singlestep_fixed(case, o, arrays):
    process, ts = outer_grid(case, o, arrays)
    orders = [o["order"]] * (len(ts) - 1)
    return fd.solvers.dpm_solver_fast(process, ts, orders=orders, **official(o))


def shared_grid(case, o, arrays):
    process, ts = path(case, arrays)
    order, n = o["solver_order"], steps(arrays)
    return fd.solvers.dpm_solver_fast(
        process,
        ts,
        orders=fast_orders(n, order, bool(o["lower_order_final"])),
        variant="taylor" if o["solver_type"] == "heun" else "dpmsolver",
        prediction="data" if o["algorithm_type"] == "dpmsolver++" else "noise",
        compat=True,
    )


def dpm_fast(case, o, arrays):
    process, ts = clock(case, arrays)
    return fd.solvers.dpm_solver_fast(
        process,
        ts,
        orders=fast_orders(case["N"], 3),
        inner="log_snr",
        eta=o["eta"],
        s_noise=o["s_noise"],
    )


def adaptive(case, o, arrays, denoiser):
    """The batch-coupled rules: official, or k-diffusion's PID."""
    process, ts = clock(case, arrays)
    shared = dict(
        order=o["order"], rtol=o["rtol"], atol=o["atol"], start=ts[0], end=ts[-1]
    )
    if case["oracle"] == "k-diffusion":
        refuse(o, "eta")
        pid = PID(o["pcoeff"], o["icoeff"], o["dcoeff"], o["accept_safety"])
        more = dict(h_init=o["h_init"], controller=pid, coupled="rms")
    else:
        more = dict(
            prediction="data" if o["algorithm"] == "dpmsolver++" else "noise",
            variant=o["solver_type"],
            h_init=o["adaptive_h_init"],
            controller=Power(o["adaptive_theta"]),
            coupled="max",
            denoise=bool(o["denoise_to_zero"]),
        )
    run = functools.partial(dpm_solver_adaptive, process, denoiser, **shared, **more)
    x, info = run(jnp.asarray(arrays["x_init"]))
    assert not bool(info.failed.any())
    if case["nfe"] is not None:
        assert set(jax.device_get(info.nfe).tolist()) == {case["nfe"]}
    return x


FAMILIES = {
    "dpmsolver-singlestep": singlestep,
    "dpmsolver-singlestep-fixed": singlestep_fixed,
    "dpmsolver-singlestep-sharedgrid": shared_grid,
    "dpm-fast": dpm_fast,
}
FAMILIES_DIRECT = {"dpmsolver-adaptive": adaptive, "dpm-adaptive": adaptive}

# one draw per step, read by the row that ends it
NOISE_ROWS = {
    "dpm-fast": lambda case, plan: np.repeat(
        np.arange(len(fast_orders(case["N"], 3))), fast_orders(case["N"], 3)
    )
}
