"""The targets: the embedded digits network with guidance, and a patch mixture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from runner import Run

import fastdiff_jax as fd
from fastdiff_jax.models import digits
from fastdiff_jax.models.data import digits_data

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
    if hasattr(inner, "inner"):
        return dataclasses.replace(inner, inner=_relabel(inner.inner, labels))
    return dataclasses.replace(inner, labels=labels)


def patches_case(s: dict[str, Any], run: Run) -> Case:
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

    def fit() -> dict[str, np.ndarray]:
        made = GaussianMixture(
            s["components"], reg_covar=1e-4, random_state=s["seed"], max_iter=60
        ).fit(data)
        return {"w": made.weights_, "m": made.means_, "c": made.covariances_}

    kept = run.arrays("mixture", fit)
    model = fd.models.gaussian_mixture(
        kept["w"], kept["m"], covariances=(kept["c"] + kept["c"].mT) / 2
    )
    noise = fd.prior(PROCESS, jax.random.key(s["seed"] + 1), (s["noises"], 64))
    spread = float(data.var(1).mean())
    some = data[: max(s["v3_data"], 100)].astype(np.float32)
    return Case(model, noise, model, lambda inner, _: inner, None, some, spread)
