"""Time shift: the naive loop in both forms, what the inner model is told, jit, vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd

from . import mixture as m
from .oracles import special as o

VP, EDM, FLOW = (m.PROCESSES[k] for k in ("vp", "edm", "flow"))
MEAN, VARIANCE = 0.3, 0.2
MODEL = fd.models.gaussian(np.full((4, 3), MEAN), VARIANCE)
X = np.random.default_rng(0).normal(size=(5, 4, 3))
time_shift = fd.transforms.time_shift


def predict(x, alpha, sigma):
    gain = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
    return MEAN + gain * (x - alpha * MEAN)


GRIDS = {
    "vp": (VP, np.linspace(1.0, 0.05, 9), 0.1, 0.4),
    "flow": (FLOW, np.linspace(1.0, 0.05, 9), 0.1, 0.3),
    "edm": (EDM, np.geomspace(80.0, 0.1, 9), 4.0, 1.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [False, True])
@pytest.mark.parametrize("grid", sorted(GRIDS))
def test_equals_the_naive_loop(grid, outputs):
    process, ts, window, cutoff = GRIDS[grid]
    plan = fd.solvers.ddim(process, ts, second_noise=outputs)
    model = time_shift(MODEL, process, window=window, cutoff=cutoff, outputs=outputs)
    x = X * process.sigma(ts[0])
    got = fd.sample(plan, model, jnp.asarray(x))
    want = o.time_shift_ddim(process, ts, predict, x, window, cutoff, 33, outputs)
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-12)
    plain = fd.sample(fd.solvers.ddim(process, ts), MODEL, jnp.asarray(x))
    assert abs(np.asarray(got) - plain).max() > 1e-4


def test_above_the_cutoff_nothing_moves():
    plan = fd.solvers.ddim(VP, GRIDS["vp"][1])
    model = time_shift(MODEL, VP, window=0.1, cutoff=1.0)
    got = fd.sample(plan, model, jnp.asarray(X))
    want = fd.sample(plan, MODEL, jnp.asarray(X))
    np.testing.assert_allclose(got, want, rtol=1e-12)


def context(time, index=3, **more):
    return fd.Context(index, time, VP.alpha(time), VP.sigma(time), **more)


def test_times_are_found():
    """A sample whose variance is that of tau is sent to tau, inside the window."""
    inside, outside = 0.52, 0.9
    x = np.stack([VP.sigma(t) * X[0] / X[0].std() for t in (inside, outside)])
    model = time_shift(MODEL, VP, window=0.1, cutoff=0.2, candidates=201)

    @jax.jit
    def times(model, where):
        return model.times(jnp.asarray(x), where)

    found = times(model, context(0.5))
    np.testing.assert_allclose(found, [inside, 0.55], atol=3e-4)
    for where in (context(0.5, index=0), context(0.1)):  # first row, below the cutoff
        np.testing.assert_allclose(times(model, where), where.time)
    own = time_shift(MODEL, VP, window=0.1, cutoff=0.2, data_variance=1.0)
    np.testing.assert_allclose(times(own, context(0.5)), 0.5, atol=0.06)


def test_networks_get_their_clock_per_sample():
    seen = []
    process = fd.processes.vp_linear(train_steps=1000)

    def net(x, t):
        seen.append(t.shape)
        return x * 0.9 + t[:, None, None] * 0

    inner = fd.models.denoiser(net, process, prediction="v", batch_time=True)
    model = time_shift(inner, process, window=0.1, cutoff=0.2)
    plan = fd.solvers.ddim(process, GRIDS["vp"][1])
    assert np.isfinite(fd.sample(plan, model, jnp.asarray(X))).all()
    assert set(seen) == {(5,)}
    told = model._controls(jnp.asarray([0.5, 0.52]), context(0.5))["model_time"]
    np.testing.assert_allclose(told, [499.0, 519.0])
    caller = context(0.5, controls={"model_time": 7.0, "other": 1})
    kept = model._controls(jnp.asarray([0.5, 0.52]), caller)
    np.testing.assert_allclose(kept["model_time"], [7.0, 519.0])
    assert kept["other"] == 1
    assert model._controls(jnp.asarray([0.5]), context(0.5, controls=(1,))) == (1,)


def test_guidance_outside_and_vmap():
    class Conditional:
        def __call__(self, x, context, carry):
            y = context.condition[:, None, None]
            return x * 0.5 + y + 0 * context.alpha, carry

    jax.tree_util.register_pytree_node(
        Conditional, lambda _: ((), None), lambda *_: Conditional()
    )
    shifted = time_shift(Conditional(), VP, window=0.1, cutoff=0.2)
    guided = fd.guidance.cfg(shifted, 2.0, condition=jnp.ones(5), null=0.0)
    plan = fd.solvers.ddim(VP, GRIDS["vp"][1])
    assert np.isfinite(fd.sample(plan, guided, jnp.asarray(X))).all()

    def end(window, x):
        model = time_shift(MODEL, VP, window=window, cutoff=jnp.asarray(0.4))
        return fd.sample(plan, model, x)

    windows = jnp.asarray([0.05, 0.1])
    out = jax.jit(jax.vmap(end, (0, None)))(windows, jnp.asarray(X))
    for got, window in zip(out, windows, strict=True):
        np.testing.assert_allclose(got, end(window, jnp.asarray(X)), rtol=1e-12)


def test_bad_input():
    with pytest.raises(ValueError, match="window must be in"):
        time_shift(MODEL, VP, window=0.0, cutoff=0.3)
    with pytest.raises(ValueError, match="candidates must be odd"):
        time_shift(MODEL, VP, window=0.1, cutoff=0.3, candidates=10)
    model = time_shift(m.MODEL, VP, window=0.1, cutoff=0.3)
    with pytest.raises(ValueError, match="two elements or more"):
        fd.sample(fd.solvers.ddim(VP, GRIDS["vp"][1]), model, jnp.ones((5, 1)))
