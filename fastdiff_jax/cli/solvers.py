"""`fastdiff solvers`: the registry as a table."""

from rich.console import Console
from rich.table import Table

__all__ = ["command"]

_WIDTH = 80  # at least: a narrower terminal wraps lines, no name is cut


def command() -> None:
    """List every solver: orders, network calls per step, noise, paper."""
    import fastdiff_jax as fd

    table = Table(title="solvers", title_justify="left")
    for name in ("name", "--order", "accuracy", "calls", "noise"):
        table.add_column(name, no_wrap=True)
    table.add_column("paper", overflow="fold")
    assert fd.augmented  # its builders are in the registry once it is loaded
    for name, solver in sorted(fd.solvers.SOLVERS.items()):
        table.add_row(
            name,
            _span(list(solver.orders)) or "-",
            _span([solver.order(p) for p in solver.orders or (0,)]),
            str(solver.calls),
            ", ".join(solver.stochastic) or ("always" if solver.draws else "-"),
            solver.paper + (f"; in Python: needs {solver.needs}" * bool(solver.needs)),
        )
    console = Console()
    Console(width=max(console.width, _WIDTH)).print(table, soft_wrap=False)
    console.print(
        "accuracy: order of convergence; calls: network evaluations per step; noise: "
        "the option that --eta sets"
    )


def _span(values: list[int]) -> str:
    """'1-4' for a run of whole numbers, else all of them."""
    if len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
        return f"{values[0]}-{values[-1]}"
    return ", ".join(map(str, values))
