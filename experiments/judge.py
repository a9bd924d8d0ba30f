"""How near samples are to real digits, and whether they show the requested ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastdiff_jax.models.data import DigitsData


def sliced_wasserstein(a: np.ndarray, b: np.ndarray, projections: int = 512) -> float:
    """sqrt(mean_p W2(p . a, p . b)^2) over random unit p, sets of equal size."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    p = np.random.RandomState(0).standard_normal((a.shape[1], projections))
    p /= np.linalg.norm(p, axis=0)
    gap = np.sort(a @ p, axis=0) - np.sort(b @ p, axis=0)
    return float(np.sqrt(np.mean(gap**2)))


class Classifier:
    """A support vector machine trained on the real digits."""

    def __init__(self, data: DigitsData) -> None:
        from sklearn.svm import SVC

        self.svc: Any = SVC(gamma=0.001).fit(_pixels(data.train_x), data.train_y)

    def agreement(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Share of images, values in [-1, 1], that it gives their label."""
        return float(self.svc.score(_pixels(images), labels))


def _pixels(images: np.ndarray) -> np.ndarray:
    """The levels 0 to 16 of the data set, flat; what diverged stays finite."""
    flat = (np.asarray(images).reshape(len(images), -1) + 1.0) * 8.0
    return np.clip(np.nan_to_num(flat, posinf=1e6, neginf=-1e6), -1e6, 1e6)
