"""ER-SDE: a naive loop, exact laws on Gaussian data, orders, its special cases."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.analysis import gaussian_error, measured_order, transfer

from . import mixture as m
from .oracles.er_sde import er_sde as oracle
from .table import words

er = fd.solvers.er_sde
VP, EDM, FLOW = (m.PROCESSES[k] for k in ("vp", "edm", "flow"))
START = np.linspace(-2, 2, 7)
Z = np.random.default_rng(1).standard_normal((16, 7, 1))
PHI = {
    1: lambda u: u,
    2: lambda u: u**2,
    4: lambda u: u**1.5,
    5: lambda u: u**2.5,
    6: lambda u: u**0.9 * np.log10(1 + 100 * u**1.5),
    7: lambda u: u * (np.exp(u**0.3) + 10),
}


def ours(plan, scale=1.0):
    """The sample on the host; noise only where the plan draws it."""
    alpha, sigma = plan.rows.level.alpha, plan.rows.level.sigma
    predict = lambda x, i: m.predict(x, alpha[i], sigma[i])  # noqa: E731
    z = Z[: plan.length, :, 0] if plan.stochastic else None
    return fd.plan.replay(plan, predict, START * scale, z)


CASES = [(1, 7, False), (2, 7, False), (3, 7, False), (3, 7, True), (3, 1, False)]
CASES += [(3, 2, False), (2, 4, False), (3, 5, True), (3, 6, False)]


@pytest.mark.parametrize(("order", "phi", "compat"), CASES)
@pytest.mark.parametrize("path", ["vp", "edm", "flow"])
def test_equals_the_naive_loop(order, phi, compat, path):
    process = m.PROCESSES[path]
    ts = m.times_between(process, 7, 1.3)
    scale = float(process.sigma(ts[0]))
    got = ours(er(process, ts, order=order, phi=phi, compat=compat), scale)
    predict = lambda x, t: m.predict(x, process.alpha(t), process.sigma(t))  # noqa: E731
    z = Z[:, :, 0] * (phi != 1)
    want = oracle(process, ts, predict, START * scale, z, PHI[phi], order, compat)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------- special cases


@pytest.mark.parametrize("path", ["vp", "edm", "flow"])
def test_first_order_is_the_ode_or_the_ancestral_step(path):
    process = m.PROCESSES[path]
    ts = m.times_between(process, 8, 1.2)
    ode = er(process, ts, order=1, phi=lambda rho: rho)
    assert not ode.stochastic
    np.testing.assert_allclose(
        ours(ode), ours(fd.solvers.ddim(process, ts)), atol=1e-13
    )
    assert not er(process, ts, phi=lambda rho: 3 * rho).stochastic
    sde = er(process, ts, order=1, phi=lambda rho: rho**2)
    want = ours(fd.solvers.ddim(process, ts, eta=1.0))
    np.testing.assert_allclose(ours(sde), want, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_eta_scales_the_noise_rate(order):
    ts = m.times_between(VP, 8, 1.2)
    still = er(VP, ts, order=order, eta=0)
    assert not still.stochastic
    np.testing.assert_allclose(ours(still), ours(er(VP, ts, order=order, phi=1)))
    half = ours(er(VP, ts, order=order, phi=2, eta=0.5))
    np.testing.assert_allclose(half, ours(er(VP, ts, order=order, phi=4)), atol=1e-13)


def test_first_order_is_sa_solver_with_the_same_rate():
    """phi = rho^(1 + tau^2)."""
    ts = m.times_between(FLOW, 8)
    got = ours(er(FLOW, ts, order=1, phi=lambda rho: rho**1.3))
    sa = fd.solvers.sa_solver(FLOW, ts, predictor_order=1, corrector_order=0, tau2=0.3)
    np.testing.assert_allclose(got, ours(sa), rtol=0, atol=1e-13)


# ---------------------------------------------------------------------- laws


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("phi", sorted(PHI))
@pytest.mark.parametrize("compat", [False, True])
def test_a_constant_prediction_is_integrated_exactly(order, phi, compat):
    ts = m.times_between(VP, 6, 1.3)
    found = fd.analysis.constant(er(VP, ts, order=order, phi=phi, compat=compat))
    assert abs(found.mean) < 1e-12 and abs(found.spread) < 1e-12


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("path", ["vp", "edm", "flow"])
def test_conditional_mean_is_exact_at_phi_2(order, path):
    """D is a martingale of the reverse SDE: any step size gives E[x_t | x_s]."""
    process = m.PROCESSES[path]
    ts = m.times_between(process, 5, 1.2)
    v = np.array([0.1, 1.0, 3.0])
    (a0, a1), (s0, s1) = process.alpha(ts[[0, -1]]), process.sigma(ts[[0, -1]])
    want = a0 / a1 * (a1**2 * v + s1**2) / (a0**2 * v + s0**2)
    found = transfer(er(process, ts, order=order, phi=2), v)
    np.testing.assert_allclose(found.state, want, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found.mean, a1 - want * a0, rtol=1e-12, atol=1e-12)


def weak_slope(build, steps=80):
    errors = []
    for n in (steps, 2 * steps):
        u = np.linspace(0, 1, n + 1)
        lam = -2 + 4 * (u + 0.1 * np.sin(np.pi * u))
        plan = build(VP, VP.half_log_snr_inverse(lam))
        law = gaussian_error(plan, 1.0, [0.25], exact_start=True, target="level")
        errors.append(abs(law.variance - law.target_variance)[0])
    return np.log2(errors[0] / errors[1])


@pytest.mark.parametrize("phi", [1, 2, 7])
@pytest.mark.parametrize("order", [1, 2])
def test_order_of_the_law(order, phi):
    build = functools.partial(er, order=order, phi=phi)
    assert abs(weak_slope(build) - order) < 0.25


@pytest.mark.parametrize("order", [1, 2, 3])
def test_order_without_noise(order):
    build = functools.partial(er, order=order, phi=1)
    assert abs(measured_order(build, VP, (40, 80), power=2).order - order) < 0.25


def test_the_published_third_order_is_second():
    build = functools.partial(er, order=3, phi=1, compat=True)
    assert abs(measured_order(build, VP, (40, 80), power=2).order - 2) < 0.25


# ---------------------------------------------------------------------- ends


@pytest.mark.parametrize("phi", [1, 2, 5, 7])
def test_exact_ends(phi):
    plan = er(FLOW, np.linspace(1.0, 0.0, 7), phi=phi)
    assert np.isfinite(ours(plan)).all()
    last = words(plan)
    assert last.keep[-1] == 0 and last.weights[-1, 0] == 1
    assert not last.weights[-1, 1:].any() and last.noise[-1] == 0
    first = last.keep[0]
    np.testing.assert_allclose(first, 5 / 6 if phi == 1 else 0, rtol=1e-12, atol=1e-12)


def test_the_engine_and_traced_times():
    ts, x, z = m.times_between(VP, 5), jnp.asarray(START[:, None]), jnp.asarray(Z[:5])
    draw = jax.jit(lambda t: fd.sample(er(VP, t), m.MODEL, x, noise=z))
    got = draw(jnp.asarray(ts))[:, 0]
    np.testing.assert_allclose(got, ours(er(VP, ts)), rtol=0, atol=1e-11)


@pytest.mark.slow
def test_the_noise_has_slopes_where_a_step_is_empty():
    ts = jnp.asarray(np.insert(m.times_between(VP, 5), 3, m.times_between(VP, 5)[3]))
    total = lambda t: er(VP, t, order=1).rows.noise.sum()  # noqa: E731
    assert np.isfinite(jax.grad(total)(ts)).all()


def test_a_repeated_time_is_the_identity():
    ts = m.times_between(VP, 6)
    twice = np.insert(ts, 3, ts[3])
    options = dict(order=1, phi=1)
    np.testing.assert_allclose(
        ours(er(VP, twice, **options)), ours(er(VP, ts, **options)), atol=1e-14
    )
    assert np.isfinite(ours(er(VP, twice))).all()
    assert np.isfinite(ours(er(FLOW, [0.9, 0.5, 0.0, 0.0]))).all()


def test_one_long_step():
    """From 80 to 0.002 at once after a short one: the integrals are still exact."""
    ts = np.array([80.0, 40.0, 20.0, 0.01])
    got = ours(er(EDM, ts), 80.0)
    predict = lambda x, t: m.predict(x, EDM.alpha(t), EDM.sigma(t))  # noqa: E731
    want = oracle(EDM, ts, predict, START * 80.0, Z[:, :, 0], PHI[7])
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11)


# ----------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(order=0), "order 1, 2 or 3, got 0"),
        (dict(order=4), "order 1, 2 or 3, got 4"),
        (dict(eta=-0.1), "eta must be >= 0 .* got -0.1"),
        (dict(phi=3), r"phi must be a function or one of \[1, 2, 4, 5, 6, 7\], got 3"),
        (dict(phi=lambda rho: rho**0.5), "must not decrease"),
        (dict(phi=lambda rho: -rho), "phi must be positive"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        er(VP, m.times_between(VP, 4), **options)


def test_single_precision_times_give_the_last_step():
    """Weights at sigma = 0 read g at its limit: no number of float64 in them."""
    ts = fd.grids.log_snr(VP, 3, to_zero=True)
    want = fd.solvers.er_sde(VP, ts, order=1)
    with jax.enable_x64(False):
        got = jax.jit(lambda ts: fd.solvers.er_sde(VP, ts, order=1))(jnp.asarray(ts))
    for one, two in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
