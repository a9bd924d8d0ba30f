"""SA-Solver: the diffusers scheduler."""

import numpy as np

import fastdiff_jax as fd

from ..golden_cases import NotYet, path, steps


def tau_of(options, arrays):
    """A constant, or 1 at the timesteps 200..800 and 0 elsewhere (the default)."""
    tau = options.get("tau", "window")
    if not isinstance(tau, str):
        return tau
    if tau != "window" or "eval_label" not in arrays:
        raise NotYet(f"tau {tau}")
    label = arrays["eval_label"][: steps(arrays)]
    return np.where((label >= 200) & (label <= 800), 1.0, 0.0)


def sa(case, options, arrays):
    kinds = {"data_prediction": "data", "noise_prediction": "noise"}
    return fd.solvers.sa_solver(
        *path(case, arrays),
        predictor_order=options["predictor_order"],
        corrector_order=options["corrector_order"],
        tau2=np.square(tau_of(options, arrays)),
        prediction=kinds[options["algorithm_type"]],
        variant="few_step",
        lower_order_final=bool(options["lower_order_final"]),
        compat=True,
    )


FAMILIES = {"sa-solver": sa}
