"""Processes between two endpoints, and the first-order tables on them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

import fastdiff_jax as fd

from . import mixture as m
from . import replay as host
from .table import spoiled

P = fd.processes
PROCESSES = {
    "resshift": P.resshift(),
    "resshift 4": P.resshift(4, min_noise=0.2),
    "rddm": P.rddm(40),
    "rddm average": P.rddm(40, noise_sum=1.0, residual="average", noise="average"),
    "rddm other": P.rddm(40, residual="increased", noise="decreased"),
    "resfusion": P.resfusion(),
    "resfusion cosine": P.resfusion(P.vp_cosine()),
    "ouve": P.ouve(),
    "sb_ve": P.sb_ve(),
}
names = pytest.mark.parametrize("name", sorted(PROCESSES))


def inner_times(process, count=9):
    """Times strictly inside the domain, decreasing."""
    low, high = process.domain
    return np.linspace(high, low, count + 2)[1:-1]


# ------------------------------------------------------------ forward marginals


def test_resshift_is_the_sum_of_its_increments():
    """The published schedule's own arithmetic, then x_t = x_{t-1} + a_t R + k a z."""
    steps, low, kappa = 15, 0.04, 2.0
    process = P.resshift(steps, min_noise=low, kappa=kappa)
    start = min(low / kappa, low)
    factor = np.exp(np.log(0.99 / start) / (steps - 1))
    root = start * factor ** (np.linspace(0, 1, steps) ** 0.3 * (steps - 1))
    clean, degraded, variance = 1.0, 0.0, 0.0
    for i, added in enumerate(np.diff(np.append(0.0, root**2))):
        clean, degraded = clean - added, degraded + added
        variance += kappa**2 * added
        got = [process.alpha(i), process.beta(i), process.sigma(i) ** 2]
        np.testing.assert_allclose(got, [clean, degraded, variance], rtol=1e-10)
    assert process.sigma(-1) == 0 and process.alpha(-1) == 1 == 1 - process.beta(-1)
    assert P.resshift(kappa=0.5, min_noise=0.1).root_eta(0) == 0.1  # not 0.1 / 0.5


def test_rddm_is_the_sum_of_its_coefficients():
    steps = 40
    ramps = {
        "increased": np.arange(1, steps + 1) / (steps * (steps + 1) / 2),
        "decreased": np.arange(steps, 0, -1) / (steps * (steps + 1) / 2),
        "average": np.full(steps, 1 / steps),
    }
    label = np.arange(steps)
    for residual, r in ramps.items():
        for noise, n in ramps.items():
            process = P.rddm(steps, noise_sum=0.01, residual=residual, noise=noise)
            np.testing.assert_allclose(process.beta(label), np.cumsum(r), rtol=1e-12)
            left = 1 - np.cumsum(r)
            np.testing.assert_allclose(process.alpha(label), left, atol=1e-12)
            want = 0.01 * np.cumsum(n)
            np.testing.assert_allclose(process.sigma(label) ** 2, want, rtol=1e-12)
            assert process.alpha(process.start) == 0 == process.sigma(-1)


def test_resfusion_is_its_chain():
    """x_t = sqrt(alpha) x_{t-1} + (1 - sqrt(alpha)) R + sqrt(beta) z, cut at 1/2."""
    betas = np.linspace(1000 / 12 * 1e-4, 1000 / 12 * 0.02, 12)
    with np.errstate(invalid="ignore"):
        a = np.sqrt(np.cumprod(1 - betas))
    cut = np.flatnonzero(a <= 0.5)[0]
    assert cut == 4
    process = P.resfusion()
    assert process.start == cut
    betas = np.append(betas[:cut], 1 - 0.25 / a[cut - 1] ** 2)
    clean, degraded, variance = 1.0, 0.0, 0.0
    for t, beta in enumerate(betas):
        g = np.sqrt(1 - beta)
        clean, degraded = g * clean - (1 - g), g * degraded + (1 - g)
        variance = g**2 * variance + beta
        got = [process.alpha(t), process.beta(t), process.sigma(t) ** 2]
        np.testing.assert_allclose(got, [clean, degraded, variance], atol=1e-12)
        assert abs(process.step_root(t) - g) < 1e-13
    assert process.alpha(process.start) == 0


