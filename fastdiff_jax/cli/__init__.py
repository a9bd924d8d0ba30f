"""The command line, `fastdiff`: one command per file."""

import sys

__all__ = ["main"]


def main(argv: list[str] | None = None) -> None:
    """Run the command line; every error is one line on stderr and a non-zero exit."""
    try:
        from .app import run
    except ImportError as error:  # typer or rich
        fix = 'the command line needs `pip install "fastdiff-jax[cli]"`.'
        print(f"error: {error}; {fix}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("error: stopped.", file=sys.stderr)
        raise SystemExit(130) from None
    raise SystemExit(run(argv))
