#!/usr/bin/env python
"""Bits per dimension of the held-out digits under the embedded model.

Bounds from above on -log2 P(x) / 64 of the 17-level images, and the same bounds for
Gaussians fitted to the training digits.

    python experiments/likelihood/run.py [--quick]

Writes result.json and figure.png beside this file; a killed run continues.
"""

from __future__ import annotations

import math
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import runner  # noqa: E402

import fastdiff_jax as fd  # noqa: E402
from fastdiff_jax.continuous import bits_per_dim, log_likelihood  # noqa: E402
from fastdiff_jax.models import digits  # noqa: E402
from fastdiff_jax.models.data import DigitsData, digits_data  # noqa: E402

SETTINGS: dict[str, Any] = {
    "images": 500,
    "chunk": 50,  # images of one record
    "probes": 2,
    "tolerance": 1e-3,
    "checked": 6,  # images with the exact divergence and a tight tolerance
    "tight": 1e-5,
}
QUICK = {"images": 8, "chunk": 8, "tolerance": 1e-1, "checked": 2, "tight": 1e-2}
LEVELS = np.arange(17) / 8 - 1
GAP = 1 / 8  # between two levels
SIZE = 64
BLUR = GAP / 4  # std of the Gaussian dequantisation
PROCESS = fd.processes.vp_linear()
RUNS = {  # name -> (dequantisation, label given)
    "gaussian, label": ("gaussian", True),
    "gaussian, no label": ("gaussian", False),
    "uniform, label": ("uniform", True),
}


def noised(images: np.ndarray, how: str, seed: int) -> np.ndarray:
    """Images with the noise of a dequantisation, float32."""
    rng = np.random.default_rng(seed)
    if how == "uniform":
        noise = rng.uniform(-GAP / 2, GAP / 2, images.shape)
    else:
        noise = BLUR * rng.standard_normal(images.shape)
    return (images + noise).astype(np.float32)


def correction(images: np.ndarray, y: np.ndarray, how: str) -> np.ndarray:
    """What joins E log p(y) to a bound on log P(x): log P(x | y) - log q(y | x), (B,).

    Uniform: P(x | y) = 1 on the bin, q = 1 / GAP. Gaussian: q(y | x) = N(x, BLUR^2) and
    P(x | y) proportional to q(y | x) over the 17 levels, so that q cancels and
    -log sum_levels N(y; level, BLUR^2) is left.
    """
    if how == "uniform":
        return np.full(len(images), SIZE * math.log(GAP))
    y = y.reshape(len(y), SIZE, 1).astype(np.float64)
    energy = -0.5 * ((y - LEVELS) / BLUR) ** 2 - math.log(BLUR * math.sqrt(2 * math.pi))
    return -logsumexp(energy, axis=-1).sum(-1)


def end_of(how: str) -> float:
    """The time at which the model's blur is that of the dequantisation."""
    if how == "uniform":
        return PROCESS.end
    return float(PROCESS.half_log_snr_inverse(-math.log(BLUR)))


def model_log_prob(y: Any, labels: Any, how: str, key: Any, **options: Any) -> Any:
    """Log p(y) of the model, with its Hutchinson error."""
    return log_likelihood(
        digits.load(),
        PROCESS,
        jnp.asarray(y),
        key=key,
        end=end_of(how),
        log_prior="normal",
        condition=jnp.asarray(labels),
        **options,
    )


def gaussians(data: Any, how: str, label: bool) -> Any:
    """Log-density of Gaussians fitted to the training digits with the same noise.

    One for all, or one mean per class with the common covariance within classes.
    """
    x = data.train_x.reshape(-1, SIZE).astype(np.float64)
    means = np.stack([x[data.train_y == k].mean(0) for k in range(10)])
    centre = means[data.train_y] if label else np.broadcast_to(x.mean(0), x.shape)
    extra = GAP**2 / 12 if how == "uniform" else BLUR**2
    cov = (x - centre).T @ (x - centre) / len(x) + extra * np.eye(SIZE)
    whole, offset = np.linalg.inv(cov), np.linalg.slogdet(2 * np.pi * cov)[1] / 2

    def log_prob(y: np.ndarray, labels: np.ndarray) -> np.ndarray:
        gap = y.reshape(-1, SIZE) - (means[labels] if label else x.mean(0))
        return -np.einsum("bi,ij,bj->b", gap, whole, gap) / 2 - offset

    return log_prob


def bits(values: np.ndarray) -> dict[str, float]:
    """Mean bits per dimension of nats log P(x), with its standard error."""
    each = np.asarray(bits_per_dim(values, (SIZE,), bins=1, low=0.0, high=1.0))
    return {
        "bits_per_dim": round(float(each.mean()), 4),
        "standard_error": round(float(each.std(ddof=1) / np.sqrt(len(each))), 4),
    }


