"""Bits per dimension of the held-out digits under the embedded model.

Bounds from above on -log2 P(x) / 64 of the 17-level images, and the same bounds for
Gaussians fitted to the training digits. A killed run continues.

    python experiments/likelihood/run.py
"""

from __future__ import annotations

import json
import math
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import Progress
from scipy.special import logsumexp

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import fastdiff_jax as fd  # noqa: E402
from fastdiff_jax.continuous import bits_per_dim, log_likelihood  # noqa: E402
from fastdiff_jax.models import digits  # noqa: E402
from fastdiff_jax.models.data import digits_data  # noqa: E402

HERE = Path(__file__).resolve().parent
LEVELS = np.arange(17) / 8 - 1
GAP = 1 / 8  # between two levels
SIZE = 64
BLUR = GAP / 4  # std of the Gaussian dequantisation
CHUNK = 50
PROBES = 2
TOLERANCE = {"rtol": 1e-3, "atol": 1e-3}
CHECKED = 6  # images with the exact divergence and a tight tolerance
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


def measure(name: str, data: Any, store: Any, tick: Any) -> dict[str, Any]:
    """One row of the table."""
    how, label = RUNS[name]
    y = noised(data.test_x, how, seed=1)
    join = correction(data.test_x, y, how)
    labels = data.test_y if label else np.full(len(y), digits.NULL_LABEL, np.int32)
    keys = jax.random.split(jax.random.key(2), len(y))
    run = partial(model_log_prob, how=how)
    found = store.setdefault(name, [])
    for at in range(len(found) * CHUNK, len(y), CHUNK):
        part = slice(at, at + CHUNK)
        out = run(
            y[part],
            labels[part],
            key=keys[part],
            divergence="hutchinson",
            probes=PROBES,
            **TOLERANCE,
        )
        rows = (out.log_prob, out.standard_error, out.evaluations)
        found.append([np.asarray(v, np.float64).tolist() for v in rows])
        tick()
    log_p, error, calls = (np.concatenate(v) for v in zip(*found, strict=True))
    base = gaussians(data, how, label)(y, data.test_y)
    return {
        "model": bits(log_p + join),
        "gaussian_fit": bits(base + join),
        "hutchinson_error_of_the_mean": round(
            float(np.sqrt((error**2).sum()) / len(y) / SIZE / math.log(2)), 5
        ),
        "evaluations_mean": round(float(calls.mean()), 1),
    }


def check(data: Any) -> dict[str, float]:
    """Exact divergence at tight tolerance against the settings of the table."""
    y = noised(data.test_x, "gaussian", seed=1)[:CHECKED]
    run = partial(model_log_prob, y, data.test_y[:CHECKED], "gaussian")
    tight = run(None, rtol=1e-5, atol=1e-5)
    loose = run(None, **TOLERANCE)
    many = run(jax.random.key(3), divergence="hutchinson", probes=64, **TOLERANCE)
    gap = np.asarray(loose.log_prob - tight.log_prob) / SIZE / math.log(2)
    z = np.asarray((many.log_prob - loose.log_prob) / many.standard_error)
    return {
        "images": CHECKED,
        "tolerance_1e-3_against_1e-5_mean_bits": round(float(gap.mean()), 5),
        "largest": round(float(np.abs(gap).max()), 5),
        "hutchinson_64_probes_minus_exact_in_standard_errors": [
            round(float(v), 2) for v in z
        ],
        "evaluations": [int(v) for v in tight.evaluations],
    }


def figure(result: dict, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(6.4, 3))
    rows = list(result["table"].items())
    for shift, who, colour in ((-0.2, "model", "C0"), (0.2, "gaussian_fit", "0.6")):
        place = np.arange(len(rows)) + shift
        value = [r[who]["bits_per_dim"] for _, r in rows]
        spread = [2 * r[who]["standard_error"] for _, r in rows]
        ax.barh(place, value, 0.38, xerr=spread, color=colour, label=who)
        for p, v in zip(place, value, strict=True):
            ax.text(0.05, p, f"{v:.2f}", va="center")
    ax.axvline(math.log2(17), color="k", ls=":", label="17 equal levels")
    ax.set(xlabel="bits per dimension (upper bound), 500 held-out digits")
    ax.set_yticks(range(len(rows)), [n for n, _ in rows])
    ax.invert_yaxis()
    ax.legend(fontsize=8)
    fig.tight_layout()
    fig.savefig(path, dpi=130)


def main() -> None:
    begun, data = time.time(), digits_data()
    path = HERE / "out" / "rows.json"
    path.parent.mkdir(exist_ok=True)
    store = json.loads(path.read_text()) if path.exists() else {}
    chunks = -(-len(data.test_x) // CHUNK)
    with Progress() as progress:
        task = progress.add_task("digits", total=len(RUNS) * chunks)
        progress.advance(task, sum(len(v) for k, v in store.items() if k in RUNS))

        def tick() -> None:
            path.write_text(json.dumps(store))
            progress.advance(task)

        table = {name: measure(name, data, store, tick) for name in RUNS}
    if "check" not in store:
        store["check"] = check(data)
        path.write_text(json.dumps(store))
    store["seconds"] = store.get("seconds", 0.0) + time.time() - begun
    path.write_text(json.dumps(store))
    result = {
        "images": len(data.test_x),
        "blur": BLUR,
        "probes": PROBES,
        **TOLERANCE,
        "table": table,
        "label_bits_per_dim": round(math.log2(10) / SIZE, 4),
        "check": store["check"],
        "seconds": round(store["seconds"], 1),
    }
    (HERE / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    figure(result, HERE / "figure.png")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
