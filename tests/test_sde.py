"""SDE-DPM-Solver++, SEEDS, DPM++ SDE: loops, exact laws, weak orders, both ends."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.analysis import gaussian_error, transfer

from . import mixture as m
from .oracles import sde as o
from .table import with_rows

S = fd.solvers
VP, EDM, FLOW = (m.PROCESSES[k] for k in ("vp", "edm", "flow"))
START = np.linspace(-2, 2, 7)
LONG = {"lower_order_final": False}
ORDER3 = {"order": 3}
CASES = {  # name: (builder, our options, loop, its options)
    "1": (S.sde_dpmpp_1, {}, o.multistep, {}),
    "1 tau2=.4": (S.sde_dpmpp_1, {"tau2": 0.4}, o.multistep, {"tau2": 0.4}),
    "2m": (S.sde_dpmpp_2m, LONG, o.multistep, {"order": 2, "form": "midpoint"}),
    "2m exact": (
        S.sde_dpmpp_2m,
        {"variant": "exact", "tau2": 0.3, **LONG},
        o.multistep,
        {"order": 2, "tau2": 0.3},
    ),
    "2m per step": (
        S.sde_dpmpp_2m,
        {"variant": "exact", "tau2": np.linspace(0, 1.6, 9), **LONG},
        o.multistep,
        {"order": 2, "tau2": np.linspace(0, 1.6, 9)},
    ),
    "2m noise": (
        S.sde_dpmpp_2m,
        {"prediction": "noise", "tau2": 0.7, **LONG},
        o.noise_multistep,
        {"tau2": 0.7, "form": "midpoint"},
    ),
    "2m noise exact": (
        S.sde_dpmpp_2m,
        {"prediction": "noise", "variant": "exact", **LONG},
        o.noise_multistep,
        {},
    ),
    "3m": (S.sde_dpmpp_3m, LONG, o.multistep, ORDER3),
    "3m published": (
        S.sde_dpmpp_3m,
        {"compat": True, "tau2": 0.5, **LONG},
        o.multistep,
        {"form": "published", "tau2": 0.5, **ORDER3},
    ),
    "seeds 2": (S.seeds, {}, o.seeds, {}),
    "seeds 2 tau2=2": (S.seeds, {"tau2": 2.0}, o.seeds, {"tau2": 2.0}),
    "seeds 3": (S.seeds, ORDER3, o.seeds, ORDER3),
    "seeds 3 tau2=.6": (
        S.seeds,
        {"tau2": 0.6, **ORDER3},
        o.seeds,
        {"tau2": 0.6, **ORDER3},
    ),
    "sde": (S.dpmpp_sde, {}, o.seeds, {"published": True}),
    "sde tau2=.5": (
        S.dpmpp_sde,
        {"tau2": 0.5},
        o.seeds,
        {"tau2": 0.5, "published": True},
    ),
    "sde published": (
        S.dpmpp_sde,
        {"tau2": 0.25, "r": 0.4, "compat": True},
        o.published_sde,
        {"eta": 0.5, "r": 0.4},
    ),
    "2s ancestral": (S.dpmpp_2s_ancestral, {}, o.ancestral_2s, {}),
    "2s ancestral .6": (
        S.dpmpp_2s_ancestral,
        {"eta": 0.6},
        o.ancestral_2s,
        {"eta": 0.6},
    ),
}


@pytest.mark.parametrize("path", ["vp", "edm", "flow"])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_naive_loop(name, path):
    """The same draws through the plan's weights and through the papers' loops."""
    build, options, oracle, theirs = CASES[name]
    process = m.PROCESSES[path]
    ts = m.times_between(process, 9, 1.3)
    if path == "edm" and "noise" not in name:
        ts = np.append(ts[:-1], 0.0)
    x = START * float(process.sigma(ts[0]))
    plan = build(process, ts, **options)
    z = np.random.default_rng(3).normal(size=(plan.length, 7))
    predict = lambda x, t: m.predict(x, process.alpha(t), process.sigma(t))  # noqa: E731
    with np.errstate(invalid="ignore"):
        want = oracle(process, ts, predict, x, z, **theirs)
    at = plan.rows.level
    got = fd.plan.checks.replay(
        plan, lambda x, i: m.predict(x, at.alpha[i], at.sigma[i]), x, z
    )
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-12)


def test_the_engine_replays_recorded_noise():
    plan = S.seeds(VP, m.times_between(VP, 4), order=3)
    z, at = np.random.default_rng(0).normal(size=(12, 7)), plan.rows.level
    got = fd.sample(plan, m.MODEL, jnp.asarray(START[:, None]), noise=z[..., None])
    want = fd.plan.checks.replay(
        plan, lambda x, i: m.predict(x, at.alpha[i], at.sigma[i]), START, z
    )
    np.testing.assert_allclose(np.asarray(got)[:, 0], want, rtol=1e-12)


TWINS = {
    "2m": (S.sde_dpmpp_2m, S.dpmpp_2m, {}),
    "2m exact": (S.sde_dpmpp_2m, S.dpmpp_2m, {"variant": "exact"}),
    "2m noise": (S.sde_dpmpp_2m, S.dpmpp_2m, {"prediction": "noise"}),
    "3m": (S.sde_dpmpp_3m, S.dpmpp_3m, {"variant": "midpoint"}),
    "3m published": (S.sde_dpmpp_3m, S.dpmpp_3m, {"compat": True, "variant": "exact"}),
    "3m noise": (
        S.sde_dpmpp_3m,
        S.dpmpp_3m,
        {"prediction": "noise", "variant": "exact"},
    ),
    "sde": (S.dpmpp_sde, S.dpmpp_2s, {}),
    "2s ancestral": (S.dpmpp_2s_ancestral, S.dpmpp_2s, {}),
    "seeds 2": (S.seeds, S.res_2, {}),
}


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("steps", [2, 16])
def test_without_noise_it_is_the_deterministic_solver(name, steps):
    build, twin, options = TWINS[name]
    off = {"eta" if build is S.dpmpp_2s_ancestral else "tau2": 0.0}
    ts = m.times_between(VP, steps, 1.3)
    plan, other = build(VP, ts, **off, **options), twin(VP, ts, **options)
    assert not plan.stochastic and plan.registers == other.registers
    for variance in (0.0, 0.3):
        a, b = transfer(plan, variance), transfer(other, variance)
        np.testing.assert_allclose(a.state, b.state, rtol=0, atol=1e-12)
        np.testing.assert_allclose(a.mean, b.mean, rtol=0, atol=1e-12)


def test_first_order_at_one_is_the_ancestral_step():
    ts = m.times_between(VP, 5)
    a, b = transfer(S.sde_dpmpp_1(VP, ts), 0.3), transfer(S.ddim(VP, ts, eta=1), 0.3)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-14)


EXACT = {  # exponential: a constant D is integrated exactly
    "1": S.sde_dpmpp_1,
    "2m": S.sde_dpmpp_2m,
    "2m exact": functools.partial(S.sde_dpmpp_2m, variant="exact"),
    "3m": S.sde_dpmpp_3m,
    "3m published": functools.partial(S.sde_dpmpp_3m, compat=True),
    "seeds 2": S.seeds,
    "seeds 3": functools.partial(S.seeds, order=3),
    "sde": S.dpmpp_sde,
    "sde published": functools.partial(S.dpmpp_sde, compat=True),
}
GRIDS = {
    "vp": (VP, m.times_between(VP, 6, 1.4)),
    "edm to clean": (EDM, np.append(m.times_between(EDM, 4), 0.0)),
    "flow, both ends": (FLOW, [1.0, 0.8, 0.55, 0.3, 0.1, 0.0]),
    "one step": (FLOW, [1.0, 0.0]),
    "a repeated time": (VP, m.times_between(VP, 4)[[0, 1, 2, 2, 3, 4, 4]]),
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", [*EXACT, "2s ancestral"])
@pytest.mark.parametrize("amount", [0.4, 1.0])
def test_a_constant_prediction_gives_the_exact_law(name, grid, amount):
    """I1: all data at m, from the exact marginal, give N(alpha m, sigma^2)."""
    if name == "2s ancestral":
        build = functools.partial(S.dpmpp_2s_ancestral, eta=amount)
    else:
        build = functools.partial(EXACT[name], tau2=amount)
    found = fd.analysis.constant(build(*GRIDS[grid]))
    assert max(map(abs, found)) < 1e-12


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_conditional_mean_is_exact_at_any_step_size(name, steps):
    """I2: tau2 = 1 makes D a martingale on Gaussian data: E[x_t | x_s] is exact."""
    ts = m.times_between(VP, steps, 1.4)
    (a0, a1), (s0, s1) = VP.alpha(ts[[0, -1]]), VP.sigma(ts[[0, -1]])
    v = np.array([0.05, 0.3, 4.0])
    gain = a0 * v / (a0**2 * v + s0**2)  # of D at the start on x_T
    r = a0 / a1 * s1**2 / s0**2
    found = transfer(EXACT[name](VP, ts), v)
    np.testing.assert_allclose(found.state, r + (a1 - r * a0) * gain, atol=1e-12)
    ancestral = transfer(S.dpmpp_2s_ancestral(VP, ts), v)
    assert np.abs(ancestral.state - found.state).max() > 1e-4


VARIANCES = np.linspace(0.1, 1, 10)


def uniform(steps, power=1.0):
    lam = -2 + 4 * np.linspace(0, 1, steps + 1) ** power
    return VP.half_log_snr_inverse(lam)


def slope(build, counts=(160, 320), power=1.0, **options):
    """Observed order of the samples' variance on Gaussian data, exactly."""
    gaps = []
    for n in counts:
        plan = build(VP, uniform(n, power), **options)
        law = gaussian_error(plan, 0.0, VARIANCES, exact_start=True, target="level")
        gaps.append(np.abs(law.variance / law.target_variance - 1).max())
    return float(np.log2(gaps[0] / gaps[1]) / np.log2(counts[1] / counts[0]))


