#!/usr/bin/env python
"""Every solver at 4 to 20 evaluations, against a 1000-evaluation reference.

    python experiments/solvers_at_low_nfe/run.py            # all of it, resumable
    python experiments/solvers_at_low_nfe/run.py --quick    # a small smoke version

Writes result.json, figure.png and note.md beside this file (with --quick: into
out/quick). Finished measurements are kept under out/ and are not repeated; remove that
folder to start over.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]  # the checkout, and report.py

import jax  # noqa: E402
import numpy as np  # noqa: E402
from sklearn.svm import SVC  # noqa: E402

import fastdiff_jax as fd  # noqa: E402
from fastdiff_jax.data import digits_data  # noqa: E402
from fastdiff_jax.models import digits  # noqa: E402

# ---------------------------------------------------------------------------- settings
SETTINGS: dict[str, Any] = {
    "nfe": (4, 5, 6, 8, 10, 15, 20),
    "guidance": (1.0, 4.0, 8.0),  # scales of the digits network
    "noises": 60,  # divisible by the 10 classes
    "reference_steps": 1000,
    "seed": 0,
    "components": 30,  # of the mixture fitted to patches
    "patches": 8000,  # that it is fitted to
    "v3_nodes": 60,  # of the statistics' tables
    "v3_data": 320,  # real samples behind the statistics, divisible by 10
    "v3_batch": 160,
    "dc_nfe": {  # each search compiles for about 20 s: all of them where it matters
        "digits_g1": (5, 8, 6, 10),
        "digits_g4": (5, 8, 10, 6, 4, 15, 20),
        "digits_g8": (5, 10),
        "patches": (5, 8, 6, 10),
    },
    "dc_order": {"digits_g1": 3, "digits_g4": 2, "digits_g8": 2, "patches": 3},
    "partial": {  # cases with some contestants only
        "digits_g8": (
            "ddim",
            "dpm_solver_2",
            "dpm_solver_fast-2",
            "dpmpp_2m",
            "dpmpp_2m-noise",
            "unipc-2-noise",
            "dpmpp_2s",
            "deis_tab-1",
            "deis_tab-3",
            "plms-4",
            "ipndm-4",
            "ghvb-2.8",
            "ghvb-3.8",
            "unipc-2",
            "unipc-3",
            "unip-2",
        ),
    },
    "dc_samples": 10,  # as published
    "dc_iterations": 30,
    "dc_refine": 20,
    "shift_window": 0.02,  # of time 0..1: 20 of 1000 labels
    "shift_cutoff": 0.3,
}
QUICK = {
    "nfe": (5, 8),
    "guidance": (4.0,),
    "noises": 20,
    "reference_steps": 100,
    "components": 4,
    "patches": 1000,
    "v3_nodes": 20,
    "v3_data": 20,
    "v3_batch": 20,
    "dc_nfe": {"digits_g4": (5,)},
    "dc_iterations": 5,
}
PROCESS = fd.processes.vp_linear()
END = 1e-3


class Case(NamedTuple):
    """One target: an exact or learned denoiser, noises, and what to judge by."""

    model: Any
    noise: jax.Array
    bare: Any  # the denoiser inside the guidance
    wrap: Callable[[Any, int], Any]  # (bare denoiser, batch) -> guided denoiser
    labels: np.ndarray | None
    data: np.ndarray  # real samples, ordered as the labels of a batch
    variance: float  # mean over samples of the variance over pixels


# ------------------------------------------------------------------------------- cases


def digits_case(scale: float, s: dict[str, Any]) -> Case:
    """The embedded network with a guidance scale; 1 is the conditional model."""

    def labels_of(batch: int) -> np.ndarray:
        return np.arange(batch, dtype=np.int32) % 10

    def wrap(inner: Any, batch: int) -> Any:
        condition = labels_of(batch)
        return fd.guidance.cfg(
            inner, scale, condition=condition, null=digits.NULL_LABEL
        )

    count = s["noises"]
    found = digits_data()
    each = s["v3_data"] // 10
    rng = np.random.RandomState(s["seed"])
    by_class = [
        rng.permutation(np.flatnonzero(found.train_y == k))[:each] for k in range(10)
    ]
    data = found.train_x[np.stack(by_class, axis=1).reshape(-1)]
    bare = digits.load()
    model = wrap(bare, count) if scale != 1 else digits.load(labels_of(count))
    if scale == 1:  # one call of the network in place of two
        wrap_own = lambda inner, batch: _relabel(inner, labels_of(batch))  # noqa: E731
    else:
        wrap_own = wrap
    noise = fd.prior(PROCESS, jax.random.key(s["seed"]), (count, *digits.SHAPE))
    spread = float(found.train_x.reshape(len(found.train_x), -1).var(1).mean())
    return Case(model, noise, bare, wrap_own, labels_of(count), data, spread)


def _relabel(inner: Any, labels: np.ndarray) -> Any:
    """The same denoiser with labels of its own, also inside a time shift."""
    import dataclasses

    if hasattr(inner, "inner"):
        return dataclasses.replace(inner, inner=_relabel(inner.inner, labels))
    return dataclasses.replace(inner, labels=labels)


def patches_case(s: dict[str, Any], folder: Path) -> Case:
    """The exact mixture fitted to 8 x 8 patches of two photographs."""
    from sklearn.datasets import load_sample_image
    from sklearn.feature_extraction.image import extract_patches_2d
    from sklearn.mixture import GaussianMixture

    parts = []
    for name in ("china.jpg", "flower.jpg"):
        gray = load_sample_image(name).mean(axis=2) / 127.5 - 1
        parts.append(
            extract_patches_2d(
                gray, (8, 8), max_patches=s["patches"] // 2, random_state=s["seed"]
            )
        )
    data = np.concatenate(parts).reshape(-1, 64)
    data = np.random.RandomState(s["seed"]).permutation(data)
    file = folder / "mixture.npz"
    if not file.exists():
        fit = GaussianMixture(
            s["components"], reg_covar=1e-4, random_state=s["seed"], max_iter=60
        ).fit(data)
        write_whole(
            file,
            lambda f: np.savez(f, w=fit.weights_, m=fit.means_, c=fit.covariances_),
        )
    with np.load(file) as kept:
        model = fd.models.gaussian_mixture(
            kept["w"], kept["m"], covariances=(kept["c"] + kept["c"].mT) / 2
        )
    noise = fd.prior(PROCESS, jax.random.key(s["seed"] + 1), (s["noises"], 64))
    spread = float(data.var(1).mean())
    data = data[: max(s["v3_data"], 100)].astype(np.float32)
    return Case(model, noise, model, lambda inner, _: inner, None, data, spread)


# ------------------------------------------------------------------------------- plans


def plan_for(build: Callable[[np.ndarray], Any], calls: int, nfe: int) -> Any:
    """The plan of most steps that spends at most `nfe` evaluations, or None."""
    for steps in range(nfe // calls + 1, 0, -1):
        try:
            plan = build(fd.grids.log_snr(PROCESS, steps, end=END))
        except ValueError:
            continue
        if plan.nfe <= nfe:
            return plan
    return None


def contestants() -> dict[str, tuple[Callable[[np.ndarray], Any], int]]:
    """Name -> (times -> plan, calls per step): the registry and a few variants."""
    found: dict[str, tuple[Callable[[np.ndarray], Any], int]] = {}

    def add(name: str, solver: str, **options: Any) -> None:
        entry = fd.solvers.SOLVERS[solver]
        found[name] = (lambda ts: entry.build(PROCESS, ts, **options), entry.calls)

    for solver, entry in fd.solvers.SOLVERS.items():
        if not entry.orders:
            add(solver, solver)
        for order in entry.orders:
            # order 1 is DDIM or Euler again; above 4 nothing is meant for 20 steps
            if 2 <= entry.order(order) and order <= 4:
                add(f"{solver}-{order}", solver, order=order)
    for whole in [k for k in found if k[:-2] in ("ghvb", "hb", "nt")]:
        del found[whole]  # without momentum it is equal-step Adams: `ipndm`
    for momentum in ("ghvb", "hb", "nt"):
        for order in (1.8, 2.8, 3.8):
            add(f"{momentum}-{order}", momentum, order=order)
    for order in (2, 3):
        add(f"unip-{order}", "unipc", order=order, corrector=False)
        add(f"unipc-{order}-noise", "unipc", order=order, prediction="noise")
        add(f"unip-{order}-noise", "unipc", order=order, prediction="noise",
            corrector=False)  # fmt: skip
    add("dpmpp_2m-noise", "dpmpp_2m", prediction="noise")
    return found


V3_VARIANTS: dict[str, dict[str, Any]] = {
    "v3-3": {"order": 3},
    "v3-3-pp": {"order": 3, "p_pseudo": True},
    "v3-3-half": {"order": 3, "half": True},
    "v3-3-pp-half": {"order": 3, "p_pseudo": True, "half": True},
    "v3-3-cp": {"order": 3, "c_pseudo": True},
    "v3-3-nocorr": {"order": 3, "corrector": False},
    "v3-2": {"order": 2},
    "v3-2-cp": {"order": 2, "c_pseudo": True},
    "v3-2-half": {"order": 2, "half": True},
    "v3-2-cp-half": {"order": 2, "c_pseudo": True, "half": True},
    "v3-2-nocorr": {"order": 2, "corrector": False},
}


# ---------------------------------------------------------------------------- measuring


class Store:
    """Records in a JSON-lines file that is replaced whole after every batch."""

    def __init__(self, path: Path):
        self.path, self.rows = path, {}
        if path.exists():
            for line in path.read_text().splitlines():
                row = json.loads(line)
                self.rows[row["key"]] = row

    def put(self, rows: list[dict[str, Any]]) -> None:
        """Add records and write the file."""
        self.rows |= {row["key"]: row for row in rows}
        text = "".join(json.dumps(row) + "\n" for row in self.rows.values())
        write_whole(self.path, lambda f: f.write(text.encode()))


def write_whole(path: Path, write: Callable[[Any], Any]) -> None:
    """Write a file that appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        write(file)
    os.replace(temporary, path)


