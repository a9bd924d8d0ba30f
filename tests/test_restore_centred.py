"""Centring: loops in x itself, exact laws, weak orders, prediction kinds, the MR names.

Data N(m, v) at a fixed degraded y; every step's truth is known in closed form.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.analysis import gaussian_error, transfer
from fastdiff_jax.states import align
from fastdiff_jax.trees import pytree

from . import mixture as m
from .oracles import mean_reverting as o
from .table import words

R, S = fd.restore, fd.solvers
MR = fd.processes.mean_reverting()
Y = np.linspace(-0.6, 0.9, 5)[:, None]
MEAN, VARIANCE = 0.4, 0.09


@pytree
class InX:
    """The exact denoiser of the mixture, in the process' own coordinates."""

    y: object
    model: object = m.MODEL
    process: object = MR

    def __call__(self, x, context, carry):
        beta = self.process.beta(jnp.asarray(context.time))
        u = x - align(beta, x) * self.y
        return self.model.posterior_mean(u, context.alpha, context.sigma), carry


def grid(n, power=1.0, low=-1.5, high=3.5):
    lam = low + np.linspace(0, 1, n + 1) ** power * (high - low)
    return MR.half_log_snr_inverse(lam)


CASES = {  # name: (options of mr_sampler, options of the loop)
    "ode 1": ({"order": 1}, {"order": 1}),
    "ode 2": ({}, {"order": 2}),
    "ode 3": ({"order": 3}, {"order": 3}),
    "ode 3 published": (
        {"order": 3, "compat": True},
        {"order": 3, "published": True},
    ),
    "ode 2 noise": ({"prediction": "noise"}, {"order": 2, "data": False}),
    "ode 3 noise published": (
        {"order": 3, "prediction": "noise", "compat": True},
        {"order": 3, "data": False, "published": True},
    ),
    "ode 2 v": ({"prediction": "v"}, {"order": 2}),
    "sde 1": ({"order": 1, "sde": True}, {"order": 1, "tau2": 1.0}),
    "sde 2": ({"sde": True}, {"order": 2, "tau2": 1.0}),
    "sde 2 tau2=.3": ({"tau2": 0.3}, {"order": 2, "tau2": 0.3}),
    "sde 3": ({"order": 3, "sde": True}, {"order": 3, "tau2": 1.0}),
    "sde 2 noise": (
        {"sde": True, "prediction": "noise"},
        {"order": 2, "tau2": 1.0, "data": False},
    ),
}


def predict(x, i, levels):
    alpha, sigma = levels
    u = (x - (1 - alpha[i]) * Y)[:, 0]
    return m.predict(u, alpha[i], sigma[i])[:, None]


@functools.cache
def problem(clean):
    ts = R.steps(MR, 8) if clean else grid(8, 1.3)
    rng = np.random.default_rng(0)
    start = Y + MR.sigma(ts[0]) * rng.normal(size=Y.shape)
    return ts, start, rng.normal(size=(8, *Y.shape))


ENDS = [(n, False) for n in CASES] + [(n, True) for n in CASES if "noise" not in n]


@pytest.mark.parametrize(("name", "clean"), ENDS)
def test_equals_the_uncentred_loop(name, clean):
    """Centred tables against the papers' loops, which carry mu in every step."""
    ours, theirs = CASES[name]
    ts, start, z = problem(clean)
    plan = R.mr_sampler(MR, ts, **ours)
    levels = MR.alpha(ts), MR.sigma(ts)
    want = o.sample(levels, lambda x, i: predict(x, i, levels), start, Y, z, **theirs)
    noise = jnp.asarray(z) if plan.stochastic else None
    got = R.sample(plan, InX(jnp.asarray(Y)), MR, Y, start=start, noise=noise)
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-11)


def test_euler_maruyama_is_the_published_reverse_loop():
    ts = np.arange(100.0, 0.0, -1)  # labels 100, ..., 1
    plan = S.euler_maruyama(MR, ts)
    levels = MR.alpha(ts), MR.sigma(ts)
    rng = np.random.default_rng(1)
    start, z = Y + 0.2 * rng.normal(size=Y.shape), rng.normal(size=(99, *Y.shape))
    alpha, _ = o.chain("cosine", 100, MR.lambda_inf, 0.005)
    rate = -np.diff(np.log(alpha))[::-1][:-1]
    want = o.reverse_chain(
        rate, MR.lambda_inf, levels, lambda x, i: predict(x, i, levels), start, Y, z
    )
    got = R.sample(plan, InX(jnp.asarray(Y)), MR, Y, start=start, noise=jnp.asarray(z))
    np.testing.assert_allclose(got, want, rtol=1e-9)


