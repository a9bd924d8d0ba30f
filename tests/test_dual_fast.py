"""DualFast's reconstruction: the stated formula, both references, off at 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd

from . import mixture as m
from .oracles import special as o

VP, FLOW = m.PROCESSES["vp"], m.PROCESSES["flow"]
TS = np.linspace(0.95, 0.05, 8)
START = np.linspace(-2, 2, 7)
dual_fast = fd.transforms.dual_fast


def run(plan, model, **options):
    return np.asarray(fd.sample(plan, model, jnp.asarray(START[:, None]), **options))


@pytest.mark.parametrize("reference", ["first", "previous"])
@pytest.mark.parametrize("c", [0.3, -0.3])
def test_equals_the_naive_loop(reference, c):
    plan = fd.solvers.ddim(VP, TS)
    model = dual_fast(m.MODEL, c, reference=reference)
    want = o.dual_fast_ddim(VP, TS, m.predict, START, [c] * 7, reference)
    np.testing.assert_allclose(run(plan, model)[:, 0], want, rtol=1e-12)
    controls = fd.transforms.dual_fast_schedule(7, c, power=2.0)
    want = o.dual_fast_ddim(
        VP, TS, m.predict, START, c * (1 - np.arange(7) / 7) ** 2, reference
    )
    got = run(plan, model, controls=controls)[:, 0]
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("name", ["unipc", "edm_heun"])
def test_zero_is_off_for_every_solver(name):
    plan = fd.solvers.find(name).build(VP, TS)
    got, want = run(plan, dual_fast(m.MODEL, 0.0)), run(plan, m.MODEL)
    np.testing.assert_allclose(got, want, rtol=1e-13)
    assert abs(run(plan, dual_fast(m.MODEL, 0.3)) - want).max() > 1e-3


def test_exact_start_and_repeats():
    """alpha = 0 on the first row: nothing to compare with, nothing divided by 0."""
    plan = fd.solvers.ddim(FLOW, np.linspace(1, 0, 6))
    model = dual_fast(m.MODEL, 0.2, reference="previous")
    first, again = run(plan, model), run(plan, model)
    assert np.isfinite(first).all() and (first == again).all()


def test_coefficient_does_not_recompile_and_has_a_gradient():
    plan = fd.solvers.ddim(VP, TS)

    def end(c):
        return fd.sample(plan, dual_fast(m.MODEL, c), jnp.asarray(START[:, None])).sum()

    slope = jax.jit(jax.grad(end))(jnp.asarray(0.1))
    numeric = (end(jnp.asarray(0.1001)) - end(jnp.asarray(0.0999))) / 2e-4
    np.testing.assert_allclose(slope, numeric, rtol=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match="reference must be"):
        dual_fast(m.MODEL, 0.1, reference="last")
    with pytest.raises(ValueError, match="(rows|power) must be in"):
        fd.transforms.dual_fast_schedule(0, 0.1)
    with pytest.raises(ValueError, match="(rows|power) must be in"):
        fd.transforms.dual_fast_schedule(3, 0.1, power=-1.0)