class Judge:
    """Figures of a set of samples of one case."""

    def __init__(self, case: Case, reference: np.ndarray):
        self.case, self.reference = case, reference
        self.scorer = None
        if case.labels is not None:
            found = digits_data()
            flat = (found.train_x.reshape(-1, 64) + 1) * 8
            self.scorer = SVC(gamma=0.001).fit(flat, found.train_y)

    def __call__(self, samples: np.ndarray) -> dict[str, float | None]:
        """RMS per pixel to the reference, SVC agreement, share that diverged."""
        x = np.asarray(samples, np.float64)
        gap = ((x - self.reference) ** 2).reshape(len(x), -1).mean(1)
        out: dict[str, float | None] = {
            "rms": _round(np.sqrt(gap.mean())),
            "median": _round(np.sqrt(np.median(gap))),
            "outside": _round((np.abs(x).reshape(len(x), -1).max(1) > 2).mean()),
            "agreement": None,
        }
        if self.scorer is not None:
            flat = np.nan_to_num((x.reshape(-1, 64) + 1) * 8, posinf=1e6, neginf=-1e6)
            flat = np.clip(flat, -1e6, 1e6)
            out["agreement"] = _round(self.scorer.score(flat, self.case.labels))
        return out


def _round(value: Any) -> float | None:
    """Four significant digits; None for a number that is not finite."""
    return float(f"{value:.4g}") if np.isfinite(value) else None


