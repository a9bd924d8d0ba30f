"""The typer application: commands are added here, errors end here."""

import typer
from rich.console import Console

from . import plan, sample, solvers

__all__ = ["app", "run"]

app = typer.Typer(
    name="fastdiff",
    help="Fast samplers for diffusion and flow models: a sampler is a table.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("sample")(sample.command)
app.command("solvers")(solvers.command)
app.command("plan")(plan.command)


def run(argv: list[str] | None = None) -> int:
    """Exit status of a run: 0, 1 for an error in the work, 2 for the words."""
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        code = typer.main.get_command(app)(argv, standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (ValueError, OSError, ImportError) as error:
        errors.print("error: " + " ".join(str(error).split()), markup=False)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        errors.print("error: stopped; nothing was written.", markup=False)
        return 130
    except Exception as error:
        # typer's own exceptions come from click or, in newer versions, its own copy
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(message())
        else:
            errors.print("error: " + " ".join(message().split()), markup=False)
        return 2
