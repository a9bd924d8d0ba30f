"""DPM-Solver-v3 on recorded statistics, and DC-Solver with given ratios."""

import numpy as np

import fastdiff_jax as fd


class Labelled:
    """A case's levels under the oracle's own time labels."""

    clean = 0.0

    def __init__(self, labels, alpha, sigma):
        self.labels, self.alphas, self.sigmas = map(np.asarray, (labels, alpha, sigma))
        self.start, self.end = self.labels[0], self.labels[-1]
        self.domain = (self.labels.min(), self.labels.max())

    def _at(self, values, t):
        gap = np.abs(np.asarray(t, float)[..., None] - self.labels)
        return values[gap.argmin(-1)]

    def alpha(self, t):
        return self._at(self.alphas, t)

    def sigma(self, t):
        return self._at(self.sigmas, t)

    def half_log_snr(self, t):
        with np.errstate(divide="ignore"):
            return np.log(self.alpha(t)) - np.log(self.sigma(t))

    def half_log_snr_inverse(self, lam):
        own = self.half_log_snr(self.labels)
        return self.labels[np.abs(np.asarray(lam)[..., None] - own).argmin(-1)]


def dc_solver(case, o, arrays):
    # the label of the last level is never used: any below the others
    labels = np.append(arrays["eval_label"], arrays["eval_label"][-1] - 1)
    process = Labelled(labels, arrays["grid_alpha"], arrays["grid_sigma"])
    return fd.solvers.dc_solver(
        process,
        labels,
        case["extra"]["dc_ratios"],
        order=o["solver_order"],
        dc_order=o["dc_order"],
        variant=o["solver_type"],
        prediction="data" if o["predict_x0"] else "noise",
        lower_order_final=o["lower_order_final"],
        disable_corrector=o["disable_corrector"],
    )


def dpm_solver_v3(case, o, arrays):
    labels = arrays["grid_label"]
    process = Labelled(labels, arrays["grid_alpha"], arrays["grid_sigma"])
    if case["state_space"] == "ve":
        process.clean = 0.0
        half = False
        late = np.flatnonzero(labels[1:] <= 0.5) if o["half"] else ()
    else:
        process.start, half, late = 1.0, o["half"], ()
    low, high = case["extra"]["lambda_T"], case["extra"]["lambda_0"]
    one = np.ones(o["ems_nodes"])
    tables = (one, 0 * one, 0 * one)
    if not o["degenerated"]:
        tables = tuple(arrays[f"ems_{k}"] for k in "lsb")
    return fd.solvers.dpm_solver_v3(
        process,
        labels,
        fd.tune.ems.from_arrays(low, high, *tables),
        order=o["order"],
        p_pseudo=o["p_pseudo"],
        corrector=o["use_corrector"],
        c_pseudo=o["c_pseudo"],
        half=half,
        disable_corrector=late,
        lower_order_final=o["lower_order_final"],
        compat=True,
    )


FAMILIES = {"dc-solver": dc_solver, "dpmsolver-v3": dpm_solver_v3}
