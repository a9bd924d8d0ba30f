"""Gaussian teleportation: exact on Gaussian data, alone and before any plan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import fastdiff_jax as fd

from . import mixture as m

VP, EDM, FLOW = (m.PROCESSES[k] for k in ("vp", "edm", "flow"))
Gaussian, teleport, fit = (
    fd.starts.Gaussian,
    fd.starts.teleport,
    fd.starts.fit_gaussian,
)
RNG = np.random.default_rng(0)
ROOT = RNG.normal(size=(4, 4)) / 2
COVARIANCE = ROOT @ ROOT.T + 0.05 * np.eye(4)
SPECTRUM, VECTORS = np.linalg.eigh(COVARIANCE)
MEAN = RNG.normal(size=4)
EXACT = Gaussian(MEAN, VECTORS, SPECTRUM)
X = jnp.asarray(RNG.normal(size=(6, 4)))


def integrate(process, x, t_from, t_to):
    """The probability-flow ODE by DOP853, in half log-SNR."""

    def slope(lam, flat):
        x = flat.reshape(6, 4)
        t = process.half_log_snr_inverse(lam)
        a, s = process.alpha(t), process.sigma(t)
        d_alpha, d_sigma = process.rates(t)
        total = a**2 * COVARIANCE + s**2 * np.eye(4)
        gap = np.linalg.solve(total, (x - a * MEAN).T).T
        d = MEAN + a * gap @ COVARIANCE
        rate = d_alpha * d + d_sigma * (x - a * d) / s
        # dt / dlambda = 1 / (alpha'/alpha - sigma'/sigma)
        return (rate / (d_alpha / a - d_sigma / s)).ravel()

    span = [float(process.half_log_snr(t)) for t in (t_from, t_to)]
    start = np.asarray(x).ravel()
    found = solve_ivp(slope, span, start, method="DOP853", rtol=1e-12, atol=1e-12)
    return found.y[:, -1].reshape(6, 4)


@pytest.mark.parametrize(
    "process, span", [(VP, (0.9, 0.2)), (EDM, (10.0, 0.3)), (FLOW, (0.95, 0.1))]
)
def test_solves_the_ode(process, span):
    got = teleport(X, process, *span, EXACT)
    np.testing.assert_allclose(got, integrate(process, X, *span), rtol=1e-9, atol=1e-9)
    back = teleport(got, process, *span[::-1], EXACT)
    np.testing.assert_allclose(back, X, rtol=1e-11, atol=1e-11)
    halfway = teleport(X, process, span[0], sum(span) / 2, EXACT)
    twice = teleport(halfway, process, sum(span) / 2, span[1], EXACT)
    np.testing.assert_allclose(twice, got, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["unipc", "dpmpp_3m", "edm_heun", "adams"])
def test_before_any_plan_it_is_exact(name):
    """All of the error that is left is the plan's own, on its shorter grid."""
    process, x = EDM, 20.0 * X
    model = fd.models.gaussian(MEAN, covariance=COVARIANCE)
    exact = teleport(x, process, 20.0, 0.05, EXACT)
    errors = []
    for n in (40, 80):
        ts = fd.grids.karras(process, n, start=20.0, end=0.05)
        plan = fd.solvers.find(name).build(process, ts[n // 4 :])
        landed = fd.starts.jump(plan, x, process, EXACT, start=20.0)
        want = teleport(x, process, 20.0, ts[n // 4], EXACT)
        np.testing.assert_allclose(landed, want, rtol=1e-12)
        errors.append(float(abs(fd.sample(plan, model, landed) - exact).max()))
    assert errors[1] < min(errors[0] / 3, 2e-3)


def test_exact_ends():
    """alpha = 0 at the start; sigma = 0 at the end gives a sample of the Gaussian."""
    end = teleport(X, FLOW, 1.0, 0.0, EXACT)
    want = MEAN + (np.asarray(X) @ VECTORS * np.sqrt(SPECTRUM)) @ VECTORS.T
    np.testing.assert_allclose(end, want, rtol=1e-12)


def test_fit_and_shapes():
    data = RNG.normal(size=(50, 2, 3)) * 2 + 1
    full = fit(data)
    assert full.mean.shape == (2, 3) and full.vectors.shape == (6, 6)
    flat = data.reshape(50, 6)
    cov = full.vectors * full.spectrum @ full.vectors.T
    np.testing.assert_allclose(cov, np.cov(flat.T), rtol=1e-12, atol=1e-12)
    few = fit(data[:4])
    assert few.spectrum.shape == (3,)  # four samples span three directions
    low = fit(data, rank=2)
    np.testing.assert_allclose(low.spectrum, full.spectrum[:2])
    x = jnp.asarray(RNG.normal(size=(5, 2, 3)))
    assert teleport(x, VP, 1.0, 0.5, low).shape == (5, 2, 3)


def test_low_rank_equals_zero_variance_elsewhere():
    low = Gaussian(MEAN, VECTORS[:, 2:], SPECTRUM[2:])
    padded = Gaussian(MEAN, VECTORS, np.append(np.zeros(2), SPECTRUM[2:]))
    got, want = (teleport(X, VP, 0.9, 0.3, g) for g in (low, padded))
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_jit_vmap_grad():
    move = jax.jit(lambda x, t: teleport(x, VP, 0.9, t, EXACT))
    many = jax.vmap(move, (None, 0))(X, jnp.asarray([0.5, 0.3]))
    np.testing.assert_allclose(many[1], move(X, 0.3), rtol=1e-12)
    slope = jax.grad(lambda t: move(X, t).sum())(0.4)
    numeric = (move(X, 0.4001).sum() - move(X, 0.3999).sum()) / 2e-4
    np.testing.assert_allclose(slope, numeric, rtol=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match="n >= 2"):
        fit(np.ones((1, 3)))
    with pytest.raises(ValueError, match="without NaN"):
        fit(np.full((3, 2), np.nan))
    with pytest.raises(ValueError, match="rank must be >= 1"):
        fit(np.ones((3, 2)), rank=0)
    with pytest.raises(ValueError, match="events of shape"):
        teleport(X[:, :3], VP, 0.9, 0.5, EXACT)
    ts = np.linspace(1, 0.1, 4)[:, None] * np.ones(4)
    plan = fd.solvers.ddim(VP, ts)
    with pytest.raises(ValueError, match="one level per row"):
        fd.starts.jump(plan, X, VP, EXACT)
