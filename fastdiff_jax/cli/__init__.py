"""The command line, `fastdiff`: one command per file."""

import sys

__all__ = ["main"]


def main(argv: list[str] | None = None) -> None:
    """Run the command line; every error is one line on stderr and a non-zero exit."""
    try:
        from .app import run
    except ImportError as error:  # typer or rich
        print(f"error: {error}", file=sys.stderr)
        print(
            'The command line needs `pip install "fastdiff-jax[cli]"`.', file=sys.stderr
        )
        raise SystemExit(1) from None
    raise SystemExit(run(argv))
