#!/usr/bin/env python
"""Does a corrector pay at equal cost? Predictors and correctors on the embedded digits.

    python experiments/predictor_corrector/run.py [--quick]

Writes result.json and figure.png beside this file; a killed run continues.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]  # runner.py and report.py

import judge  # noqa: E402
import runner  # noqa: E402
from report import figure  # noqa: E402

import fastdiff_jax as fd  # noqa: E402
from fastdiff_jax.models import digits  # noqa: E402
from fastdiff_jax.models.data import DigitsData, digits_data  # noqa: E402

SETTINGS: dict[str, Any] = {
    "nfe": (20, 50),
    "snr": 0.16,  # the paper's, for CIFAR-10
    "seeds": 4,
    "samples": 250,  # per seed
    "filled": 60,  # evaluations and images of the inpainting
}
QUICK = {"nfe": (6,), "seeds": 2, "samples": 40, "filled": 12}
PROCESSES = {"VE": fd.processes.ve(), "VP": fd.processes.vp_linear()}
S, LANGEVIN = fd.solvers, fd.moves.langevin()
Made = tuple[fd.Plan, Any]


def published(process: Any, steps: int) -> np.ndarray:
    """The paper's grid: even times from T to eps."""
    return fd.grids.uniform(process, steps)


def corrected(process: Any, nfe: int, move: Any) -> Made:
    """One correction per level, so half as many levels."""
    ts = published(process, nfe // 2)
    return S.predictor_corrector(process, ts, snr=SETTINGS["snr"]), move


METHODS: dict[str, Callable[[Any, int], Made]] = {
    "reverse diffusion": lambda p, n: (S.reverse_diffusion(p, published(p, n)), None),
    "PC, ALD": lambda p, n: corrected(p, n, None),
    "PC, Langevin": lambda p, n: corrected(p, n, LANGEVIN),
    "UniPC-3": lambda p, n: (S.unipc(p, fd.grids.log_snr(p, n), order=3), None),
}


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

    def __init__(self, data: DigitsData, samples: int) -> None:
        self.data, self.agreement = data, judge.Classifier(data).agreement
        self.held, self.labels = data.test_x[:samples], data.test_y[:samples]
        rng, count = np.random.RandomState(1), len(data.train_x)
        picks = [rng.choice(count, samples, replace=False) for _ in range(5)]
        real = [judge.sliced_wasserstein(data.train_x[k], self.held) for k in picks]
        self.real = float(np.mean(real))

    def __call__(self, x: np.ndarray) -> dict[str, float]:
        return {
            "sliced_ratio": judge.sliced_wasserstein(x, self.held) / self.real,
            "energy": energy_distance(x, self.held),
            "agreement": self.agreement(x, self.labels),
        }


def draw(process: Any, made: Made, labels: np.ndarray, seed: int) -> np.ndarray:
    """One sample per label."""
    plan, move = made
    keys = jax.random.split(jax.random.key(seed))
    x = fd.prior(process, keys[0], (len(labels), *digits.SHAPE))
    key = keys[1] if plan.stochastic else None
    return np.asarray(fd.sample(plan, digits.load(labels), x, key=key, move=move))


def summary(found: list[dict[str, float]]) -> dict[str, Any]:
    """Mean and standard error over the seeds."""
    out = {}
    for name in found[0]:
        values = np.array([f[name] for f in found])
        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
        out[name] = [round(float(values.mean()), 4), round(float(error), 4)]
    return out


def contest(by: Judge, run: runner.Run) -> dict[str, Any]:
    """Every method at every cost on both paths, seed by seed."""
    s, found = run.settings, {}
    cases = [
        (path, method, n, seed)
        for seed in range(s.seeds)
        for n in s.nfe
        for path in PROCESSES
        for method in METHODS
    ]

    def measure(path: str, method: str, nfe: int, seed: int) -> dict[str, float]:
        process = PROCESSES[path]
        made = METHODS[method](process, nfe)
        assert made[0].nfe == nfe
        return by(draw(process, made, by.labels, seed))

    for case in run.track(cases, lambda case: "{}, {}, {}, seed {}".format(*case)):
        key = "|".join(map(str, case))
        found[case] = run.store.once(key, lambda case=case: measure(*case))
    out: dict[str, Any] = {}
    for path, method, nfe, _ in cases[: len(cases) // s.seeds]:
        each = [found[path, method, nfe, k] for k in range(s.seeds)]
        out.setdefault(path, {}).setdefault(method, {})[nfe] = summary(each)
    return out


def verdict(table: dict[str, Any]) -> dict[str, Any]:
    """Seen where PC's sliced distance is lower by over two standard errors."""
    out: dict[str, Any] = {}
    for path, rows in table.items():
        for name in ("PC, ALD", "PC, Langevin"):
            gains = []
            for nfe in rows[name]:
                (a, da), (b, db) = (
                    rows[m][nfe]["sliced_ratio"] for m in ("reverse diffusion", name)
                )
                gains.append([round(a - b, 4), round(2 * float(np.hypot(da, db)), 4)])
            out[f"{path}: {name}"] = {
                "gain_and_two_errors": gains,
                "seen": all(g > e for g, e in gains),
            }
    return out


def inpainting(by: Judge, count: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The lower half unknown; unconditional model, `count` evaluations and images."""
    process, data = PROCESSES["VP"], by.data
    images, labels = data.test_x[:count], data.test_y[:count]
    mask = np.zeros((8, 8, 1), np.float32)
    mask[:4] = 1
    move = fd.moves.inpaint(np.where(mask == 1, images, 0.0), mask)
    grid = lambda n: fd.grids.log_snr(process, n, to_zero=True)  # noqa: E731
    chained = fd.moves.chain(LANGEVIN, move)
    pc = S.predictor_corrector
    cases = {
        "DPM-Solver++ 2M": (S.dpmpp_2m(process, grid(count)), move),
        "reverse diffusion": (S.reverse_diffusion(process, grid(count)), move),
        "PC, ALD": (pc(process, grid(count // 2)), move),
        "PC, Langevin": (pc(process, grid(count // 2)), chained),
        "PC, ALD, 9 corrections": (
            pc(process, grid(max(count // 10, 2)), corrections=9),
            move,
        ),
    }
    model, out = digits.load(), {}
    shown = {"held out": images, "known": np.where(mask == 1, images, -1.0)}
    for name, (plan, after) in cases.items():
        x = fd.prior(process, jax.random.key(0), images.shape)
        x = np.asarray(fd.sample(plan, model, x, key=jax.random.key(1), move=after))
        assert np.array_equal(x[:, :4], images[:, :4])
        gap = np.sqrt(np.mean((x[:, 4:] - images[:, 4:]) ** 2))
        out[name] = {
            "agreement": by.agreement(x, labels),
            "rmse_unknown": round(float(gap), 4),
        }
        shown[name] = x
    out["nothing filled in"] = {"agreement": by.agreement(shown["known"], labels)}
    return out, shown


def log_class(params: Any, x: jax.Array, context: fd.Context) -> jax.Array:
    """log p(c | x_t) if every class were Gaussian with one covariance: closed form."""
    means, spectrum, vectors, labels = params
    total = context.alpha**2 * spectrum + context.sigma**2
    gap = x.reshape(-1, 1, 64) - context.alpha * means[None]
    energy = (jnp.square(gap @ vectors) / total).sum(-1) / 2
    every = jax.nn.log_softmax(-energy, axis=-1)
    return jnp.take_along_axis(every, labels[:, None], axis=1)[:, 0]


def by_classifier(by: Judge) -> tuple[dict[str, Any], np.ndarray]:
    """Class-conditional samples of the unconditional model."""
    data, process = by.data, PROCESSES["VP"]
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
            "agreement": by.agreement(made, labels),
            "outside": round(float(np.mean(np.abs(made) > 1.05)), 4),
        }
        if scale == 2.0:
            shown = made
    return out, shown


def pictures(by: Judge, run: runner.Run) -> dict[str, np.ndarray]:
    """Completions and class-conditional samples; their figures go into the store."""
    filled, shown = inpainting(by, run.settings.filled)
    guided, classes = by_classifier(by)
    run.store.put([{"key": "pictures", "value": [filled, guided]}])
    return {"names": list(shown), "shown": list(shown.values()), "classes": classes}


def main() -> None:
    """Measure what is missing, then write result.json and figure.png."""
    run = runner.start(__doc__, __file__, SETTINGS, QUICK, figure)
    s, began = run.settings, time.time()
    with run.held():
        by = Judge(digits_data(), s.samples)
        run.arrays("pictures", lambda: pictures(by, run))
        filled, guided = run.store.rows["pictures"]["value"]
        table = contest(by, run)
        result = {
            "settings": vars(s),
            "verdict": verdict(table),
            "methods": table,
            "inpainting": filled,
            "classifier_guidance": guided,
            "seconds": run.clock(began),
        }
        run.write(result)
    print(runner.dumps(runner.plain(result["verdict"])))


if __name__ == "__main__":
    main()
