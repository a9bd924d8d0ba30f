"""Momentum samplers: equal to naive loops, orders, ends, published initial velocity."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd

from . import mixture as m
from . import replay
from .oracles import momentum as o
from .table import words

S = fd.solvers
VP, EDM, FLOW = (m.PROCESSES[k] for k in ("vp", "edm", "flow"))
START = np.linspace(-2, 2, 7)
REAL = (0.5, 1, 1.8, 2.5, 3.3, 4.7, 5)
CASES = [(n, {"order": p}) for n in ("hb", "nt", "ghvb") for p in REAL]
CASES += [
    (n, {"order": 2.4, "initial": k})
    for n in ("hb", "nt", "ghvb")
    for k in ("data", "velocity")
]
CASES += [("ghvb", {"order": 0.7, "initial": "data"})]
CASES += [("hb", {"order": 0.7, "initial": "velocity"})]
CASES += [("dpmpp_2m_hb", {"beta": b, "lower_order_final": False}) for b in (0.3, 1.0)]
CASES += [("dpmpp_2m_hb", {"beta": 0.8, "lower_order_final": True})]


def theirs(options):
    """The options in the oracle's words."""
    out = dict(options)
    if "lower_order_final" in out:
        out["lower"] = out.pop("lower_order_final")
    return out


def ours(build, process, ts, x, **options):
    plan = fd.plan.pad(build(process, ts, **options), 12, registers=8, writes=3)
    return np.asarray(m.run(plan, jnp.asarray(x[:, None])))[:, 0]


@pytest.mark.parametrize("path", ["vp", "edm", "flow"])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_equals_the_naive_loop(name, options, path):
    build, oracle = S.SOLVERS[name].build, getattr(o, name)
    process = m.PROCESSES[path]
    ts = m.times_between(process, 9, 1.3)
    x = START * float(process.sigma(ts[0]))
    for n in (1, 3, 9):
        ts = m.times_between(process, n, 1.3)
        want = replay.loop(oracle, process, ts, x, **theirs(options))
        got = ours(build, process, ts, x, **options)
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_last_step_into_sigma_zero(name, options):
    build, oracle = S.SOLVERS[name].build, getattr(o, name)
    for n in (1, 2, 5):
        ts = np.append(m.times_between(VP, 5)[:n], 0.0)
        want = replay.loop(oracle, VP, ts, START, **theirs(options))
        plan = build(VP, ts, **options)
        got = replay.run(plan, START)
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11)
        if name == "dpmpp_2m_hb":  # order 1 there: the last prediction
            assert not plan.rows.registers[-1, 0].any()
            assert plan.rows.predictions[-1, 0, 0] == 1


ORDERS = {
    "ghvb 0.8": (functools.partial(S.ghvb, order=0.8), 1),
    "ghvb 1.8": (S.ghvb, 2),
    "ghvb 2.8": (functools.partial(S.ghvb, order=2.8), 2),
    "ghvb 5": (functools.partial(S.ghvb, order=5), 2),
    "hb 2": (functools.partial(S.hb, order=2), 2),
    "hb 1.8": (S.hb, 1),
    "nt 3": (functools.partial(S.nt, order=3), 2),
    "nt 2.8": (functools.partial(S.nt, order=2.8), 1),
    "dpmpp_2m_hb": (S.dpmpp_2m_hb, 1),
    "dpmpp_2m_hb 1": (functools.partial(S.dpmpp_2m_hb, beta=1.0), 2),
}
"""Orders on grids uniform in half log-SNR, uneven in rho."""


@pytest.mark.parametrize("name", ORDERS)
def test_order(name):
    build, order = ORDERS[name]
    found = replay.slope(build, "vp")
    assert abs(found - order) < 0.25, f"{name}: order {found:.2f}"


def test_registry_orders_are_the_measured_ones():
    line = S.SOLVERS
    assert line["ghvb"].order(1.8) == line["ghvb"].order(3) == 2
    assert line["hb"].order(1.8) == line["nt"].order(2.8) == 1
    assert line["hb"].order(2) == line["nt"].order(3) == 2


@pytest.mark.parametrize("name", ["ghvb 1.8", "ghvb 2.8", "hb 2", "dpmpp_2m_hb 1"])
def test_a_wrong_coefficient_is_seen(name):
    build, order = ORDERS[name]
    found = replay.slope(replay.wrong(build), "vp")
    assert abs(found - order) > 0.5


