"""`fastdiff plan NAME`: print a sampler's table, save it."""

from pathlib import Path
from typing import Annotated

import typer

from ..files import write_whole
from .common import make_plan, make_process, refuse_overwrite

__all__ = ["command"]


def command(
    solver: Annotated[str, typer.Argument(help="See `fastdiff solvers`.")],
    order: Annotated[
        int | None, typer.Option(help="Order, where the solver has the option.")
    ] = None,
    nfe: Annotated[int, typer.Option(help="Network evaluations.")] = 10,
    grid: Annotated[str, typer.Option(help="How the steps are placed.")] = "log_snr",
    process: Annotated[str, typer.Option(help="The noise process.")] = "vp_linear",
    eta: Annotated[
        float | None, typer.Option(help="The solver's own noise option: eta or tau2.")
    ] = None,
    to_zero: Annotated[
        bool, typer.Option("--to-zero", help="End exactly at sigma = 0.")
    ] = False,
    digits: Annotated[int, typer.Option(help="Significant digits printed.")] = 5,
    json: Annotated[
        Path | None, typer.Option(help="Also save the table to this file.")
    ] = None,
    analyze: Annotated[
        bool,
        typer.Option("--analyze", help="Also say what it does, without a network."),
    ] = False,
    plot: Annotated[
        Path, typer.Option(help="Where --analyze draws its figure.")
    ] = Path("out/plan.png"),
    force: Annotated[
        bool, typer.Option("--force", help="Replace an existing file.")
    ] = False,
) -> None:
    """Print a sampler: one line per network evaluation, weights newest first."""
    import fastdiff_jax as fd

    if not 1 <= digits <= 17:
        raise ValueError(f"--digits must be in 1..17, got {digits}.")
    written = [path for path in (json, plot if analyze else None) if path is not None]
    refuse_overwrite(written, force)
    table = make_plan(
        solver,
        process=process,
        grid=grid,
        nfe=nfe,
        order=order,
        eta=eta,
        to_zero=to_zero,
    )
    typer.echo(fd.plan.table(table, digits))
    if json is not None:
        json.parent.mkdir(parents=True, exist_ok=True)
        write_whole(json, lambda f: f.write(fd.plan.to_json(table).encode()))
        typer.echo(f"saved {json}")
    if analyze:
        found = fd.analysis.report(table, make_process(process))
        typer.echo(f"\n{found}")
        typer.echo(f"drawn in {fd.reports.plots.plot_analysis({solver: found}, plot)}")
