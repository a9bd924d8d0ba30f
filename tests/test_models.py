"""Denoisers: every prediction, flax adapters, exact ones, the embedded digits."""

import hashlib
import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import fastdiff_jax as fd
from fastdiff_jax.models import digits

PATHS = {
    "vp": fd.processes.vp_linear(),
    "sub": fd.processes.sub_vp(),
    "edm": fd.processes.edm(),
    "flow": fd.processes.flow(),
    "sd": fd.processes.vp_discrete(),
}
D, E = 0.7, -1.3


def context(process, t):
    level = (jnp.asarray(process.alpha(t)), jnp.asarray(process.sigma(t)))
    return fd.Context(jnp.int32(0), jnp.asarray(t), *level)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("prediction", fd.models.PREDICTIONS)
def test_every_prediction_gives_the_data(path, prediction):
    process = PATHS[path]
    t = 400.0 if path == "sd" else 0.37
    a, s = float(process.alpha(t)), float(process.sigma(t))
    da, ds = (float(r) for r in process.rates(t))
    out = {
        "noise": E,
        "data": D,
        "v": a * E - s * D,
        "score": -E / s,
        "velocity": da * D + ds * E,
    }[prediction]
    model = fd.models.denoiser(
        lambda x, time: jnp.full_like(x, out), process, prediction=prediction
    )
    x = jnp.full((2, 3), a * D + s * E)
    got, carry = model(x, context(process, t), None)
    np.testing.assert_allclose(got, D, rtol=1e-10)
    assert carry is None


def test_wrong_prediction_name_gets_the_nearest():
    with pytest.raises(ValueError, match="got 'nosie'. Did you mean 'noise'"):
        fd.models.denoiser(lambda x, t: x, prediction="nosie")
    with pytest.raises(ValueError, match="'velocity' needs the process"):
        fd.models.denoiser(lambda x, t: x, prediction="velocity")


def test_noise_prediction_at_alpha_zero_is_refused_before_it_is_nan():
    flow = PATHS["flow"]
    model = fd.models.denoiser(lambda x, t: x, flow, prediction="noise")
    plan = fd.solvers.ddim(flow, [1.0, 0.5, 0.0])
    with pytest.raises(ValueError, match="alpha = 0, as at row 0, time 1"):
        fd.sample(plan, model, jnp.ones((2, 3)))
    velocity = fd.models.denoiser(lambda x, t: x, flow, prediction="velocity")
    assert np.isfinite(fd.sample(plan, velocity, jnp.ones((2, 3)))).all()


def test_model_time_and_conditions_reach_the_network():
    seen = {}

    def net(params, x, t, y):
        seen.update(t=t, y=y)
        return params * x

    process = fd.processes.vp_linear(train_steps=1000)
    model = fd.models.denoiser(
        net, process, prediction="noise", params=2.0, condition=jnp.arange(2.0)
    )
    x = jnp.ones((2, 3))
    model(x, context(process, 0.5), None)
    assert float(seen["t"]) == 499.0 and seen["y"].shape == (2,)
    told = context(process, 0.5)._replace(
        condition=jnp.arange(2.0) + 5, controls={"model_time": jnp.float64(7.0)}
    )
    model(x, told, None)
    assert float(seen["t"]) == 7.0 and float(seen["y"][0]) == 5.0


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x, t):
        return linen.Dense(3, param_dtype=jnp.float64)(x) * t[:, None]


class NNX(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(3, 3, rngs=rngs, param_dtype=jnp.float64)

    def __call__(self, x, t):
        return self.dense(x) * t[:, None]


def test_flax_adapters():
    process, x = PATHS["vp"], jnp.ones((2, 3))
    module = Linen()
    params = module.init(jax.random.key(0), x, jnp.ones(2))
    for model in (
        fd.models.from_linen(module, params, process, prediction="noise"),
        fd.models.from_flax(module, params["params"], process, prediction="noise"),
        fd.models.from_nnx(NNX(nnx.Rngs(0)), process, prediction="noise"),
        fd.models.from_flax(NNX(nnx.Rngs(0)), None, process, prediction="noise"),
    ):
        plan = fd.solvers.unipc(process, fd.grids.log_snr(process, 4))
        assert fd.sample(plan, model, x).shape == (2, 3)
        grad = jax.grad(lambda m, p=plan: fd.sample(p, m, x).sum(), allow_int=True)(
            model
        )
        total = sum(float(jnp.abs(g).sum()) for g in jax.tree.leaves(grad.params))
        assert np.isfinite(total) and total > 0
    with pytest.raises(ValueError, match="linen module needs params"):
        fd.models.from_flax(module, prediction="noise")
    with pytest.raises(ValueError, match="carries its own"):
        fd.models.from_flax(NNX(nnx.Rngs(0)), params, prediction="noise")


@pytest.mark.parametrize(
    "alpha,sigma", [(0.8, 0.6), (0.0, 1.0), (1.0, 0.0), (1.0, 5.0)]
)
def test_gaussian_posterior_is_the_matrix_formula(alpha, sigma):
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 3))
    cov, mean = root @ root.T + 0.1 * np.eye(3), rng.normal(size=3)
    x = rng.normal(size=(5, 3))
    model = fd.models.gaussian(mean, covariance=cov)
    got = model.posterior_mean(jnp.asarray(x), alpha, sigma)
    total = alpha**2 * cov + sigma**2 * np.eye(3)
    gain = alpha * cov @ np.linalg.inv(total)
    np.testing.assert_allclose(got, mean + (x - alpha * mean) @ gain.T, rtol=1e-10)
    diagonal = fd.models.gaussian(mean, np.diag(cov))
    full = fd.models.gaussian(mean, covariance=np.diag(np.diag(cov)))
    x = jnp.asarray(x)
    np.testing.assert_allclose(
        diagonal.posterior_mean(x, alpha, sigma),
        full.posterior_mean(x, alpha, sigma),
        rtol=1e-10,
    )


