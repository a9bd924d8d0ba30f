"""The first solvers: equal to naive loops, of their formal order, exact at the ends."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd

from . import mixture as m
from .oracles import first_wave as o
from .table import spoiled

S = fd.solvers
VP, EDM, FLOW = (m.PROCESSES[k] for k in ("vp", "edm", "flow"))

CASES = {
    "ddim": (S.ddim, o.ddim, {}, {}),
    "euler": (S.euler, o.euler, {}, {}),
    "heun": (S.heun, o.heun, {}, {}),
    "edm_heun": (S.edm_heun, o.edm_heun, {}, {}),
    "2m": (S.dpmpp_2m, o.dpmpp_2m, {"lower_order_final": False}, {}),
    "2m lowered": (
        S.dpmpp_2m,
        o.dpmpp_2m,
        {"lower_order_final": True},
        {"lower": True},
    ),
    "2m exact": (
        S.dpmpp_2m,
        o.dpmpp_2m,
        {"variant": "exact", "lower_order_final": False},
        {"exact": True},
    ),
    "3m": (S.dpmpp_3m, o.dpmpp_3m, {"lower_order_final": False}, {}),
    "adams 4": (S.adams, o.adams, {"order": 4}, {"order": 4}),
    "adams 2": (S.adams, o.adams, {"order": 2}, {"order": 2}),
    "unipc 1": (
        S.unipc,
        o.unipc,
        {"order": 1, "lower_order_final": False},
        {"order": 1},
    ),
    "unipc 2": (
        S.unipc,
        o.unipc,
        {"order": 2, "lower_order_final": False},
        {"order": 2},
    ),
    "unipc 3": (
        S.unipc,
        o.unipc,
        {"order": 3, "lower_order_final": False},
        {"order": 3},
    ),
}
START = np.linspace(-2, 2, 7)


def loop(oracle, process, ts, scale=1.0, **options):
    predict = lambda x, t: m.predict(x, process.alpha(t), process.sigma(t))  # noqa: E731
    return oracle(process, ts, predict, START * scale, **options)


def ours(build, process, ts, scale=1.0, **options):
    plan = build(process, ts, **options)
    return np.asarray(m.run(plan, jnp.asarray(START[:, None] * scale)))[:, 0]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("path", ["vp", "edm", "flow"])
def test_equals_the_naive_loop(name, path):
    build, oracle, options, theirs = CASES[name]
    process = m.PROCESSES[path]
    ts = m.times_between(process, 9, 1.3)
    scale = float(process.sigma(ts[0]))
    got = ours(build, process, ts, scale, **options)
    want = loop(oracle, process, ts, scale, **theirs)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_equals_the_naive_loop(order):
    ts = fd.grids.quadratic(VP, 7)
    got = ours(S.deis_tab, VP, ts, order=order)
    want = loop(o.deis_tab, VP, ts, order=order)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)  # quad's accuracy


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_stochastic_ddim_replays_recorded_noise(eta):
    ts = m.times_between(VP, 6)
    z = np.random.default_rng(0).normal(size=(6, 7))
    plan = S.ddim(VP, ts, eta=eta)
    got = fd.sample(plan, m.MODEL, jnp.asarray(START[:, None]), noise=z[..., None])
    want = loop(o.ddim, VP, ts, eta=eta, z=z)
    np.testing.assert_allclose(np.asarray(got)[:, 0], want, rtol=1e-12)


# name: (builder, formal order, grading of the first steps)
ORDERS = {
    "euler": (S.euler, 1, 1.0),
    "ddim": (S.ddim, 1, 1.0),
    "ddim noise": (functools.partial(S.ddim, prediction="noise"), 1, 1.0),
    "heun": (S.heun, 2, 1.0),
    "edm_heun": (S.edm_heun, 2, 1.0),
    "dpmpp_2m": (S.dpmpp_2m, 2, 1.0),
    "dpmpp_2m exact": (functools.partial(S.dpmpp_2m, variant="exact"), 2, 1.0),
    "dpm_2m": (functools.partial(S.dpmpp_2m, prediction="noise"), 2, 1.0),
    "dpmpp_3m": (S.dpmpp_3m, 3, 2.0),
    "dpm_3m": (functools.partial(S.dpmpp_3m, prediction="noise"), 3, 2.0),
    "dpmpp_3m compat": (functools.partial(S.dpmpp_3m, compat=True), 2, 2.0),
    "unipc 1": (functools.partial(S.unipc, order=1), 2, 1.0),
    "unipc 2": (functools.partial(S.unipc, order=2), 3, 1.0),
    "unipc 2 bh1": (functools.partial(S.unipc, order=2, variant="bh1"), 3, 1.0),
    "unipc 2 noise": (functools.partial(S.unipc, order=2, prediction="noise"), 3, 1.0),
    "unipc 3": (functools.partial(S.unipc, order=3), 4, 2.0),
    "unip 2": (functools.partial(S.unipc, order=2, corrector=False), 2, 1.0),
    "unip 3": (functools.partial(S.unipc, order=3, corrector=False), 3, 2.0),
    "deis_tab 1": (functools.partial(S.deis_tab, order=1), 2, 1.0),
    "deis_tab 2": (functools.partial(S.deis_tab, order=2), 3, 2.0),
    "deis_tab 3": (functools.partial(S.deis_tab, order=3), 4, 2.5),
    "adams 2": (functools.partial(S.adams, order=2), 2, 1.0),
    "adams 3": (functools.partial(S.adams, order=3), 3, 2.0),
    "adams 4": (functools.partial(S.adams, order=4), 4, 2.5),
}


@pytest.mark.parametrize("path", ["vp", "edm", "flow"])
@pytest.mark.parametrize("name", ORDERS)
def test_order(name, path):
    build, order, power = ORDERS[name]
    found = m.slope(build, path, power, counts=(160, 320))
    assert abs(found - order) < 0.25, f"{name} on {path}: order {found:.2f}"


@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_3m", "unipc 2", "adams 3"])
def test_a_wrong_coefficient_is_seen(name):
    build, order, power = ORDERS[name]
    planted = lambda process, ts: spoiled(build(process, ts), older=1.02)  # noqa: E731
    found = m.slope(planted, "vp", power, counts=(160, 320))
    assert abs(found - order) > 0.5


def test_self_check_catches_a_wrong_sum():
    ts = m.times_between(VP, 20)
    plan, lv = S.dpmpp_3m(VP, ts), fd.plan.levels(VP, ts)
    fd.plan.self_check(plan, lv, "data")
    with pytest.raises(ValueError, match="do not integrate a constant"):
        fd.plan.self_check(spoiled(plan, older=1.02), lv, "data")


def test_self_check_sees_a_millionth_in_every_weight():
    lv, text = fd.plan.levels(VP, m.times_between(VP, 20)), "do not integrate"
    for solver, basis in ((S.adams, "noise"), (S.exp_adams, "data"), (S.unipc, "data")):
        plan = solver(VP, lv.time)
        for i in range(plan.length):
            row = slice(i, i + 1)
            for part in ({"older": 1 + 1e-6}, {"own": 1 + 1e-6}):
                if i or "own" in part:  # the first row reads nothing older
                    with pytest.raises(ValueError, match=text):
                        fd.plan.self_check(spoiled(plan, **part, rows=row), lv, basis)


def polyexponential(power, steps=29, low=1.2e-3, high=21.2):
    """k-diffusion's grid: a power of an even ramp in log sigma, then 0."""
    ramp = np.linspace(1, 0, steps) ** power
    return np.append(low * (high / low) ** ramp, 0.0)


