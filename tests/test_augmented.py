"""Linear SDEs with several channels: gDDIM's weights, exact laws, adapters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax import augmented as aug

from .oracles import linear_sde as oracle
from .table import spoiled, words

CLD = aug.cld()
MEAN, COV = np.array([1.0, 0.0]), np.diag([0.25, 0.0])
VARIANTS = {
    "1": {"order": 1},
    "2": {"order": 2},
    "3": {"order": 3},
    "1c": {"order": 1, "corrector": True},
    "2c": {"order": 2, "corrector": True},
    "half": {"order": 1, "tau2": 0.25},
    "one": {"order": 1, "tau2": 1.0},
}


def affine(plan, cov, mean):
    """Gain (k, k), constant (k,) and noise gains (k, n k) on Gaussian data."""
    k, n, rows = len(mean), plan.length, plan.rows
    noisy = plan.stochastic
    width = k + 1 + (n * k if noisy else 0)

    def predict(u, i):
        psi, r = rows.level.alpha[i], rows.level.sigma[i]
        gain = np.linalg.solve(psi @ cov @ psi.T + r @ r.T, psi @ cov).T
        d = gain @ u
        d[:, k] += mean - gain @ psi @ mean
        return d

    held = plan.start.x @ np.eye(k, width)  # all registers, each (k, width)
    for i in range(n):
        lines = np.einsum("lkij,kjw->liw", rows.registers[i], held)
        lines = lines + rows.predictions[i, :, 0] @ predict(held[0], i)
        if noisy:
            drawn, z = rows.noise[i], np.eye(k, width, k + 1 + i * k)
            lines[: len(drawn) - 1] += drawn[:-1] @ z
            lines[-1] += drawn[-1] @ z
        held[rows.to[i]] = lines[:-1]
    point = held[0]
    return point[:, :k], point[:, k], point[:, k + 1 :]


def law(level, cov, mean):
    psi, r = level.alpha, level.sigma
    return psi @ mean, psi @ cov @ psi.T + r @ r.T


def misfit(plan, cov=COV, mean=MEAN):
    """Largest errors of the samples' mean and covariance, from the exact start."""
    gain, constant, noise = affine(plan, cov, mean)
    m0, c0 = law(jax.tree.map(lambda w: w[0], plan.rows.level), cov, mean)
    m1, c1 = law(plan.end, cov, mean)
    c = gain @ c0 @ gain.T + noise @ noise.T
    return np.abs(gain @ m0 + constant - m1).max(), np.abs(c - c1).max()


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_one_channel_is_deis(order):
    ts = np.linspace(1, np.sqrt(1e-3), 11) ** 2
    mine = aug.gddim(aug.vp(), ts, order=order)
    theirs = fd.solvers.deis_tab(fd.processes.vp_linear(), ts, order=order - 1)
    x = np.linspace(-2, 2, 5)
    model = fd.models.gaussian(1.0, 0.3)
    found = fd.sample(mine, aug.lift(model), jnp.asarray(x)[:, None])
    want = fd.sample(theirs, model, jnp.asarray(x))
    np.testing.assert_allclose(found[:, 0], want, rtol=1e-10)
    if order > 1:
        a, b = words(mine).weights[..., 0, 0], words(theirs).weights
        assert a.shape[1] == order
        np.testing.assert_allclose(a, b, atol=1e-12)


def test_one_channel_with_noise_is_the_exponential_sde():
    """lambda = 1 is tau^2 = 1, DDPM's own posterior."""
    ts = np.linspace(1, 0.05, 7)
    mine = words(aug.gddim(aug.vp(), ts, order=1, tau2=1.0))
    theirs = words(fd.solvers.sde_dpmpp_1(fd.processes.vp_linear(), ts, tau2=1.0))
    np.testing.assert_allclose(mine.keep[:, 0, 0], theirs.keep, rtol=1e-10)
    np.testing.assert_allclose(np.abs(mine.noise[:, 0, 0]), theirs.noise, rtol=1e-10)
    half = words(aug.gddim(aug.vp(), ts, order=1, tau2=0.25))
    theirs = words(fd.solvers.sde_dpmpp_1(fd.processes.vp_linear(), ts, tau2=0.25))
    np.testing.assert_allclose(half.keep[:, 0, 0], theirs.keep, rtol=1e-8)


