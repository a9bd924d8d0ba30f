"""Published scheduler configs: their own numbers, from the config alone."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.interop import from_scheduler_config
from fastdiff_jax.interop._classes import CLASSES, EDM, SCALED

from . import golden_cases as g
from .test_published import CASES as PUBLISHED

pytestmark = pytest.mark.filterwarnings("ignore:.*change nothing")
MODEL = ("weights", "means", "variances_diagonal")
SMALL = Path(__file__).parent / "golden"
FOLDERS = {"small": SMALL, "full": g.FOLDER}
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LENGTH = 64  # rows of a network's parameters


@functools.cache
def golden(name):
    folder = FOLDERS[name]
    return g.Golden(folder) if (folder / "cases.json").exists() else None


def cases_of(source, sampler):
    return [
        c
        for c in source.spec["cases"]
        if c["oracle"] == "diffusers" and c["sampler"] == sampler
    ]


def groups():
    for name in FOLDERS:
        source = golden(name)
        for sampler in CLASSES if source else ():
            if cases_of(source, sampler):
                yield name, sampler


def described(case, arrays):
    """The case as (config, call options, whether labels decide where D is taken)."""
    config = dict(case["options"])
    if config.pop("tau", "window") != "window":  # a function in the published class
        raise ValueError("tau_func is not supported")
    call = {**config.pop("step", {}), **config.pop("set_timesteps", {})}
    call |= (case.get("extra") or {}).get("set_timesteps_args", {})
    call.pop("variance_noise", None)  # the noise bank
    rounded = config.pop("model_time", None) == "rounded"
    if isinstance(config.get("trained_betas"), str):  # "grid_sigma of this case"
        config["trained_betas"] = arrays["grid_sigma"].tolist()
    if "beta_start" in CLASSES[case["sampler"]].settings:
        config |= SD
    return {"_class_name": case["sampler"], **config}, call, rounded


@functools.cache
def golden_network(name):
    return mixture_network(golden(name).spec["model"])


def mixture_network(model):
    """A network at a level of its own per row: params[i] says which, and what it gives.

    It gets the number of the row as its time, so that one compiled program serves all.
    """
    w, mu, v = (jnp.asarray(model[k]) for k in MODEL)

    def network(params, x, row):
        at = jax.tree.map(lambda p: p[row.astype(int)], params)
        z = x * at["scale"]
        total = at["alpha"] ** 2 * v + at["sigma"] ** 2
        gap = z[:, None, :] - (at["alpha"] * mu)[None]
        q = gap / total[None]
        logit = jnp.log(w) - jnp.log(total).sum(-1) / 2
        r = jax.nn.softmax(logit[None] - (gap * q).sum(-1) / 2, axis=-1)[..., None]
        eps = at["sigma"] * (r * q).sum(1)
        x0 = (r * (mu[None] + (at["alpha"] * v)[None] * q)).sum(1)
        return at["eps"] * eps + at["x0"] * x0 + at["x"] * x

    return network


def network_params(scheduler, alpha, sigma):
    """What the network of a scheduler returns at the levels of its rows."""
    one, zero = np.ones_like(alpha), np.zeros_like(alpha)
    scale, x = one, zero
    if scheduler.name in SCALED:
        size = np.hypot(alpha, sigma)
        alpha, sigma = alpha / size, sigma / size
    eps, x0 = {
        "noise": (one, zero),
        "data": (zero, one),
        "v": (alpha, -sigma),
        "velocity": (one, -one),
    }[scheduler.prediction]
    if scheduler.name in EDM:
        spread = scheduler.settings["sigma_data"]
        size = np.hypot(sigma, spread)
        skip, out, scale = (spread / size) ** 2, sigma * spread / size, size
        eps, x0, x = zero, 1 / out, -skip * size / out
    return {
        "alpha": alpha,
        "sigma": sigma,
        "scale": scale,
        "eps": eps,
        "x0": x0,
        "x": x,
    }


def bank_noise(source, plan, churned):
    """Recorded draws; a draw is taken in each row, with churn only where it acts."""
    bank, weight = source.get(source.spec["noise_bank"]), plan.rows.noise[:, 0]
    at = np.cumsum(weight > 0) - 1 if churned else np.arange(len(weight))
    return bank[np.maximum(at, 0)]


@jax.jit
def evaluate(denoiser, x, context):
    return denoiser(x, context, None)[0]


def run(case, source, network):
    """Deviations of grid, labels, start and sample, over what is allowed."""
    arrays = source.arrays(case)
    config, call, rounded = described(case, arrays)
    scheduler = from_scheduler_config(config, case["N"], **call)
    plan, process, ts = scheduler.plan, scheduler.process, scheduler.ts
    far = lambda a, b: np.abs(np.asarray(a) - b).max() if len(a) == len(b) else np.inf  # noqa: E731
    found = {
        "alpha": far(process.alpha(ts), arrays["grid_alpha"]) / 1e-9,
        "sigma": far(process.sigma(ts), arrays["grid_sigma"]) / 1e-9,
        "label": far(scheduler.labels, arrays["eval_label"]) / 1e-7,
        "start": far(
            scheduler.initial * np.asarray(source.spec["noise_batch"]), arrays["x_init"]
        )
        / 1e-9,
    }
    level = plan.rows.level.alpha, plan.rows.level.sigma
    if rounded:
        level = scheduler.label_levels()
    found["eval alpha"] = far(level[0], arrays["eval_alpha"]) / 1e-9
    found["eval sigma"] = far(level[1], arrays["eval_sigma"]) / 1e-9
    noise = bank_noise(source, plan, "s_churn" in call) if plan.stochastic else None
    params = network_params(scheduler, *level)
    params = {k: np.resize(v, LENGTH) for k, v in params.items()}
    denoiser = scheduler.denoiser(network, params=params)

    def predict(x, i):  # on the host: only the denoiser is compiled, once per kind
        row = jax.tree.map(lambda w: w[i], plan.rows)
        controls = {"model_time": np.float64(i)}
        context = fd.Context(row.index, *row.level, controls)
        return jax.tree.map(np.asarray, evaluate(denoiser, x, context))

    got = fd.plan.replay(plan, predict, arrays["x_init"], noise)
    want, tol = arrays["x_final"], case["tol"]
    allowed = tol["atol"] + tol["rtol"] * np.abs(want).max()
    found["sample"] = far(got, want) / allowed
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sampler"), list(groups()))
def test_published_numbers_from_the_config_alone(name, sampler):
    source = golden(name)
    network = golden_network(name)
    passed, failed, waiting = 0, [], []
    for case in cases_of(source, sampler):
        try:
            found = run(case, source, network)
        except ValueError as reason:
            if "not supported" not in str(reason):
                raise
            waiting.append(f"{case['id']}: {reason}")
            continue
        bad = {k: f"{v:.1e}" for k, v in found.items() if not v <= 1}
        if bad:
            failed.append(f"{case['id']}: times over the tolerance {bad}")
        passed += not bad
    print(
        f"{name} {sampler}: passed {passed}, failed {len(failed)}, "
        f"not yet {len(waiting)}"
    )
    print("\n".join(waiting))
    assert not failed, "\n" + "\n".join(failed)


def test_every_class_has_cases():
    if golden("full") is None:
        pytest.skip("no golden folder")
    missing = set(CLASSES) - {s for n, s in groups() if n == "full"}
    assert missing <= set(PUBLISHED)  # which have recorded samples
