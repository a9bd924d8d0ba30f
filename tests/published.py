"""Published schedulers: a case, one network, recorded noise, and our side of a run."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fastdiff_jax as fd
from fastdiff_jax.interop import from_scheduler_config

SHAPE = (2, 3, 2, 2)  # images: thresholding wants a batch, published code channels
ROWS = 200  # of recorded noise


def network(x, label, xp=np):
    """What both sides call: nonlinear in x and in the label."""
    return 0.7 * xp.tanh(1.2 * x + xp.sin(label / 130)) + 0.3 * xp.cos(x - label / 37)


def recorded(rows, shape=SHAPE):
    """Numbers that look normal, the same on every machine."""
    at = np.arange(rows * math.prod(shape)).reshape(rows, *shape)
    return 1.6 * np.sin(12.9898 * at + 78.233 * np.sin(0.37 * at) + 1)


BANK = recorded(ROWS)
START = BANK[-1]


class Case(NamedTuple):
    """A configuration and a call."""

    name: str
    config: dict[str, Any]
    steps: int
    options: dict[str, Any]
    begin: int = 0


class Run(NamedTuple):
    """What a side came to."""

    labels: np.ndarray
    initial: float
    sample: np.ndarray


def ours(case):
    """The plan, run on the host with the scheduler's own denoiser."""
    config = {"_class_name": case.name, **case.config}
    own = case.options.get("timesteps") or case.options.get("sigmas")
    steps = None if own else case.steps
    made = from_scheduler_config(config, steps, begin=case.begin, **case.options)
    rows = made.plan.rows
    told = lambda x, t: jnp.asarray(network(np.asarray(x), float(t)))  # noqa: E731
    denoiser = made.denoiser(told)

    def predict(x, i):
        level, controls = jax.tree.map(lambda w: w[i], (rows.level, rows.controls))
        context = fd.Context(i, *level, controls)
        out = denoiser(jnp.asarray(x), context, None)[0]
        return jax.tree.map(np.asarray, out)

    noise = BANK[: made.plan.length]
    sample = fd.plan.replay(made.plan, predict, START, noise)
    return Run(np.asarray(made.labels), float(made.initial), sample)


def apart(a, b):
    """Largest difference relative to 1 + size; infinity where lengths differ."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        return math.inf
    return float(np.abs(a - b).max() / (1 + np.abs(a).max()))
