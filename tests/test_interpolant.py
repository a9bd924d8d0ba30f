"""Stochastic interpolants: exact marginals, orders, both directions, exact ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.processes.interpolant import Interpolant

from .oracles import interpolant as oracle
from .table import spoiled

MEAN, VAR = np.array([2.0, -1.0]), np.array([0.3, 1.5])
BRIDGE = fd.processes.interpolant(scale=0.5)
PATHS = {
    "bridge": BRIDGE,
    "parabola": fd.processes.interpolant(gamma="parabola", scale=1.5),
    "sin2": fd.processes.interpolant("trigonometric", "sin2", scale=0.8),
    "zero": fd.processes.interpolant(gamma="zero"),
}


def rates(process):
    return {"ode": 0.0, "constant": 0.3, "matched": lambda t: 2 * process.sigma(t) ** 2}


def law(process, t, mean=MEAN, var=VAR):
    a, b, g = process.alpha(t), process.beta(t), process.sigma(t)
    return a * mean[0] + b * mean[1], a**2 * var[0] + b**2 * var[1] + g**2


def respond(plan, process, mean=MEAN, var=VAR):
    """(constant, gain, noise gains) of a plan on Gaussian ends: it is affine."""
    t = plan.rows.level.time
    a, b = process.alpha(t), process.beta(t)
    m, c = law(process, t, mean, var)
    c = np.where(c > 0, c, 1.0)

    def predict(x, i):
        gap = x - m[i]
        return (
            mean[0] + a[i] * var[0] / c[i] * gap,
            mean[1] + b[i] * var[1] / c[i] * gap,
        )

    n = plan.length
    x, z = np.zeros(n + 2), np.zeros((n, n + 2))
    x[1] = 1
    z[np.arange(n), 2 + np.arange(n)] = 1
    out = fd.plan.replay(plan, predict, x, z)
    return out[0], out[1] - out[0], out[2:] - out[0]


def moments(plan, process, start, mean=MEAN, var=VAR):
    constant, gain, noise = respond(plan, process, mean, var)
    m, c = law(process, start, mean, var)
    return constant + gain * m, gain**2 * c + (noise**2).sum()


@pytest.mark.parametrize("name", PATHS)
def test_processes_have_exact_ends_and_right_rates(name):
    process = PATHS[name]
    assert process.alpha(0.0) == 1 and process.alpha(1.0) == 0
    assert process.beta(0.0) == 0 and process.beta(1.0) == 1
    assert process.sigma(0.0) == 0 and process.sigma(1.0) == 0
    t, d = np.linspace(0.1, 0.9, 5), 1e-6
    for k, f in enumerate((process.alpha, process.beta, process.sigma)):
        slope = (f(t + d) - f(t - d)) / (2 * d)
        np.testing.assert_allclose(process.rates(t)[k], slope, atol=1e-8)
    found = [np.asarray(f(jnp.asarray(t))) for f in (process.sigma, process.alpha)]
    np.testing.assert_allclose(found, [process.sigma(t), process.alpha(t)], rtol=1e-14)


@pytest.mark.parametrize("name", ["bridge", "parabola", "sin2"])
@pytest.mark.parametrize("rate", ["ode", "constant", "matched"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_point_ends_have_exact_marginals(name, rate, order):
    process = PATHS[name]
    for ts in ([0.9, 0.7, 0.66, 0.3, 0.05], [0.1, 0.2, 0.5, 0.51, 0.97]):
        ts = np.array(ts)
        plan = fd.solvers.interpolant(
            process, ts, eps=rates(process)[rate], order=order
        )
        found = moments(plan, process, ts[0], var=np.zeros(2))
        want = law(process, ts[-1], var=np.zeros(2))
        np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("rate", ["constant", "matched"])
def test_stochastic_plan_is_exact_from_end_to_end_for_points(rate):
    ts = np.linspace(1, 0, 6)[:-1]
    plan = fd.solvers.interpolant(BRIDGE, ts, eps=rates(BRIDGE)[rate])
    found = moments(plan, BRIDGE, 1.0, var=np.zeros(2))
    np.testing.assert_allclose(found, law(BRIDGE, ts[-1], var=np.zeros(2)), rtol=1e-12)


def step_weights(plan):
    """Of the state, of D_0, of D_1 and of z: the point's line is the sample's."""
    rows = plan.rows
    for w in (rows.registers, rows.predictions, rows.noise):
        np.testing.assert_array_equal(w[:, 0], w[:, -1])
    own = rows.predictions[:, 0]
    return rows.registers[:, 0, 0], own[:, 0], own[:, 1], rows.noise[:, 0]


def test_brownian_bridge_steps_are_the_pinned_brownian_motion():
    """gamma^2 = 2 eps t (1 - t): E[x_t | x_s] = x_s t / s, var 2 eps t (s - t) / s."""
    eps = 0.37
    process = fd.processes.interpolant(scale=2 * eps)
    ts = np.array([0.9, 0.6, 0.5, 0.1])
    plan = fd.solvers.interpolant(process, ts, eps=eps)
    s, t = ts[:-1], ts[1:]
    keep, data, other, noise = step_weights(plan)
    np.testing.assert_allclose(keep, t / s, rtol=1e-10)
    want = np.sqrt(2 * eps * t * (s - t) / s)
    np.testing.assert_allclose(noise, want, rtol=1e-10)
    # D_1 has no say: a bridge pinned at x_0 forgets where it came from
    np.testing.assert_allclose(other, 0, atol=1e-11)


def path_error(order, steps, spoil=1.0, name="bridge", down=True):
    """ODE error of the gain: the exact flow is x - m -> sqrt(C_t / C_s) (x - m)."""
    process = PATHS[name]
    u = np.linspace(0, 1, steps + 1) ** (2 if order == 3 else 1)
    ts = 0.95 - 0.9 * u if down else 0.05 + 0.9 * u
    plan = fd.solvers.interpolant(process, ts, order=order)
    gain = respond(spoiled(plan, older=spoil), process)[1]
    (_, c0), (_, c1) = law(process, ts[0]), law(process, ts[-1])
    return abs(gain - np.sqrt(c1 / c0))


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("down", [True, False])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_ode_order(name, down, order):
    coarse, fine = (path_error(order, n, name=name, down=down) for n in (160, 320))
    assert abs(np.log2(coarse / fine) - order) < 0.3


def test_wrong_coefficient_fails_the_order_test():
    coarse, fine = (path_error(2, n, spoil=0.8) for n in (160, 320))
    assert np.log2(coarse / fine) < 1.2


@pytest.mark.parametrize("rate", ["ode", "constant", "matched"])
@pytest.mark.parametrize("order", [1, 2])
def test_variance_order(rate, order):
    errors = []
    for n in (80, 160):
        ts = np.linspace(0.95, 0.05, n + 1)
        plan = fd.solvers.interpolant(
            BRIDGE,
            ts,
            eps=rates(BRIDGE)[rate] if rate != "constant" else 0.1,
            order=order,
        )
        mean, var = moments(plan, BRIDGE, ts[0])
        want = law(BRIDGE, ts[-1])
        assert abs(mean - want[0]) < 1e-12  # the ends' means are constants
        errors.append(abs(var - want[1]))
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.2


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("gamma", ["sqrt", "parabola", "sin2"])
def test_law_converges_where_noise_is_renewed_in_every_step(gamma, order):
    """Constant eps: eps / gamma^2 has no integral at the ends of the last two."""
    process = fd.processes.interpolant(gamma=gamma, scale=0.5)
    errors = {1: [], order: []}
    for n in (80, 320, 1280):
        for p, found in errors.items():
            if n < 1280 or p > 1:
                ts = np.linspace(1, 0, n + 1)
                plan = fd.solvers.interpolant(process, ts, eps=0.3, order=p)
                found.append(abs(moments(plan, process, 1.0)[1] - VAR[0]))
    first, high = (np.array(errors[p]) for p in (1, order))
    assert (high[1:] < 0.75 * high[:-1]).all() and high[-1] < 3e-3
    assert (high[:2] < 0.3 * first).all()


@pytest.mark.parametrize("rate", ["ode", "constant", "matched"])
def test_exact_ends_converge(rate):
    """From x_1 to the data, gamma = 0 at both ends: finite, right mean, first order."""
    errors = []
    for n in (50, 200):
        plan = fd.solvers.interpolant(
            BRIDGE, np.linspace(1, 0, n + 1), eps=rates(BRIDGE)[rate], order=2
        )
        mean, var = moments(plan, BRIDGE, 1.0)
        assert abs(mean - MEAN[0]) < 1e-12
        errors.append(abs(var - VAR[0]))
    assert errors[1] < 0.02 and 0.8 < np.log2(errors[0] / errors[1]) / 2 < 1.4


@pytest.mark.parametrize("order", [1, 2])
def test_matches_the_naive_loop(order):
    ts = np.array([0.9, 0.75, 0.7, 0.4, 0.1])
    eps = lambda t: 0.2 + 0.1 * t  # noqa: E731
    model = fd.models.gaussian_ends(BRIDGE, MEAN, VAR)
    x = np.linspace(-2, 2, 5)[:, None]
    zs = np.random.default_rng(0).normal(size=(4, 5, 1))

    def ends(x, t):
        m, c = law(BRIDGE, t)
        scales = BRIDGE.alpha(t), BRIDGE.beta(t)
        return [
            m_ + s * v / c * (x - m) for m_, v, s in zip(MEAN, VAR, scales, strict=True)
        ]

    plan = fd.solvers.interpolant(BRIDGE, ts, eps=eps, order=order)
    found = fd.sample(plan, model, jnp.asarray(x), noise=jnp.asarray(zs))
    want = oracle.bridge(BRIDGE, ts, eps, ends, x, zs, order)
    np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-10)


def test_one_sided_is_the_flow_path():
    flow, one = fd.processes.flow(), fd.processes.interpolant("one_sided")
    ts = np.linspace(1.0, 0.0, 9)
    mine, theirs = fd.solvers.interpolant(one, ts), fd.solvers.ddim(flow, ts)
    same_weights(mine, theirs)
    ts = np.linspace(0.95, 0.1, 9)
    for rate in (0.4, lambda t: 0.5 * t, np.linspace(0.1, 0.8, 8)):
        tau2 = fd.solvers.tau2_from_diffusion(flow, ts, eps=rate)
        theirs = fd.solvers.sde_dpmpp_1(flow, ts, tau2=tau2)
        same_weights(fd.solvers.interpolant(one, ts, eps=rate), theirs)


def same_weights(mine, theirs):
    a, b = mine.rows, theirs.rows
    np.testing.assert_allclose(a.registers, b.registers, rtol=1e-12, atol=1e-15)
    own = a.predictions[:, :, :1]
    np.testing.assert_allclose(own, b.predictions, atol=1e-13)
    if b.noise is not None:
        np.testing.assert_allclose(a.noise, b.noise, rtol=1e-11)


def test_tau2_of_a_diffusion_coefficient():
    """Anderson's g of any path is tau^2 = 1; g and eps = g^2 / 2 agree."""
    vp = fd.processes.vp_linear()
    ts = np.linspace(0.9, 0.1, 6)
    g = lambda t: np.sqrt(0.1 + t * 19.9)  # noqa: E731
    tau2 = fd.solvers.tau2_from_diffusion(vp, ts, diffusion=g)
    np.testing.assert_allclose(tau2, 1.0, rtol=1e-9)
    flow = fd.processes.flow()
    for value in (0.7, np.linspace(0.2, 1.0, 5)):
        a = fd.solvers.tau2_from_diffusion(flow, ts, diffusion=value)
        b = fd.solvers.tau2_from_diffusion(flow, ts, eps=value**2 / 2)
        np.testing.assert_array_equal(a, b)
    whole = fd.solvers.tau2_from_diffusion(flow, np.linspace(1, 0, 5), eps=0.5)
    assert whole[0] == 0 and whole[-1] == 0 and (whole[1:-1] > 0).all()


