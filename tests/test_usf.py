"""USF schedules: the published methods inside the space, a naive loop, bad input."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.solvers import Decision, Schedule, repair, usf, usf_schedule

from . import mixture as m
from .oracles import usf as oracle

VP, EDM, FLOW = (m.PROCESSES[k] for k in ("vp", "edm", "flow"))
START = np.linspace(-2, 2, 7)[:, None]
GRIDS = {
    "log_snr": (VP, fd.grids.log_snr(VP, 8)),
    "to zero": (VP, fd.grids.uniform(VP, 7, to_zero=True)),
    "flow": (FLOW, np.linspace(0.99, 0.01, 7)),
}


def run(plan):
    return np.asarray(m.run(plan, jnp.asarray(START)))


def host(plan, x=None):
    """The plan's sample, row by row in NumPy."""
    _, alpha, sigma = plan.rows.level
    start = START[:, 0] if x is None else x
    return fd.plan.replay(plan, lambda x, i: m.predict(x, alpha[i], sigma[i]), start)


def slope(build, name, power=1.0, counts=(40, 80)):
    """Observed order, in NumPy: no compiled program per step count."""
    process, x, end = m.problem(name)
    errors = []
    for n in counts:
        gap = host(build(process, m.times_between(process, n, power)), x) - end
        errors.append(np.sqrt(np.mean(gap**2)))
    return np.log2(errors[0] / errors[1]) / np.log2(counts[1] / counts[0])


