"""Parity with published code on every golden case whose sampler is implemented.

The folder is FASTDIFF_GOLDEN, by default ../shared/golden; a small excerpt ships in
tests/golden, so that a clone without the folder checks something too.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd

from . import golden_cases as g
from .table import with_rows

MODEL = ("weights", "means", "variances_diagonal")
SMALL = Path(__file__).parent / "golden"
FOLDERS = {
    "small": SMALL,
    "full": g.FOLDER,
}


def families(folder: Path) -> list[str]:
    if not (folder / "cases.json").exists():
        return []
    return sorted({c["family"] for c in g.Golden(folder).spec["cases"]})


CASES = [
    pytest.param(name, f, marks=[pytest.mark.slow] * (name != "small"))
    for name, folder in FOLDERS.items()
    for f in families(folder)
]


def exact_model(model: dict):
    """eps and x0 of the golden mixture at any level, as the README states them."""
    w, mu, v = (jnp.asarray(model[k]) for k in MODEL)

    def outputs(x, alpha, sigma):
        total = alpha**2 * v + sigma**2  # (K, D)
        gap = x[:, None, :] - (alpha * mu)[None]
        q = gap / total[None]
        logit = jnp.log(w) - jnp.log(total).sum(-1) / 2
        logit = logit[None] - (gap * q).sum(-1) / 2
        r = jax.nn.softmax(logit, axis=-1)[..., None]
        eps = sigma * (r * q).sum(1)
        x0 = (r * (mu[None] + (alpha * v)[None] * q)).sum(1)
        return eps, x0

    return outputs


def denoiser_of(outputs):
    """The case's network as a data prediction; all that varies comes as controls."""

    def denoiser(x, context, carry):
        c = context.controls
        eps, x0 = outputs(x, c.alpha, c.sigma)
        raw = c.eps * eps + c.x0 * x0
        data = c.from_x * x + c.from_raw * raw
        return data, carry

    return denoiser


def transformed(inner, limits, clip, both):
    if limits is None and clip is None:
        return inner

    def denoiser(x, context, carry):
        data, carry = inner(x, context, carry)
        if limits is not None:  # thresholding replaces clipping
            mapped = threshold(data, *limits)
        else:
            mapped = jnp.clip(data, -clip, clip)
        return ((mapped, data) if both else mapped), carry

    return fd.models.giving(denoiser, "data", "direction") if both else denoiser


def threshold(data, quantile, floor, ceiling):
    s = jnp.quantile(jnp.abs(data), quantile, axis=1, keepdims=True)
    s = jnp.clip(s, floor, ceiling)
    return jnp.clip(data, -s, s) / s


class Controls(NamedTuple):
    """Of a row: where the network is asked, what it says, and that as data."""

    alpha: np.ndarray
    sigma: np.ndarray
    eps: np.ndarray
    x0: np.ndarray
    from_x: np.ndarray
    from_raw: np.ndarray


def controls_of(case: dict, plan: fd.Plan, arrays: dict) -> Controls:
    """Where each row's model is evaluated, and how its output becomes data."""
    a, s = plan.rows.level.alpha, plan.rows.level.sigma
    n = len(a)
    ea, es = arrays["eval_alpha"], arrays["eval_sigma"]
    if len(ea) < n:  # a row without a model call of the oracle: a zero-length step
        raise g.NotYet("rows without an evaluation")
    ea, es = ea[:n], es[:n]
    one, zero = np.ones(n), np.zeros(n)
    kind = case["prediction"]
    rule = {
        "eps": (one, zero, 1 / np.where(a == 0, 1, a), -s / np.where(a == 0, 1, a)),
        "x0": (zero, one, zero, one),
        "v": (ea, -es, a / (a**2 + s**2), -s / (a**2 + s**2)),
        "u": (one, -one, 1 / (a + s), -s / (a + s)),
    }[kind]
    return Controls(ea, es, *rule)


