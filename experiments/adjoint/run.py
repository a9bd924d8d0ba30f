#!/usr/bin/env python
"""What does the adjoint's gradient cost, and how wrong is it?

    python experiments/adjoint/run.py [--quick]

The embedded digits network, one loss on the sample; gradients in the noise and in the
446k parameters by reverse mode through the table, the same with checkpoints, and the
adjoint. Then the noise is optimised so that half a digit is matched. Writes result.json
and figure.png beside this file; a killed run continues.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
jax.config.update("jax_enable_x64", True)  # for the reference; the runs are float32

import runner  # noqa: E402

import fastdiff_jax as fd  # noqa: E402
from fastdiff_jax.continuous import adjoint_plan, adjoint_run  # noqa: E402
from fastdiff_jax.models.data import digits_data  # noqa: E402
from fastdiff_jax.trees import pytree  # noqa: E402

# ---------------------------------------------------------------------------- settings
SETTINGS: dict[str, Any] = {
    "steps": (10, 20, 50, 100),
    "reference": 40,  # steps of RK4 in float64, plain reverse mode with checkpoints
    "adam": 10,  # steps of the sampler whose noise is optimised
    "rate": 0.05,
    "updates": 60,
}
QUICK = {"steps": (8,), "reference": 8, "adam": 4, "updates": 5}
LABELS = np.array([3, 8, 0, 5])
WAYS = ("reverse", "checkpoint", "adjoint")
PROCESS = fd.processes.vp_linear()
Array = jax.Array


def grid(steps: int) -> np.ndarray:
    """Half log-SNR from t = 1 to 1e-3 in equal steps."""
    return fd.grids.log_snr(PROCESS, steps)


def setting(dtype: type) -> tuple:
    """Model, noise and target in one precision."""
    model = fd.models.digits.load(labels=LABELS)
    cast = partial(jax.tree.map, lambda v: jnp.asarray(v, dtype))
    model = dataclasses.replace(model, params=cast(model.params))
    x = fd.prior(
        PROCESS, jax.random.key(0), (len(LABELS), 8, 8, 1), dtype=jnp.float32
    ).astype(dtype)
    data = digits_data()
    target = np.stack([data.test_x[data.test_y == c][0] for c in LABELS])
    return model, x, jnp.asarray(target, dtype)


def value(
    way: str, tables: object, x: jax.Array, params: object, fixed: tuple
) -> Array:
    """The loss: mean square distance from a real digit of the same class."""
    model, target = fixed
    model = dataclasses.replace(model, params=params)
    if way == "adjoint":
        sample = adjoint_run(tables, model, x)
    else:
        sample = fd.sample(tables, model, x, checkpoint=way == "checkpoint")
    return ((sample - target) ** 2).mean()


def flat(tree: object) -> np.ndarray:
    """All numbers of a gradient, float64."""
    leaves = [np.ravel(np.asarray(v, np.float64)) for v in jax.tree.leaves(tree)]
    return np.concatenate(leaves)


def far(a: object, b: object) -> float:
    """Relative error of a gradient."""
    a, b = flat(a), flat(b)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def reference(steps: int) -> dict[str, np.ndarray]:
    """The ODE's loss and gradient: RK4, float64."""
    model, x, target = setting(np.float64)
    plan = fd.solvers.rho_rk(PROCESS, grid(steps), variant="rk4")
    slope = jax.jit(jax.value_and_grad(partial(value, "checkpoint"), (1, 2)))
    loss, (of_x, of_params) = slope(plan, x, model.params, (model, target))
    return {"loss": loss, "noise": flat(of_x), "params": flat(of_params)}


def measure(steps: int, exact: dict[str, np.ndarray]) -> list[dict]:
    """Errors, memory and time of every way at a number of steps."""
    model, x, target = setting(np.float32)
    made = adjoint_plan(PROCESS, grid(steps), method="heun")
    found, rows = {}, []
    for way in WAYS:
        tables = made if way == "adjoint" else made.forward
        slope = jax.value_and_grad(partial(value, way), (1, 2))
        args = (tables, x, model.params, (model, target))
        run = jax.jit(slope).lower(*args).compile()
        found[way] = jax.block_until_ready(run(*args))
        clock = []
        for _ in range(3):
            start = time.process_time()
            jax.block_until_ready(run(*args))
            clock.append(time.process_time() - start)
        loss, (of_x, of_params) = found[way]
        plain = found["reverse"][1]
        rows.append(
            {
                "way": way,
                "steps": steps,
                "loss": float(loss),
                "loss_exact": float(exact["loss"]),
                "noise_vs_ode": far(of_x, exact["noise"]),
                "params_vs_ode": far(of_params, exact["params"]),
                "noise_vs_reverse": far(of_x, plain[0]),
                "params_vs_reverse": far(of_params, plain[1]),
                "memory_mb": run.memory_analysis().temp_size_in_bytes / 2**20,
                "cpu_seconds": min(clock),
            }
        )
    rows[-1]["drift"] = drift(made, model, x)
    return rows


