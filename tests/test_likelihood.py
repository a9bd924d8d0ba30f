"""The likelihood against closed-form densities, and its random trace."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

import fastdiff_jax as fd
from fastdiff_jax.continuous import bits_per_dim, log_likelihood

p = fd.processes
PROCESSES = {
    "vp": (p.vp_linear(), {"end": 1e-4}),
    "sub_vp": (p.sub_vp(), {}),
    "ve": (p.ve(), {"end": -0.3}),  # sigma = 0.0008
    "edm": (p.edm(), {}),
    "flow": (p.flow(), {}),
}
TIGHT = {"rtol": 1e-8, "atol": 1e-8, "solver": diffrax.Dopri8()}


class Data:
    """Two Gaussians in d dimensions with full covariances, and points near them."""

    def __init__(self, d):
        rng = np.random.default_rng(0)
        self.weights, self.means = np.array([0.4, 0.6]), rng.normal(size=(2, d))
        root = rng.normal(size=(2, d, d)) / np.sqrt(d)
        self.covariances = 0.3 * root @ np.swapaxes(root, 1, 2) + 0.1 * np.eye(d)
        self.model = fd.models.gaussian_mixture(
            self.weights, self.means, covariances=self.covariances
        )
        self.x = np.concatenate(
            [
                rng.multivariate_normal(m, c, 3)
                for m, c in zip(self.means, self.covariances, strict=True)
            ]
        )

    def log_density(self, x, alpha=1.0, sigma=0.0):
        """log p of alpha x_0 + sigma eps."""
        each = []
        for w, m, c in zip(self.weights, self.means, self.covariances, strict=True):
            total = alpha**2 * c + sigma**2 * np.eye(len(m))
            gap = np.asarray(x) - alpha * m
            energy = np.einsum("bi,ij,bj->b", gap, np.linalg.inv(total), gap)
            each.append(
                np.log(w) - energy / 2 - np.linalg.slogdet(2 * np.pi * total)[1] / 2
            )
        return logsumexp(each, axis=0)

    def blurred(self, process, **ends):
        """log p of x_0 + (sigma / alpha)(end) eps at the points."""
        end = ends.get("end", process.end)
        return self.log_density(self.x, 1.0, process.sigma(end) / process.alpha(end))

    def prior(self, process):
        """The exact log-density at the start."""
        a, s = (float(w(process.start)) for w in (process.alpha, process.sigma))
        return lambda x: jnp.asarray(self.log_density(x, a, s))


FOUR = Data(4)


def both_priors(process, **ends):
    """log p with the prior that the denoiser implies, and with the exact one."""
    x = jnp.asarray(FOUR.x)
    run = functools.partial(log_likelihood, FOUR.model, process, x, **TIGHT, **ends)
    return run(), run(log_prior=FOUR.prior(process))


@pytest.mark.slow
@pytest.mark.parametrize("name", PROCESSES)
def test_mixture_in_four_dimensions(name):
    """The data's density on published paths; to 1e-6 with the exact prior."""
    process, ends = PROCESSES[name]
    found, tight = both_priors(process, **ends)
    assert np.abs(found.log_prob - FOUR.log_density(FOUR.x)).max() < 1e-3
    want = FOUR.blurred(process, **ends)
    np.testing.assert_allclose(tight.log_prob, want, atol=1e-6)
    np.testing.assert_allclose(found.log_prob, want, atol=5e-6)
    assert not found.failed.any() and (found.standard_error == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vp", "ve", "flow"])
def test_the_published_prior_is_the_samplers_law(name):
    """N(0, sigma_T^2) in place of the true marginal: 0.02 to 0.05 nats here."""
    process, ends = PROCESSES[name]
    x = jnp.asarray(FOUR.x)
    found = log_likelihood(FOUR.model, process, x, log_prior="normal", **TIGHT, **ends)
    sigma = float(process.sigma(process.start))
    normal = norm.logpdf(found.latent, scale=sigma).sum(1)
    gap = FOUR.prior(process)(found.latent) - normal
    want = FOUR.blurred(process, **ends) - gap
    np.testing.assert_allclose(found.log_prob, want, atol=1e-6)
    assert name == "flow" or np.abs(gap).max() > 0.01


def diagonal(process, variances, x, **options):
    model = fd.models.gaussian(0.0, variances)
    return log_likelihood(model, process, x, **options)


VARIANCES = np.array([[0.5, 2.0], [1.0, 0.3]])


@pytest.mark.slow
def test_gaussian_of_any_shape_and_the_map_to_noise():
    """Diagonal Gaussian: x_T is alpha x scaled by the ratio of standard deviations."""
    process, x = p.flow(), np.random.default_rng(0).normal(size=(3, 2, 2))
    found = diagonal(process, VARIANCES, jnp.asarray(x), **TIGHT)
    want = -0.5 * (x**2 / VARIANCES + np.log(2 * np.pi * VARIANCES)).sum((1, 2))
    np.testing.assert_allclose(found.log_prob, want, atol=2e-5)
    ratio = 1e-3 / 0.999
    np.testing.assert_allclose(
        found.latent, x / np.sqrt(VARIANCES + ratio**2), rtol=1e-6
    )


@pytest.mark.slow
def test_tree_states():
    def model(x, context, carry):
        gain = context.alpha / (context.alpha**2 * 0.5 + context.sigma**2) * 0.5
        return jax.tree.map(lambda v: gain * v, x), carry

    x = {"a": jnp.ones((2, 3)), "b": jnp.zeros((2,))}
    found = log_likelihood(model, p.vp_linear(), x, end=1e-4, steps=40)
    want = -3.0 - 4 * np.log(np.pi) / 2
    np.testing.assert_allclose(found.log_prob, want, atol=5e-4)
    assert jax.tree.map(jnp.shape, found.latent) == {"a": (2, 3), "b": (2,)}


@pytest.mark.slow
def test_hutchinson_is_unbiased_and_knows_its_error(key):
    options = {"key": key, "divergence": "hutchinson", "steps": 25}
    x = jnp.broadcast_to(jnp.asarray(FOUR.x[:1]), (600, 4))
    exact = log_likelihood(FOUR.model, p.flow(), x[:1], steps=25)
    found = log_likelihood(
        FOUR.model, p.flow(), x, probes=3, probe="gaussian", **options
    )
    gap = np.asarray(found.log_prob - exact.log_prob)
    np.testing.assert_allclose(found.latent, exact.latent + 0 * x, rtol=1e-12)
    spread = np.asarray(found.standard_error)
    assert spread.mean() > 0.02
    assert abs(gap.mean()) < 4 * gap.std(ddof=1) / np.sqrt(600)
    assert 0.87 < gap.std(ddof=1) / np.sqrt((spread**2).mean()) < 1.15  # of 3 probes


@pytest.mark.slow
def test_diagonal_jacobian_needs_one_rademacher_probe(key):
    x = jnp.ones((2, 2, 2))
    options = {"steps": 25, "key": key, "divergence": "hutchinson"}
    found = diagonal(p.vp_linear(), VARIANCES, x, **options)
    want = diagonal(p.vp_linear(), VARIANCES, x, steps=25)
    np.testing.assert_allclose(found.log_prob, want.log_prob, rtol=1e-10)
    assert np.isnan(found.standard_error).all()


@pytest.mark.slow
def test_samples_do_not_depend_on_the_batch(key):
    options = {"key": key, "divergence": "hutchinson"}
    all_of = log_likelihood(FOUR.model, p.flow(), jnp.asarray(FOUR.x), **options)
    first = log_likelihood(FOUR.model, p.flow(), jnp.asarray(FOUR.x[:2]), **options)
    np.testing.assert_allclose(all_of.log_prob[:2], first.log_prob, rtol=1e-12)
    assert len(set(np.asarray(all_of.evaluations).tolist())) > 1


@pytest.mark.slow
def test_gradients_in_x_and_in_parameters():
    """d log p / dx is the score; d log p / d variance is known."""
    x = jnp.asarray([[0.7, -0.4]])

    def log_prob(x, mean, variance):
        def model(x, context, carry):
            a, s = context.alpha, context.sigma
            total = a**2 * variance + s**2
            return mean + a * variance / total * (x - a * mean), carry

        return log_likelihood(
            model, p.flow(), x, end=1e-4, steps=30, solver=diffrax.Dopri8()
        ).log_prob[0]

    got = jax.jit(jax.grad(log_prob, (0, 1, 2)))(x, 0.2, 0.6)
    gap = np.asarray(x) - 0.2
    np.testing.assert_allclose(got[0], -gap / 0.6, rtol=1e-5)
    np.testing.assert_allclose(got[1], gap.sum() / 0.6, rtol=1e-5)
    want = ((gap**2).sum() / 0.6 - 2) / 1.2
    np.testing.assert_allclose(got[2], want, rtol=1e-4)


@pytest.mark.slow
def test_condition_and_single_precision():
    def model(x, context, carry):
        mean = context.condition.reshape(-1, 1).astype(x.dtype)
        a, s = context.alpha, context.sigma
        return mean + a / (a**2 + s**2) * (x - a * mean), carry

    x = jnp.ones((2, 3), jnp.float32)
    found = log_likelihood(model, p.flow(), x, condition=jnp.asarray([1, 2]))
    assert found.log_prob.dtype == found.latent.dtype == jnp.float32
    want = [-1.5 * np.log(2 * np.pi), -1.5 - 1.5 * np.log(2 * np.pi)]
    np.testing.assert_allclose(found.log_prob, want, atol=1e-3)


@pytest.mark.slow
def test_evaluations_are_counted_and_bounded():
    x, calls = jnp.asarray(FOUR.x[:1]), []

    def model(x, context, carry):
        jax.debug.callback(lambda: calls.append(1))
        return FOUR.model(x, context, carry)

    found = log_likelihood(model, p.flow(), x, steps=7)
    jax.block_until_ready(found.log_prob)
    jax.effects_barrier()
    assert len(calls) == int(found.evaluations[0]) == 45
    short = log_likelihood(FOUR.model, p.flow(), x, max_steps=3)
    assert bool(short.failed[0]) and np.isnan(short.log_prob).all()


@pytest.mark.slow
def test_new_numbers_do_not_recompile():
    traces = []

    @jax.tree_util.register_pytree_node_class
    class Model:
        def __init__(self, v):
            self.v = v

        def tree_flatten(self):
            return (self.v,), None

        @classmethod
        def tree_unflatten(cls, _, v):
            return cls(*v)

        def __call__(self, x, context, carry):
            traces.append(1)
            gain = context.alpha * self.v
            return gain / (context.alpha * gain + context.sigma**2) * x, carry

    for v, process in ((0.5, p.vp_linear()), (0.7, p.vp_linear(0.2, 19.0))):
        log_likelihood(Model(v), process, jnp.ones((1, 2)), steps=3)
        once = len(traces) if v == 0.5 else once  # noqa: F821
    assert len(traces) == once


def test_bits_per_dim():
    """A uniform density on the range costs log2(bins) bits."""
    for bins, low, high in ((256, -1.0, 1.0), (17, -1.0625, 1.0625), (256, 0.0, 1.0)):
        flat = jnp.asarray(-6 * np.log(high - low))
        got = bits_per_dim(flat, (2, 3), bins=bins, low=low, high=high)
        np.testing.assert_allclose(got, np.log2(bins), rtol=1e-12)
    assert bits_per_dim(np.zeros(2), (4,)).tolist() == [7.0, 7.0]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"divergence": "trace"}, "divergence must be 'exact' or 'hutchinson'"),
        ({"divergence": "hutchinson"}, "draws probes; pass key"),
        ({"probe": "sign"}, "probe must be 'rademacher' or 'gaussian'"),
        ({"probes": 0}, "probes must be > 0"),
        ({"rtol": 0.0}, "rtol must be > 0"),
        ({"steps": 0}, "steps must be > 0"),
        ({"end": 0.0}, "sigma is 0 at end=0"),
        ({"start": 0.1, "end": 0.5}, "must decrease strictly"),
        ({"start": 2.0}, "must lie in"),
        ({"solver": diffrax.ImplicitEuler()}, "solver must be a AbstractERK"),
    ],
)
def test_bad_options(options, text):
    with pytest.raises(ValueError, match=text):
        log_likelihood(FOUR.model, p.flow(), jnp.asarray(FOUR.x), **options)


def test_bad_inputs():
    x = jnp.asarray(FOUR.x)
    for bad, text in (
        (x[0, 0], "leading batch axis"),
        (1j * x.astype(complex), "real"),
    ):
        with pytest.raises(ValueError, match=text):
            log_likelihood(FOUR.model, p.flow(), bad)
    noise = fd.models.denoiser(lambda x, t: x, p.flow(), prediction="noise")
    with pytest.raises(ValueError, match="alpha = 0"):
        log_likelihood(noise, p.flow(), x)

    class Keeps:
        def initial_carry(self, x):
            return x

        def __call__(self, x, context, carry):
            return x, carry

    with pytest.raises(ValueError, match="without a memory"):
        log_likelihood(Keeps(), p.flow(), x)
    with pytest.raises(ValueError, match="condition="):
        log_likelihood(
            lambda x, c, carry: (jnp.zeros((6, 4)), carry), p.flow(), x, steps=1
        )
    with pytest.raises(ValueError, match="high must be above low"):
        bits_per_dim(x, (4,), low=1.0, high=0.0)
    for shape in ((4, 0), ()):
        with pytest.raises(ValueError, match="shape must be that of one sample"):
            bits_per_dim(x, shape)
