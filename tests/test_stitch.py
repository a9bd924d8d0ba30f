"""T-Stitch: the scheduled model runs, alone; carries; bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd

from . import mixture as m

VP = m.PROCESSES["vp"]
PLAN = fd.solvers.ddim(VP, fd.grids.uniform(VP, 10))
TIMES = PLAN.rows.level.time
SMALL = fd.models.gaussian(0.3, 0.9)
X = jnp.asarray(np.linspace(-2, 2, 5)[:, None])
stitch, schedule = fd.transforms.stitch, fd.transforms.stitch_schedule


def naive(models, which):
    x = np.asarray(X)
    a, s = (
        np.append(v, e) for v, e in zip(PLAN.rows.level[1:], PLAN.end[1:], strict=True)
    )
    for i, k in enumerate(which):
        d = np.asarray(models[k].posterior_mean(jnp.asarray(x), a[i], s[i]))
        x = a[i + 1] * d + s[i + 1] * (x - a[i] * d) / s[i]
    return x


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.0, 0.4, 1.0])
def test_two_models(ratio):
    models = [SMALL, m.MODEL]
    controls = schedule(ratio, TIMES)
    assert controls["model"].dtype == np.int32
    np.testing.assert_array_equal(controls["model"], TIMES <= 1 - ratio)
    got = fd.sample(PLAN, stitch(models), X, controls=controls)
    np.testing.assert_allclose(got, naive(models, controls["model"]), rtol=1e-12)


def test_three_models_and_shares_of_rows():
    column = schedule((0.3, 0.2), np.geomspace(80, 0.1, 10), span=None)["model"]
    np.testing.assert_array_equal(column, [0] * 3 + [1] * 2 + [2] * 5)
    sigmas = np.geomspace(80, 0.1, 10)
    for share, rows in ((0.0, 0), (0.09, 0), (0.1, 1), (0.35, 3), (0.4, 4), (1.0, 10)):
        assert (schedule(share, sigmas, span=None)["model"] == 0).sum() == rows
    models = [SMALL, fd.models.gaussian(-0.1, 0.5), m.MODEL]
    got = fd.sample(PLAN, stitch(models), X, controls={"model": column})
    np.testing.assert_allclose(got, naive(models, column), rtol=1e-12)


@pytest.mark.parametrize("labels", [False, True])
def test_shares_of_the_clock(labels):
    """Ten rows from t = 1, or the published labels 999, 899, ...: the same counts."""
    times = np.linspace(1, 0.1, 10) - labels * 1e-3
    for share, rows in ((0.0, 0), (0.1, 1), (0.4, 4), (0.5, 5), (1.0, 10)):
        assert (schedule(share, times)["model"] == 0).sum() == rows
    at_zero = schedule(1.0, np.linspace(1, 0, 5))["model"]
    np.testing.assert_array_equal(at_zero, 0)


def test_only_the_scheduled_model_runs():
    ran = []

    def net(name):
        def fn(x, t):
            jax.debug.callback(lambda: ran.append(name))
            return 0.9 * x + 0 * t

        return fd.models.denoiser(fn, VP, prediction="data")

    controls = schedule(0.4, TIMES)
    out = fd.sample(PLAN, stitch([net("small"), net("large")]), X, controls=controls)
    jax.block_until_ready(out)
    jax.effects_barrier()
    assert (ran.count("small"), ran.count("large")) == (5, 5)


def test_each_model_keeps_its_own_carry():
    class Counting:
        def __init__(self, gain):
            self.gain = gain

        def __call__(self, x, context, carry):
            del context
            return self.gain * x, carry + 1

        def initial_carry(self, x):
            del x
            return jnp.zeros((), jnp.int32)

    jax.tree_util.register_pytree_node(
        Counting, lambda c: ((c.gain,), None), lambda _, g: Counting(*g)
    )
    both = stitch([Counting(jnp.asarray(0.5)), Counting(jnp.asarray(0.9))])
    _, counts = fd.sample(
        PLAN,
        both,
        X,
        controls=schedule(0.4, TIMES),
        collect=lambda state, _: state.carry,
    )
    assert [int(c[-1]) for c in counts] == [5, 5]


def test_sweep_of_ratios_is_one_program():
    both = stitch([SMALL, m.MODEL])
    columns = jnp.stack(
        [jnp.asarray(schedule(r, TIMES)["model"]) for r in (0.2, 0.4, 0.8)]
    )
    out = jax.vmap(lambda c: fd.sample(PLAN, both, X, controls={"model": c}))(columns)
    for got, column in zip(out, columns, strict=True):
        want = naive([SMALL, m.MODEL], np.asarray(column))
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_bad_input():
    both = stitch([SMALL, m.MODEL])
    with pytest.raises(ValueError, match="at least one model"):
        stitch([])
    with pytest.raises(ValueError, match="reads controls"):
        fd.sample(PLAN, both, X)
    with pytest.raises(ValueError, match=r"integers in 0\.\.1"):
        fd.sample(PLAN, both, X, controls={"model": np.full(10, 2)})
    with pytest.raises(ValueError, match="sum to at most 1"):
        schedule((0.7, 0.7), TIMES)
    with pytest.raises(ValueError, match="must lie in span"):
        schedule(0.4, np.geomspace(80, 0.1, 10))
