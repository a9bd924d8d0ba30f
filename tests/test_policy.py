"""Log-probabilities along a path: densities, gradients, windows, refusals."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import fastdiff_jax as fd
from fastdiff_jax import policy

PROCESS = fd.processes.vp_linear()
TS = fd.grids.log_snr(PROCESS, 6)
MEANS = np.array([[-1.0, 0.5], [1.2, 0.0]])
MODEL = fd.models.gaussian_mixture([0.4, 0.6], MEANS, np.full((2, 2), 0.3))
KEY = jax.random.key(3)
X = np.asarray(fd.prior(PROCESS, jax.random.key(1), (5, 2)))
SOLVERS = {
    "first": fd.solvers.sde_dpmpp_1,
    "second": fd.solvers.sde_dpmpp_2m,
    "third": partial(fd.solvers.sde_dpmpp_3m, lower_order_final=False),
    "em": fd.solvers.euler_maruyama,
}


def make(name, tau2):
    """A plan, padded: one shape, and so one compiled program, for all solvers."""
    plan = SOLVERS[name](PROCESS, TS, tau2=tau2)
    return fd.plan.pad(plan, 6, registers=3, writes=2)


@jax.jit
def roll(plan, model, x, key):
    """A rollout, its path scored again, and the noise read off the path."""
    run = policy.rollout(plan, model, x, key)
    again = policy.log_prob(plan, model, run.path)
    return run, again, policy.noise_of(plan, model, run.path)


def of_noise(_, info):
    return info.noise


def drawn(plan, x, key):
    """What fd.sample returns and draws."""
    return fd.sample(plan, MODEL, x, key=key, collect=of_noise)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVERS)
def test_rollout_is_the_sample_and_scores_its_own_noise(name):
    plan = make(name, 0.7)
    run, again, recovered = roll(plan, MODEL, X, KEY)
    want, z = drawn(plan, X, KEY)
    assert_allclose(run.sample, want, rtol=1e-12)
    assert_allclose(run.path.states[-1], want, rtol=1e-12)
    assert_allclose(run.path.states[0], X)
    c = plan.rows.noise[:, :1]
    want = -(np.asarray(z) ** 2).sum(-1) / 2 - 2 * np.log(c) - np.log(2 * np.pi)
    assert_allclose(run.log_prob, want, rtol=1e-9)
    assert_allclose(again, run.log_prob, rtol=1e-12)
    assert_allclose(policy.ratio(again, run.log_prob), 1, atol=1e-12)
    assert_allclose(recovered, z, atol=1e-10)


@pytest.mark.slow
def test_recorded_noise_repeats_the_path():
    plan = make("second", 0.7)
    _, z = drawn(plan, X, KEY)
    run = policy.rollout(plan, MODEL, X, noise=z)
    want = roll(plan, MODEL, X, KEY)[0].path.states
    assert_allclose(run.path.states, want, rtol=1e-12)


def test_density_against_an_independent_loop():
    """Gaussian data: the multistep mean written out, the density from scipy."""
    m, v, tau2 = np.array([0.5, -1.0]), np.array([0.3, 0.8]), 0.6
    plan = fd.solvers.sde_dpmpp_2m(
        PROCESS, TS, tau2=tau2, variant="exact", lower_order_final=False
    )
    model = fd.models.gaussian(m, v)
    path = np.random.default_rng(0).normal(size=(7, 5, 2))  # any path has a density
    alpha, sigma = PROCESS.alpha(TS), PROCESS.sigma(TS)
    lam = PROCESS.half_log_snr(TS)
    want, before = [], None
    for i in range(6):
        a, s, h = alpha[i], sigma[i], lam[i + 1] - lam[i]
        data = m + a * v / (a**2 * v + s**2) * (path[i] - a * m)
        total = (1 + tau2) * h
        mean = sigma[i + 1] / s * np.exp(-tau2 * h) * path[i]
        mean = mean - alpha[i + 1] * np.expm1(-total) * data
        if before is not None:
            slope = (data - before) * h / (lam[i] - lam[i - 1])
            mean = mean + alpha[i + 1] * (1 + np.expm1(-total) / total) * slope
        c = sigma[i + 1] * np.sqrt(-np.expm1(-2 * tau2 * h))
        want.append(stats.norm(mean, c).logpdf(path[i + 1]).sum(-1))
        before = data
    assert_allclose(policy.log_prob(plan, model, path), want, rtol=1e-10)
    got = policy.log_prob(plan, model, path, mean=True)
    assert_allclose(got, np.array(want) / 2, rtol=1e-10)


@pytest.mark.slow
def test_gradient_is_the_finite_difference_and_the_path_is_data():
    plan = make("second", 0.7)
    path = roll(plan, MODEL, X, KEY)[0].path

    def total(means, checkpoint=False):
        model = dataclasses.replace(MODEL, means=means)
        return policy.log_prob(plan, model, path, checkpoint=checkpoint).sum()

    got = np.asarray(jax.jit(jax.grad(total))(MEANS))
    again = jax.jit(jax.grad(lambda m: total(m, True)))(MEANS)
    assert_allclose(again, got, rtol=1e-12)
    step, value = 1e-5, jax.jit(total)
    for at in np.ndindex(2, 2):
        push = np.zeros((2, 2))
        push[at] = step
        want = (value(MEANS + push) - value(MEANS - push)) / (2 * step)
        assert_allclose(got[at], want, rtol=1e-6)


def test_the_rollout_keeps_no_gradient_of_its_density():
    def total(x):
        return policy.rollout(NOISY, halves, x, KEY).log_prob.sum()

    got = jax.jit(jax.grad(total))(X)
    assert_allclose(got, 0)


@pytest.mark.slow
def test_the_expected_score_is_zero():
    """E[grad log p] = 0 under the plan's own law, and not under another."""
    plan, count = SOLVERS["second"](PROCESS, TS, tau2=0.7), 5000
    x = fd.prior(PROCESS, jax.random.key(5), (count, 2))
    path = jax.jit(policy.rollout)(plan, MODEL, x, jax.random.key(6)).path

    def per_sample(means, path):
        model = dataclasses.replace(MODEL, means=means)
        path = jax.tree.map(lambda v: v[:, None], path)
        return policy.log_prob(plan, model, path)[:, 0].sum()

    each = jax.jit(jax.vmap(jax.grad(per_sample), (None, 1)))
    got = np.asarray(each(MEANS, path))
    error = got.std(0) / np.sqrt(count)
    assert (np.abs(got.mean(0)) < 4 * error).all()
    other = np.asarray(each(MEANS + 0.2, path))
    assert (np.abs(other.mean(0)) > 8 * error).any()