WEAK = {  # builder, order at tau2 = 0, with noise
    "1": (S.sde_dpmpp_1, 1, 1),
    "2m": (S.sde_dpmpp_2m, 2, 2),
    "2m exact": (functools.partial(S.sde_dpmpp_2m, variant="exact"), 2, 2),
    "3m": (S.sde_dpmpp_3m, 3, 2),
    "3m published": (functools.partial(S.sde_dpmpp_3m, compat=True), 2, 2),
    "seeds 2": (S.seeds, 2, 2),
    "seeds 3": (functools.partial(S.seeds, order=3), 3, 2),
    "sde": (S.dpmpp_sde, 2, 2),
}


@pytest.mark.parametrize("name", WEAK)
@pytest.mark.parametrize("tau2", [0.0, 0.5, 1.0])
def test_weak_order(name, tau2):
    build, quiet, noisy = WEAK[name]
    want = noisy if tau2 else quiet
    power = 1.5 if name == "3m" and not tau2 else 1.0  # its first steps are of order 1
    got = slope(build, power=power, tau2=tau2)
    assert abs(got - want) < 0.25, got


def test_published_stage_noise_and_split_cost_an_order():
    got = slope(S.dpmpp_sde, compat=True)  # the stage's noise is drawn anew
    assert abs(got - 1) < 0.25, got
    got = slope(S.dpmpp_sde, compat=True, tau2=0.25)
    assert abs(got - 1) < 0.25, got


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ancestral_2s_is_of_order_one_from_a_given_start(eta):
    """The mean from x_T; the variance of Gaussian data happens to be of order 2."""
    fine = S.sde_dpmpp_2m(VP, uniform(640), tau2=eta**2, variant="exact")
    want = transfer(fine, VARIANCES).state
    gaps = []
    for n in (40, 80):
        found = transfer(S.dpmpp_2s_ancestral(VP, uniform(n), eta=eta), VARIANCES)
        gaps.append(np.abs(found.state - want).max())
    got = np.log2(gaps[0] / gaps[1])
    assert abs(got - 1) < 0.25, got
    assert abs(slope(S.dpmpp_2s_ancestral, (80, 160), eta=eta) - 2) < 0.25


