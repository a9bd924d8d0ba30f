"""Every solver under jax's settings, keys, meshes, donation, threads: same numbers.

The suite runs under x64, strict promotion and ranks that raise, and so do the results
that all others are compared with. States are float32, so that x64 on and off compare.
Programs of other settings round otherwise: `close` is some units in the last place.
"""

import contextlib
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import fastdiff_jax as fd

from .contract_cases import DRAWS, NAMES, ONE, build, denoiser, loud, padded, run

slow = pytest.mark.slow
SIZE = 8
KEY = jax.random.key(3)
KEYS = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(SIZE))
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
equal = np.testing.assert_array_equal
CORE = [n for n in ONE if build(n, 2).reads == ("data",)]  # of one program
EACH = [n if n in CORE else pytest.param(n, marks=slow) for n in NAMES]
NOISY = [n if n in CORE else pytest.param(n, marks=slow) for n in DRAWS]


@contextlib.contextmanager
def loose():
    """jax's defaults: float32 and float64 mix, and ranks broadcast."""
    promotion = jax.numpy_dtype_promotion("standard")
    with promotion, jax.numpy_rank_promotion("allow"):
        yield


SETTINGS = {
    "x64 off": lambda: jax.enable_x64(False),
    "loose": loose,
    "NaN checks": lambda: jax.debug_nans(True),
}


@contextlib.contextmanager
def by_operation():
    """No jit, so that every single operation is looked at for NaN."""
    with jax.disable_jit(), jax.debug_nans(True):
        yield


class Case(NamedTuple):
    plan: fd.Plan
    x: np.ndarray


def cases(name, pad=True):
    """A solver's plans without noise and with it, in three steps, and their states."""
    made = [build(name, 3)] + ([loud(name, 3)] if name in DRAWS else [])
    if pad and name in ONE:
        made = [padded(plan, noise=True, length=16) for plan in made]
    rng = np.random.default_rng(1)
    shape = (SIZE, 2, 3) if made[0].matrix else (SIZE, 3)
    return [Case(plan, rng.normal(size=shape).astype(np.float32)) for plan in made]


@functools.cache
def plain(name):
    """Plans and results without any setting."""
    found = cases(name)
    return found, [np.asarray(run(*case, KEY)) for case in found]


def pairs(name):
    return zip(*plain(name), strict=True)


def contents(plan):
    return [(v.dtype, v.tobytes()) for v in map(np.asarray, jax.tree.leaves(plan))]


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_changes_no_number(name, setting):
    """Of the plan, bit for bit, as of the samples."""
    for i, (case, want) in enumerate(pairs(name)):
        with SETTINGS[setting]():
            plan, x = cases(name)[i]
            out = run(plan, x, KEY)
        assert contents(plan) == contents(case.plan)
        assert out.dtype == np.float32
        close(out, want)


def sampled(plan, x, key):
    return fd.sample(plan, denoiser(plan.reads), x, key=key)


@pytest.mark.parametrize(
    "name", [n if n == "unipc" else pytest.param(n, marks=slow) for n in NAMES]
)
def test_without_jit_no_operation_gives_nan(name):
    for case, (_, want) in zip(cases(name, pad=False), pairs(name), strict=True):
        with by_operation():
            out = sampled(*case, KEY)
        close(out, want)


@pytest.mark.parametrize("kind", ["one", pytest.param("per sample", marks=slow)])
@pytest.mark.parametrize("name", NOISY)
def test_old_keys_draw_what_new_ones_draw(name, kind):
    old = jax.random.PRNGKey(3) if kind == "one" else jax.random.key_data(KEYS)
    for case, want in pairs(name):
        equal(run(*case, old), want)


def test_an_old_key_is_of_the_kind_that_holds_now():
    """Though jit does not see that jax_default_prng_impl has changed."""
    plan, x = build("ddim", 1, eta=1.0), np.float32(0.5)
    for kind in ("rbg", "unsafe_rbg"):
        want = sampled(plan, x, jax.random.key(3, impl=kind))
        with jax.default_prng_impl(kind):
            equal(sampled(plan, x, jax.random.PRNGKey(3)), want)
    with pytest.raises(
        ValueError, match="key must be a random key of the kind jax_def"
    ):
        sampled(plan, x, jax.random.PRNGKey(3, impl="rbg"))


