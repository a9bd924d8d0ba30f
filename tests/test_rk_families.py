"""Runge-Kutta in rho, exponential Runge-Kutta, exponential Adams, UniPC's 'vary'."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd

from . import mixture as m
from .oracles import exp_adams as adams_loop
from .oracles import exp_rk as exp_loop
from .oracles import rho_rk as rho_loop
from .table import words

S = fd.solvers
METHODS = {
    "euler": (1, 1),
    "heun2": (2, 2),
    "kutta3": (3, 3),
    "ralston3": (3, 3),
    "heun3": (3, 3),
    "van_der_houwen3": (3, 3),
    "ssprk3": (3, 3),
    "rk4": (4, 4),
}
EXP_RK = {  # formal order, calls, options tried
    "res_2": (2, 2, ({}, {"c2": 0.7})),
    "res_3": (3, 3, ({}, {"c2": 1 / 3, "c3": 0.8}, {"c2": 0.25, "c3": 0.75})),
    "ho_3": (3, 3, ({}, {"c2": 0.6})),
    "etdrk2": (2, 2, ({},)),
    "etdrk4": (4, 4, ({},)),
    "krogstad": (4, 4, ({},)),
}
VARIANTS = [
    pytest.param(name, options, id=f"{name}-{'-'.join(map(str, options.values()))}")
    for name, (_, _, tried) in EXP_RK.items()
    for options in tried
]
START = np.linspace(-2, 2, 7)


@functools.cache
def _program():
    return jax.jit(lambda plan, x: fd.sample(plan, m.MODEL, x))


def ours(plan, x, length=48):
    """Through the engine; padding lets all plans share one compiled program."""
    plan = fd.plan.pad(plan, length, registers=8, writes=3)
    return np.asarray(_program()(plan, jnp.asarray(x[:, None])))[:, 0]


def predictor(process):
    return lambda x, t: m.predict(x, process.alpha(t), process.sigma(t))


def grid(process, steps=6, clean=False):
    ts = m.times_between(process, steps, 1.3)
    return np.append(ts, process.clean) if clean else ts


def start_of(process, ts):
    return START * process.sigma(ts[0])


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------- oracles


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("path", ["vp", "flow"])
@pytest.mark.parametrize("method", METHODS)
def test_rho_rk_equals_the_naive_loop(method, path, clean):
    process = m.PROCESSES[path]
    ts = grid(process, clean=clean)
    x = start_of(process, ts)
    plan = S.rho_rk(process, ts, variant=method)
    assert plan.nfe == 6 * METHODS[method][1] + clean
    want = rho_loop.rho_rk(process, ts, predictor(process), x, method)
    close(ours(plan, x), want)


@pytest.mark.parametrize("r, afs", [(0.5, False), (0.7, True), (1.0, False)])
@pytest.mark.parametrize("path, clean", [("edm", True), ("vp", False)])
def test_dpm2_equals_the_naive_loop(r, afs, path, clean):
    process = m.PROCESSES[path]
    ts = grid(process, clean=clean)
    x = start_of(process, ts)
    plan = S.dpm2(process, ts, r=r)
    plan = fd.plan.analytic_first_step(plan) if afs else plan
    assert plan.nfe == 12 + clean - afs
    close(
        ours(plan, x), rho_loop.dpm2(process, ts, predictor(process), x, r=r, afs=afs)
    )


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_exp_rk_equals_the_naive_loop(name, options, prediction):
    process = m.PROCESSES["vp"]
    ts = grid(process, clean=True)
    x = start_of(process, ts)
    plan = getattr(S, name)(process, ts, prediction=prediction, **options)
    assert plan.nfe == 6 * EXP_RK[name][1] + 1
    rule = getattr(exp_loop, name)
    close(
        ours(plan, x),
        exp_loop.loop(rule, process, ts, predictor(process), x, prediction, **options),
    )


def test_exp_rk_starts_at_alpha_zero():
    """The flow's t = 1: one exact first-order step, then stages."""
    process = m.PROCESSES["flow"]
    ts = np.array([1.0, 0.8, 0.5, 0.2, 0.0])
    plan = S.res_3(process, ts)
    assert plan.nfe == 1 + 2 * 3 + 1
    want = exp_loop.loop(exp_loop.res_3, process, ts, predictor(process), START)
    close(ours(plan, START), want)


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("corrector", [False, True])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 6])
def test_exp_adams_equals_the_naive_loop(order, corrector, prediction):
    process = m.PROCESSES["vp"]
    ts = grid(process, 8, clean=order < 3)
    x = start_of(process, ts)
    options = {"corrector": corrector, "prediction": prediction}
    for lower in (False, True):
        plan = S.exp_adams(process, ts, order=order, lower_order_final=lower, **options)
        assert plan.nfe == len(ts) - 1
        want = adams_loop.exp_adams(
            process, ts, predictor(process), x, order, lower=lower, **options
        )
        close(ours(plan, x), want)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("lower", [False, True])