def moments(drift, growth, end):
    """(alpha, beta, variance) of dx = drift(t) (y - x) dt + sqrt(growth) dw."""

    def slope(t, u):
        k = drift(t)
        return [-k * u[0], k * (1 - u[1]), growth(t) - 2 * k * u[2]]

    options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-14}
    return solve_ivp(slope, (0.0, end), [1.0, 0.0, 0.0], **options).y[:, -1]


@pytest.mark.parametrize("t", [0.03, 0.5, 0.97])
@pytest.mark.parametrize("name", ["ouve", "sb_ve"])
def test_speech_paths_solve_their_equations(name, t):
    process = PROCESSES[name]
    if name == "ouve":
        ratio = np.log(0.5 / 0.05)
        growth = lambda s: (0.05 * np.exp(ratio * s)) ** 2 * 2 * ratio  # noqa: E731
        want = moments(lambda s: 1.5, growth, t)
    else:  # the bridge pulls to y by g^2 / (variance left)
        rate = lambda s: 0.4 * 2.6 ** (2 * s)  # noqa: E731
        total = quad(rate, 0, 1, epsabs=1e-14)[0]
        unit = 0.4 / (2 * np.log(2.6))
        left = lambda s: total - unit * (2.6 ** (2 * s) - 1)  # noqa: E731
        want = moments(lambda s: rate(s) / left(s), rate, t)
    got = [process.alpha(t), process.beta(t), process.sigma(t) ** 2]
    np.testing.assert_allclose(got, want, rtol=1e-9)


# ------------------------------------------------------------------ every process


