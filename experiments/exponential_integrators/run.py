"""Evaluations at equal error on two stiff equations: exponential solvers in diffrax.

    python experiments/exponential_integrators/run.py

Runs that result.json holds are not repeated; remove it to start afresh.

Evaluations of the right-hand side (for ours, of its nonlinear part) are counted by a
host callback inside it: in every run of Kvaerno5, whose Newton iterations count and
whose Jacobians do not; for the others in three short runs, which give the exact numbers
per attempted step and per run.
"""

import json
from pathlib import Path

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import track

import fastdiff_jax as fd

TOLERANCES = [10.0**-k for k in np.arange(1.0, 10.1, 0.75)]
LEVELS = [10.0**-k for k in range(2, 10)]
# (pcoeff, icoeff): diffrax's default, and the setting that its documentation
# recommends for stiffness; the better of the two counts, for every solver.
CONTROLLERS = {"I": (0.0, 1.0), "PI": (0.3, 0.4)}
OURS = {
    "res_3": fd.continuous.res_3(),
    "etdrk4": fd.continuous.etdrk4(),
    "krogstad": fd.continuous.krogstad(),
    "exp_adams 4": fd.continuous.exp_adams(4),
}
OTHERS = {
    "Tsit5": diffrax.Tsit5(),
    "Dopri8": diffrax.Dopri8(),
    "Kvaerno5": diffrax.Kvaerno5(),
}
POINTS = 128
HERE = Path(__file__).parent


class Problem:
    """A periodic equation in Fourier space, state (2, modes): real, imaginary."""

    def __init__(self, name, wave, linear, factor, power, start, end):
        self.name, self.linear, self.end, self.power = name, linear, end, power
        keep = np.arange(len(wave)) < POINTS / (3 if power == 2 else 4)
        self.factor = keep * factor * np.ones(len(wave), complex) / POINTS
        coefficients = np.fft.rfft(start) / POINTS
        self.start = np.stack([coefficients.real, coefficients.imag])
        self.calls = 0

    def count(self):
        self.calls += 1

    def rest(self, t, y, args):
        del t
        silent = lambda: None  # noqa: E731
        jax.lax.cond(args, lambda: jax.debug.callback(self.count), silent)
        u = jnp.fft.irfft(jax.lax.complex(y[0], y[1]) * POINTS, POINTS)
        out = self.factor * jnp.fft.rfft(u**self.power)
        return jnp.stack([out.real, out.imag])

    def solver(self, method):
        term = fd.continuous.SemilinearTerm(self.linear, self.rest)

        @jax.jit
        def solve(tol, p, i, end, counted):
            sol = diffrax.diffeqsolve(
                term,
                method,
                0.0,
                end,
                None,
                jnp.asarray(self.start),
                args=counted,
                stepsize_controller=diffrax.PIDController(tol, tol, pcoeff=p, icoeff=i),
                max_steps=200_000,
                adjoint=diffrax.ForwardMode(),
                throw=False,
            )
            done = sol.result == diffrax.RESULTS.successful
            return sol.ys[-1], done, sol.stats["num_steps"]

        def run(tol, gains=CONTROLLERS["I"], part=1.0, counted=False):
            jax.effects_barrier()
            self.calls = 0
            end, done, steps = solve(tol, *gains, part * self.end, counted)
            end.block_until_ready()
            jax.effects_barrier()
            return end, bool(done), int(steps), self.calls

        return run


def cost(run):
    """Evaluations per attempted step and per run, from short counted runs."""
    tries = [run(tol, part=0.02, counted=True)[2:] for tol in (1e-3, 1e-6, 1e-9)]
    (few, first), *_, (many, last) = tries
    each = (last - first) / (many - few)
    rest = first - each * few
    if any(calls != each * steps + rest for steps, calls in tries):
        return None
    return each, rest


