"""`start`: the orders with it and without it, on even grids, and what it cuts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import fastdiff_jax as fd

from . import mixture
from .contract_cases import PLAIN, SOLVERS, STARTED, VP, build, grid, highest

S = fd.solvers
OTHERS = {
    "vp": VP,
    "cosine": fd.processes.vp_cosine(),
    "edm": fd.processes.edm(),
    "sub_vp": fd.processes.sub_vp(),
}
PATHS = {"flow": fd.processes.flow(), **OTHERS}
LOW, HIGH = -1.0, 3.0  # where the first step bends most


@functools.cache
def exact():
    """Starts and ends in y = x / alpha of the mixture's ODE, (41,) each."""
    start = np.linspace(-1.25, 1.25, 41) * np.hypot(1.0, np.exp(-LOW))

    def slope(lam, w):  # w = y / rho
        rho = np.exp(-lam)
        return mixture.predict(w * rho, 1.0, rho) / rho

    span, first = (LOW, HIGH), start * np.exp(LOW)
    found = solve_ivp(slope, span, first, method="DOP853", rtol=1e-13, atol=1e-14)
    return start, found.y[:, -1] * np.exp(-HIGH)


def order_of(build, path, counts=(80, 160)):
    """The observed order on grids uniform in half log-SNR, by steps asked for."""
    process, (start, end) = PATHS[path], exact()
    errors = []
    for n in counts:
        ts = process.half_log_snr_inverse(np.linspace(LOW, HIGH, n + 1))
        plan = build(process, ts)
        (first, last), level = process.alpha(ts[[0, -1]]), plan.rows.level

        def predict(x, i, level=level):
            return mixture.predict(x, level.alpha[i], level.sigma[i])

        found = fd.plan.replay(plan, predict, start * first) / last
        errors.append(np.sqrt(np.mean((found - end) ** 2)))
    return np.log2(errors[0] / errors[1])


def v3(process, ts, **options):
    """DPM-Solver-v3 on tables of two nodes: linear, so that its order is seen."""
    tables = np.random.default_rng(1).normal(size=(3, 2)) * 0.3
    statistics = fd.tune.ems.from_arrays(LOW - 0.1, HIGH + 0.1, *tables)
    options = {"lower_order_final": False, "corrector": False, **options}
    return S.dpm_solver_v3(process, ts, statistics, **options)


def case(solver, order, formal, published=2, **options):
    options |= {"order": order} if order else {}
    return functools.partial(solver, **options), formal, published


ORDERS = {
    **{f"exp_adams {p}": case(S.exp_adams, p, p) for p in (3, 4, 5, 6)},
    **{f"deis_logrho {p}": case(S.deis_logrho, p, p) for p in (3, 4, 5, 6)},
    **{f"adams {p}": case(S.adams, p, p) for p in (3, 4, 5, 6)},
    **{f"deis_tab {p}": case(S.deis_tab, p, p + 1) for p in (2, 3)},
    **{f"ipndm_v {p}": case(S.ipndm_v, p, p) for p in (3, 4)},
    **{f"unipc {p}": case(S.unipc, p, p + 1, 3) for p in (3, 4)},
    **{f"unip {p}": case(S.unipc, p, p, corrector=False) for p in (3, 4)},
    **{f"dc_solver {p}": case(S.dc_solver, p, p + 1, 3) for p in (3, 4)},
    **{f"v3 {p}": case(v3, p, p) for p in (3, 4)},
    "unipc 3 noise": case(S.unipc, 3, 4, 3, prediction="noise"),
    "unipc 3, first step open": case(S.unipc, 3, 4, disable_corrector=[0]),
    "dpmpp_3m": case(S.dpmpp_3m, None, 3),
    "dpm_3m": case(S.dpmpp_3m, None, 3, prediction="noise"),
    "er_sde 3": case(S.er_sde, 3, 3, eta=0.0),
}


@pytest.mark.parametrize(
    "path", ["flow", *(pytest.param(p, marks=pytest.mark.slow) for p in OTHERS)]
)
@pytest.mark.parametrize("name", ORDERS)
def test_the_order_on_even_grids(name, path):
    """Its own with the graded start; 2, or 3 where the first step is corrected."""
    make, formal, published = ORDERS[name]
    found = order_of(functools.partial(make, start="graded"), path)
    assert abs(found - formal) < 0.3, f"graded: {found:.2f}, not {formal}"
    found = order_of(make, path)
    assert abs(found - published) < 0.4, f"published: {found:.2f}, not {published}"


