"""The published restoration samplers equal their papers' loops, through the engine."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd

from .oracles import two_endpoint as oracle

P, R = fd.processes, fd.restore
B = 5
RNG = np.random.default_rng(3)
X, Y = RNG.standard_normal((2, B))
Z = RNG.standard_normal((64, B))


def net(x, y, t):
    """Any smooth network of the state, the degraded input and the label."""
    return jnp.tanh(x + 0.3 * y + 0.01 * t)


def plain(x, y, t):
    return np.tanh(x + 0.3 * y + 0.01 * t)


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


# --------------------------------------------------------------------- ResShift


@pytest.mark.parametrize(("steps", "low"), [(15, 0.04), (4, 0.2)])
def test_resshift_is_the_published_loop(steps, low):
    process = P.resshift(steps, min_noise=low)
    plan = R.resshift(process)
    assert plan.nfe == steps and not plan.rows.noise[-1].any()
    model = R.denoiser(net, process, Y, prediction="data")
    got = R.sample(plan, model, process, Y, start=X, noise=Z[:steps])
    start = low / 2
    factor = np.exp(np.log(0.99 / start) / (steps - 1))
    root = start * factor ** (np.linspace(0, 1, steps) ** 0.3 * (steps - 1))
    want = oracle.resshift(root, 2.0, Y, lambda x, i: plain(x, Y, i), X, Z)
    close(got, want)


def test_resshift_network_sees_unit_variance():
    process = P.resshift()
    inner = R.denoiser(lambda x, y, t: x, process, Y, prediction="data")
    model = R.normalized(inner)
    level = fd.Context(0, 9.0, process.alpha(9.0), process.sigma(9.0))
    out, _ = model(jnp.asarray(X), level, None)
    close(out, X / np.sqrt(process.beta(9.0) * 4 + 1))
    close(out, X * process.input_scale(9.0))


# ------------------------------------------------------------------------- RDDM


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_rddm_is_the_published_loop(eta):
    steps, total = 5, 1000
    process = P.rddm(total)
    abar = np.cumsum(np.arange(total, 0, -1.0)) / (total * (total + 1) / 2)
    bbar = np.sqrt(0.01 * np.cumsum(np.arange(1.0, total + 1)) / (total * 500.5))
    times = [int(v) for v in np.linspace(-1, total - 1, steps + 1)][::-1]
    pairs = list(zip(times[:-1], times[1:], strict=True))
    model = R.residual_model(
        lambda x, y, t: (net(x, y, t), jnp.sin(x)), process, jnp.asarray(Y)
    )
    plan = R.rddm(process, steps, eta=eta)
    noise = Z[:steps] if eta else None
    got = fd.sample(plan, model, jnp.asarray(X), noise=noise)
    both = lambda x, i: (plain(x, Y, i), np.sin(x))  # noqa: E731
    close(got, oracle.rddm(abar, bbar, pairs, eta, both, X, Z))


def test_rddm_posterior_is_the_full_chain():
    total = 12
    process = P.rddm(total, noise_sum=1.0, residual="average", noise="increased")
    betas = np.arange(1.0, total + 1) / (total * (total + 1) / 2)
    both = lambda x, i: (plain(x, Y, i), np.sin(x))  # noqa: E731
    want = oracle.rddm_posterior(
        np.full(total, 1 / total), betas, range(total - 1, -1, -1), both, X, Z
    )
    plan = R.rddm(process, total, eta=1.0)
    labels = plan.rows.level.time
    got = fd.plan.replay(plan, lambda x, i: both(x, labels[i]), X, Z[:total])
    close(got, want)


@pytest.mark.parametrize("outputs", ["residual", "noise"])
@pytest.mark.parametrize("order", ["together", "residual_first", "noise_first"])
def test_rddm_from_one_exact_network(outputs, order):
    """The other prediction follows from x; any order of removal ends at x_0."""
    clean = 0.4
    process = P.rddm(50)
    x = Y + process.sigma(49) * X
    if outputs == "residual":
        exact = lambda x, y, t: y - clean + 0 * x  # noqa: E731
    else:
        exact = lambda x, y, t: jnp.asarray(X) + 0 * x  # noqa: E731
    model = R.residual_model(exact, process, Y, outputs=outputs)
    plan = R.rddm(process, 5, order=order)
    if outputs == "noise":
        with pytest.raises(ValueError, match="says nothing about the residual"):
            fd.sample(plan, model, x)
        ts, noise_ts = R.rddm_times(process, 5, order)
        ts = np.where(ts == 49, 48, ts)  # start a label later
        if noise_ts is not None:
            noise_ts = np.where(noise_ts == 49, 48, noise_ts)
        plan = fd.solvers.residual_noise(process, ts, noise_ts=noise_ts)
        x = clean + process.beta(48) * (Y - clean) + process.sigma(48) * X
    np.testing.assert_allclose(fd.sample(plan, model, x), clean, atol=1e-10)


def test_rddm_high_order_from_the_residual():
    """D = y - R: any solver of the library on the same network."""
    process = P.rddm(1000)
    model = R.denoiser(lambda x, y, t: y - (y - 0.4), process, Y, prediction="data")
    ts = np.append(process.half_log_snr_inverse(np.linspace(-3, 3, 5)), -1.0)
    plan = fd.solvers.dpmpp_2m(process, ts)
    got = R.sample(plan, model, process, Y, key=jax.random.key(0))
    np.testing.assert_allclose(got, 0.4, atol=1e-12)


# -------------------------------------------------------------------- Resfusion


def test_resfusion_is_the_ddpm_update():
    process = P.resfusion()
    betas = np.linspace(1000 / 12 * 1e-4, 1000 / 12 * 0.02, 12)[:4]
    betas = np.append(betas, 1 - 0.25 / np.prod(1 - betas))
    plan = R.resfusion(process)
    model = R.resnoise_denoiser(net, process, Y)
    got = R.sample(plan, model, process, Y, start=X, noise=Z[:5])
    want = oracle.resfusion(betas, lambda x, i: plain(x, Y, i), X, Z)
    close(got, want)


@pytest.mark.parametrize("base", [None, P.vp_cosine()])
def test_resnoise_is_inverted_exactly(base):
    """rho of a known x_0 and E gives back x_0, also where alpha = 0."""
    process, clean = P.resfusion(base), 0.3
    for t in (process.start, 0.6 * process.start, process.end):
        a, s = float(1 - process.beta(t)), float(process.sigma(t))
        root = float(process.step_root(t))
        x = a * clean + (1 - a) * (Y - clean) + s * X
        rho = X + s / (1 + root) * (Y - clean)  # (1 - root) / beta = 1 / (1 + root)
        model = R.resnoise_denoiser(lambda x, y, t, r=rho: jnp.asarray(r), process, Y)
        level = fd.Context(0, t, process.alpha(t), process.sigma(t))
        np.testing.assert_allclose(model(x, level, None)[0], clean, atol=1e-12)


# ----------------------------------------------------------------------- speech


def ouve_score(x, y, t):
    return -(x - y) / (0.1 + t) - jnp.sin(x)


@pytest.mark.parametrize("snr", [0.5, 0.2])
def test_sgmse_is_the_published_loop(snr):
    process = P.ouve()
    plan = R.sgmse(process, 7, snr=snr)
    model = R.denoiser(ouve_score, process, Y, prediction="score")
    got = R.sample(plan, model, process, Y, start=X, noise=Z[:14])
    score = lambda x, t: -(x - Y) / (0.1 + t) - np.sin(x)  # noqa: E731
    times = np.linspace(1, 0.03, 7)
    want = oracle.sgmse(1.5, 0.05, 0.5, times, snr, Y, score, X, Z)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-10)


def test_sgmse_options():
    process = P.ouve()
    plan = R.sgmse(process, 6, corrections=0, final="data")
    assert plan.nfe == 6 and R.sgmse(process, 6, corrections=2).nfe == 18
    assert not plan.rows.registers[-1].any() and not plan.rows.noise[-1].any()
    em = fd.solvers.euler_maruyama(process, [*np.linspace(1, 0.03, 6), 0.0])
    u, z, d = X, Z[:5], lambda u, i: np.cos(u)
    a = R.sgmse(process, 6, corrections=0)
    for n in (5,):  # all but the last step are Euler-Maruyama's
        cut = lambda p, n=n: fd.plan.slice_rows(p, 0, n)  # noqa: E731
        close(fd.plan.replay(cut(a), d, u, z), fd.plan.replay(cut(em), d, u, z))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_spectra(dtype):
    """Real and imaginary parts are runs of their own; z has total variance 1."""
    process = P.ouve()
    plan = R.sgmse(process, 4)
    y = (Y + 1j * X).astype(dtype)

    def linear(x, y, t):
        weight = jnp.asarray(1 / (0.1 + t), x.dtype)
        return (y - x) * weight

    def run(y, start, noise):
        model = R.denoiser(linear, process, y, prediction="score")
        return R.sample(plan, model, process, y, start=start, noise=noise)

    z = (Z[:8] + 1j * Z[8:16]).astype(dtype)
    got = run(y, 2 * y, z)
    assert got.dtype == dtype
    tol = 1e-4 if dtype == "complex64" else 1e-11
    real = lambda v: np.real(v).astype(np.float64)  # noqa: E731
    imag = lambda v: np.imag(v).astype(np.float64)  # noqa: E731
    for part in (real, imag):
        want = run(part(y), part(2 * y), part(z))
        np.testing.assert_allclose(part(got), want, rtol=tol, atol=tol)
    wide = jnp.zeros((20000,), dtype)
    x = R.first_state(process, wide, jax.random.key(1))
    assert x.dtype == dtype
    spread = np.mean(np.abs(x) ** 2) / float(process.sigma(1.0)) ** 2
    assert abs(spread - 1) < 0.03
    assert abs(np.mean(np.real(x) ** 2) / np.mean(np.imag(x) ** 2) - 1) < 0.06


def test_storm_is_a_composition():
    """SGMSE+ from a first estimate, the network told both inputs."""
    process, clean = P.ouve(), jnp.full(B, 0.5)
    first = 0.8 * clean + 0.2 * Y  # predict(y)

    def score(x, centre, t, y):
        assert y.shape == centre.shape
        mean = centre + (clean - centre) * jnp.exp(-1.5 * t)
        sigma = process.sigma(t)
        return (mean - x) / sigma**2

    model = R.denoiser(
        score, process, first, prediction="score", condition=jnp.asarray(Y)
    )
    plan = R.sgmse(process, 20, final="data")
    got = R.sample(plan, model, process, first, key=jax.random.key(0))
    np.testing.assert_allclose(got, clean, atol=1e-10)


@pytest.mark.parametrize("sde", [True, False])
@pytest.mark.parametrize("steps", [5, 50])
def test_sb_ve_is_the_published_code(sde, steps):
    """To its small constant: the ODE's first step divides by its root, 1e-4."""
    process = P.sb_ve()
    plan = R.sb_ve(process, steps, sde=sde, compat=True)
    z = np.random.default_rng(0).normal(size=(steps, *Y.shape))
    y, times = Y, np.linspace(1, 1e-4, steps + 1)
    got = fd.plan.replay(
        plan,
        lambda x, i: (plain(x, y, plan.rows.level.time[i]), y),
        y,
        z if sde else None,
    )
    known = lambda x, t: plain(x, y, t)  # noqa: E731
    gaps = []
    for small in (1e-8, 1e-10):
        want = oracle.sb_ve_published(2.6, 0.4, times, y, known, z, sde, small)
        gaps.append(np.abs(got - want).max())
    assert gaps[0] < 1e-4 and gaps[1] < 0.3 * gaps[0]
    exact = R.sb_ve(process, steps, sde=sde, first_noise=False)
    assert np.abs(exact.rows.level.time - plan.rows.level.time).max() > 0.01
    if not sde:  # the weight that stays is no small one
        odd = (plan.rows.predictions - exact.rows.predictions)[:, 0, 1]
        assert abs(odd[0]) > 0.01 and not odd[1:].any()


