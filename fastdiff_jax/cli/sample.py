"""`fastdiff sample`: draw digits with the embedded model."""

import math
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from ..files import write_together
from . import options
from .common import (
    MOST_NFE,
    between,
    given,
    make_plan,
    parse_labels,
    refuse_overwrite,
    room_for,
    shown,
)

__all__ = ["command"]

_BATCH = 256  # samples per call; a sample does not depend on it
_PICTURED = 1000  # samples in the picture, at most
_OF_SOLVERS = ("solver", "order", "nfe", "grid", "process", "eta", "to_zero")


def command(
    context: typer.Context,
    solver: Annotated[str, typer.Option(help="See `fastdiff solvers`.")] = "unipc",
    order: options.ORDER = None,
    nfe: options.NFE = 10,
    grid: options.GRID = "log_snr",
    process: options.PROCESS = "vp_linear",
    guidance: Annotated[float, typer.Option(help="Guidance scale; 1 is off.")] = 2.0,
    labels: Annotated[str, typer.Option(help="0-9, or 1,3,5-7, or none.")] = "0-9",
    num: Annotated[int, typer.Option(help="Number of samples.")] = 64,
    seed: Annotated[int, typer.Option(help="Random seed, of 64 bits.")] = 0,
    eta: options.ETA = None,
    to_zero: options.TO_ZERO = False,
    plan: Annotated[
        Path | None, options.path("Run a saved table instead of a solver.")
    ] = None,
    out: Annotated[Path, options.path("Folder to write to.")] = Path("out"),
    force: options.FORCE = False,
) -> None:
    """Draw handwritten digits; write samples.png and samples.npz."""
    import fastdiff_jax as fd

    wanted = parse_labels(labels, num)
    between("--seed", seed, 0, 2**64 - 1)
    if not math.isfinite(guidance):
        raise ValueError(f"--guidance must be a finite number, got {guidance}.")
    dropped = given(context, _OF_SOLVERS)
    if plan is not None and dropped:
        raise ValueError(
            f"--plan runs a finished table, which {', '.join(dropped)} cannot change. "
            "Leave one or the other out."
        )
    files = [out / "samples.npz", out / "samples.png"]
    refuse_overwrite(files, force)
    if plan is not None:
        table, title = _runs_here(fd.plan.load(plan), plan), shown(Path(plan.name))
    else:
        table = make_plan(
            solver,
            process=process,
            grid=grid,
            nfe=nfe,
            order=order,
            eta=eta,
            to_zero=to_zero,
        )
        title = f"{solver} on {process}, {grid}"
    fd.models.digits.load()  # fails before anything is made
    with room_for(files):
        x, seconds = draw(table, wanted, guidance, seed)
        refuse_overwrite(files, force)  # made by others meanwhile?
        _write(files, x, wanted)
    twice = ", two network passes each in one batch" if guidance != 1 else ""
    few = f" (the first {_PICTURED})" if num > _PICTURED else ""
    typer.echo(
        f"{num} samples, {title}: {table.nfe} evaluations{twice}\n"
        f"{seconds / num * 1e3:.2f} ms per sample, compilation aside\n"
        f"{shown(files[1])}{few}\n{shown(files[0])}"
    )


def _write(files: list[Path], x: Any, labels: Any) -> None:
    """The samples and their picture, of one run or not at all."""
    import numpy as np

    from .images import grid_of, write_png

    kinds = len(set(labels.tolist()))
    columns = min(len(x), kinds if kinds > 4 else 8)
    sheet = grid_of(x[:_PICTURED], columns)
    arrays = lambda f: np.savez(f, x=x, labels=labels)  # noqa: E731
    picture = lambda f: write_png(f, sheet)  # noqa: E731
    write_together(list(zip(files, (arrays, picture), strict=True)))


def _runs_here(table: Any, path: Path) -> Any:
    """A loaded plan, if it draws digits from noise.

    Raises:
        ValueError: a plan for something else.
    """
    import jax

    from fastdiff_jax.models.digits import SHAPE

    shapes = {w.shape[3:] for w in jax.tree.leaves(table.rows.registers)}
    one = getattr(table.rows.level.time, "ndim", 0) == 1
    reasons = {
        f"it reads {', '.join(table.reads)}": table.reads != ("data",),
        "its weights are matrices": table.matrix,
        "it goes on from the registers of other rows": table.start is None,
        f"it has more than {MOST_NFE} rows": table.length > MOST_NFE,
        "its levels or weights are by the element": not one or shapes != {()},
    }
    found = [why for why, there in reasons.items() if there]
    if found:
        raise ValueError(
            f"{path} does not draw digits {SHAPE} from noise: {'; '.join(found)}. Run "
            "it in Python with fd.sample."
        )
    return table


def key_of(seed: int) -> Any:
    """A key of all 64 bits of a seed, whether or not jax counts in 64."""
    import jax

    low, high = seed % 2**32, seed // 2**32
    key = jax.random.key(low)
    return jax.random.fold_in(key, high) if high else key


def draw(table: Any, labels: Any, guidance: float, seed: int) -> tuple[Any, float]:
    """Samples for the labels, in batches, and the seconds after compilation."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import fastdiff_jax as fd

    count, null = len(labels), fd.models.digits.NULL_LABEL
    batch = min(count, _BATCH)
    fold = jax.jit(jax.vmap(jax.random.fold_in, (None, 0)))
    keys = fold(key_of(seed), jnp.arange(-(-count // batch) * batch))
    padded = jnp.asarray(np.resize(labels, keys.shape[0]))
    sigma = jnp.asarray(table.rows.level.sigma[0], jnp.float32)
    model = fd.models.digits.load()

    def one(start: int) -> Any:
        part = slice(start, start + batch)
        noise = fd.prior(
            fd.processes.edm(),
            keys[part],
            (batch, *fd.models.digits.SHAPE),
            start=1.0,
            dtype=jnp.float32,
        )
        if guidance == 1:
            guided = fd.models.digits.load(padded[part])
        else:
            guided = fd.guidance.cfg(
                model, guidance, condition=padded[part], null=jnp.int32(null)
            )
        return fd.sample(table, guided, sigma * noise, key=keys[part])

    jax.block_until_ready(one(0))  # compile
    begin, found = time.perf_counter(), []
    starts = range(0, count, batch)
    for start in track(starts, "sampling", transient=True, disable=len(starts) < 4):
        found.append(np.asarray(one(start)))
    seconds = time.perf_counter() - begin
    x = np.concatenate(found)[:count]
    if not np.isfinite(x).all():
        raise ValueError(
            f"the samples are not finite at --guidance {guidance:g}; try a smaller "
            "one, or more evaluations."
        )
    return np.clip(x, -1, 1).astype(np.float32), seconds