def test_self_check_follows_the_cancellation_of_uneven_steps():
    """The last step is 10^3 times longer than those before: weights of 10^7 cancel."""
    ts = polyexponential(3.0)
    plan, lv = S.adams(EDM, ts, order=4), fd.plan.levels(EDM, ts)
    assert abs(plan.rows.predictions).max() > 1e7
    for part in ({"older": 1 + 1e-6}, {"own": 1 + 1e-6}):
        with pytest.raises(ValueError, match="do not integrate a constant"):
            wrong = spoiled(plan, **part, rows=slice(-1, None))
            fd.plan.self_check(wrong, lv, "noise")
    with pytest.raises(ValueError, match=r"weights reach .* and cancel: float64 keeps"):
        S.adams(EDM, polyexponential(7.0), order=4)


# ------------------------------------------------------------------ exactness

FIRST = ("adams", "ddim", "deis_tab", "dpmpp_2m", "dpmpp_3m", "edm_heun", "euler")
FIRST += ("heun", "unipc")


@pytest.mark.parametrize("name", FIRST)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_point_data_is_drawn_exactly(name, steps):
    """All data at one point: D is constant, every exponential method is exact."""
    model = fd.models.denoiser(lambda x, t: 0 * x + 0.7, prediction="data")
    ts = fd.grids.edm(EDM, steps)
    if steps == 1:
        ts = np.array([80.0, 0.0])
    x = 80.0 * jnp.asarray(START[:, None])
    got = fd.sample(S.SOLVERS[name].build(EDM, ts), model, x)
    np.testing.assert_allclose(got, 0.7, rtol=1e-11)


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "dpmpp_3m", "unipc"])
def test_last_step_into_sigma_zero_is_the_prediction(name):
    ts = np.append(m.times_between(VP, 5), 0.0)
    plan = S.SOLVERS[name].build(VP, ts)
    got, last = fd.sample(
        plan,
        m.MODEL,
        jnp.asarray(START[:, None]),
        collect=lambda state, info: info.denoised,
    )
    np.testing.assert_allclose(got, last[-1], rtol=0, atol=1e-14)
    assert (fd.plan.Level(*plan.end).sigma) == 0.0


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "dpmpp_3m", "unipc", "euler"])
def test_flow_starts_at_pure_noise(name):
    """alpha = 0 at t = 1 is a case of its own, without epsilons."""
    ts = np.array([1.0, 0.8, 0.55, 0.3, 0.1, 0.0])
    plan = S.SOLVERS[name].build(FLOW, ts)
    got = np.asarray(m.run(plan, jnp.asarray(START[:, None])))
    assert np.isfinite(got).all()
    fine = S.unipc(FLOW, np.append(np.linspace(1, 1e-4, 200), 0.0), order=2)
    want = np.asarray(m.run(fine, jnp.asarray(START[:, None])))
    first_order = name in ("ddim", "euler")
    assert np.sqrt(np.mean((got - want) ** 2)) < (0.35 if first_order else 0.2)