def test_a_planted_wrong_coefficient_shows():
    """The device sees 1 % of the previous evaluation's weight."""

    def wrong(process, ts, **options):
        plan = S.sde_dpmpp_2m(process, ts, **options)
        registers, predictions = (
            np.array(w) for w in (plan.rows.registers, plan.rows.predictions)
        )
        for line in (0, -1):
            off = 0.01 * registers[:, line, 1]
            predictions[:, line, 0] += off
            registers[:, line, 1] -= off
        return with_rows(plan, registers=registers, predictions=predictions)

    assert slope(wrong) < 1.5


BAD = [
    (S.sde_dpmpp_2m, {"tau2": -0.1}, r"tau2 must be finite and >= 0.*got -0.1"),
    (S.seeds, {"tau2": np.inf}, "tau2 must be finite"),
    (S.sde_dpmpp_1, {"tau2": np.ones(3)}, r"shape \(5,\); got shape \(3,\)"),
    (S.sde_dpmpp_2m, {"variant": "heun"}, "variant must be 'midpoint' or 'exact'"),
    (S.sde_dpmpp_3m, {"variant": "heun"}, "variant must be 'midpoint' or 'exact'"),
    (S.sde_dpmpp_3m, {"compat": True, "prediction": "noise"}, "compat must be False"),
    (S.sde_dpmpp_2m, {"prediction": "v"}, "prediction must be 'data' or 'noise'"),
    (S.seeds, {"order": 4}, "order must be 2 or 3, got 4"),
    (S.seeds, {"order": 3, "r": 0.7}, r"r must lie in \(0, 0.667\) for order 3"),
    (S.dpmpp_sde, {"r": 1.0}, r"r must lie in \(0, 1\)"),
    (S.dpmpp_sde, {"compat": True, "tau2": 2.0}, r"tau2 must lie in \[0, 1\] .*got 2"),
    (S.dpmpp_2s_ancestral, {"eta": 1.5}, r"eta must lie in \[0, 1\] .*got 1.5"),
    (S.dpmpp_2s_ancestral, {"eta": -1.0}, r"eta must lie in \[0, 1\] .*got -1"),
]


@pytest.mark.parametrize(("build", "options", "message"), BAD)
def test_bad_options(build, options, message):
    with pytest.raises(ValueError, match=message):
        build(VP, m.times_between(VP, 5), **options)


def test_noise_prediction_does_not_end_clean():
    ts = np.append(m.times_between(VP, 4), 0.0)
    with pytest.raises(ValueError, match="cannot step into sigma = 0"):
        S.sde_dpmpp_1(VP, ts, prediction="noise")
