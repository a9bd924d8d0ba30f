"""Pseudo-linear multistep: equal to naive loops, orders, ends, published quirks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd

from . import mixture as m
from . import replay
from .oracles import pndm as o
from .table import with_rows, words

S = fd.solvers
VP, EDM, FLOW = (m.PROCESSES[k] for k in ("vp", "edm", "flow"))
START = np.linspace(-2, 2, 7)

CASES = {
    "ipndm": (S.ipndm, o.ipndm, {}),
    "ipndm 1": (S.ipndm, o.ipndm, {"order": 1}),
    "ipndm 2": (S.ipndm, o.ipndm, {"order": 2}),
    "ipndm_v": (S.ipndm_v, o.ipndm_v, {}),
    "ipndm_v 3": (S.ipndm_v, o.ipndm_v, {"order": 3}),
    "plms": (S.plms, o.plms, {}),
    "plms 3": (S.plms, o.plms, {"order": 3}),
    "plms v": (S.plms, o.plms, {"average": "velocity"}),
    "s_pndm": (S.s_pndm, o.s_pndm, {}),
    "f_pndm": (S.f_pndm, o.f_pndm, {}),
}


def ours(build, process, ts, x, **options):
    plan = fd.plan.pad(build(process, ts, **options), 24, registers=8, writes=3)
    return np.asarray(m.run(plan, jnp.asarray(x[:, None])))[:, 0]


@pytest.mark.parametrize("path", ["vp", "edm", "flow"])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_naive_loop(name, path):
    build, oracle, options = CASES[name]
    process = m.PROCESSES[path]
    x = START * float(process.sigma(m.times_between(process, 9, 1.3)[0]))
    for n in (1, 3, 9):
        ts = m.times_between(process, n, 1.3)
        got = ours(build, process, ts, x, **options)
        want = replay.loop(oracle, process, ts, x, **options)
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
def test_a_last_step_into_sigma_zero(name, n):
    build, oracle, options = CASES[name]
    ts = np.append(m.times_between(VP, n)[: n if n > 1 else 1], 0.0)
    plan = build(VP, ts, **options)
    assert plan.nfe >= len(ts) - 1
    got = ours(build, VP, ts, START, **options)
    want = replay.loop(oracle, VP, ts, START, **options)
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-11)


# name: (builder, formal order on uneven grids, grading of the first steps)
ORDERS = {
    "ipndm 1": (functools.partial(S.ipndm, order=1), 1, 1.0),
    "ipndm 2": (functools.partial(S.ipndm, order=2), 2, 1.0),
    "ipndm": (S.ipndm, 2, 1.0),
    "ipndm_v 2": (functools.partial(S.ipndm_v, order=2), 2, 1.0),
    "ipndm_v 3": (functools.partial(S.ipndm_v, order=3), 3, 2.0),
    "ipndm_v": (S.ipndm_v, 4, 2.5),
    "plms": (S.plms, 2, 1.0),
    "plms velocity": (functools.partial(S.plms, average="velocity"), 1, 1.0),
    "s_pndm": (S.s_pndm, 2, 1.0),
    "f_pndm": (S.f_pndm, 2, 1.0),
}
"""Orders on these grids, which are uniform in half log-SNR and uneven in rho."""


@pytest.mark.parametrize("name", ORDERS)
def test_order(name):
    build, order, power = ORDERS[name]
    found = replay.slope(build, "vp", power)
    assert abs(found - order) < 0.25, f"{name}: order {found:.2f}"


def even(steps):
    """EDM times (= rho) from 3 to 0.6 in equal steps."""
    return np.linspace(3.0, 0.6, steps + 1)


EVEN = {
    "ipndm 2": (functools.partial(S.ipndm, order=2), 2),
    "plms 3": (functools.partial(S.plms, order=3), 3),
    "plms": (S.plms, 4),
    "f_pndm": (S.f_pndm, 4),
}


@functools.cache
def reference():
    return replay.run(S.rho_rk(EDM, even(250), variant="rk4"), 3 * START)


@pytest.mark.parametrize("name", EVEN)
def test_order_where_rho_is_even(name):
    """There the equal-step weights are right, and F-PNDM's start is of order 4."""
    build, order = EVEN[name]
    runs = [replay.run(build(EDM, even(n)), 3 * START) for n in (80, 160)]
    gaps = [np.sqrt(np.mean((y - reference()) ** 2)) for y in runs]
    assert abs(np.log2(gaps[0] / gaps[1]) - order) < 0.25


@pytest.mark.parametrize("name", ["ipndm", "ipndm_v 3", "plms", "s_pndm", "f_pndm"])
def test_a_wrong_coefficient_is_seen(name):
    build, order, power = ORDERS[name]
    found = replay.slope(replay.wrong(build), "vp", power)
    assert abs(found - order) > 0.5


def test_the_published_variable_step_weights_are_off():
    """A misplaced bracket in order 3; a sign and a ratio more in order 4."""
    four = functools.partial(S.ipndm_v, compat=True)
    assert replay.slope(four, "vp") < 3.25
    ts = even(9)  # on equal steps the bracket does not matter
    for order, same in ((2, True), (3, True), (4, False)):
        one = S.ipndm_v(EDM, ts, order=order, compat=True)
        two = S.ipndm_v(EDM, ts, order=order)
        older = (plan.rows.registers[:, 0, 1:] for plan in (one, two))
        gap = np.abs(np.subtract(*older)).max()
        assert (gap < 1e-12) == same
    ts = m.times_between(VP, 9, 1.3)
    rho = VP.sigma(ts) / VP.alpha(ts)
    total = words(S.ipndm_v(EDM, rho, compat=True)).weights.sum(1)
    assert np.abs(total / np.diff(rho) - 1).max() > 1e-3