@pytest.mark.parametrize("sde", [True, False])
def test_sb_ve_is_the_papers_loop(sde):
    process = P.sb_ve()
    plan = R.sb_ve(process, 9, sde=sde, first_noise=sde)
    assert plan.stochastic == sde
    model = R.with_endpoint(R.denoiser(net, process, Y, prediction="data"), Y)
    got = fd.sample(plan, model, jnp.asarray(Y), noise=Z[:9] if sde else None)
    times = np.linspace(1, 1e-4, 10)
    want = oracle.sb_ve(2.6, 0.4, times, Y, lambda x, t: plain(x, Y, t), Z, sde)
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-11)


# -------------------------------------------------------------- priors, contract


@pytest.mark.slow
@pytest.mark.parametrize(
    ("process", "centre", "sigma"),
    [
        (P.resshift(), 1.0, 2 * 0.99),
        (P.rddm(), 1.0, 0.1),
        (P.resfusion(), 0.5, np.sqrt(0.75)),
        (P.ouve(), 1.0, 0.3890),
        (P.sb_ve(), 1.0, 0.0),
    ],
    ids=["resshift", "rddm", "resfusion", "ouve", "sb_ve"],
)
def test_first_state(process, centre, sigma):
    y = jnp.full((40000,), 2.0)
    x = R.first_state(process, y, jax.random.key(0))
    assert abs(x.mean() - centre * 2.0) < 0.03 * max(sigma, 1e-12)
    assert abs(x.std() - sigma) < 0.02 * sigma + 1e-12
    few = R.first_state(process, y[:3], jax.random.key(0))
    np.testing.assert_array_equal(x[:3], few)  # sample i at any batch size


