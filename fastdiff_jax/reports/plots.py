"""Figures. matplotlib is imported when a figure is drawn, never before."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..analysis import Report
from ..files import folder_of, write_whole
from ..guards import checked, must

__all__ = ["draw_analysis", "plot_analysis", "png_of", "pyplot", "save"]

_SHOWN = 6  # weight columns per plan; more are unreadable
_COLOURS = (  # Okabe and Ito's palette: told apart by every eye
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
_LEVELS = ("t", "alpha", "sigma")
_DIP = 1e-2  # of a curve's median: where an error changes sign, not worth the axis
_LEGEND = (
    "Weights by row   x: the step's start,  m0: this evaluation,  m1, m2, ...: stored "
    "ones,  z: noise,  p: of the next point"
)


def pyplot() -> Any:
    """matplotlib.pyplot on the Agg backend, which needs no display.

    Raises:
        ModuleNotFoundError: matplotlib is not installed, with what to do.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ModuleNotFoundError(
            f"figures need matplotlib, which cannot be imported ({error}). "
            'Run: pip install "fastdiff-jax[cli]"'
        ) from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def save(figure: Any, path: str | os.PathLike) -> Path:
    """Write a figure as PNG: the whole file appears at once, or none of it.

    Args:
        figure: a matplotlib figure; it is closed.
        path: where; a missing suffix becomes .png, missing folders are made.

    Raises:
        ValueError: an empty path, a suffix other than .png, or no regular file.
    """
    try:
        target = png_of(path)
        folder_of(target)
        write_whole(target, lambda file: figure.savefig(file, format="png", dpi=150))
    finally:
        pyplot().close(figure)
    return target


def png_of(path: str | os.PathLike[str]) -> Path:
    """The path with the suffix .png, which a path without one gets.

    Raises:
        ValueError: no name, or another suffix.
    """
    target = Path(path)
    if target.name and not target.suffix:
        target = target.with_suffix(".png")
    if target.suffix.lower() != ".png":
        raise ValueError(f"path must end in .png, got {str(path)!r}.")
    return target


@checked
def plot_analysis(reports: Mapping[str, Report], path: str | os.PathLike[str]) -> Path:
    """Compare plans: error and gain over the data's variance, model error, weights.

    Args:
        reports: name -> `analysis.report(...)`, one to seven.
        path: of the PNG.

    Returns:
        The path written.

    Raises:
        ValueError: no reports, more than seven, or a path that `save` refuses.
        ModuleNotFoundError: matplotlib is not installed.
    """
    png_of(path)
    return save(draw_analysis(reports), path)


def draw_analysis(reports: Mapping[str, Report]) -> Any:
    """The figure of `plot_analysis`, for `save`."""
    if not 1 <= len(reports) <= len(_COLOURS):
        raise must("reports", f"1 to {len(_COLOURS)} of them", reports)
    plt = pyplot()
    count = len(reports)
    columns = min(count, 3)
    bottom = -(-count // columns)
    figure = plt.figure(
        figsize=(13.5, 4.2 + 2.9 * bottom), layout="constrained", facecolor="white"
    )
    top, below = figure.subfigures(2, 1, height_ratios=(4.0, 2.9 * bottom))
    for draw, axis in zip(
        (_error, _spread, _amplification), top.subplots(1, 3), strict=True
    ):
        for colour, (name, report) in zip(_COLOURS, reports.items(), strict=False):
            draw(axis, report, color=colour, label=name)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8, frameon=False)
    below.suptitle(_LEGEND, fontsize=9)
    grid = below.subplots(bottom, columns, squeeze=False).ravel()
    for axis, (name, report) in zip(grid, reports.items(), strict=False):
        _weights(axis, name, report)
    for axis in grid[count:]:
        axis.set_visible(False)
    return figure


def _error(axis: Any, report: Report, **style: Any) -> None:
    """Relative distance of the samples' law, per data variance."""
    found = report.discretisation
    error = found.distance / np.sqrt(found.target_variance)
    least = max(_DIP * float(np.median(error)), 1e-16)
    axis.loglog(report.variance, np.maximum(error, least), **style)
    axis.set_xlabel("data variance v")
    axis.set_ylabel("W2 / target standard deviation")
    axis.set_title("Solver error on Gaussian data", fontsize=10)


def _spread(axis: Any, report: Report, **style: Any) -> None:
    """Standard deviation of the samples over the target's."""
    found = report.discretisation
    ratio = np.sqrt(found.variance / found.target_variance)
    axis.semilogx(report.variance, ratio, **style)
    if not axis.lines[1:]:
        axis.axhline(1.0, color="0.6", lw=0.8, zorder=0)
    axis.set_xlabel("data variance v")
    axis.set_ylabel("sample std / target std")
    axis.set_title("Gain on the data's spread", fontsize=10)


def _amplification(axis: Any, report: Report, **style: Any) -> None:
    """Gain from each row's model error, over the run."""
    gain = np.abs(report.error_gain)
    done = (np.arange(len(gain)) + 0.5) / len(gain)
    style["label"] = f"{style['label']} (total {report.error_total:.2g})"
    shown = np.where(gain > 0, gain, np.nan)
    axis.semilogy(done, shown, marker="o", ms=3, lw=1, **style)
    axis.set_xlabel("evaluations done / all (0 = noise, 1 = data)")
    axis.set_ylabel("|sample change| per unit error")
    axis.set_title("Amplification of model error", fontsize=10)


def _weights(axis: Any, name: str, report: Report) -> None:
    """The largest weight columns of one plan, row by row."""
    columns = {k: v for k, v in report.columns.items() if k not in _LEVELS}
    largest = sorted(columns, key=lambda k: -np.abs(columns[k]).max())[:_SHOWN]
    rows = np.arange(len(next(iter(report.columns.values()))))
    for colour, key in zip(
        _COLOURS, [k for k in columns if k in largest], strict=False
    ):
        axis.plot(rows, columns[key], marker="o", ms=3, lw=1, color=colour, label=key)
    axis.axhline(0.0, color="0.6", lw=0.8, zorder=0)
    size = max((np.abs(columns[k]).max() for k in largest), default=1.0)
    if size > 20:  # velocity weights of the last rows dwarf the rest
        axis.set_yscale("symlog", linthresh=1.0)
    left = len(columns) - len(largest)
    more = f", {left} smaller columns left out" if left else ""
    axis.set_title(f"{name}: weights, {report.nfe} evaluations{more}", fontsize=10)
    axis.set_xlabel("row")
    axis.set_ylabel("weight")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    if columns:
        axis.legend(fontsize=8, frameon=False, ncols=3)