@pytest.mark.parametrize("name", FIRST)
def test_a_step_of_length_zero_is_the_identity(name):
    ts = m.times_between(VP, 6)
    build, options = S.SOLVERS[name].build, {}
    if name in ("dpmpp_2m", "dpmpp_3m", "unipc"):
        options = {"lower_order_final": False}
    if name == "unipc":  # an evaluation more would correct the step before
        options["corrector"] = False
    plain = ours(build, VP, ts, **options)
    again = ours(build, VP, np.append(ts, ts[-1]), **options)
    np.testing.assert_allclose(again, plain, rtol=1e-12, atol=1e-13)
    middle = ours(build, VP, np.insert(ts, 3, ts[3]), **options)
    assert np.isfinite(middle).all()


FORMS = ["ddim", "dpmpp_2m", "dpmpp_3m", "unipc", "adams", "edm_heun"]


@pytest.mark.parametrize("name", FORMS)
def test_vp_ve_and_flow_forms_give_one_sample(name):
    """x / alpha at equal half log-SNR does not depend on the path."""
    lam = np.linspace(-3, 3, 9)
    build = S.SOLVERS[name].build
    found = []
    for process in (VP, EDM, FLOW, fd.processes.sub_vp()):
        ts = process.half_log_snr_inverse(lam)
        a0, a1 = process.alpha(ts[0]), process.alpha(ts[-1])
        u = START[:, None] * np.exp(-lam[0])
        plan = build(process, ts)
        y = np.asarray(m.run(plan, jnp.asarray(u * a0))) / a1
        found.append(y)
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "unipc"])
def test_noise_prediction_on_a_gaussian_matches_the_closed_form_in_the_limit(name):
    """N(mean, s^2) data: x_t - alpha_t mean scales with sqrt(alpha^2 s^2 + sigma^2)."""
    mean, var = 0.3, 0.5
    model = fd.models.gaussian(mean, var)
    ts = m.times_between(VP, 160)
    a, s = VP.alpha(ts[[0, -1]]), VP.sigma(ts[[0, -1]])
    plan = S.SOLVERS[name].build(VP, ts, prediction="noise")
    got = np.asarray(fd.sample(plan, model, jnp.asarray(START[:, None])))[:, 0]
    gain = np.sqrt((a[1] ** 2 * var + s[1] ** 2) / (a[0] ** 2 * var + s[0] ** 2))
    want = a[1] * mean + gain * (START - a[0] * mean)
    tol = {"ddim": 2e-2, "dpmpp_2m": 1e-3, "unipc": 1e-5}[name]
    np.testing.assert_allclose(got, want, atol=tol)