@functools.cache
def sharded(mode):
    """A mesh, and sampling inside of shard_map over it."""
    kind = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}[mode]
    mesh = jax.make_mesh((SIZE,), ("samples",), axis_types=(kind,))
    split = P("samples")
    each = {"mesh": mesh, "in_specs": (P(), split, split), "out_specs": split}
    return NamedSharding(mesh, split), jax.jit(jax.shard_map(sampled, **each))


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("mode", ["auto", pytest.param("explicit", marks=slow)])
def test_inside_shard_map(name, mode):
    place, go = sharded(mode)
    for (plan, x), want in pairs(name):
        out = go(plan, jax.device_put(x, place), jax.device_put(KEYS, place))
        assert out.sharding.is_equivalent_to(place, out.ndim)
        close(out, want)


into = jax.jit(sampled, donate_argnums=1)
begin = jax.jit(fd.init)
onward = jax.jit(
    lambda state, plan: fd.run(plan, denoiser(plan.reads), state), donate_argnums=0
)


@pytest.mark.parametrize("name", EACH)
def test_donated_buffers(name):
    for (plan, x), want in pairs(name):
        x = jnp.array(x)
        close(into(plan, x, KEY), want)
        assert x.is_deleted()


@slow
@pytest.mark.parametrize("name", NAMES)
def test_a_donated_state(name):
    for (plan, x), want in pairs(name):
        state = begin(plan, x, KEY)
        close(onward(state, plan)[0].point, want)
        assert state.point.is_deleted()


def in_threads(job, work, threads=4):
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(job, work))


@pytest.mark.parametrize("names", [CORE[::3], pytest.param(NAMES, marks=slow)], ids=len)
def test_threads_of_other_settings_at_once(names):
    """Plans sampled side by side, in turns with x64 on and off."""
    work = [(*pair, i % 2) for i, n in enumerate(names) for pair in pairs(n)]

    def job(each):
        (plan, x), want, wide = each
        with jax.enable_x64(bool(wide)):
            return np.asarray(sampled(plan, x, KEY)), want

    for out, want in in_threads(job, work):
        close(out, want)


def test_threads_with_functions_of_their_own(monkeypatch):
    """More functions than programs are kept."""
    monkeypatch.setattr(fd.programs, "_KEPT", 1)
    plan, x = build("ddim", 1), np.ones(3, np.float32)

    def scaled(c):
        return lambda x, context, carry: (x * c, carry)

    functions = [scaled(np.float32(c)) for c in range(4)]
    want = [np.asarray(fd.sample(plan, f, x)) for f in functions]
    out = in_threads(lambda i: fd.sample(plan, functions[i % 4], x), range(24))
    for i, each in enumerate(out):
        equal(each, want[i % 4])


def test_threads_keep_their_own_errors_of_progress():
    plan, x = build("ddim", 3), np.ones(3, np.float32)

    def fails(done, rows):
        raise RuntimeError("mine")

    def job(own):
        try:
            sampled_with = functools.partial(fd.sample, plan, denoiser(plan.reads), x)
            sampled_with(progress=fails if own else lambda done, rows: None)
        except ValueError as error:
            return str(error)

    found = in_threads(job, [True, False] * 6)
    assert found == ["progress must not raise, it raised RuntimeError: mine", None] * 6


# ------------------------------------------------------------- beside the plain solvers

PROCESS = fd.processes.vp_linear()
MODEL = fd.models.gaussian_mixture([0.4, 0.6], [[-1.0, 0.5], [1.2, -0.3]], 0.05)
TS = fd.grids.log_snr(PROCESS, 4)


def net(x, t, y):
    return x * jnp.asarray(y, x.dtype)[:, None] - jnp.tanh(t).astype(x.dtype)