def reference_of(case: Case, s: dict[str, Any], file: Path) -> dict[str, np.ndarray]:
    """The same noises at 1000 evaluations by two solvers."""
    if not file.exists():
        ts = fd.grids.log_snr(PROCESS, s["reference_steps"], end=END)
        plans = {
            "reference": fd.solvers.dpmpp_3m(PROCESS, ts),
            "unipc": fd.solvers.unipc(PROCESS, ts, order=3),
        }
        plans = dict(zip(plans, same_shape(list(plans.values())), strict=True))
        found = {
            k: np.asarray(fd.sample(p, case.model, case.noise))
            for k, p in plans.items()
        }
        write_whole(file, lambda f: np.savez(f, **found))
    with np.load(file) as kept:
        return dict(kept)


def same_shape(plans: list[Any]) -> list[Any]:
    """Plans of one structure, so that one compiled program runs all of them."""
    stacked = fd.plan.stack(plans)
    return [jax.tree.map(lambda w, i=i: w[i], stacked) for i in range(len(plans))]


def measure(
    name: str,
    plans: dict[int, Any],
    runner: Callable[[Any], Any],
    case: str,
    judge: Judge,
    spent: dict[int, int],
) -> list[dict[str, Any]]:
    """A record per NFE of one solver."""
    rows = []
    for nfe, plan in plans.items():
        samples = np.asarray(runner(plan))
        row = {"key": f"{case}|{name}|{nfe}", "case": case, "solver": name, "nfe": nfe}
        rows.append(row | {"spent": spent[nfe]} | judge(samples))
    return rows