def test_a_window_counts_and_moves_without_a_retrace():
    traces = []

    @jax.jit
    def run(plan, x, key):
        traces.append(1)
        out = policy.rollout(plan, MODEL, x, key)
        return out, policy.log_prob(plan, MODEL, out.path)

    for first in (0, 2, 3):
        tau2 = policy.window(6, first, 3, 0.5)
        plan = SOLVERS["second"](PROCESS, TS, tau2=tau2)
        out, new = run(plan, X, KEY)
        inside = np.isin(np.arange(6), range(first, first + 3))
        assert (np.asarray(new != 0) == inside[:, None]).all()
        assert_allclose(out.log_prob, new, rtol=1e-12)
    assert len(traces) == 1
    # rows before the window are the ODE's
    ode = fd.solvers.sde_dpmpp_2m(PROCESS, TS, tau2=0.0)
    _, states = fd.sample(ode, MODEL, X, collect=lambda state, _: state.point)
    assert_allclose(out.path.states[1:4], states[:3], rtol=1e-12)
    assert (np.abs(out.path.states[4] - states[3]) > 1e-3).any()


def test_a_traced_window_makes_a_plan():
    @jax.jit
    def weights(first):
        tau2 = policy.window(6, first, 2, 0.5)
        return fd.solvers.sde_dpmpp_1(PROCESS, TS, tau2=tau2).rows.noise

    tau2 = policy.window(6, 3, 2, 0.5)
    want = fd.solvers.sde_dpmpp_1(PROCESS, TS, tau2=tau2).rows.noise
    assert_allclose(weights(3), want, rtol=1e-12)


