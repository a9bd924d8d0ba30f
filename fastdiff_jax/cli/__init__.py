"""The command line, `fastdiff`: one command per file."""

import sys

from .stop import heard, loading

__all__ = ["main"]


def main(argv: list[str] | None = None) -> None:
    """Run the command line; every error is one line on stderr and a non-zero exit."""
    try:
        with loading():
            import jax as jax

            from .app import run
    except ImportError as error:  # typer or rich
        fix = 'the command line needs `pip install "fastdiff-jax[cli]"`.'
        print(f"error: {error}; {fix}", file=sys.stderr)
        raise SystemExit(1) from None
    with heard():
        code = run(argv)
    raise SystemExit(code)