def test_the_markov_sampler_is_first_order_with_noise():
    """IR-SDE's optimal step: mean and variance of x_{i-1} given x_i and x_0."""
    ts = np.array([100.0, 99, 80, 33, 2])
    plan = R.mr_sampler(MR, ts, order=1, sde=True)
    a, s = MR.alpha(ts), MR.sigma(ts) / MR.unit
    step = a[:-1] / a[1:]  # e^{-theta dt} of each step
    want_x = step * s[1:] ** 2 / s[:-1] ** 2
    want_d = a[1:] * (1 - step**2) / s[:-1] ** 2
    want_z = MR.unit * s[1:] * np.sqrt(1 - step**2) / s[:-1]
    found = words(plan)
    np.testing.assert_allclose(found.keep, want_x, rtol=1e-10)
    np.testing.assert_allclose(found.weights[:, 0], want_d, rtol=1e-9)
    np.testing.assert_allclose(found.noise, want_z, rtol=1e-10)


def closed_form(t):
    """Law of x_t for data N(MEAN, VARIANCE) at y."""
    alpha, sigma = MR.alpha(t), MR.sigma(t)
    return alpha * MEAN + MR.beta(t) * Y[:, 0], alpha**2 * VARIANCE + sigma**2


@pytest.mark.parametrize("sde", [False, True])
def test_many_steps_have_the_closed_form_law(sde):
    """Moments of x from the centred plan alone, against alpha m + beta y."""
    ts = grid(400)
    plan = R.mr_sampler(MR, ts, order=2, sde=sde)
    found = gaussian_error(plan, MEAN - Y[:, 0], VARIANCE, exact_start=True)
    mean, variance = closed_form(ts[-1])
    np.testing.assert_allclose(Y[:, 0] + found.mean, mean, atol=2e-5)
    np.testing.assert_allclose(found.variance, variance, rtol=5e-4)


def test_the_run_has_the_law_that_analysis_gives():
    ts, start, z = problem(False)
    plan = R.mr_sampler(MR, ts, sde=True)
    gain = transfer(plan, VARIANCE)
    inner = InX(jnp.asarray(Y), fd.models.gaussian(MEAN, VARIANCE))
    got = R.sample(plan, inner, MR, Y, start=start, noise=jnp.asarray(z))
    want = gain.state * (start - Y) + gain.mean * (MEAN - Y)
    want = Y + want + np.tensordot(gain.noise[:, 0], z, 1)
    np.testing.assert_allclose(got, want, rtol=1e-11)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("sde", [False, True])
def test_a_known_clean_image_is_hit_exactly(order, sde):
    """I1: D = m whatever x gives N(alpha m + beta y, sigma^2) at any step size."""
    plan = R.mr_sampler(MR, np.array([100.0, 61, 30, 5]), order=order, sde=sde)
    found = fd.analysis.constant(plan)
    assert max(map(abs, found)) < 1e-13


SLOPES = {  # name: (options, order of the variance's error)
    "ode 1": ({"order": 1}, 1),
    "ode 2": ({}, 2),
    "ode 2 noise": ({"prediction": "noise"}, 2),
    "ode 3": ({"order": 3}, 3),
    "ode 3 published": ({"order": 3, "compat": True}, 2),
    "sde 1": ({"order": 1, "sde": True}, 1),
    "sde 2": ({"sde": True}, 2),
    "sde 3": ({"order": 3, "sde": True}, 2),
}


@pytest.mark.parametrize("name", SLOPES)
def test_weak_order_on_gaussian_data(name):
    options, order = SLOPES[name]
    errors = []
    for n in (160, 320):
        plan = R.mr_sampler(MR, grid(n, 2.0), **options)
        e = gaussian_error(plan, 0.0, VARIANCE, exact_start=True, target="level")
        errors.append(abs(e.variance - e.target_variance)[0])
        if options.get("sde"):  # I2: tau2 = 1 keeps the conditional mean exactly
            assert (
                abs(
                    gaussian_error(
                        plan, 1.0, VARIANCE, exact_start=True, target="level"
                    ).mean[0]
                    - MR.alpha(plan.end.time)
                )
                < 1e-13
            )
    slope = np.log2(errors[0] / errors[1])
    assert abs(slope - order) < 0.2, slope


