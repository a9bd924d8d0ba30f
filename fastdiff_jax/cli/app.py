"""The typer application: commands are added here, errors end here."""

import contextlib
import os
import platform
import sys
from typing import Annotated

import typer

from . import plan, sample, solvers
from .stop import STOPPED

__all__ = ["app", "run"]

PIPE = 141  # as the shell's own, 128 + signal
DEBUG = "FASTDIFF_TRACEBACK"

app = typer.Typer(
    name="fastdiff",
    help="Fast samplers for diffusion and flow models: a sampler is a table.",
    epilog="Exit status: 0 done, 1 refused or failed, 2 not understood, 130 stopped.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("sample")(sample.command)
app.command("solvers")(solvers.command)
app.command("plan")(plan.command)


def _version(wanted: bool) -> None:
    if wanted:
        import jax

        import fastdiff_jax as fd

        parts = (f"jax {jax.__version__}", f"Python {platform.python_version()}")
        typer.echo(f"fastdiff {fd.__version__} ({', '.join(parts)})")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Say it and stop."
        ),
    ] = False,
) -> None:
    del version


def run(argv: list[str] | None = None) -> int:
    """Exit status of a run: 0, 1 for an error in the work, 2 for the words."""
    try:
        code = typer.main.get_command(app)(argv, standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
        if code == STOPPED:  # typer's word for Ctrl-C
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except SystemExit:  # so typer and rich end where the reader of a pipe has gone
        _mute()
        return PIPE
    except BaseException as error:
        if os.environ.get(DEBUG):
            raise
        return _told(error)


def _told(error: BaseException) -> int:
    """One line on stderr, and the exit status of an error."""
    if isinstance(error, BrokenPipeError):  # whoever reads us has had enough
        _mute()
        return PIPE
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        _say("stopped; every file is whole, old or new.")
        return STOPPED
    # typer's own exceptions come from click or, in newer versions, its own copy
    message = getattr(error, "format_message", None)
    if message is not None:
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(message())
        else:
            _say(message())
        return 2
    if isinstance(error, MemoryError):
        _say("out of memory; ask for less at once.")
    elif isinstance(error, OSError) and error.strerror and error.filename:
        _say(f"{error.strerror}: {str(error.filename)!r}.")
    elif isinstance(error, ValueError | OSError | ImportError):
        _say(str(error) or type(error).__name__)
    else:
        _say(f"{type(error).__name__}: {error} ({DEBUG}=1 shows where)")
    if isinstance(error, OSError):
        _mute()  # it may have been stdout's
    return 1


def _say(message: str) -> None:
    line = " ".join(message.split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    with contextlib.suppress(OSError, ValueError):  # stderr is gone, too
        print(f"error: {line}", file=sys.stderr, flush=True)


def _mute() -> None:
    """Send what stdout still holds nowhere: it would fail again at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.flush()
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
