#!/usr/bin/env python
"""Evaluations on the diffusion ODE: exponential solvers with error control, and Tsit5.

The embedded digits network (unguided, labels given), 16 noises, VP-linear path from
t = 1 to 1e-3. For every solver and tolerance: network evaluations per sample against
the root mean square error to a tight reference. Each sample has its own step sizes.

    python experiments/diffusion_ode/run.py [--quick]

Writes result.json and figure.png beside this file; a killed run continues.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import runner  # noqa: E402

import fastdiff_jax as fd  # noqa: E402
from fastdiff_jax import continuous as c  # noqa: E402
from fastdiff_jax.models import digits  # noqa: E402
from fastdiff_jax.trees import pytree  # noqa: E402

# ---------------------------------------------------------------------------- settings
ADAPTIVE = {  # name -> (solver, variable of integration)
    "Tsit5, time": (diffrax.Tsit5(), "velocity"),
    "Tsit5, half log-SNR": (diffrax.Tsit5(), "half_log_snr"),
    "Tsit5, asinh": (diffrax.Tsit5(), "asinh_snr"),
    "RES-3, half log-SNR": (c.res_3(), "half_log_snr"),
    "RES-3, asinh": (c.res_3(), "asinh_snr"),
    "Krogstad, asinh": (c.krogstad(), "asinh_snr"),
    "Adams-3, half log-SNR": (c.exp_adams(3), "half_log_snr"),
    "Adams-3, asinh": (c.exp_adams(3), "asinh_snr"),
    "Adams-4, asinh": (c.exp_adams(4), "asinh_snr"),
}
FIXED = {
    "unipc-3, table": lambda process, ts: fd.solvers.unipc(process, ts, order=3),
    "dpmpp_3m, table": fd.solvers.dpmpp_3m,
}
SETTINGS: dict[str, Any] = {
    "samples": 16,
    "seed": 0,
    "reference": 1000,  # evaluations
    "tolerances": tuple(float(v) for v in 10.0 ** -np.arange(0.5, 4.1, 0.5)),
    "steps": (6, 8, 10, 14, 20, 28, 40, 56, 80),
    "solvers": (*FIXED, *ADAPTIVE),
}
QUICK = {
    "samples": 2,
    "reference": 100,
    "tolerances": (0.1, 0.01, 0.001),
    "steps": (6, 10, 20),
    "solvers": ("unipc-3, table", "Tsit5, asinh", "RES-3, asinh", "Adams-3, asinh"),
}
LEVELS = (3e-2, 1e-2, 3e-3, 1e-3)  # errors at which evaluations are compared
PROCESS = fd.processes.vp_linear()
CALLS: list[int] = []


class Problem:
    """The noises, their labels, and where the ODE takes them."""

    def __init__(self, s: SimpleNamespace, run: runner.Run):
        self.labels = np.arange(s.samples, dtype=np.int32) % 10
        shape = (s.samples, *digits.SHAPE)
        self.x = fd.prior(PROCESS, jax.random.key(s.seed), shape)
        found = run.arrays("reference", lambda: self.reference(s.reference))
        self.want, self.other = found["dpmpp_3m"], found["unipc"]

    def reference(self, steps: int) -> dict[str, Any]:
        """The same noises by two solvers with many evaluations."""
        model, ts = digits.load(self.labels), fd.grids.log_snr(PROCESS, steps)
        plans = {
            "dpmpp_3m": fd.solvers.dpmpp_3m(PROCESS, ts),
            "unipc": fd.solvers.unipc(PROCESS, ts, order=3),
        }
        return {k: fd.sample(plan, model, self.x) for k, plan in plans.items()}


@pytree
class Counted:
    """The digits model with its labels, counting its calls one by one."""

    model: Any
    labels: Any

    def __call__(self, x: Any, context: Any, carry: Any) -> Any:
        jax.debug.callback(lambda: CALLS.append(1))
        return self.model(x, context._replace(condition=self.labels), carry)


def term_of(model: Any, variable: str) -> tuple[Any, tuple]:
    """The term, and the ends of its independent variable."""
    if variable == "velocity":
        return c.velocity_term(PROCESS, model), (PROCESS.start, PROCESS.end)
    term = c.probability_flow(PROCESS, model, variable=variable)
    return term, c.interval(PROCESS, variable=variable)


def adaptive(solver: Any, variable: str) -> Any:
    """(x, labels, tolerance) -> samples; one program for all tolerances."""
    model = digits.load()

    @jax.jit
    def run(x: Any, labels: Any, tolerance: Any) -> Any:
        def one(pair: tuple) -> Any:
            x, label = pair
            term, (t0, t1) = term_of(Counted(model, label[None]), variable)
            out = diffrax.diffeqsolve(
                term,
                solver,
                t0,
                t1,
                (t1 - t0) / 20,
                x[None],
                stepsize_controller=diffrax.PIDController(
                    rtol=tolerance, atol=tolerance
                ),
                max_steps=2000,
                throw=False,
            )
            ok = out.result == diffrax.RESULTS.successful
            return jnp.where(ok, out.ys[-1][0], jnp.nan)

        # one after the other: a branch not taken then costs (and counts) no call
        return jax.lax.map(one, (x, labels))

    return run


def rms(a: Any, b: Any) -> float:
    """Root mean square difference per pixel."""
    gap = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return float(np.sqrt((gap**2).mean()))


def measure_adaptive(name: str, s: SimpleNamespace, problem: Problem) -> list:
    """[evaluations per sample, error] for every tolerance."""
    run, rows, labels = adaptive(*ADAPTIVE[name]), [], jnp.asarray(problem.labels)
    for tolerance in s.tolerances:
        CALLS.clear()
        y = run(problem.x, labels, jnp.float32(tolerance)).block_until_ready()
        jax.effects_barrier()
        rows.append([len(CALLS) / s.samples, rms(y, problem.want)])
    return rows


def measure_fixed(name: str, s: SimpleNamespace, problem: Problem) -> list:
    """[evaluations, error] for every number of steps, equal in half log-SNR."""
    model, run = digits.load(problem.labels), jax.jit(fd.sample)
    rows = []
    for n in s.steps:
        plan = FIXED[name](PROCESS, fd.grids.log_snr(PROCESS, n))
        y = run(fd.plan.pad(plan, max(s.steps)), model, problem.x)
        rows.append([plan.nfe, rms(y, problem.want)])
    return rows


def at_level(rows: list, level: float) -> float | None:
    """Evaluations at an error, log-log interpolated where it first falls so low."""
    for (n0, e0), (n1, e1) in zip(rows, rows[1:], strict=False):
        if e0 >= level >= e1 and e0 > e1:
            share = np.log(e0 / level) / np.log(e0 / e1)
            return float(np.exp(np.log(n0) + share * np.log(n1 / n0)))
    return None


COLOURS = {
    "unipc-3": "0.2",
    "dpmpp_3m": "0.55",
    "Tsit5": "tab:blue",
    "RES-3": "tab:red",
    "Krogstad": "tab:orange",
    "Adams-3": "tab:green",
    "Adams-4": "tab:purple",
}
STYLES = {"time": "^:", "half log-SNR": "s--", "asinh": "o-", "table": "D-."}


def figure(result: dict, run: runner.Run) -> Any:
    """Work against precision: a colour by method, a line by variable."""
    del run
    fig, ax = runner.pyplot().subplots(figsize=(9.5, 5.6), layout="constrained")
    for name, rows in result["rows"].items():
        method, variable = name.split(", ")
        n, e = np.array(rows, float).T
        ax.loglog(n, e, STYLES[variable], ms=4, color=COLOURS[method], label=name)
    for level in LEVELS:
        ax.axhline(level, color="0.9", zorder=0)
    most = max(n for rows in result["rows"].values() for n, _ in rows)
    ax.set(xlabel="network evaluations per sample", ylabel="RMS error per pixel")
    ax.set_xlim(4.5, 1.3 * most)
    runner.whole_ticks(ax, (5, 10, 20, 50, 100, 200))
    title = "method, variable of integration"
    fig.legend(loc="outside right upper", title=title, title_fontsize=8)
    return fig


def main() -> None:
    """Measure what is missing, then write result.json and figure.png."""
    run = runner.start(__doc__, __file__, SETTINGS, QUICK, figure)
    s, began, found = run.settings, time.time(), {}
    with run.held():
        problem = Problem(s, run)
        for name in run.track(s.solvers):
            measure = measure_fixed if name in FIXED else measure_adaptive
            found[name] = run.store.once(name, lambda: measure(name, s, problem))  # noqa: B023
        at = {n: {f"{v:g}": at_level(r, v) for v in LEVELS} for n, r in found.items()}
        run.write(
            {
                "samples": s.samples,
                "seed": s.seed,
                "tolerances": s.tolerances,
                "reference_rms_unipc_against_dpmpp_3m_1000": rms(
                    problem.want, problem.other
                ),
                "rows": found,
                "evaluations_at_error": at,
                "seconds": run.clock(began),
            }
        )
    for name, levels in at.items():
        print(f"{name:24}", *(f"{v or float('nan'):8.1f}" for v in levels.values()))


if __name__ == "__main__":
    main()