def test_ipndm_v_is_adams():
    ts = m.times_between(VP, 8, 1.3)
    one, two = S.ipndm_v(VP, ts), S.adams(VP, ts, order=4)
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_ipndm_starts_at_pure_noise(order):
    """alpha = 0 at t = 1: a DDIM step whose evaluation is not kept."""
    ts = np.array([1.0, 0.8, 0.55, 0.3, 0.1, 0.05])
    got = ours(S.ipndm, FLOW, ts, START, order=order)

    def predict(x, t):
        return m.predict(x, FLOW.alpha(t), FLOW.sigma(t))

    want = o.ipndm(FLOW, ts, predict, START, order=order)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def test_compat_drops_the_mean_at_pure_noise():
    plan = S.ipndm(FLOW, [1.0, 0.4], compat=True)
    got = m.run(plan, jnp.asarray(START[:, None]))
    np.testing.assert_allclose(np.asarray(got)[:, 0], 0.4 * START, rtol=1e-14)


def test_velocity_average_takes_any_start():
    plan = S.plms(FLOW, [1.0, 0.6, 0.3, 0.1], average="velocity")
    assert np.isfinite(m.run(plan, jnp.asarray(START[:, None]))).all()


@pytest.mark.parametrize("build", [S.ipndm, S.ipndm_v])
@pytest.mark.parametrize("compat", [False, True])
def test_denoise_ends_with_the_prediction(build, compat):
    ts = m.times_between(VP, 5)
    plan = build(VP, ts, denoise=True, compat=compat)
    got, seen = fd.sample(
        plan,
        m.MODEL,
        jnp.asarray(START[:, None]),
        collect=lambda _, info: info.denoised,
    )
    assert plan.nfe == 6
    np.testing.assert_allclose(got, seen[-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_a_step_of_length_zero_is_the_identity(name):
    build, _, options = CASES[name]
    ts = m.times_between(VP, 6)
    plain = ours(build, VP, ts, START, **options)
    again = ours(build, VP, np.append(ts, ts[-1]), START, **options)
    np.testing.assert_allclose(again, plain, rtol=1e-12, atol=1e-13)
    for at in (0, 1, 4):
        middle = ours(build, VP, np.insert(ts, at, ts[at]), START, **options)
        assert np.isfinite(middle).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ipndm", "plms v", "f_pndm"])
def test_traced_and_per_element_times(name):
    build, _, options = CASES[name]
    ts = m.times_between(VP, 4, 1.3)
    plain = build(VP, ts, **options)
    traced = build(VP, jnp.asarray(ts), **options)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, 1e-9, 1e-9), traced, plain
    )
    wide = build(VP, np.stack([ts, ts], 1), **options)  # both elements at equal times
    x = np.stack([START, START], 1)
    want = np.repeat(replay.run(plain, START)[:, None], 2, 1)
    np.testing.assert_allclose(replay.run(wide, x), want, rtol=1e-12, atol=1e-12)


def test_calls():
    ts = m.times_between(VP, 10)
    found = {n: b(VP, ts).nfe for n, (b, *_) in CASES.items()}
    assert found["ipndm"] == found["ipndm_v"] == 10
    assert found["plms"] == found["s_pndm"] == 11
    assert found["f_pndm"] == 19


BAD = [
    (lambda: S.ipndm(VP, [1.0, 0.5], order=5), "ipndm needs order in 1..4, got 5"),
    (lambda: S.ipndm_v(VP, [1.0, 0.5], order=0), "ipndm_v needs order in 1..4, got 0"),
    (lambda: S.plms(VP, [1.0, 0.5], order=1), "plms needs order in 2..4, got 1"),
    (lambda: S.plms(VP, [1.0, 0.5], average="x"), "average must be .*got 'x'"),
    (lambda: S.f_pndm(VP, [1.0, 0.5], average="x"), "average must be .*got 'x'"),
    (lambda: S.plms(FLOW, [1.0, 0.5]), "where alpha = 0, as at row 0, time 1"),
    (lambda: S.ipndm_v(FLOW, [1.0, 0.5]), "where alpha = 0, as at row 0, time 1"),
    (lambda: S.ipndm(VP, [0.5, 0.0, 0.0]), "where sigma = 0, as at row 1"),
    (lambda: S.plms(VP, [0.5, 0.2, 0.0, 0.0], average="velocity"), "where sigma = 0"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("line", "row", "to", "message"),
    [
        (1, 2, 6, r"must go to registers 0\.\.5, got 0 to 6"),
        (1, 0, -1, r"must go to registers 0\.\.5, got -1 to 5"),
        (1, 3, 0, "two writes of row 3 go to one register"),
        (0, 4, 1, "first write must go to register 0"),
    ],
)
def test_registers_given_by_number_are_checked(line, row, to, message):
    """F-PNDM is written so: its stages do not go round in turn."""
    plan = S.f_pndm(VP, m.times_between(VP, 5))
    places = plan.rows.to.copy()
    fd.plan.validate(with_rows(plan, to=places))
    places[row, line] = to
    with pytest.raises(ValueError, match=message):
        fd.plan.validate(with_rows(plan, to=places))


@pytest.mark.parametrize(
    ("to", "message"),
    [
        (-1, r"must go to registers 0\.\.0, got -1 to 0"),
        (np.array([1, 2, 0]), "two writes of row 2 go to one register"),
    ],
)
def test_the_builder_checks_them_too(to, message):
    lv = fd.plan.levels(VP, m.times_between(VP, 3))
    writes = [(0, fd.plan.register(0)), (to, fd.plan.prediction())]
    with pytest.raises(ValueError, match=message):
        fd.plan.build(lv.starts, lv.end, writes)
