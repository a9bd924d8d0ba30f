"""`fastdiff sample`: draw digits with the embedded model."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from ..files import write_whole
from .common import make_plan, parse_labels, refuse_overwrite

__all__ = ["command"]

_BATCH = 256  # samples per call; a sample does not depend on it


def command(
    solver: Annotated[str, typer.Option(help="See `fastdiff solvers`.")] = "unipc",
    order: Annotated[
        int | None, typer.Option(help="Order, where the solver has the option.")
    ] = None,
    nfe: Annotated[int, typer.Option(help="Network evaluations per sample.")] = 10,
    grid: Annotated[str, typer.Option(help="How the steps are placed.")] = "log_snr",
    process: Annotated[str, typer.Option(help="The noise process.")] = "vp_linear",
    guidance: Annotated[float, typer.Option(help="Guidance scale; 1 is off.")] = 2.0,
    labels: Annotated[str, typer.Option(help="0-9, or 1,3,5-7, or none.")] = "0-9",
    num: Annotated[int, typer.Option(help="Number of samples.")] = 64,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    eta: Annotated[
        float | None, typer.Option(help="The solver's own noise option: eta or tau2.")
    ] = None,
    to_zero: Annotated[
        bool, typer.Option("--to-zero", help="End exactly at sigma = 0.")
    ] = False,
    plan: Annotated[
        Path | None, typer.Option(help="Run a saved table instead of a solver.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("out"),
    force: Annotated[
        bool, typer.Option("--force", help="Replace existing files.")
    ] = False,
) -> None:
    """Draw handwritten digits; write samples.png and samples.npz."""
    import numpy as np

    import fastdiff_jax as fd

    from .images import grid_of, write_png

    wanted = parse_labels(labels, num)
    png, npz = out / "samples.png", out / "samples.npz"
    refuse_overwrite([png, npz], force)
    if plan is not None:
        table, title = fd.plan.load(plan), plan.name
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
    x, seconds = draw(table, wanted, guidance, seed)
    out.mkdir(parents=True, exist_ok=True)
    kinds = len(set(wanted.tolist()))
    columns = min(num, kinds if kinds > 4 else 8)
    write_whole(png, lambda f: write_png(f, grid_of(x, columns)))
    write_whole(npz, lambda f: np.savez(f, x=x, labels=wanted))
    console = Console(highlight=False, soft_wrap=True)
    twice = ", two network passes each in one batch" if guidance != 1 else ""
    console.print(f"{num} samples, {title}: {table.nfe} evaluations{twice}")
    console.print(f"{seconds / num * 1e3:.2f} ms per sample, compilation aside")
    console.print(f"{png}\n{npz}")


def draw(table: Any, labels: Any, guidance: float, seed: int) -> tuple[Any, float]:
    """Samples for the labels, in batches, and the seconds after compilation."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import fastdiff_jax as fd

    count, null = len(labels), fd.models.digits.NULL_LABEL
    batch = min(count, _BATCH)
    fold = jax.jit(jax.vmap(jax.random.fold_in, (None, 0)))
    keys = fold(jax.random.key(seed), jnp.arange(-(-count // batch) * batch))
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
    x = np.clip(np.concatenate(found)[:count], -1, 1).astype(np.float32)
    if not np.isfinite(x).all():
        raise ValueError("the samples are not finite; try more evaluations.")
    return x, seconds