def test_two_sided_with_gaussian_x1_and_no_gamma_is_ddim_on_the_flow():
    process, flow = PATHS["zero"], fd.processes.flow()
    ts = np.linspace(1, 0, 7)
    plan = fd.solvers.interpolant(process, ts)
    x = jnp.linspace(-2, 2, 5)[:, None]
    two = fd.models.gaussian_ends(process, [2.0, 0.0], [0.3, 1.0])
    one = fd.models.gaussian(2.0, 0.3)
    np.testing.assert_allclose(
        fd.sample(plan, two, x),
        fd.sample(fd.solvers.ddim(flow, ts), one, x),
        rtol=1e-12,
    )


@pytest.mark.parametrize("name", ["bridge", "sin2", "zero"])
def test_velocity_and_noise_give_the_ends(name):
    process = PATHS[name]
    exact = fd.models.gaussian_ends(process, MEAN, VAR)

    def fn(x, t):
        context = fd.Context(0, t, process.alpha(t), process.sigma(t))
        (d0, d1), _ = exact(x, context, None)
        a, b, g = process.alpha(t), process.beta(t), process.sigma(t)
        d_a, d_b, d_g = process.rates(t)
        eta = (x - a * d0 - b * d1) / jnp.where(g > 0, g, 1.0)
        return d_a * d0 + d_b * d1 + d_g * eta, eta

    model = fd.models.from_velocity(fn, process)
    plan = fd.solvers.interpolant(process, np.linspace(0.9, 0.0, 8), order=2)
    x = jnp.linspace(-2, 2, 5)[:, None]
    np.testing.assert_allclose(
        fd.sample(plan, model, x), fd.sample(plan, exact, x), rtol=1e-10
    )


