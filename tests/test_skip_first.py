"""Skipping the first evaluation: the second one serves for both, at x itself."""

import jax
import numpy as np
import pytest

import fastdiff_jax as fd

from . import mixture as m
from .contract_cases import (
    DRAWS,
    NAMES,
    NEEDY,
    SOLVERS,
    build,
    denoiser,
    loud,
    quiet,
    start,
)

VP = m.PROCESSES["vp"]
START = np.linspace(-2, 2, 7)
START_DRAWS = ("edm_churn",)
LOUD = [n for n in DRAWS if n not in ("gddim", *START_DRAWS)]
QUIET = [n for n in NAMES if n not in ("ddpm", "score_sde_ancestral", "gddim")]


@pytest.mark.parametrize("name", QUIET)
def test_equals_the_plan_whose_first_answer_is_the_second(name):
    """D_0 := D_1 with D_1 asked at x itself: the definition, by hand."""
    plan = build(name, 5)
    short = fd.plan.skip_first(plan)
    assert short.nfe == plan.nfe - 1

    def answer(x, i):
        found = np.sin(x + 0.1 * i)
        return found if plan.predictions == 1 else (found, np.cos(x))

    first = answer(START * (1 if plan.start is None else 1), 1)

    def twice(x, i):
        return first if i < 2 else answer(x, i)

    want = fd.plan.replay(plan, twice, START)
    got = fd.plan.replay(short, lambda x, i: answer(x, i + 1), START)
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-12)


def test_is_the_longer_plan_where_the_network_answers_with_the_mean():
    """A network that knows nothing at the first two levels."""
    plan = fd.solvers.ipndm(VP, m.times_between(VP, 8), order=3)
    alpha, sigma = plan.rows.level.alpha, plan.rows.level.sigma

    def predict(x, i):
        return 0.3 + 0 * x if i < 2 else m.predict(x, alpha[i], sigma[i])

    want = fd.plan.replay(plan, predict, START)
    short = fd.plan.skip_first(plan)
    got = fd.plan.replay(short, lambda x, i: predict(x, i + 1), START)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


def test_in_the_engine_the_network_is_told_the_second_level():
    plan = fd.plan.skip_first(fd.solvers.unipc(VP, m.times_between(VP, 6)))
    seen = []

    def model(x, context, carry):
        jax.debug.callback(lambda t: seen.append(float(t)), context.time)
        return 0 * x, carry

    fd.sample(plan, model, START[:, None])
    jax.effects_barrier()
    np.testing.assert_allclose(sorted(seen)[::-1], m.times_between(VP, 6)[1:-1])


@pytest.mark.parametrize("eta", [0.4, 1.0])
def test_two_draws_become_one_of_the_same_variance(eta):
    plan = fd.solvers.ddim(VP, m.times_between(VP, 5), eta=eta)
    short = fd.plan.skip_first(plan)
    zero = lambda x, _: 0 * x  # noqa: E731
    one = fd.plan.replay(plan, zero, np.zeros(5), np.eye(5))
    two = fd.plan.replay(short, zero, np.zeros(4), np.eye(4))
    np.testing.assert_allclose(two[0] ** 2, one[0] ** 2 + one[1] ** 2, rtol=1e-12)
    np.testing.assert_allclose(two[1:], one[2:], rtol=1e-12)


@pytest.mark.parametrize("name", LOUD)
def test_stochastic_plans_have_the_law_of_the_definition(name):
    """The mean and the variance of the sample, where D_0 = D_1 = 0 and then 0.3 x."""
    plan = loud(name)
    short = fd.plan.skip_first(plan)

    def law(plan, skipped):
        def predict(x, i):
            found = (0.0 if i + skipped < 2 else 0.3) * x
            return found if plan.predictions == 1 else (found, 0.5 * found)

        n = plan.length
        gain = fd.plan.replay(plan, predict, np.eye(1, n + 1)[0], np.eye(n, n + 1, 1))
        return gain[0], gain[1:]

    (x, z), (x_short, z_short) = law(plan, 0), law(short, 1)
    np.testing.assert_allclose(x_short, x, rtol=1e-11)
    np.testing.assert_allclose(z_short[0] ** 2, z[0] ** 2 + z[1] ** 2, rtol=1e-11)
    np.testing.assert_allclose(z_short[1:], z[2:], rtol=1e-11, atol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sde_dpmpp_2m", "sa_solver", "er_sde", "ddpm"])
def test_stochastic_plans_run(name):
    plan = fd.plan.skip_first(loud(name))
    out = fd.sample(plan, denoiser(plan.reads), start(plan), key=jax.random.key(0))
    assert np.isfinite(out).all()


@pytest.mark.parametrize("solver", ["dpmpp_2m", "unipc", "sa_solver"])
def test_a_time_per_element(solver):
    """Each element is the short plan of its own times."""
    ts = np.stack([m.times_between(VP, 6), m.times_between(VP, 6, 1.3)], 1)
    plan = fd.plan.per_element(SOLVERS[solver].build, VP, ts, **quiet(solver))
    got = fd.plan.replay(fd.plan.skip_first(plan), lambda x, i: np.sin(x), START[:2])
    for e in range(2):
        own = fd.plan.skip_first(SOLVERS[solver].build(VP, ts[:, e], **quiet(solver)))
        want = fd.plan.replay(own, lambda x, i: np.sin(x), START[e])
        np.testing.assert_allclose(got[e], want, rtol=1e-12)


def test_matrix_weights():
    plan = build("gddim", 5)
    x = np.random.default_rng(0).normal(size=(4, 2, 3))
    first = np.sin(x)
    want = fd.plan.replay(plan, lambda y, i: first if i < 2 else np.sin(y), x)
    got = fd.plan.replay(fd.plan.skip_first(plan), lambda y, i: np.sin(y), x)
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fd.solvers.ddim(VP, m.times_between(VP, 1)), "at least 2 rows"),
        (lambda: fd.plan.pad(fd.solvers.ddim(VP, m.times_between(VP, 3)), 5), "padded"),
        (
            lambda: fd.plan.slice_rows(fd.solvers.unipc(VP, m.times_between(VP, 4)), 2),
            "from its start",
        ),
        (
            lambda: fd.solvers.sde_dpmpp_2m(
                VP, m.times_between(VP, 3), prediction="noise"
            ),
            "two draws that go to different places",
        ),
        (
            lambda: fd.solvers.edm_churn(
                m.PROCESSES["edm"],
                m.times_between(m.PROCESSES["edm"], 3),
                s_churn=9.0,
            ),
            "start that draws no noise",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        fd.plan.skip_first(make())


def test_the_needy_are_here():
    assert set(NEEDY) & set(QUIET)
