"""Empirical model statistics for DPM-Solver-v3: tables l, s, b over the half log-SNR.

With x = α x_0 + σ z, u = x / α, D the data prediction, J its Jacobian in x and ' the
total derivative in λ along the probability-flow ODE, per element of the event:

    l = 1 - α E[(J v) v],  v Rademacher       (= E[σ diag of the Jacobian of E])
    f = (1 - l) u - D,    f' = -(1 - l)(u - D) - l' u - D'
    s = Cov(f, f') / Var(f),    b = E f' - s E f

Zheng et al. 2023 (2310.13268), section 3.2 and appendix C. For Gaussian data N(m, v):
l = σ² / (α² v + σ²), s = 0, b = 2 m l (1 - l), and one step is exact.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..files import read_arrays, short, write_whole
from ..guards import bounded, checked, in_domain
from ..hooks import answer, carry_of
from ..trees import as_tree, pytree
from ..typing import Array, ArrayLike, Context, Denoiser, Finite, Key, Process, PyTree

__all__ = ["Statistics", "degenerated", "estimate", "from_arrays", "load", "save"]

_FORMAT = "fastdiff_jax.statistics/1"
_RUN = "fastdiff_jax.statistics.run/1"


@pytree
class Statistics:
    """Tables on M + 1 evenly spaced half log-SNR nodes.

    Attributes:
        low, high: half log-SNR of the first (noisiest) and the last node.
        l, s, b: (M + 1, *event).
    """

    low: float
    high: float
    l: Any  # noqa: E741 (the paper's name)
    s: Any
    b: Any

    @property
    def nodes(self) -> np.ndarray:
        """Half log-SNR of the nodes, (M + 1,)."""
        return np.linspace(self.low, self.high, np.shape(self.l)[0])


@checked
def from_arrays(
    low: float,
    high: float,
    l: ArrayLike,  # noqa: E741
    s: ArrayLike,
    b: ArrayLike,
) -> Statistics:
    """Statistics from given tables, checked.

    Args:
        low, high: half log-SNR of the first and the last row.
        l, s, b: tables of one shape (M + 1, *event), M >= 1.

    Raises:
        ValueError: low >= high, shapes that differ, or entries that are not finite.
    """
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(f"statistics need finite low < high, got {low=}, {high=}.")
    tables = {
        k: np.asarray(v, np.float64) for k, v in zip("lsb", (l, s, b), strict=True)
    }
    shapes = {v.shape for v in tables.values()}
    shape = tables["l"].shape
    if len(shapes) > 1 or not shape or shape[0] < 2:
        raise ValueError(
            "l, s and b must have one shape (nodes >= 2, ...), got "
            f"{[v.shape for v in tables.values()]}."
        )
    for name, table in tables.items():
        if not np.isfinite(table).all():
            at = tuple(int(i) for i in np.argwhere(~np.isfinite(table))[0])
            raise ValueError(f"{name} must be finite, got {table[at]} at {at}.")
    return Statistics(float(low), float(high), **tables)


def _range(
    process: Process, start: float | None, end: float | None
) -> tuple[float, float]:
    in_domain(process, start=start, end=end)
    start = process.start if start is None else start
    end = process.end if end is None else end
    with np.errstate(divide="ignore"):
        low, high = (float(process.half_log_snr(t)) for t in (start, end))
    if not (np.isfinite([low, high]).all() and low < high):
        raise ValueError(
            f"half log-SNR must rise from start={start} to end={end} and be finite, "
            f"got {low} to {high}. Step off the exact ends, e.g. start=0.999."
        )
    return low, high


@checked
def degenerated(
    process: Process,
    *,
    nodes: int = 120,
    start: float | None = None,
    end: float | None = None,
) -> Statistics:
    """Tables l = 1, s = b = 0: DPM-Solver-v3 becomes exact exponential Adams on D.

    Args:
        process: the path.
        nodes: M, the number of intervals.
        start, end: times the table reaches, None for the process' own.

    Raises:
        ValueError: a range with infinite half log-SNR.

    Example:
        >>> import fastdiff_jax as fd
        >>> degenerated(fd.processes.vp_linear(), nodes=10).l.shape
        (11,)
    """
    low, high = _range(process, start, end)
    zero = np.zeros(bounded("nodes", nodes, 1) + 1)
    return from_arrays(low, high, zero + 1, zero, zero)


# ------------------------------------------------------------------------------- files


def _write(path: str | os.PathLike[str], **arrays: Any) -> None:
    """An npz file that appears whole or not at all."""
    write_whole(path, lambda file: np.savez(file, **arrays))


def _read(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    found = read_arrays(path)
    if str(found.pop("format", "")) != kind:
        raise ValueError(f"{path} does not hold {kind!r}.")
    return found


@checked
def save(statistics: Statistics, path: str | os.PathLike[str]) -> None:
    """Write statistics to an npz file; the file appears whole or not at all."""
    fields = {k: getattr(statistics, k) for k in ("low", "high", "l", "s", "b")}
    _write(path, format=_FORMAT, **fields)


@checked
def load(path: str | os.PathLike[str]) -> Statistics:
    """Read statistics from an npz file.

    Raises:
        ValueError: the file is damaged, holds something else, or more than 4 GiB.
        OSError: it cannot be opened.
    """
    found = _read(path, _FORMAT)
    if set(found) != {"low", "high", "l", "s", "b"}:
        raise ValueError(f"{path} is damaged: it holds {short(sorted(found))}.")
    ends = {k: found[k] for k in ("low", "high")}
    numbers = all(v.dtype.kind == "f" for v in found.values())
    if not numbers or any(v.shape for v in ends.values()):
        kinds = {k: f"{v.dtype}{list(v.shape)}" for k, v in found.items()}
        raise ValueError(
            f"{path} is damaged: low and high must be numbers and l, s, b floating "
            f"tables, got {short(kinds)}."
        )
    try:
        return from_arrays(**{k: v[()] for k, v in found.items()})
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


# -------------------------------------------------------------------------- estimation


@checked
def estimate(
    denoiser: Denoiser,
    process: Process,
    data: Finite,
    *,
    key: Key,
    nodes: int = 120,
    batch: int = 256,
    start: float | None = None,
    end: float | None = None,
    smooth: int | None = None,
    controls: PyTree = None,
    path: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Statistics:
    """Estimate a denoiser's tables on data, with forward-mode derivatives.

    Two passes over the data: l, then s and b given l and its slope. All nodes see the
    same noise for a sample, so the tables vary smoothly over nodes. A pass costs one
    forward derivative per sample and node. The statistics are those of the denoiser
    with whatever guides it: one table per guidance scale.

    Args:
        denoiser: (x, context, carry) -> (data prediction, carry).
        process: the path, with `rates`.
        data: clean samples, (K, *event); the paper takes K = 1024 to 4096.
        key: noise of sample i at either pass is a function of (key, i): the result
            depends on the batch size by rounding only.
        nodes: M, intervals of the table.
        batch: samples per call.
        start, end: times the table reaches, None for the process' own.
        smooth: nodes to each side in the moving mean of l', None for the published
            width (5 at M = 1200, none below M = 240).
        controls: what every evaluation's context holds as `controls`.
        path: file of the unfinished run, replaced after every batch. If it is there, a
            run with the same arguments continues it.
        progress: called as (batches done, batches) over both passes.

    Returns:
        Statistics of shape (M + 1, *event), float64.

    Raises:
        ValueError: no data, an infinite range, or a `path` of another run.

    Example:
        >>> import jax, fastdiff_jax as fd
        >>> data = jax.random.normal(jax.random.key(0), (64, 3))
        >>> model, process = fd.models.gaussian(), fd.processes.vp_linear()
        >>> key = jax.random.key(1)
        >>> fd.tune.ems.estimate(model, process, data, key=key, nodes=10).l.shape
        (11, 3)
    """
    data = np.asarray(data)
    if data.ndim < 1 or len(data) < 2 or data.dtype.kind != "f":
        raise ValueError(
            "data must be at least 2 clean samples, a floating array (K, ...), got "
            f"{data.dtype} of shape {data.shape}."
        )
    nodes, batch = bounded("nodes", nodes, 2), bounded("batch", batch, 1)
    low, high = _range(process, start, end)
    lam, count = np.linspace(low, high, nodes + 1), -(-len(data) // batch)
    width = nodes * 5 // 1200 if smooth is None else smooth  # the published one
    smooth = bounded("smooth", width, 0)
    run = _Run(denoiser, process, data, lam, key, batch, controls)
    state = _resume(path, run.fingerprint(smooth), nodes + 1, data.shape[1:])
    for unit in range(int(state["done"]), 2 * count):
        if unit < count:
            _add_mean(state, *run.slope(unit))
        else:
            rate = -_slope_over_nodes(state["gain"], lam, smooth)
            _add_moments(state, *run.moments(unit - count, state["gain"], rate))
        state["done"] = unit + 1
        if path is not None:
            _write(path, format=_RUN, **state)
        if progress is not None:
            progress(unit + 1, 2 * count)
    resolved = state["var"] > state["floor"]  # else f is constant but for rounding
    s = np.where(resolved, state["cov"] / np.where(resolved, state["var"], 1), 0.0)
    return from_arrays(low, high, 1 - state["gain"], s, state["df"] - s * state["f"])


def _resume(path: Any, mark: str, rows: int, event: tuple) -> dict[str, Any]:
    """The state of an unfinished run, or a fresh one."""
    names = ("gain", "f", "df", "var", "cov", "floor")
    state: dict[str, Any] = {k: np.zeros((rows, *event)) for k in names}
    state |= {"done": 0, "seen": 0, "counted": 0, "mark": mark}
    if path is None or not Path(path).exists():
        return state
    found = _read(path, _RUN)
    if set(found) != set(state) or str(found["mark"]) != mark:
        raise ValueError(
            f"{path} belongs to a run with other data, arguments or weights. Remove "
            "it, or give another path."
        )
    for name, fresh in state.items():
        array, like = found[name], np.asarray(fresh)
        counts = like.dtype.kind == "i" and (array < 0).any()
        broken = array.dtype.kind == "f" and not np.isfinite(array).all()
        same = (array.dtype.kind, array.shape) == (like.dtype.kind, like.shape)
        if not same or counts or broken:
            raise ValueError(
                f"{path} is damaged: {name} is {array.dtype} of shape {array.shape}, "
                "negative or not finite. Remove it, and the run begins anew."
            )
    return {k: found[k] for k in state}


def _add_mean(state: dict[str, Any], size: int, gain: np.ndarray) -> None:
    """1 - l, which has the better relative accuracy at the noise end."""
    state["seen"] = state["seen"] + size
    state["gain"] = state["gain"] + (gain - state["gain"]) * size / state["seen"]


def _add_moments(state: dict[str, Any], size: int, part: dict[str, np.ndarray]) -> None:
    """Pooled means, variance and covariance of two sets of samples."""
    total = state["counted"] + size
    new, old = size / total, state["counted"] / total
    gap_f, gap_df = part["f"] - state["f"], part["df"] - state["df"]
    state["f"] = state["f"] + new * gap_f
    state["df"] = state["df"] + new * gap_df
    between = {"var": gap_f * gap_f, "cov": gap_f * gap_df, "floor": 0.0}
    for name, extra in between.items():
        state[name] = old * state[name] + new * part[name] + old * new * extra
    state["counted"] = total


# ------------------------------------------------- all nodes for one batch of data


def _slope_over_nodes(table: np.ndarray, lam: np.ndarray, smooth: int) -> np.ndarray:
    """Slope over nodes: central differences, then a mean over +- `smooth` nodes."""
    slope = np.gradient(table, lam, axis=0, edge_order=2)
    n = len(lam)
    total = np.concatenate([np.zeros_like(slope[:1]), np.cumsum(slope, axis=0)])
    first = np.maximum(np.arange(n) - smooth, 0)
    last = np.minimum(np.arange(n) + smooth + 1, n)
    width = (last - first).reshape((-1,) + (1,) * (table.ndim - 1))
    return (total[last] - total[first]) / width


class _Run:
    """The compiled inner work: all nodes for one batch of data."""

    def __init__(
        self,
        denoiser: Denoiser,
        process: Process,
        data: np.ndarray,
        lam: np.ndarray,
        key: Key,
        batch: int,
        controls: PyTree,
    ):
        self.denoiser, self.data, self.lam = as_tree(denoiser), data, lam
        self.key, self.batch, self.controls = key, batch, controls
        dtype = np.promote_types(data.dtype, np.float32)
        self.dtype = jax.dtypes.canonicalize_dtype(dtype)
        time = process.half_log_snr_inverse(lam)
        alpha, sigma = process.alpha(time), process.sigma(time)
        d_alpha, d_sigma = process.rates(time)
        clock = 1 / (d_alpha / alpha - d_sigma / sigma)  # dt / d lambda
        rates = (clock, d_alpha * clock, d_sigma * clock)
        self.levels = tuple(
            jnp.asarray(np.stack(v, axis=1), self.dtype)
            for v in ((time, alpha, sigma), rates)
        )
        self.compiled = jax.jit(self._slope), jax.jit(self._moments)

    def fingerprint(self, smooth: int) -> str:
        """What a file of an unfinished run must agree on."""
        digest = hashlib.sha256()
        leaves = jax.tree.leaves((self.denoiser, self.controls))
        for leaf in (self.data, self.lam, jax.random.key_data(self.key), *leaves):
            kind = getattr(leaf, "dtype", np.float64)
            keyed = jnp.issubdtype(kind, jax.dtypes.prng_key)
            array = np.asarray(jax.random.key_data(leaf) if keyed else leaf)
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return f"{digest.hexdigest()} batch={self.batch} smooth={smooth}"

    def slope(self, number: int) -> tuple[int, np.ndarray]:
        """(samples, mean of 1 - l over them)."""
        size, arguments = self._batch(number)
        return size, np.asarray(self.compiled[0](*arguments), np.float64)

    def moments(
        self, number: int, gain: np.ndarray, rate: np.ndarray
    ) -> tuple[int, dict[str, np.ndarray]]:
        """(samples, moments of f and f' over them)."""
        size, arguments = self._batch(number)
        tables = (jnp.asarray(gain, self.dtype), jnp.asarray(rate, self.dtype))
        found = self.compiled[1](*arguments, *tables)
        return size, {k: np.asarray(v, np.float64) for k, v in found.items()}

    def _batch(self, number: int) -> tuple[int, tuple]:
        """(samples, (denoiser, samples, their numbers, their weights)).

        The last batch is filled up with weight 0, so that one program serves all.
        """
        count = len(self.data)
        index = np.arange(number * self.batch, (number + 1) * self.batch)
        size = int((index < count).sum())
        weight = jnp.asarray((index < count) / size, self.dtype)
        index = np.minimum(index, count - 1)
        x0 = jnp.asarray(self.data[index], self.dtype)
        return size, (self.denoiser, x0, index, weight)

    def _noise(self, index: Array, x0: Array) -> tuple[Array, Array]:
        """Standard normal z and random signs v, one stream per sample."""

        def draw(i: Array) -> tuple[Array, Array]:
            z_key, v_key = jax.random.split(jax.random.fold_in(self.key, i))
            shape = x0.shape[1:]
            signs = jax.random.rademacher(v_key, shape, self.dtype)
            return jax.random.normal(z_key, shape, self.dtype), signs

        return jax.vmap(draw)(index)

    def _predict(self, denoiser: Any, x: Array, level: Array) -> Array:
        context = Context(jnp.int32(0), level[0], level[1], level[2], self.controls)
        found, _ = answer(denoiser, x, context, carry_of(denoiser, x))
        return found.astype(x.dtype)

    def _slope(self, denoiser: Any, x0: Array, index: Array, weight: Array) -> Array:
        z, v = self._noise(index, x0)

        def node(level: Array) -> Array:
            x = level[1] * x0 + level[2] * z
            predict = lambda x: self._predict(denoiser, x, level)  # noqa: E731
            _, tangent = jax.jvp(predict, (x,), (v,))
            return level[1] * jnp.tensordot(weight, tangent * v, 1)

        return jax.lax.map(node, self.levels[0])

    def _moments(
        self,
        denoiser: Any,
        x0: Array,
        index: Array,
        weight: Array,
        gain: Array,
        rate: Array,
    ) -> dict[str, Array]:
        z, _ = self._noise(index, x0)
        mean = lambda value: jnp.tensordot(weight, value, 1)  # noqa: E731

        def node(each: tuple[Array, Array, Array, Array]) -> dict[str, Array]:
            level, d_level, gain, rate = *each[:2], each[2][None], each[3][None]
            alpha, sigma = level[1], level[2]
            x = alpha * x0 + sigma * z
            found, derivative = jax.linearize(
                lambda x, level: self._predict(denoiser, x, level), x, level
            )
            u = x / alpha
            flow = found - u  # du / d lambda
            d_found = derivative(d_level[1] * u + alpha * flow, d_level)
            f = gain * u - found
            df = gain * flow - rate * u - d_found
            mean_f, mean_df = mean(f), mean(df)
            return {
                "f": mean_f,
                "df": mean_df,
                "var": mean((f - mean_f[None]) ** 2),
                "cov": mean((f - mean_f[None]) * (df - mean_df[None])),
                # what rounding alone would leave of the variance
                "floor": mean(found**2 + (gain * u) ** 2)
                * (64 * jnp.finfo(self.dtype).eps) ** 2,
            }

        return jax.lax.map(node, (*self.levels, gain, rate))
