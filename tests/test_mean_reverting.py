"""Mean-reverting process: the published chain, its SDE, the inverse, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd

from .oracles import mean_reverting as o

P = fd.processes
SCHEDULES = ("cosine", "constant", "linear")


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("options", [(100, 50 / 255, 0.005), (7, 0.7, 0.2)])
def test_equals_the_published_chain_at_its_labels(schedule, options):
    steps, lambda_inf, eps = options
    made = P.mean_reverting(
        schedule, train_steps=steps, lambda_inf=lambda_inf, end_alpha=eps
    )
    alpha, sigma = o.chain(schedule, *options)
    t = np.arange(steps + 1)
    np.testing.assert_allclose(made.alpha(t), alpha, rtol=1e-12)
    np.testing.assert_allclose(made.sigma(t), sigma, rtol=1e-10)
    np.testing.assert_allclose(made.beta(t), 1 - alpha, rtol=1e-10, atol=1e-15)
    assert made.start == steps and made.domain == (0.0, steps)
    assert (made.alpha(0.0), made.sigma(0.0), made.beta(0.0)) == (1, 0, 0)
    np.testing.assert_allclose(made.alpha(made.start), eps, rtol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_marginals_solve_the_forward_sde(schedule):
    """mean' = theta (mu - mean), variance' = 2 theta (lambda_inf^2 - variance)."""
    made = P.mean_reverting(schedule)
    t = np.linspace(0.3, 99.7, 91)
    d_alpha, d_sigma = made.rates(t)
    alpha, sigma = made.alpha(t), made.sigma(t)
    theta = -d_alpha / alpha
    np.testing.assert_allclose(
        2 * sigma * d_sigma, 2 * theta * (made.lambda_inf**2 - sigma**2), rtol=1e-9
    )
    inside = np.abs(t - np.round(t)) > 0.05  # theta jumps at the labels
    gap = 1e-5
    for values, rate in ((made.alpha, d_alpha), (made.sigma, d_sigma)):
        slope = (values(t + gap) - values(t - gap)) / (2 * gap)
        np.testing.assert_allclose(slope[inside], rate[inside], rtol=1e-6, atol=1e-11)
    assert (theta > 0).all() and (theta[-1] > 50 * theta[0]) == (schedule != "constant")


def test_rates_at_a_label_are_those_of_the_interval_below():
    made = P.mean_reverting([1.0, 3.0, 2.0])
    theta = -made.rates(np.arange(1.0, 4))[0] / made.alpha(np.arange(1.0, 4))
    np.testing.assert_allclose(theta / theta[0], [1, 3, 2], rtol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_half_log_snr_and_its_inverse(schedule):
    made = P.mean_reverting(schedule)
    t = np.linspace(1e-6, 100, 333)
    lam = made.half_log_snr(t)
    np.testing.assert_allclose(
        lam, np.log(made.alpha(t) / made.sigma(t)), rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(made.half_log_snr_inverse(lam), t, rtol=1e-9, atol=1e-12)
    assert made.half_log_snr(0.0) == np.inf
    assert made.half_log_snr_inverse(np.inf) == 0.0


def test_it_is_a_variance_preserving_path_with_scaled_noise():
    made = P.mean_reverting(lambda_inf=0.37)
    t = np.linspace(0, 100, 50)
    np.testing.assert_allclose(
        made.alpha(t) ** 2 + (made.sigma(t) / made.unit) ** 2, 1.0, rtol=1e-13
    )


def test_conforms_and_traces():
    made = P.mean_reverting()
    assert isinstance(made, fd.typing.Process)
    calls = []

    @jax.jit
    def levels(process, t):
        calls.append(1)
        return process.alpha(t), process.sigma(t), process.half_log_snr_inverse(-t)

    t = jnp.linspace(0.5, 99.5, 7)
    for process in (made, P.mean_reverting("linear", lambda_inf=0.5)):
        got = levels(process, t)
        n = np.asarray(t)
        want = process.alpha(n), process.sigma(n), process.half_log_snr_inverse(-n)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)
    assert len(calls) == 1
    assert made.alpha(jnp.float32(3.0)).dtype == jnp.float32
    slope = jax.grad(lambda u: made.alpha(u))(31.4)
    np.testing.assert_allclose(slope, made.rates(31.4)[0], rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: P.mean_reverting("quadratic"), "schedule must be one of 'cosine'"),
        (lambda: P.mean_reverting(lambda_inf=0.0), "lambda_inf must be > 0, got 0"),
        (lambda: P.mean_reverting(end_alpha=1.0), r"end_alpha must be in \(0, 1\)"),
        (lambda: P.mean_reverting(train_steps=0), "train_steps must be >= 1, got 0"),
        (lambda: P.mean_reverting([1.0, -2.0]), "theta must be > 0 and finite, got -2"),
        (lambda: P.mean_reverting(np.ones((2, 2))), r"shape \(T,\), got \(2, 2\)"),
    ],
)
def test_bad_input(call, text):
    with pytest.raises(ValueError, match=text):
        call()
