"""Noise of the path: increments compose, grids share it, rows stay independent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.noise import _ou_tree, streams

from . import mixture

VP = fd.processes.vp_linear()
FLOW = fd.processes.flow()


def times(n, low=-3.0, high=3.0, process=VP):
    return process.half_log_snr_inverse(np.linspace(low, high, n + 1))


def dense(path, ids):
    """Weights of every row on the listed nodes, (R, len(ids))."""
    table = np.zeros((len(path.nodes), len(ids)))
    for row, (nodes, weights) in enumerate(zip(path.nodes, path.weights, strict=True)):
        for n, w in zip(nodes, weights, strict=True):
            table[row, ids.index(n)] += w
    return table


def union(*paths):
    return sorted({n for p in paths for n in np.unique(p.nodes)})


def path_of(ts, tau2=1.0, process=VP, **options):
    plan = fd.solvers.sde_dpmpp_1(process, ts, tau2=tau2)
    return fd.noise.ou_path(plan, jax.random.key(0), tau2=tau2, **options)


@pytest.mark.parametrize("tau2", [1.0, 0.3])
def test_rows_are_independent_unit_normals_exactly(tau2):
    path = path_of(times(23), tau2)
    table = dense(path, union(path))
    np.testing.assert_allclose(table @ table.T, np.eye(23), atol=1e-12)


@pytest.mark.parametrize("tau2", [1.0, 0.3])
def test_increments_compose_exactly_on_uneven_grids(tau2):
    """n(s->t)/sigma_t = e^{-T(m->t)} n(s->m)/sigma_m + n(m->t)/sigma_t."""
    fine = np.sort(np.random.default_rng(0).uniform(-3, 3, 31))
    coarse = fine[::5]
    paths = [
        path_of(VP.half_log_snr_inverse(v), tau2, depth=20) for v in (fine, coarse)
    ]
    ids = union(*paths)
    z, big = (dense(p, ids) for p in paths)
    step = tau2 * np.diff(fine)
    fresh = np.sqrt(-np.expm1(-2 * step))[:, None] * z
    for k in range(len(coarse) - 1):
        total = np.zeros(len(ids))
        for i in range(5 * k, 5 * k + 5):
            total = np.exp(-step[i]) * total + fresh[i]
        want = np.sqrt(-np.expm1(-2 * tau2 * (coarse[k + 1] - coarse[k]))) * big[k]
        np.testing.assert_allclose(total, want, atol=1e-12)


def test_a_window_of_noise_has_the_same_path_on_both_grids():
    """Stretches without noise leave the path where it was."""
    few, many = times(6), times(24)
    on = lambda n: (np.arange(n) // (n // 3) == 1).astype(float)  # noqa: E731
    paths = [path_of(few, on(6)), path_of(many, on(24))]
    ids = union(*paths)
    big, z = (dense(p, ids) for p in paths)
    np.testing.assert_allclose(big @ big.T, np.diag(on(6)), atol=1e-12)
    h = 6 / 24
    total = sum(
        np.exp(-(11 - i) * h) * np.sqrt(-np.expm1(-2 * h)) * z[i] for i in range(8, 12)
    )
    np.testing.assert_allclose(total, np.sqrt(-np.expm1(-2.0)) * big[2], atol=1e-12)


def test_exact_ends():
    """alpha = 0 forgets the past, sigma = 0 takes no noise, the rest is one path."""
    ts = np.concatenate([[1.0], times(8, process=FLOW), [0.0]])
    path = path_of(ts, process=FLOW)
    table = dense(path, union(path))
    np.testing.assert_allclose(table @ table.T, np.eye(10), atol=1e-12)
    inner = path_of(ts[1:-1], process=FLOW)
    ids = union(path, inner)
    np.testing.assert_allclose(dense(path, ids)[1:-1], dense(inner, ids), atol=1e-12)


def test_values_are_those_of_the_weights():
    path, like = path_of(times(5)), jnp.zeros((3, 2))
    got = np.asarray(path(2, like))
    keys = jax.random.fold_in(jax.random.key(0), streams.PATH)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(keys, jnp.arange(3))
    want = sum(
        w * fd.noise.normal(keys, n, like)
        for n, w in zip(path.nodes[2], path.weights[2], strict=True)
    )
    np.testing.assert_allclose(got, want, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize(
    "solver, options",
    [
        ("ddim", {"eta": 1.0}),
        ("sde_dpmpp_2m", {}),
        ("sde_dpmpp_3m", {}),
        ("seeds", {}),
        ("sa_solver", {}),
    ],
)
def test_strong_order_is_one(solver, options):
    """Pathwise, on one path: 1 whatever the drift's order."""
    x = fd.prior(VP, jax.random.key(1), (400, 1))
    make = getattr(fd.solvers, solver)
    outs = []
    for n in (32, 128, 512):
        plan = make(VP, times(n), **options)
        path = fd.noise.ou_path(plan, jax.random.key(0), depth=14)
        outs.append(np.asarray(fd.sample(plan, mixture.MODEL, x, noise=path)))
    few, many = (np.sqrt(np.mean((a - outs[-1]) ** 2)) for a in outs[:2])
    # independent errors of squares 1 / n^2: the reference's own part is missing
    want = np.sqrt((32.0**-2 - 512.0**-2) / (128.0**-2 - 512.0**-2))
    assert abs(np.log(few / many) / np.log(want) - 1) < 0.25
    # noise drawn by the row is another path on each grid: nothing converges
    drawn = [
        np.asarray(
            fd.sample(
                make(VP, times(n), **options), mixture.MODEL, x, key=jax.random.key(0)
            )
        )
        for n in (32, 128)
    ]
    assert np.sqrt(np.mean((drawn[0] - drawn[1]) ** 2)) > 5 * few