def test_samples_of_a_stochastic_bridge(key):
    """The compiled run, both directions, against the ends' laws."""
    model = fd.models.gaussian_ends(BRIDGE, MEAN, VAR)
    z = jax.random.normal(key, (4000, 1))
    for ts, k in ((np.linspace(1, 0, 41), 0), (np.linspace(0, 1, 41), 1)):
        x = MEAN[1 - k] + np.sqrt(VAR[1 - k]) * z
        plan = fd.solvers.interpolant(BRIDGE, ts, eps=0.2, order=2)
        out = np.asarray(fd.sample(plan, model, x, key=key))
        assert abs(out.mean() - MEAN[k]) < 0.07
        assert abs(out.var() / VAR[k] - 1) < 0.12


@pytest.mark.slow
def test_contract(key):
    """dtype, vmap over stacked plans, one trace, trees, JSON."""
    model = fd.models.gaussian_ends(BRIDGE, MEAN, VAR)
    x = jnp.ones((3, 2), jnp.float32)
    traces = []

    @jax.jit
    def run(plan, x):
        traces.append(1)
        return fd.sample(plan, model, x, key=key)

    plans = [
        fd.solvers.interpolant(BRIDGE, np.linspace(1, 0, 6), eps=e, order=2)
        for e in (0.1, 0.4)
    ]
    outs = [run(p, x) for p in plans]
    assert len(traces) == 1 and outs[0].dtype == jnp.float32
    each = jax.vmap(lambda p: fd.sample(p, model, x, key=key))(fd.plan.stack(plans))
    np.testing.assert_allclose(each, np.stack(outs), rtol=1e-5)
    back = fd.plan.from_json(fd.plan.to_json(plans[0]))
    np.testing.assert_array_equal(run(back, x), outs[0])

    def tree_model(x, context, carry):
        return (x, jax.tree.map(jnp.tanh, x)), carry

    tree = {"a": jnp.ones((3, 2)), "b": jnp.zeros(3)}
    named = fd.models.giving(tree_model, "data", "other_end")
    out = fd.sample(plans[0], named, tree, key=key)
    assert jax.tree.structure(out) == jax.tree.structure(tree)


