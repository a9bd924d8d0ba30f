"""DC-Solver: the paper's loop, UniPC at ratio 1, the ratio search, the regression."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd

from . import mixture as mx
from .oracles import dc_solver as oracle
from .table import spoiled

PROCESS = fd.processes.vp_linear()
MODEL = mx.MODEL
START = np.linspace(-2, 2, 7)[:, None]


@pytest.mark.parametrize(
    ("order", "degree", "kind"),
    [(1, 1, "bh2"), (1, 2, "bh1"), (2, 2, "bh1"), (3, 2, "bh2"), (3, 3, "bh1")],
)
def test_it_is_the_papers_loop(order, degree, kind):
    ts = fd.grids.uniform(PROCESS, 7)
    ratios = 1 + 0.1 * np.sin(np.arange(7))
    a, s = PROCESS.alpha(ts), PROCESS.sigma(ts)
    want = oracle.sample(
        ts,
        PROCESS.half_log_snr(ts),
        a,
        s,
        lambda x, i: np.asarray(mx.predict(x[:, 0], a[i], s[i]))[:, None],
        START,
        ratios,
        order,
        degree,
        kind,
    )
    plan = fd.solvers.dc_solver(
        PROCESS, ts, ratios, order=order, dc_order=degree, variant=kind
    )
    got = fd.sample(plan, MODEL, START)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_ratio_one_is_unipc(prediction):
    ts = fd.grids.log_snr(PROCESS, 6)
    ours = fd.solvers.dc_solver(PROCESS, ts, prediction=prediction)
    unipc = fd.solvers.unipc(PROCESS, ts, prediction=prediction)
    x = jnp.asarray(START)
    np.testing.assert_array_equal(fd.sample(ours, MODEL, x), fd.sample(unipc, MODEL, x))


def build(process, ts):
    return fd.solvers.dc_solver(process, ts, order=2, lower_order_final=False)


def test_order_at_ratio_one():
    assert abs(mx.slope(build, "vp", power=1.5, counts=(80, 160)) - 3) < 0.25


def test_a_wrong_coefficient_shows_in_the_order():
    def wrong(process, ts):
        return spoiled(build(process, ts), older=1.1)

    assert mx.slope(wrong, "vp", power=1.5, counts=(80, 160)) < 1


def test_a_repeated_time_and_a_clean_end():
    process = fd.processes.flow()
    ts = np.array([1.0, 0.8, 0.8, 0.5, 0.3, 0.1, 0.0])
    plan = fd.solvers.dc_solver(process, ts, 0.9)
    assert np.isfinite(np.asarray(fd.sample(plan, MODEL, jnp.asarray(START)))).all()


@pytest.mark.slow
def test_the_ratios_are_differentiable():
    ts = fd.grids.log_snr(PROCESS, 5)

    def total(ratios):
        plan = fd.solvers.dc_solver(PROCESS, ts, ratios, order=2)
        return fd.sample(plan, MODEL, jnp.asarray(START)).sum()

    at = jnp.full(5, 0.97)
    slope = jax.grad(total)(at)
    assert (slope[:2] == 0).all() and (jnp.abs(slope[2:]) > 0).all()
    step = jnp.zeros(5).at[3].set(1e-5)
    central = (total(at + step) - total(at - step)) / 2e-5
    np.testing.assert_allclose(slope[3], central, rtol=1e-5)


# ------------------------------------------------------------------------------ search


@pytest.mark.slow
def test_search_lowers_the_error_of_unseen_noise():
    steps = 5
    ts = fd.grids.log_snr(PROCESS, steps)
    few = jnp.asarray(np.random.default_rng(0).normal(size=(10, 1)))
    target = fd.tune.dc_ratios.reference(MODEL, PROCESS, ts, few)
    assert target.shape == (steps, 10, 1)
    seen = []
    options = dict(order=3, dc_order=1)
    found = fd.tune.dc_ratios.search(
        MODEL,
        PROCESS,
        ts,
        few,
        target,
        iterations=15,
        bound=0.5,
        progress=lambda *at: seen.append(at),
        **options,
    )
    assert seen == [(i + 1, steps) for i in range(steps)]
    assert found.ratios[0] == 1 and (np.abs(found.ratios - 1) <= 0.5).all()
    assert (found.errors <= found.plain).all()
    assert (found.errors < found.plain).any()
    # what the search saw is what the plan does
    plan = fd.solvers.dc_solver(PROCESS, ts, found.ratios, **options)
    end = fd.sample(plan, MODEL, few)
    np.testing.assert_allclose(
        ((end - target[-1]) ** 2).mean(), found.errors[-1], rtol=1e-9
    )
    many = jnp.asarray(np.random.default_rng(1).normal(size=(10, 1)))
    exact = fd.tune.dc_ratios.reference(MODEL, PROCESS, ts, many)[-1]
    plain = fd.solvers.dc_solver(PROCESS, ts, **options)
    gaps = [((fd.sample(p, MODEL, many) - exact) ** 2).mean() for p in (plan, plain)]
    assert gaps[0] < gaps[1]


def test_reference_is_fine_and_reaches_an_exact_end():
    process = fd.processes.flow()
    model = fd.models.gaussian(1.0, 0.5)
    ts = np.array([1.0, 0.7, 0.4, 0.0])
    x = jnp.asarray(START)
    got = fd.tune.dc_ratios.reference(model, process, ts, x, refine=60)
    total = (1 - ts) ** 2 * 0.5 + ts**2
    want = (1 - ts[1:, None, None]) + np.sqrt(total[1:, None, None]) * START
    np.testing.assert_allclose(got, want, atol=2e-3)


# -------------------------------------------------------------------------- regression


def test_regression_recovers_a_polynomial_of_its_own_form():
    theta = np.random.default_rng(0).normal(size=(4, 3, 3)) * 0.3
    theta[0, 2, 2] += 1
    table = [
        (g, fd.tune.dc_ratios.predict_ratios(theta, n, g))
        for g in (1.5, 4.0, 7.5, 10.0)
        for n in (6, 9, 14, 25)
    ]
    found = fd.tune.dc_ratios.fit_cascade(table)
    assert found.shape == (4, 3, 3)
    np.testing.assert_allclose(
        fd.tune.dc_ratios.predict_ratios(found, 11, 6.0),
        fd.tune.dc_ratios.predict_ratios(theta, 11, 6.0),
        atol=1e-6,
    )


def test_regression_ignores_what_was_never_varied():
    ratios = [1, 1, 0.95, 0.9, 0.97, 1.02, 1.01]
    theta = fd.tune.dc_ratios.fit_cascade([(7.5, ratios)])
    np.testing.assert_array_equal(
        fd.tune.dc_ratios.predict_ratios(theta, 7, 7.5),
        fd.tune.dc_ratios.predict_ratios(theta, 7, 2.0),
    )
    assert (fd.tune.dc_ratios.predict_ratios(theta, 7)[:2] == 1).all()
    np.testing.assert_allclose(
        fd.tune.dc_ratios.predict_ratios(theta, 7)[2:], ratios[2:], atol=0.02
    )


def test_bad_input():
    ts = fd.grids.log_snr(PROCESS, 4)
    dc = fd.solvers.dc_solver
    with pytest.raises(ValueError, match=r"order in 1\.\.6, got 0"):
        dc(PROCESS, ts, order=0)
    with pytest.raises(ValueError, match=r"dc_order in 1\.\.5, got 6"):
        dc(PROCESS, ts, dc_order=6)
    with pytest.raises(ValueError, match="variant must be"):
        dc(PROCESS, ts, variant="bh3")
    with pytest.raises(ValueError, match=r"one per step, shape \(4,\)"):
        dc(PROCESS, ts, [1.0, 1.0])
    with pytest.raises(ValueError, match="refine must be >= 1"):
        fd.tune.dc_ratios.reference(MODEL, PROCESS, ts, START, refine=0)
    with pytest.raises(ValueError, match="one row per step"):
        fd.tune.dc_ratios.reference(
            MODEL, PROCESS, ts, START, solver=fd.solvers.edm_heun
        )
    with pytest.raises(ValueError, match="iterations must be >= 1"):
        fd.tune.dc_ratios.search(MODEL, PROCESS, ts, START, START, iterations=0)
    with pytest.raises(ValueError, match="target must be the state at each step"):
        fd.tune.dc_ratios.search(MODEL, PROCESS, ts, START, START)
    target = np.broadcast_to(START, (4, *np.shape(START)))
    search = functools.partial(fd.tune.dc_ratios.search, MODEL, PROCESS, ts, START)
    for wrong in ({"learning_rate": np.nan}, {"learning_rate": -1.0}, {"bound": 0.0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            search(target, **wrong)
    with pytest.raises(ValueError, match="target must be at a finite distance"):
        search(target * np.nan, iterations=1)
    with pytest.raises(ValueError, match="table must be pairs"):
        fd.tune.dc_ratios.fit_cascade([(1.0, [1.0, 1.0])])
    with pytest.raises(ValueError, match="theta must have shape"):
        fd.tune.dc_ratios.predict_ratios(np.zeros(3), 5)
    with pytest.raises(ValueError, match="steps must be >= 1"):
        fd.tune.dc_ratios.predict_ratios(np.zeros((4, 3, 3)), 0)
