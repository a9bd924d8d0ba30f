"""The diffusion ODE and SDE as diffrax terms."""

import functools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax import continuous as c

from . import mixture as m

VE = fd.processes.ve()
PROCESSES = {"vp": m.PROCESSES["vp"], "ve": VE, "flow": m.PROCESSES["flow"]}
VARIABLES = ("half_log_snr", "asinh_snr", "time")


def ends(process):
    """Times of the bounded range that the mixture's reference covers."""
    return [float(process.half_log_snr_inverse(v)) for v in (m.LOW, m.HIGH)]


def change(process, variable, t):
    """The variable at time t, and its derivative, by central differences."""
    if variable == "time":
        return t, 1.0
    value = {
        "half_log_snr": process.half_log_snr,
        "asinh_snr": lambda t: np.arcsinh(process.alpha(t) / process.sigma(t)),
    }[variable]
    eps = 1e-6 * t
    return float(value(t)), float(value(t + eps) - value(t - eps)) / (2 * eps)


def velocity(process, x, t):
    """alpha' D + sigma' E in NumPy."""
    a, s = float(process.alpha(t)), float(process.sigma(t))
    up, down = (float(v) for v in process.rates(t))
    found = m.predict(x[:, 0], a, s)[:, None]
    return up * found + down * (x - a * found) / s


@pytest.mark.slow
@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize("name", PROCESSES)
def test_the_slope_is_the_published_velocity(name, variable):
    process = PROCESSES[name]
    term = c.probability_flow(process, m.MODEL, variable=variable)
    x = np.linspace(-2, 2, 5)[:, None]
    for t in (0.2, 0.7, 0.99):
        value, rate = change(process, variable, t)
        got = term.vf(jnp.asarray(value), jnp.asarray(x), None)
        want = velocity(process, x, t)
        np.testing.assert_allclose(np.asarray(got) * rate, want, rtol=1e-6)
        plain = c.velocity_term(process, m.MODEL)
        got = plain.vf(jnp.asarray(t), jnp.asarray(x), None)
        np.testing.assert_allclose(got, want, rtol=1e-10)


@functools.cache
def exact_end(name):
    process, x, end = m.problem(name if name != "ve" else "edm")
    return PROCESSES[name], x, end


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "variable", "solver"),
    [
        ("vp", "half_log_snr", c.res_3()),
        ("ve", "half_log_snr", diffrax.Tsit5()),
        ("flow", "asinh_snr", diffrax.Tsit5()),
        ("flow", "time", c.res_3()),
    ],
)
def test_end_point_of_the_ode(name, variable, solver):
    process, x, end = exact_end(name)
    t0, t1 = c.interval(process, *ends(process), variable=variable)
    found = diffrax.diffeqsolve(
        c.probability_flow(process, m.MODEL, variable=variable),
        solver,
        t0,
        t1,
        (t1 - t0) / 50,
        jnp.asarray(x),
        stepsize_controller=diffrax.PIDController(rtol=1e-7, atol=1e-7),
    )
    np.testing.assert_allclose(found.ys[-1], end, atol=3e-6)


def test_ode_from_pure_noise_where_alpha_is_zero():
    """Flow from t = 1: x / sqrt(alpha^2 s^2 + sigma^2) does not change."""
    process, model = fd.processes.flow(), fd.models.gaussian(0.0, 0.25)
    t0, t1 = c.interval(process, variable="asinh_snr")
    assert t0 == 0.0
    term = c.probability_flow(process, model, variable="asinh_snr")
    x = jnp.asarray([[1.5]])
    found = diffrax.diffeqsolve(term, c.res_3(), t0, t1, (t1 - t0) / 100, x)
    scale = np.hypot(0.999 * 0.5, 1e-3)
    np.testing.assert_allclose(found.ys[-1], 1.5 * scale, rtol=1e-4)


# ---------------------------------------------------------------------------- the SDE