def test_published_vary_equals_its_loop(order, lower):
    process = m.PROCESSES["vp"]
    ts = grid(process, 8)
    x = start_of(process, ts)
    plan = S.unipc(
        process,
        ts,
        order=order,
        variant="vary",
        compat=True,
        lower_order_final=lower,
    )
    want = adams_loop.unipc_vary(process, ts, predictor(process), x, order, lower)
    close(ours(plan, x), want)


# ----------------------------------------------------------------- relations, limits


def same(first, second, tol=1e-13):
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=tol, atol=tol)


def test_vary_without_compat_is_exact():
    process = m.PROCESSES["vp"]
    ts = grid(process)
    same(S.unipc(process, ts, variant="vary"), S.unipc(process, ts, variant="exact"))
    compat = S.unipc(process, ts, variant="bh1", compat=True)
    same(compat, S.unipc(process, ts, variant="bh1"))


def test_known_equalities():
    process = m.PROCESSES["vp"]
    ts = grid(process)
    lone = {"lower_order_final": False}
    exact = {"variant": "exact", "prediction": "noise", **lone}
    same(S.deis_logrho(process, ts, **lone), S.dpmpp_2m(process, ts, **exact))
    same(
        S.exp_adams(process, ts, corrector=True),
        S.unipc(process, ts, variant="exact"),
    )
    same(S.rho_rk(process, ts, variant="heun2"), S.edm_heun(process, ts))
    same(S.etdrk2(process, ts), S.res_2(process, ts, c2=1))
    x = start_of(process, ts)
    euler = ours(S.rho_rk(process, ts, variant="euler"), x)
    close(euler, ours(S.ddim(process, ts), x))


def test_rows_of_the_sheet():
    """Golden weights of the step 0.5 -> 0.43 of VP-linear, older nodes 0.62, 0.8."""
    process = fd.processes.vp_linear()
    ts = np.array([0.8, 0.62, 0.5, 0.43])
    options = {"order": 3, "lower_order_final": False}
    plan = S.deis_logrho(process, ts, **options)
    np.testing.assert_allclose(
        words(plan).weights[-1], [-0.558907631, 0.174376899, -0.02603828311], rtol=1e-9
    )
    plan = S.exp_adams(process, ts, **options)
    np.testing.assert_allclose(
        words(plan).weights[-1],
        [0.1696929817, -0.05815851014, 0.008764046552],
        rtol=1e-9,
    )


ALL = {
    "rho_rk": S.rho_rk,
    "dpm2": S.dpm2,
    "deis_logrho": S.deis_logrho,
    "exp_adams": S.exp_adams,
    "exp_adams corrected": functools.partial(S.exp_adams, corrector=True),
    "vary": functools.partial(S.unipc, variant="vary", compat=True),
    **{name: getattr(S, name) for name in EXP_RK},
}


