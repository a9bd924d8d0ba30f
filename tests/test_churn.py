"""EDM's churn: loops, the z of the start, exact moments, slopes, bad input."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.analysis import constant, gaussian_error, transfer
from fastdiff_jax.analysis.response import draws_at_start, final

from . import mixture as m
from .oracles import ancestral as loop

S = fd.solvers
VP, EDM = m.PROCESSES["vp"], m.PROCESSES["edm"]
START = np.linspace(-2, 2, 7)
METHODS = ("heun", "euler", "dpm2")
VARIANCE = 0.3


def grid(process, steps=6, clean=False):
    ts = m.times_between(process, steps, 1.3)
    return np.append(ts, process.clean) if clean else ts


def predictor(process):
    return lambda x, t: m.predict(x, process.alpha(t), process.sigma(t))


def draws(ts):
    return np.random.default_rng(1).normal(size=(len(ts) - 1, len(START)))


def by_row(plan, z, method):
    """Draw i raises step i: read by the row before it, the first by the start."""
    per = 1 if method == "euler" else 2
    ahead = np.minimum(np.arange(plan.length) // per + 1, len(z) - 1)
    return np.concatenate([z[:1], z[ahead]]) if draws_at_start(plan) else z[ahead]


def ours(plan, x, z, method):
    level, recorded = plan.rows.level, by_row(plan, z, method)
    first = int(draws_at_start(plan))

    def predict(y, i):
        return m.predict(y, level.alpha[i], level.sigma[i])

    def draw(i):
        return recorded[i + first] if i + first >= 0 else None

    return final(fd.plan.walk(plan, predict, x, draw)).registers[0]


def starts_as_x(plan):
    """Whether the first point is x itself, and nothing else is kept."""
    start, unit = plan.start, np.eye(1, plan.registers)[0]
    return start.noise is None and start.bias is None and (start.x == unit).all()


def close(got, want, tol=1e-12):
    np.testing.assert_allclose(got, want, rtol=tol, atol=tol)


OPTIONS = [
    {"s_churn": 1.0},
    {"s_churn": 90.0, "s_noise": 1.003},
    {"s_churn": 2.0, "s_min": 0.2, "s_max": 5.0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["all", "capped", "range"])
@pytest.mark.parametrize("path, clean", [("edm", True), ("vp", False), ("flow", True)])
@pytest.mark.parametrize("method", METHODS)
def test_equals_algorithm_2(method, path, clean, options):
    process = m.PROCESSES[path]
    ts = grid(process, clean=clean)
    x, z = START * process.sigma(ts[0]), draws(ts)
    plan = S.edm_churn(process, ts, variant=method, **options)
    calls = 1 if method == "euler" else 2
    assert plan.nfe == 6 * calls + clean
    assert draws_at_start(plan) == ("s_max" not in options)
    want = loop.churn(process, ts, predictor(process), x, z, method, **options)
    close(ours(plan, x, z, method), want)


@pytest.mark.parametrize("method", METHODS)
def test_the_engine_runs_the_same_numbers(method):
    """Also: the start's z moves the point, and the first step begins there."""
    ts = grid(EDM, clean=True)
    x, z = START * EDM.sigma(ts[0]), draws(ts)
    plan = S.edm_churn(EDM, ts, variant=method, s_churn=2.0)
    recorded = by_row(plan, z, method)[..., None]
    state = fd.init(plan, jnp.asarray(x)[:, None], noise=recorded[0])
    first = jax.tree.map(lambda w: w[0], plan.rows)
    _, info = fd.step(state, first, m.MODEL, noise=recorded[1])
    if method != "euler":  # inside the first step the sample is its start
        np.testing.assert_array_equal(info.sample, state.point)
    assert np.abs(np.asarray(state.point)[:, 0] - x).max() > 0.1
    got = fd.sample(plan, m.MODEL, jnp.asarray(x)[:, None], noise=recorded)
    close(np.asarray(got)[:, 0], ours(plan, x, z, method))


