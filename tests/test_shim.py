"""The stateless scheduler: its loop is the plan's run, jitted or not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.interop import Shim, from_scheduler_config

CLASSES = [
    ("DDIMScheduler", {"clip_sample": True}),
    ("DDIMScheduler", {"clip_sample": False, "timestep_spacing": "linspace"}),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True}),
    ("HeunDiscreteScheduler", {}),
    ("LMSDiscreteScheduler", {}),
    ("KDPM2DiscreteScheduler", {}),
    ("UniPCMultistepScheduler", {"solver_order": 3}),
    ("DPMSolverMultistepScheduler", {"thresholding": True}),
    ("DPMSolverSinglestepScheduler", {"solver_order": 3}),
    ("DEISMultistepScheduler", {"prediction_type": "v_prediction"}),
    ("PNDMScheduler", {}),
    ("PNDMScheduler", {"skip_prk_steps": True}),
    ("IPNDMScheduler", {}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    ("EDMDPMSolverMultistepScheduler", {}),
    ("FlaxDPMSolverMultistepScheduler", {"solver_order": 3}),
    ("FlaxUniPCMultistepScheduler", {}),
    ("FlaxFlowMatchScheduler", {"reverse_sigmas": True}),
    ("RectifiedFlowScheduler", {"sampler": "LinearQuadratic"}),
    ("CogVideoXDDIMScheduler", {}),
    ("DDIMInverseScheduler", {}),
    ("DPMSolverMultistepInverseScheduler", {}),
]
SHAPE = (3, 4)


def network(x, t):
    t = jnp.asarray(t, x.dtype)
    return jnp.tanh(jnp.asarray(0.7, x.dtype) * x) + jnp.sin(t / 300).astype(x.dtype)


def start(made):
    return made.initial * np.random.default_rng(0).normal(size=SHAPE)


def one(shim, state, x, t, **options):
    out = network(shim.scale_model_input(state, x, t), t)
    return shim.step(state, out, t, x, **options)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "extra"), CLASSES)
def test_the_loop_is_the_plan(name, extra):
    config = {"_class_name": name, **extra}
    made = from_scheduler_config(config, 10)
    x = start(made)
    row = lambda i: jax.tree.map(lambda w: w[i], made.plan.rows)  # noqa: E731
    denoiser = made.denoiser(network)

    def predict(x, i):
        r = row(i)
        context = fd.Context(r.index, *r.level, r.controls)
        return jax.tree.map(np.asarray, denoiser(jnp.asarray(x), context, None)[0])

    want = fd.plan.replay(made.plan, predict, x)
    shim = Shim(config)
    state = shim.set_timesteps(shim.create_state(), 10, SHAPE, dtype=jnp.float64)
    assert float(state.init_noise_sigma) == made.initial

    def body(carry, t):
        return tuple(one(shim, carry[1], carry[0], t)), None

    loop = jax.jit(lambda x, s: jax.lax.scan(body, (x, s), jnp.asarray(s.timesteps)))
    (got, state), _ = loop(jnp.asarray(x), state)
    assert int(state.index) == made.plan.length
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-11 * max(1, made.initial))


def test_outside_jit_and_as_a_tuple():
    config = {"_class_name": "FlaxDDIMScheduler", "clip_sample": False}
    made = from_scheduler_config(config, 5)
    x = jnp.asarray(start(made))
    want = fd.sample(made.plan, made.denoiser(network), x)
    shim = Shim(config)
    state = shim.set_timesteps(shim.create_state(), 5, SHAPE, dtype=jnp.float64)
    for t in state.timesteps:
        x, state = one(shim, state, x, t, return_dict=False).to_tuple()
    np.testing.assert_allclose(x, want, rtol=1e-12)
    with pytest.raises(ValueError, match="all 5 steps are taken"):
        one(shim, state, x, 0)


def test_repeated_labels_are_told_apart():
    """Labels that fall together: a look-up by value would take the first twice."""
    config = {"_class_name": "UniPCMultistepScheduler", "use_exponential_sigmas": True}
    made = from_scheduler_config(config, 60)
    assert (np.diff(made.labels) == 0).any()
    shim = Shim(config)
    state = shim.set_timesteps(shim.create_state(), 60, SHAPE, dtype=jnp.float64)

    def body(carry, t):
        return tuple(one(shim, carry[1], carry[0], t)), None

    x = jnp.asarray(start(made))
    (got, _), _ = jax.lax.scan(body, (x, state), jnp.asarray(state.timesteps))
    want = fd.sample(made.plan, made.denoiser(network), x)
    np.testing.assert_allclose(got, want, rtol=1e-10)


def test_a_changed_sample_is_taken_up():
    config = {"_class_name": "DPMSolverMultistepScheduler"}
    shim = Shim(config)
    state = shim.set_timesteps(shim.create_state(), 5, SHAPE, dtype=jnp.float64)
    x = jnp.ones(SHAPE)
    _, state = one(shim, state, x, state.timesteps[0])
    a = one(shim, state, x, state.timesteps[1]).prev_sample
    b = one(shim, state, 2 * x, state.timesteps[1]).prev_sample
    assert np.abs(a - b).max() > 0.1


def test_starting_later_warms_up_there():
    config = {"_class_name": "DPMSolverMultistepScheduler"}
    shim = Shim(config)
    whole = shim.set_timesteps(shim.create_state(), 20, SHAPE)
    late = shim.set_timesteps(whole, 20, SHAPE, begin=12, dtype=jnp.float64)
    assert (late.timesteps == whole.timesteps[12:]).all()
    made = from_scheduler_config(config, 20, begin=12)
    x = z = jnp.asarray(start(made))
    for t in late.timesteps:
        x, late = one(shim, late, x, t)
    want = fd.sample(made.plan, made.denoiser(network), z)
    np.testing.assert_allclose(x, want, rtol=1e-11)
    with pytest.raises(ValueError, match="timestep=.*call 0 is at 999.*begin="):
        one(shim, whole, z, whole.timesteps[12])


def test_noise_comes_from_the_key_or_is_given(key):
    shim = Shim({"_class_name": "DDPMScheduler"})
    state = shim.set_timesteps(shim.create_state(), 5, SHAPE, dtype=jnp.float64)
    x, t = jnp.ones(SHAPE), state.timesteps[0]
    drawn = one(shim, state, x, t, key=key).prev_sample
    z = jax.random.normal(key, SHAPE, jnp.float64)
    given = one(shim, state, x, t, noise=z).prev_sample
    np.testing.assert_allclose(drawn, given, rtol=1e-15)
    with pytest.raises(ValueError, match="pass key="):
        one(shim, state, x, t)


def test_the_sample_keeps_its_dtype_and_the_run_is_float32():
    shim = Shim({"_class_name": "DDIMScheduler"})
    state = shim.set_timesteps(shim.create_state(), 5, SHAPE)
    x = jnp.ones(SHAPE, jnp.bfloat16)
    out, state = shim.step(state, jnp.zeros_like(x), state.timesteps[0], x)
    assert out.dtype == jnp.bfloat16 and state.run.point.dtype == jnp.float32


@pytest.mark.parametrize(
    ("config", "label", "alpha", "sigma"),
    [
        ({"_class_name": "DDIMScheduler"}, 500, None, None),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, 250.0, 0.75, 0.25),
        ({"_class_name": "EulerDiscreteScheduler"}, 499.5, 1.0, "level"),
        ({"_class_name": "EDMEulerScheduler"}, "third", 1.0, "level"),
    ],
)
def test_add_noise(config, label, alpha, sigma):
    shim = Shim(config)
    state = shim.set_timesteps(shim.create_state(), 5, SHAPE)
    made = from_scheduler_config(config, 5)
    label = made.labels[2] if label == "third" else label
    if sigma == "level":
        sigma = made.plan.rows.level.sigma[2]
    if alpha is None:
        bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[500]
        alpha, sigma = np.sqrt(bar), np.sqrt(1 - bar)
    x, z = jnp.full(SHAPE, 2.0), jnp.ones(SHAPE)
    for t in (label, jnp.full(3, label)):
        got = jax.jit(shim.add_noise)(state, x, z, jnp.asarray(t))
        np.testing.assert_allclose(got, 2 * alpha + sigma, rtol=1e-9)


def test_before_set_timesteps():
    shim = Shim({"_class_name": "EulerDiscreteScheduler"})
    state = shim.create_state()
    assert len(state.timesteps) == 1000
    x = jnp.ones(SHAPE)
    noised = shim.add_noise(state, x, x, jnp.asarray([999, 500, 0]))
    assert float(noised[0, 0]) == pytest.approx(1 + float(state.init_noise_sigma))
    with pytest.raises(ValueError, match="call set_timesteps"):
        shim.step(state, x, 999, x)