def measure(name: str, data: DigitsData, run: runner.Run) -> dict[str, Any]:
    """One row of the table."""
    s, (how, label) = run.settings, RUNS[name]
    x, given = data.test_x[: s.images], data.test_y[: s.images]
    y = noised(data.test_x, how, seed=1)[: s.images]
    join = correction(x, y, how)
    labels = given if label else np.full(len(y), digits.NULL_LABEL, np.int32)
    keys = jax.random.split(jax.random.key(2), len(data.test_x))[: s.images]

    def chunk(at: int) -> list:
        part = slice(at, at + s.chunk)
        out = model_log_prob(
            y[part],
            labels[part],
            how=how,
            key=keys[part],
            divergence="hutchinson",
            probes=s.probes,
            rtol=s.tolerance,
            atol=s.tolerance,
        )
        rows = (out.log_prob, out.standard_error, out.evaluations)
        return [np.asarray(v, np.float64).tolist() for v in rows]

    starts = run.track(range(0, len(y), s.chunk), f"{name}, from image {{}}".format)
    found = [run.store.once(f"{name}|{at}", lambda at=at: chunk(at)) for at in starts]
    log_p, error, calls = (np.concatenate(v) for v in zip(*found, strict=True))
    base = gaussians(data, how, label)(y, given)
    return {
        "model": bits(log_p + join),
        "gaussian_fit": bits(base + join),
        "hutchinson_error_of_the_mean": round(
            float(np.sqrt((error**2).sum()) / len(y) / SIZE / math.log(2)), 5
        ),
        "evaluations_mean": round(float(calls.mean()), 1),
    }


def check(data: DigitsData, s: SimpleNamespace) -> dict[str, Any]:
    """Exact divergence at tight tolerance against the settings of the table."""
    y = noised(data.test_x, "gaussian", seed=1)[: s.checked]
    run = partial(model_log_prob, y, data.test_y[: s.checked], "gaussian")
    usual = {"rtol": s.tolerance, "atol": s.tolerance}
    tight = run(None, rtol=s.tight, atol=s.tight)
    loose = run(None, **usual)
    many = run(jax.random.key(3), divergence="hutchinson", probes=64, **usual)
    gap = np.asarray(loose.log_prob - tight.log_prob) / SIZE / math.log(2)
    z = np.asarray((many.log_prob - loose.log_prob) / many.standard_error)
    names = (f"{v:.0e}".replace("e-0", "e-") for v in (s.tolerance, s.tight))
    return {
        "images": s.checked,
        f"tolerance_{'_against_'.join(names)}_mean_bits": round(float(gap.mean()), 5),
        "largest": round(float(np.abs(gap).max()), 5),
        "hutchinson_64_probes_minus_exact_in_standard_errors": [
            round(float(v), 2) for v in z
        ],
        "evaluations": [int(v) for v in tight.evaluations],
    }


def figure(result: dict, run: runner.Run) -> Any:
    """Bars of the bounds, with two standard errors."""
    del run
    fig, ax = runner.pyplot().subplots(figsize=(7, 3.4), layout="constrained")
    rows = list(result["table"].items())
    bars = {"model": ("digits network", "C0"), "gaussian_fit": ("Gaussian fit", "0.7")}
    for shift, (who, (label, colour)) in zip((-0.2, 0.2), bars.items(), strict=True):
        place = np.arange(len(rows)) + shift
        value = [r[who]["bits_per_dim"] for _, r in rows]
        spread = [2 * r[who]["standard_error"] for _, r in rows]
        ax.barh(place, value, 0.38, xerr=spread, color=colour, label=label)
        for p, v in zip(place, value, strict=True):
            ax.text(0.05, p, f"{v:.2f}", va="center")
    ax.axvline(math.log2(17), color="k", ls=":", label="17 equally likely levels")
    count = result["images"]
    ax.set(xlabel=f"bits per dimension (upper bound), {count} held-out digits")
    ax.set_yticks(
        range(len(rows)), [n.replace("gaussian", "Gaussian") for n, _ in rows]
    )
    ax.set_ylabel("dequantisation, label")
    ax.invert_yaxis()
    fig.legend(loc="outside upper center", ncols=3, frameon=False)
    return fig


def main() -> None:
    """Measure what is missing, then write result.json and figure.png."""
    run = runner.start(__doc__, __file__, SETTINGS, QUICK, figure)
    s, began, data = run.settings, time.time(), digits_data()
    with run.held():
        table = {name: measure(name, data, run) for name in RUNS}
        run.write(
            {
                "images": s.images,
                "blur": BLUR,
                "probes": s.probes,
                "rtol": s.tolerance,
                "atol": s.tolerance,
                "table": table,
                "label_bits_per_dim": round(math.log2(10) / SIZE, 4),
                "check": run.store.once("check", lambda: check(data, s)),
                "seconds": run.clock(began),
            }
        )
    for name, row in table.items():
        print(name, row)


if __name__ == "__main__":
    main()
