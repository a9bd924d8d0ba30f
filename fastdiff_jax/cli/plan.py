"""`fastdiff plan NAME`: print a sampler's table, save it."""

from pathlib import Path
from typing import Annotated

import typer

from ..files import write_together
from . import options
from .common import (
    between,
    given,
    make_plan,
    make_process,
    refuse_overwrite,
    room_for,
    shown,
)

__all__ = ["command"]


def command(
    context: typer.Context,
    solver: Annotated[str, typer.Argument(help="See `fastdiff solvers`.")],
    order: options.ORDER = None,
    nfe: options.NFE = 10,
    grid: options.GRID = "log_snr",
    process: options.PROCESS = "vp_linear",
    eta: options.ETA = None,
    to_zero: options.TO_ZERO = False,
    digits: Annotated[int, typer.Option(help="Significant digits printed.")] = 5,
    json: Annotated[
        Path | None, options.path("Also save the table to this file.")
    ] = None,
    analyze: Annotated[
        bool,
        typer.Option("--analyze", help="Also say what it does, without a network."),
    ] = False,
    plot: Annotated[Path, options.path("Where --analyze draws its figure.")] = Path(
        "out/plan.png"
    ),
    force: options.FORCE = False,
) -> None:
    """Print a sampler: one line per network evaluation, weights newest first."""
    import fastdiff_jax as fd

    between("--digits", digits, 1, 17)
    if not analyze and given(context, ["plot"]):
        raise ValueError("--plot is drawn by --analyze only; add it, or leave it out.")
    written = [] if json is None else [json]
    if analyze:
        try:
            plot = fd.reports.plots.png_of(plot)
        except ValueError as error:
            raise ValueError(f"--plot: {error}") from error
        fd.reports.plots.pyplot()  # there, before anything is computed
        written.append(plot)
    refuse_overwrite(written, force)
    with room_for(written):
        table = make_plan(
            solver,
            process=process,
            grid=grid,
            nfe=nfe,
            order=order,
            eta=eta,
            to_zero=to_zero,
        )
        lines, parts = [fd.plan.table(table, digits)], []
        if json is not None:
            text = fd.plan.to_json(table).encode()
            parts.append((json, lambda f: f.write(text)))
            lines.append(f"saved {shown(json)}")
        if analyze:
            found = fd.analysis.report(table, make_process(process))
            figure = fd.reports.plots.draw_analysis({solver: found})
            parts.append((plot, lambda f: figure.savefig(f, format="png", dpi=150)))
            lines.append(f"\n{found}\ndrawn in {shown(plot)}")
        refuse_overwrite(written, force)  # made by others meanwhile?
        if parts:
            write_together(parts)
    typer.echo("\n".join(lines))