def problems():
    k = np.arange(POINTS // 2 + 1)
    x = 2 * np.pi * np.arange(POINTS) / POINTS
    wave = k / 16.0
    yield Problem(
        "Kuramoto-Sivashinsky",
        wave,
        wave**2 - wave**4,
        -0.5j * wave,
        2,
        np.cos(x) * (1 + np.sin(x)),
        30.0,
    )
    yield Problem(
        "Allen-Cahn",
        k,
        1 - 0.05 * k**2.0,
        -1.0,
        3,
        0.5 * np.sin(x) + 0.4 * np.cos(2 * x) + 0.2 * np.sin(5 * x),
        10.0,
    )


def measure(problem, result):
    """Rows (solver, controller, tolerance, evaluations, steps, relative error).

    What `result` already holds is not run again.
    """
    rows = result.setdefault("runs", [])
    costs = result.setdefault("evaluations per step and per run", {})
    ready = {(r[0], r[1]) for r in rows}
    cases = [(n, c) for n in (*OTHERS, *OURS) for c in CONTROLLERS]
    cases = [case for case in cases if case not in ready]
    if not cases:
        return
    solvers = {n: problem.solver(m) for n, m in (OTHERS | OURS).items()}
    truth, done, *_ = solvers["Dopri8"](1e-12, CONTROLLERS["PI"])
    assert done
    size = float(jnp.linalg.norm(truth))
    check = solvers["krogstad"](1e-11)[0]
    result["agreement of two references"] = float(jnp.linalg.norm(check - truth)) / size
    for name, label in track(cases, description=problem.name):
        run = solvers[name]
        if name not in costs:
            costs[name] = None if name == "Kvaerno5" else cost(run)
        for tol in TOLERANCES:
            counted = costs[name] is None
            end, done, steps, calls = run(tol, CONTROLLERS[label], counted=counted)
            if not counted:
                calls = int(costs[name][0] * steps + costs[name][1])
            error = float(jnp.linalg.norm(end - truth)) / size
            if done and np.isfinite(error):
                rows.append((name, label, tol, calls, steps, error))


def curve(rows, name):
    """Points (error, evaluations) that no other run of the solver beats in both."""
    points = sorted((r[3], r[5]) for r in rows if r[0] == name and r[5] < 1)
    kept, best = [], np.inf
    for calls, error in points:
        if error < best:
            kept.append((error, calls))
            best = error
    return np.array(kept[::-1])


def calls_at(rows, name, level):
    """Evaluations for an error, log-log between runs; None if no run is as rough."""
    errors, calls = curve(rows, name).T
    roughest = max(r[5] for r in rows if r[0] == name)
    if not errors[0] <= level <= roughest:
        return None
    return float(np.exp(np.interp(np.log(level), np.log(errors), np.log(calls))))


def compare(rows):
    table = {}
    for level in LEVELS:
        counts = {name: calls_at(rows, name, level) for name in (*OURS, *OTHERS)}
        table[f"{level:.0e}"] = {
            "calls": counts,
            "ratios": {
                ours: {
                    other: None
                    if counts[other] is None or counts[ours] is None
                    else counts[other] / counts[ours]
                    for other in OTHERS
                }
                for ours in OURS
            },
        }
    return table


def figure(results):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(11, 4.5))
    for axis, (name, result) in zip(axes, results.items(), strict=True):
        for solver in (*OURS, *OTHERS):
            errors, calls = curve(result["runs"], solver).T
            style = "o-" if solver in OURS else "s--"
            axis.loglog(calls, errors, style, ms=4, lw=1.2, label=solver)
        axis.set_title(name)
        axis.set_xlabel("evaluations of the right-hand side")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("relative error at the end")
    axes[1].legend(fontsize=8)
    fig.tight_layout()
    fig.savefig(HERE / "figure.png", dpi=130)


def report(results):
    for name, result in results.items():
        result["levels"] = compare(result["runs"])
        print(name, f"references agree to {result['agreement of two references']:.1e}")
        for level, entry in result["levels"].items():
            print(level, {k: v and round(v) for k, v in entry["calls"].items()})
    (HERE / "result.json").write_text(json.dumps(results, indent=1))
    figure(results)


def main():
    jax.config.update("jax_enable_x64", True)
    path = HERE / "result.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for problem in problems():
        result = results.setdefault(problem.name, {})
        result["stiffness"] = float(-problem.linear.min() * problem.end)
        measure(problem, result)
        path.write_text(json.dumps(results, indent=1))
    report(results)


if __name__ == "__main__":
    main()
