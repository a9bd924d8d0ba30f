"""DPM-Solver-v3: the paper's loop, limits with closed forms, order, ends, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd

from . import mixture as mx
from .oracles import dpm_solver_v3 as oracle
from .table import spoiled

PROCESS = fd.processes.vp_linear()
V3 = fd.solvers.dpm_solver_v3
LOW, HIGH = (float(PROCESS.half_log_snr(t)) for t in (1.0, 1e-3))


def made_up(low=LOW, high=HIGH, nodes=41, event=(3,)):
    """Smooth tables that differ between elements."""
    lam = np.linspace(low, high, nodes).reshape(-1, *[1] * len(event))
    k = np.arange(np.prod(event, dtype=int)).reshape(event)
    return fd.tune.ems.from_arrays(
        low,
        high,
        0.5 - 0.4 * np.tanh(lam - 0.3 * k),
        0.3 * np.sin(lam + k) - 0.2,
        0.2 * np.cos(1.5 * lam + k),
    )


MODEL = fd.models.gaussian_mixture(
    [0.3, 0.7], np.array([[-1.0, 0.5, 0.0], [1.2, -0.3, 2.0]]), 0.2
)


def start(batch=4, event=3, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, event))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        dict(order=1),
        dict(order=1, c_pseudo=True, compat=True),
        dict(order=2, corrector=False),
        dict(order=3),
        dict(order=3, compat=True),
        dict(order=3, p_pseudo=True, c_pseudo=True),
        dict(order=3, p_pseudo=True, c_pseudo=True, compat=True),
    ],
)
def test_it_is_the_papers_loop(options):
    table = made_up(nodes=9)
    ts = fd.grids.log_snr(PROCESS, 4)
    nodes = np.linspace(table.low, table.high, len(table.l))
    compat = options.get("compat", False)
    lam = PROCESS.half_log_snr(ts)
    if compat:
        lam = nodes[np.abs(lam[:, None] - nodes).argmin(1)]
    snapped = PROCESS.half_log_snr_inverse(lam)
    a, s = PROCESS.alpha(snapped), PROCESS.sigma(snapped)

    def noise(x, i):
        d = np.asarray(MODEL.posterior_mean(jnp.asarray(x), a[i], s[i]))
        return (x - a[i] * d) / s[i]

    want = oracle.sample(
        lam,
        a,
        s,
        oracle.Tables(table.low, table.high, table.l, table.s, table.b, compat),
        noise,
        start(),
        options["order"],
        options.get("p_pseudo", False),
        options.get("corrector", True),
        options.get("c_pseudo", False),
    )
    got = fd.sample(V3(PROCESS, ts, table, **options), MODEL, start())
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("order", [3])
def test_degenerated_statistics_give_exponential_adams(order):
    ts = fd.grids.log_snr(PROCESS, 6)
    table = fd.tune.ems.degenerated(PROCESS, nodes=7)
    plan = V3(PROCESS, ts, table, order=order, corrector=False)
    same = fd.solvers.unipc(PROCESS, ts, order=order, variant="exact", corrector=False)
    x = start()
    np.testing.assert_allclose(
        fd.sample(plan, MODEL, x), fd.sample(same, MODEL, x), rtol=1e-11, atol=1e-12
    )


def test_gaussian_data_take_one_step():
    m, v = np.array([0.5, -1.0, 2.0]), np.array([0.2, 1.0, 0.05])
    low, high = LOW, HIGH
    lam = np.linspace(low, high, 2001)[:, None]
    l = 1 / (1 + v * np.exp(2 * lam))  # noqa: E741
    table = fd.tune.ems.from_arrays(low, high, l, 0 * l, 2 * m * l * (1 - l))
    x = start()
    plan = V3(PROCESS, np.array([1.0, 1e-3]), table)
    got = fd.sample(plan, fd.models.gaussian(m, v), x)
    a, s = (getattr(PROCESS, k)(np.array([1.0, 1e-3])) for k in ("alpha", "sigma"))
    total = a[:, None] ** 2 * v + s[:, None] ** 2
    want = a[1] * m + np.sqrt(total[1] / total[0]) * (x - a[0] * m)
    np.testing.assert_allclose(got, want, atol=5e-6)


# ------------------------------------------------------------------------------- order


FINE = made_up(-3.05, 3.05, 1281, (1,))


def slope(change=lambda plan: plan, counts=(80, 160), **options):
    def build(process, ts):
        return change(V3(process, ts, FINE, lower_order_final=False, **options))

    return mx.slope(build, "vp", power=1.5, counts=counts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "order"),
    [
        (dict(order=1), 1),
        (dict(order=2, corrector=False), 2),
        (dict(order=3, corrector=False), 3),
        (dict(order=3, corrector=False, p_pseudo=True), 2),
        (dict(order=3, c_pseudo=True), 2),
    ],
)
def test_order(options, order):
    assert abs(slope(**options) - order) < 0.25


def test_the_corrector_keeps_the_order():
    assert slope(order=3, counts=(40, 160)) > 2.75


def test_a_wrong_coefficient_shows_in_the_order():
    def wrong(plan):
        return spoiled(plan, older=1.1)

    assert slope(wrong, order=2, corrector=False) < 1


# -------------------------------------------------------------------------------- ends


@pytest.mark.parametrize("order", [3])
def test_exact_ends(order):
    process = fd.processes.flow()
    ts = np.array([1.0, 0.9, 0.6, 0.3, 0.1, 0.0])
    table = fd.tune.ems.degenerated(process, start=0.95, end=0.05)
    plan = V3(process, ts, table, order=order, corrector=False)
    same = fd.solvers.unipc(process, ts, order=order, variant="exact", corrector=False)
    x = start()
    np.testing.assert_allclose(
        fd.sample(plan, MODEL, x), fd.sample(same, MODEL, x), rtol=1e-11, atol=1e-12
    )


def test_the_clean_end_is_the_data_prediction_whatever_the_tables():
    process = fd.processes.flow()
    low, high = (float(process.half_log_snr(t)) for t in (0.95, 0.05))
    plan = V3(process, np.array([1.0, 0.9, 0.4, 0.1, 0.0]), made_up(low, high))
    got, kept = fd.sample(plan, MODEL, start(), collect=lambda _, i: i.denoised)
    np.testing.assert_allclose(got, kept[-1], rtol=1e-12, atol=1e-12)


def test_a_repeated_time_is_the_identity():
    ts = fd.grids.log_snr(PROCESS, 4)
    again = np.insert(ts, 2, ts[2])
    table, x = made_up(), start()
    options = dict(order=1, lower_order_final=False)
    np.testing.assert_allclose(
        fd.sample(V3(PROCESS, again, table, **options), MODEL, x),
        fd.sample(V3(PROCESS, ts, table, **options), MODEL, x),
        rtol=1e-12,
    )
    plan = V3(PROCESS, again, table, c_pseudo=True)  # nothing infinite or NaN
    assert np.isfinite(np.asarray(fd.sample(plan, MODEL, x))).all()


def test_half_corrects_the_noisy_half_only():
    ts = np.array([1.0, 0.8, 0.6, 0.4, 0.2, 1e-3])
    table = made_up()
    half = V3(PROCESS, ts, table, half=True)
    listed = V3(PROCESS, ts, table, disable_corrector=[2, 3])
    jax.tree.map(np.testing.assert_array_equal, half, listed)


# ------------------------------------------------------------------- traced, saved, bad


@pytest.mark.slow
def test_traced_times_give_the_same_weights():
    table = made_up(nodes=7)
    ts = fd.grids.log_snr(PROCESS, 3)

    def total(ts):
        rows = V3(PROCESS, ts, table, order=2).rows
        lines = (rows.registers, rows.predictions, rows.bias)
        return sum((w**2).sum() for w in jax.tree.leaves(lines))

    value, gradient = jax.jit(jax.value_and_grad(total))(jnp.asarray(ts))
    np.testing.assert_allclose(value, total(ts), rtol=1e-10)
    assert np.isfinite(gradient).all() and (gradient != 0).all()


def test_a_plan_carries_its_statistics_through_json():
    plan = V3(PROCESS, fd.grids.log_snr(PROCESS, 3), made_up())
    back = fd.plan.from_json(fd.plan.to_json(plan))
    jax.tree.map(np.testing.assert_array_equal, plan, back)


def test_bad_input():
    table, ts = made_up(), fd.grids.log_snr(PROCESS, 4)
    with pytest.raises(ValueError, match=r"order in 1\.\.4, got 5"):
        V3(PROCESS, ts, table, order=5)
    with pytest.raises(ValueError, match="times of shape"):
        V3(PROCESS, np.stack([ts, ts], axis=1), table)
    with pytest.raises(ValueError, match="outside the statistics' range"):
        V3(PROCESS, ts, made_up(low=-3.0))
    with pytest.raises(ValueError, match="to one table node"):
        V3(PROCESS, ts, made_up(nodes=3), compat=True)
    V3(PROCESS, np.insert(ts, 2, ts[2]), table, compat=True)  # a repeat is no merge
    ve = fd.processes.ve()
    with pytest.raises(ValueError, match="half needs a clock with finite ends"):
        V3(ve, fd.grids.log_snr(ve, 4), fd.tune.ems.degenerated(ve), half=True)
