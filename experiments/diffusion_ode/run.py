"""Evaluations on the diffusion ODE: exponential solvers with error control, and Tsit5.

The embedded digits network (unguided, labels given), 16 noises, VP-linear path from
t = 1 to 1e-3. For every solver and tolerance: network evaluations per sample against
the root mean square error to a tight reference. Each sample has its own step sizes.

    python experiments/diffusion_ode/run.py
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import Progress

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import fastdiff_jax as fd  # noqa: E402
from fastdiff_jax import continuous as c  # noqa: E402
from fastdiff_jax.models import digits  # noqa: E402

HERE = Path(__file__).resolve().parent
SAMPLES, SEED = 16, 0
TOLERANCES = tuple(float(v) for v in 10.0 ** -np.arange(0.5, 4.1, 0.5))
STEPS = (6, 8, 10, 14, 20, 28, 40, 56, 80)
LEVELS = (3e-2, 1e-2, 3e-3, 1e-3)  # errors at which evaluations are compared
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
CALLS: list[int] = []


class Counted:
    """The digits model with its labels, counting its calls one by one."""

    def __init__(self, model: Any, labels: Any):
        self.model, self.labels = model, labels

    def __call__(self, x: Any, context: Any, carry: Any) -> Any:
        jax.debug.callback(lambda: CALLS.append(1))
        return self.model(x, context._replace(condition=self.labels), carry)


def term_of(process: Any, model: Any, variable: str) -> tuple[Any, tuple]:
    """The term, and the ends of its independent variable."""
    if variable == "velocity":
        return c.velocity_term(process, model), (process.start, process.end)
    term = c.probability_flow(process, model, variable=variable)
    return term, c.interval(process, variable=variable)


def adaptive(process: Any, solver: Any, variable: str) -> Any:
    """(x, labels, tolerance) -> samples; one program for all tolerances."""
    model = digits.load()

    @jax.jit
    def run(x: Any, labels: Any, tolerance: Any) -> Any:
        def one(pair: tuple) -> Any:
            x, label = pair
            term, (t0, t1) = term_of(process, Counted(model, label[None]), variable)
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


def measure_adaptive(process: Any, name: str, x: Any, labels: Any, want: Any) -> list:
    """[evaluations per sample, error] for every tolerance."""
    run, rows = adaptive(process, *ADAPTIVE[name]), []
    for tolerance in TOLERANCES:
        CALLS.clear()
        y = run(x, labels, jnp.float32(tolerance)).block_until_ready()
        jax.effects_barrier()
        rows.append([len(CALLS) / SAMPLES, rms(y, want)])
    return rows


def measure_fixed(process: Any, name: str, x: Any, labels: Any, want: Any) -> list:
    """[evaluations, error] for every number of steps, equal in half log-SNR."""
    model, run = digits.load(labels), jax.jit(fd.sample)
    rows = []
    for n in STEPS:
        plan = FIXED[name](process, fd.grids.log_snr(process, n))
        y = run(fd.plan.pad(plan, max(STEPS)), model, x)
        rows.append([plan.nfe, rms(y, want)])
    return rows


def at_level(rows: list, level: float) -> float | None:
    """Evaluations at an error, log-log interpolated where it first falls so low."""
    for (n0, e0), (n1, e1) in zip(rows, rows[1:], strict=False):
        if e0 >= level >= e1 and e0 > e1:
            share = np.log(e0 / level) / np.log(e0 / e1)
            return float(np.exp(np.log(n0) + share * np.log(n1 / n0)))
    return None


def figure(result: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(7, 5))
    colours = plt.get_cmap("tab20")
    for k, (name, rows) in enumerate(result["rows"].items()):
        style = ":" if "table" in name else "--" if name.startswith("Tsit5") else "-"
        n, e = np.array(rows).T
        ax.loglog(n, e, style, marker=".", color=colours(k), label=name)
    for level in LEVELS:
        ax.axhline(level, color="0.9", zorder=0)
    ax.set(xlabel="network evaluations per sample", ylabel="RMS error per pixel")
    ax.set_xlim(4, 1000)
    ax.legend(fontsize=7)
    fig.tight_layout()
    fig.savefig(path, dpi=130)


def main() -> None:
    begun = time.time()
    process = fd.processes.vp_linear()
    labels = np.arange(SAMPLES, dtype=np.int32) % 10
    x = fd.prior(process, jax.random.key(SEED), (SAMPLES, *digits.SHAPE))
    model = digits.load(labels)
    ts = fd.grids.log_snr(process, 1000)
    want = np.asarray(fd.sample(fd.solvers.dpmpp_3m(process, ts), model, x))
    other = fd.sample(fd.solvers.unipc(process, ts, order=3), model, x)
    store = (
        HERE / "out" / "rows.json"
    )  # what is measured is kept: a killed run continues
    store.parent.mkdir(exist_ok=True)
    found = json.loads(store.read_text()) if store.exists() else {}
    with Progress() as progress:
        task = progress.add_task("solvers", total=len(FIXED) + len(ADAPTIVE))
        for name in [*FIXED, *ADAPTIVE]:
            if name not in found:
                measure = measure_fixed if name in FIXED else measure_adaptive
                found[name] = measure(process, name, x, jnp.asarray(labels), want)
                store.write_text(json.dumps(found))
            progress.advance(task)
    names = [*FIXED, *ADAPTIVE]
    at = {n: {f"{v:g}": at_level(found[n], v) for v in LEVELS} for n in names}
    result = {
        "samples": SAMPLES,
        "seed": SEED,
        "tolerances": TOLERANCES,
        "reference_rms_unipc_against_dpmpp_3m_1000": rms(want, other),
        "rows": {n: found[n] for n in names},
        "evaluations_at_error": at,
        "seconds": round(time.time() - begun, 1),
    }
    (HERE / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    figure(result, HERE / "figure.png")
    for n in names:
        print(f"{n:24}", *(f"{v or float('nan'):8.1f}" for v in at[n].values()))


if __name__ == "__main__":
    main()
