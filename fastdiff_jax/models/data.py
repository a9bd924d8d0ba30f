"""Data sets used by the embedded models and the examples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SPLIT_SEED = 0
N_TEST = 500


class DigitsData(NamedTuple):
    """The UCI digits, scaled to [-1, 1], as a train and a held-out part.

    Attributes:
        train_x: Training images, float32, shape ``(1297, 8, 8, 1)``.
        train_y: Training labels, int32, shape ``(1297,)``.
        test_x: Held-out images, float32, shape ``(500, 8, 8, 1)``.
        test_y: Held-out labels, int32, shape ``(500,)``.
    """

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def digits_data() -> DigitsData:
    """Load the 1797 UCI digits: pixel / 8 - 1, fixed stratified split.

    Returns:
        The 1297 training and 500 held-out images with their labels.

    Raises:
        ImportError: If scikit-learn, which ships the images, is missing.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as err:
        raise ImportError(
            "digits_data() needs scikit-learn; install it with"
            ' `pip install "fastdiff-jax[data]"`'
        ) from err
    images, labels = load_digits(return_X_y=True)
    x = (images / 8.0 - 1.0).astype(np.float32).reshape(-1, 8, 8, 1)
    y = labels.astype(np.int32)
    train, test = _stratified_split(y, N_TEST, SPLIT_SEED)
    return DigitsData(x[train], y[train], x[test], y[test])


def _stratified_split(
    labels: np.ndarray, n_test: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split indices so that every class keeps its share of the data.

    The ``n_test`` places go to the classes by largest remainder; within a class
    the choice is random.
    """
    # RandomState's stream is frozen by NumPy's policy, Generator's is not: the
    # split must never move, or held-out images would leak into training.
    rng = np.random.RandomState(seed)
    classes, counts = np.unique(labels, return_counts=True)
    share = counts * n_test / labels.size
    quota = np.floor(share).astype(int)
    by_remainder = np.argsort(quota - share, kind="stable")
    quota[by_remainder[: n_test - quota.sum()]] += 1
    train, test = [], []
    for label, n in zip(classes, quota, strict=True):
        members = rng.permutation(np.flatnonzero(labels == label))
        test.append(members[:n])
        train.append(members[n:])
    return (
        rng.permutation(np.concatenate(train)),
        rng.permutation(np.concatenate(test)),
    )
