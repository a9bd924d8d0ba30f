"""Ctrl-C where Python alone would crash, print a traceback or go on."""

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

__all__ = ["STOPPED", "heard", "loading"]

STOPPED = 130  # as the shell's own, 128 + signal


def _end(*_: Any) -> NoReturn:
    """End here and now; what a killed writer leaves, the next write removes."""
    with contextlib.suppress(OSError):
        os.write(2, b"error: stopped; every file is whole, old or new.\n")
    os._exit(STOPPED)


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """While modules load, of which compiled ones may crash if an exception is raised.

    A process that ignores Ctrl-C, as a shell's background jobs do, goes on ignoring it.
    """
    ours = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if not ours or before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        atexit.register(_leave)  # and so before what jax has registered


def _leave() -> None:
    """While Python clears up, end as the system does: without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Where Python drops exceptions, in callbacks of its garbage collector: end there.

    jax has such a callback.
    """

    def lost(event: Any) -> None:
        if isinstance(event.exc_value, KeyboardInterrupt):
            _end()
        hook(event)

    hook, sys.unraisablehook = sys.unraisablehook, lost
    try:
        yield
    finally:
        sys.unraisablehook = hook
