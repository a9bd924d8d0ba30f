"""Adaptive DPM-Solver: equal to a naive loop, per sample, safe under jit and vmap."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.continuous import PID, Power, dpm_solver_adaptive

from . import mixture as m
from .oracles import dpm_singlestep as o

VP, FLOW = m.PROCESSES["vp"], m.PROCESSES["flow"]
ENDS = {"start": 0.8, "end": 1e-3}
X = jnp.asarray(np.linspace(-2.5, 2.5, 6)[:, None])
PATH = (VP.alpha, VP.sigma, VP.half_log_snr, VP.half_log_snr_inverse)
run = functools.partial(dpm_solver_adaptive, VP, m.MODEL, order=2, **ENDS)


def loop(x, **options):
    kind = options.pop("prediction", "noise")
    options = {"order": 2, **options}
    return o.adaptive(PATH, m.predict, x, ENDS["start"], ENDS["end"], kind, **options)


@pytest.mark.slow
@pytest.mark.parametrize(("order", "prediction"), [(3, "noise"), (2, "data")])
def test_equals_the_naive_loop_sample_by_sample(order, prediction):
    options = {"order": order, "prediction": prediction, "rtol": 0.02}
    got, info = run(X, **options)
    assert info.nfe.shape == (6,) and not info.failed.any()
    assert len(set(np.asarray(info.nfe).tolist())) > 1  # own steps
    for i in range(6):
        want, *counts = loop(np.asarray(X[i]), **options)
        np.testing.assert_allclose(got[i], want, rtol=1e-11)
        assert counts == [int(v[i]) for v in info[:3]]
    np.testing.assert_array_equal(info.nfe, order * (info.accepted + info.rejected))


def test_rejections_happen_and_are_counted():
    got, info = run(X, h_init=4.0)
    for i in (0, 1):
        want, *counts = loop(np.asarray(X[i]), h=4.0)
        assert counts[1] > 0 and counts[2] > 0
        assert [int(v[i]) for v in info[:3]] == counts
        np.testing.assert_allclose(got[i], want, rtol=1e-11)


def test_a_sample_does_not_depend_on_the_batch():
    got, info = run(X)
    alone, own = run(X[2:3])
    np.testing.assert_allclose(alone[0], got[2], rtol=1e-11)
    assert own.nfe[0] == info.nfe[2]


def test_coupled_shares_one_step_size():
    """The published rule follows the worst sample; 'rms' is one big system."""
    (_, apart), (got, info) = run(X), run(X, coupled=True)
    assert info.nfe.shape == (6,) and len(set(np.asarray(info.nfe).tolist())) == 1
    assert info.nfe[0] >= apart.nfe.min()
    want, nfe, *_ = loop(np.asarray(X))  # rms over the whole batch
    pooled, info = run(X, coupled="rms")
    np.testing.assert_allclose(pooled, want, rtol=1e-11)
    assert info.nfe[0] == nfe
    assert np.abs(np.asarray(got - pooled)).max() > 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "controller"), [(2, Power()), (3, Power()), (2, PID())]
)
def test_tighter_tolerance_is_more_accurate(order, controller):
    process, x, end = m.problem("vp")
    x, end = jnp.asarray(x[::8]), end[::8]
    first, last = (float(process.half_log_snr_inverse(v)) for v in (m.LOW, m.HIGH))
    errors, costs = [], []
    for tol in (1e-1, 1e-3, 1e-5):
        got, info = dpm_solver_adaptive(
            process, m.MODEL, x, start=first, end=last, order=order,
            rtol=tol, atol=tol, controller=controller,
        )  # fmt: skip
        assert not info.failed.any()
        errors.append(float(np.sqrt(np.mean((np.asarray(got) - end) ** 2))))
        costs.append(float(info.nfe.mean()))
    assert errors[0] > 5 * errors[1] > 25 * errors[2] and errors[2] < 1e-3
    assert costs[0] < costs[1] < costs[2]


@pytest.mark.slow
def test_jit_and_vmap_freeze_what_is_done():
    want, info = run(X)
    jitted, own = jax.jit(run)(X)
    np.testing.assert_allclose(jitted, want, rtol=1e-12)
    np.testing.assert_array_equal(own.nfe, info.nfe)
    pairs, own = jax.vmap(run)(X.reshape(2, 3, 1))
    np.testing.assert_allclose(pairs.reshape(6, 1), want, rtol=1e-12)
    np.testing.assert_array_equal(own.nfe.ravel(), info.nfe)


@pytest.mark.slow
def test_trees_of_unequal_rank():
    """The error is the root mean square over all of a sample's elements."""

    def model(x, c, carry):
        each = lambda v: m.MODEL(v.reshape(-1, 1), c, None)[0].reshape(v.shape)  # noqa: E731
        return jax.tree.map(each, x), carry

    flat = np.linspace(-2, 2, 14).reshape(2, 7)
    tree = {
        "a": jnp.asarray(flat[:, :6].reshape(2, 3, 2)),
        "b": jnp.asarray(flat[:, 6]),
    }
    got, info = dpm_solver_adaptive(VP, model, tree, order=2, **ENDS)
    for i in range(2):
        want, nfe, *_ = loop(flat[i])
        np.testing.assert_allclose(got["a"][i].ravel(), want[:6], rtol=1e-11)
        np.testing.assert_allclose(got["b"][i], want[6], rtol=1e-11)
        assert info.nfe[i] == nfe
    one = jax.tree.map(lambda v: v[0], tree)  # no common leading axis: one sample
    alone, own = dpm_solver_adaptive(VP, model, one, order=2, **ENDS)
    np.testing.assert_allclose(alone["a"], got["a"][0], rtol=1e-12)
    assert own.nfe.shape == () and own.nfe == info.nfe[0]


