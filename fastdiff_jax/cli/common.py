"""What commands share: parsing of choices, plans by name."""

import difflib
import inspect
from pathlib import Path
from typing import Any

__all__ = ["PROCESSES", "make_plan", "parse_labels", "refuse_overwrite"]

PROCESSES = ("vp_linear", "vp_cosine", "sub_vp", "ve", "edm", "flow", "vp_discrete")


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
        ValueError: an unknown name, an option the solver has not, or too few
            evaluations for one step.
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
    if nfe < 1:
        raise ValueError(f"--nfe must be >= 1, got {nfe}.")
    options: dict[str, Any] = {}
    noise = entry.stochastic[0] if entry.stochastic else "eta"  # eta or tau2
    for flag, name, value in (("order", "order", order), ("eta", noise, eta)):
        if value is None:
            continue
        if name not in inspect.signature(entry.build).parameters:
            raise ValueError(f"solver {solver!r} has no option --{flag}; leave it out.")
        options[name] = value
    if order is not None and entry.orders and order not in entry.orders:
        raise ValueError(
            f"--order of {solver!r} must be one of {list(entry.orders)}, got {order}."
        )
    spaced = {"to_zero": True} if to_zero else {}
    if to_zero and "to_zero" not in inspect.signature(place).parameters:
        spaced = {}  # grids without the option end at zero by themselves
    for steps in range(nfe // entry.calls + 1, 0, -1):
        try:
            plan = entry.build(path, place(path, steps, **spaced), **options)
        except ValueError:
            if steps > 1:  # a grid may need more steps than it can have
                continue
            raise
        if plan.nfe <= nfe:
            return plan
    raise ValueError(
        f"solver {solver!r} needs at least {plan.nfe} evaluations for one step, got "
        f"--nfe {nfe}."
    )


def parse_labels(text: str, count: int) -> Any:
    """Labels such as '0-9', '3', '1,3,5-7' or 'none', repeated to `count`."""
    import numpy as np

    if count < 1:
        raise ValueError(f"--num must be >= 1, got {count}.")

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
    """Raise ValueError if a file is there already and may not be replaced."""
    there = [str(p) for p in paths if p.exists()]
    if there and not force:
        raise ValueError(f"{', '.join(there)} exists; pass --force to replace it.")
