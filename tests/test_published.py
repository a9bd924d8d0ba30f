"""Samples of the published scheduler classes, recorded by scripts/parity_schedulers."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.interop import from_scheduler_config
from fastdiff_jax.interop._classes import CLASSES

from .published import BANK, START, Case, apart, network, ours

CASES = json.loads((Path(__file__).parent / "golden" / "schedulers.json").read_text())

pytestmark = pytest.mark.filterwarnings("ignore:.*change nothing")


def recorded(case):
    sides = ("labels", "initial", "sample")
    return Case(**{k: v for k, v in case.items() if k not in sides}), case


@pytest.mark.parametrize("name", sorted(CASES))
def test_published_samples(name):
    for known in CASES[name]:
        case, want = recorded(known)
        got = ours(case)
        assert apart(want["labels"], got.labels) < 1e-8, case
        assert apart(want["initial"], [got.initial]) < 1e-8, case
        assert apart(want["sample"], np.ravel(got.sample)) < 1e-8, case


def test_every_class_is_recorded():
    assert set(CASES) == set(CLASSES)
    assert all(len(cases) > 1 for cases in CASES.values())


@pytest.mark.parametrize(
    "name",
    [
        "LCMScheduler",
        "DPMSolverSDEScheduler",
        "CogVideoXDPMScheduler",
        "DDIMInverseScheduler",
    ],
)
def test_the_engine_runs_them(name):
    """Compiled, with the scheduler's own denoiser, and the same recorded noise."""
    case, want = recorded(CASES[name][0])
    config = {"_class_name": name, **case.config}
    own = case.options.get("timesteps")
    steps = None if own else case.steps
    made = from_scheduler_config(config, steps, begin=case.begin, **case.options)
    model = made.denoiser(lambda x, t: network(x, t, jnp))
    noise = BANK[: made.plan.length] if made.plan.stochastic else None
    got = fd.sample(made.plan, model, jnp.asarray(START), noise=noise)
    assert apart(want["sample"], np.ravel(got)) < 1e-8


def test_labels_stand_for_the_levels():
    """Default grids round no label; inversion asks one label ahead.

    Between labels the level is linear in the label, but the label in the level's
    logarithm: inner levels (KDPM2, DPM++ SDE) come back to 1e-3.
    """
    whole = {"PNDMScheduler": "skip_prk_steps", "FlaxPNDMScheduler": "skip_prk_steps"}
    for name in set(CLASSES) - {"DDIMInverseScheduler"}:
        config = {"_class_name": name} | ({whole[name]: True} if name in whole else {})
        if name == "FlaxDDPMScheduler":
            config["num_train_timesteps"] = 20
        made = from_scheduler_config(config, 20)
        level = made.plan.rows.level
        for told, has in zip(made.label_levels(), level[1:], strict=True):
            np.testing.assert_allclose(told, has, rtol=1e-3, err_msg=name)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ddim_undoes_its_inverse(spacing):
    """A network that does not look at x: both directions read the same E."""
    config = {"clip_sample": False, "timestep_spacing": spacing}
    up, down = (
        from_scheduler_config({"_class_name": f"{name}Scheduler", **config}, 10)
        for name in ("DDIMInverse", "DDIM")
    )
    np.testing.assert_array_equal(up.labels[::-1], down.labels)

    def answer(made):
        alpha, sigma = made.plan.rows.level.alpha, made.plan.rows.level.sigma

        def predict(x, i):
            noise = np.full_like(x, np.sin(made.labels[i]))
            data = (x - sigma[i] * noise) / alpha[i]
            return (data, noise) if made is up else data

        return predict

    x = np.linspace(-2, 2, 5)
    noised = fd.plan.replay(up.plan, answer(up), x)
    assert np.abs(noised - x).max() > 0.1
    np.testing.assert_allclose(
        fd.plan.replay(down.plan, answer(down), noised), x, atol=1e-9
    )


def test_the_parity_script_says_what_it_needs():
    if importlib.util.find_spec("diffusers"):
        pytest.skip("diffusers is installed")
    script = Path(__file__).parents[1] / "scripts" / "parity_schedulers"
    found = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True
    )
    assert found.returncode == 1
    assert found.stdout == (
        'no published library here; run: pip install -e ".[parity]"\n'
    )