class Still(diffrax.AbstractPath):
    """No noise: leaves the mean of a linear equation."""

    t0: float = -50.0
    t1: float = 50.0

    def evaluate(self, t0, t1=None, left=True, use_levy=False):
        return jnp.zeros((1, 1))


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("tau2", [0.0, 0.3, 1.0])
def test_drift_and_noise_of_the_reverse_sde(name, tau2):
    process, t = PROCESSES[name], 0.6
    lam, rate = change(process, "half_log_snr", t)
    x = np.linspace(-2, 2, 5)[:, None]
    drift, noise = c.reverse_sde(process, m.MODEL, Still(), tau2=tau2).terms
    a, s = float(process.alpha(t)), float(process.sigma(t))
    down = float(process.rates(t)[1]) / s / rate
    found = m.predict(x[:, 0], a, s)[:, None]
    want = (down - tau2) * x + (1 + tau2) * a * found
    got = drift.vf(jnp.asarray(lam), jnp.asarray(x), None)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    np.testing.assert_allclose(
        noise.vf(jnp.asarray(lam), None, None), np.sqrt(2 * tau2) * s, rtol=1e-10
    )


def test_mean_is_exact_at_any_step():
    """tau2 = 1: D is a martingale, so an exponential step keeps E[x] exactly."""
    process, model = m.PROCESSES["vp"], fd.models.gaussian(0.7, 0.25)
    t0, t1 = c.interval(process, *ends(process))
    start, end = ends(process)
    a, first = float(process.alpha(start)), float(process.sigma(start))
    terms = c.reverse_sde(process, model, Still())
    x = jnp.asarray([[2.0]])
    found = diffrax.diffeqsolve(
        terms, c.StochasticExponentialEuler(), t0, t1, (t1 - t0) / 4, x
    )
    k = a * 0.25 / (a**2 * 0.25 + first**2)
    mean = 0.7 + k * (2.0 - a * 0.7)  # E[x_0 | x]
    a1, s1 = float(process.alpha(end)), float(process.sigma(end))
    keep = (s1 / first) ** 2 * a / a1  # of the bridge from x_0 to x
    want = keep * 2.0 + (a1 - keep * a) * mean
    np.testing.assert_allclose(found.ys[-1], want, rtol=1e-10)


@eqx.filter_jit
def drawn(process, model, path, tau2, x):
    terms = c.reverse_sde(process, model, path, tau2=tau2)
    dt = (path.t1 - path.t0) / 80
    solver = diffrax.Heun()
    return diffrax.diffeqsolve(terms, solver, path.t0, path.t1, dt, x).ys[-1]


@pytest.mark.slow
@pytest.mark.parametrize("tau2", [0.5, 1.0])
def test_moments_on_gaussian_data(tau2):
    process, model = m.PROCESSES["vp"], fd.models.gaussian(0.7, 0.25)
    start, end = ends(process)
    count = 6000
    a, s = float(process.alpha(start)), float(process.sigma(start))
    std = np.sqrt(a**2 * 0.25 + s**2)
    x = 0.7 * a + std * jax.random.normal(jax.random.key(5), (count, 1))
    path = c.brownian(process, jax.random.key(1), x, start=start, end=end)
    y = np.asarray(drawn(process, model, path, jnp.asarray(tau2), x))[:, 0]
    a, s = float(process.alpha(end)), float(process.sigma(end))
    variance = a**2 * 0.25 + s**2
    assert abs(y.mean() - 0.7 * a) < 4 * np.sqrt(variance / count)
    assert abs(y.var(ddof=1) / variance - 1) < 4 * np.sqrt(2 / count)
    # x_T is forgotten: the correlation is e^{-tau2 c}, with
    # c = [lambda - log(1 + s^2 e^{2 lambda}) / 2] between the ends
    lam = np.array([path.t0, path.t1])
    gone = np.diff(lam - np.log1p(0.25 * np.exp(2 * lam)) / 2)[0]
    kept = np.corrcoef(np.asarray(x)[:, 0], y)[0, 1]
    assert abs(kept - np.exp(-tau2 * gone)) < 4 / np.sqrt(count)


