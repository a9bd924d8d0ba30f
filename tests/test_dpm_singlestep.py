"""Singlestep DPM-Solver(++): equal to naive loops, of their orders, exact at ends."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.solvers.singlestep.dpm_solver import fast_orders

from . import mixture as m
from .oracles import dpm_singlestep as o
from .table import spoiled

S = fd.solvers
VP, EDM, FLOW = (m.PROCESSES[k] for k in ("vp", "edm", "flow"))
START = np.linspace(-2, 2, 7)


def path(process):
    return (
        process.alpha,
        process.sigma,
        process.half_log_snr,
        process.half_log_snr_inverse,
    )


def draw(plan, x):
    """One compiled program for all of these plans."""
    return m.run(fd.plan.pad(plan, 32, registers=3, writes=2), x)


def ours(build, process, ts, scale=1.0, **options):
    plan = build(process, ts, **options)
    run = m.run if plan.length > 32 else draw
    return np.asarray(run(plan, jnp.asarray(scale * START[:, None])))[:, 0]


def theirs(run, process, ts, orders, kind, scale=1.0, **options):
    return run(path(process), m.predict, scale * START, ts, orders, kind, **options)


def same(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


by_time = lambda s, t, r: s + r * (t - s)  # noqa: E731
by_root = lambda s, t, r: (s**0.5 + r * (t**0.5 - s**0.5)) ** 2  # noqa: E731

CASES = {
    "2": (S.dpm_solver_2, 2, "noise", {}, {}),
    "2 r": (S.dpm_solver_2, 2, "noise", {"r": 0.3}, {"r": 0.3}),
    "2 taylor": (S.dpm_solver_2, 2, "noise", {"variant": "taylor"}, {"taylor": True}),
    "2 data": (S.dpm_solver_2, 2, "data", {"prediction": "data"}, {}),
    "2S": (S.dpmpp_2s, 2, "data", {}, {}),
    "2S taylor": (S.dpmpp_2s, 2, "data", {"variant": "taylor"}, {"taylor": True}),
    "2S end": (S.dpmpp_2s, 2, "data", {"r": 1.0}, {"r": 1.0}),
    "2S time": (S.dpmpp_2s, 2, "data", {"inner": "time_uniform"}, {"place": by_time}),
    "3": (S.dpm_solver_3, 3, "noise", {}, {}),
    "3 taylor": (S.dpm_solver_3, 3, "noise", {"variant": "taylor"}, {"taylor": True}),
    "3 root": (S.dpm_solver_3, 3, "noise", {"inner": "time_quadratic"},
               {"place": by_root}),
    "3 own clock": (S.dpm_solver_3, 3, "noise",
                    {"inner": lambda p, s, t, r: by_time(s, t, r)},
                    {"place": by_time}),
    "3 r": (S.dpm_solver_3, 3, "noise", {"r": (0.2, 0.7)}, {"r": (0.2, 0.7)}),
    "3S": (S.dpmpp_3s, 3, "data", {}, {}),
    "3S taylor": (S.dpmpp_3s, 3, "data", {"variant": "taylor", "r": (0.2, 0.7)},
                  {"taylor": True, "r": (0.2, 0.7)}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_equals_the_naive_loop(name):
    build, order, kind, options, expected = CASES[name]
    ts = m.times_between(VP, 8, 1.3)
    want = theirs(o.run, VP, ts, [order] * 8, kind, **expected)
    same(ours(build, VP, ts, **options), want)


@pytest.mark.parametrize(("steps", "order"), [(9, 3), (10, 3), (11, 3), (5, 2)])
@pytest.mark.parametrize("variant", ["dpmsolver", "taylor"])
def test_shared_grid_equals_the_naive_loop(steps, order, variant):
    ts = m.times_between(EDM, steps, 1.4)
    scale = np.exp(3.0)
    for compat in (False, True):
        midpoint = compat and variant == "dpmsolver" and order == 3
        options = {"taylor": variant == "taylor"}
        if order == 3:
            orders = fast_orders(steps, 3)
        else:
            orders = fast_orders(steps, 2)
        want = EDMLoop(ts, orders, scale, midpoint, **options)
        got = ours(
            S.dpm_solver_fast, EDM, ts, scale, order=order, variant=variant,
            prediction="data", compat=compat,
        )  # fmt: skip
        same(got, want)


def EDMLoop(ts, orders, scale, midpoint, taylor):
    """The shared-grid loop step by step, as only order 3 knows the midpoint option."""
    x, at = scale * START, 0
    for order in orders:
        nodes = ts[at : at + order + 1]
        at += order
        more = {"midpoint": midpoint} if order == 3 else {}
        if order > 1:
            more["taylor"] = taylor
        x = o.shared(path(EDM), m.predict, x, nodes, [order], "data", **more)
    return x


def test_orders_of_each_step_and_subsampled_grids():
    ts = m.times_between(VP, 4)
    got = ours(S.dpm_solver_fast, VP, ts, orders=[3, 1, 2, 3], inner="log_snr")
    same(got, theirs(o.run, VP, ts, [3, 1, 2, 3], "noise"))
    ts = np.linspace(0.9, 0.1, 9)
    got = ours(S.dpm_solver_fast, VP, ts, order=3, inner="time_uniform")
    want = theirs(o.run, VP, ts[[0, 3, 6, 8]], [3, 3, 2], "noise", place=by_time)
    same(got, want)
    got = ours(S.dpm_solver_fast, VP, ts, orders=[2, 3, 1, 2])
    same(got, theirs(o.shared, VP, ts, [2, 3, 1, 2], "noise"))


def test_schedules():
    assert [fast_orders(n, 3) for n in (1, 2, 3, 4, 6)] == [
        [1], [2], [2, 1], [3, 1], [3, 2, 1]
    ]  # fmt: skip
    assert fast_orders(6, 2) == [2, 2, 2] and fast_orders(5, 2) == [2, 2, 1]
    assert fast_orders(6, 2, True) == [2, 2, 1, 1]
    assert fast_orders(6, 3, False) == [3, 3] and fast_orders(3, 1) == [1, 1, 1]
    for n in range(1, 30):
        for order in (1, 2, 3):
            for lower in (None, True, False):
                assert sum(fast_orders(n, order, lower)) == n


# ------------------------------------------------------------------ orders

third = functools.partial(S.dpm_solver_fast, order=3)
ORDERS = {
    "dpm_solver_2": (S.dpm_solver_2, 2),
    "dpm_solver_2 taylor": (functools.partial(S.dpm_solver_2, variant="taylor"), 2),
    "dpm_solver_2 r": (functools.partial(S.dpm_solver_2, r=1 / 3), 2),
    "dpm_solver_2 time": (functools.partial(S.dpm_solver_2, inner="time_uniform"), 2),
    "dpm_solver_3": (S.dpm_solver_3, 3),
    "dpm_solver_3 taylor": (functools.partial(S.dpm_solver_3, variant="taylor"), 3),
    "dpm_solver_3 time": (functools.partial(S.dpm_solver_3, inner="time_uniform"), 3),
    "dpmpp_2s": (S.dpmpp_2s, 2),
    "dpmpp_3s": (S.dpmpp_3s, 3),
    "dpmpp_3s taylor": (functools.partial(S.dpmpp_3s, variant="taylor"), 3),
    "fast 2": (functools.partial(S.dpm_solver_fast, order=2), 2),
    "fast 3, ends in 2": (third, 3),
    "fast 3, compat": (functools.partial(third, compat=True), 3),
}


def counts(name):
    return (80, 161) if name.startswith("fast 3") else (40, 80)


@pytest.mark.parametrize("name", ORDERS)
def test_order(name):
    build, order = ORDERS[name]
    on = "edm" if "taylor" in name else "vp"
    found = m.slope(build, on, counts=counts(name))
    assert abs(found - order) < 0.25, f"{name} on {on}: order {found:.2f}"


def test_third_order_needs_a_stage_at_two_thirds():
    found = m.slope(
        functools.partial(S.dpm_solver_3, r=(0.3, 0.8)), "vp", counts=(40, 80)
    )
    assert abs(found - 2) < 0.25


@pytest.mark.parametrize("name", ["dpm_solver_2", "dpmpp_3s", "fast 2"])
def test_a_wrong_coefficient_is_seen(name):
    build, order = ORDERS[name]

    def planted(process, ts):
        return spoiled(build(process, ts), own=1.02)

    assert abs(m.slope(planted, "vp", counts=counts(name)) - order) > 0.5


# ------------------------------------------------------------ ends, repeats, traces


ALL = {
    "dpm_solver_2": (S.dpm_solver_2, {}),
    "dpm_solver_3": (S.dpm_solver_3, {}),
    "dpmpp_2s": (S.dpmpp_2s, {}),
    "dpmpp_3s": (S.dpmpp_3s, {"inner": "time_uniform"}),
    "fast": (S.dpm_solver_fast, {"prediction": "data"}),
    "fast taylor": (S.dpm_solver_fast, {"variant": "taylor"}),
}


def into_clean(plan):
    x = jnp.asarray(START[:, None])
    return fd.sample(plan, m.MODEL, x, collect=lambda state, info: info.denoised)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("steps", [1, 4])
def test_the_step_into_sigma_zero_is_the_prediction(name, steps):
    build, options = ALL[name]
    ts = np.append(m.times_between(VP, steps)[1:], 0.0) if steps > 1 else [0.5, 0.0]
    plan = build(VP, ts, **options)
    got, seen = into_clean(plan)
    np.testing.assert_allclose(got, seen[-1], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["dpmpp_2s", "dpmpp_3s", "fast"])
def test_flow_starts_at_pure_noise(name):
    build, options = ALL[name]
    lam = np.linspace(-3, 3, 11)
    ts = np.concatenate([[1.0], FLOW.half_log_snr_inverse(lam), [0.0]])
    got = ours(build, FLOW, ts, **options)
    fine = np.concatenate(
        [[1.0], FLOW.half_log_snr_inverse(np.linspace(-7, 7, 200)), [0.0]]
    )
    assert np.abs(got - ours(S.unipc, FLOW, fine, order=2)).max() < 0.06


@pytest.mark.parametrize("name", ALL)
def test_a_step_of_length_zero_is_the_identity(name):
    build, options = ALL[name]
    ts = m.times_between(VP, 6)
    shared = name.startswith("fast")
    if shared:
        options = {**options, "orders": [3, 2, 1]}
    plain = ours(build, VP, ts, **options)
    if shared:
        options = {**options, "orders": [3, 2, 1, 1]}
    same(ours(build, VP, np.append(ts, ts[-1]), **options), plain)
    if shared:
        options = {**options, "orders": [3, 3, 1]}
    middle = ours(build, VP, np.insert(ts, 3, ts[3]), **options)
    assert np.isfinite(middle).all()
    if not shared:
        same(middle, plain)
    one = ours(build, VP, ts[[0, 0]], **{k: v for k, v in options.items()
                                          if k != "orders"})  # fmt: skip
    same(one, START)


def test_a_stage_at_the_end_of_the_step_is_heun():
    """Shared stages with a repeated last time: r = 1, still second order."""
    ts = m.times_between(VP, 2)[[0, 1, 1]]
    got = ours(S.dpm_solver_fast, VP, ts, order=2, prediction="data")
    same(got, theirs(o.run, VP, ts[:2], [2], "data", r=1.0))


@pytest.mark.parametrize("name", ALL)
def test_point_data_is_drawn_exactly(name):
    build, options = ALL[name]
    model = fd.models.denoiser(lambda x, t: 0 * x + 0.7, prediction="data")
    x = 80.0 * jnp.asarray(START[:, None])
    got = fd.sample(build(EDM, fd.grids.edm(EDM, 5), **options), model, x)
    np.testing.assert_allclose(got, 0.7, rtol=1e-10)


@pytest.mark.parametrize("name", ALL)
def test_denoise_adds_the_step_to_sigma_zero(name):
    build, options = ALL[name]
    ts = m.times_between(VP, 5)
    plain, more = (build(VP, ts, denoise=d, **options) for d in (False, True))
    assert more.nfe == plain.nfe + 1 and more.end.sigma == 0
    x = jnp.asarray(START[:, None])
    end = np.asarray(draw(plain, x))[:, 0]
    want = m.predict(end, VP.alpha(ts[-1]), VP.sigma(ts[-1]))
    np.testing.assert_allclose(np.asarray(draw(more, x))[:, 0], want, rtol=1e-11)


@pytest.mark.parametrize("name", ["dpmpp_3s", "fast taylor"])
def test_traced_and_per_element_times(name):
    build, options = ALL[name]
    ts = m.times_between(VP, 6)
    plan = build(VP, ts, **options)
    traced = jax.jit(lambda t: build(VP, t, **options))(jnp.asarray(ts))
    for a, b in zip(jax.tree.leaves(plan), jax.tree.leaves(traced), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    grids = [m.times_between(VP, 6, p) for p in (1.0, 1.3)]
    wide = build(VP, np.stack(grids, -1)[:, :, None], **options)  # (7, 2, 1)
    got = np.asarray(m.run(wide, jnp.asarray(START[:2, None])))[:, 0]
    want = [ours(build, VP, g, **options)[i] for i, g in enumerate(grids)]
    same(got, want)


@pytest.mark.parametrize("name", ["dpm_solver_2", "dpmpp_3s", "fast"])
def test_paths_of_equal_snr_give_one_sample(name):
    build, options = ALL[name]
    options = {**options, "inner": "log_snr"}
    lam, found = np.linspace(-3, 3, 9), []
    for process in (VP, EDM, FLOW):
        ts = process.half_log_snr_inverse(lam)
        scale = np.exp(3) * process.alpha(ts[0])
        found.append(ours(build, process, ts, scale, **options) / process.alpha(ts[-1]))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-10, atol=1e-11)


BAD = [
    (lambda: S.dpm_solver_2(VP, [1.0, 0.5], r=0.0), "r must be 0 < r <= 1, got 0"),
    (lambda: S.dpm_solver_3(VP, [1.0, 0.5], r=(0.6, 0.3)), "0 < r_1 < r_2 <= 1"),
    (lambda: S.dpmpp_3s(VP, [1.0, 0.5], r=(0.6,)), "r must be a tuple of 2"),
    (
        lambda: S.dpmpp_2s(VP, [1.0, 0.5], inner="logsnr"),
        "inner must be one of log_snr",
    ),
    (lambda: S.dpmpp_2s(VP, [1.0, 0.5], inner="shared"), "got 'shared'"),
    (lambda: S.dpmpp_3s(VP, [1.0, 0.5], variant="heun"), "variant must be 'dpmsolver'"),
    (lambda: S.dpm_solver_2(VP, [1.0, 0.5], prediction="eps"), "'data' or 'noise'"),
    (lambda: S.dpm_solver_2(FLOW, [1.0, 0.5]), "where alpha = 0, as at row 0"),
    (lambda: S.dpm_solver_fast(VP, [1.0, 0.5], order=4), "order must be 1, 2 or 3"),
    (
        lambda: S.dpm_solver_fast(VP, [1.0, 0.5], orders=[2]),
        "sum to the grid's 1 steps",
    ),
    (
        lambda: S.dpm_solver_fast(VP, [1.0, 0.5], orders=[2, 2], inner="log_snr"),
        "one entry for each of the grid's 1 steps",
    ),
    (lambda: S.dpm_solver_fast(VP, [1.0, 0.5], orders=[4]), "a list of 1, 2 or 3"),
    (lambda: fast_orders(0), "evaluations must be >= 1, got 0"),
    (
        lambda: S.dpmpp_2s(fd.processes.ve(), [1.0, 0.5], inner="time_quadratic"),
        "finite clean time",
    ),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", ["vp", "edm", "flow"])
def test_fast_with_ancestral_noise_converges_to_the_law(name):
    """Second-order noise-free moves and the ancestral split: the law to order 1."""
    process = m.PROCESSES[name]
    gaps = []
    for n in (40, 80):
        ts = m.times_between(process, n)
        plan = fd.solvers.dpm_solver_fast(
            process, ts, orders=[2] * n, inner="log_snr", prediction="data", eta=1.0
        )
        assert plan.stochastic
        found = fd.analysis.gaussian_error(
            plan, 1.0, 0.25, exact_start=True, target="level"
        )
        gaps.append(
            abs(found.variance[0] - found.target_variance[0])
            + abs(found.mean[0] - found.target_mean[0])
        )
    assert 0.7 < np.log2(gaps[0] / gaps[1]) < 2.3 and gaps[1] < 0.02


def test_fast_with_ancestral_noise_never_passes_the_end():
    """The last step is drawn to the grid's end, so it adds nothing there."""
    ts = m.times_between(m.PROCESSES["edm"], 6)
    plan = fd.solvers.dpm_solver_fast(
        m.PROCESSES["edm"], ts, orders=[2] * 6, inner="log_snr", eta=1.0
    )
    noise = np.asarray(plan.rows.noise)
    assert (noise[-1] == 0).all() and (noise[::2] == 0).all()
    # the point and the sample, but none of the evaluations that are kept
    assert (noise[1:-1:2, [0, -1]] > 0).all() and (noise[:, 1:-1] == 0).all()
    still = fd.solvers.dpm_solver_fast(
        m.PROCESSES["edm"], ts, orders=[2] * 6, inner="log_snr", eta=0.0
    )
    assert not still.stochastic


@pytest.mark.parametrize(
    "bad", [{"eta": 1.5, "inner": "log_snr"}, {"eta": 1.0}, {"eta": -0.1}]
)
def test_fast_refuses_noise_it_cannot_add(bad):
    process = m.PROCESSES["vp"]
    with pytest.raises(ValueError, match=r"eta must lie in \[0, 1\]"):
        fd.solvers.dpm_solver_fast(process, m.times_between(process, 6), **bad)