@pytest.mark.parametrize("predicts", ["noise", "velocity"])
def test_diffusers_order_of_events(predicts):
    ts = grid(EDM, clean=True)
    x, z = START * EDM.sigma(ts[0]), draws(ts)
    options = dict(s_churn=2.0, s_noise=1.003)
    plan = S.edm_churn(EDM, ts, variant="euler", compat=predicts, **options)
    assert starts_as_x(plan)
    level = plan.rows.level
    got = final(
        fd.plan.walk(
            plan,
            lambda y, i: m.predict(y, level.alpha[i], level.sigma[i]),
            x,
            lambda i: z[i] if i >= 0 else None,
        )
    ).registers[0]
    close(got, loop.late_churn(ts, predictor(EDM), x, z, predicts, **options))


# ------------------------------------------------------------------- special cases


def same(plan, other, tol=1e-12):
    a, b = jax.tree.leaves(plan), jax.tree.leaves(other)
    assert jax.tree.structure(plan) == jax.tree.structure(other)
    for one, two in zip(a, b, strict=True):
        close(one, two, tol)


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("path", m.PROCESSES)
@pytest.mark.parametrize("method", METHODS)
def test_no_churn_is_the_deterministic_method(method, path, clean):
    process = m.PROCESSES[path]
    ts = grid(process, clean=clean)
    x = START * process.sigma(ts[0])
    plain = {"heun": S.edm_heun, "euler": S.ddim, "dpm2": S.dpm2}[method](process, ts)
    everywhere = dict(s_churn=3.0, s_min=1e6)
    for options in ({}, {"s_churn": 0.0, "s_noise": 2.0}, everywhere):
        plan = S.edm_churn(process, ts, variant=method, **options)
        assert not plan.stochastic and starts_as_x(plan) and plan.nfe == plain.nfe
        z = draws(ts)
        close(ours(plan, x, z, method), ours(plain, x, z, method))


def test_a_start_level_is_undone():
    """The plan is told x at its first time, and evaluates above it."""
    plan = S.edm_churn(VP, grid(VP), s_churn=2.0)
    alpha, sigma = fd.analysis.start_level(plan)
    close(alpha, VP.alpha(grid(VP)[0]))
    close(sigma, VP.sigma(grid(VP)[0]))
    assert plan.rows.level.time[0] > grid(VP)[0]


def test_a_repeated_time_only_churns():
    """A step of length zero adds its noise, and takes it off by its own step."""
    ts = np.insert(grid(EDM), 3, grid(EDM)[3])
    for method in METHODS:
        plan = S.edm_churn(EDM, ts, variant=method, s_churn=1.0)
        assert max(map(abs, constant(plan))) < 1e-12
        still = S.edm_churn(EDM, ts, variant=method)
        other = S.edm_churn(EDM, grid(EDM), variant=method)
        close(transfer(still, 0.3).state, transfer(other, 0.3).state)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_traced_times_give_the_same_weights(method):
    ts = grid(VP, 3)

    def make(t):
        return S.edm_churn(VP, t, variant=method, s_churn=1.0)

    same(jax.jit(make)(jnp.asarray(ts)), make(ts), 1e-9)
    quiet = jax.eval_shape(lambda t: S.edm_churn(VP, t, variant=method), ts)
    assert not draws_at_start(quiet) and quiet.start.bias is None
    assert not quiet.stochastic
    total = lambda t: jnp.sum(make(t).rows.noise)  # noqa: E731
    assert np.isfinite(jax.jit(jax.grad(total))(jnp.asarray(ts))).all()


@pytest.mark.slow
def test_pads_stacks_and_saves(tmp_path):
    """A plan with a noisy start next to others."""
    ts, x, key = grid(VP), jnp.asarray(START)[:, None], jax.random.key(0)
    plans = [S.edm_churn(VP, ts, s_churn=1.0), S.edm_heun(VP, ts)]
    stacked = fd.plan.stack(plans)
    both = jax.vmap(lambda p: fd.sample(p, m.MODEL, x, key=key))(stacked)
    for one, plan in zip(both, plans, strict=True):
        close(one, fd.sample(plan, m.MODEL, x, key=key))
    fd.plan.save(plans[0], tmp_path / "plan.json")
    same(fd.plan.load(tmp_path / "plan.json"), plans[0], 0)