@names
def test_is_a_process_with_two_endpoints(name):
    process = PROCESSES[name]
    assert isinstance(process, fd.typing.Process)
    ts = inner_times(process)
    k = process.centre
    np.testing.assert_allclose(process.beta(ts), k * (1 - process.alpha(ts)), rtol=1e-9)
    lam = process.half_log_snr(ts)
    assert (np.diff(lam) > 0).all()
    ratio = np.log(process.alpha(ts) / process.sigma(ts))
    np.testing.assert_allclose(lam, ratio, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(process.half_log_snr_inverse(lam), ts, atol=1e-9)
    assert process.sigma(process.clean) == 0 and process.alpha(process.clean) == 1
    assert process.half_log_snr(process.clean) == np.inf
    assert process.half_log_snr_inverse(np.inf) == process.clean
    if process.alpha(process.start) == 0:
        assert process.half_log_snr(process.start) == -np.inf
        assert process.half_log_snr_inverse(-np.inf) == process.start
    ends = np.array([process.start, process.end])
    assert process.model_time(ends).tolist() == ends.tolist()


@names
def test_rates_are_the_derivatives(name):
    process = PROCESSES[name]
    ts = inner_times(process, 8)
    if name == "resfusion":  # linear in log alpha between labels: not at one
        ts = np.array([3.5, 2.2, 0.7])
    step = 1e-5
    for f, rate in zip((process.alpha, process.sigma), process.rates(ts), strict=True):
        slope = (f(ts + step) - f(ts - step)) / (2 * step)
        np.testing.assert_allclose(rate, slope, rtol=2e-6, atol=1e-8)


@pytest.mark.slow
@names
def test_jax_equals_numpy_and_is_differentiable(name):
    process = PROCESSES[name]
    ts = inner_times(process, 5)
    lam = process.half_log_snr(ts)

    @jax.jit
    def traced(process, ts, lam):
        levels = process.alpha(ts), process.beta(ts), process.sigma(ts)
        back = process.half_log_snr_inverse(lam)
        slope = jax.vmap(jax.grad(process.half_log_snr_inverse))(lam)
        return *levels, back, slope

    *levels, back, slope = traced(process, jnp.asarray(ts), jnp.asarray(lam))
    for got, f in zip(
        levels, (process.alpha, process.beta, process.sigma), strict=True
    ):
        np.testing.assert_allclose(got, f(ts), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(back, ts, atol=1e-9)
    d_alpha, d_sigma = process.rates(ts)
    want = 1 / (d_alpha / process.alpha(ts) - d_sigma / process.sigma(ts))
    if name != "resfusion":  # times at labels have a slope on each side
        np.testing.assert_allclose(slope, want, rtol=1e-6)


@functools.cache
def solution(low):
    """The mixture's exact solution in u = x / alpha, from half log-SNR `low`."""
    u = np.linspace(-2.5, 2.5, 41) * np.hypot(1.0, np.exp(-low))

    def slope(lam, w):  # w = u / rho: dw/dlambda = D e^lambda
        return m.predict(w * np.exp(-lam), 1.0, np.exp(-lam)) * np.exp(lam)

    options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-12}
    found = solve_ivp(slope, (low, m.HIGH), u * np.exp(low), **options)
    return u, found.y[:, -1] * np.exp(-m.HIGH)


@pytest.mark.parametrize("name", sorted(set(PROCESSES) - {"resfusion"}))
def test_centred_plans_of_second_order(name):
    """Around k y every solver runs: two-sided slope on the mixture."""
    process = PROCESSES[name]  # resfusion has kinks at its labels; the cosine has not
    low = -0.5 if name == "ouve" else m.LOW
    u, end = solution(low)

    def error(n, wrong=1.0):
        ts = process.half_log_snr_inverse(np.linspace(low, m.HIGH, n + 1))
        plan = spoiled(fd.solvers.dpmpp_2m(process, ts), older=wrong)
        alpha = process.alpha(ts)
        got = host.run(plan, u * alpha[0]) / alpha[-1]
        return np.sqrt(np.mean((got - end) ** 2))

    assert abs(np.log2(error(60) / error(120)) - 2) < 0.2
    assert np.log2(error(60, 1.02) / error(120, 1.02)) < 1.5


# --------------------------------------------------------------- two_endpoint


def weights(plan):
    """All lines of the table's rows."""
    rows = plan.rows
    return rows.registers, rows.predictions, rows.noise, rows.bias


def response(plan, predict, y=None):
    """(sample at x = 0, gain on x, gains on z) of a plan, from one replay."""
    draws = plan.length
    x = np.zeros(draws + 2)
    x[1] = 1.0
    z = np.zeros((draws, draws + 2))
    z[np.arange(draws), np.arange(draws) + 2] = 1.0
    if not plan.stochastic:
        z = None
    out = fd.plan.replay(plan, predict, x, z)
    return out[0], out[1] - out[0], out[2:] - out[0]


CHAINS = [(0.0, None), (1.0, None), (0.6, None), (1.0, "markov"), (1.0, "increments")]


def starts(process, count=6):
    """Times from the start of the path (sigma > 0) on, not yet clean."""
    low, high = process.domain
    ts = np.linspace(high, low, count + 1)
    return ts[:-1] if process.sigma(high) > 0 else np.append(high, ts[1:-1])


@names
@pytest.mark.parametrize(("eta", "chain"), CHAINS)
def test_marginals_are_exact_for_an_exact_prediction(name, eta, chain):
    process, clean, y = PROCESSES[name], 0.7, -1.3
    if name == "sb_ve" and chain == "increments":
        return  # no such chain: see the error below
    ts = starts(process)
    alpha, beta, sigma = process.alpha(ts), process.beta(ts), process.sigma(ts)
    for n in range(1, len(ts)):
        plan = fd.solvers.two_endpoint(process, ts[: n + 1], eta=eta, chain=chain)
        base, gain, noise = response(plan, lambda x, i: (clean + 0 * x, y + 0 * x))
        mean = base + gain * (alpha[0] * clean + beta[0] * y)
        variance = (gain * sigma[0]) ** 2 + (noise**2).sum()
        assert abs(mean - alpha[n] * clean - beta[n] * y) < 1e-12
        assert abs(variance - sigma[n] ** 2) < 1e-12


@names
def test_end_rule_is_the_data_prediction(name):
    process = PROCESSES[name]
    ts = np.append(starts(process), process.clean)
    plan = fd.solvers.two_endpoint(process, ts, eta=1.0)
    out = fd.plan.replay(
        plan,
        lambda x, i: (np.cos(x) + i, 5.0 + 0 * x),
        np.ones(3),
        np.ones((plan.length, 3)),
    )
    last = fd.solvers.two_endpoint(process, ts[:-1], eta=1.0)
    before = fd.plan.replay(
        last,
        lambda x, i: (np.cos(x) + i, 5.0 + 0 * x),
        np.ones(3),
        np.ones((last.length, 3)),
    )
    np.testing.assert_allclose(out, np.cos(before) + plan.length - 1, rtol=1e-12)
    assert not plan.rows.noise[-1].any()


@pytest.mark.parametrize("name", ["resshift", "resfusion cosine", "ouve", "sb_ve"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_gaussian_data_mean_exact_variance_of_first_order(name, eta):
    """D of N(mu, v) at fixed y: the mean is exact, the variance converges."""
    process, mu, v, y = PROCESSES[name], 0.4, 0.5, -1.0
    low, errors = -0.5 if name == "ouve" else -2.5, []
    for n in (40, 80):
        ts = process.half_log_snr_inverse(np.linspace(low, 2.5, n + 1))
        a, b, s = process.alpha(ts), process.beta(ts), process.sigma(ts)

        def predict(x, i, a=a, b=b, s=s):
            gain = a[i] * v / (a[i] ** 2 * v + s[i] ** 2)
            return mu + gain * (x - b[i] * y - a[i] * mu), y + 0 * x

        plan = fd.solvers.two_endpoint(process, ts, eta=eta)
        base, gain, noise = response(plan, predict)
        mean = base + gain * (a[0] * mu + b[0] * y)
        assert abs(mean - a[-1] * mu - b[-1] * y) < 1e-12
        variance = gain**2 * (a[0] ** 2 * v + s[0] ** 2) + (noise**2).sum()
        errors.append(abs(variance - a[-1] ** 2 * v - s[-1] ** 2))
    assert abs(np.log2(errors[0] / errors[1]) - 1) < 0.2


@names
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_centred_table_is_ddim_on_a_markov_chain(name, eta):
    process = PROCESSES[name]
    ts = inner_times(process, 6)
    ours = fd.solvers.two_endpoint(process, ts, eta=eta, chain="markov", endpoint=False)
    ddim = fd.solvers.ddim(process, ts, eta=eta)
    for a, b in zip(weights(ours), weights(ddim), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@names
def test_with_y_equals_centred(name):
    process, y = PROCESSES[name], 1.7
    ts = inner_times(process, 5)
    k = process.centre
    both = fd.solvers.two_endpoint(process, ts, eta=0.7)
    one = fd.solvers.two_endpoint(process, ts, eta=0.7, endpoint=False)
    x, z = np.linspace(-1, 1, 5), np.random.default_rng(0).standard_normal((4, 5))
    predict = lambda x, i: np.tanh(x + i)  # noqa: E731
    a = fd.plan.replay(both, lambda x, i: (predict(x, i), y + 0 * x), x, z)
    b = fd.plan.replay(one, lambda u, i: predict(u + k * y, i) - k * y, x - k * y, z)
    np.testing.assert_allclose(a, b + k * y, rtol=1e-10, atol=1e-10)


def test_a_pinned_start_draws_noise_once():
    process = PROCESSES["sb_ve"]
    ts = np.linspace(1, 0, 6)
    plan = fd.solvers.two_endpoint(process, ts)
    noise = plan.rows.noise
    assert (abs(noise[0] - process.sigma(ts[1])) < 1e-15).all() and not noise[1:].any()
    quiet = fd.solvers.two_endpoint(process, ts, first_noise=False)
    assert not quiet.stochastic
    np.testing.assert_array_equal(quiet.rows.registers, plan.rows.registers)
    whole = fd.solvers.two_endpoint(process, [1.0, 0.0])  # one step: D itself
    assert not whole.stochastic
    out = fd.plan.replay(whole, lambda x, i: (3.0 + 0 * x, 5.0 + 0 * x), 5.0)
    assert out == 3.0


@names
def test_a_repeated_time_is_the_identity(name):
    process = PROCESSES[name]
    for t in (process.start, inner_times(process)[3], process.clean):
        plan = fd.solvers.two_endpoint(process, [t, t], eta=1.0)
        out = fd.plan.replay(
            plan, lambda x, i: (3.0 + 0 * x, 5.0 + 0 * x), 1.25, np.ones(1)
        )
        assert out == 1.25


@names
def test_traced_and_per_element_times(name):
    process = PROCESSES[name]
    ts = np.append(starts(process, 4), process.clean)

    @jax.jit
    def build(process, ts):
        return weights(fd.solvers.two_endpoint(process, ts, eta=0.5))

    plan = fd.solvers.two_endpoint(process, ts, eta=0.5)
    got = build(process, jnp.asarray(ts))
    for a, b in zip(got, weights(plan), strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    each = np.stack([ts, np.append(ts[1:], ts[-1])], axis=1)
    wide = fd.solvers.two_endpoint(process, each, eta=0.5).rows
    for name in ("registers", "predictions", "noise"):
        got, want = getattr(wide, name), getattr(plan.rows, name)
        np.testing.assert_allclose(got[..., 0], want, rtol=1e-12)


def test_eta_per_step():
    process = PROCESSES["ouve"]
    ts = inner_times(process, 4)
    plan = fd.solvers.two_endpoint(process, ts, eta=[0.0, 1.0, 0.0])
    assert (plan.rows.noise > 0).all(1).tolist() == [False, True, False]
    assert (plan.rows.noise > 0).any(1).tolist() == [False, True, False]


# ------------------------------------------------------------- residual_noise


CLOCKS = {
    "together": lambda ts: (ts, None),
    "residual first": lambda ts: (
        np.append(ts, np.full(5, ts[-1])),
        np.append(np.full(5, ts[0]), ts),
    ),
    "noise first": lambda ts: (
        np.append(np.full(5, ts[0]), ts),
        np.append(ts, np.full(5, ts[-1])),
    ),
}


@pytest.mark.parametrize("clock", sorted(CLOCKS))
def test_exact_predictions_reach_the_data_on_any_path(clock):
    process = P.rddm(40)
    ts, noise_ts = CLOCKS[clock](np.trunc(np.linspace(39, -1, 6)))
    clean, y, noise = 0.3, 1.9, -0.8
    exact = lambda x, i: (y - clean + 0 * x, noise + 0 * x)  # noqa: E731
    plan = fd.solvers.residual_noise(process, ts, noise_ts=noise_ts)
    x = y + process.sigma(39) * noise
    out = fd.plan.replay(plan, exact, x)
    assert abs(out - clean) < 1e-14
    # every point on the way is the path's own, each clock at its own time
    for n in range(1, plan.length):
        part = fd.solvers.residual_noise(
            process,
            ts[: n + 1],
            noise_ts=None if noise_ts is None else noise_ts[: n + 1],
        )
        t = ts[n] if noise_ts is None else noise_ts[n]
        want = clean + process.beta(ts[n]) * (y - clean) + process.sigma(t) * noise
        got = fd.plan.replay(part, exact, x)
        assert abs(got - want) < 1e-14
    if noise_ts is not None:
        np.testing.assert_array_equal(plan.rows.controls["noise_time"], noise_ts[:-1])
        np.testing.assert_array_equal(plan.rows.controls["residual_time"], ts[:-1])


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_residual_noise_keeps_the_variance(eta):
    """E = (x - x_0 - abar R) / bbar: the marginals are exact at any eta."""
    process, clean, y = P.rddm(40), 0.3, 1.9
    ts = np.array([39.0, 20.0, 7.0, 2.0])
    plan = fd.solvers.residual_noise(process, ts, eta=eta)

    def predict(x, i):
        mean = clean + process.beta(ts[i]) * (y - clean)
        return y - clean + 0 * x, (x - mean) / process.sigma(ts[i])

    base, gain, noise = response(plan, predict)
    assert abs(base + gain * y - clean - process.beta(2.0) * (y - clean)) < 1e-13
    variance = (gain * process.sigma(39.0)) ** 2 + (noise**2).sum()
    assert abs(variance - process.sigma(2.0) ** 2) < 1e-15
    same = fd.solvers.two_endpoint(process, ts, eta=np.sqrt(eta))
    np.testing.assert_allclose(plan.rows.noise, same.rows.noise)


# -------------------------------------------------------------------- bad input

SB, RS = PROCESSES["sb_ve"], PROCESSES["resshift"]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: P.resshift(1), "steps must be"),
        (lambda: P.resshift(min_noise=0.0), "min_noise must be > 0"),
        (lambda: P.resshift(kappa=-1.0), "kappa must be > 0"),
        (lambda: P.resshift(end=0.01), "must be below end"),
        (lambda: P.resshift(end=1.0), "end must be below 1"),
        (lambda: P.rddm(0), "steps must be"),
        (lambda: P.rddm(noise_sum=0.0), "noise_sum must be > 0"),
        (lambda: P.rddm(residual="up"), "residual must be one of"),
        (lambda: P.rddm(noise="up"), "noise must be one of"),
        (lambda: P.resfusion(steps=3), "steps must be"),
        (lambda: P.resfusion(P.flow()), "must preserve variance"),
        (lambda: P.ouve(theta=0.0), "theta must be > 0"),
        (lambda: P.ouve(sigma_min=1.0), "must be below"),
        (lambda: P.sb_ve(k=1.0), "k must be > 1"),
        (lambda: P.sb_ve(c=0.0), "c must be > 0"),
        (lambda: fd.solvers.two_endpoint(P.flow(), [1.0, 0.0]), "two endpoints"),
        (lambda: fd.solvers.two_endpoint(RS, [14, -1], eta=2.0), "eta must lie"),
        (lambda: fd.solvers.two_endpoint(RS, [14, -1], chain="x"), "chain must be"),
        (
            lambda: fd.solvers.two_endpoint(SB, [0.9, 0.5], eta=1, chain="increments"),
            "negative variance",
        ),
        (lambda: fd.solvers.two_endpoint(RS, [15, -1]), "must lie in"),
        (lambda: fd.solvers.residual_noise(P.rddm(9), [8, -1], eta=-1), "eta must"),
        (
            lambda: fd.solvers.residual_noise(P.rddm(9), [8, -1], noise_ts=[8, 1, 0]),
            "noise_ts must have",
        ),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_no_centre_no_centred_table():
    class Other:
        centre = None

        half_log_snr = beta = alpha = sigma = lambda self, t: t

    with pytest.raises(ValueError, match="needs a process with a centre"):
        fd.solvers.two_endpoint(Other(), [1.0, 0.0], endpoint=False)
