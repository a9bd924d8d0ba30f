#!/usr/bin/env python
"""Blurred, noisy digits restored by a mean-reverting process: MR sampler against EM.

    python experiments/restoration/run.py [--quick]

Writes result.json, figure.png and the table of note.md beside this file; a killed run
continues.
"""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]  # runner.py; task.py and draw.py

import jax  # noqa: E402
import numpy as np  # noqa: E402
import runner  # noqa: E402
import task  # noqa: E402
from draw import figure  # noqa: E402
from task import PROCESS  # noqa: E402

import fastdiff_jax as fd  # noqa: E402
from fastdiff_jax.models.data import digits_data  # noqa: E402

# ---------------------------------------------------------------------------- settings
SETTINGS: dict[str, Any] = {
    "seed": 0,
    "images": 500,  # held out
    "repeats": 4,  # restorations of each
    "nfe": (3, 5, 10, 20),
    "long": (50,),  # second order too: what it tends to
    "em_nfe": (5, 10, 20, 50, 100, 200),
    "reference": 100,
}
QUICK = {"images": 40, "repeats": 2, "nfe": (3, 5), "long": (), "em_nfe": (5, 100)}
PROJECTIONS = 512
BEST = 1.02  # the rule of note.md
POINTS = 0.5


def methods(s: SimpleNamespace) -> dict[str, Any]:
    """Name -> plan. 'MR ODE-2 10' is order 2 at 10 evaluations."""
    mr, made = fd.restore.mr_sampler, {}
    for n in s.em_nfe:
        ts = fd.restore.steps(PROCESS, n)
        made[f"EM {n}"] = fd.solvers.euler_maruyama(PROCESS, ts)
    for sde in (False, True):
        for order in (1, 2, 3):
            for n in (*s.nfe, *(s.long if order == 2 else ())):
                ts = fd.restore.steps(PROCESS, n)
                name = f"MR {'SDE' if sde else 'ODE'}-{order} {n}"
                made[name] = mr(PROCESS, ts, order=order, sde=sde)
        for n in s.nfe:  # steps equal in half log-SNR, then to sigma = 0
            ts = np.append(fd.grids.log_snr(PROCESS, n - 1), 0.0)
            name = f"MR {'SDE' if sde else 'ODE'}-2 log-SNR {n}"
            made[name] = mr(PROCESS, ts, sde=sde)
    ts = np.append(fd.grids.log_snr(PROCESS, s.reference - 1), 0.0)
    made[f"ODE reference {s.reference}"] = fd.solvers.exp_adams(PROCESS, ts, order=3)
    ts = np.array([PROCESS.start, 0.0])
    made["one evaluation 1"] = mr(PROCESS, ts, order=1)
    return made


class Problem:
    """Held-out digits, their degraded versions, and the network."""

    def __init__(self, s: SimpleNamespace) -> None:
        data = digits_data()
        self.clean, self.labels = data.test_x[: s.images], data.test_y[: s.images]
        key, self.repeats = jax.random.key(s.seed), s.repeats
        z = jax.random.normal(jax.random.fold_in(key, 1), data.test_x.shape)
        self.degraded = np.asarray(task.degrade(data.test_x, z))[: s.images]
        y = np.tile(self.degraded, (s.repeats, 1, 1, 1))
        graph, params = task.load()
        net = functools.partial(task.predict, graph=graph)
        self.model = fd.restore.denoiser(
            net, PROCESS, y, prediction="data", params=params, batch_time=True
        )
        self.key, self.y, self.train = jax.random.fold_in(key, 2), y, data

    def restore(self, plan: Any) -> dict[str, np.ndarray]:
        """(repeats, images, 8, 8, 1)."""
        x = fd.restore.sample(plan, self.model, PROCESS, self.y, key=self.key)
        return {"x": np.asarray(x).reshape(self.repeats, -1, 8, 8, 1)}


def sliced_wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """Over fixed random directions, sets of equal size."""
    w = np.random.default_rng(0).normal(size=(64, PROJECTIONS))
    w /= np.linalg.norm(w, axis=0)
    a, b = (np.sort(v.reshape(-1, 64) @ w, axis=0) for v in (a, b))
    return float(np.sqrt(((a - b) ** 2).mean()))


def measure(x: np.ndarray, problem: Problem, svc: Any, known: dict) -> dict[str, float]:
    """All figures of one method; x is (REPEATS, images, 8, 8, 1)."""
    error = np.sqrt(((x - problem.clean) ** 2).mean())
    flat = x.reshape(-1, 64)
    found = {
        "rmse": float(error),
        "psnr": float(20 * np.log10(2 / error)),
        "sw": float(np.mean([sliced_wasserstein(v, problem.clean) for v in x])),
        "svc": 100 * float(svc.score(flat, np.tile(problem.labels, len(x)))),
    }
    for name, other in known.items():
        found[f"to_{name}"] = float(np.sqrt(((x - other) ** 2).mean()))
    return found


def beyond(x: np.ndarray, best: np.ndarray, problem: Problem, svc: Any) -> list[str]:
    """What is worse than the best by over two paired standard errors.

    Over images for the RMSE (through the mean squared error) and the SVC, over the
    repeats for the sliced Wasserstein distance.
    """

    def parts(v: np.ndarray) -> dict[str, np.ndarray]:
        hit = svc.predict(v.reshape(-1, 64)).reshape(len(v), -1) == problem.labels
        return {
            "rmse": ((v - problem.clean) ** 2).mean((0, 2, 3, 4)),
            "svc": -hit.mean(0),
            "sw": np.array([sliced_wasserstein(r, problem.clean) for r in v]),
        }

    mine, other = parts(x), parts(best)
    gaps = {k: mine[k] - other[k] for k in mine}
    error = {k: g.std(ddof=1) / np.sqrt(len(g)) for k, g in gaps.items()}
    return [k for k, g in gaps.items() if g.mean() > 2 * error[k] > 0]