@pytest.mark.parametrize("order", [0.6, 1.8, 2.3, 3.8, 4.5])
def test_ghvb_is_exact_on_polynomials_where_rho_is_even(order):
    """Order conditions: noise of degree k - 1 in rho, once the first velocity is gone.

    (Measured slopes show the order-1 first step instead from k = 3 on.)
    """
    degree, ts = int(np.ceil(order)) - 1, np.linspace(2.0, 1.0, 121)

    def predict(x, alpha, sigma):
        return (x - sigma * sigma**degree) / alpha

    ends = [
        replay.run(S.ghvb(EDM, t, order=order), np.zeros(1), predict)
        for t in (ts[:-1], ts)
    ]
    want = (ts[-1] ** (degree + 1) - ts[-2] ** (degree + 1)) / (degree + 1)
    np.testing.assert_allclose(ends[1] - ends[0], want, rtol=1e-9)


def test_ghvb_weights_on_velocities():
    """k = 3, beta = 0.8: (55/24, -11/6, 13/24) times the step."""
    ts = m.times_between(VP, 6)
    a, s = VP.alpha(ts), VP.sigma(ts)
    gain = s[1:] - a[1:] / a[:-1] * s[:-1]
    plan = S.ghvb(VP, ts, order=2.8)
    own = words(plan).weights[3:, 0]
    np.testing.assert_allclose(own, 0.8 * 55 / 24 * gain[3:])
    # in row 4 register 2 holds the velocity before, register 1 the one before that
    want = np.array([13 / 24, 0.2 * 55 / 24 - 11 / 6]) * gain[4]
    for line in (0, -1):
        got = plan.rows.registers[4, line, 1:]
        np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_a_whole_order_is_plain_adams(order):
    ts = m.times_between(VP, 8)
    want = replay.run(S.ipndm(VP, ts, order=order), START)
    for build in (S.hb, S.nt, S.ghvb):
        got = replay.run(build(VP, ts, order=order), START)
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


def test_beta_one_is_dpmpp_2m():
    ts = m.times_between(VP, 8)
    want = replay.run(S.dpmpp_2m(VP, ts), START)
    got = replay.run(S.dpmpp_2m_hb(VP, ts, beta=1.0), START)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["hb", "nt", "ghvb", "dpmpp_2m_hb"])
def test_zero_length_steps_traced_and_per_element_times(name):
    build = S.SOLVERS[name].build
    ts = m.times_between(VP, 5, 1.3)
    if name == "dpmpp_2m_hb":
        build = functools.partial(build, lower_order_final=False)
    plain = build(VP, ts)
    want = replay.run(plain, START)
    again = replay.run(build(VP, np.append(ts, ts[-1])), START)
    np.testing.assert_allclose(again, want, rtol=1e-12, atol=1e-13)
    for at in (0, 1, 5):
        assert np.isfinite(
            replay.run(build(VP, np.insert(ts, at, ts[at])), START)
        ).all()
    traced = build(VP, jnp.asarray(ts))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-9, 1e-9), traced, plain
    )
    wide = build(VP, np.stack([ts, ts], 1))
    got = replay.run(wide, np.stack([START, START], 1))
    np.testing.assert_allclose(got, np.stack([want, want], 1), rtol=1e-12, atol=1e-12)


def test_plans_with_two_writes_stack_with_others():
    ts = m.times_between(VP, 5)
    plans = [S.ghvb(VP, ts), S.hb(VP, ts, order=2.5), S.ddim(VP, ts)]
    many = jax.vmap(lambda p: fd.sample(p, m.MODEL, jnp.asarray(START[:, None])))
    got = np.asarray(many(fd.plan.stack(plans)))[..., 0]
    for one, plan in zip(got, plans, strict=True):
        np.testing.assert_allclose(one, replay.run(plan, START), rtol=1e-12, atol=1e-13)


BAD = [
    (lambda: S.hb(VP, [1.0, 0.5], order=0), r"hb needs order in \(0, 5\], got 0"),
    (lambda: S.nt(VP, [1.0, 0.5], order=5.1), r"nt needs order in \(0, 5\], got 5.1"),
    (lambda: S.ghvb(VP, [1.0, 0.5], order=-1), r"ghvb needs order in \(0, 5\]"),
    (lambda: S.ghvb(VP, [1.0, 0.5], initial="x"), "initial must be .*got 'x'"),
    (lambda: S.hb(FLOW, [1.0, 0.5]), "where alpha = 0, as at row 0, time 1"),
    (lambda: S.dpmpp_2m_hb(VP, [1.0, 0.5], beta=0.0), r"beta must lie in \(0, 1\]"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