# ------------------------------------------------------ moments on Gaussian data


@pytest.mark.parametrize("path", m.PROCESSES)
@pytest.mark.parametrize("method", METHODS)
def test_a_constant_prediction_gives_the_exact_law(method, path):
    process = m.PROCESSES[path]
    ts = grid(process)
    plan = S.edm_churn(process, ts, variant=method, s_churn=2.0)
    assert max(map(abs, constant(plan))) < 1e-12
    louder = S.edm_churn(process, ts, variant=method, s_churn=2.0, s_noise=1.01)
    assert constant(louder).spread > 1e-6


def test_diffusers_order_of_events_is_not_exact():
    plan = S.edm_churn(EDM, grid(EDM), variant="euler", compat="noise", s_churn=2.0)
    assert abs(constant(plan).spread) > 1e-3


def even(process, steps):
    return process.half_log_snr_inverse(np.linspace(-2, 2, steps + 1))


def variance_error(plan, ts):
    found = gaussian_error(plan, 0.7, VARIANCE, exact_start=True, target="level")
    return float((found.variance - found.target_variance)[0])


def mean_error(plan, ts, tau2=1.0):
    """Against the SDE that churn tends to where gamma = tau2 h: linear, closed form."""
    a, s = VP.alpha(ts[[0, -1]]), VP.sigma(ts[[0, -1]])
    total = a**2 * VARIANCE + s**2
    ratio = total[1] / total[0]
    want = ratio ** ((1 + tau2) / 2) * (a[0] / a[1]) ** tau2
    return float(transfer(plan, VARIANCE).state[0] - want)


def slope(measure, counts=(60, 120), **options):
    """s_churn = tau2 (range of half log-SNR) makes gamma = tau2 h."""
    found = []
    for n in counts:
        ts = even(VP, n)
        found.append(abs(measure(S.edm_churn(VP, ts, s_churn=4.0, **options), ts)))
    return np.log2(found[0] / found[1])


@pytest.mark.parametrize(("method", "order"), [("heun", 2), ("euler", 1), ("dpm2", 2)])
def test_order_of_the_moments(method, order):
    """The step sets the order of the variance, splitting that of the mean: 1."""
    assert abs(slope(variance_error, variant=method) - order) < 0.25
    assert abs(slope(mean_error, variant=method) - 1) < 0.25
    off = slope(variance_error, variant=method, s_noise=1.05)
    assert abs(off - order) > 0.25


# ----------------------------------------------------------------------- bad input

BAD = [
    ({"variant": "rk4"}, "variant must be one of heun, euler, dpm2, got 'rk4'"),
    ({"compat": "data", "variant": "euler"}, "compat must be None, 'noise' or"),
    ({"compat": "noise"}, "compat='noise' is a rule of variant='euler', got 'heun'"),
    ({"s_churn": -1.0}, "s_churn must be finite and >= 0, got -1.0"),
    ({"s_churn": math.nan}, "s_churn must be a finite real number, got nan"),
    ({"s_min": 2.0, "s_max": 1.0}, "s_min <= s_max must hold, got 2.0 and 1.0"),
    ({"s_noise": math.inf}, "s_noise must be a finite"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        S.edm_churn(VP, grid(VP), **options)


def test_levels_that_the_path_does_not_have():
    table = fd.processes.tabulated([0.1, 0.5, 0.9], [0.9, 0.8, 0.4])
    with pytest.raises(ValueError, match="a level this process does not have"):
        S.edm_churn(table, np.array([2.0, 1.0, 0.0]), s_churn=1.0)
    net = fd.processes.vp_discrete()
    ts = np.array([999.0, 500.0, 100.0])
    with pytest.raises(ValueError, match=r"raises sigma / alpha at ts\[0\]=999"):
        S.edm_churn(net, ts, s_churn=1.0)
    assert S.edm_churn(net, ts, s_churn=1.0, s_max=10.0).stochastic
    with pytest.raises(ValueError, match="noise prediction does not exist"):
        S.edm_churn(m.PROCESSES["flow"], np.array([1.0, 0.5, 0.1]), s_churn=1.0)
