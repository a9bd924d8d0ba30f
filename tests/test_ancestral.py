"""Ancestral steps and Euler-Maruyama: loops, exact moments, invariants, slopes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.analysis import constant, gaussian_error, transfer
from fastdiff_jax.analysis.response import final

from . import mixture as m
from .oracles import ancestral as loop
from .table import spoiled, with_rows, words

S = fd.solvers
VP, EDM = m.PROCESSES["vp"], m.PROCESSES["edm"]
START = np.linspace(-2, 2, 7)
VARIANCE = 0.3


def grid(process, steps=6, clean=False):
    ts = m.times_between(process, steps, 1.3)
    return np.append(ts, process.clean) if clean else ts


def predictor(process):
    return lambda x, t: m.predict(x, process.alpha(t), process.sigma(t))


def ours(plan, x, z):
    """On the host; z holds a draw per step, read by the row that ends the step."""
    step = iter(z)
    ends = [True] * plan.length
    if plan.stochastic and plan.length > len(z):
        last = np.arange(plan.length) == plan.length - 1
        ends = (np.arange(plan.length) % 2 == 1) | last
    level = plan.rows.level

    def predict(y, i):
        return m.predict(y, level.alpha[i], level.sigma[i])

    def draw(i):
        return next(step) if plan.stochastic and i >= 0 and ends[i] else None

    return final(fd.plan.walk(plan, predict, x, draw)).registers[0]


def draws(ts, seed=0):
    return np.random.default_rng(seed).normal(size=(len(ts) - 1, len(START)))


def close(got, want, tol=1e-12):
    np.testing.assert_allclose(got, want, rtol=tol, atol=tol)


# ------------------------------------------------------------------------- oracles

CASES = [
    ("euler_ancestral", {}),
    ("euler_ancestral", {"eta": 0.4, "s_noise": 1.003}),
    ("euler_ancestral", {"eta": 0.9}),
    ("dpm2_ancestral", {}),
    ("dpm2_ancestral", {"eta": 0.4, "s_noise": 1.003}),
    ("dpm2_ancestral", {"eta": 0.98}),
    ("euler_maruyama", {}),
    ("euler_maruyama", {"tau2": 0.3}),
    ("ddpm", {}),
    ("ddpm", {"variance": "large"}),
]


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("path", m.PROCESSES)
@pytest.mark.parametrize(("name", "options"), CASES)
def test_equals_the_naive_loop(name, options, path, clean):
    process = m.PROCESSES[path]
    ts = grid(process, clean=clean)
    x, z = START * process.sigma(ts[0]), draws(ts)
    plan = getattr(S, name)(process, ts, **options)
    calls = 2 if name == "dpm2_ancestral" else 1
    assert plan.nfe == 6 * calls + clean
    want = getattr(loop, name)(process, ts, predictor(process), x, z, **options)
    close(ours(plan, x, z), want)


def test_the_engine_runs_the_same_numbers():
    ts = grid(VP, clean=True)
    x, z = START * VP.sigma(ts[0]), draws(ts)
    plan = S.euler_ancestral(VP, ts)
    got = fd.sample(plan, m.MODEL, jnp.asarray(x)[:, None], noise=z[..., None])
    close(np.asarray(got)[:, 0], ours(plan, x, z))


# ------------------------------------------------------------------ special cases


def same(plan, other, tol=1e-12):
    a, b = jax.tree.leaves(plan), jax.tree.leaves(other)
    assert jax.tree.structure(plan) == jax.tree.structure(other)
    for one, two in zip(a, b, strict=True):
        close(one, two, tol)


@pytest.mark.parametrize("path", m.PROCESSES)
def test_no_noise_is_the_deterministic_method(path):
    process = m.PROCESSES[path]
    ts = grid(process, clean=True)
    same(S.euler_ancestral(process, ts, eta=0), S.ddim(process, ts))
    plan, other = S.euler_maruyama(process, ts, tau2=0), S.euler(process, ts)
    same(with_rows(plan, basis=other.rows.basis), other)  # a label, no weight
    plan, other = S.dpm2_ancestral(process, ts, eta=0), S.dpm2(process, ts)
    assert not plan.stochastic and plan.nfe == other.nfe
    x = START * process.sigma(ts[0])
    close(ours(plan, x, draws(ts)), ours(other, x, draws(ts)))


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("path", m.PROCESSES)
def test_euler_ancestral_is_ddim_with_noise(path, eta):
    process = m.PROCESSES[path]
    ts = grid(process, clean=True)
    same(S.euler_ancestral(process, ts, eta=eta), S.ddim(process, ts, eta=eta))
    same(S.ddpm(process, ts), S.ddim(process, ts, eta=1.0))


def test_infinite_eta_draws_all_noise_anew():
    """From alpha = 0 to sigma = 0: x_t = alpha_t D + sigma_t z."""
    flow = m.PROCESSES["flow"]
    ts = np.array([1.0, 0.8, 0.8, 0.3, 0.0])
    found = words(S.euler_ancestral(flow, ts, eta=np.inf))
    moved = np.array([1, 0, 1, 1])
    close(found.keep, 1 - moved)
    close(found.weights, (moved * (1 - ts[1:]))[:, None])
    close(found.noise, moved * ts[1:])
    finite = words(S.euler_ancestral(flow, ts, eta=1.0))
    assert finite.noise[1] == 0 and finite.keep[1] == 1


def test_a_repeated_time_is_the_identity():
    ts = grid(VP)
    repeated = np.insert(ts, 3, ts[3])
    for make in (S.dpm2_ancestral, S.euler_maruyama, S.euler_ancestral, S.ddpm):
        one, two = transfer(make(VP, ts), 0.3), transfer(make(VP, repeated), 0.3)
        close(one.state, two.state)
        close((one.noise**2).sum(), (two.noise**2).sum())


def test_options_by_the_step():
    ts = grid(VP)
    eta = np.array([0.0, 1.0, 0.5, 0.5, 0.0, 1.0])
    mixed = S.dpm2_ancestral(VP, ts, eta=eta).rows.noise
    for value in (0.5, 1.0):
        whole = S.dpm2_ancestral(VP, ts, eta=value).rows.noise
        at = np.repeat(eta == value, 2)
        close(mixed[at], whole[at])
    assert (mixed[np.repeat(eta == 0, 2)] == 0).all()
    tau2 = S.euler_maruyama(VP, ts, tau2=eta).rows.noise
    assert ((tau2 == 0) == (eta == 0)[:, None]).all()


@pytest.mark.parametrize("name", ["euler_ancestral", "dpm2_ancestral", "ddpm"])
def test_traced_times_give_the_same_weights(name):
    ts = grid(VP)
    make = getattr(S, name)
    same(jax.jit(lambda t: make(VP, t))(jnp.asarray(ts)), make(VP, ts), 1e-9)
    total = lambda t: jnp.sum(make(VP, t).rows.noise)  # noqa: E731
    assert np.isfinite(jax.jit(jax.grad(total))(jnp.asarray(ts))).all()


def test_traced_options():
    ts = grid(EDM, clean=True)
    for make in (S.euler_ancestral, S.dpm2_ancestral):
        traced = jax.jit(lambda v, make=make: make(EDM, ts, eta=v))(0.5)
        same(traced, make(EDM, ts, eta=0.5), 1e-9)
    ts = grid(VP)
    traced = jax.jit(lambda t, v: S.euler_maruyama(VP, t, tau2=v))
    same(traced(jnp.asarray(ts), 0.5), S.euler_maruyama(VP, ts, tau2=0.5), 1e-9)


# ---------------------------------------------------- invariants on Gaussian data


@pytest.mark.parametrize("eta", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("path", m.PROCESSES)
def test_a_constant_prediction_gives_the_exact_law(path, eta):
    process = m.PROCESSES[path]
    ts = grid(process)
    for make in (S.euler_ancestral, S.dpm2_ancestral):
        assert max(map(abs, constant(make(process, ts, eta=eta)))) < 1e-12
    assert max(map(abs, constant(S.ddpm(process, ts)))) < 1e-12


def test_where_a_constant_prediction_is_not_exact():
    ts = grid(VP)
    assert abs(constant(S.euler_maruyama(VP, ts)).spread) > 1e-3
    assert constant(S.ddpm(VP, ts, variance="large")).spread > 1e-3
    assert constant(S.euler_ancestral(VP, ts, s_noise=1.01)).spread > 1e-4


def marginal(process, t):
    return process.alpha(t) ** 2 * VARIANCE + process.sigma(t) ** 2


def posterior_gain(process, ts):
    """d E[x_t | x_T] / d x_T on the forward process of Gaussian data."""
    forward = process.alpha(ts[0]) / process.alpha(ts[-1])
    return forward * marginal(process, ts[-1]) / marginal(process, ts[0])


def gain_error(plan, process, ts):
    return float(transfer(plan, VARIANCE).state[0] - posterior_gain(process, ts))


@pytest.mark.parametrize("path", m.PROCESSES)
def test_the_posterior_mean_is_exact_at_any_step_size(path):
    """eta = 1 on Gaussian data: D is a martingale along the reverse chain."""
    process = m.PROCESSES[path]
    ts = grid(process, 3)
    for variance in ("posterior", "large"):
        plan = S.ddpm(process, ts, variance=variance)
        assert abs(gain_error(plan, process, ts)) < 1e-14
    assert abs(gain_error(S.euler_ancestral(process, ts), process, ts)) < 1e-14
    for make in (S.dpm2_ancestral, S.euler_maruyama):
        assert abs(gain_error(make(process, ts), process, ts)) > 1e-3


# -------------------------------------------------------------------------- slopes


def smooth(process, steps):
    """Uneven, smooth, half log-SNR -2..2."""
    u = np.linspace(0, 1, steps + 1)
    return process.half_log_snr_inverse(-2 + 4 * (u + 0.1 * u * np.sin(np.pi * u)))


def slope(measure, make, counts=(60, 120)):
    found = [abs(measure(make(VP, smooth(VP, n)), smooth(VP, n))) for n in counts]
    return np.log2(found[0] / found[1])


def variance_error(plan, ts):
    found = gaussian_error(plan, 0.7, VARIANCE, exact_start=True, target="level")
    return float((found.variance - found.target_variance)[0])


def mean_error(plan, ts):
    return gain_error(plan, VP, ts)


def planted(make, factor):
    """The builder with every noise weight a little off."""

    def wrong(process, ts, **options):
        return spoiled(make(process, ts, **options), noise=factor)

    return wrong


SLOPES = [  # builder, measure, order
    (S.euler_ancestral, variance_error, 1),
    (lambda p, t: S.euler_ancestral(p, t, eta=0.5), variance_error, 1),
    (lambda p, t: S.ddpm(p, t, variance="large"), variance_error, 1),
    (S.euler_maruyama, variance_error, 1),
    (S.euler_maruyama, mean_error, 1),
    (S.dpm2_ancestral, variance_error, 2),
    (S.dpm2_ancestral, mean_error, 1),
    (lambda p, t: S.dpm2_ancestral(p, t, eta=0.5), variance_error, 2),
]


@pytest.mark.parametrize(("make", "measure", "order"), SLOPES)
def test_order_of_the_moments(make, measure, order):
    assert abs(slope(measure, make) - order) < 0.25
    if measure is variance_error:
        assert abs(slope(measure, planted(make, 1.05)) - order) > 0.25


# ----------------------------------------------------------------------- bad input


@pytest.mark.parametrize("make", [S.euler_ancestral, S.dpm2_ancestral])
def test_bad_factors(make):
    ts = grid(VP)
    for eta in (-0.1, 1e9, -np.inf):
        with pytest.raises(ValueError, match="eta must .* got "):
            make(VP, ts, eta=eta)
    with pytest.raises(ValueError, match="eta must be real numbers without NaN"):
        make(VP, ts, eta=np.nan)
    with pytest.raises(ValueError, match="s_noise must be a finite"):
        make(VP, ts, s_noise=np.inf)


def test_bad_input():
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\] \(0.* got inf"):
        S.dpm2_ancestral(VP, grid(VP), eta=np.inf)
    flow, ts = m.PROCESSES["flow"], np.array([1.0, 0.5, 0.1])
    with pytest.raises(ValueError, match="tau2 must be finite and >= 0"):
        S.euler_maruyama(VP, grid(VP), tau2=-1)
    with pytest.raises(ValueError, match=r"euler_maruyama needs alpha > 0.*ts\[0\]=1"):
        S.euler_maruyama(flow, ts)
    assert S.euler_maruyama(flow, ts, tau2=[0.0, 1.0]).stochastic
    with pytest.raises(ValueError, match="variance must be 'posterior' or 'large'"):
        S.ddpm(VP, grid(VP), variance="small")
    with pytest.raises(ValueError, match="noise prediction does not exist"):
        S.dpm2_ancestral(flow, ts)
