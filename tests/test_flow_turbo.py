"""FlowTurbo: equal to the naive loop, second order, the refiner's rows, bad input."""

import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd

from . import mixture as m
from .oracles import special as o
from .table import with_rows

FLOW, VP = m.PROCESSES["flow"], m.PROCESSES["vp"]
TURBO = fd.solvers.flow_turbo
START = np.linspace(-2, 2, 7)
BLOCKS = [(1, 5, 0), (3, 3, 0), (6, 0, 0), (2, 4, 0)]


def refiner(x, t, v):
    """Any small network will do, as long as NumPy runs it, too."""
    return 0.1 * v - 0.05 * x * t + 0.02


def run(plan, model=m.MODEL):
    return np.asarray(fd.sample(plan, model, jnp.asarray(START[:, None])))[:, 0]


def host(plan, x=None):
    """The plan's sample, row by row in NumPy."""
    _, alpha, sigma = plan.rows.level
    start = START if x is None else x
    return fd.plan.replay(plan, lambda x, i: m.predict(x, alpha[i], sigma[i]), start)


def slope(build, name, power=1.0, counts=(40, 80)):
    """Observed order, in NumPy: no compiled program per step count."""
    process, x, end = m.problem(name)
    errors = []
    for n in counts:
        gap = host(build(process, m.times_between(process, n, power)), x) - end
        errors.append(np.sqrt(np.mean(gap**2)))
    return np.log2(errors[0] / errors[1]) / np.log2(counts[1] / counts[0])


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("end", [0.01, 0.0])
def test_equals_the_naive_loop(blocks, end):
    heun, pseudo, refine = blocks
    for process, ts in (
        (FLOW, np.linspace(1.0, end, 7)),
        (VP, np.linspace(0.9, end, 7) ** 1.5),
    ):
        plan = TURBO(process, ts, heun=heun, pseudo=pseudo, refine=refine)
        want = o.flow_turbo(process, ts, m.predict, START, *blocks)
        np.testing.assert_allclose(host(plan), want, rtol=1e-12, atol=1e-12)
        euler = end == 0 and pseudo == 0  # a Heun step at the end has no second stage
        assert plan.nfe == 2 * heun + pseudo - euler


@pytest.mark.parametrize("blocks", [(1, 3, 2), (2, 0, 4)])
@pytest.mark.parametrize("end", [0.01, 0.0])
def test_refined_rows_equal_the_naive_loop(blocks, end):
    ts = np.linspace(1.0, end, 7)
    heun, pseudo, refine = blocks
    plan = TURBO(FLOW, ts, heun=heun, refine=refine)
    calls = []

    def net(x, t):
        calls.append(1)
        return m.MODEL.posterior_mean(x, 1 - t, t)

    inner = fd.models.denoiser(net, FLOW, prediction="data")
    model = fd.transforms.velocity_refiner(inner, refiner, FLOW)
    want = o.flow_turbo(FLOW, ts, m.predict, START, *blocks, refiner)
    np.testing.assert_allclose(run(plan, model), want, rtol=1e-12, atol=1e-12)
    model_rows = plan.rows.controls["refine"] == 0
    assert model_rows.sum() == 2 * heun + pseudo
    assert plan.nfe == 2 * heun + pseudo + 2 * refine - (end == 0)


def test_refiner_parameters_are_an_argument():
    def net(params, x, t, v):
        return params * refiner(x, t, v)

    plan = TURBO(FLOW, np.linspace(1.0, 0.1, 4), heun=1, pseudo=0, refine=2)
    ends = [
        run(plan, fd.transforms.velocity_refiner(m.MODEL, net, FLOW, params=p))
        for p in (jnp.asarray(1.0), jnp.asarray(0.0))
    ]
    plain = fd.transforms.velocity_refiner(m.MODEL, refiner, FLOW)
    np.testing.assert_allclose(ends[0], run(plan, plain), rtol=1e-13)
    assert abs(ends[0] - ends[1]).max() > 1e-3


def test_a_perfect_refiner_gives_heun_at_a_fixed_lag():
    """R that returns the model's own u minus v makes d the true velocity."""
    ts = np.linspace(0.9, 0.1, 6)

    def perfect(x, t, v):
        return m.MODEL.posterior_mean(x, 1 - t, t) * 0 + velocity(x, t) - v

    def velocity(x, t):
        d = m.MODEL.posterior_mean(x, 1 - t, t)
        return (x - d) / t

    model = fd.transforms.velocity_refiner(m.MODEL, perfect, FLOW)
    plan = TURBO(FLOW, ts, heun=1, refine=4)
    x, passed = START, None
    for i, (s, t) in enumerate(zip(ts[:-1], ts[1:], strict=True)):
        step = t - s
        d = o.velocity(FLOW, m.predict, x, s)
        d2 = o.velocity(FLOW, m.predict, x + step * d, t)
        if i:
            d2 = d2 + (d - passed)  # theirs: d' = d + R, R relative to v
        passed = d2 if i == 0 else d
        x = x + step / 2 * (d + d2)
    np.testing.assert_allclose(run(plan, model), x, rtol=1e-11)


def test_pseudo_corrector_is_second_order_on_the_flow_path():
    build = lambda p, ts: TURBO(p, ts, heun=1)  # noqa: E731
    assert abs(slope(build, "flow", counts=(80, 160)) - 2) < 0.25


def test_a_wrong_weight_is_not():
    def planted(process, ts):
        plan = TURBO(process, ts, heun=1)
        rows, x = plan.rows, np.eye(plan.registers)[0]
        # 0.45 and 0.55 of the two velocities; what is pushed stays as it is
        lines = np.array([1.0, 0.0, 1.0])[:, None]
        off = 0.1 * (rows.registers[:, -1:] - x), 0.1 * rows.predictions[:, -1:]
        return with_rows(
            plan,
            registers=rows.registers + lines * off[0],
            predictions=rows.predictions + lines * off[1],
        )

    assert slope(planted, "flow", counts=(80, 160)) < 1.6


@pytest.mark.parametrize("counts", [(0, 5, 0), (2, 2, 0), (8, None, 0), (1, None, -1)])
def test_bad_counts(counts):
    heun, pseudo, refine = counts
    with pytest.raises(ValueError, match="flow_turbo needs heun >= 1"):
        TURBO(FLOW, np.linspace(1, 0.1, 6), heun=heun, pseudo=pseudo, refine=refine)


def test_bad_rows():
    model = fd.transforms.velocity_refiner(m.MODEL, refiner, FLOW)
    plan = TURBO(FLOW, np.linspace(1, 0.1, 4), heun=1)
    with pytest.raises(ValueError, match="reads controls"):
        run(plan, model)
    wrong = {"refine": np.array([1, 0, 0, 0])}
    with pytest.raises(ValueError, match="start with 0"):
        fd.sample(plan, model, jnp.asarray(START[:, None]), controls=wrong)
