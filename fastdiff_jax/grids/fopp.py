"""FoPP: noise levels per frame for training an asynchronous video model."""

import numpy as np

from ..guards import bounded, checked

__all__ = ["fopp"]


@checked
def fopp(
    rng: np.random.Generator,
    levels: int,
    frames: int,
    samples: int,
    *,
    pivot: bool = True,
) -> np.ndarray:
    """Noise levels for training: uniform non-decreasing sequences over the frames.

    Counts N[k, a] = sum_{b >= a} N[k - 1, b] of the sequences of k more frames that
    start at level a or above give each next level its probability.

    Args:
        rng: NumPy's generator.
        levels: number of noise levels T; a level is 0 .. T - 1, 0 the cleanest.
        frames: number of frames F.
        samples: how many sequences.
        pivot: first draw one frame and its level, both uniformly, and then the rest
            given it, as published: every level is trained equally often in the frames
            taken together. False: uniform over all sequences, which favours the
            extreme levels in the outer frames.

    Returns:
        Levels, shape (samples, frames), integers, non-decreasing along the frames.

    Raises:
        ValueError: a number that is not whole and positive.

    Example:
        >>> import numpy as np
        >>> found = fopp(np.random.default_rng(0), levels=10, frames=4, samples=100)
        >>> found.shape, bool((np.diff(found, axis=1) >= 0).all())
        ((100, 4), True)

    Reference: Sun et al. 2025 (2503.07418).
    """
    levels, frames = bounded("levels", levels, 1), bounded("frames", frames, 1)
    samples = bounded("samples", samples, 1)
    log_counts = _log_counts(levels, frames)
    found = np.zeros((samples, frames), np.int64)
    at = rng.integers(frames, size=samples) if pivot else np.zeros(samples, int)
    if pivot:
        found[np.arange(samples), at] = rng.integers(levels, size=samples)
    for f in range(frames):  # upwards from the pivot
        draw = at < f if pivot else np.ones(samples, bool)
        low = found[draw, f - 1] if f else np.zeros(draw.sum(), int)
        found[draw, f] = _next(rng, log_counts[frames - 1 - f], low)
    for f in reversed(range(frames - 1)):  # downwards: the same, mirrored
        draw = (at > f) & pivot
        low = levels - 1 - found[draw, f + 1]
        found[draw, f] = levels - 1 - _next(rng, log_counts[f], low)
    return found


def _log_counts(levels: int, frames: int) -> np.ndarray:
    """Log of the number of sequences of k more frames from level a on, (F, T)."""
    counts = [np.zeros(levels)]
    for _ in range(frames - 1):
        counts.append(np.logaddexp.accumulate(counts[-1][::-1])[::-1])
    return np.stack(counts)


def _next(
    rng: np.random.Generator, log_count: np.ndarray, low: np.ndarray
) -> np.ndarray:
    """A level >= low per sample, in proportion to the counts (Gumbel's maximum)."""
    noise = rng.gumbel(size=(len(low), len(log_count)))
    allowed = np.arange(len(log_count)) >= low[:, None]
    return np.argmax(np.where(allowed, log_count + noise, -np.inf), axis=1)