def test_a_first_part_too_long_is_seen():
    """What the order test is worth: order 4 with the parts of order 3, or even ones."""
    for root, power in ((3, 1.5), (2, 1.0)):

        def less(process, ts, root=root, power=power):
            parts = int(np.ceil((len(ts) - 1) ** (1 / root)))
            return S.exp_adams(process, cut_by_hand(ts, parts, power), order=4)

        assert order_of(less, "flow") < 3.3


def self_order(make, times, predict, x, counts=(80, 160)):
    """The order against the same method on a grid eight times finer."""

    def run(n, **options):
        plan = make(times(n), **options)
        level = plan.rows.level
        return fd.plan.replay(plan, lambda x, i: predict(x, level.time[i]), x)

    want = run(8 * counts[-1], start="graded")
    for start in ("published", "graded"):
        gaps = [np.sqrt(np.mean((run(n, start=start) - want) ** 2)) for n in counts]
        yield np.log2(gaps[0] / gaps[1])


@pytest.mark.parametrize("ends", [(0.9, 0.1), (0.1, 0.9)])
def test_the_order_between_two_laws(ends):
    process = fd.processes.interpolant(scale=0.5)
    make = functools.partial(S.interpolant, process, order=3)

    def predict(x, t):
        return np.tanh(x) + 0.3 * np.sin(3 * t), np.cos(x) * np.exp(-t)

    times, x = lambda n: np.linspace(*ends, n + 1), np.linspace(-2, 2, 21)
    published, graded = self_order(make, times, predict, x)
    assert abs(published - 2) < 0.3 and abs(graded - 3) < 0.3


def test_the_order_on_a_linear_sde():
    make = functools.partial(fd.augmented.gddim, fd.augmented.cld(), order=4)
    x = np.linspace(-2, 2, 42).reshape(1, 2, 21)
    predict = lambda x, t: np.tanh(x) * 0.5 + 0.2 * np.sin(x[:, ::-1])  # noqa: E731
    times = lambda n: np.linspace(0.3, 0.1, n + 1)  # noqa: E731
    published, graded = self_order(make, times, predict, x, (40, 80))
    assert abs(published - 2) < 0.3 and abs(graded - 4) < 0.3


# ------------------------------------------------------------------ what is cut


def cut_by_hand(ts, parts, power, at=0):
    """Step `at` in so many parts, as a loop."""
    inner = [
        ts[at] + (ts[at + 1] - ts[at]) * (j / parts) ** power for j in range(1, parts)
    ]
    return np.concatenate([ts[: at + 1], *([inner] if inner else []), ts[at + 1 :]])


def same(one, two):
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.parametrize(
    ("make", "parts", "power"),
    [
        (functools.partial(S.exp_adams, order=2), 1, 1.0),
        (functools.partial(S.exp_adams, order=3), 3, 1.5),  # 20^(1/3) = 2.7
        (functools.partial(S.adams, order=4), 5, 2.0),  # 20^(1/2) = 4.5
        (functools.partial(S.exp_adams, order=6), 8, 3.0),  # 20^(2/3) = 7.4
        (functools.partial(S.exp_adams, order=4, corrector=True), 4, 5 / 3),
        (functools.partial(S.unipc, order=2), 1, 1.0),  # of order 3 as it is
        (functools.partial(S.unipc, order=3), 3, 4 / 3),  # 20^(1/4) = 2.1
        (functools.partial(S.unipc, order=3, corrector=False), 3, 1.5),
        (S.dpmpp_3m, 3, 1.5),
    ],
)
def test_the_plan_is_that_of_the_times_cut_by_hand(make, parts, power):
    ts = grid(20)
    want = make(VP, cut_by_hand(ts, parts, power))
    found = make(VP, ts, start="graded")
    assert found.nfe == 20 + parts - 1
    same(found, want)
    same(make(VP, ts), make(VP, ts, start="published"))


def test_a_repeated_time_is_no_first_step():
    ts = np.insert(grid(20), 0, grid(20)[0])
    found = S.adams(VP, ts, order=4, start="graded")
    same(found, S.adams(VP, cut_by_hand(ts, 5, 2.0, at=1), order=4))
    still = np.full(9, 0.5)  # nothing moves: identity rows
    plan = S.adams(VP, still, start="graded")
    x = np.ones(3)
    np.testing.assert_array_equal(fd.plan.replay(plan, lambda x, i: 0 * x, x), x)


