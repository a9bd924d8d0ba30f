"""Ancestral steps, churn, and flow sampling that draws its noise anew."""

import numpy as np

import fastdiff_jax as fd

from ..golden_cases import NotYet, continuous, path, refuse


def _ancestral(o):
    return dict(eta=o.get("eta", 1.0), s_noise=o.get("s_noise", 1.0))


def euler_ancestral(case, o, arrays):
    return fd.solvers.euler_ancestral(*path(case, arrays), **_ancestral(o))


def dpm2_ancestral(case, o, arrays):
    return fd.solvers.dpm2_ancestral(*continuous(case, arrays), **_ancestral(o))


def flow_stochastic(case, o, arrays):
    refuse(o, "invert_sigmas")
    return fd.solvers.euler_ancestral(*path(case, arrays), eta=np.inf)


def _churn(o):
    step = o.get("step", o)
    names = {"s_min": "s_tmin", "s_max": "s_tmax", "s_noise": "s_noise"}
    found = {ours: float(step[own]) for ours, own in names.items() if own in step}
    return dict(s_churn=step.get("s_churn", 0.0), **found)


def churn(method):
    def build(case, o, arrays):
        process, ts = continuous(case, arrays)
        compat = None
        if case["oracle"] == "diffusers":
            if method != "euler":
                raise NotYet("churn of diffusers' other samplers")
            compat = {"eps": "noise", "v": "velocity"}.get(case["prediction"])
        return fd.solvers.edm_churn(
            process, ts, variant=method, compat=compat, **_churn(o)
        )

    return build


FAMILIES = {
    "euler-ancestral": euler_ancestral,
    "dpm2-ancestral": dpm2_ancestral,
    "flow-euler-stochastic": flow_stochastic,
    "euler-churn": churn("euler"),
    "heun-churn": churn("heun"),
    "dpm2-churn": churn("dpm2"),
}


def _per(case, plan):
    """Rows per step; only the last step may have fewer."""
    return 1 if plan.length == case["N"] else 2


def _per_step(case, plan):
    """One draw per step; only the rows that end a step read theirs."""
    return np.arange(plan.length) // _per(case, plan)


def _churn_draws(case, plan):
    """Draw i raises step i: in the row before it, or in the start."""
    own = plan.rows.noise[:, 0]
    if case["oracle"] == "diffusers":  # a draw only where there is churn
        return np.maximum(np.cumsum(own != 0) - 1, 0)
    ahead = np.minimum(_per_step(case, plan) + 1, case["N"] - 1)
    start = plan.start.noise is not None
    return np.concatenate([[0], ahead]) if start else ahead


NOISE_ROWS = {
    "dpm2-ancestral": _per_step,
    "euler-churn": _churn_draws,
    "heun-churn": _churn_draws,
    "dpm2-churn": _churn_draws,
}