def as_good(found: dict[str, float], best: dict[str, float]) -> bool:
    """The rule of note.md."""
    return (
        found["sw"] <= BEST * best["sw"]
        and found["svc"] >= best["svc"] - POINTS
        and found["rmse"] <= BEST * best["rmse"]
    )


def smallest(passes: dict[str, bool], family: str) -> int | None:
    """Fewest evaluations from which on, up to 100, a family passes."""
    split = [(name.rsplit(" ", 1), good) for name, good in passes.items()]
    mine = {int(n): good for (own, n), good in split if own == family}
    mine = {n: mine[n] for n in sorted(mine) if n <= 100}
    good = [n for n in mine if all(mine[k] for k in mine if k >= n)]
    return good[0] if good else None


def families(results: dict[str, dict]) -> list[str]:
    """Families in the order of the table."""
    names = [name.rsplit(" ", 1)[0] for name in results]
    return [f for f in dict.fromkeys(names) if f.startswith(("EM", "MR"))]


def table(results: dict[str, dict], chosen: dict[str, dict]) -> str:
    """The table of note.md."""
    lines = [
        "| method | evaluations | RMSE | PSNR | sliced W. | SVC % | to E[x0 given y] |"
        " rule | worse than EM 100 beyond 2 s.e. |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, r in results.items():
        family, n = name.rsplit(" ", 1)
        good = "yes" if as_good(r, results["EM 100"]) else ""
        lines.append(
            f"| {family} | {n} | {r['rmse']:.3f} | {r['psnr']:.2f} | {r['sw']:.4f} "
            f"| {r['svc']:.1f} | {r['to_mean']:.3f} | {good} "
            f"| {', '.join(r['worse'])} |"
        )
    for title, found in chosen.items():
        said = "; ".join(f"{f}: {n or 'never'}" for f, n in found.items())
        lines += ["", f"Fewest evaluations from which on, to 100, {title}: {said}."]
    return "\n".join(lines)


def note(text: str, path: Path) -> str:
    """The note of `path` with the table between its marks, or the table alone."""
    start, end = "<!-- table -->", "<!-- end of table -->"
    old = path.read_text() if path.exists() else ""
    if start not in old:
        old += f"\n## Table\n\n{start}\n{end}\n"
    head, tail = old.split(start)[0], old.split(end)[1]
    return f"{head}{start}\n{text}\n{end}{tail}"


def references(problem: Problem, svc: Any) -> dict[str, Any]:
    """What real, degraded and clean images score."""
    rng, train = np.random.default_rng(1), problem.train.train_x
    some = rng.choice(len(train), (problem.repeats, len(problem.clean)))
    real = [sliced_wasserstein(train[i], problem.clean) for i in some]
    y = problem.degraded
    return {
        "training digits, sliced Wasserstein": float(np.mean(real)),
        "degraded": measure(y[None], problem, svc, {}),
        "clean, SVC %": 100 * svc.score(problem.clean.reshape(-1, 64), problem.labels),
    }


def judged(restored: dict[str, np.ndarray], problem: Problem, svc: Any) -> dict:
    """The figures of every method."""
    ode = next(v for k, v in restored.items() if k.startswith("ODE reference"))
    known = {"mean": restored["one evaluation 1"].mean(0), "ode": ode}
    results = {k: measure(v, problem, svc, known) for k, v in restored.items()}
    for name, x in restored.items():
        results[name]["worse"] = beyond(x, restored["EM 100"], problem, svc)
    return results


def main() -> None:
    """Restore what is missing, measure, write."""
    from sklearn.svm import SVC

    sources = [task.WEIGHTS, Path(task.__file__)]
    run = runner.start(__doc__, __file__, SETTINGS, QUICK, figure, sources=sources)
    s, began, restored = run.settings, time.time(), {}
    with run.held():
        problem = Problem(s)
        for name, plan in run.track(methods(s).items(), lambda item: item[0]):
            made = lambda plan=plan: problem.restore(plan)  # noqa: E731
            restored[name] = run.arrays(name.replace(" ", "_"), made)["x"]
        run.arrays("images", lambda: _shown(restored, problem))
        train = problem.train
        svc = SVC().fit(train.train_x.reshape(-1, 64), train.train_y)
        results = judged(restored, problem, svc)
        rule = {k: as_good(r, results["EM 100"]) for k, r in results.items()}
        alike = {k: not r["worse"] for k, r in results.items()}
        chosen = {
            "the rule holds": {f: smallest(rule, f) for f in families(results)},
            "nothing is worse beyond two standard errors": {
                f: smallest(alike, f) for f in families(results)
            },
        }
        payload = {
            "results": results,
            "references": references(problem, svc),
            "fewest": chosen,
            "seed": s.seed,
            "jax": jax.__version__,
            "seconds": run.clock(began),
        }
        found = table(results, chosen)
        run.write(payload, note=note(found, run.out / "note.md"))
    print(found)


def _shown(restored: dict[str, np.ndarray], problem: Problem) -> dict[str, np.ndarray]:
    """Two held-out images of each class, as every method restores them."""
    picks = [i for d in range(10) for i in np.flatnonzero(problem.labels == d)[:2]]
    images = {k: v[0] for k, v in restored.items()}
    images |= {"clean": problem.clean, "degraded": problem.degraded}
    return {name: each[picks] for name, each in images.items()}


if __name__ == "__main__":
    main()