def test_one_step_is_not_cut():
    assert S.exp_adams(VP, [1.0, 0.0], order=6, start="graded").nfe == 1


def test_values_per_step_go_to_the_parts_of_their_step():
    ts, rng = grid(20), np.random.default_rng(0)
    cut = cut_by_hand(ts, 3, 4 / 3)  # UniPC-3's: two parts more
    ratios = rng.uniform(0.9, 1.1, 20)
    found = S.dc_solver(VP, ts, ratios, disable_corrector=[1, 4], start="graded")
    spread = np.concatenate([ratios[[0, 0]], ratios])
    same(found, S.dc_solver(VP, cut, spread, disable_corrector=[3, 6]))
    found = S.unipc(VP, ts, disable_corrector=[1, 4], start="graded")
    same(found, S.unipc(VP, cut, disable_corrector=[3, 6]))
    ts = VP.half_log_snr_inverse(np.linspace(LOW, HIGH, 21))
    cut = cut_by_hand(ts, 3, 1.5)
    found = v3(VP, ts, order=3, corrector=True, disable_corrector=[0], start="graded")
    want = v3(VP, cut, order=3, corrector=True, disable_corrector=[0, 1, 2])
    same(found, want)
    bridge, ts = fd.processes.interpolant(scale=0.5), np.linspace(0.9, 0.1, 21)
    eps = rng.uniform(0, 0.1, 20)
    found = S.interpolant(bridge, ts, order=3, eps=eps, start="graded")
    cut, spread = cut_by_hand(ts, 3, 1.5), np.concatenate([eps[[0, 0]], eps])
    same(found, S.interpolant(bridge, cut, order=3, eps=spread))


def test_each_element_has_its_own_times():
    columns = [grid(9), grid(9) ** 1.2, np.append(grid(8)[0], grid(8))]
    ts = np.stack(columns, -1)
    whole = S.exp_adams(VP, ts, order=4, start="graded")
    for j, column in enumerate(columns[:2]):
        alone = S.exp_adams(VP, column, order=4, start="graded")
        np.testing.assert_array_equal(
            whole.rows.level.time[:, j], alone.rows.level.time
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in STARTED if n in PLAIN])
def test_traced_times_are_cut_alike(name):
    make = functools.partial(SOLVERS[name].build, VP, start="graded", **highest(name))
    traced = jax.jit(make)(jnp.asarray(grid(6)))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9),
        traced,
        make(grid(6)),
    )


@pytest.mark.parametrize("process", ["flow", "zero terminal SNR"])
def test_a_first_step_from_pure_noise_is_cut_too(process):
    """Alpha = 0: no half log-SNR, but times in between; the error falls with it."""
    path = fd.processes.flow()
    if process != "flow":
        path = fd.processes.vp_discrete(zero_terminal_snr=True)
    end = float(path.half_log_snr_inverse(3.0))
    x = np.linspace(-2, 2, 21)

    def run(steps, **options):
        ts = fd.grids.log_snr(path, steps, end=end)
        plan = S.exp_adams(path, ts, order=4, **options)
        level = plan.rows.level

        def predict(x, i):
            return mixture.predict(x, level.alpha[i], level.sigma[i])

        return fd.plan.replay(plan, predict, x)

    want = run(1200, start="graded")
    gaps = [np.abs(run(160, start=s) - want).max() for s in ("graded", "published")]
    assert gaps[0] < gaps[1] / 3


@pytest.mark.parametrize("name", STARTED)
def test_a_start_that_does_not_exist_is_refused(name):
    text = "start must be one of 'published', 'graded', got 'rk'"
    with pytest.raises(ValueError, match=text) as found:
        build(name, start="rk")
    assert "\n" not in str(found.value)


def test_times_are_named_by_their_own_number():
    ts = grid(20)
    ts[[7, 8]] = ts[[8, 7]]
    with pytest.raises(ValueError, match=r"ts\[7\]=.* is followed by ts\[8\]"):
        S.exp_adams(VP, ts, order=4, start="graded")


def test_every_multistep_solver_of_order_3_and_up_has_it():
    """But those that are told each step's decisions, and those 3 without noise only."""
    found = {
        name
        for name, solver in SOLVERS.items()
        if solver.calls == 1 and max(map(solver.order, solver.orders or (0,))) >= 3
    }
    assert found == set(STARTED)
