"""The analytic first step: the same as a denoiser that answers row 0 by formula."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd

from . import mixture as m

S = fd.solvers
VP, EDM, FLOW = (m.PROCESSES[k] for k in ("vp", "edm", "flow"))
START = np.linspace(-2, 2, 7)
MEAN = float(m.WEIGHTS @ m.MEANS)
RULES = {
    "unit": ("unit", {}),
    "noise": ("noise", {}),
    "data": ("data", {"mean": 0.3}),
    "pair": ((0.2, -0.7), {}),
}


def answer(rule, options, x, alpha, sigma):
    """D of the first evaluation, as each rule is defined."""
    if isinstance(rule, tuple):
        return rule[0] * x + rule[1]
    if rule == "data":
        return options["mean"] + 0 * x
    e = x if rule == "noise" else x / np.sqrt(alpha**2 + sigma**2)
    return (x - sigma * e) / alpha


def run(plan, first, x, constants=None):
    """A plan on the host, start biases included.

    `first` answers row 0, `constants` name rows that answer with a number.
    """
    rows = plan.rows

    def predict(point, i):
        index = int(rows.index[i])
        known = first if index == 0 and first else m.predict
        d = known(point, rows.level.alpha[i], rows.level.sigma[i])
        return d * 0 + (constants or {}).get(index, d)

    return fd.plan.replay(plan, predict, x)


PLANS = {
    name: lambda name=name: S.SOLVERS[name].build(VP, m.times_between(VP, 5, 1.3))
    for name in sorted(S.SOLVERS)
    if not S.SOLVERS[name].needs
} | {
    "unipc noise": lambda: S.unipc(VP, m.times_between(VP, 5), prediction="noise"),
    "hb 3.5": lambda: S.hb(VP, m.times_between(VP, 5), order=3.5),
    "ghvb with a start": lambda: S.ghvb(VP, m.times_between(VP, 5), initial="data"),
    "hb with a start": lambda: S.hb(
        VP, m.times_between(VP, 5), order=2.4, initial="velocity"
    ),
    "two predictions": lambda: S.ddim(VP, m.times_between(VP, 5), second_noise=True),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", PLANS)
def test_equals_a_denoiser_that_answers_row_0(name, rule):
    plan = PLANS[name]()
    if plan.stochastic:
        pytest.skip("recorded noise has a test of its own")
    kind, options = RULES[rule]
    short = fd.plan.analytic_first_step(plan, kind, **options)
    assert short.nfe == plan.nfe - 1
    np.testing.assert_array_equal(short.rows.index, plan.rows.index[1:])

    def first(x, alpha, sigma):
        return answer(kind, options, x, alpha, sigma)

    want = run(plan, first, START)
    np.testing.assert_allclose(run(short, None, START), want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("mean", [0.3, START[::-1] / 5], ids=["one", "by element"])
@pytest.mark.parametrize("name", ["unipc", "ghvb", "f_pndm", "plms"])
def test_twice_answers_two_rows(name, mean):
    """The second application composes with the first one's start and biases."""
    plan = PLANS[name]()
    once = fd.plan.analytic_first_step(plan, "data", mean=mean)
    twice = fd.plan.analytic_first_step(once, "data", mean=-0.2)
    assert twice.nfe == plan.nfe - 2
    want = run(plan, None, START, {0: mean, 1: -0.2})
    np.testing.assert_allclose(run(twice, None, START), want, rtol=1e-11, atol=1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unipc", "ipndm", "hb"])
def test_in_the_engine_with_a_mean_per_element_and_a_tree(name):
    plan = S.SOLVERS[name].build(VP, m.times_between(VP, 5))
    mean = np.array([0.3, -0.4, 0.1])
    short = fd.plan.analytic_first_step(plan, "data", mean=mean)
    x = np.stack([START, START / 2, -START], 1)

    def denoiser(x, context, carry):
        d = jax.tree.map(jnp.tanh, x)
        pick = lambda v: jnp.where(context.index == 0, mean[None], v)  # noqa: E731
        return jax.tree.map(pick, d), carry

    state = {"a": jnp.asarray(x), "b": jnp.asarray(2 * x)}
    want = fd.sample(plan, denoiser, state)
    got = fd.sample(short, denoiser, state)
    for leaf in want:
        np.testing.assert_allclose(got[leaf], want[leaf], rtol=1e-12, atol=1e-12)
    padded = fd.plan.pad(short, 9, registers=7)
    more = fd.sample(padded, denoiser, state)
    np.testing.assert_allclose(more["a"], want["a"], rtol=1e-12, atol=1e-12)


def test_recorded_noise_moves_to_the_start():
    plan = S.ddim(VP, m.times_between(VP, 5), eta=0.7)
    short = fd.plan.analytic_first_step(plan, "unit")
    z = np.random.default_rng(0).normal(size=(5, 7, 1))

    def denoiser(x, context, carry):
        d, carry = m.MODEL(x, context, carry)
        norm = jnp.sqrt(context.alpha**2 + context.sigma**2)
        first = x * context.alpha / (norm * (norm + context.sigma))
        return jnp.where(context.index == 0, first, d), carry

    x = jnp.asarray(START[:, None])
    want = fd.sample(plan, denoiser, x, noise=z)
    got = fd.sample(short, denoiser, x, noise=z)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
    # rows keep their own streams: from row 1 on the draws are those of the whole plan
    key = jax.random.key(3)
    keep = lambda _, info: info.noise  # noqa: E731
    _, whole = fd.sample(plan, m.MODEL, x, key=key, collect=keep)
    _, part = fd.sample(short, m.MODEL, x, key=key, collect=keep)
    np.testing.assert_array_equal(part, whole[1:])


@pytest.mark.slow
def test_the_data_mean_is_exact_at_pure_noise():
    """At alpha = 0 the model knows the mean and nothing else: a call for free."""
    ts = np.array([1.0, 0.8, 0.55, 0.3, 0.1, 0.0])
    x = jnp.asarray(START[:, None])
    for build in (S.unipc, S.ipndm):
        plan = build(FLOW, ts)
        short = fd.plan.analytic_first_step(plan, "data", mean=MEAN)
        np.testing.assert_allclose(
            m.run(short, x), m.run(plan, x), rtol=1e-11, atol=1e-11
        )
        unit = fd.plan.analytic_first_step(plan, "unit")
        assert np.isfinite(m.run(unit, x)).all()


def test_the_cost_of_the_saved_call_vanishes_with_the_first_level():
    """EDM: the larger sigma_max, the better the formula."""
    gaps = []
    for top in (5.0, 50.0):
        ts = fd.grids.karras(EDM, 8, start=top)
        x = jnp.asarray(START[:, None] * top)
        plan = S.adams(EDM, ts, order=2)
        short = fd.plan.analytic_first_step(plan)
        gaps.append(float(jnp.abs(m.run(short, x) - m.run(plan, x)).max()))
    assert gaps[1] < gaps[0] / 3


@pytest.mark.slow
def test_traced_and_saved_plans():
    ts = m.times_between(VP, 4)
    plain = fd.plan.analytic_first_step(S.ipndm(VP, ts), "data", mean=0.3)
    traced = fd.plan.analytic_first_step(
        S.ipndm(VP, jnp.asarray(ts)), "data", mean=jnp.asarray(0.3)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-8, 1e-8), traced, plain
    )
    again = fd.plan.from_json(fd.plan.to_json(plain))
    jax.tree.map(np.testing.assert_array_equal, again, plain)