@pytest.mark.slow
def test_mixture_posterior_is_tweedies_formula():
    """D = (x + sigma^2 grad log p) / alpha, the density differentiated by JAX."""
    rng = np.random.default_rng(1)
    w, m, v = (
        np.array([0.2, 0.5, 0.3]),
        rng.normal(size=(3, 2)),
        rng.uniform(0.2, 1, (3, 2)),
    )
    a, s = 0.8, 0.6

    def log_density(x):
        total = a**2 * v + s**2
        parts = -0.5 * ((x[None] - a * m) ** 2 / total + jnp.log(total)).sum(1)
        return jax.nn.logsumexp(parts + jnp.log(w))

    x = jnp.asarray(rng.normal(size=(6, 2)))
    want = (x + s**2 * jax.vmap(jax.grad(log_density))(x)) / a
    model = fd.models.gaussian_mixture(w, m, v)
    np.testing.assert_allclose(model.posterior_mean(x, a, s), want, rtol=1e-10)
    covariances = np.stack([np.diag(row) for row in v])
    full = fd.models.gaussian_mixture(w, m, covariances=covariances)
    np.testing.assert_allclose(full.posterior_mean(x, a, s), want, rtol=1e-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: m.gaussian_mixture([1.0], np.ones((2, 3)), 1.0), "means"),
        (lambda m: m.gaussian_mixture([1.0, 0.0], np.ones((2, 3)), 1.0), "must be > 0"),
        (lambda m: m.gaussian_mixture([1.0], np.ones((1, 3)), -1.0), "must be > 0"),
        (lambda m: m.gaussian_mixture([1.0], np.ones((1, 3))), "either variances or"),
        (lambda m: m.gaussian_mixture([], [], 0.1), "weights must be one real number"),
        (
            lambda m: m.gaussian(0.0, 1.0, covariance=np.eye(2)),
            "either variance or covariance",
        ),
        (
            lambda m: m.gaussian_mixture(
                [1.0], np.ones((1, 2)), covariances=np.array([[[1.0, 2], [0, 1]]])
            ),
            "symmetric",
        ),
        (lambda m: m.digits.load(labels=11), "0..9 .*got 11"),
        (lambda m: m.digits.load(labels=[-1]), "whole numbers"),
        (lambda m: m.digits.load(labels=[0.5]), "whole numbers"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make(fd.models)


def test_damaged_weights_are_named(tmp_path):
    source = digits._WEIGHTS
    path = tmp_path / "digits.safetensors"
    data = bytearray(source.read_bytes())
    data[-1] ^= 1  # one bit
    path.write_bytes(data)
    shutil.copy(source.with_suffix(".json"), path.with_suffix(".json"))
    with pytest.raises(ValueError, match="digits.safetensors is damaged: SHA-256"):
        digits.load(path=path)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(bytes(data[:1000]))
    with pytest.raises(ValueError, match="cut.safetensors is damaged"):
        digits.load(path=cut)


def changed_weights(change):
    from safetensors.numpy import load, save

    flat = load(digits._WEIGHTS.read_bytes())
    return save(change({k: np.asarray(v, np.float32) for k, v in flat.items()}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w | {"pos": w["pos"] * np.nan}, "finite weights .*pos does not"),
        (
            lambda w: w | {"pos": w["pos"] + 1e300 * np.ones(1)},
            "finite weights in float32; pos",
        ),
        (lambda w: w | {"pos": w["pos"].astype(np.int32)}, "floating.*int32 in pos"),
        (lambda w: w | {"pos": w["pos"][:1]}, r"pos has shape \(1, 4, 64\)"),
        (lambda w: w | {"more": np.ones(1)}, r"more has shape \(1,\), expected None"),
    ],
)
def test_weights_from_a_path_are_validated(tmp_path, change, message):
    path = tmp_path / "w.safetensors"
    path.write_bytes(changed_weights(change))
    with pytest.raises(ValueError, match=f"w.safetensors .*{message}") as found:
        digits.load(path=path)
    assert "\n" not in str(found.value)


