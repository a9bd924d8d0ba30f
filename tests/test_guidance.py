"""Guidance: the formula, one batched call, controls, interval, thresholding."""

import queue

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd

VP = fd.processes.vp_linear()
TS = fd.grids.log_snr(VP, 6)
CALLS = queue.SimpleQueue()


def net(x, t, y):
    CALLS.put(x.shape)
    return jnp.tanh(x) * y[:, None] + t


MODEL = fd.models.denoiser(net, VP, prediction="data")
X = jnp.linspace(-2, 2, 12).reshape(4, 3)
Y = jnp.arange(4.0)


def at(t=0.4, **controls):
    level = (jnp.asarray(VP.alpha(t)), jnp.asarray(VP.sigma(t)))
    return fd.Context(jnp.int32(0), jnp.asarray(t), *level, controls or None)


def plain(y):
    return MODEL(X, at()._replace(condition=y), None)[0]


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.5])
def test_formula_and_one_call(scale):
    got, _ = fd.guidance.cfg(MODEL, scale, condition=Y, null=-1.0)(X, at(), None)
    assert [CALLS.get() for _ in range(CALLS.qsize())][-1] == (8, 3)
    null = plain(jnp.full(4, -1.0))
    np.testing.assert_allclose(got, null + scale * (plain(Y) - null), rtol=1e-12)


def test_scale_one_samples_the_conditional_model():
    guided = fd.guidance.cfg(MODEL, 1.0, condition=Y, null=0.0)
    alone = fd.models.denoiser(net, VP, prediction="data", condition=Y)
    plan = fd.solvers.unipc(VP, TS)
    np.testing.assert_allclose(
        fd.sample(plan, guided, X), fd.sample(plan, alone, X), rtol=1e-10
    )


def test_scale_per_row_and_per_sample():
    guided = fd.guidance.cfg(MODEL, 9.0, condition=Y, null=0.0)
    got, _ = guided(X, at(guidance_scale=jnp.float64(2.0)), None)
    want, _ = fd.guidance.cfg(MODEL, 2.0, condition=Y, null=0.0)(X, at(), None)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    each = jnp.array([0.0, 1.0, 2.0, 3.0])
    got, _ = fd.guidance.cfg(MODEL, each, condition=Y, null=0.0)(X, at(), None)
    for i, s in enumerate(each):
        one, _ = fd.guidance.cfg(MODEL, s, condition=Y, null=0.0)(X, at(), None)
        np.testing.assert_allclose(got[i], one[i], rtol=1e-12)
    plan = fd.solvers.ddim(VP, TS)
    scales = np.linspace(1, 4, 6)
    ramp = fd.sample(plan, guided, X, controls={"guidance_scale": scales})
    assert not np.allclose(ramp, fd.sample(plan, guided, X))


def test_interval_is_off_outside():
    guided = fd.guidance.cfg(MODEL, 5.0, condition=Y, null=0.0, interval=(0.2, 2.0))
    for t in (0.05, 0.4, 0.9):
        rho = float(VP.sigma(t) / VP.alpha(t))
        got, _ = guided(X, at(t), None)
        scale = 5.0 if 0.2 < rho <= 2.0 else 1.0
        want, _ = fd.guidance.cfg(MODEL, scale, condition=Y, null=0.0)(X, at(t), None)
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_outputs_carry_both_predictions():
    guided = fd.guidance.cfg(MODEL, 2.0, condition=Y, null=0.0, outputs=True)
    (mixed, cond, null), _ = guided(X, at(), None)
    np.testing.assert_allclose(mixed, null + 2 * (cond - null), rtol=1e-12)


