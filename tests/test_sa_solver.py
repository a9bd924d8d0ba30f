"""SA-Solver: a naive loop, exact laws on Gaussian data, orders, its special cases."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.analysis import gaussian_error, measured_order, transfer

from . import mixture as m
from .oracles.sa_solver import sa_solver as oracle
from .table import spoiled, with_rows

sa = fd.solvers.sa_solver
VP, EDM, FLOW = (m.PROCESSES[k] for k in ("vp", "edm", "flow"))
START = np.linspace(-2, 2, 7)
Z = np.random.default_rng(0).standard_normal((16, 7, 1))
WINDOW = np.array([0.0, 0.3, 1.0, 1.0, 0.5, 1.0, 0.0])


@jax.jit
def noisy(plan, x, z):
    return fd.sample(plan, m.MODEL, x, noise=z)


def ours(plan, scale=1.0):
    """The sample on the host; noise only where the plan draws it."""
    alpha, sigma = plan.rows.level.alpha, plan.rows.level.sigma
    predict = lambda x, i: m.predict(x, alpha[i], sigma[i])  # noqa: E731
    z = Z[: plan.length, :, 0] if plan.stochastic else None
    return fd.plan.replay(plan, predict, START * scale, z)


CASES = {
    "3/4": dict(predictor_order=3, corrector_order=4),
    "2/1": dict(predictor_order=2, corrector_order=1),
    "1/3 noise": dict(predictor_order=1, corrector_order=3, prediction="noise"),
    "2/1 noise": dict(predictor_order=2, corrector_order=1, prediction="noise"),
    "2/0": dict(predictor_order=2, corrector_order=0),
    "2/2 few": dict(predictor_order=2, corrector_order=2, variant="few_step"),
    "lowered": dict(predictor_order=3, corrector_order=3, lower_order_final=True),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("path", ["vp", "edm", "flow"])
def test_equals_the_naive_loop(name, path):
    options = {"lower_order_final": False, **CASES[name]}
    process = m.PROCESSES[path]
    ts = m.times_between(process, 7, 1.3)
    scale = float(process.sigma(ts[0]))
    got = ours(sa(process, ts, tau2=WINDOW**2, **options), scale)
    want = oracle(
        process,
        ts,
        lambda x, t: m.predict(x, process.alpha(t), process.sigma(t)),
        START * scale,
        Z[:, :, 0],
        WINDOW,
        options["predictor_order"],
        options["corrector_order"],
        options.get("prediction", "data"),
        options["lower_order_final"],
        options.get("variant") == "few_step",
    )
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("orders", [(2, 0), (3, 4), (2, 2)])
@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_a_repeated_last_time_corrects_the_last_step(orders, prediction):
    """The orders ..., 2, 1 of the end count steps of non-zero length."""
    ts, (p, c) = m.times_between(VP, 7, 1.3), orders
    options = dict(prediction=prediction, predictor_order=p, corrector_order=c)
    plan = sa(VP, np.append(ts, ts[-1]), tau2=np.append(WINDOW, 1.0) ** 2, **options)
    scale = float(VP.sigma(ts[0]))
    want = oracle(
        VP,
        ts,
        lambda x, t: m.predict(x, VP.alpha(t), VP.sigma(t)),
        START * scale,
        Z[:, :, 0],
        WINDOW,
        *orders,
        prediction,
        lower=True,
        close=c > 0,
    )
    np.testing.assert_allclose(ours(plan, scale), want, rtol=1e-11, atol=1e-12)


# ------------------------------------------------------------- special cases


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_no_noise_and_no_corrector_is_exponential_adams(order, prediction):
    ts = m.times_between(VP, 8, 1.2)
    shared = dict(prediction=prediction, lower_order_final=False)
    plan = sa(VP, ts, predictor_order=order, corrector_order=0, tau2=0, **shared)
    assert not plan.stochastic and plan.rows.noise is None
    want = ours(fd.solvers.exp_adams(VP, ts, order=order, **shared))
    np.testing.assert_allclose(ours(plan), want, rtol=0, atol=1e-13)


def test_corrector_without_noise_is_that_of_exponential_adams():
    ts = m.times_between(VP, 8, 1.2)
    plan = sa(VP, ts, predictor_order=2, corrector_order=3, tau2=0)
    want = ours(fd.solvers.exp_adams(VP, ts, order=2, corrector=True))
    np.testing.assert_allclose(ours(plan), want, rtol=0, atol=1e-13)


@pytest.mark.parametrize("path", ["vp", "edm", "flow"])
def test_first_order_at_tau_1_is_the_ancestral_step(path):
    process = m.PROCESSES[path]
    ts = m.times_between(process, 8, 1.2)
    plan = sa(process, ts, predictor_order=1, corrector_order=0, tau2=1.0)
    want = ours(fd.solvers.ddim(process, ts, eta=1.0))
    np.testing.assert_allclose(ours(plan), want, rtol=1e-13, atol=1e-13)


def test_tau_is_a_number_an_array_or_a_function_of_time():
    ts = m.times_between(VP, 7)
    inside = lambda t: np.where((t >= 0.2) & (t <= 0.8), 1.0, 0.0)  # noqa: E731
    by_time, by_step = sa(VP, ts, tau2=inside), sa(VP, ts, tau2=inside(ts[:-1]))
    np.testing.assert_array_equal(ours(by_time), ours(by_step))
    np.testing.assert_array_equal(
        ours(sa(VP, ts, tau2=0.25)), ours(sa(VP, ts, tau2=np.full(7, 0.25)))
    )


@pytest.mark.slow
def test_the_noise_has_slopes_where_tau_is_0():
    ts = jnp.asarray(m.times_between(VP, 7))
    low = dict(predictor_order=1, corrector_order=0, tau2=WINDOW**2)
    total = lambda t: sa(VP, t, **low).rows.noise[:, 0].sum()  # noqa: E731
    assert np.isfinite(jax.grad(total)(ts)).all()


@pytest.mark.slow
def test_traced_tau_gives_the_same_sample():
    ts, x = m.times_between(VP, 6), jnp.asarray(START[:, None])
    z = jnp.asarray(Z[:6])
    draw = jax.jit(lambda tau2: fd.sample(sa(VP, ts, tau2=tau2), m.MODEL, x, noise=z))
    want = noisy(sa(VP, ts, tau2=0.49), x, z)
    np.testing.assert_allclose(draw(jnp.asarray(0.49)), want, rtol=0, atol=1e-13)


# ---------------------------------------------------------------------- laws

ORDERS = [(1, 0), (2, 0), (3, 0), (1, 1), (2, 2), (3, 4)]


@pytest.mark.parametrize("orders", ORDERS)
@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_a_constant_prediction_is_integrated_exactly(orders, tau):
    ts = m.times_between(VP, 6, 1.3)
    plan = sa(VP, ts, predictor_order=orders[0], corrector_order=orders[1], tau2=tau**2)
    found = fd.analysis.constant(plan)
    assert abs(found.mean) < 1e-12 and abs(found.spread) < 1e-12


@pytest.mark.parametrize("orders", ORDERS)
@pytest.mark.parametrize("path", ["vp", "edm", "flow"])
def test_conditional_mean_is_exact_at_tau_1(orders, path):
    """D is a martingale of the reverse SDE: any step size gives E[x_t | x_s]."""
    process = m.PROCESSES[path]
    ts = m.times_between(process, 5, 1.2)
    plan = sa(process, ts, predictor_order=orders[0], corrector_order=orders[1])
    v = np.array([0.1, 1.0, 3.0])
    (a0, a1), (s0, s1) = process.alpha(ts[[0, -1]]), process.sigma(ts[[0, -1]])
    want = a0 / a1 * (a1**2 * v + s1**2) / (a0**2 * v + s0**2)
    found = transfer(plan, v)
    np.testing.assert_allclose(found.state, want, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found.mean, a1 - want * a0, rtol=1e-12, atol=1e-12)


def variance_error(plan):
    law = gaussian_error(plan, 1.0, [0.25], exact_start=True, target="level")
    return abs(law.variance - law.target_variance)[0]


def bent(steps):
    """A smooth uneven grid, half log-SNR -2 to 2."""
    u = np.linspace(0, 1, steps + 1)
    return VP.half_log_snr_inverse(-2 + 4 * (u + 0.1 * np.sin(np.pi * u)))


def weak_slope(build, steps=80):
    coarse, fine = (variance_error(build(VP, bent(n))) for n in (steps, 2 * steps))
    return np.log2(coarse / fine)


@pytest.mark.parametrize(
    ("predictor", "corrector", "tau", "want"),
    [(1, 0, 1.0, 1.0), (1, 1, 1.0, 1.0), (2, 0, 1.0, 2.0), (2, 0, 0.55, 2.0)]
    + [(1, 2, 1.0, 2.0), (1, 2, 0.55, 2.0), (2, 2, 1.0, 2.3), (3, 4, 1.0, 2.0)],
)
def test_order_of_the_law(predictor, corrector, tau, want):
    build = functools.partial(
        sa, predictor_order=predictor, corrector_order=corrector, tau2=tau**2
    )
    assert abs(weak_slope(build) - want) < 0.25


def test_fresh_noise_in_the_corrector_costs_the_order():
    def broken(process, ts):
        plan = sa(process, ts, predictor_order=2, corrector_order=2)
        keep, drawn = plan.rows.registers[:, 0, 0], plan.rows.noise[:, 0]
        last, k = np.append(0.0, drawn[:-1]), plan.registers
        assert not plan.rows.noise[:, -1].any()  # x keeps the z of its predictor
        plan = fd.plan.pad(plan, registers=k + 1, writes=plan.writes + 1)
        to, registers, noise = (
            np.array(w) for w in (plan.rows.to, plan.rows.registers, plan.rows.noise)
        )
        to[:, -1], registers[:, -2], noise[:, -2] = k, 0.0, 1.0  # z is kept there
        for line, share in ((0, keep), (-1, 1.0)):
            registers[:, line, k] = -share * last  # the predictor's is taken back
            noise[:, line] += share * last
        return with_rows(plan, to=to, registers=registers, noise=noise)

    assert weak_slope(broken) < 1.3


@pytest.mark.parametrize(
    ("predictor", "corrector", "want", "power"),
    [(1, 0, 1, 1), (2, 0, 2, 1), (3, 0, 3, 2), (1, 1, 1, 1), (2, 1, 1, 1)]
    + [(1, 2, 2, 1), (2, 3, 3, 2), (3, 4, 4, 2.5)],
)
def test_order_without_noise(predictor, corrector, want, power):
    build = functools.partial(
        sa, predictor_order=predictor, corrector_order=corrector, tau2=0
    )
    assert abs(measured_order(build, VP, (40, 80), power=power).order - want) < 0.25


def test_a_wrong_weight_shows_in_the_order():
    def broken(process, ts):
        plan = sa(process, ts, predictor_order=2, corrector_order=3, tau2=0)
        return spoiled(plan, older=1.001)

    assert measured_order(broken, VP, (40, 80), power=2).order < 2


# ---------------------------------------------------------------------- ends


@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_exact_ends(tau):
    plan = sa(FLOW, np.linspace(1.0, 0.0, 7), tau2=tau**2)
    assert np.isfinite(ours(plan)).all()
    rows = plan.rows
    assert not rows.registers[-1, 0].any() and rows.predictions[-1, 0, 0] == 1
    assert tau == 0 or rows.noise[-1, 0] == 0
    if tau:  # a state at alpha = 0 is forgotten: noise is drawn afresh
        assert rows.registers[0, 0, 0] == 0
        np.testing.assert_allclose(rows.noise[0, 0], rows.level.sigma[1])


def test_a_repeated_time_is_the_identity_and_corrects_the_last_step():
    ts = m.times_between(VP, 6)
    options = dict(predictor_order=1, corrector_order=0, tau2=0.0)
    twice = np.insert(ts, 3, ts[3])
    np.testing.assert_allclose(
        ours(sa(VP, twice, **options)), ours(sa(VP, ts, **options)), atol=1e-14
    )
    end = np.append(ts, ts[-1])
    assert np.abs(ours(sa(VP, end)) - ours(sa(VP, ts))).max() > 1e-6


def test_times_per_element():
    ts = np.stack([m.times_between(VP, 6), m.times_between(VP, 6, 1.4)], axis=1)
    x, z = jnp.asarray(START[:, None] * np.ones(2)), jnp.asarray(Z[:6] * np.ones(2))
    model = lambda x, c, carry: (jnp.tanh(x * c.alpha[None]), carry)  # noqa: E731
    got = fd.sample(sa(VP, ts, tau2=0.25), model, x, noise=z)
    for k in range(2):
        one = lambda x, c, carry: (jnp.tanh(x * c.alpha), carry)  # noqa: E731
        plan = sa(VP, ts[:, k], tau2=0.25)
        want = fd.sample(plan, one, x[:, k : k + 1], noise=z[..., k : k + 1])
        np.testing.assert_allclose(got[:, k : k + 1], want, rtol=0, atol=1e-13)


# ----------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(predictor_order=0), "predictor_order in 1..6, got 0"),
        (dict(predictor_order=7), "predictor_order in 1..6, got 7"),
        (dict(corrector_order=-1), "corrector_order in 0..6, got -1"),
        (dict(tau2=-0.5), "tau2 must be finite and >= 0 .* got -0.5"),
        (dict(tau2=np.inf), "tau2 must be finite and >= 0 .* got inf"),
        (dict(tau2=np.ones(5)), r"one value per step, shape \(4,\); got shape \(5,\)"),
        (dict(variant="few"), "variant must be 'exact' or 'few_step', got 'few'"),
        (dict(prediction="v"), "prediction must be 'data' or 'noise', got 'v'"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        sa(VP, m.times_between(VP, 4), **options)


def test_noise_prediction_at_alpha_0_is_refused():
    with pytest.raises(ValueError, match="where alpha = 0"):
        sa(FLOW, [1.0, 0.5, 0.1], prediction="noise")