def halves(x, context, carry):
    return jax.tree.map(lambda v: v / 2, x), carry


def test_exact_end_tree_and_single_sample():
    ts = np.append(TS, PROCESS.clean)
    plan = fd.solvers.sde_dpmpp_1(PROCESS, ts, tau2=1.0)
    draw = np.random.default_rng(0).normal
    tree = {"a": X[:4], "b": np.zeros(4)}
    z = {"a": draw(size=(7, 4, 2)), "b": draw(size=(7, 4))}
    run = jax.jit(partial(policy.rollout, denoiser=halves))
    got = run(plan, x=tree, noise=z).log_prob
    c = plan.rows.noise[:-1, :1]  # the exact end adds no noise
    size = (z["a"] ** 2).sum(-1) + z["b"] ** 2
    want = -size[:-1] / 2 - 3 * np.log(c) - 1.5 * np.log(2 * np.pi)
    assert_allclose(got[:-1], want, rtol=1e-9)
    assert_allclose(got[-1], 0)
    one = {"a": np.float32(X[0]), "c": np.float32(1.0)}
    got = run(plan, x=one, key=KEY).log_prob
    assert got.shape == (7,) and got.dtype == jnp.float32


@pytest.mark.slow
def test_ppo_loss():
    old = np.array([[-1.0, -2.0], [0.0, 0.0], [-3.0, 1.0]])
    change = np.array([[0.3, -0.3], [0.0, 0.0], [0.05, 0.05]])
    gain = np.array([2.0, -1.0])
    r = np.exp(change)
    worst = np.maximum(-gain * r, -gain * np.clip(r, 0.8, 1.2))
    got = policy.ppo_loss(old + change, old, gain, clip=0.2)
    assert_allclose(got, worst[[0, 2]].mean(), rtol=1e-12)
    got = policy.ppo_loss(old + change, old, gain, clip=0.2, rows=[True, False, False])
    assert_allclose(got, worst[0].mean(), rtol=1e-12)
    slope = jax.grad(lambda c: policy.ppo_loss(old + c, old, gain, clip=0.2))(change)
    assert_allclose(slope[0], 0)  # both are clipped
    assert_allclose(slope[2], -gain * r[2] / 4, rtol=1e-12)


def test_published_steps_match_their_formulas():
    flow = fd.processes.flow()
    ts = np.array([1.0, 0.8, 0.5, 0.2, 0.0])
    x, d = 0.7, -0.4
    for variant in ("flow_grpo", "dance"):
        plan = fd.solvers.flow_grpo(flow, ts, eta=0.7, variant=variant)
        rows = plan.rows
        for i, (t, t_next) in enumerate(zip(ts[:-1], ts[1:], strict=True)):
            dt, v = t_next - t, (x - d) / t
            if variant == "dance":
                s = ((1 - t) * d - x) / t**2
                mean, std = x + v * dt - 0.7**2 / 2 * s * dt, 0.7
            else:
                std = 0.7 * np.sqrt(t / (1 - (ts[1] if t == 1 else t)))
                mean = x * (1 + std**2 * dt / (2 * t))
                mean = mean + v * (1 + std**2 * (1 - t) / (2 * t)) * dt
            got = rows.registers[i, 0, 0] * x + rows.predictions[i, 0, 0] * d
            assert_allclose(got, mean, rtol=1e-12)
            assert_allclose(rows.noise[i], std * np.sqrt(-dt), rtol=1e-12)