@pytest.mark.slow
def test_one_path_many_step_counts():
    """Strong order 1: the same Brownian path under steps of any length."""
    process = m.PROCESSES["vp"]
    start, end = (float(process.half_log_snr_inverse(v)) for v in (-1.5, 1.5))
    t0, t1 = c.interval(process, start, end)
    x = jax.random.normal(jax.random.key(5), (200, 1))
    path = c.brownian(process, jax.random.key(1), x, start=start, end=end)
    terms = c.reverse_sde(process, m.MODEL, path)

    @eqx.filter_jit
    def run(dt):
        solver = diffrax.Euler()
        return diffrax.diffeqsolve(terms, solver, t0, t1, dt, x).ys[-1]

    y = [run(jnp.asarray((t1 - t0) / n)) for n in (16, 32, 64, 1024)]
    error = [float(jnp.sqrt(((v - y[-1]) ** 2).mean())) for v in y[:-1]]
    assert error[0] < 0.2
    rates = np.log2(np.array(error[:-1]) / error[1:])
    assert ((rates > 0.8) & (rates < 1.3)).all(), (error, rates)


@pytest.mark.slow
def test_paths_per_sample():
    process = m.PROCESSES["vp"]
    like = {"a": jnp.zeros((400, 2)), "b": jnp.zeros((400,), jnp.float32)}
    path = c.brownian(process, jax.random.key(3), like, end=1e-2)
    few = c.brownian(
        process, jax.random.key(3), jax.tree.map(lambda v: v[:3], like), end=1e-2
    )
    (t0, t1), mid = (path.t0, path.t1), 0.3
    evaluate = eqx.filter_jit(lambda path, a, b: path.evaluate(a, b))
    places = jnp.asarray([t0, mid, t1])
    whole, left, right = (
        evaluate(path, places[i], places[j]) for i, j in ((0, 2), (0, 1), (1, 2))
    )
    assert jax.tree.map(lambda v: v.dtype.name, whole) == {
        "a": "float64",
        "b": "float32",
    }
    first = evaluate(few, places[0], places[1])
    for name in like:
        np.testing.assert_allclose(whole[name], left[name] + right[name], atol=1e-5)
        np.testing.assert_allclose(first[name], left[name][:3], rtol=1e-6)
        ratio = float(left[name].var()) / (mid - t0)
        assert abs(ratio - 1) < 4 * np.sqrt(2 / 400)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: c.probability_flow(VE, m.MODEL, variable="lambda"), "must be one of"),
        (lambda: c.interval(fd.processes.flow()), "half_log_snr is -inf at start=1"),
        (
            lambda: c.interval(VE, 1.0, -np.inf, variable="asinh_snr"),
            "end must be a",
        ),
        (lambda: c.interval(VE, start=2 * VE.start), "must be in"),
        (lambda: c.interval(VE, 0.5, 0.9), "must decrease"),
        (
            lambda: c.reverse_sde(VE, m.MODEL, Still(), tau2=-1),
            "tau2 must be in .0, inf., got -1",
        ),
        (
            lambda: c.brownian(VE, jax.random.key(0), jnp.zeros((1, 1)), tol=0.0),
            "tol must be in .0, .*less than the whole, got 0.0",
        ),
    ],
)
def test_bad_options(call, text):
    with pytest.raises(ValueError, match=text):
        call()


def test_a_denoiser_with_memory_is_refused():
    class Keeps:
        def initial_carry(self, x):
            return x

        def __call__(self, x, context, carry):
            return x, carry

    term = c.probability_flow(VE, Keeps())
    with pytest.raises(ValueError, match="without a memory"):
        term.vf(jnp.asarray(0.5), jnp.ones((1, 1)), None)
