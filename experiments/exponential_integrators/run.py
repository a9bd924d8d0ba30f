#!/usr/bin/env python
"""Evaluations at equal error on two stiff equations: exponential solvers in diffrax.

    python experiments/exponential_integrators/run.py [--quick]

Writes result.json and figure.png beside this file; a killed run continues.

Evaluations of the right-hand side (for ours, of its nonlinear part) are counted by a
host callback inside it: in every run of Kvaerno5, whose Newton iterations count and
whose Jacobians do not; for the others in three short runs, which give the exact numbers
per attempted step and per run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
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
SOLVERS = OTHERS | OURS
SETTINGS: dict[str, Any] = {
    "tolerances": tuple(10.0**-k for k in np.arange(1.0, 10.1, 0.75)),
    "levels": tuple(10.0**-k for k in range(2, 10)),  # of error
    "reference": (1e-12, 1e-11),  # tolerances of Dopri8, and of Krogstad's to check it
    "controllers": tuple(CONTROLLERS),
    "solvers": tuple(SOLVERS),
}
QUICK = {
    "tolerances": (1e-2, 1e-4, 1e-6),
    "levels": (1e-3, 1e-4, 1e-5),
    "reference": (1e-9, 1e-8),
    "controllers": ("PI",),
    "solvers": ("Tsit5", "etdrk4", "exp_adams 4"),
}
POINTS = 128


class Problem:
    """A periodic equation in Fourier space, state (2, modes): real, imaginary."""

    def __init__(
        self,
        name: str,
        wave: np.ndarray,
        linear: np.ndarray,
        factor: Any,
        power: int,
        start: np.ndarray,
        end: float,
    ):
        self.name, self.linear, self.end, self.power = name, linear, end, power
        keep = np.arange(len(wave)) < POINTS / (3 if power == 2 else 4)
        self.factor = keep * factor * np.ones(len(wave), complex) / POINTS
        coefficients = np.fft.rfft(start) / POINTS
        self.start = np.stack([coefficients.real, coefficients.imag])
        self.calls = 0

    def count(self) -> None:
        self.calls += 1

    def rest(self, t: Any, y: Any, args: Any) -> jax.Array:
        del t
        silent = lambda: None  # noqa: E731
        jax.lax.cond(args, lambda: jax.debug.callback(self.count), silent)
        u = jnp.fft.irfft(jax.lax.complex(y[0], y[1]) * POINTS, POINTS)
        out = self.factor * jnp.fft.rfft(u**self.power)
        return jnp.stack([out.real, out.imag])

    def solver(self, method: Any) -> Callable[..., tuple]:
        """(tolerance, ...) -> end, whether it was reached, steps, counted calls."""
        term = fd.continuous.SemilinearTerm(self.linear, self.rest)

        @jax.jit
        def solve(tol: Any, p: Any, i: Any, end: Any, counted: Any) -> tuple:
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

        def run(
            tol: float,
            gains: tuple = CONTROLLERS["I"],
            part: float = 1.0,
            counted: bool = False,
        ) -> tuple:
            jax.effects_barrier()
            self.calls = 0
            end, done, steps = solve(tol, *gains, part * self.end, counted)
            end.block_until_ready()
            jax.effects_barrier()
            return end, bool(done), int(steps), self.calls

        return run


def cost(run: Callable[..., tuple]) -> tuple | None:
    """Evaluations per attempted step and per run, from short counted runs."""
    tries = [run(tol, part=0.02, counted=True)[2:] for tol in (1e-3, 1e-6, 1e-9)]
    (few, first), *_, (many, last) = tries
    each = (last - first) / (many - few)
    rest = first - each * few
    if any(calls != each * steps + rest for steps, calls in tries):
        return None
    return each, rest


def problems() -> Iterator[Problem]:
    """The two equations."""
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


def reference(problem: Problem, tolerances: tuple) -> dict[str, Any]:
    """The end by Dopri8, and by Krogstad's method as a check."""
    tight, check = tolerances
    truth, done, *_ = problem.solver(OTHERS["Dopri8"])(tight, CONTROLLERS["PI"])
    assert done
    return {"truth": truth, "check": problem.solver(OURS["krogstad"])(check)[0]}