def net_of(kind, process):
    """A network that returns exactly what its kind names, from the mixture's D."""

    def net(x, y, t):
        alpha, sigma = process.alpha(t), process.sigma(t)
        u = x - process.beta(t) * y
        d = m.MODEL.posterior_mean(u, alpha, sigma)
        e = (x - alpha * d - (1 - alpha) * y) / sigma
        if kind == "v":  # d/dphi of y + cos phi (x_0 - y) + lambda sin phi eps
            return alpha * process.unit * e - sigma / process.unit * (d - y)
        if kind == "velocity":
            theta = -process.rates(t)[0] / alpha
            return theta * (y - x) + theta * process.unit**2 * e / sigma
        return {"noise": e, "score": -e / sigma, "data": d}[kind]

    return net


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["noise", "data", "v", "score", "velocity"])
def test_prediction_kinds_agree(kind):
    ts, start, z = problem(False)
    plan = R.mr_sampler(MR, ts, sde=True)
    noise = jnp.asarray(z)
    want = R.sample(plan, InX(jnp.asarray(Y)), MR, Y, start=start, noise=noise)
    model = R.denoiser(net_of(kind, MR), MR, jnp.asarray(Y), prediction=kind)
    got = R.sample(plan, model, MR, Y, start=start, noise=noise)
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-12)


def test_the_networks_arguments():
    """params, condition, the label as time, y in the network's dtype; no retrace."""
    seen = []

    def net(params, x, y, t, label):
        seen.append((x.dtype, y.dtype, t.shape, y.shape))
        return (params * x + y) * (1 + label[:, None]).astype(x.dtype)

    plan, key, first = R.mr_sampler(MR, R.steps(MR, 3)), jax.random.key(0), 0
    for scale in (0.1, 0.3):
        model = R.denoiser(
            net,
            MR,
            jnp.asarray(Y[:1] + scale),  # one y for all samples
            prediction="data",
            params=jnp.bfloat16(scale),
            condition=jnp.arange(5),
            dtype=jnp.bfloat16,
            batch_time=True,
        )
        out = R.sample(plan, model, MR, Y[:1] + scale, key=key, shape=(5, 1))
        assert out.shape == (5, 1) and out.dtype == jnp.float64
        first = len(seen) if scale == 0.1 else first
    half = jnp.dtype(jnp.bfloat16)
    assert set(seen) == {(half, half, (5,), (5, 1))}
    assert len(seen) == first  # the second model did not trace again


@pytest.mark.slow
def test_starts_around_y_with_the_first_levels_noise():
    key, plan = jax.random.key(3), R.mr_sampler(MR, grid(4))
    first = lambda state, info: info.point  # noqa: E731
    start = Y + fd.prior(MR, key, Y.shape, start=float(plan.rows.level.time[0]))
    got, points = R.sample(plan, InX(jnp.asarray(Y)), MR, Y, key=key, collect=first)
    want = R.sample(plan, InX(jnp.asarray(Y)), MR, Y, start=start)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    np.testing.assert_allclose(Y + points[0], start, rtol=1e-12)
    many = np.zeros((20000, 1))
    plan = R.mr_sampler(MR, np.array([100.0, 99.9]), order=1)
    model = fd.models.gaussian(0.0, 1.0)
    _, points = R.sample(plan, model, MR, many, key=key, collect=first)
    assert abs(points[0].mean()) < 4 * MR.sigma(100.0) / np.sqrt(20000)
    assert abs(points[0].std() / MR.lambda_inf - 1) < 0.02


@pytree
class Counting:
    """Trees, a carry, several predictions."""

    several: bool = dataclasses.field(default=False, metadata={"static": True})

    def __call__(self, x, context, carry):
        d = jax.tree.map(lambda v: 0.5 * v + 0.25, x)
        return ((d, d) if self.several else d), carry + 1

    def initial_carry(self, x):
        return jax.tree.leaves(x)[0].sum()


def test_trees_carry_and_several_predictions_pass_through():
    y = {"a": jnp.ones((2, 3)), "b": jnp.full((2,), 2.0)}
    u = {"a": jnp.zeros((2, 3)), "b": jnp.ones((2,))}
    for several in (False, True):
        inner = R.centred(Counting(several), MR, y)
        context = fd.Context(0, 1.0, 0.5, 0.5)
        assert inner.initial_carry(u) == 6.0
        out, carry = inner(u, context, jnp.float64(4))
        out = out[0] if several else out
        assert carry == 5
        np.testing.assert_allclose(out["a"], 0.5 + 0.25 - 1)
        np.testing.assert_allclose(out["b"], 1.5 + 0.25 - 2)
    found = R.sample(
        R.mr_sampler(MR),
        R.centred(Counting(), MR, y).inner,
        MR,
        y,
        key=jax.random.key(0),
    )
    np.testing.assert_allclose(found["a"], 0.5, atol=0.5)


