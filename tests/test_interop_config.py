"""Published scheduler configs: what is read, what is refused, what the network gets."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.interop import from_scheduler_config, read

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
pytestmark = pytest.mark.filterwarnings("ignore:.*change nothing")
SDXL = {  # a published config: it holds settings of other classes
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.19.0.dev0",
    **SD,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}


def test_a_published_file_is_read(tmp_path):
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps(SDXL | {"lambda_min_clipped": -np.inf}))
    with pytest.warns(UserWarning, match="change nothing"):
        made = from_scheduler_config(path, 4)
    assert (made.labels == [751, 501, 251, 1]).all()
    assert made.name == "EulerDiscreteScheduler" and made.prediction == "noise"
    rho = np.sqrt(1 / np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2))
    sigma = np.sqrt(rho**2 - 1)[[751, 501, 251, 1]]
    np.testing.assert_allclose(made.ts, [*sigma, 0], rtol=1e-10)
    assert made.initial == pytest.approx(np.hypot(sigma[0], 1))


def test_settings_without_effect_are_said_once():
    config = SDXL | {"timestep_spacing": "linspace", "sigma_max": 20.0}
    told = "these change nothing: clip_sample=False, .*, skip_prk_steps=True .*no such"
    with pytest.warns(UserWarning, match=told + ".*steps_offset=1, sigma_max=20.0"):
        made = from_scheduler_config(config, 6, s_noise=1.1)
    none = "EulerDiscreteScheduler has no such setting"
    assert made.unused == dict.fromkeys(
        ("clip_sample", "sample_max_value", "set_alpha_to_one", "skip_prk_steps"), none
    ) | dict.fromkeys(
        ("steps_offset", "sigma_max", "s_noise"), "no effect beside the others"
    )


@pytest.mark.filterwarnings("error")
def test_settings_with_an_effect_are_not():
    """Each is left out in turn; what a network is told counts, too."""
    for config, options in (
        (ddim(thresholding=True, dynamic_thresholding_ratio=0.9), {}),
        (ddim(clip_sample_range=2.0), {"use_clipped_model_output": True}),
        (unipc(sigma_max=20.0, use_karras_sigmas=True), {}),
        ({"_class_name": "EDMEulerScheduler", "sigma_data": 1.0}, {}),
        ({"_class_name": "LCMScheduler", "timestep_scaling": 5.0}, {"strength": 0.5}),
        (flow(invert_sigmas=True), {}),
        ({"_class_name": "EulerDiscreteScheduler"}, {"s_churn": 4.0, "s_noise": 1.1}),
    ):
        assert from_scheduler_config(config, 4, **options).unused == {}


def test_clipping_is_off_where_the_published_step_does_none():
    """UniPC thresholds its data prediction only; TCD and CogVideoX take D as it is."""
    for config in (
        unipc(predict_x0=False, thresholding=True, final_sigmas_type="sigma_min"),
        {"_class_name": "TCDScheduler", "clip_sample": True},
        {"_class_name": "CogVideoXDDIMScheduler", "clip_sample_range": 0.1},
    ):
        with pytest.warns(UserWarning, match="change nothing"):
            made = from_scheduler_config(config, 4)
        assert list(made.unused) == [list(config)[-1]] or "thresholding" in made.unused
        model = made.denoiser(lambda x, t: 0.0 * x)
        level = jax.tree.map(lambda w: w[0], made.plan.rows.level)
        context = fd.Context(0, *level, {"model_time": made.labels[0]})
        x = jnp.full((1, 2), 3.0)
        np.testing.assert_allclose(model(x, context, None)[0], x / level.alpha)


def test_flax_names_have_the_flax_classes_ends():
    dpm = from_scheduler_config({"_class_name": "FlaxDPMSolverMultistepScheduler"}, 5)
    assert dpm.ts[-1] == 0.0  # label 0: not clean
    pndm = {"_class_name": "FlaxPNDMScheduler", "skip_prk_steps": True}
    assert from_scheduler_config(pndm, 5).ts[-1] == 0.0
    with pytest.warns(UserWarning, match="set_alpha_to_one=True"):
        assert from_scheduler_config(pndm | {"set_alpha_to_one": True}, 5).ts[-1] == 0
    euler = {"_class_name": "FlaxEulerDiscreteScheduler", "timestep_spacing": "leading"}
    assert (from_scheduler_config(euler, 4).labels == [751, 501, 251, 1]).all()


def test_a_step_that_lands_between_labels_is_noised_as_ddims():
    """Whole steps of the same call land on labels: there the two builders agree."""
    config = ddim(clip_sample=False, timestep_spacing="trailing")
    apart = from_scheduler_config(config, 7, eta=0.5)  # 1000 / 7 is not whole
    whole = from_scheduler_config(config, 8, eta=0.5)
    for made in (apart, whole):
        s = made.labels
        t = np.where(s - 1000 // len(s) < 0, -1.0, s - 1000 // len(s))
        a, b = made.process.alpha(s), made.process.alpha(t)
        c = 0.5 * np.sqrt((1 - b**2) / (1 - a**2) * (1 - a**2 / b**2))
        keep = np.sqrt(1 - b**2 - c**2) / np.sqrt(1 - a**2)
        rows = made.plan.rows
        np.testing.assert_allclose(rows.registers[:, 0, 0], keep, atol=1e-12)
        np.testing.assert_allclose(rows.predictions[:, 0, 0], b - keep * a, atol=1e-12)
        np.testing.assert_allclose(rows.noise[:, 0], c, atol=1e-12)


def test_a_stage_and_its_step_share_one_path():
    """DPM++ SDE: variance and covariance of the published Brownian increments."""
    made = from_scheduler_config({"_class_name": "DPMSolverSDEScheduler"}, 4)
    s, m, t = (made.plan.rows.level.sigma[i] for i in (0, 1, 2))
    rows, store = made.plan.rows, made.plan.registers - 1
    first, second = rows.noise[0, 0], rows.noise[1, 0]
    shared = rows.registers[1, 0, store]
    np.testing.assert_allclose(first, m * np.sqrt(1 - m**2 / s**2), rtol=1e-12)
    up = t * np.sqrt(1 - t**2 / s**2)
    np.testing.assert_allclose(np.hypot(second, shared), up, rtol=1e-12)
    np.testing.assert_allclose(shared / up, np.sqrt((s - m) / (s - t)), rtol=1e-12)


def test_zero_terminal_snr_tells_the_last_label_first():
    """The level 2^12 stands at two places of the table; the later one is its label."""
    config = dpm(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    for curve in ("use_lu_lambdas", "use_karras_sigmas", "use_beta_sigmas"):
        assert from_scheduler_config(config | {curve: True}, 10).labels[0] == 999


@pytest.mark.parametrize("space", ["vp", "ve", "flow", "edm"])
def test_the_network_gets_the_scaled_state_and_the_label(space):
    config = {
        "vp": {"_class_name": "DDIMScheduler", "clip_sample": False},
        "ve": SDXL,
        "flow": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
        "edm": {"_class_name": "EDMEulerScheduler"},
    }[space]
    made = from_scheduler_config(config, 5)
    seen = []
    scale = {"vp": 1, "flow": 1, "ve": 1, "edm": 0.5}[space]
    model = made.denoiser(lambda x, t: (seen.append((x, t)), x)[1])
    level = jax.tree.map(lambda w: w[2], made.plan.rows.level)
    context = fd.Context(2, *level, {"model_time": made.labels[2]})
    x = jnp.asarray([[0.3, -2.0]])
    model(x, context, None)
    size = np.hypot(level.sigma, scale) if space in ("ve", "edm") else 1.0
    np.testing.assert_allclose(seen[0][0], x / size, rtol=1e-12)
    assert float(seen[0][1]) == made.labels[2]


def test_a_setting_that_matters_changes_the_plan():
    base = from_scheduler_config(SDXL, 6)
    other = from_scheduler_config(SDXL | {"use_karras_sigmas": True}, 6)
    assert np.abs(base.ts - other.ts).max() > 0.1


def test_guidance_comes_before_clipping():
    config = {"_class_name": "DDPMScheduler", "clip_sample": True}
    made = from_scheduler_config(config | {"prediction_type": "sample"}, 5)

    def triple(inner):
        return lambda x, c, carry: (3 * inner(x, c, carry)[0], carry)

    model = made.denoiser(lambda x, t: x, guidance=triple)
    level = jax.tree.map(lambda w: w[0], made.plan.rows.level)
    context = fd.Context(0, *level, {"model_time": made.labels[0]})
    got = model(jnp.asarray([[0.2, 0.9]]), context, None)[0]
    np.testing.assert_allclose(got, [[0.6, 1.0]], rtol=1e-12)


def test_ddpm_is_the_ancestral_step():
    config = {"_class_name": "DDPMScheduler", "clip_sample": False}
    small = from_scheduler_config(config, 5)
    eta = from_scheduler_config(
        {"_class_name": "DDIMScheduler", "clip_sample": False}, 5, eta=1.0
    )
    for a, b in zip(
        jax.tree.leaves(small.plan), jax.tree.leaves(eta.plan), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    large = from_scheduler_config(config | {"variance_type": "fixed_large"}, 5)
    alpha = small.process.alpha(small.ts)
    beta = 1 - (alpha[:-1] / alpha[1:]) ** 2
    for noise in large.plan.rows.noise.T:  # of the point and of the sample
        np.testing.assert_allclose(noise[:-1], np.sqrt(beta[:-1]), rtol=1e-12)
        assert noise[-1] == 0


def test_inverted_flow_is_the_same_path_run_by_another_clock():
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
    plain = from_scheduler_config(config, 6)
    turned = from_scheduler_config(config | {"invert_sigmas": True}, 6)
    np.testing.assert_allclose(turned.labels, 1000 - plain.labels, atol=1e-9)
    x = jnp.asarray([[0.4, -1.0]])
    a = fd.sample(plain.plan, plain.denoiser(lambda x, t: x * t / 1000), x)
    b = fd.sample(turned.plan, turned.denoiser(lambda x, t: -x * (1 - t / 1000)), x)
    np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["linspace", "trailing", "leading"])
def test_plms_on_labels_that_its_steps_miss(spacing, kind):
    """An independent loop of the library's rule, on integer labels."""
    config = {"_class_name": "PNDMScheduler", "skip_prk_steps": True}
    config |= {"set_alpha_to_one": True, "timestep_spacing": spacing} | SD
    made = from_scheduler_config(config | {"prediction_type": kind}, 7)
    bar = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    network = lambda x, t: np.tanh(0.7 * x) + np.sin(t / 300)  # noqa: E731

    def move(x, t, to, out):
        a, b = bar[t], bar[to] if to >= 0 else 1.0
        if kind == "v_prediction":
            out = np.sqrt(a) * out + np.sqrt(1 - a) * x
        return np.sqrt(b) * (x - np.sqrt(1 - a) * out) / np.sqrt(a) + (
            np.sqrt(1 - b) * out
        )

    start = x = np.random.default_rng(0).normal(size=(3, 4))
    labels, apart, past = made.labels.astype(int), 1000 // 7, []
    weights = [[1], [3 / 2, -1 / 2], [23 / 12, -4 / 3, 5 / 12]]
    weights += [[55 / 24, -59 / 24, 37 / 24, -9 / 24]]
    for call, t in enumerate(labels):
        out = network(x, t)
        if call == 1:
            x = move(start, t + apart, t, (out + past[0]) / 2)
            continue
        past = [out, *past[:3]]
        mean = sum(w * p for w, p in zip(weights[len(past) - 1], past, strict=True))
        x = move(x, t, t - apart, mean)
    level = made.plan.rows.level

    def data(x, i):
        a, s, out = level.alpha[i], level.sigma[i], network(x, made.labels[i])
        return (x - s * out) / a if kind == "epsilon" else a * x - s * out

    got = fd.plan.replay(made.plan, data, start)
    np.testing.assert_allclose(got, x, rtol=0, atol=1e-12)