def test_sample_starts_from_first_state():
    process, key = P.resfusion(), jax.random.key(5)
    model = R.resnoise_denoiser(net, process, Y)
    plan = R.resfusion(process, eta=0.0)
    drawn = R.sample(plan, model, process, Y, key=key)
    given = R.sample(plan, model, process, Y, start=R.first_state(process, Y, key))
    close(drawn, given)


def test_new_numbers_do_not_recompile_and_vmap():
    process = P.sb_ve()
    traces = []

    def count(x, y, t):
        traces.append(1)
        return net(x, y, t)

    def run(y, plan, x):
        model = R.denoiser(count, process, y, prediction="data")
        return fd.sample(plan, R.with_endpoint(model, y), x, noise=Z[:4])

    plans = [R.sb_ve(process, 4, ts=np.linspace(1, e, 5)) for e in (1e-4, 1e-2)]
    first = run(jnp.asarray(Y), plans[0], jnp.asarray(Y))
    done = len(traces)
    run(jnp.asarray(2 * Y), plans[1], jnp.asarray(Y))
    assert len(traces) == done
    ys = jnp.stack([jnp.asarray(Y), jnp.asarray(2 * Y)])
    out = jax.vmap(lambda y: run(y, plans[0], jnp.asarray(Y)))(ys)
    np.testing.assert_allclose(out[0], first, rtol=1e-12)
    tree = {"a": jnp.asarray(Y), "b": jnp.asarray(Y)[:, None]}
    fit = R.denoiser(
        lambda x, y, t: jax.tree.map(jnp.tanh, x), process, tree, prediction="data"
    )
    z = {"a": Z[:4], "b": Z[:4, :, None]}
    got = fd.sample(plans[0], R.with_endpoint(fit, tree), tree, noise=z)
    np.testing.assert_allclose(got["a"], got["b"][:, 0], rtol=1e-12)