def test_weights_replaced_on_disk_are_the_ones_that_run(tmp_path):
    """In place, by a file of the same size and times: nothing old is served."""
    path, x = tmp_path / "w.safetensors", jnp.ones((2, 8, 8, 1), jnp.float32)
    context = fd.Context(0, 0.5, 0.6, 0.8)
    found = []
    for gain in (1.0, 2.0, 1.0):
        path.write_bytes(changed_weights(lambda w, g=gain: w | {"pos": w["pos"] * g}))
        os.utime(path, (1e9, 1e9))
        found.append(np.asarray(digits.load(3, path)(x, context, None)[0]))
    assert np.abs(found[0] - found[1]).max() > 1e-3
    np.testing.assert_array_equal(found[0], found[2])


def test_a_neighbouring_json_that_is_no_description_says_nothing(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(digits._WEIGHTS.read_bytes())
    path.with_suffix(".json").write_text('{"settings": 1}')
    digits.load(path=path)
    path.with_suffix(".json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"weights file .*w\.json is damaged"):
        digits.load(path=path)


def test_embedded_weights_are_small_and_recorded():
    data = digits._WEIGHTS.read_bytes()
    assert len(data) <= 2 * 2**20
    card = json.loads(digits._WEIGHTS.with_suffix(".json").read_text())
    assert card["sha256"] == hashlib.sha256(data).hexdigest()


@pytest.mark.slow
def test_digits_are_process_agnostic():
    """One network on VP, EDM and flow: the same image from the same noise."""
    lam = np.linspace(-4, 4, 9)
    labels = np.arange(4)
    model, found = digits.load(labels), []
    u = jax.random.normal(jax.random.key(0), (4, 8, 8, 1)) * np.exp(4.0)
    for process in (PATHS["vp"], PATHS["edm"], PATHS["flow"]):
        ts = process.half_log_snr_inverse(lam)
        plan = fd.solvers.dpmpp_2m(process, ts)
        x = fd.sample(plan, model, u * process.alpha(ts[0]))
        found.append(np.asarray(x) / process.alpha(ts[-1]))
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)
    np.testing.assert_allclose(found[2], found[0], atol=1e-6)


@pytest.mark.slow
def test_digits_agree_with_their_labels():
    """200 guided samples at 10 evaluations; the full figures are in digits.json."""
    from sklearn.svm import SVC

    from fastdiff_jax.models.data import digits_data

    data = digits_data()
    judge = SVC(gamma=0.001).fit((data.train_x.reshape(-1, 64) + 1) * 8, data.train_y)
    labels = np.tile(np.arange(10), 20)
    process = PATHS["vp"]
    plan = fd.solvers.unipc(process, fd.grids.log_snr(process, 10))
    guided = fd.guidance.cfg(
        digits.load(), 2.0, condition=labels, null=digits.NULL_LABEL
    )
    x = fd.prior(process, jax.random.key(0), (200, 8, 8, 1), dtype=jnp.float32)
    out = np.asarray(fd.sample(plan, guided, x))
    assert out.dtype == np.float32
    assert judge.score((out.reshape(-1, 64) + 1) * 8, labels) >= 0.97


def test_a_plan_of_another_process_is_refused():
    vp, other = fd.processes.vp_linear(), fd.processes.vp_linear(0.1, 10.0)
    model = fd.models.denoiser(lambda x, t: x, vp, prediction="noise")
    x, ts = jnp.ones((2, 3)), fd.grids.log_snr(other, 4)
    plan = fd.solvers.ddim(other, ts)
    with pytest.raises(
        ValueError, match="plan must be built for the model's process: "
    ):
        fd.sample(plan, model, x)
    guided = fd.guidance.cfg(
        fd.models.denoiser(lambda x, t, c: x, vp, prediction="noise"),
        2.0,
        condition=jnp.ones(2),
        null=0.0,
    )
    with pytest.raises(ValueError, match=r"row 0, time 1, the plan has alpha = 0\."):
        fd.sample(plan, guided, x)
    # a network that is told its times needs no common clock
    fd.sample(plan, model, x, controls={"model_time": np.linspace(1, 0.1, 4)})