def make(**options):
    return fd.plan.analytic_first_step(S.ddim(VP, m.times_between(VP, 3)), **options)


def churned():
    plan = S.ddim(VP, m.times_between(VP, 3), eta=1.0)
    return fd.plan.analytic_first_step(fd.plan.analytic_first_step(plan))


BAD = [
    (lambda: make(rule="x0"), "rule must be 'unit', 'noise', 'data' or a pair.*'x0'"),
    (
        lambda: fd.plan.analytic_first_step(S.ddim(VP, [1.0, 0.5])),
        "at least 2 rows from its start, got 1",
    ),
    (
        lambda: fd.plan.analytic_first_step(fd.plan.pad(S.ddim(VP, [1, 0.5, 0.1]), 4)),
        "unpadded",
    ),
    (
        lambda: fd.plan.analytic_first_step(S.ddim(FLOW, [1, 0.5, 0.1]), "noise"),
        "'noise' needs alpha > 0",
    ),
    (
        lambda: fd.plan.analytic_first_step(dataclasses.replace(make(), matrix=True)),
        "matrix=False",
    ),
    (lambda: make(rule="data", mean=np.inf), "mean must be finite"),
    (churned, "start that draws no noise"),
]


@pytest.mark.parametrize(("build", "message"), BAD)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()