@pytest.mark.slow
def test_gradient_through_the_table(key):
    def loss(scale):
        process = Interpolant(scale, "linear", "sqrt")
        plan = fd.solvers.interpolant(
            process, jnp.linspace(0.9, 0.1, 4), eps=0.1 * scale, order=2
        )
        ends = fd.models.gaussian_ends(BRIDGE, MEAN, VAR)
        return fd.sample(plan, ends, jnp.ones((2, 1)), key=key).sum()

    both, d = jax.jit(jax.value_and_grad(loss)), 1e-5
    (low, _), (_, found), (high, _) = (
        both(jnp.asarray(v)) for v in (0.5 - d, 0.5, 0.5 + d)
    )
    np.testing.assert_allclose(found, (high - low) / (2 * d), rtol=1e-6)


def test_repeated_times_are_the_identity():
    ts = np.array([0.9, 0.6, 0.6, 0.3])
    for order in (1, 2, 3):
        plan = fd.solvers.interpolant(BRIDGE, ts, eps=0.2, order=order)
        keep, data, other, noise = (w[1] for w in step_weights(plan))
        assert keep == 1 and noise == 0
        np.testing.assert_allclose([data, other], 0, atol=1e-15)


@pytest.mark.parametrize(
    ("ts", "options", "text"),
    [
        ([1.0], {}, "at least 2 times"),
        ([[1.0], [0.5]], {}, "must be 1-D"),
        ([1.2, 0.5], {}, r"lie in \[0, 1\], got 1.2"),
        ([0.5, 0.6, 0.4], {}, r"go one way.*ts\[0\]=0.5"),
        ([0.9, 0.1], {"eps": -1.0}, "eps must be finite and >= 0.*-1"),
        ([0.9, 0.1], {"eps": lambda t: -t}, "eps must be finite and >= 0"),
        ([0.9, 0.1], {"eps": [0.1, 0.2]}, r"shape \(1,\), or a function"),
        ([0.9, 0.1], {"order": 4}, "order must be 1, 2 or 3, got 4"),
    ],
)
def test_bad_plans(ts, options, text):
    with pytest.raises(ValueError, match=text):
        fd.solvers.interpolant(BRIDGE, ts, **options)