@pytest.mark.parametrize("name", ALL)
def test_short_grids_repeats_and_the_clean_end(name):
    process = m.PROCESSES["flow"]
    x = 0.9 * START
    one = ours(ALL[name](process, np.array([0.9, 0.0])), x)
    close(one, m.predict(x, 0.1, 0.9))
    ts = np.array([0.9, 0.7, 0.7, 0.4, 0.2, 0.2])
    merged = np.array([0.9, 0.7, 0.4, 0.2])
    got = ours(ALL[name](process, ts), x)
    if "adams" not in name and name not in ("vary", "deis_logrho"):
        close(got, ours(ALL[name](process, merged), x))  # one-step: no memory
    assert np.isfinite(got).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rho_rk", "dpm2", "res_3", "exp_adams", "vary"])
def test_traced_times_give_the_same_plan(name):
    process = m.PROCESSES["vp"]
    ts = grid(process, 4)
    plan = ALL[name](process, ts)
    build = ALL[name]
    traced = jax.jit(lambda t: build(process, t))
    pairs = zip(
        jax.tree.leaves(traced(jnp.asarray(ts))), jax.tree.leaves(plan), strict=True
    )
    for got, want in pairs:
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpm2", "res_2"])
@pytest.mark.parametrize("weights", ["predictions", "registers"])
def test_gradients_with_respect_to_times(name, weights):
    process = m.PROCESSES["vp"]
    ts = grid(process, 4)

    def total(t):
        return getattr(ALL[name](process, t).rows, weights)[2:].sum()

    slope_ = jax.jit(jax.grad(total))(jnp.asarray(ts))[2]
    step = np.eye(5)[2] * 1e-6
    want = (total(ts + step) - total(ts - step)) / 2e-6
    np.testing.assert_allclose(slope_, want, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_elements_with_times_of_their_own(name):
    process = m.PROCESSES["vp"]
    lines = [m.times_between(process, 5, power) for power in (1.0, 1.3, 1.7)]
    both = ALL[name](process, np.stack(lines, axis=1))
    for k, ts in enumerate(lines):
        alone = ALL[name](process, ts)
        picked = jax.tree.map(
            lambda w, k=k: w[..., k] if np.shape(w)[-1:] == (3,) else w, both
        )
        for of in ("predictions", "registers"):
            np.testing.assert_allclose(
                getattr(picked.rows, of),
                getattr(alone.rows, of),
                rtol=1e-12,
                atol=1e-14,
            )


# ------------------------------------------------------------------------ bad input


def test_bad_input():
    process, flow = fd.processes.vp_linear(), fd.processes.flow()
    ts = np.array([0.9, 0.5, 0.1])
    bad = [
        (lambda: S.rho_rk(process, ts, variant="kuta3"), "Did you mean 'kutta3'"),
        (lambda: S.rho_rk(flow, [1.0, 0.5]), "alpha = 0"),
        (lambda: S.dpm2(process, ts, r=0.0), r"r in \(0, 1\]"),
        (lambda: S.dpm2(process, ts, r=1.2), r"r in \(0, 1\]"),
        (lambda: S.dpm2(flow, [1.0, 0.5]), "alpha = 0"),
        (lambda: S.res_2(process, ts, c2=0), r"c2 in \(0, 1\]"),
        (lambda: S.res_3(process, ts, c3=1.5), r"c3 in \(0, 1\]"),
        (lambda: S.res_3(process, ts, c2=2 / 3), "c2 != 2/3"),
        (lambda: S.res_3(process, ts, c2=0.5, c3=0.5), "c2 != c3"),
        (lambda: S.ho_3(process, ts, c2=-1), r"c2 in \(0, 1\]"),
        (lambda: S.etdrk4(flow, [1.0, 0.5], prediction="noise"), "alpha = 0"),
        (lambda: S.res_2(process, ts, prediction="eps"), "'data' or 'noise'"),
        (lambda: S.exp_adams(process, ts, prediction="eps"), "'data' or 'noise'"),
        (lambda: S.exp_adams(process, ts, order=7), r"order in 1\.\.6"),
        (lambda: S.deis_logrho(process, ts, order=0), r"order in 1\.\.6"),
        (lambda: S.deis_logrho(flow, [1.0, 0.5]), "alpha = 0"),
        (lambda: S.unipc(process, ts, variant="varying"), "variant must be one of"),
    ]
    for call, text in bad:
        with pytest.raises(ValueError, match=text):
            call()