def test_clip_and_threshold():
    wide = fd.models.denoiser(lambda x, t: 3 * x, prediction="data")
    got, _ = fd.transforms.clip(wide, -1.0, 2.0)(X, at(), None)
    np.testing.assert_allclose(got, np.clip(3 * np.asarray(X), -1, 2))
    got, _ = fd.transforms.dynamic_threshold(wide, 0.9)(X, at(), None)
    flat = 3 * np.asarray(X)
    s = np.maximum(np.quantile(np.abs(flat), 0.9, axis=1), 1.0)[:, None]
    np.testing.assert_allclose(got, np.clip(flat, -s, s) / s, rtol=1e-12)
    both, _ = fd.transforms.clip(wide, outputs=True)(X, at(), None)
    np.testing.assert_allclose(both[1], flat)
    inside = fd.models.denoiser(lambda x, t: 0.1 * x, prediction="data")
    same, _ = fd.transforms.dynamic_threshold(inside, 0.9)(X, at(), None)
    np.testing.assert_allclose(same, 0.1 * X, rtol=1e-12)


def deaf(x, t, y):
    return jnp.tanh(x) + t + 0 * t * y.size  # its shape is no condition


def by_carry(x, context, carry):
    """Reads the condition now and uses it at the next evaluation."""
    return x * carry[:, None], context.condition


by_carry.initial_carry = lambda x: jnp.zeros(len(x))


@pytest.mark.parametrize("jit", [False, True])
def test_a_network_that_ignores_its_condition_is_refused(jit):
    net = jax.jit(deaf) if jit else deaf
    model = fd.models.denoiser(net, VP, prediction="data")
    plan = fd.solvers.ddim(VP, TS)
    guided = fd.guidance.cfg(model, condition=Y, null=0.0)
    with pytest.raises(ValueError, match="condition must reach the prediction"):
        fd.sample(plan, fd.transforms.clip(guided), X)


@pytest.mark.parametrize(
    "model",
    [
        by_carry,
        lambda x, c, k: (jnp.where(c.condition[:, None] > 1, x, 0), k),
        lambda x, c, k: (
            jax.lax.fori_loop(0, c.condition.astype(int).max(), lambda _, v: v / 2, x),
            k,
        ),
    ],
)
def test_a_condition_that_is_read_in_odd_ways_is_none_of_these(model):
    plan = fd.solvers.ddim(VP, TS)
    fd.sample(plan, fd.guidance.cfg(model, condition=Y, null=0.0), X)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: fd.guidance.cfg(MODEL, condition=Y, null=0.0, interval=(2.0, 1.0)),
            "0 <= low < high",
        ),
        (
            lambda: fd.guidance.cfg(MODEL, condition={"y": Y}, null=0.0),
            "one structure",
        ),
        (
            lambda: fd.guidance.cfg(MODEL, condition=None, null=None),
            "condition must be an array",
        ),
        (
            lambda: fd.guidance.cfg(MODEL, condition=Y, null=jnp.zeros(3)),
            r"to broadcast to the condition.s shape \(4,\)",
        ),
        (
            lambda: fd.guidance.cfg(
                fd.guidance.cfg(MODEL, condition=Y, null=0.0), condition=Y, null=0.0
            ),
            "without guidance of its own",
        ),
        (
            lambda: fd.guidance.cfg(MODEL, condition=Y[:3], null=0.0)(X, at(), None),
            r"condition must be one per sample, \(4, ...\)",
        ),
        (
            lambda: fd.guidance.cfg(MODEL, Y[:3], condition=Y, null=0.0)(X, at(), None),
            r"scale must be one number, or one per sample \(4,\)",
        ),
        (lambda: fd.transforms.clip(MODEL, 1.0, -1.0), "high must be above low"),
        (lambda: fd.transforms.dynamic_threshold(MODEL, 1.5), r"in \(0, 1\], got 1.5"),
        (
            lambda: fd.transforms.dynamic_threshold(MODEL, floor=0.0),
            "floor must be in",
        ),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_null_of_another_float_type_is_right_and_half_a_label_is_not():
    wide = jnp.ones((4, 3), jnp.float32)
    for null in (0.1, np.full(3, 0.1), 0):
        made = fd.guidance.cfg(MODEL, condition=wide, null=null)
        assert made.null.dtype == jnp.float32
    labels = jnp.arange(4)
    assert fd.guidance.cfg(MODEL, condition=labels, null=10).null == 10
    for condition, null in ((labels, 0.5), (wide, 1j), (wide, jax.random.key(0))):
        with pytest.raises(ValueError, match="null must be"):
            fd.guidance.cfg(MODEL, condition=condition, null=null)