# ------------------------------------------------------------------- stages of one case


class Run(NamedTuple):
    """What every stage needs."""

    name: str
    case: Case
    judge: Judge
    settings: dict[str, Any]
    folder: Path
    store: Store
    tick: Callable[[str], None]

    def todo(self, solver: str) -> bool:
        """Whether a solver still has to be measured."""
        return f"{self.name}|{solver}|done" not in self.store.rows

    def finish(self, solver: str, rows: list[dict[str, Any]], **extra: Any) -> None:
        """Keep a solver's records, marked complete."""
        mark = {"key": f"{self.name}|{solver}|done"} | extra
        self.store.put([*rows, mark])


def run_group(
    run: Run,
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


def run_v3(run: Run) -> None:
    """DPM-Solver-v3 with statistics of this very denoiser, on real data."""
    s = run.settings
    file = run.folder / f"statistics_{run.name}.npz"
    data = run.case.data[: s["v3_data"]]
    if not file.exists():
        run.tick(f"{run.name}: v3 statistics")
        table = fd.statistics.estimate(
            run.case.wrap(run.case.bare, min(s["v3_batch"], len(data))),
            PROCESS,
            data,
            key=jax.random.key(s["seed"] + 2),
            nodes=s["v3_nodes"],
            batch=min(s["v3_batch"], len(data)),
            end=END,
            path=run.folder / f"statistics_{run.name}.part.npz",
        )
        fd.statistics.save(table, file)
    table = fd.statistics.load(file)

    def build(options: dict[str, Any]) -> Callable[[np.ndarray], Any]:
        return lambda ts: fd.solvers.dpm_solver_v3(PROCESS, ts, table, **options)

    run_group(run, {k: (build(o), 1) for k, o in V3_VARIANTS.items()})


def run_dc(run: Run, like: Any) -> None:
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
        target = fd.compensate.reference(
            model, PROCESS, ts, noise, refine=s["dc_refine"]
        )
        found = fd.compensate.search(
            model, PROCESS, ts, noise, target, iterations=s["dc_iterations"], **options
        )
        plan = fd.solvers.dc_solver(PROCESS, ts, found.ratios, **options)
        plan = same_shape([like, plan])[1]
        runner = lambda p: fd.sample(p, case.model, case.noise)  # noqa: E731
        rows = measure(name, {nfe: plan}, runner, run.name, run.judge, {nfe: nfe})
        rows[0]["ratios"] = [round(float(r), 4) for r in found.ratios]
        run.store.put(rows)


def run_shift(run: Run) -> None:
    """Time-shift under DDIM (the paper's step) and under PLMS."""
    s, case = run.settings, run.case
    for tag, variance in (("", 0.0), ("-v0", case.variance)):
        options = {
            "window": s["shift_window"],
            "cutoff": s["shift_cutoff"],
            "data_variance": variance,
        }
        batch = len(case.noise)
        two = fd.guidance.time_shift(case.bare, PROCESS, outputs=True, **options)
        one = fd.guidance.time_shift(case.bare, PROCESS, **options)
        ddim = lambda ts: fd.solvers.ddim(PROCESS, ts, second_noise=True)  # noqa: E731
        plms = lambda ts: fd.solvers.plms(PROCESS, ts, order=4)  # noqa: E731
        run_group(run, {f"time_shift{tag}+ddim": (ddim, 1)}, case.wrap(two, batch))
        run_group(run, {f"time_shift{tag}+plms-4": (plms, 1)}, case.wrap(one, batch))


def run_case(run: Run) -> None:
    """All stages of a case; what could not run is recorded in words."""
    some = run.settings["partial"].get(run.name)
    group = {k: v for k, v in contestants().items() if some is None or k in some}
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


def one_case(name: str, s: dict[str, Any], folder: Path) -> None:
    """Measure what is missing of one case, in this process."""
    begun = time.time()
    store = Store(folder / f"{name}.jsonl")

    def tick(text: str) -> None:
        print(f"{time.time() - begun:6.1f} s  {text}", flush=True)

    scale = name.removeprefix("digits_g")
    tick(f"{name}: reference")
    made = name == "patches"
    case = patches_case(s, folder) if made else digits_case(float(scale), s)
    found = reference_of(case, s, folder / f"reference_{name}.npz")
    judge = Judge(case, found["reference"])
    checks = {k: judge(v) for k, v in found.items()}
    store.put([{"key": "checks", "checks": checks}])
    run_case(Run(name, case, judge, s, folder, store, tick))
    before = store.rows.get("seconds", {"value": 0.0})["value"]
    store.put([{"key": "seconds", "value": round(before + time.time() - begun, 1)}])


# -------------------------------------------------------------------------------- main


def launch(names: list[str], folder: Path, quick: bool) -> None:
    """Run the cases in processes of their own, two at a time."""
    waiting, running, seen = list(names), {}, 0
    with progress() as tick:
        while waiting or running:
            while waiting and len(running) < 2:
                name = waiting.pop(0)
                command = [sys.executable, __file__, "--case", name]
                log = (folder / f"{name}.log").open("w")
                running[name] = subprocess.Popen(
                    command + ["--quick"] * quick, stdout=log, stderr=log
                )
            time.sleep(0.5)
            for name, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[name]
                if process.returncode:
                    raise SystemExit(
                        f"{name} failed, see {folder / name}.log. What it measured is "
                        "kept; run again to continue."
                    )
            rows = sum(len(read(folder / f"{name}.jsonl")) for name in names)
            if rows != seen:
                tick(f"{rows} records; running: {', '.join(running)}")
                seen = rows


def read(path: Path) -> dict[str, Any]:
    """A store's records, none if there is no file yet."""
    return Store(path).rows


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A live line if rich is installed, else a line now and then."""
    try:
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    except ImportError:
        yield lambda text: print(text, flush=True)
        return
    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda text: bar.update(task, description=text)


def write_report(names: list[str], folder: Path, s: dict, target: Path) -> None:
    """result.json, note.md and figure.png from the records that are there."""
    import report

    stores = {name: read(folder / f"{name}.jsonl") for name in names}
    records = [row for store in stores.values() for row in store.values()]
    rows = [r for r in records if "solver" in r]
    missing = [r["missing"] for r in records if "missing" in r]
    checks = {k: v["checks"]["checks"] for k, v in stores.items() if "checks" in v}
    spent = {k: v["seconds"]["value"] for k, v in stores.items() if "seconds" in v}
    result = report.summarise(rows, checks, s, missing, spent)
    texts = {"result.json": report.compact(result), "note.md": report.note(result)}
    for name, text in texts.items():
        write_whole(target / name, lambda f, text=text: f.write(text.encode()))
    report.figure(result, target / "figure.png")
    print("\n".join(result["claims"].values()))
    print(f"wrote {target}/result.json, figure.png, note.md")


def main() -> None:
    """Measure what is missing, then write the result, the figure and the note."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small smoke version")
    parser.add_argument("--case", help="measure one case only, write no report")
    parser.add_argument("--report", action="store_true", help="from what is there")
    arguments = parser.parse_args()
    quick = arguments.quick
    s = SETTINGS | (QUICK if quick else {})
    mark = hashlib.sha256(json.dumps(s, sort_keys=True).encode()).hexdigest()[:10]
    folder = HERE / "out" / mark
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.case:
        one_case(arguments.case, s, folder)
        return
    names = [f"digits_g{g:g}" for g in s["guidance"]] + ["patches"]
    names.sort(key=["digits_g4", "digits_g1", "patches", "digits_g8"].index)
    if not arguments.report:
        launch(names, folder, quick)
    target = HERE / "out" / "quick" if quick else HERE
    target.mkdir(exist_ok=True)
    write_report(names, folder, s, target)


if __name__ == "__main__":
    main()