SINGLE = {
    "resshift": (P.resshift(), R.resshift, "data"),
    "resfusion": (P.resfusion(), R.resfusion, "resnoise"),
    "sgmse": (P.ouve(), lambda p: R.sgmse(p, 4), "score"),
    "sb_ve": (P.sb_ve(), lambda p: R.sb_ve(p, 4), "endpoint"),
}


@pytest.mark.parametrize("name", sorted(SINGLE))
def test_single_precision_stays_single(name):
    process, build, kind = SINGLE[name]
    plan = build(process)

    def run(dtype):
        y, x, z = (v.astype(dtype) for v in (Y, X, Z[: plan.length]))
        if kind == "endpoint":
            model = R.denoiser(net, process, y, prediction="data")
            return fd.sample(plan, R.with_endpoint(model, y), jnp.asarray(y), noise=z)
        if kind == "resnoise":
            model = R.resnoise_denoiser(net, process, y)
        else:
            model = R.denoiser(net, process, y, prediction=kind)
        return R.sample(plan, model, process, y, start=x, noise=z)

    low, high = run(np.float32), run(np.float64)
    assert low.dtype == jnp.float32 and high.dtype == jnp.float64
    np.testing.assert_allclose(low, high, rtol=2e-4, atol=2e-4)


def test_gradients_flow_to_y():
    process = P.resshift(4, min_noise=0.2)
    plan = R.resshift(process)

    def loss(y):
        model = R.denoiser(net, process, y, prediction="data")
        out = R.sample(plan, model, process, y, start=jnp.asarray(X), noise=Z[:4])
        return (out**2).sum()

    y, step = jnp.asarray(Y), 1e-5
    grad = jax.grad(loss)(y)
    kick = jnp.zeros(B).at[2].set(step)
    want = (loss(y + kick) - loss(y - kick)) / (2 * step)
    np.testing.assert_allclose(grad[2], want, rtol=1e-6)


SB = P.sb_ve()
RD = P.rddm(9)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: R.sgmse(P.ouve(), 1), "steps must be"),
        (lambda: R.sgmse(P.ouve(), corrections=-1), "corrections must be"),
        (lambda: R.sgmse(P.ouve(), snr=-0.1), "snr must be"),
        (lambda: R.sgmse(P.ouve(), final="x"), "final must be"),
        (lambda: R.rddm(RD, 10), "steps must lie"),
        (lambda: R.rddm(RD, order="x"), "order must be one of"),
        (lambda: R.residual_model(net, RD, Y, outputs="x"), "outputs must be one of"),
        (lambda: R.resnoise_denoiser(net, RD, Y), "needs processes.resfusion"),
        (lambda: R.with_endpoint(net, np.arange(3)), "y must be floating"),
        (
            lambda: R.normalized(R.denoiser(net, RD, Y, prediction="noise")),
            "needs a data predictor",
        ),
        (
            lambda: fd.sample(
                fd.solvers.ddim(SB, [0.9, 0.1]), R.with_endpoint(net, Y), X
            ),
            r"reads \(data\); the denoiser gives \(data, degraded\)",
        ),
        (
            lambda: fd.sample(
                fd.solvers.ddim(RD, [8, -1]), R.residual_model(net, RD, Y), X
            ),
            r"reads \(data\); the denoiser gives \(residual, noise\)",
        ),
        (
            lambda: R.with_endpoint(fd.models.denoiser(net, SB, prediction="noise"), Y),
            "lacks beta y",
        ),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()