def test_bad_input():
    with pytest.raises(ValueError, match="path must be one of"):
        fd.processes.interpolant("curly")
    with pytest.raises(ValueError, match="gamma must be one of"):
        fd.processes.interpolant(gamma="loud")
    with pytest.raises(ValueError, match="scale must be > 0"):
        fd.processes.interpolant(scale=0.0)
    with pytest.raises(ValueError, match="this process has no noise"):
        fd.solvers.interpolant(PATHS["zero"], [0.9, 0.1], eps=0.1)
    with pytest.raises(ValueError, match="either eps or diffusion"):
        fd.solvers.tau2_from_diffusion(fd.processes.flow(), [0.9, 0.1])
    with pytest.raises(ValueError, match="ts must be 1-D"):
        fd.solvers.tau2_from_diffusion(
            fd.processes.flow(), [[0.9, 0.8], [0.1, 0.1]], eps=0.1
        )
    with pytest.raises(ValueError, match="leading axis of 2"):
        fd.models.gaussian_ends(BRIDGE, [0.0], [1.0])
    with pytest.raises(ValueError, match="variances must be >= 0"):
        fd.models.gaussian_ends(BRIDGE, [0.0, 0.0], [1.0, -1.0])
    with pytest.raises(ValueError, match="has one end only"):
        fd.models.from_velocity(
            lambda x, t: (x, x), fd.processes.interpolant("one_sided")
        )