def runs_of(
    problem: Problem, name: str, s: SimpleNamespace, truth: np.ndarray
) -> dict[str, Any]:
    """A solver's evaluations per step, and a row for every run that got there.

    Rows are (solver, controller, tolerance, evaluations, steps, relative error).
    """
    run, rows = problem.solver(SOLVERS[name]), []
    each = None if name == "Kvaerno5" else cost(run)
    for label in s.controllers:
        for tol in s.tolerances:
            gains = CONTROLLERS[label]
            end, done, steps, calls = run(tol, gains, counted=each is None)
            if each is not None:
                calls = int(each[0] * steps + each[1])
            with np.errstate(over="ignore"):  # what diverged is not kept
                error = float(np.linalg.norm(end - truth) / np.linalg.norm(truth))
            if done and np.isfinite(error):
                rows.append((name, label, tol, calls, steps, error))
    return {"cost": each, "runs": rows}


def measure(problem: Problem, run: runner.Run) -> dict[str, Any]:
    """Everything about one equation."""
    s, slug = run.settings, problem.name.replace(" ", "_")
    known = run.arrays(f"reference_{slug}", lambda: reference(problem, s.reference))
    truth, gap = known["truth"], known["check"] - known["truth"]
    found = {}
    for name in run.track(s.solvers, f"{problem.name}: {{}}".format):
        made = lambda name=name: runs_of(problem, name, s, truth)  # noqa: E731
        found[name] = run.store.once(f"{problem.name}|{name}", made)
    rows = [row for one in found.values() for row in one["runs"]]
    return {
        "stiffness": float(-problem.linear.min() * problem.end),
        "agreement of two references": np.linalg.norm(gap) / np.linalg.norm(truth),
        "evaluations per step and per run": {k: v["cost"] for k, v in found.items()},
        "runs": rows,
        "levels": compare(rows, s.levels),
    }


def curve(rows: list, name: str) -> np.ndarray:
    """Points (error, evaluations) that no other run of the solver beats in both."""
    points = sorted((r[3], r[5]) for r in rows if r[0] == name and r[5] < 1)
    kept, best = [], np.inf
    for calls, error in points:
        if error < best:
            kept.append((error, calls))
            best = error
    return np.array(kept[::-1]).reshape(-1, 2)


def calls_at(rows: list, name: str, level: float) -> float | None:
    """Evaluations for an error, log-log between runs; None if no run is as rough."""
    errors, calls = curve(rows, name).T
    roughest = max((r[5] for r in rows if r[0] == name), default=0.0)
    if not len(errors) or not errors[0] <= level <= roughest:
        return None
    return float(np.exp(np.interp(np.log(level), np.log(errors), np.log(calls))))


def compare(rows: list, levels: tuple) -> dict[str, Any]:
    """Evaluations at every level of error, and other solvers' over ours."""
    names, table = list(dict.fromkeys(r[0] for r in rows)), {}
    for level in levels:
        counts = {name: calls_at(rows, name, level) for name in names}
        ratios: dict[str, dict[str, float | None]] = {}
        for ours in (n for n in names if n in OURS):
            for other in (n for n in names if n in OTHERS):
                a, b = counts[other], counts[ours]
                both = a is not None and b is not None
                ratios.setdefault(ours, {})[other] = a / b if both else None
        table[f"{level:.0e}"] = {"calls": counts, "ratios": ratios}
    return table


def figure(result: dict, run: runner.Run) -> Any:
    """Evaluations against error, a panel per equation."""
    del run
    fig, axes = runner.pyplot().subplots(
        1, len(result), figsize=(11, 4.5), layout="constrained"
    )
    colours = {name: f"C{k}" for k, name in enumerate((*OURS, *OTHERS))}
    for axis, (name, found) in zip(axes, result.items(), strict=True):
        for solver in (*OURS, *OTHERS):
            errors, calls = curve(found["runs"], solver).T
            style = "o-" if solver in OURS else "s--"
            if len(calls):
                axis.loglog(calls, errors, style, color=colours[solver], ms=4, lw=1.2,
                            label=solver)  # fmt: skip
        axis.set_title(f"{name} equation")
        axis.set_xlabel("evaluations of the right-hand side")
        axis.set_ylabel("relative L2 error at the end")
        axis.grid(alpha=0.3)
    axes[-1].legend()
    return fig


def main() -> None:
    """Measure what is missing, then write result.json and figure.png."""
    jax.config.update("jax_enable_x64", True)
    run = runner.start(__doc__, __file__, SETTINGS, QUICK, figure)
    with run.held():
        results = {problem.name: measure(problem, run) for problem in problems()}
        run.write(results)
    for name, result in results.items():
        print(name, f"references agree to {result['agreement of two references']:.1e}")
        for level, entry in result["levels"].items():
            print(level, {k: v and round(v) for k, v in entry["calls"].items()})


if __name__ == "__main__":
    main()