def same(a, b):
    np.testing.assert_allclose(host(a), host(b), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("grid", sorted(GRIDS))
def test_dpmpp_2m_is_in_the_space(grid):
    process, ts = GRIDS[grid]
    for name, variant in (("dpmsolver-2", "midpoint"), ("none", "exact")):
        plan = fd.solvers.dpmpp_2m(
            process, ts, variant=variant, lower_order_final=False
        )
        same(usf(process, usf_schedule(ts, relaxation=name)), plan)


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_unipc_is_in_the_space(variant, order, prediction):
    process, ts = GRIDS["log_snr"]
    name = "unipc-" + variant
    for lower in (False, True):
        schedule = usf_schedule(
            ts,
            order=order,
            prediction=prediction,
            relaxation=name,
            corrector="pseudo",
            corrector_relaxation=name,
            lower_order_final=lower,
        )
        published = fd.solvers.unipc(
            process,
            ts,
            order=order,
            variant=variant,
            prediction=prediction,
            lower_order_final=lower,
        )
        same(usf(process, schedule), published)


@pytest.mark.parametrize("order", [2, 3])
def test_dpm_solver_multistep_is_in_the_space(order):
    process, ts = GRIDS["flow"]
    made = fd.solvers.dpmpp_2m if order == 2 else fd.solvers.dpmpp_3m
    schedule = usf_schedule(
        ts, order=order, prediction="noise", relaxation="dpmsolver-2"
    )
    plan = made(process, ts, prediction="noise", lower_order_final=False)
    same(usf(process, schedule), plan)


def test_exact_ends():
    ts = np.linspace(1, 0, 7)
    plan = usf(FLOW, usf_schedule(ts, relaxation="dpmsolver-2"))
    same(plan, fd.solvers.dpmpp_2m(FLOW, ts, lower_order_final=False))
    words = dict(corrector="pseudo", corrector_relaxation="unipc-bh2")
    schedule = usf_schedule(ts, order=1, **words)
    published = fd.solvers.unipc(FLOW, ts, order=1, lower_order_final=False)
    same(usf(FLOW, schedule), published)


def test_singlestep_is_in_the_space():
    """2S: the second row of a pair starts from the state before the first."""
    lam = VP.half_log_snr(fd.grids.log_snr(VP, 6))
    ts = VP.half_log_snr_inverse(lam)
    rows = []
    for i in range(6):
        second = i % 2 == 1
        rows.append(
            Decision(
                ts[i],
                order=1 + second,
                start=1 + second,
                relaxation="dpmsolver-2" if second else "none",
            )
        )
    schedule = Schedule(tuple(rows), ts[-1])
    x = START[:, 0]
    a, s = VP.alpha(ts), VP.sigma(ts)
    for i in range(0, 6, 2):  # Lu et al. 2022 (2211.01095), algorithm 1 with r = 1/2
        h, half = lam[i + 2] - lam[i], lam[i + 1] - lam[i]
        d0 = m.predict(x, a[i], s[i])
        u = s[i + 1] / s[i] * x - a[i + 1] * np.expm1(-half) * d0
        d1 = m.predict(u, a[i + 1], s[i + 1])
        x = s[i + 2] / s[i] * x - a[i + 2] * np.expm1(-h) * d1
    np.testing.assert_allclose(host(usf(VP, schedule)), x, rtol=1e-11)


def random_schedule(rng, ts):
    rows = []
    for i in range(len(ts) - 1):
        start, order = rng.integers(1, min(i + 1, 3) + 1), rng.integers(1, 5)
        order = min(order, i + 1)
        legal = [k for k in range(i + 1) if k != start - 1]
        nodes = []
        for n in range(1, order):
            count = rng.integers(n, len(legal) + 1)
            nodes.append(tuple(int(k) for k in rng.permutation(legal)[:count]))
        word = lambda words: words[rng.integers(len(words))]  # noqa: E731
        names = ("none", "linear", "dpmsolver-2", "unipc-bh1", "+.5exp", "-.5exp")
        rows.append(
            Decision(
                float(ts[i]),
                word(("data", "noise")),
                int(order),
                None if rng.random() < 0.4 else tuple(nodes),
                word(names),
                float(rng.normal() / 10),
                word(("none", "pseudo")),
                word(names),
                int(start),
            )
        )
    return Schedule(tuple(rows), float(ts[-1]))


@pytest.mark.parametrize("seed", range(12))
def test_equals_the_naive_loop(seed):
    rng = np.random.default_rng(seed)
    schedule = random_schedule(rng, m.times_between(VP, 6, 0.8))
    if seed % 3 == 0:  # no corrector: no state is stored
        for i in range(6):
            schedule = schedule.change(i, corrector="none")
    plan = usf(VP, schedule)
    want = oracle.usf(VP, schedule, m.predict, START[:, 0])
    size = 1 + np.abs(want).max()
    assert np.abs(host(plan) - want).max() < 1e-12 * size
    if seed < 2:
        assert np.abs(run(plan)[:, 0] - want).max() < 1e-12 * size


def test_history_is_as_small_as_the_choices_need():
    process, ts = GRIDS["log_snr"]
    one = usf_schedule(ts, order=3)
    plan = usf(process, one)  # the point, 3 evaluations and the state
    assert (plan.registers, plan.writes) == (5, 3)
    both = usf(process, one.change(4, prediction="noise"))  # D and E, 3 of each
    assert (both.registers, both.writes) == (7, 3)
    mended = usf(process, one.change(4, prediction="noise", corrector="pseudo"))
    assert (mended.registers, mended.writes) == (8, 4)


def mixed(process, ts):
    schedule = usf_schedule(ts, order=3)
    for i in range(0, len(ts) - 1, 2):
        schedule = schedule.change(i, prediction="noise")
    return schedule


def planted(process, ts):
    schedule = mixed(process, ts)
    for i in range(2, len(schedule.rows)):
        schedule = schedule.change(i, relaxation="linear", slope=-2.0)
    return usf(process, schedule)


def test_order_of_mixed_predictions():
    build = lambda p, ts: usf(p, mixed(p, ts))  # noqa: E731
    assert abs(slope(build, "vp", power=1.5, counts=(40, 80)) - 3) < 0.25
    # R = 1 - 2 h: an error of first order in the derivative costs an order
    assert abs(slope(planted, "vp", power=1.5, counts=(40, 80)) - 3) > 0.5


def test_corrector_adds_an_order():
    build = lambda p, ts: usf(p, usf_schedule(ts, order=2, corrector="pseudo"))  # noqa: E731
    assert abs(slope(build, "vp", counts=(40, 80)) - 3) < 0.25


@pytest.mark.slow
def test_traced_times():
    ts = m.times_between(VP, 3)
    schedule = usf_schedule(ts, order=2, relaxation="unipc-bh1")
    schedule = schedule.change(1, prediction="noise", corrector="pseudo")

    def weights(t):
        rows = usf(VP, schedule, ts=t).rows
        return rows.registers, rows.predictions

    move = np.array([0.0, 1.0, 0.0, 0.0]) * 1e-5
    value, slope = jax.jit(lambda t: jax.jvp(weights, (t,), (jnp.asarray(move),)))(
        jnp.asarray(ts)
    )
    for got, want in zip(value, weights(ts), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-13)
    ends = [weights(ts + k * move) for k in (1, -1)]
    for got, ahead, back in zip(slope, *ends, strict=True):
        numeric = (ahead - back) / 2
        np.testing.assert_allclose(got, numeric, rtol=1e-4, atol=1e-10)


def test_plans_of_different_choices_stack():
    process, ts = GRIDS["log_snr"]
    schedules = [usf_schedule(ts), mixed(process, ts)]
    stacked = fd.plan.stack([usf(process, s) for s in schedules])
    out = jax.vmap(lambda p: fd.sample(p, m.MODEL, jnp.asarray(START)))(stacked)
    for got, s in zip(out, schedules, strict=True):
        np.testing.assert_allclose(got, run(usf(process, s)), rtol=1e-12, atol=1e-12)


def test_repeated_time_is_the_identity():
    ts = np.array([1.0, 0.7, 0.5, 0.3, 0.1])
    twice = np.insert(ts, 2, 0.7)
    build = lambda t: usf(VP, usf_schedule(t, relaxation="dpmsolver-2"))  # noqa: E731
    points = []
    level = build(twice).rows.level

    def predict(x, i):
        points.append(x)
        return m.predict(x, level.alpha[i], level.sigma[i])

    end = fd.plan.replay(build(twice), predict, START[:, 0])
    assert np.isfinite(end).all()
    np.testing.assert_allclose(points[1], points[2], rtol=1e-13)


def test_serialises_and_changes():
    schedule = mixed(*GRIDS["log_snr"]).change(3, nodes=((1,), (1, 2)))
    again = Schedule.from_dict(json.loads(json.dumps(schedule.to_dict())))
    assert again == schedule and hash(again) == hash(schedule)
    assert schedule.change(2, order=1).rows[2].order == 1


@pytest.mark.parametrize("seed", range(5))
def test_repair_makes_any_mutation_legal(seed):
    rng = np.random.default_rng(seed)
    rows = tuple(
        Decision(
            float(t),
            order=int(rng.integers(-1, 7)),
            start=int(rng.integers(0, 5)),
            nodes=None
            if rng.random() < 0.5
            else tuple(
                tuple(int(k) for k in rng.integers(0, 6, size=rng.integers(0, 5)))
                for _ in range(rng.integers(0, 5))
            ),
        )
        for t in rng.uniform(0.05, 1, 6)
    )
    repaired = repair(Schedule(rows, 0.01))
    assert np.isfinite(host(usf(VP, repaired))).all()
    assert repair(repaired) == repaired


BAD = {
    "prediction must be": dict(prediction="v"),
    "relaxation must be": dict(relaxation="half"),
    "corrector must be": dict(corrector="implicit"),
    "corrector_relaxation must be": dict(corrector_relaxation="half"),
    r"order must be a whole number in 1\.\.3": dict(order=4),
    r"order must be .* got 2\.0": dict(order=2.0),
    r"start must be a whole number in 1\.\.3": dict(start=4),
    "slope must be finite": dict(slope=float("nan")),
    "nodes must have 1 sets": dict(order=2, nodes=()),
    "nodes of derivative 1": dict(order=2, nodes=((0,),)),
    "nodes of derivative 2": dict(order=3, nodes=((1,), (2,))),
}


@pytest.mark.parametrize("message", sorted(BAD))
def test_bad_choices_name_the_row(message):
    process, ts = GRIDS["log_snr"]
    schedule = usf_schedule(ts).change(2, **BAD[message])
    with pytest.raises(ValueError, match="row 2: .*" + message):
        usf(process, schedule)


def test_bad_schedules():
    process, ts = GRIDS["log_snr"]
    with pytest.raises(ValueError, match="at least 1 row"):
        usf(process, Schedule((), 0.1))
    with pytest.raises(ValueError, match="must have 9 times"):
        usf(process, usf_schedule(ts), ts=ts[:-1])
    with pytest.raises(ValueError, match="alpha = 0"):
        usf(FLOW, usf_schedule(np.linspace(1, 0, 4), prediction="noise"))
    with pytest.raises(ValueError, match="ts must decrease"):
        usf(process, usf_schedule(ts[::-1]))
    tree = usf_schedule(ts).to_dict()
    tree["rows"][0]["speed"] = 1
    with pytest.raises(ValueError, match="not a schedule: KeyError: 'speed'"):
        Schedule.from_dict(tree)
    with pytest.raises(ValueError, match="not a schedule"):
        Schedule.from_dict({"rows": []})
