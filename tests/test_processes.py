"""Processes: accuracy against mpmath-free identities, ends, inverses, JAX twins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

import fastdiff_jax as fd

P = fd.processes
ALL = {
    "vp_linear": P.vp_linear(),
    "vp_cosine": P.vp_cosine(),
    "sub_vp": P.sub_vp(),
    "ve": P.ve(),
    "edm": P.edm(),
    "flow": P.flow(),
    "vp_discrete": P.vp_discrete(),
    "vp_discrete_rho": P.vp_discrete("linear", interpolation="rho"),
    "vp_discrete_cosine": P.vp_discrete("squared_cosine"),
    "zero_snr": P.vp_discrete(zero_terminal_snr=True),
    "zero_snr_rho": P.vp_discrete(zero_terminal_snr=True, interpolation="rho"),
}


def times(process):
    low, high = process.domain
    low = -0.5 if np.isinf(low) else low
    high = 100.0 if np.isinf(high) else high
    near = low + (high - low) * np.logspace(-8, 0, 60)
    return np.unique(np.concatenate([[low], near, np.linspace(low, high, 400)]))


@pytest.mark.parametrize("name", ALL)
def test_inverse_and_identities(name):
    process = ALL[name]
    t = times(process)
    alpha, sigma, lam = process.alpha(t), process.sigma(t), process.half_log_snr(t)
    assert alpha.dtype == sigma.dtype == lam.dtype == np.float64
    assert np.isfinite(alpha).all() and np.isfinite(sigma).all()
    assert not np.isnan(lam).any()
    inside = np.isfinite(lam)
    np.testing.assert_allclose(
        np.exp(lam[inside]) * sigma[inside], alpha[inside], rtol=1e-12
    )
    back = process.half_log_snr_inverse(lam)
    scale = max(1.0, float(t.max()))
    np.testing.assert_allclose(back, t, rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(
        process.half_log_snr(back)[inside], lam[inside], rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("name", [n for n in ALL if n.startswith(("vp", "zero"))])
def test_variance_is_preserved(name):
    process = ALL[name]
    t = times(process)
    total = process.alpha(t) ** 2 + process.sigma(t) ** 2
    np.testing.assert_allclose(total, 1.0, rtol=1e-12)


def test_vp_linear_is_the_integral_of_its_beta():
    process = P.vp_linear(0.1, 20.0)
    for t in (1e-3, 0.3, 1.0):
        decay = quad(lambda u: 0.1 + u * 19.9, 0, t, epsabs=1e-14)[0]
        np.testing.assert_allclose(process.alpha(t), np.exp(-decay / 2), rtol=1e-12)
        np.testing.assert_allclose(
            process.sigma(t), np.sqrt(-np.expm1(-decay)), rtol=1e-12
        )


def test_discrete_is_the_product_of_its_betas():
    betas = np.linspace(1e-4, 0.02, 1000)
    process = P.vp_discrete(betas)
    np.testing.assert_allclose(
        process.alpha(np.arange(1000.0)) ** 2, np.cumprod(1 - betas), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("name", "time", "alpha", "sigma", "lam"),
    [
        ("vp_linear", 0.0, 1.0, 0.0, np.inf),
        ("vp_cosine", 0.0, 1.0, 0.0, np.inf),
        ("sub_vp", 0.0, 1.0, 0.0, np.inf),
        ("ve", -np.inf, 1.0, 0.0, np.inf),
        ("edm", 0.0, 1.0, 0.0, np.inf),
        ("flow", 0.0, 1.0, 0.0, np.inf),
        ("flow", 1.0, 0.0, 1.0, -np.inf),
        ("vp_discrete", -1.0, 1.0, 0.0, np.inf),
        ("vp_discrete_rho", -1.0, 1.0, 0.0, np.inf),
        ("zero_snr", 999.0, 0.0, 1.0, -np.inf),
        ("zero_snr_rho", 999.0, 0.0, 1.0, -np.inf),
    ],
)
def test_ends_are_exact(name, time, alpha, sigma, lam):
    process = ALL[name]
    assert process.alpha(time) == alpha
    assert process.sigma(time) == sigma
    assert process.half_log_snr(time) == lam
    assert process.half_log_snr_inverse(lam) == time


@pytest.mark.parametrize("name", ALL)
def test_rates_are_derivatives(name):
    process = ALL[name]
    discrete = process.clean == -1.0
    t = np.array([10.5, 500.5, 900.5]) if discrete else np.array([0.1, 0.5, 0.9])
    step = 1e-4 if discrete else 1e-6
    for which, rate in zip(("alpha", "sigma"), process.rates(t), strict=True):
        f = getattr(process, which)
        slope = (f(t + step) - f(t - step)) / (2 * step)
        np.testing.assert_allclose(rate, slope, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_jax_gives_the_same_and_differentiates(name):
    process = ALL[name]
    t = times(process)[5:-5:40]
    for method in ("alpha", "sigma", "half_log_snr", "model_time"):
        host = getattr(process, method)(t)
        traced = jax.jit(lambda p, t, m=method: getattr(p, m)(t))(
            process, jnp.asarray(t)
        )
        np.testing.assert_allclose(traced, host, rtol=1e-11, atol=1e-13)
    found = jax.vmap(jax.grad(process.alpha))(jnp.asarray(t))
    np.testing.assert_allclose(found, process.rates(t)[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_any_shape(shape):
    t = np.full(shape, 0.4)
    for process in (ALL["vp_linear"], ALL["flow"], ALL["edm"]):
        assert process.half_log_snr(t).shape == shape


def test_model_time():
    assert P.vp_linear(train_steps=1000).model_time(1.0) == 999.0
    assert P.vp_linear().model_time(0.25) == 0.25
    assert P.flow(1000.0).model_time(0.5) == 500.0
    assert P.ve().model_time(1.0) == 50.0
    assert P.edm().model_time(3.0) == 3.0
    assert P.vp_discrete().model_time(7.5) == 7.5


def test_the_two_interpolations_agree_at_labels_only():
    a, b = P.vp_discrete("linear"), P.vp_discrete("linear", interpolation="rho")
    n = np.arange(0.0, 1000.0, 37)
    np.testing.assert_allclose(a.sigma(n), b.sigma(n), rtol=1e-12)
    assert abs(a.sigma(10.5) - b.sigma(10.5)) > 1e-8


def test_tabulated_is_exact_and_knows_only_its_levels():
    process = P.tabulated([0.1, 0.6, 1.0], [0.99, 0.8, 0.0])
    np.testing.assert_array_equal(process.alpha([2, 1, 0]), [0.1, 0.6, 1.0])
    assert process.half_log_snr_inverse(process.half_log_snr(1.0)) == 1.0
    with pytest.raises(ValueError, match="whole times only, got 0.5"):
        process.alpha(0.5)
    with pytest.raises(ValueError, match="no time derivative"):
        process.rates(1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: P.vp_linear(-1.0, 2.0), "beta_min must be > 0, got -1.0"),
        (lambda: P.vp_linear(3.0, 2.0), "beta_min must be below beta_max"),
        (lambda: P.ve(0.0, 50.0), "sigma_min must be > 0"),
        (lambda: P.edm(80.0, 0.002), "sigma_min must be below sigma_max"),
        (lambda: P.flow(0.0), "time_scale must be > 0"),
        (lambda: P.vp_cosine(-0.1), "offset must be > 0"),
        (lambda: P.vp_discrete("cubic"), "one of 'linear'.*got 'cubic'"),
        (lambda: P.vp_discrete([0.1, 1.5]), r"numbers in \(0, 1\).*1.5"),
        (lambda: P.vp_discrete(interpolation="log"), "'log_alpha', 'rho', got 'log'"),
        (lambda: P.tabulated([1.0], [0.0]), "1-D of one length >= 2"),
        (lambda: P.tabulated([1.0, -1.0], [0.1, 0.1]), "must be >= 0.*at 1"),
    ],
)
def test_bad_constants(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_processes_of_as_many_constants_are_different_trees():
    """Equal structures would let jit run one process' program for another."""
    p = fd.processes
    every = [p.vp_linear(), p.sub_vp(), p.ve(), p.edm(), p.vp_cosine(), p.flow()]
    for i, a in enumerate(every):
        for b in every[:i]:
            assert jax.tree.structure(a) != jax.tree.structure(b)
        assert jax.tree.structure(a) == jax.tree.structure(jax.tree.map(float, a))
        leaves, structure = jax.tree.flatten(a)
        assert structure.unflatten(leaves) == a
    named = jax.tree_util.tree_leaves_with_path(p.vp_linear())
    assert [jax.tree_util.keystr(path) for path, _ in named] == [
        ".beta_min",
        ".beta_max",
    ]


@pytest.mark.parametrize("time", [None, "a", {}, 1j, np.array([0.5, 1j])])
def test_a_time_that_is_no_number(time):
    with pytest.raises(ValueError, match="a time or a level must be a real number"):
        fd.processes.vp_linear().alpha(time)
