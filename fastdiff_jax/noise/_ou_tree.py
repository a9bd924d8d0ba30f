"""Host side of the noise tree: node numbers and float64 weights of every row."""

import numpy as np

__all__ = ["Clock", "rows_of"]

_FREE = 2**31  # numbers of normals outside the tree, above every node's


class Clock:
    """T(lambda) = int tau^2: piecewise linear, going on straight outside the rows."""

    def __init__(self, lam: np.ndarray, rate: np.ndarray):
        keep = np.isfinite(lam)
        inside = np.isfinite(np.diff(lam)) if keep.any() else np.zeros(0, bool)
        self.at = lam[keep]
        steps = np.where(inside, np.diff(lam), 0.0)[keep[:-1]][: len(self.at) - 1]
        inner = rate[keep[:-1]][: len(self.at) - 1]
        # what the first finite level reads does not depend on the steps after it
        first = self.at[0] * rate[0]
        self.value = first + np.concatenate([[0.0], np.cumsum(steps * inner)])
        self.low, self.high = rate[0], rate[-1]

    def __call__(self, lam: np.ndarray) -> np.ndarray:
        found = np.interp(lam, self.at, self.value)
        below = np.minimum(lam - self.at[0], 0.0)
        above = np.maximum(lam - self.at[-1], 0.0)
        return found + self.low * below + self.high * above


def _bridge(left: np.ndarray, mid: np.ndarray, right: np.ndarray) -> tuple:
    """Weights on both neighbours and standard deviation of a point between them."""
    a, b = mid - left, right - mid
    whole = -np.expm1(-2 * (a + b))
    one, two = -np.expm1(-2 * a), -np.expm1(-2 * b)
    flat = whole == 0  # no noise on this stretch: U stands still
    safe = np.where(flat, 1.0, whole)
    lw = np.where(flat, 1.0, np.exp(-a) * two / safe)
    rw = np.where(flat, 0.0, np.exp(-b) * one / safe)
    return lw, rw, np.where(flat, 0.0, np.sqrt(one * two / safe))


def _points(lam: np.ndarray, clock: Clock, depth: int, span: float) -> tuple:
    """U at finite half log-SNRs (P,): node numbers and weights, (P, depth + 3)."""
    count = len(lam)
    nodes = np.zeros((count, depth + 3), np.uint32)
    nodes[:, 1] = 1
    low, high = np.full(count, -span), np.full(count, span)
    left, right = (np.zeros((count, depth + 3)) for _ in range(2))
    decay = np.exp(-(clock(high) - clock(low)))
    left[:, 0], right[:, 0] = 1.0, decay
    right[:, 1] = np.sqrt(-np.expm1(-2 * (clock(high) - clock(low))))
    place = np.zeros(count, np.int64)
    for level in range(depth + 1):
        last = level == depth  # the point itself, within its leaf
        mid = lam if last else (low + high) / 2
        lw, rw, std = _bridge(clock(low), clock(mid), clock(high))
        here = lw[:, None] * left + rw[:, None] * right
        here[:, level + 2] = std
        nodes[:, level + 2] = (2 << level) + place
        if last:
            return nodes, here, place
        after = lam >= mid
        left = np.where(after[:, None], here, left)
        right = np.where(after[:, None], right, here)
        low, high = np.where(after, mid, low), np.where(after, high, mid)
        place = 2 * place + after
    raise AssertionError


def rows_of(lam: np.ndarray, clock: Clock, depth: int, span: float) -> tuple:
    """Nodes and weights of every row's z, (R, K)."""
    if not 1 <= depth <= 28:
        raise ValueError(f"depth must lie in 1..28, got {depth}.")
    finite = np.isfinite(lam)
    if (np.abs(lam[finite]) > span).any():
        far = lam[finite][np.argmax(np.abs(lam[finite]))]
        raise ValueError(
            f"span must cover the plan's half log-SNRs, got {span:g} and a level at "
            f"{far:.3g}. Use span={np.ceil(abs(far)):g} for every plan of this path."
        )
    nodes, weights, leaf = _points(lam[finite], clock, depth, span)
    close = (np.diff(leaf) == 0) & (np.diff(lam[finite]) > 0)
    if close.any():
        at = int(np.flatnonzero(close)[0])
        raise ValueError(
            f"depth must tell the rows apart, got {depth}: half log-SNRs "
            f"{lam[finite][at]:.6g} and {lam[finite][at + 1]:.6g} lie in one leaf of "
            f"{2 * span / 2**depth:.2g}. Use a larger depth for every "
            "plan of this path."
        )
    return _merged(lam, clock, nodes, weights)


def _merged(
    lam: np.ndarray, clock: Clock, nodes: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows' z, (U_t - e^{-T} U_s) / sqrt(1 - e^{-2T}), on both points' nodes."""
    rows = len(lam) - 1
    index = np.cumsum(np.isfinite(lam)) - 1
    found = []
    for i in range(rows):
        start, end = np.isfinite(lam[i]), np.isfinite(lam[i + 1])
        if not end:  # sigma = 0: the weight of z is zero there, or T infinite
            found.append({_FREE + i: 1.0})
            continue
        after = dict(zip(nodes[index[i + 1]], weights[index[i + 1]], strict=True))
        if not start:  # alpha = 0: nothing is left of U_s
            found.append(after)
            continue
        gap = clock(lam[i + 1]) - clock(lam[i])
        before = dict(zip(nodes[index[i]], weights[index[i]], strict=True))
        size = np.sqrt(-np.expm1(-2 * gap))
        row = {}
        for n in {**after, **before}:
            drop = after.get(n, 0.0) - np.exp(-gap) * before.get(n, 0.0)
            row[n] = drop / size if size > 0 else 0.0
        found.append(row)
    width = max(map(len, found))
    ids, table = np.zeros((rows, width), np.uint32), np.zeros((rows, width))
    for i, row in enumerate(found):
        ids[i, : len(row)] = list(row)
        table[i, : len(row)] = list(row.values())
    return ids, table