@pytree
class Slope:
    """d y / d (sigma / alpha) of y = x / alpha, as a denoiser."""

    model: Any

    def __call__(self, y: Array, context: Any, carry: Any) -> tuple:
        level = (context.alpha, context.sigma)
        alpha, sigma = (jnp.asarray(v, y.dtype) for v in level)
        clean, _ = self.model(alpha * y, context._replace(controls=None), None)
        return (alpha * y - alpha * clean) / sigma, carry


def drift(made: Any, model: Any, x: Array) -> float:
    """Relative distance of x from where the run backward in y arrives."""
    first, last = made.backward.end, made.backward.rows.level
    y = fd.sample(made.forward, model, x) / np.float32(last.alpha[0])
    back = fd.sample(made.backward, Slope(model), y) * np.float32(first.alpha)
    return float(jnp.linalg.norm(back - x) / jnp.linalg.norm(x))


def inpaint(s: SimpleNamespace) -> dict[str, np.ndarray]:
    """Optimise the noise so that the left half of the sample is a digit's."""
    model, x, target = setting(np.float32)
    made = adjoint_plan(PROCESS, grid(s.adam), method="heun")
    known = jnp.asarray(np.arange(8) < 4, jnp.float32)[None, None, :, None]
    adam = optax.adam(s.rate)

    def loss(x: Array) -> tuple:
        sample = adjoint_run(made, model, x)
        gap = (sample - target) ** 2
        near = (known * gap).sum() / (known.sum() * 8 * len(LABELS))
        return near, (sample, gap)

    @jax.jit
    def update(x: Array, state: object) -> tuple:
        (near, (sample, gap)), slope = jax.value_and_grad(loss, has_aux=True)(x)
        # stay on the prior's sphere: only the direction of the noise is free
        change, state = adam.update(slope, state)
        new = x + change
        axes = (1, 2, 3)
        norm = jnp.sqrt((x**2).sum(axes, keepdims=True))
        new = new * norm / jnp.sqrt((new**2).sum(axes, keepdims=True))
        hidden = ((1 - known) * gap).sum() / ((1 - known).sum() * 8 * len(LABELS))
        return new, state, near, hidden, sample

    state, curve, first = adam.init(x), [], None
    for _ in range(s.updates):
        x, state, near, hidden, sample = update(x, state)
        first = sample if first is None else first
        curve.append([float(near), float(hidden)])
    images = [target, target * known + (known - 1), first, sample]
    return {"curve": np.array(curve), "images": np.asarray(images)[..., 0]}


def figure(result: dict, run: runner.Run) -> Any:
    """Three panels of gradients and the digits."""
    plt, rows = runner.pyplot(), result["rows"]
    steps = sorted({r["steps"] for r in rows})
    drawn, axes = plt.subplots(
        1, 4, figsize=(15, 3.8), width_ratios=(1, 1, 1, 1.2), layout="constrained"
    )
    style = {"reverse": "o-", "checkpoint": "s--", "adjoint": "^-"}
    for way in WAYS:
        own = [r for r in rows if r["way"] == way]
        keys = ("noise_vs_ode", "memory_mb", "cpu_seconds")
        for axis, key in zip(axes[:3], keys, strict=True):
            axis.loglog(steps, [r[key] for r in own], style[way], label=way, alpha=0.8)
    own = [r for r in rows if r["way"] == "adjoint"]
    gap = [r["noise_vs_reverse"] for r in own]
    axes[0].loglog(steps, gap, "kx-.", label="adjoint against reverse")
    axes[0].loglog(steps, [r["drift"] for r in own], "k.:", label="drift of y")
    titles = {
        "gradient in the noise": "relative error",
        "temporary memory": "MiB",
        "time of one gradient": "CPU seconds",
    }
    for axis, (title, unit) in zip(axes[:3], titles.items(), strict=True):
        axis.set(title=title, ylabel=unit, xlabel="steps of Heun's method")
        runner.whole_ticks(axis, steps)
        axis.grid(alpha=0.3)
    axes[0].legend()
    rows_of = ("real", "given", "before", "after")
    images = run.arrays("half_digits")["images"]
    framed = np.pad(images, [(0, 0), (0, 0), (1, 1), (1, 1)])  # grey frames
    wall = np.concatenate([np.concatenate(list(line), 1) for line in framed])
    axes[3].imshow(wall, cmap="gray", vmin=-1, vmax=1)
    axes[3].set(title="noise optimised for the left half", xticks=[])
    axes[3].set_yticks(np.arange(4) * 10 + 4.5, rows_of)
    return drawn


def main() -> None:
    """Measure what is missing, then write result.json and figure.png."""
    run = runner.start(__doc__, __file__, SETTINGS, QUICK, figure)
    s, began, rows = run.settings, time.time(), []
    with run.held():
        exact = run.arrays("reference", lambda: reference(s.reference))
        for n in run.track(s.steps, "gradients at {} steps".format):
            rows += run.store.once(f"{n} steps", lambda n=n: measure(n, exact))
        curve = run.arrays("half_digits", lambda: inpaint(s))["curve"]
        run.write(
            {
                "rows": rows,
                "half_digit": {"first": curve[0], "last": curve[-1]},
                "jax": jax.__version__,
                "seconds": run.clock(began),
            }
        )
    for r in rows:
        print({k: float(f"{v:.3g}") if k != "way" else v for k, v in r.items()})


if __name__ == "__main__":
    main()