@pytest.mark.slow
def test_sample_i_is_the_same_at_any_batch_size_and_after_a_restart():
    plan = fd.solvers.sde_dpmpp_2m(VP, times(8))
    path = fd.noise.ou_path(plan, jax.random.key(4))
    x = fd.prior(VP, jax.random.key(1), (6, 3))
    whole = fd.sample(plan, mixture_of_three(), x, noise=path)
    few = fd.sample(plan, mixture_of_three(), x[:2], noise=path)
    np.testing.assert_array_equal(whole[:2], few)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(4), jnp.arange(6))
    state = fd.init(plan, x)
    for part in (fd.plan.slice_rows(plan, 0, 3), fd.plan.slice_rows(plan, 3)):
        state, _ = fd.run(part, mixture_of_three(), state, noise=path)
    np.testing.assert_allclose(state.point, whole, rtol=1e-13)
    own = fd.noise.ou_path(plan, keys)
    assert fd.sample(plan, mixture_of_three(), x, noise=own).shape == x.shape


def mixture_of_three():
    return fd.models.gaussian(0.3, 0.5)


def test_a_new_key_does_not_recompile_and_trees_and_float32_work():
    traces = []

    def net(x, context, carry):
        traces.append(1)
        return jax.tree.map(lambda v: v * 0.5, x), carry

    plan = fd.solvers.sde_dpmpp_1(VP, times(4))
    x = {"a": jnp.ones((2, 3), jnp.float32), "b": jnp.ones((2,), jnp.float32)}
    outs = [
        fd.sample(plan, net, x, noise=fd.noise.ou_path(plan, jax.random.key(k)))
        for k in range(2)
    ]
    assert len(traces) == 1 and outs[0]["a"].dtype == jnp.float32
    assert np.abs(outs[0]["a"] - outs[1]["a"]).max() > 0.1


def test_bad_input():
    plan, key = fd.solvers.sde_dpmpp_1(VP, times(4)), jax.random.key(0)
    model, x = mixture_of_three(), jnp.ones((2, 3))
    with pytest.raises(ValueError, match="tau2 must be the plan's own: row 0"):
        fd.noise.ou_path(plan, key, tau2=0.5)
    with pytest.raises(ValueError, match="must draw noise, this one"):
        fd.noise.ou_path(fd.solvers.ddim(VP, times(4)), key)
    with pytest.raises(ValueError, match="tau2 must be in .0, inf., got -1"):
        fd.noise.ou_path(plan, key, tau2=-1.0)
    with pytest.raises(ValueError, match="tau2 must be one number, or one per row"):
        fd.noise.ou_path(plan, key, tau2=np.ones(3))
    with pytest.raises(ValueError, match="span must cover"):
        fd.noise.ou_path(plan, key, span=2.0)
    with pytest.raises(ValueError, match="depth must lie in"):
        fd.noise.ou_path(plan, key, depth=0)
    with pytest.raises(ValueError, match="depth must tell the rows apart"):
        path_of(times(64), depth=6)
    churn = fd.solvers.edm_churn(fd.processes.edm(), [10.0, 1.0, 0.1], s_churn=1.0)
    with pytest.raises(ValueError, match="before its first row"):
        fd.noise.ou_path(churn, key)
    per_element = fd.solvers.sde_dpmpp_1(VP, np.stack([times(4)] * 3, 1))
    with pytest.raises(ValueError, match="one level per row"):
        fd.noise.ou_path(per_element, key)
    path = fd.noise.ou_path(plan, key)
    other = fd.solvers.sde_dpmpp_1(VP, times(5))
    with pytest.raises(ValueError, match="must be the path of the plan"):
        fd.sample(other, model, x, noise=path)
    loud = fd.solvers.sde_dpmpp_1(VP, times(4), s_noise=1.1)
    with pytest.raises(ValueError, match="exact=False"):
        fd.noise.ou_path(loud, key)
    assert fd.noise.ou_path(loud, key, exact=False).weights.shape[0] == 4


def test_a_wrong_bridge_is_seen(monkeypatch):
    right = _ou_tree._bridge

    def wrong(*at):
        lw, rw, std = right(*at)
        return lw, rw, 1.001 * std

    monkeypatch.setattr(_ou_tree, "_bridge", wrong)
    path = path_of(times(23))
    table = dense(path, union(path))
    assert np.abs(table @ table.T - np.eye(23)).max() > 1e-4
