"""Options that commands share, each said once."""

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["ETA", "FORCE", "GRID", "NFE", "ORDER", "PROCESS", "TO_ZERO", "path"]


def _path(text: str) -> Path:
    """A path that names something: an empty one would be the folder one stands in."""
    if not text:
        raise typer.BadParameter("it must name a file or a folder, got ''.")
    return Path(text)


def path(help: str) -> Any:
    """An option that is a path."""
    return typer.Option(help=help, parser=_path, metavar="PATH")


ORDER = Annotated[
    int | None, typer.Option(help="Order, where the solver has the option.")
]
NFE = Annotated[int, typer.Option(help="Network evaluations per sample.")]
GRID = Annotated[str, typer.Option(help="How the steps are placed.")]
PROCESS = Annotated[str, typer.Option(help="The noise process.")]
ETA = Annotated[
    float | None, typer.Option(help="The solver's own noise option: eta or tau2.")
]
TO_ZERO = Annotated[bool, typer.Option("--to-zero", help="End exactly at sigma = 0.")]
FORCE = Annotated[bool, typer.Option("--force", help="Replace existing files.")]