def test_the_bound_sets_the_flag():
    got, info = run(X, max_evaluations=11)
    assert info.failed.all() and (np.asarray(info.nfe) == 10).all()
    assert np.isnan(got).all()
    got, info = run(X, max_evaluations=int(run(X)[1].nfe.max()) - 1)
    assert info.failed.any() and not info.failed.all()
    np.testing.assert_array_equal(np.isnan(got).all(1), info.failed)
    assert np.isfinite(got[~info.failed]).all()


def test_a_denoiser_of_nan_stops_at_the_bound():
    nothing = lambda x, c, carry: (x * jnp.nan, carry)  # noqa: E731
    got, info = dpm_solver_adaptive(VP, nothing, X, **ENDS, order=2, max_evaluations=60)
    assert info.failed.all() and (np.asarray(info.accepted) == 0).all()
    assert np.isnan(got).all()


def test_denoise_adds_one_evaluation():
    (plain, info), (clean, more) = run(X), run(X, denoise=True)
    np.testing.assert_array_equal(more.nfe, info.nfe + 1)
    a, s = VP.alpha(ENDS["end"]), VP.sigma(ENDS["end"])
    want = m.predict(np.asarray(plain)[:, 0], a, s)
    np.testing.assert_allclose(np.asarray(clean)[:, 0], want, rtol=1e-11)


def test_condition_and_controls_reach_the_denoiser():
    def model(x, c, carry):
        return 0 * x + c.condition[:, None] * c.controls, carry

    labels = jnp.arange(6.0)
    solve = functools.partial(
        dpm_solver_adaptive, VP, model, order=2, denoise=True, **ENDS
    )
    got, _ = solve(X, condition=labels, controls=jnp.asarray(2.0))
    np.testing.assert_allclose(got[:, 0], 2 * labels)
    got, _ = solve(X, condition=labels, controls=jnp.asarray(2.0), coupled=True)
    np.testing.assert_allclose(got[:, 0], 2 * labels)


def test_a_carry_is_threaded():
    class Counting:
        def __call__(self, x, c, carry):
            data, _ = m.MODEL(x, c, None)
            return data, carry + 1

        def initial_carry(self, x):
            return jnp.zeros((), jnp.int32)

    got, info = dpm_solver_adaptive(VP, Counting(), X, order=2, **ENDS)
    np.testing.assert_allclose(got, run(X)[0], rtol=1e-13)


def test_new_numbers_do_not_recompile():
    calls = []

    def model(x, c, carry):
        calls.append(1)
        return m.MODEL(x, c, carry)

    dpm_solver_adaptive(VP, model, X, order=2, **ENDS)
    traced = len(calls)
    other = fd.processes.vp_linear(0.2, 15.0)
    dpm_solver_adaptive(other, model, X + 1, order=2, start=0.7, end=0.1, rtol=0.1)
    assert len(calls) == traced > 0


def test_dtype_of_the_state_wins():
    got, info = run(X.astype(jnp.float32), rtol=1e-3, atol=1e-3)
    assert got.dtype == jnp.float32 and not info.failed.any()
    np.testing.assert_allclose(got, run(X, rtol=1e-3, atol=1e-3)[0], atol=5e-3)


def test_default_ends_are_the_process_own():
    got, _ = dpm_solver_adaptive(VP, m.MODEL, X, order=2)
    want, _ = dpm_solver_adaptive(VP, m.MODEL, X, order=2, start=1.0, end=1e-3)
    np.testing.assert_array_equal(got, want)


BAD = [
    (dict(order=1), "order must be 2 .* or 3 .*, got 1"),
    (dict(prediction="eps"), "'data' or 'noise', got 'eps'"),
    (dict(variant="heun"), "'dpmsolver' or 'taylor', got 'heun'"),
    (dict(coupled="all"), "True, False, 'max' or 'rms', got 'all'"),
    (dict(rtol=0.0), "rtol must be > 0, got 0.0"),
    (dict(h_init=-1.0), "h_init must be > 0"),
    (dict(max_evaluations=1), "max_evaluations must be >= 3"),
    (dict(end=0.0), "finite half log-SNR at both ends; it is inf at end=0"),
    (dict(start=0.001, end=0.5), "start must be above end"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        dpm_solver_adaptive(VP, m.MODEL, X, **{**ENDS, **options})


def test_pure_noise_at_alpha_zero_is_refused():
    with pytest.raises(ValueError, match="it is -inf at start=1"):
        dpm_solver_adaptive(FLOW, m.MODEL, X)


def test_a_denoiser_of_another_shape_is_named():
    with pytest.raises(ValueError, match="denoiser returned shape"):
        dpm_solver_adaptive(VP, lambda x, c, k: (x[..., :0], k), X, **ENDS)


def test_whole_numbers_and_other_trees_are_refused():
    with pytest.raises(ValueError, match="x must be floating, got int"):
        dpm_solver_adaptive(VP, m.MODEL, jnp.arange(3)[:, None], **ENDS)
    with pytest.raises(ValueError, match="one prediction per leaf"):
        dpm_solver_adaptive(VP, lambda x, c, k: ([x], k), X, **ENDS)
