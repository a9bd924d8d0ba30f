"""What commands share: parsing of choices, plans by name."""

import contextlib
import difflib
import inspect
import math
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer

from ..files import folder_of, target_of

__all__ = ["PROCESSES", "between", "given", "make_plan", "make_process"]
__all__ += ["parse_labels", "refuse_overwrite", "room_for", "shown"]

MOST_NFE, MOST_SAMPLES = 10**4, 10**6
PROCESSES = ("vp_linear", "vp_cosine", "sub_vp", "ve", "edm", "flow", "vp_discrete")


def shown(path: Path) -> str:
    """A path as text that every terminal can print."""
    return "".join(c if c.isprintable() else "?" for c in str(path))


def between(flag: str, value: float, low: float, high: float) -> None:
    """Raise ValueError for a number that is out of range, or none."""
    if not low <= value <= high:
        whole = isinstance(value, int)
        raise ValueError(
            f"{flag} must be {'a whole number ' if whole else ''}in {low}..{high}, got "
            f"{value}."
        )


def given(context: typer.Context, names: Iterable[str]) -> list[str]:
    """The flags among some that stand on the command line."""
    return [
        f"--{name.replace('_', '-')}"
        for name in names
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]


def pick(kind: str, name: str, known: Any) -> Any:
    """The entry of a dict by name, or an error with the nearest name."""
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, list(known), 1, 0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"unknown {kind} {name!r}.{hint} Known: {', '.join(sorted(known))}."
    )


def make_process(name: str) -> Any:
    """A process with its published constants."""
    import fastdiff_jax as fd

    makers = {n: getattr(fd.processes, n) for n in PROCESSES}
    return pick("process", name, makers)()


def make_plan(
    solver: str,
    *,
    process: str = "vp_linear",
    grid: str = "log_snr",
    nfe: int = 10,
    order: int | None = None,
    eta: float | None = None,
    to_zero: bool = False,
) -> Any:
    """The plan of a solver that spends at most `nfe` evaluations.

    Raises:
        ValueError: an unknown name, an option the solver has not or out of its range,
            or too few evaluations for one step.
    """
    import fastdiff_jax as fd

    entry = fd.solvers.find(solver)
    if entry.needs:
        raise ValueError(
            f"solver {solver!r} needs {entry.needs}, so it has no command. Make its "
            "plan in Python, save it with fd.plan.save, and pass it as --plan."
        )
    path = make_process(process)
    place = pick("grid", grid, fd.grids.GRIDS)
    between("--nfe", nfe, 1, MOST_NFE)
    options: dict[str, Any] = {}
    noise = entry.stochastic[0] if entry.stochastic else "eta"  # eta or tau2
    for flag, name, value in (("order", "order", order), ("eta", noise, eta)):
        if value is None:
            continue
        if name not in inspect.signature(entry.build).parameters:
            raise ValueError(f"solver {solver!r} has no option --{flag}; leave it out.")
        options[name] = value
    if eta is not None:
        between("--eta", eta, 0.0, math.inf)  # the solver knows its own limit
    if order is not None and entry.orders and order not in entry.orders:
        raise ValueError(
            f"--order of {solver!r} must be one of {list(entry.orders)}, got {order}."
        )
    spaced = {"to_zero": True} if to_zero else {}
    if to_zero and "to_zero" not in inspect.signature(place).parameters:
        spaced = {}  # grids without the option may end at zero by themselves
    first, least = None, math.inf
    for steps in range(nfe // entry.calls + 1, 0, -1):
        part = f"--grid {grid} on {process}"
        try:
            ts = place(path, steps, **spaced)
            part = f"--solver {solver}"
            plan = entry.build(path, ts, **options)
        except ValueError as error:  # too many steps for a grid, or too few for a plan
            first = first or ValueError(f"{part}: {error}")
            continue
        least = min(least, plan.nfe)
        if plan.nfe <= nfe:
            if to_zero and plan.end.sigma > 0:
                raise ValueError(f"--grid {grid} has no --to-zero; leave it out.")
            return plan
    if first is not None:
        raise first
    raise ValueError(
        f"solver {solver!r} needs at least {least} evaluations for one step, got "
        f"--nfe {nfe}."
    )


def parse_labels(text: str, count: int) -> Any:
    """Labels such as '0-9', '3', '1,3,5-7' or 'none', repeated to `count`."""
    import numpy as np

    between("--num", count, 1, MOST_SAMPLES)
    if text.strip().lower() == "none":
        return np.full(count, 10, np.int32)
    found: list[int] = []
    for part in text.split(","):
        ends = part.strip().split("-")
        try:
            low, high = int(ends[0]), int(ends[-1])
        except ValueError:
            low = high = -1
        if len(ends) > 2 or not 0 <= low <= high <= 9:
            raise ValueError(
                f"--labels must be digits 0..9 such as 0-9 or 1,3,5-7 (or none), got "
                f"{text!r}."
            )
        found += range(low, high + 1)
    return np.resize(np.asarray(found, np.int32), count)


def refuse_overwrite(paths: list[Path], force: bool) -> None:
    """Raise ValueError if a file is there already and may not, or cannot, be replaced.

    Nothing is written to what is no regular file, forced or not.
    """
    for path in paths:
        if path.exists():
            target_of(path)
    there = [str(p) for p in paths if p.exists()]
    if there and not force:
        raise ValueError(f"{', '.join(there)} exists; pass --force to replace it.")


@contextlib.contextmanager
def room_for(files: list[Path]) -> Iterator[None]:
    """The files' folders, made and tried before the work begins, gone if it fails.

    Raises:
        OSError: a folder that cannot be made or written to.
    """
    folders = list(dict.fromkeys(path.parent for path in files))
    new = [f for folder in folders for f in (folder, *folder.parents) if not f.exists()]
    try:
        for path in files:
            folder_of(path)
            try:
                with tempfile.TemporaryFile(dir=path.parent):
                    pass
            except OSError as error:
                reason = f"cannot write: {error.strerror}"
                raise OSError(error.errno, reason, str(path.parent)) from error
        yield
    except BaseException:
        for folder in new:
            with contextlib.suppress(OSError):  # not empty, or never made
                folder.rmdir()
        raise
