"""Schedules in which every frame, block or modality has a time of its own.

Each takes a base grid of S + 1 times (any grid of this package) and returns times of
shape (M + 1, F), non-increasing per element, for `fd.plan.per_element`. An element's
progress p counts the steps it has made, 0 = the base's first time, S = its last:

    block_lagged  p[m, b] = clip(m - b lag, 0, S)
    pyramid       p[m, f] = clip(m - int(f u), 0, S)
    offset        p[m, k] = S clip(t_m - offset_k, 0, 1)
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ..guards import bounded, checked, must
from ..numerics import check_times
from ..typing import ArrayLike, Process

__all__ = ["align", "block_lagged", "known_prefix", "offset", "per_modality", "pyramid"]


@checked
def block_lagged(
    process: Process, base: ArrayLike, *, blocks: int, lag: int, frames: int = 1
) -> np.ndarray:
    """Block b starts b lag rows after block 0: p[m, b] = clip(m - b lag, 0, S).

    lag = 0 is synchronous, lag = S autoregressive: a block starts when the one before
    it is done.

    Args:
        process: the path.
        base: S + 1 decreasing times.
        blocks: number of blocks B.
        lag: rows between the starts of neighbouring blocks, 0 to S.
        frames: frames per block; they share their times.

    Returns:
        Times, shape (S + (B - 1) lag + 1, B frames).

    Raises:
        ValueError: a lag outside 0..S, or a base that is no grid.

    Example:
        >>> import fastdiff_jax as fd
        >>> flow = fd.processes.flow()
        >>> fd.grids.block_lagged(flow, [1.0, 0.5, 0.0], blocks=2, lag=1)
        array([[1. , 1. ],
               [0.5, 1. ],
               [0. , 0.5],
               [0. , 0. ]])

    Reference: SkyReels-V2 (2504.13074); AR-Diffusion (2503.07418).
    """
    base, steps = _base(process, base)
    blocks, frames = bounded("blocks", blocks, 1), bounded("frames", frames, 1)
    lag = bounded("lag", lag, 0)
    if lag > steps:
        raise ValueError(
            f"lag must lie in 0..{steps}, the steps of the base; got {lag}. "
            f"lag={steps} already makes one block after the other."
        )
    m = np.arange(steps + (blocks - 1) * lag + 1)[:, None]
    ahead = np.repeat(np.arange(blocks) * lag, frames)
    return base[np.clip(m - ahead, 0, steps)]


@checked
def pyramid(
    process: Process, base: ArrayLike, *, frames: int, uncertainty: float = 1.0
) -> np.ndarray:
    """Diffusion forcing's pyramid: p[m, f] = clip(m - int(f u), 0, S).

    Args:
        process: the path.
        base: S + 1 decreasing times.
        frames: number of frames F.
        uncertainty: u in 0..S, how many rows each frame lags behind the one before; 0
            is synchronous, S autoregressive.

    Returns:
        Times, shape (S + int((F - 1) u) + 1, F).

    Raises:
        ValueError: a u outside 0..S, or a base that is no grid.

    Example:
        >>> import fastdiff_jax as fd
        >>> flow = fd.processes.flow()
        >>> fd.grids.pyramid(flow, [1.0, 0.5, 0.0], frames=3, uncertainty=0.5)
        array([[1. , 1. , 1. ],
               [0.5, 0.5, 1. ],
               [0. , 0. , 0.5],
               [0. , 0. , 0. ]])

    Reference: Chen et al. 2024 (2407.01392).
    """
    base, steps = _base(process, base)
    frames = bounded("frames", frames, 1)
    if not 0 <= uncertainty <= steps:
        fix = "It counts rows of lag per frame; all steps make one frame at a time."
        rule = f"in 0..{steps}, the steps of the base"
        raise must("uncertainty", rule, uncertainty, fix)
    ahead = (np.arange(frames) * uncertainty).astype(int)
    m = np.arange(steps + ahead[-1] + 1)[:, None]
    return base[np.clip(m - ahead, 0, steps)]


@checked
def offset(
    process: Process,
    base: ArrayLike,
    *,
    offsets: Sequence[float] = (0.0, 0.3),
    rows: int | None = None,
) -> np.ndarray:
    """Element k is a fixed share of the way behind: p[m, k] = S clip(t_m - o_k, 0, 1).

    t_m goes evenly from 0 to 1 + max(offsets). The default is semantic-first diffusion:
    semantics at min(t, 1), texture at max(t - 0.3, 0). Between the base's points the
    time is linear.

    Args:
        process: the path.
        base: S + 1 decreasing times.
        offsets: how far behind each element is, >= 0, as a share of the way; one
            element at least has 0.
        rows: number of rows M, None for round(S (1 + max(offsets))).

    Returns:
        Times, shape (M + 1, len(offsets)).

    Raises:
        ValueError: negative offsets, none of them 0, or too few rows.

    Example:
        >>> import fastdiff_jax as fd
        >>> flow = fd.processes.flow()
        >>> fd.grids.offset(flow, [1.0, 0.5, 0.0], offsets=(0.0, 0.5))
        array([[1. , 1. ],
               [0.5, 1. ],
               [0. , 0.5],
               [0. , 0. ]])

    Reference: semantic-first diffusion (SFD).
    """
    base, steps = _base(process, base)
    behind = np.asarray(offsets, np.float64)
    if behind.ndim != 1 or not behind.size or not np.isfinite(behind).all():
        raise ValueError(f"offsets must be a list of finite numbers, got {offsets}.")
    if behind.min() != 0:
        raise ValueError(
            f"the smallest of offsets must be 0, got {behind.min():g}: all elements "
            "together start at t = 0. Subtract it."
        )
    span = 1 + behind.max()
    rows = round(steps * span) if rows is None else bounded("rows", rows, 1)
    t = np.linspace(0, span, rows + 1)[:, None]
    place = steps * np.clip(t - behind, 0, 1)
    near = np.round(place)  # the base's own points, bit for bit
    exact = np.abs(place - near) < 1e-9 * steps
    low = np.minimum(place.astype(int), steps - 1)
    share = np.where(exact, 0.0, place - low)  # a clean end may be at -inf
    step = np.where(exact, 0.0, np.diff(base)[low])
    return np.where(exact, base[near.astype(int)], base[low] + share * step)


@checked
def known_prefix(
    process: Process, ts: ArrayLike, known: int, *, time: float | None = None
) -> np.ndarray:
    """A schedule with `known` elements before it that stay at one time.

    The known values enter through x: the elements wait, so the sample holds them as
    they were. At the clean time they are the values themselves; at a later one,
    alpha(time) v + sigma(time) z, the slight noise that video models are given on their
    condition (put v back at the end).

    Args:
        process: the path.
        ts: times of the unknown elements, shape (M + 1, F).
        known: number of known elements.
        time: where they stay, None for the clean time (sigma = 0).

    Returns:
        Times, shape (M + 1, known + F).

    Raises:
        ValueError: ts of another shape, or a time outside the process' domain.

    Example:
        >>> import numpy as np, fastdiff_jax as fd
        >>> flow = fd.processes.flow()
        >>> ts = fd.grids.block_lagged(flow, [1.0, 0.5, 0.0], blocks=2, lag=1)
        >>> ts = fd.grids.known_prefix(flow, ts, 1, time=0.05)
        >>> ts[0]
        array([0.05, 1.  , 1.  ])
        >>> value, z = 2.0, np.random.default_rng(0).normal(size=3)
        >>> data = np.array([value, 0.0, 0.0])  # nothing is known of the others
        >>> x = flow.alpha(ts[0]) * data + flow.sigma(ts[0]) * z
        >>> bool(abs(x[0] - value) < 0.2)
        True
    """
    ts = np.asarray(ts, np.float64)
    if ts.ndim != 2:
        raise ValueError(
            f"ts must have shape (M + 1, F), got {ts.shape}. Align it with the state "
            "afterwards."
        )
    known = bounded("known", known, 0)
    time = process.clean if time is None else float(time)
    check_times(process, np.full(2, time), "time")
    return np.concatenate([np.full((len(ts), known), time), ts], axis=1)


@checked
def per_modality(
    process: Process, base: ArrayLike, roles: Mapping[str, str | float | ArrayLike]
) -> dict[str, np.ndarray]:
    """Times of the parts of a dict state: sampled, given, or left out.

    One model of a joint law gives them all (UniDiffuser): the joint sample has every
    part at 'sample', a conditional one the given part at 'clean', a marginal one the
    other part at 'noise'.

    Args:
        process: the path.
        base: S + 1 decreasing times.
        roles: per part, 'sample' (the base), 'clean' (known, sigma = 0), 'noise' (stays
            at the base's first time), a number (stays at that time), or times of its
            own, which end early or late where they are fewer or more.

    Returns:
        Times per part, shape (M + 1,) each, for `fd.plan.per_element`.

    Raises:
        ValueError: an unknown role, or times that do not decrease.

    Example:
        >>> import fastdiff_jax as fd
        >>> flow = fd.processes.flow()
        >>> roles = {"image": "sample", "text": "clean"}
        >>> fd.grids.per_modality(flow, [1.0, 0.5, 0.0], roles)["text"]
        array([0., 0., 0.])

    Reference: Bao et al. 2023 (2303.06555).
    """
    if not roles:
        raise must("roles", "a role for every part", roles)
    base, _ = _base(process, base)
    held = {"clean": process.clean, "noise": base[0]}
    found = {}
    for part, role in roles.items():
        if isinstance(role, str):
            if role not in ("sample", *held):
                raise ValueError(
                    f"the role of {part!r} must be 'sample', 'clean', 'noise', a time "
                    f"or times, got {role!r}."
                )
            times = base if role == "sample" else np.atleast_1d(held[role])
        else:
            times = np.atleast_1d(np.asarray(role, np.float64))
            if times.ndim != 1 or not times.size:
                raise ValueError(
                    f"roles[{part!r}] must be a time or a list of them, got shape "
                    f"{times.shape}."
                )
            check_times(process, np.append(times, times[-1:]), f"roles[{part!r}]")
        found[part] = times
    rows = max(map(len, found.values()), default=0)
    return {
        part: np.concatenate([times, np.full(rows - len(times), times[-1])])
        for part, times in found.items()
    }


@checked
def align(ts: ArrayLike, axis: int, ndim: int) -> np.ndarray:
    """Times (M + 1, F) with singleton axes, so that F is axis `axis` of the state.

    Args:
        ts: times, shape (M + 1, F).
        axis: the elements' axis in the state, whose first axis is the batch.
        ndim: number of axes of the state.

    Returns:
        Times, shape (M + 1, F, 1, ...): `axis` = 1 of (B, F, H, W, C) gives
        (M + 1, F, 1, 1, 1).

    Raises:
        ValueError: ts of another shape, or an axis that the state does not have.

    Example:
        >>> import numpy as np
        >>> align(np.ones((4, 3)), axis=1, ndim=5).shape
        (4, 3, 1, 1, 1)
    """
    ts = np.asarray(ts, np.float64)
    if ts.ndim != 2:
        raise ValueError(f"ts must have shape (M + 1, F), got {ts.shape}.")
    if not -ndim <= axis < ndim:
        raise ValueError(
            f"axis must lie in {-ndim}..{ndim - 1} for a state of {ndim} axes, got "
            f"{axis}."
        )
    return ts.reshape(ts.shape + (1,) * (ndim - 1 - axis % ndim))


def _base(process: Process, base: ArrayLike) -> tuple[np.ndarray, int]:
    """A base grid, checked, and its number of steps."""
    base = np.asarray(base, np.float64)
    if base.ndim != 1 or len(base) < 2:
        raise ValueError(
            f"base must be 1-D with at least 2 times, got shape {base.shape}. Make it "
            "with a grid, e.g. grids.log_snr(process, 8)."
        )
    check_times(process, base, "base", strict=True)
    return base, len(base) - 1