def test_ancestral_ddim_mean_is_exact_at_any_step_size():
    """eta = 1 on Gaussian data: E[x_t | x_s] is exact whatever the step (DDPM)."""
    mean, var = 0.3, 0.5
    model = fd.models.gaussian(mean, var)
    ts = m.times_between(VP, 3)
    zero = jnp.zeros((3, 7, 1))
    got = fd.sample(
        S.ddim(VP, ts, eta=1.0), model, jnp.asarray(START[:, None]), noise=zero
    )
    a, s = VP.alpha(ts[[0, -1]]), VP.sigma(ts[[0, -1]])
    # regression of x_t on x_s under the forward process: E[x_t | x_s]
    v0 = a[0] ** 2 * var + s[0] ** 2
    cov = a[0] / a[1] * (a[1] ** 2 * var + s[1] ** 2)
    want = a[1] * mean + cov / v0 * (START - a[0] * mean)
    np.testing.assert_allclose(np.asarray(got)[:, 0], want, rtol=1e-12, atol=1e-13)


BAD = [
    (lambda: S.ddim(VP, [1.0, 0.5], eta=1.5), r"eta must lie in \[0, 1\].*1.5"),
    (lambda: S.ddim(VP, [1.0, 0.5], prediction="eps"), "'data' or 'noise', got 'eps'"),
    (lambda: S.ddim(VP, [0.5, 1.0]), "must decrease.*0.5 is followed by .*=1"),
    (lambda: S.ddim(VP, [1.0]), "at least 2 times"),
    (lambda: S.ddim(VP, [1.0, np.nan]), "without NaN"),
    (lambda: S.ddim(VP, [1.0, -0.5]), r"lie in \[0, 1\]"),
    (lambda: S.dpmpp_2m(VP, [1.0, 0.5], variant="heun"), "variant must be 'midpoint'"),
    (lambda: S.dpmpp_3m(VP, [1.0, 0.5], variant="x"), "variant must be 'midpoint'"),
    (lambda: S.unipc(VP, [1.0, 0.5], order=0), "order in 1..6, got 0"),
    (lambda: S.unipc(VP, [1.0, 0.5], variant="bh3"), "got 'bh3'"),
    (lambda: S.adams(VP, [1.0, 0.5], order=9), "order in 1..6, got 9"),
    (lambda: S.deis_tab(VP, [1.0, 0.5], order=-1), "order in 0..5"),
    (lambda: S.deis_tab(VP, [1.0, 0.5], quadrature="x"), "quadrature must be"),
    (lambda: S.adams(FLOW, [1.0, 0.5]), "where alpha = 0, as at row 0, time 1"),
    (lambda: S.ddim(FLOW, [1.0, 0.5], prediction="noise"), "where alpha = 0"),
    (lambda: S.find("unipcc"), "Did you mean 'unipc'"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