def test_flow_grpo_is_the_solvers_sde_at_half_eta_squared():
    """One short step: mean and deviation of the exact step differ by O(dt^2)."""
    flow = fd.processes.flow()
    gaps = []
    for dt in (1e-3, 5e-4):
        ts = np.array([0.6, 0.6 - dt])
        a = fd.solvers.flow_grpo(flow, ts, eta=0.7).rows
        tau2 = policy.flow_grpo_tau2(0.7)
        b = fd.solvers.sde_dpmpp_1(flow, ts, tau2=tau2).rows
        gaps.append(
            [
                abs(a.registers - b.registers)[0, 0, 0],
                abs(a.predictions - b.predictions)[0, 0, 0],
                abs(a.noise**2 - b.noise**2)[0, 0],
            ]
        )
    slopes = np.log2(np.array(gaps[0]) / np.array(gaps[1]))
    assert (np.abs(slopes - 2) < 0.1).all()
    em = fd.solvers.euler_maruyama(flow, ts, tau2=policy.flow_grpo_tau2(0.7))
    assert_allclose(em.rows.noise, a.noise, rtol=1e-9)


def test_window_schedule():
    def places(**options):
        return [policy.window_at(i, 10, every=4, **options) for i in range(40)]

    assert places() == [min(i // 4, 6) for i in range(40)]
    assert places(roll_back=True) == [i // 4 % 7 for i in range(40)]
    assert places(stride=4) == [min(i // 4 * 4, 6) for i in range(40)]
    decay = places(mode="decay")  # 4, 3, 3, 3, 2, 2, then the last
    stays = [int(4 * (1 - p / 10) + p / 10) for p in range(6)]
    assert [decay.count(p) for p in range(6)] == stays
    fast = places(mode="exp_decay", threshold=2, rate=0.5)
    stays = [4, 4, 4, 3, 2, 1]  # ceil(4 e^{-(p - 2) / 2})
    assert [fast.count(p) for p in range(6)] == stays
    random = places(mode="random")
    assert random == places(mode="random") != places(mode="random", seed=1)
    assert set(random) == set(range(7))
    assert policy.window(6, 5, 1, 0.3).tolist() == [0, 0, 0, 0, 0, 0.3]


FLOW = fd.processes.flow()
NOISY = fd.solvers.sde_dpmpp_1(PROCESS, TS, tau2=1.0)
BAD = {
    "no noise": (
        "draws no noise",
        lambda: policy.rollout(fd.solvers.ddim(PROCESS, TS), MODEL, X, KEY),
    ),
    "composed noise": (
        "do not end a step",
        lambda: policy.rollout(fd.solvers.seeds(PROCESS, TS), MODEL, X, KEY),
    ),
    "kept noise": (
        "composes noise",
        lambda: policy.rollout(with_kept_noise(), MODEL, X, KEY),
    ),
    "stages": (
        "do not end a step",
        lambda: policy.rollout(fd.solvers.dpm2_ancestral(PROCESS, TS), MODEL, X, KEY),
    ),
    "start": (
        "start move",
        lambda: policy.rollout(with_start(), MODEL, X, KEY),
    ),
    "matrix": (
        "channels by matrices",
        lambda: policy.rollout(dataclasses.replace(NOISY, matrix=True), MODEL, X, KEY),
    ),
    "complex": (
        "must be real",
        lambda: policy.rollout(NOISY, MODEL, X + 0j, KEY),
    ),
    "key": ("key", lambda: policy.rollout(NOISY, MODEL, X)),
    "path": (
        "leading axis of 7",
        lambda: policy.log_prob(NOISY, MODEL, np.zeros((6, 5, 2))),
    ),
    "another plan": (
        "path must be of this plan's levels",
        lambda: policy.log_prob(NOISY, MODEL, other_path()),
    ),
    "another process": (
        "path must be of this plan's levels",
        lambda: policy.noise_of(NOISY, MODEL, other_path(fd.processes.sub_vp())),
    ),
    "outside": ("must lie in the 6 steps", lambda: policy.window(6, 4, 3, 0.5)),
    "width": ("must lie in the 6 steps", lambda: policy.window(6, 0, 0, 0.5)),
    "fraction": ("first must be a whole", lambda: policy.window(6, 1.5, 2, 0.5)),
    "tau2": ("tau2 must be finite and > 0", lambda: policy.window(6, 0, 2, 0.0)),
    "mode": ("mode must be one of", lambda: policy.window_at(0, 9, mode="x")),
    "iteration": ("iteration must be >= 0", lambda: policy.window_at(-1, 9)),
    "every": ("every must be >= 1", lambda: policy.window_at(0, 9, every=0)),
    "wide": ("width must be <= steps=3", lambda: policy.window_at(0, 3)),
    "variant": (
        "variant must be",
        lambda: fd.solvers.flow_grpo(FLOW, [0.9, 0.5], variant="x"),
    ),
    "process": (
        "straight path",
        lambda: fd.solvers.flow_grpo(PROCESS, [0.9, 0.5]),
    ),
    "eta": (
        "eta must be finite",
        lambda: fd.solvers.flow_grpo(FLOW, [0.9, 0.5], eta=-1),
    ),
    "eta shape": (
        "eta must be a scalar or one value per step",
        lambda: fd.solvers.flow_grpo(FLOW, [0.9, 0.5], eta=[1.0, 2.0]),
    ),
    "times": (
        "one time per step",
        lambda: fd.solvers.flow_grpo(FLOW, [[0.9, 0.8], [0.5, 0.5]]),
    ),
}


def with_kept_noise():
    """Every row ends a step, but adds half of the draw of the row before it."""
    lv = fd.plan.levels(PROCESS, TS)
    keep = lv.sigma[1:] / lv.sigma[:-1]
    x, d, z = fd.plan.register(0), fd.plan.prediction(), fd.plan.NOISE
    ahead = keep * x + (lv.alpha[1:] - keep * lv.alpha[:-1]) * d + 0.1 * z
    ahead = ahead + 0.05 * fd.plan.register(1)
    return fd.plan.build(lv.starts, lv.end, [(0, ahead), (1, 1.0 * z)])


def other_path(process=PROCESS):
    """As many rows, on a grid that ends elsewhere or of another process."""
    ts = TS if process is not PROCESS else TS * np.linspace(0.99, 1, len(TS))[::-1]
    plan = fd.solvers.sde_dpmpp_1(process, ts, tau2=1.0)
    return policy.rollout(plan, halves, X, KEY).path


def with_start():
    return dataclasses.replace(NOISY, start=fd.plan.Start(np.array([2.0])))


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    match, call = BAD[name]
    with pytest.raises(ValueError, match=match):
        call()


def test_traced_rows_that_end_no_step_give_nan():
    plan = fd.solvers.dpm2_ancestral(PROCESS, TS)
    assert np.isnan(roll(plan, MODEL, X, KEY)[0].log_prob).all()


def test_levels_of_a_path_are_those_of_a_minibatch_and_traced_ones_give_nan():
    path = policy.rollout(NOISY, MODEL, X, KEY).path
    score = jax.jit(partial(policy.log_prob, NOISY, MODEL))
    part = jax.tree.map(lambda v: v[:, 1:3], path)
    assert_allclose(score(part), score(path)[:, 1:3], rtol=1e-12)
    assert np.isnan(score(other_path())).all()
    single = policy.rollout(NOISY, halves, {"a": X[0], "c": 1.0}, KEY).path
    assert single.sigma.shape == (len(TS),)
    narrow = jax.tree.map(np.float32, path)
    assert np.isfinite(score(narrow)).all()