def ddim(**more):
    return {"_class_name": "DDIMScheduler", **more}


def dpm(**more):
    return {"_class_name": "DPMSolverMultistepScheduler", **more}


def flow(**more):
    return {"_class_name": "FlowMatchEulerDiscreteScheduler", **more}


def pndm(**more):
    return {"_class_name": "PNDMScheduler", **more}


def unipc(**more):
    return {"_class_name": "UniPCMultistepScheduler", **more}


BAD = [
    ({"beta_start": 0.1}, {}, "no '_class_name'"),
    ({"_class_name": "DDIMSchedular"}, {}, "Did you mean 'DDIMScheduler'"),
    (ddim(step_offset=1), {}, "step_offset=1.*Did you mean 'steps_offset'"),
    (ddim(beta_schedule="linera"), {}, "beta_schedule must be one of.*'linera'"),
    (ddim(clip_sample=1), {}, "clip_sample must be true or false, got 1"),
    (ddim(steps_offset=-1), {}, "steps_offset must be a whole number >= 0"),
    (ddim(use_karras_sigmas=True), {}, "use_karras_sigmas=True has no effect on DDIM"),
    (ddim(prediction_type="flow_prediction"), {}, "prediction_type must be one of"),
    (
        ddim(thresholding=True, sample_max_value=0.5),
        {},
        "sample_max_value must be >= 1",
    ),
    (ddim(steps_offset=500), {}, "steps_offset=500 moves the first of 6"),
    (ddim(), {"order": 2}, "takes no option order=2. Allowed: eta"),
    (ddim(), {"begin": 6}, "begin must lie in 0..5"),
    (pndm(skip_prk_steps=True), {"begin": 1}, "can only start at its first step"),
    (pndm(), {"steps": 3}, "skip_prk_steps=false needs at least 4 steps"),
    (ddim(), {"steps": 0}, "steps must be a whole number >= 1, got 0"),
    (ddim(), {"steps": None}, "steps is needed"),
    (ddim(), {"steps": 1001}, "at most 1000 steps"),
    (dpm(use_karras_sigmas=True, use_lu_lambdas=True), {}, "at most one of these"),
    (dpm(solver_order=4), {}, "solver_order must be 1, 2 or 3"),
    (dpm(algorithm_type="dpmsolver"), {}, "final_sigmas_type='zero' does not go with"),
    (dpm(algorithm_type="sde-dpmsolver"), {}, "algorithm_type='sde-dpmsolver'"),
    (dpm(prediction_type="flow_prediction"), {}, "needs use_flow_sigmas=true"),
    (dpm(use_flow_sigmas=True, use_beta_sigmas=True), {}, "does not go with use_beta"),
    (
        dpm(use_flow_sigmas=True, prediction_type="v_prediction"),
        {},
        "does not go with use_flow_sigmas",
    ),
    (dpm(time_shift_type="linear"), {}, "time_shift_type must be 'exponential'"),
    (dpm(), {"mu": 1.0}, "mu=1.0 needs use_dynamic_shifting=true"),
    (dpm(), {"timesteps": [9, 5]}, "steps=6, but the levels given make 2"),
    (dpm(), {"timesteps": [5, 9], "steps": None}, "timesteps must be a list of decr"),
    (
        dpm(use_karras_sigmas=True),
        {"timesteps": [9, 5], "steps": 2},
        "timesteps does not go with use_karras_sigmas",
    ),
    (unipc(), {"sigmas": [0.9, 0.5], "steps": 2}, "sigmas needs use_flow_sigmas"),
    (unipc(shift_terminal=0.1), {}, "shift_terminal=0.1 needs use_flow_sigmas"),
    (unipc(sigma_min=2.0, sigma_max=1.0), {}, "sigma_min=2.0 must be below"),
    (flow(use_dynamic_shifting=True), {}, "needs mu"),
    (
        flow(use_dynamic_shifting=True),
        {"mu": 1.0, "tokens": 256},
        "give mu or tokens, not both",
    ),
    (
        flow(use_dynamic_shifting=True, base_image_seq_len=9, max_image_seq_len=9),
        {"tokens": 256},
        "base_image_seq_len=9 equals",
    ),
    (
        flow(),
        {"sigmas": [1, 0.5], "timesteps": [9, 5], "steps": 2},
        "give sigmas or timesteps",
    ),
    (
        {"_class_name": "DDPMScheduler", "variance_type": "learned_range"},
        {},
        "variance_type='learned_range' is not supported",
    ),
    (
        {"_class_name": "DEISMultistepScheduler", "solver_order": 4},
        {},
        "solver_order must be 1, 2 or 3 for DEIS",
    ),
    (
        {"_class_name": "DEISMultistepScheduler", "algorithm_type": "sde-dpmsolver"},
        {},
        "algorithm_type must be 'deis'",
    ),
    (
        {"_class_name": "IPNDMScheduler", "trained_betas": [0.9, 0.5, 0.1]},
        {},
        "6 steps need 7",
    ),
    (
        {"_class_name": "EDMEulerScheduler", "sigma_min": None},
        {},
        "sigma_min and sigma_max must be numbers",
    ),
    (
        {
            "_class_name": "EDMDPMSolverMultistepScheduler",
            "algorithm_type": "dpmsolver",
        },
        {},
        "algorithm_type must be 'dpmsolver\\+\\+' for EDM",
    ),
    ({"_class_name": "FlaxHeunDiscreteScheduler"}, {}, "Did you mean 'HeunDiscrete"),
    ({"_class_name": "FlaxLMSDiscreteScheduler"}, {}, "use LMSDiscreteScheduler"),
    ({"_class_name": "FlaxKarrasVeScheduler"}, {}, "fd.solvers.edm_churn"),
    ({"_class_name": "FlaxScoreSdeVeScheduler"}, {}, "fd.solvers.predictor_corr"),
    ({"_class_name": "FlaxDDPMScheduler"}, {}, "6 steps leave most of the noise"),
    ({"_class_name": "FlaxDDIMScheduler"}, {"eta": 1.0}, "takes no option eta=1.0"),
    (
        {"_class_name": "FlaxEulerDiscreteScheduler", "timestep_spacing": "trailing"},
        {},
        "timestep_spacing must be one of 'linspace', 'leading' for FlaxEuler",
    ),
    (
        {"_class_name": "FlaxDPMSolverMultistepScheduler", "thresholding": True},
        {},
        "for a percentage",
    ),
    (
        {"_class_name": "FlaxDPMSolverMultistepScheduler"},
        {"steps": 1000},
        "1000 steps rounds 1 labels onto others",
    ),
    (
        {"_class_name": "FlaxUniPCMultistepScheduler", "use_karras_sigmas": True},
        {},
        "use_karras_sigmas=true fails as published",
    ),
    (
        {"_class_name": "FlaxUniPCMultistepScheduler", "lower_order_final": False},
        {},
        "lower_order_final=false extrapolates",
    ),
    (
        {"_class_name": "FlaxUniPCMultistepScheduler", "predict_x0": False},
        {},
        "predict_x0=false leaves the noise",
    ),
    (
        {"_class_name": "FlaxFlowMatchScheduler", "inverse_timesteps": True},
        {},
        "inverse_timesteps=true fails as published",
    ),
    (
        {"_class_name": "FlaxFlowMatchScheduler"},
        {"denoising_strength": 1.5},
        "denoising_strength must be a number in",
    ),
    (
        {"_class_name": "FlaxFlowMatchScheduler", "sigma_max": 2.0},
        {},
        "sigma_max=2.0 is beyond the noise end",
    ),
    (
        {"_class_name": "RectifiedFlowScheduler", "sampler": "Constant"},
        {},
        "sampler='Constant' needs shift",
    ),
    (
        {"_class_name": "RectifiedFlowScheduler", "shifting": "SD3"},
        {"samples_shape": (2, 3)},
        "samples_shape must be",
    ),
    (
        {
            "_class_name": "RectifiedFlowScheduler",
            "shifting": "SimpleDiffusion",
            "base_resolution": None,
        },
        {"samples_shape": (2, 3, 4)},
        "needs base_resolution",
    ),
    (flow(shift=None), {}, "shift must be a number > 0 for FlowMatchEuler"),
    (
        flow(invert_sigmas=True, stochastic_sampling=True),
        {},
        "ends in pure noise as published; set invert_sigmas to false",
    ),
    (
        {"_class_name": "FlowMatchLCMScheduler", "invert_sigmas": True},
        {},
        "ends in pure noise",
    ),
    (
        {"_class_name": "FlowMatchLCMScheduler", "scale_factors": [1.0, 2.0]},
        {},
        "scale_factors must be null",
    ),
    (
        {"_class_name": "EDMEulerScheduler", "sigma_schedule": "exponential"},
        {"steps": 1},
        "one step is a grid of sigma_min alone",
    ),
    (
        {"_class_name": "SASolverScheduler", "predictor_order": 5},
        {},
        "predictor_order must be one of 1, 2, 3, 4",
    ),
    (
        {
            "_class_name": "SASolverScheduler",
            "algorithm_type": "noise_prediction",
            "thresholding": True,
        },
        {},
        "algorithm_type='noise_prediction' fails as published",
    ),
    (
        {"_class_name": "SASolverScheduler", "algorithm_type": "dpmsolver"},
        {},
        "algorithm_type must be one of 'data_prediction', 'noise_prediction'",
    ),
    (
        {"_class_name": "LCMScheduler", "original_inference_steps": 5},
        {},
        "has 5 labels to choose from",
    ),
    (
        {"_class_name": "LCMScheduler"},
        {"strength": 0.0},
        "strength must be a number in",
    ),
    (
        {"_class_name": "LCMScheduler"},
        {"original_inference_steps": 2000},
        "original_inference_steps must be a whole number in 1..1000 ",
    ),
    (
        {"_class_name": "TCDScheduler"},
        {"timesteps": [9, 5], "steps": None, "strength": 0.5},
        "strength=0.5 does not go with timesteps",
    ),
    (
        {"_class_name": "TCDScheduler"},
        {"eta": 1.5},
        "eta must be a number in .0, 1., got 1.5",
    ),
    (
        {"_class_name": "CosineDPMSolverMultistepScheduler", "solver_order": 3},
        {},
        "solver_order=3 is not supported by CosineDPM",
    ),
    ({"_class_name": "CogVideoXDDIMScheduler"}, {"eta": 1.0}, "takes no option eta"),
    (
        {"_class_name": "DDIMInverseScheduler", "timestep_spacing": "linspace"},
        {},
        "timestep_spacing must be one of 'leading', 'trailing'",
    ),
    ({"_class_name": "DDIMInverseScheduler"}, {"steps": 1001}, "at most 1000 steps"),
    (
        {"_class_name": "DPMSolverMultistepInverseScheduler", "use_flow_sigmas": True},
        {},
        "runs from noise to data as published",
    ),
    (
        {
            "_class_name": "DPMSolverMultistepInverseScheduler",
            "algorithm_type": "sde-dpmsolver++",
        },
        {},
        "takes the root of a negative number",
    ),
    (
        {"_class_name": "SASolverScheduler"},
        {"tau_func": 1.0},
        "a function of the label",
    ),
    (
        {"_class_name": "SASolverScheduler"},
        {"tau_func": lambda label: -1.0},
        "tau_func must give one finite number",
    ),
    (ddim(), {"eta": [0.5]}, "eta must be a number in .0, 1., got"),
    (ddim(), {"begin": 0.5}, "begin must be a whole number"),
    (flow(use_dynamic_shifting=True), {"mu": "1"}, "mu must be a number in"),
    (dpm(), {"timesteps": [], "steps": None}, "timesteps must be a list of decr"),
    (ddim(steps_offset=10**400), {}, "steps_offset must be a whole number >= 0"),
    (ddim(num_train_timesteps=10**9), {}, "a whole number in 1..1000000, got 10000"),
    (ddim(trained_betas=[0.1, "a"]), {}, "trained_betas must be null or a list of 2"),
    (dpm(), {"steps": 10**9}, "steps must be at most 1000000"),
    (
        dpm(use_flow_sigmas=True, final_sigmas_type="sigma_min"),
        {"steps": 200},
        "no decr",
    ),
    (
        dpm(use_flow_sigmas=True),
        {"timesteps": [9, 5], "steps": 2},
        "timesteps does not go with use_flow_sigmas",
    ),
]


@pytest.mark.parametrize(("config", "call", "words"), BAD)
def test_bad_settings_are_named(config, call, words):
    with pytest.raises(ValueError, match=words):
        from_scheduler_config(config, **{"steps": 6, **call})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ("[1]", "must hold a JSON object"),
        ("[" * 100_000, "not valid JSON"),
        ('{"eta": 1, "eta": 2}', "the key 'eta' stands there twice"),
    ],
)
def test_bad_files_are_named(tmp_path, text, words):
    path = tmp_path / "scheduler_config.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        read(path)


def test_dynamic_shift_by_image_size():
    config = flow(use_dynamic_shifting=True)
    by_size = from_scheduler_config(config, 4, tokens=4096)
    by_mu = from_scheduler_config(config, 4, mu=1.15)
    np.testing.assert_allclose(by_size.ts, by_mu.ts, rtol=1e-14)
