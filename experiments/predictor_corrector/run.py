#!/usr/bin/env python
"""Does a corrector pay at equal cost? Predictors and correctors on the embedded digits.

`python experiments/predictor_corrector/run.py` writes result.json and figure.png beside
this file; it keeps finished cases in out/, so that a killed run continues. `--seeds 1`
is a quick look.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import Progress
from sklearn.svm import SVC

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import fastdiff_jax as fd  # noqa: E402
from fastdiff_jax.models import digits  # noqa: E402
from fastdiff_jax.models.data import DigitsData, digits_data  # noqa: E402

NFE = (20, 50)
SAMPLES = 250  # per seed
SNR = 0.16  # the paper's, for CIFAR-10
PROCESSES = {"VE": fd.processes.ve(), "VP": fd.processes.vp_linear()}
S, LANGEVIN = fd.solvers, fd.moves.langevin()
Made = tuple[fd.Plan, Any]


def published(process: Any, steps: int) -> np.ndarray:
    """The paper's grid: even times from T to eps."""
    return fd.grids.uniform(process, steps)


def corrected(process: Any, nfe: int, snr: float, post: Any) -> Made:
    """One correction per level, so half as many levels."""
    ts = published(process, nfe // 2)
    return S.predictor_corrector(process, ts, snr=snr), post


METHODS: dict[str, Callable[[Any, int], Made]] = {
    "reverse diffusion": lambda p, n: (S.reverse_diffusion(p, published(p, n)), None),
    "PC, ALD": lambda p, n: corrected(p, n, SNR, None),
    "PC, Langevin": lambda p, n: corrected(p, n, SNR, LANGEVIN),
    "UniPC-3": lambda p, n: (S.unipc(p, fd.grids.log_snr(p, n), order=3), None),
}


def sliced_wasserstein(a: np.ndarray, b: np.ndarray, projections: int = 512) -> float:
    """Root mean squared W2 over random directions, equal sizes."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    p = np.random.RandomState(0).standard_normal((a.shape[1], projections))
    p /= np.linalg.norm(p, axis=0)
    gap = np.sort(a @ p, axis=0) - np.sort(b @ p, axis=0)
    return float(np.sqrt(np.mean(gap**2)))


def energy_distance(a: np.ndarray, b: np.ndarray) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'|, unbiased."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)

    def mean(u: np.ndarray, v: np.ndarray, same: bool) -> float:
        square = (u**2).sum(1)[:, None] - 2 * u @ v.T + (v**2).sum(1)[None]
        total = np.sqrt(np.maximum(square, 0.0))
        if same:
            return float((total.sum() - np.trace(total)) / (len(u) * (len(u) - 1)))
        return float(total.mean())

    return 2 * mean(a, b, False) - mean(a, a, True) - mean(b, b, True)


class Judge:
    """Distances to held-out digits, and a classifier trained on the others."""

    def __init__(self, data: DigitsData) -> None:
        self.data = data
        flat = (data.train_x.reshape(-1, 64) + 1.0) * 8.0
        self.svc = SVC(gamma=0.001).fit(flat, data.train_y)
        rng, held = np.random.RandomState(1), data.test_x[:SAMPLES]
        picks = [rng.choice(len(flat), SAMPLES, replace=False) for _ in range(5)]
        real = [sliced_wasserstein(data.train_x[k], held) for k in picks]
        self.real = float(np.mean(real))

    def agreement(self, x: np.ndarray, labels: np.ndarray) -> float:
        return float(self.svc.score((x.reshape(-1, 64) + 1.0) * 8.0, labels))

    def __call__(self, x: np.ndarray) -> dict[str, float]:
        held, labels = self.data.test_x[:SAMPLES], self.data.test_y[:SAMPLES]
        return {
            "sliced_ratio": sliced_wasserstein(x, held) / self.real,
            "energy": energy_distance(x, held),
            "agreement": self.agreement(x, labels),
        }


def draw(process: Any, made: Made, labels: np.ndarray, seed: int) -> np.ndarray:
    """One sample per label."""
    plan, post = made
    keys = jax.random.split(jax.random.key(seed))
    x = fd.prior(process, keys[0], (len(labels), *digits.SHAPE))
    key = keys[1] if plan.stochastic else None
    return np.asarray(fd.sample(plan, digits.load(labels), x, key=key, move=post))


def summary(found: list[dict[str, float]]) -> dict[str, Any]:
    """Mean and standard error over the seeds."""
    out = {}
    for name in found[0]:
        values = np.array([f[name] for f in found])
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
        out[name] = [round(float(values.mean()), 4), round(float(error), 4)]
    return out


def contest(judge: Judge, seeds: int) -> dict[str, Any]:
    """Every method at every cost on both paths, seed by seed; what is whole."""
    labels, store = judge.data.test_y[:SAMPLES], HERE / "out" / "cases.jsonl"
    store.parent.mkdir(exist_ok=True)
    lines = store.read_text().splitlines() if store.exists() else []
    found = {tuple(json.loads(v)["case"]): json.loads(v)["found"] for v in lines}
    cases = [(p, m, n) for n in NFE for p in PROCESSES for m in METHODS]
    with Progress(transient=True) as bar:
        for seed in range(seeds):
            for case in bar.track(cases, description=f"seed {seed}"):
                if (*case, seed) in found:
                    continue
                process, made = PROCESSES[case[0]], METHODS[case[1]]
                made = made(process, case[2])
                assert made[0].nfe == case[2]
                at = found[(*case, seed)] = judge(draw(process, made, labels, seed))
                with store.open("a") as file:
                    file.write(json.dumps({"case": [*case, seed], "found": at}) + "\n")
    out: dict[str, Any] = {}
    for path, method, nfe in cases:
        each = [found[path, method, nfe, k] for k in range(seeds)]
        out.setdefault(path, {}).setdefault(method, {})[nfe] = summary(each)
    return out


def verdict(table: dict[str, Any]) -> dict[str, Any]:
    """Seen where PC's sliced distance is lower by over two standard errors."""
    out: dict[str, Any] = {}
    for path, rows in table.items():
        for name in ("PC, ALD", "PC, Langevin"):
            gains = []
            for nfe in NFE:
                (a, da), (b, db) = (
                    rows[m][nfe]["sliced_ratio"] for m in ("reverse diffusion", name)
                )
                gains.append([round(a - b, 4), round(2 * float(np.hypot(da, db)), 4)])
            out[f"{path}: {name}"] = {
                "gain_and_two_errors": gains,
                "seen": all(g > e for g, e in gains),
            }
    return out


def inpainting(judge: Judge) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The lower half unknown; unconditional model, 60 evaluations each."""
    process, data = PROCESSES["VP"], judge.data
    images, labels = data.test_x[:60], data.test_y[:60]
    mask = np.zeros((8, 8, 1), np.float32)
    mask[:4] = 1
    move = fd.moves.inpaint(np.where(mask == 1, images, 0.0), mask)
    grid = lambda n: fd.grids.log_snr(process, n, to_zero=True)  # noqa: E731
    chained = fd.moves.chain(LANGEVIN, move)
    cases = {
        "DPM-Solver++ 2M": (S.dpmpp_2m(process, grid(60)), move),
        "reverse diffusion": (S.reverse_diffusion(process, grid(60)), move),
        "PC, ALD": (S.predictor_corrector(process, grid(30)), move),
        "PC, Langevin": (S.predictor_corrector(process, grid(30)), chained),
        "PC, ALD, 9 corrections": (
            S.predictor_corrector(process, grid(6), corrections=9),
            move,
        ),
    }
    model, out = digits.load(), {}
    shown = {"held out": images, "known": np.where(mask == 1, images, -1.0)}
    for name, (plan, post) in cases.items():
        x = fd.prior(process, jax.random.key(0), images.shape)
        x = np.asarray(fd.sample(plan, model, x, key=jax.random.key(1), move=post))
        assert np.array_equal(x[:, :4], images[:, :4])
        gap = np.sqrt(np.mean((x[:, 4:] - images[:, 4:]) ** 2))
        out[name] = {
            "agreement": judge.agreement(x, labels),
            "rmse_unknown": round(float(gap), 4),
        }
        shown[name] = x
    top = shown["known"]
    out["nothing filled in"] = {"agreement": judge.agreement(top, labels)}
    return out, shown


def log_class(params: Any, x: jax.Array, context: fd.Context) -> jax.Array:
    """log p(c | x_t) if every class were Gaussian with one covariance: closed form."""
    means, spectrum, vectors, labels = params
    total = context.alpha**2 * spectrum + context.sigma**2
    gap = x.reshape(-1, 1, 64) - context.alpha * means[None]
    energy = (jnp.square(gap @ vectors) / total).sum(-1) / 2
    every = jax.nn.log_softmax(-energy, axis=-1)
    return jnp.take_along_axis(every, labels[:, None], axis=1)[:, 0]


def by_classifier(judge: Judge) -> tuple[dict[str, Any], np.ndarray]:
    """Class-conditional samples of the unconditional model."""
    data, process = judge.data, PROCESSES["VP"]
    flat = data.train_x.reshape(-1, 64)
    means = np.stack([flat[data.train_y == k].mean(0) for k in range(10)])
    inside = flat - means[data.train_y]
    spectrum, vectors = np.linalg.eigh(
        inside.T @ inside / len(flat) + 1e-3 * np.eye(64)
    )
    labels = np.repeat(np.arange(10, dtype=np.int32), 10)
    params = tuple(jnp.asarray(v) for v in (means, spectrum, vectors, labels))
    plan = S.unipc(process, fd.grids.log_snr(process, 20), order=3)
    x, out = fd.prior(process, jax.random.key(7), (100, *digits.SHAPE)), {}
    for scale in (0.0, 1.0, 2.0):
        model = fd.guidance.classifier(digits.load(), log_class, scale, params=params)
        made = np.asarray(fd.sample(plan, model, x))
        out[scale] = {
            "agreement": judge.agreement(made, labels),
            "outside": round(float(np.mean(np.abs(made) > 1.05)), 4),
        }
        if scale == 2.0:
            shown = made
    return out, shown


def main() -> None:
    """Measure, write and draw."""
    from report import draw_figure

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="repetitions")
    seeds, begun = parser.parse_args().seeds, time.time()
    judge = Judge(digits_data())
    filled, shown = inpainting(judge)
    guided, classes = by_classifier(judge)
    table = contest(judge, seeds)
    result = {
        "settings": {"nfe": NFE, "snr": SNR, "seeds": seeds, "samples": SAMPLES},
        "verdict": verdict(table),
        "methods": table,
        "inpainting": filled,
        "classifier_guidance": guided,
        "seconds": round(time.time() - begun),
    }
    (HERE / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    draw_figure(HERE / "figure.png", table, shown, classes)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