@pytest.mark.parametrize("damping", [None, 2.0])
def test_cld_moments(damping):
    process = aug.cld(damping=damping)
    t, s = np.array([1e-3, 0.1, 0.6, 1.0]), np.array([0.0, 0.3, 0.2, 0.999])
    numeric = aug.linear_sde(process.drift, process.diffusion, initial=process.initial)
    np.testing.assert_allclose(
        process.transition(t, s), numeric.transition(t, s), rtol=1e-7, atol=1e-9
    )
    rest = np.diag([1.0, 0.25])  # stationary
    psi = process.transition(t, 0.0)
    want = rest + psi @ (process.initial - rest) @ np.swapaxes(psi, 1, 2)
    np.testing.assert_allclose(process.covariance(t), want, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(numeric.covariance(t), want, rtol=1e-7, atol=1e-9)


def test_root_solves_its_equation():
    """R' = F R + 1/2 G G^T R^{-T}, R R^T = Sigma, lower triangular at the anchor."""
    t, d = np.array([0.05, 0.3, 0.9]), 1e-5
    r = CLD.root(t)
    slope = (CLD.root(t + d) - CLD.root(t - d)) / (2 * d)
    g = CLD.diffusion(t)
    noise = g @ np.swapaxes(np.linalg.solve(r, g), 1, 2) / 2
    np.testing.assert_allclose(slope, CLD.drift(t) @ r + noise, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(r @ np.swapaxes(r, 1, 2), CLD.covariance(t), atol=1e-13)
    assert abs(CLD.root(CLD.anchor)[0, 1]) < 1e-15
    early = CLD.root(np.array([5e-4, 0.3]))  # below the anchor too
    np.testing.assert_allclose(early[1], r[1], atol=1e-12)
    np.testing.assert_allclose(
        early[0] @ early[0].T, CLD.covariance(5e-4), rtol=1e-9, atol=1e-15
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_point_data_are_exact(name):
    plan = aug.gddim(CLD, [1.0, 0.6, 0.5, 0.2, 0.1], **VARIANTS[name])
    assert max(misfit(plan, 0 * COV)) < 1e-9


def test_cholesky_root_is_not_exact_but_converges():
    ts = [1.0, 0.6, 0.5, 0.2, 0.1]
    assert misfit(aug.gddim(CLD, ts, order=1, root="cholesky"), 0 * COV)[1] > 1e-2
    errors = [
        misfit(aug.gddim(CLD, np.linspace(1, 0.1, n + 1), order=2, root="cholesky"))[1]
        for n in (80, 160)
    ]
    assert abs(np.log2(errors[0] / errors[1]) - 2) < 0.2


def errors_of(name, counts=(160, 320), spoil=1.0):
    out = []
    for n in counts:
        u = np.linspace(0, 1, n + 1)
        plan = aug.gddim(
            CLD, 1 - 0.9 * u ** (1.5 if name == "3" else 1), **VARIANTS[name]
        )
        if spoil != 1:
            plan = spoiled(plan, older=spoil)
        mean, cov = misfit(plan)
        assert mean < 1e-9  # the data's mean is a constant
        out.append(cov)
    return out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "order"), [("1", 1), ("2", 2), ("3", 3), ("1c", 2), ("2c", 3), ("one", 1)]
)
def test_order(name, order):
    counts = (40, 80) if name == "one" else (160, 320)
    coarse, fine = errors_of(name, counts)
    assert abs(np.log2(coarse / fine) - order) < 0.3


def test_wrong_coefficient_fails_the_order_test():
    coarse, fine = errors_of("2", spoil=0.8)
    assert np.log2(coarse / fine) < 1.3


@pytest.mark.parametrize("order", [1, 2])
def test_matches_the_naive_loop(order):
    ts = np.array([1.0, 0.7, 0.6, 0.3])

    def predict(u, t):
        psi, sigma = CLD.transition(t, 0.0), CLD.covariance(t)
        gain = np.linalg.solve(psi @ COV @ psi.T + sigma, psi @ COV).T
        return MEAN[:, None] + gain @ (u - (psi @ MEAN)[:, None])

    u = np.random.default_rng(0).normal(size=(2, 5))
    want = oracle.deterministic(CLD, ts, predict, u, order)
    model = aug.gaussian(MEAN, COV)
    found = fd.sample(aug.gddim(CLD, ts, order=order), model, jnp.asarray(u.T))
    np.testing.assert_allclose(found.T, want, rtol=1e-7, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_stochastic_steps_match_their_equations(lam):
    ts = np.array([1.0, 0.6, 0.2])
    rows = aug.gddim(CLD, ts, order=1, tau2=lam**2).rows
    for i, line in np.ndindex(2, 2):  # the point, and the sample
        hat, p = oracle.stochastic_step(CLD, ts[i], ts[i + 1], lam)
        keep = rows.registers[i, line, 0]
        np.testing.assert_allclose(keep, hat, rtol=1e-7, atol=1e-9)
        if lam:
            noise = rows.noise[i, line]
            np.testing.assert_allclose(noise @ noise.T, p, rtol=1e-7, atol=1e-9)


@pytest.mark.slow
def test_adapters_and_lift_agree():
    """Score, noise, data, and one scalar denoiser: the same samples."""
    plan = aug.gddim(CLD, np.linspace(1, 0.2, 7) ** 2, order=2)
    exact = aug.gaussian(MEAN, COV)

    def data(u, t):  # the same, from the process
        psi, root = (jnp.asarray(v) for v in table(t))
        return exact(u, fd.Context(0, t, psi, root), None)[0]

    times = jnp.asarray(plan.rows.level.time)

    def table(t):
        i = jnp.argmin(jnp.abs(times - t))
        return [jnp.asarray(w)[i] for w in plan.rows.level[1:]]

    def noise(u, t):
        psi, root = table(t)
        gap = u - jnp.einsum("ij,bj->bi", psi, data(u, t))
        return jnp.einsum("ij,bj->bi", jnp.linalg.inv(root), gap)

    def score(u, t):
        root = table(t)[1]
        return -jnp.einsum("ij,bj->bi", jnp.linalg.inv(root).T, noise(u, t))

    u = jax.random.normal(jax.random.key(0), (6, 2))
    want = fd.sample(plan, exact, u)
    networks = {"data": data, "noise": noise, "score": score}
    for kind, fn in networks.items():
        found = fd.sample(plan, aug.denoiser(fn, prediction=kind), u)
        np.testing.assert_allclose(found, want, rtol=1e-8, atol=1e-9)
    plain = fd.models.gaussian(MEAN[0], COV[0, 0])
    found = fd.sample(plan, aug.lift(plain), u)
    np.testing.assert_allclose(found, want, rtol=1e-9)
    # a network of any path will do: it is called at the time of equal log-SNR
    for process in (fd.processes.vp_linear(),):
        found = fd.sample(plan, aug.lift(plain, process), u)
        np.testing.assert_allclose(found, want, rtol=1e-8)


@pytest.mark.slow
def test_samples_from_the_prior(key):
    """The compiled run, images with a channel axis of the SDE, mixture data."""
    model = aug.lift(fd.models.gaussian_mixture([0.5, 0.5], [[-1.0], [1.0]], 0.05))
    ts = np.linspace(1, 0.05, 31) ** 2
    u = aug.prior(CLD, key, (3000, 2, 1))
    np.testing.assert_allclose(np.var(u, axis=(0, 2)), [1.0, 0.25], rtol=0.1)
    for options in ({"order": 2}, {"order": 1, "tau2": 1.0}):
        out = fd.sample(aug.gddim(CLD, ts, **options), model, u, key=key)
        x = np.asarray(out)[:, 0, 0]
        assert abs(x.mean()) < 0.08 and abs((x**2).mean() - 1.05) < 0.08
        assert np.mean(np.abs(np.abs(x) - 1) < 0.6) > 0.97


@pytest.mark.slow
def test_contract(key):
    def model(v, context, carry):
        return jax.tree.map(lambda w: 0.5 * jnp.tanh(w), v), carry

    ts = np.linspace(1, 0.1, 6)
    u = jax.random.normal(key, (3, 2), jnp.float32)
    z = jax.random.normal(key, (5, 3, 2))
    traces = []

    @jax.jit
    def run(plan, u, z):
        traces.append(1)
        return fd.sample(plan, model, u, noise=z)

    plans = [aug.gddim(CLD, ts, order=1, tau2=tau2) for tau2 in (1.0, 0.25)]
    outs = [run(p, u, z.astype(u.dtype)) for p in plans]
    assert len(traces) == 1 and outs[0].dtype == jnp.float32
    wide = run(plans[0], u.astype(z.dtype), z)
    np.testing.assert_allclose(outs[0], wide, rtol=1e-4, atol=1e-5)
    each = jax.vmap(lambda p: run(p, u.astype(z.dtype), z))(fd.plan.stack(plans))
    np.testing.assert_allclose(each[0], wide, rtol=1e-10)
    np.testing.assert_allclose(each, np.stack(outs), rtol=1e-4, atol=1e-5)
    for plan in (plans[0], aug.gddim(CLD, ts, order=3, corrector=True)):
        back = fd.plan.from_json(fd.plan.to_json(plan))
        assert back.matrix and jax.tree.structure(back) == jax.tree.structure(plan)
        jax.tree.map(np.testing.assert_array_equal, back, plan)
    assert "alpha" in str(plans[0])  # prints
    tree = {"a": jnp.ones((3, 2, 4)), "b": jnp.zeros((3, 2))}  # images and vectors
    out = fd.sample(plans[0], model, tree, key=key)
    assert jax.tree.map(jnp.shape, out) == jax.tree.map(jnp.shape, tree)


@pytest.mark.parametrize("hurst", [0.3, 0.5, 0.7, 0.9])
def test_fractional_noise(hurst):
    """Variance of the type II motion; H = 1/2 is Brownian motion."""
    found = aug.markov_approximation(hurst, 5)
    t = np.array([0.1, 0.5, 1.0])
    want = found.target_variance(t)
    if hurst == 0.5:
        np.testing.assert_allclose(want, t, rtol=1e-12)
        np.testing.assert_allclose(found.variance(t), t, rtol=1e-5)
    np.testing.assert_allclose(found.variance(t), want, rtol=0.012)
    bound = {0.3: 0.02, 0.5: 1e-9, 0.7: 2e-3, 0.9: 2e-3}[hurst]
    assert (found.error(t) >= -1e-12).all() and (found.error(t) < bound * want).all()
    few = aug.markov_approximation(hurst, 2)
    assert few.error(t).mean() > found.error(t).mean()


def test_fractional_weights_solve_the_normal_equations():
    """The integral of the squared error is least: it rises either way."""
    found = aug.markov_approximation(0.7, 3)
    x, w = np.polynomial.legendre.leggauss(60)
    t = (x + 1) / 2

    def total(weights):
        return (w / 2) @ found._replace(weights=weights).error(t)

    best = total(found.weights)
    for k in range(3):
        for sign in (-1, 1):
            moved = found.weights + sign * 1e-2 * np.eye(3)[k]
            assert total(moved) > best


def test_fractional_process():
    process = aug.fractional(0.7, 3)
    numeric = aug.linear_sde(process.drift, process.diffusion, initial=process.initial)
    t, s = np.array([0.1, 0.6, 0.2]), np.array([0.0, 0.3, 0.9])
    np.testing.assert_allclose(
        process.transition(t, s), numeric.transition(t, s), rtol=1e-6, atol=1e-6
    )
    # without drift of x (beta small and flat), x is sqrt(beta) B^H
    beta = 1e-8
    slow = aug.fractional(0.7, 3, beta_min=beta, beta_max=beta, initial=0.0)
    fit = aug.markov_approximation(0.7, 3)
    got = slow.covariance(t)[:, 0, 0] / beta
    np.testing.assert_allclose(got, fit.variance(t), rtol=1e-6)


@pytest.mark.parametrize("hurst", [0.3, 0.7])
def test_fractional_reverse_sampling(hurst):
    process = aug.fractional(hurst, 5)
    k = process.channels
    cov, mean = np.zeros((k, k)), np.zeros(k)
    cov[0, 0], mean[0] = 0.25, 1.0
    errors = []
    for n in (160, 320):
        plan = aug.gddim(
            process, np.linspace(1, 0.1, n + 1), order=1, tau2=1.0, root="cholesky"
        )
        m, c = misfit(plan, cov, mean)
        assert m < 1e-10
        errors.append(c)
    assert abs(np.log2(errors[0] / errors[1]) - 1) < 0.3
    assert max(misfit(plan, 0 * cov, mean)) < 1e-8  # rounding, 320 steps
    # the weights of `lift` are the residual x - c^T Y over alpha
    at = 7
    t = plan.rows.level.time[at]
    sigma, psi = process.covariance(t), process.transition(t, 0.0)
    c = np.linalg.solve(sigma[1:, 1:], sigma[1:, 0])
    pool = plan.rows.controls["pool"][at]
    np.testing.assert_allclose(pool, np.r_[1, -c] / psi[0, 0], rtol=1e-6, atol=1e-8)
    left = sigma[0, 0] - c @ sigma[1:, 0]
    spread = plan.rows.controls["spread"][at]
    np.testing.assert_allclose(spread, np.sqrt(left) / psi[0, 0], rtol=1e-6)


def test_grids_in_time_take_these_processes():
    for process in (CLD, aug.fractional(0.7, 2)):
        for grid in (fd.grids.uniform, fd.grids.quadratic):
            ts = grid(process, 4)
            assert (ts[0], ts[-1]) == (process.start, process.end)
            plan = aug.gddim(process, ts, order=1, tau2=1.0, root="cholesky")
            assert plan.nfe == 4
    bridge = fd.processes.interpolant()
    assert fd.grids.uniform(bridge, 4)[-1] == 0.0


def test_no_noise_somewhere_is_refused():
    bare = aug.cld(gamma=0.0)
    text = "not positive definite at ts=0: its smallest eigenvalue is 0.*end=0.001"
    with pytest.raises(ValueError, match=text):
        aug.gddim(bare, [1.0, 0.5, 0.0])
    with pytest.raises(ValueError, match="not positive definite at ts=0"):
        aug.gddim(CLD, [1.0, 0.5, 0.0], order=1, tau2=1.0)
    published = aug.fractional(0.7, 5, initial=0.0)
    with pytest.raises(ValueError, match="give every channel noise at t = 0"):
        aug.gddim(published, [1.0, 0.01], order=1, tau2=1.0, root="cholesky")


@pytest.mark.parametrize(
    ("ts", "options", "text"),
    [
        ([1.0, 0.5], {"order": 5}, "order must be 1, 2, 3 or 4, got 5"),
        ([1.0, 0.5], {"root": "square"}, "root must be 'gddim' or 'cholesky'"),
        ([1.0, 0.5], {"tau2": -1.0}, "tau2 must be finite and >= 0.*-1"),
        ([1.0, 0.5], {"tau2": 0.5}, "use order=1 and corrector=False, got order=2"),
        ([1.0], {}, "at least 2 times"),
        ([0.5, 1.0], {}, "must decrease strictly"),
        ([1.5, 0.5], {}, r"must lie in \[0, 1\]"),
    ],
)
def test_bad_plans(ts, options, text):
    with pytest.raises(ValueError, match=text):
        aug.gddim(CLD, ts, **options)


def test_bad_input(key):
    for options, text in (
        ({"beta": 0.0}, "beta must be > 0"),
        ({"m_inv": -1.0}, "m_inv must be > 0"),
        ({"damping": 0.0}, "damping must be > 0"),
        ({"gamma": -1.0}, "gamma must be >= 0"),
    ):
        with pytest.raises(ValueError, match=text):
            aug.cld(**options)
    for args, options, text in (
        ((1.0,), {}, r"hurst must be in \(0, 1\)"),
        ((0.5, 0), {}, "paths must be >= 1"),
        ((0.5,), {"gamma_max": 1.0}, "gamma_max must be > 1"),
        ((0.5,), {"beta_min": 0.0}, "need 0 < beta_min"),
        ((0.5,), {"initial": -1.0}, "initial must be >= 0"),
    ):
        with pytest.raises(ValueError, match=text):
            aug.fractional(*args, **options)
    with pytest.raises(ValueError, match="horizon must be > 0"):
        aug.markov_approximation(0.5, horizon=0.0)
    one = lambda t: np.ones((len(t), 1, 1))  # noqa: E731
    for options, text in (
        ({"initial": np.eye(2)}, "initial must be a symmetric"),
        ({"initial": -np.eye(1)}, "negative eigenvalue"),
        ({"end": 2.0}, "need 0 < end < start"),
    ):
        with pytest.raises(ValueError, match=text):
            aug.linear_sde(one, one, **options)
    with pytest.raises(ValueError, match="drift must give"):
        aug.linear_sde(lambda t: t, one)
    with pytest.raises(ValueError, match=r"shape must be \(B, 2, ...\)"):
        aug.prior(CLD, key, (5, 3))
    with pytest.raises(ValueError, match="prediction must be one of"):
        aug.denoiser(lambda u, t: u, prediction="v")
    with pytest.raises(ValueError, match=r"mean must be \(k,\)"):
        aug.gaussian([0.0], np.eye(2))
    with pytest.raises(ValueError, match="covariance must be symmetric"):
        aug.gaussian([0.0, 0.0], [[1.0, 2.0], [0.0, 1.0]])
    plan = aug.gddim(CLD, [1.0, 0.5])
    with pytest.raises(ValueError, match="reads the controls 'pool' and 'spread'"):
        fd.sample(
            plan,
            aug.lift(fd.models.gaussian()),
            jnp.ones((3, 2)),
            controls={"guidance_scale": np.ones(1)},
        )