class Runner:
    """Runs cases; padding makes nearly all of them one compiled program."""

    def __init__(self, folder: Path):
        self.golden = g.Golden(folder)
        self.inner = denoiser_of(exact_model(self.golden.spec["model"]))
        self.made: dict = {}

    def compiled(self, *transform):
        if transform not in self.made:
            denoiser = transformed(self.inner, *transform)
            self.made[transform] = jax.jit(
                lambda plan, x, z: fd.sample(plan, denoiser, x, noise=z)
            )
        return self.made[transform]

    def run(self, case: dict) -> tuple[float, float]:
        """Largest deviation from the stored sample, and what is allowed."""
        arrays = self.golden.arrays(case)
        options = self.golden.options(case)
        if case["family"] in g.direct_families():
            return self.run_direct(case, options, arrays)
        plan = g.build(case, options, arrays)
        controls = controls_of(case, plan, arrays)
        both = plan.predictions > 1
        clip = options.get("clip_sample_range", 1.0)
        clip = clip if options.get("clip_sample") else None
        run = self.compiled(g.threshold(options, case), clip, both)
        plan = with_rows(plan, controls=controls)
        z = None
        if plan.stochastic:
            bank = self.golden.get(self.golden.spec["noise_bank"])
            draw = g.noise_rows().get(case["family"])
            z = bank[: plan.length] if draw is None else bank[draw(case, plan)]
        length = 64 if plan.length > 24 else 24
        if z is None:
            length = max(length, plan.length)
            plan = fd.plan.pad(plan, length, registers=8, writes=4)
        got = np.asarray(run(plan, arrays["x_init"], z))
        want, tol = arrays["x_final"], case["tol"]
        allowed = tol["atol"] + tol["rtol"] * np.abs(want).max()
        if case["family"] == "deis-rhoab":  # its own sum is not offered
            allowed = max(allowed, case.get("tol_exact_weights", 0.0))
        return float(np.abs(got - want).max()), float(allowed)

    def run_direct(self, case: dict, options: dict, arrays: dict):
        """The same for what is not a plan: its own loop on the exact model."""
        outputs = exact_model(self.golden.spec["model"])
        exact = lambda x, c, carry: (outputs(x, c.alpha, c.sigma)[1], carry)  # noqa: E731
        exact = transformed(exact, g.threshold(options, case), None, False)
        got = g.direct_families()[case["family"]](case, options, arrays, exact)
        want, tol = arrays["x_final"], case["tol"]
        allowed = tol["atol"] + tol["rtol"] * np.abs(want).max()
        return float(np.abs(np.asarray(got) - want).max()), float(allowed)


@pytest.fixture(scope="module")
def runners():
    made: dict = {}
    return lambda name: made.setdefault(name, Runner(FOLDERS[name]))


@pytest.mark.skipif(not families(g.FOLDER), reason=f"no golden folder at {g.FOLDER}")
def test_the_full_golden_folder_is_there():
    assert families(g.FOLDER)


@pytest.mark.parametrize(("name", "family"), CASES)
def test_golden(name, family, runners, record_property):
    runner = runners(name)
    cases = [c for c in runner.golden.spec["cases"] if c["family"] == family]
    passed, failed, waiting = 0, [], []
    for case in cases:
        try:
            gap, allowed = runner.run(case)
        except g.NotYet as reason:
            waiting.append(f"{case['id']}: {reason}")
            continue
        if gap <= allowed:
            passed += 1
        else:
            failed.append(f"{case['id']}: off by {gap:.2e}, allowed {allowed:.2e}")
    counts = (passed, len(failed), len(waiting))
    record_property("golden", (f"{name}: {family}", counts))
    print(
        f"{name} {family}: passed {counts[0]}, failed {counts[1]}, not yet {counts[2]}"
    )
    print("\n".join(waiting))
    assert not failed, "\n" + "\n".join(failed)


def test_golden_model_is_ours():
    """The library's exact mixture agrees with the stored outputs."""
    folder = g.FOLDER if families(g.FOLDER) else SMALL
    golden = g.Golden(folder)
    spec = golden.spec["model"]
    model = fd.models.gaussian_mixture(*(spec[k] for k in MODEL))
    for entry in golden.spec["model_check"]:
        get = lambda v: golden.get(v) if isinstance(v, list) else v  # noqa: E731
        x, alpha, sigma = get(entry["x"]), entry["alpha"], entry["sigma"]
        got = model.posterior_mean(jnp.asarray(x), alpha, sigma)
        np.testing.assert_allclose(got, get(entry["x0"]), rtol=0, atol=1e-12)
