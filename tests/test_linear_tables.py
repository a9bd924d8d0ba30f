"""OLSS and bespoke tables: any known plan unrolled, traced weights, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.solvers import bespoke, olss, unroll

from . import mixture as m

VP, FLOW = m.PROCESSES["vp"], m.PROCESSES["flow"]
TS = fd.grids.log_snr(VP, 8)
START = np.linspace(-2, 2, 7)[:, None]
NAMES = ("ddim", "dpmpp_2m", "unipc", "heun", "dpmpp_3s")


def host(plan, x=None):
    """The plan's sample, row by row in NumPy."""
    _, alpha, sigma = plan.rows.level
    start = START[:, 0] if x is None else x
    return fd.plan.replay(plan, lambda x, i: m.predict(x, alpha[i], sigma[i]), start)


def same(a, b):
    np.testing.assert_allclose(host(a), host(b), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("prediction", ["data", "noise", "velocity"])
@pytest.mark.parametrize("name", NAMES)
def test_an_unrolled_plan_gives_the_same_samples(name, prediction):
    known = fd.solvers.find(name).build(VP, TS)
    table = unroll(known, VP, prediction=prediction)
    assert not np.triu(table.weights, 1).any()
    plan = olss(VP, *table, prediction=prediction)
    assert plan.registers == 1 + plan.nfe == 1 + known.nfe
    same(plan, known)


def test_in_the_engine():
    known = fd.solvers.unipc(VP, TS)
    ends = [m.run(p, jnp.asarray(START)) for p in (olss(VP, *unroll(known)), known)]
    np.testing.assert_allclose(*ends, rtol=1e-12, atol=1e-12)


def test_exact_ends():
    ts = np.linspace(1, 0, 7)
    known = fd.solvers.dpmpp_2m(FLOW, ts)
    same(olss(FLOW, *unroll(known, prediction="data"), prediction="data"), known)
    euler = fd.solvers.euler(FLOW, ts)
    table = unroll(euler, FLOW, prediction="velocity")
    np.testing.assert_allclose(table.state, 1.0, rtol=1e-12)
    want = np.tril(np.full((6, 6), -1 / 6))
    np.testing.assert_allclose(table.weights, want, atol=1e-12)
    same(bespoke(FLOW, *table), euler)


def test_equals_a_naive_loop():
    rng = np.random.default_rng(0)
    ts = m.times_between(VP, 4)
    w, e = rng.normal(size=4), np.tril(rng.normal(size=(4, 4)))
    a, s = VP.alpha(ts), VP.sigma(ts)
    x0 = START[:, 0]
    x, found = x0, []
    for i in range(4):
        found.append((x - a[i] * m.predict(x, a[i], s[i])) / s[i])
        x = w[i] * x0 + sum(e[i, j] * found[j] for j in range(i + 1))
    np.testing.assert_allclose(host(olss(VP, ts, w, e)), x, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_weights_and_times_can_be_learned():
    table = unroll(
        fd.solvers.ddim(VP, m.times_between(VP, 3)), VP, prediction="velocity"
    )
    table = jax.tree.map(jnp.asarray, table)
    target = host(fd.solvers.unipc(VP, m.times_between(VP, 40)))[:, None]

    def loss(table):
        out = fd.sample(bespoke(VP, *table), m.MODEL, jnp.asarray(START))
        return ((out - target) ** 2).mean()

    learn = jax.jit(jax.value_and_grad(loss))
    value, slope = learn(table)
    assert all(np.isfinite(g).all() and np.any(g) for g in slope)
    assert not np.triu(slope.weights, 1).any()
    size = sum((g**2).sum() for g in slope)
    better = jax.tree.map(lambda w, g: w - 0.02 * value / size * g, table, slope)
    assert learn(better)[0] < value


def test_bad_input():
    w, e = np.ones(8), np.tril(np.ones((8, 8)))
    with pytest.raises(ValueError, match="need state"):
        olss(VP, TS, w[:-1], e)
    wrong = e.copy()
    wrong[2, 5] = 1
    with pytest.raises(ValueError, match=r"weights\[2, 5\] must be 0"):
        olss(VP, TS, w, wrong)
    with pytest.raises(ValueError, match="prediction must be one of"):
        olss(VP, TS, w, e, prediction="v")
    known = fd.solvers.ddim(VP, TS)
    with pytest.raises(ValueError, match="need the process|needs? the process"):
        unroll(known, prediction="velocity")
    for plan in (
        fd.solvers.ddim(VP, TS, eta=1.0),
        fd.solvers.ddim(VP, TS, second_noise=True),
        fd.plan.pad(known, 12),
        jax.tree.map(jnp.asarray, known),
    ):
        with pytest.raises(ValueError, match="unroll needs a deterministic plan"):
            unroll(plan)
    with pytest.raises(ValueError, match="alpha = 0"):
        unroll(fd.solvers.ddim(FLOW, np.linspace(1, 0, 4)))