def guided(x, key):
    y = np.linspace(0, 1, len(x))
    model = fd.models.denoiser(net, PROCESS, prediction="noise")
    model = fd.guidance.cfg(model, 3.0, condition=y, null=0.0, interval=(0.1, 5.0))
    model = fd.transforms.dynamic_threshold(fd.transforms.dual_fast(model, 0.2))
    plan = fd.solvers.dpmpp_2m(PROCESS, TS)
    scale = {"guidance_scale": np.linspace(4.0, 1.0, plan.length)}
    model = fd.transforms.clip(model, -2.0, 2.0)
    return fd.sample(plan, model, x, controls=scale, collect=lambda s, i: i.denoised)


def moved(x, key):
    """Gradients of a classifier, a stateful transform and moves after each row."""

    def near(x, context):
        return -((x - 0.5) ** 2).sum(-1)

    model = fd.guidance.classifier(MODEL, near)
    move = fd.moves.chain(fd.moves.langevin(), fd.moves.inpaint([0.5, 0.0], [1, 0]))
    plan = fd.solvers.predictor_corrector(PROCESS, TS, snr=0.16)
    return fd.sample(plan, model, x, key=key, move=move)


def adaptive(x, key):
    options = {"rtol": 0.3, "atol": 0.1, "h_init": 0.5, "order": 2}
    options |= {"end": 0.01, "max_evaluations": 60}
    return fd.continuous.dpm_solver_adaptive(PROCESS, MODEL, x, **options)


def likelihood(x, key):
    options = {"divergence": "hutchinson", "probe": "gaussian"}
    options |= {"steps": 2, "max_steps": 2}  # without jit the loop goes on to the end
    found = fd.continuous.log_likelihood(MODEL, PROCESS, x, key=key, **options)
    options = {"rtol": 1.0, "atol": 1.0, "max_steps": 16}
    return found, fd.continuous.log_likelihood(MODEL, PROCESS, x, **options)


def exponential(x, key):
    """diffrax's loop with error control, and a step of the reverse SDE."""
    c = fd.continuous
    t0, t1 = c.interval(PROCESS, end=0.01)
    solve = functools.partial(diffrax.diffeqsolve, t0=t0, t1=t1, y0=x)
    term = c.probability_flow(PROCESS, MODEL)
    control = diffrax.PIDController(rtol=0.1, atol=0.1)
    one = solve(term, c.res_3(), dt0=0.5, stepsize_controller=control).ys
    path = c.brownian(PROCESS, key, x, end=0.01)
    terms = c.reverse_sde(PROCESS, MODEL, path)
    return one, solve(terms, c.StochasticExponentialEuler(), dt0=(t1 - t0) / 4).ys


def slope(x, key):
    """Of a loss, through the adjoint and through a checkpointed run."""

    def loss(model, x):
        one = fd.continuous.adjoint_sample(PROCESS, model, x, TS)
        plan = fd.solvers.unipc(PROCESS, TS)
        return (one + fd.sample(plan, model, x, checkpoint=True)).sum()

    return jax.grad(loss, (0, 1))(MODEL, x)


def policy(x, key):
    plan = fd.solvers.sde_dpmpp_1(PROCESS, TS)
    old = fd.policy.rollout(plan, MODEL, x, key)
    return old.log_prob, fd.policy.log_prob(plan, MODEL, old.path)


def start(x, key):
    return fd.prior(PROCESS, key, x.shape, dtype="float32")


OTHERS = {
    "guided": guided,
    "moved": moved,
    "adaptive": adaptive,
    "likelihood": likelihood,
    "exponential": exponential,
    "slope": slope,
    "policy": policy,
    "start": start,
}
STATE = np.random.default_rng(2).normal(size=(3, 2)).astype(np.float32)
ALL = SETTINGS | {"by operation": by_operation}


@functools.cache
def plainly(name):
    return jax.tree.map(np.asarray, OTHERS[name](STATE, KEY))


def mark(name, setting):
    fast = (name, setting) == ("guided", "x64 off")
    return pytest.param(name, setting, marks=() if fast else slow)


@pytest.mark.parametrize(
    ("name", "setting"), [mark(name, setting) for name in OTHERS for setting in ALL]
)
def test_a_setting_changes_nothing_else_either(name, setting):
    want = plainly(name)
    with ALL[setting]():
        found = OTHERS[name](STATE, KEY)
    rtol = 1e-3 if name == "likelihood" else 1e-4  # two long steps
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one, two, rtol=rtol, atol=1e-5)
