"""What is measured of one case, stage by stage, each skipped where it is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from cases import END, PROCESS, Case
from contest import V3_VARIANTS, Judge, contestants, measure, plan_for, same_shape
from runner import Run, Store

import fastdiff_jax as fd


class Stage(NamedTuple):
    """What every stage needs."""

    name: str
    case: Case
    judge: Judge
    settings: dict[str, Any]
    run: Run
    tick: Callable[[str], None]

    @property
    def store(self) -> Store:
        """The case's records."""
        return self.run.store

    def todo(self, solver: str) -> bool:
        """Whether a solver still has to be measured."""
        return f"{self.name}|{solver}|done" not in self.store.rows

    def finish(self, solver: str, rows: list[dict[str, Any]], **extra: Any) -> None:
        """Keep a solver's records, marked complete."""
        mark = {"key": f"{self.name}|{solver}|done"} | extra
        self.store.put([*rows, mark])


def run_group(
    run: Stage,
    group: dict[str, tuple[Callable[[np.ndarray], Any], int]],
    model: Any = None,
    like: Any = None,
) -> None:
    """Measure a group of solvers whose plans can share one compiled program."""
    model = run.case.model if model is None else model
    nfes = run.settings["nfe"]
    made = {
        (name, nfe): plan_for(build, calls, nfe)
        for name, (build, calls) in group.items()
        for nfe in nfes
    }
    made = {k: p for k, p in made.items() if p is not None}
    spent = {k: p.nfe for k, p in made.items()}
    first = [] if like is None else [like]
    shaped = same_shape([*first, *made.values()])[len(first) :]
    made = dict(zip(made, shaped, strict=True))
    for name in group:
        run.tick(f"{run.name}: {name}")
        if not run.todo(name):
            continue
        own = {n: p for (k, n), p in made.items() if k == name}
        cost = {n: spent[name, n] for n in own}
        runner = lambda p: fd.sample(p, model, run.case.noise)  # noqa: E731
        run.finish(name, measure(name, own, runner, run.name, run.judge, cost))


def run_v3(run: Stage) -> None:
    """DPM-Solver-v3 with statistics of this very denoiser, on real data."""
    s = run.settings
    file = run.run.folder / f"statistics_{run.name}.npz"
    data = run.case.data[: s["v3_data"]]
    if not file.exists():
        run.tick(f"{run.name}: v3 statistics")
        table = fd.tune.ems.estimate(
            run.case.wrap(run.case.bare, min(s["v3_batch"], len(data))),
            PROCESS,
            data,
            key=jax.random.key(s["seed"] + 2),
            nodes=s["v3_nodes"],
            batch=min(s["v3_batch"], len(data)),
            end=END,
            path=run.run.folder / f"statistics_{run.name}.part.npz",
        )
        fd.tune.ems.save(table, file)
    table = fd.tune.ems.load(file)

    def build(options: dict[str, Any]) -> Callable[[np.ndarray], Any]:
        return lambda ts: fd.solvers.dpm_solver_v3(PROCESS, ts, table, **options)

    some = s["v3_variants"] or V3_VARIANTS
    run_group(run, {k: (build(V3_VARIANTS[k]), 1) for k in some})


def run_dc(run: Stage, like: Any) -> None:
    """DC-Solver with ratios searched on a few samples of other noises."""
    s, case, count = run.settings, run.case, run.settings["dc_samples"]
    noise = fd.prior(
        PROCESS, jax.random.key(s["seed"] + 3), (count, *case.noise.shape[1:])
    )
    model = case.wrap(case.bare, count)
    options = {"order": s["dc_order"][run.name]}
    name = f"dc_solver-{options['order']}-searched"
    for nfe in s["dc_nfe"].get(run.name, ()):
        run.tick(f"{run.name}: {name} at {nfe}")
        if f"{run.name}|{name}|{nfe}" in run.store.rows:
            continue
        ts = fd.grids.log_snr(PROCESS, nfe, end=END)
        target = fd.tune.dc_ratios.reference(
            model, PROCESS, ts, noise, refine=s["dc_refine"]
        )
        found = fd.tune.dc_ratios.search(
            model, PROCESS, ts, noise, target, iterations=s["dc_iterations"], **options
        )
        plan = fd.solvers.dc_solver(PROCESS, ts, found.ratios, **options)
        plan = same_shape([like, plan])[1]
        runner = lambda p: fd.sample(p, case.model, case.noise)  # noqa: E731
        rows = measure(name, {nfe: plan}, runner, run.name, run.judge, {nfe: nfe})
        rows[0]["ratios"] = [round(float(r), 4) for r in found.ratios]
        run.store.put(rows)


def run_shift(run: Stage) -> None:
    """Time-shift under DDIM (the paper's step) and under PLMS."""
    s, case = run.settings, run.case
    for tag, variance in (("", 0.0), ("-v0", case.variance)):
        options = {
            "window": s["shift_window"],
            "cutoff": s["shift_cutoff"],
            "data_variance": variance,
        }
        batch = len(case.noise)
        two = fd.transforms.time_shift(case.bare, PROCESS, outputs=True, **options)
        one = fd.transforms.time_shift(case.bare, PROCESS, **options)
        ddim = lambda ts: fd.solvers.ddim(PROCESS, ts, second_noise=True)  # noqa: E731
        plms = lambda ts: fd.solvers.plms(PROCESS, ts, order=4)  # noqa: E731
        run_group(run, {f"time_shift{tag}+ddim": (ddim, 1)}, case.wrap(two, batch))
        run_group(run, {f"time_shift{tag}+plms-4": (plms, 1)}, case.wrap(one, batch))


def run_case(run: Stage) -> None:
    """All stages of a case; what could not run is recorded in words."""
    some, group = run.settings["partial"].get(run.name), contestants()
    group = {k: group[k] for k in some or run.settings["contestants"] or group}
    run_group(run, group)
    low, high = min(run.settings["nfe"]), max(run.settings["nfe"])
    made = [plan_for(b, c, n) for b, c in group.values() for n in (low, high)]
    like = same_shape([p for p in made if p is not None])[0]
    stages = {"DC-Solver": lambda: run_dc(run, like)}
    if some is None:
        others = {
            "DPM-Solver-v3": lambda: run_v3(run),
            "time-shift": lambda: run_shift(run),
        }
        stages = others | stages
    for name, stage in stages.items():
        try:
            stage()
        except (AttributeError, ImportError) as error:
            words = f"{name} on {run.name}: {type(error).__name__}: {error}"
            run.store.put([{"key": f"missing|{name}", "missing": words}])