@pytest.mark.slow
def test_a_function_guidance_jit_vmap_and_grad():
    plan, key = R.mr_sampler(MR, R.steps(MR, 4)), jax.random.key(0)
    halve = lambda x, context, carry: (0.5 * x, carry)  # noqa: E731
    y = jnp.asarray(Y)
    want = R.sample(plan, halve, MR, y, key=key)

    def run(process, y, key):
        return R.sample(plan, halve, process, y, key=key)

    np.testing.assert_allclose(jax.jit(run)(MR, y, key), want, rtol=1e-12)
    both = jax.vmap(run, (None, 0, None))(MR, jnp.stack([y, 2 * y]), key)
    np.testing.assert_allclose(both[0], want, rtol=1e-12)
    gap = 1e-6
    slope = jax.grad(lambda v: run(MR, v, key).sum())(y)
    rise = (run(MR, y + gap, key) - run(MR, y - gap, key)) / (2 * gap)
    np.testing.assert_allclose(slope, rise, rtol=1e-7)
    clipped = fd.transforms.clip(InX(y), -0.1, 0.1)
    assert abs(np.asarray(R.sample(plan, clipped, MR, y, key=key))).max() <= 0.1


def test_float32_stays_float32():
    y = jnp.asarray(Y, jnp.float32)
    out = R.sample(R.mr_sampler(MR), InX(y), MR, y, key=jax.random.key(0))
    assert out.dtype == jnp.float32


def test_published_defaults():
    ts = R.steps(MR)
    assert len(ts) == 21 and (ts[0], ts[-1]) == (100.0, 0.0)
    plan = R.mr_sampler(MR)
    assert plan.nfe == 20 and plan.registers == 2 and not plan.stochastic
    # the last step into sigma = 0 is D; the one before keeps its order
    assert not plan.rows.registers[-1].any() and (plan.rows.predictions[-1] == 1).all()
    assert abs(words(plan).weights[-2, 1:]).max() > 1e-3


VP = fd.processes.vp_linear()
PLAIN = fd.models.denoiser(lambda x, t: x, MR, prediction="noise")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: R.steps(MR, 0), "n must be >= 1, got 0"),
        (lambda: R.mr_sampler(MR, order=4), "order must be 1, 2 or 3, got 4"),
        (lambda: R.mr_sampler(MR, prediction="eps"), "'noise' or 'v', got 'eps'"),
        (lambda: R.mr_sampler(MR, sde=True, tau2=0.5), "either sde=True or tau2"),
        (
            lambda: R.mr_sampler(MR, order=3, sde=True, compat=True),
            "no third order with noise",
        ),
        (lambda: R.mr_sampler(VP), "VPLinear has no centre"),
        (lambda: R.centred(m.MODEL, VP, Y), "VPLinear has no centre"),
        (
            lambda: R.centred(fd.transforms.clip(PLAIN), MR, Y),
            "prediction='noise' converts by",
        ),
        (
            lambda: R.sample(R.mr_sampler(MR), m.MODEL, MR, Y),
            "pass key=jax.random.key",
        ),
        (
            lambda: R.sample(
                R.mr_sampler(MR), m.MODEL, MR, np.ones(3, int), key=jax.random.key(0)
            ),
            "y must be floating, got int",
        ),
        (
            lambda: R.sample(
                R.mr_sampler(fd.processes.mean_reverting(lambda_inf=0.5)),
                m.MODEL,
                MR,
                Y,
                key=jax.random.key(0),
            ),
            "Build the plan with this process",
        ),
        (
            lambda: R.denoiser(lambda x, y, t: x, VP, Y, prediction="data"),
            "must be a path with two endpoints",
        ),
        (
            lambda: R.denoiser(lambda x, y, t: x, MR, Y, prediction="epsilom"),
            "prediction must be one of",
        ),
        (
            lambda: R.denoiser(lambda x, y, t: x, NoCentre(), Y, prediction="v"),
            "defined around a centre",
        ),
    ],
)
def test_bad_input(call, text):
    with pytest.raises(ValueError, match=text):
        call()


class NoCentre:
    """A path whose weight of y is not k (1 - alpha)."""

    centre = None
    half_log_snr = beta = alpha = sigma = lambda self, t: t
