"""The engine: collect, noise, carries, controls, weights of every kind, gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.trees import pytree

VP = fd.processes.vp_linear()
TS = VP.half_log_snr_inverse(np.linspace(-3, 3, 6))


def net(x, context, carry):
    return jax.tree.map(lambda v: jnp.tanh(v) * 0.5, x), carry


def start(shape=(4, 3), seed=1, dtype=jnp.float64):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def test_collect_stacks_over_rows():
    plan, x = fd.solvers.dpmpp_2m(VP, TS), start()
    got, kept = fd.sample(
        plan,
        net,
        x,
        collect=lambda state, info: (info.denoised, info.sample, info.time),
    )
    assert kept[0].shape == (5, 4, 3)
    np.testing.assert_allclose(kept[1][-1], got, rtol=1e-14)
    np.testing.assert_allclose(kept[2], TS[:-1], rtol=1e-14)
    np.testing.assert_allclose(got, fd.sample(plan, net, x), rtol=1e-14)


def test_noise_is_injected_as_array_or_function():
    plan, x = fd.solvers.ddim(VP, TS, eta=1.0), start()
    z = np.random.default_rng(0).normal(size=(5, 4, 3))
    table = jnp.asarray(z)
    one = fd.sample(plan, net, x, noise=z)
    two = fd.sample(plan, net, x, noise=lambda row, like: table[row])
    np.testing.assert_allclose(one, two, rtol=1e-14)
    assert not np.allclose(one, fd.sample(plan, net, x, noise=0 * z))
    with pytest.raises(ValueError, match="leading axis of 5"):
        fd.sample(plan, net, x, noise=z[:3])


def test_drawn_noise_can_be_recorded_and_replayed():
    plan, x = fd.solvers.ddim(VP, TS, eta=1.0), start()
    got, z = fd.sample(
        plan, net, x, key=jax.random.key(0), collect=lambda s, info: info.noise
    )
    again = fd.sample(plan, net, x, noise=z)
    np.testing.assert_allclose(again, got, rtol=1e-12, atol=1e-14)
    # one Gaussian per row, sample and element
    assert abs(float(np.std(z)) - 1) < 0.2 and len(np.unique(z)) == z.size


def test_a_deterministic_plan_draws_nothing():
    text = str(
        jax.make_jaxpr(lambda x: fd.sample(fd.solvers.ddim(VP, TS), net, x))(start())
    )
    assert "random" not in text and "threefry" not in text


@dataclasses.dataclass(frozen=True)
class Averaging:
    """A stateful denoiser: the mean of its own predictions so far."""

    def initial_carry(self, x):
        return (jnp.zeros(()), jnp.zeros_like(x))

    def __call__(self, x, context, carry):
        count, total = carry
        count, total = count + 1, total + jnp.tanh(x) * 0.5
        return total / count, (count, total)


def test_a_stateful_denoiser_carries():
    plan, x = fd.solvers.ddim(VP, TS), start()
    got, counts = fd.sample(
        plan, Averaging(), x, collect=lambda state, info: state.carry[0]
    )
    np.testing.assert_array_equal(counts, [1, 2, 3, 4, 5])
    a, s, mean, y = VP.alpha(TS), VP.sigma(TS), 0.0, np.asarray(x)
    for i in range(5):
        mean = mean + np.tanh(y) * 0.5
        d = mean / (i + 1)
        y = a[i + 1] * d + s[i + 1] * (y - a[i] * d) / s[i]
    np.testing.assert_allclose(got, y, rtol=1e-12)


def test_a_carry_that_changes_its_type_is_named():
    @dataclasses.dataclass(frozen=True)
    class Growing(Averaging):
        def __call__(self, x, context, carry):
            return x, (carry[0],)

    with pytest.raises(ValueError, match="return a carry like the one it gets"):
        fd.sample(fd.solvers.ddim(VP, TS), Growing(), start())


def test_controls_reach_the_denoiser_row_by_row():
    def scaled(x, context, carry):
        return context.controls["gain"] * jnp.tanh(x), carry

    fd.declare_control("gain", "of this test's denoiser")
    plan, x = fd.solvers.ddim(VP, TS), start()
    gains = np.linspace(0, 1, 5)
    got, seen = fd.sample(
        plan,
        scaled,
        x,
        controls={"gain": gains},
        collect=lambda s, info: info.denoised / jnp.tanh(info.point),
    )
    np.testing.assert_allclose(seen[:, 0, 0], gains, atol=1e-12)
    with pytest.raises(ValueError, match=r"controls\['gain'\] must have 5 rows"):
        fd.sample(plan, scaled, x, controls={"gain": gains[:2]})


def test_unknown_controls_are_refused_by_name():
    plan, x = fd.solvers.ddim(VP, TS), start()
    with pytest.raises(ValueError, match="unknown control 'guidence_scale'. Did you"):
        fd.sample(plan, net, x, controls={"guidence_scale": np.ones(5)})
    rows = plan.rows._replace(controls={"mystery": np.ones(5)})
    with pytest.raises(ValueError, match="unknown control 'mystery'.*declare_control"):
        fd.sample(dataclasses.replace(plan, rows=rows), net, x)

    def typo(x, context, carry):
        return context.control("modeltime", 1.0) * x, carry

    with pytest.raises(ValueError, match="unknown control 'modeltime'. Did you mean"):
        fd.sample(plan, typo, x)
    assert fd.Context(0, 1.0, 1.0, 0.0).control("model_time", 7) == 7


def elementwise(plan, shape):
    """The same plan with every weight an array of the state's shape."""

    def spread(path, w):
        name = jax.tree_util.keystr(path)
        if any(k in name for k in ("index", ".to", "level", "active")):
            return w
        return np.broadcast_to(w.reshape(w.shape + (1,) * len(shape)), w.shape + shape)

    rows = jax.tree_util.tree_map_with_path(spread, plan.rows)
    return dataclasses.replace(plan, rows=rows)


@pytest.mark.parametrize("name", ["ddim", "dpmpp_3m", "unipc", "edm_heun"])
def test_array_weights_that_are_all_equal_are_the_scalar_plan(name):
    """But for roundings: two compiled programs."""
    plan, x = fd.solvers.SOLVERS[name].build(VP, TS), start()
    wide = fd.sample(elementwise(plan, (3,)), net, x)
    np.testing.assert_allclose(wide, fd.sample(plan, net, x), rtol=1e-14, atol=1e-15)


@pytest.mark.slow
def test_per_element_times():
    """Two columns on grids of their own, one plan."""
    other = VP.half_log_snr_inverse(np.linspace(-3, 2, 6))
    both = np.stack([TS, other], axis=1)
    x = start((4, 2))
    for build in (fd.solvers.ddim, fd.solvers.dpmpp_2m, fd.solvers.unipc):
        got = fd.sample(build(VP, both), net, x)
        for k, ts in enumerate((TS, other)):
            want = fd.sample(build(VP, ts), net, x[:, k : k + 1])
            np.testing.assert_allclose(got[:, k : k + 1], want, rtol=1e-11, atol=1e-13)


def test_tree_valued_weights():
    """A plan per leaf: weights are a tree like the state."""
    one = fd.solvers.ddim(VP, TS)
    two = fd.solvers.ddim(VP, fd.grids.quadratic(VP, 5))

    def pair(path, a, b):
        name = jax.tree_util.keystr(path)
        shared = any(k in name for k in ("index", ".to", "level"))
        return a if shared else {"a": a, "b": b}

    rows = jax.tree_util.tree_map_with_path(pair, one.rows, two.rows)
    both = dataclasses.replace(one, rows=rows)
    x = {"a": start((4, 2)), "b": start((4, 3), 2)}
    got = fd.sample(both, net, x)
    np.testing.assert_allclose(got["a"], fd.sample(one, net, x["a"]), rtol=1e-12)
    np.testing.assert_allclose(got["b"], fd.sample(two, net, x["b"]), rtol=1e-12)


def test_matrix_weights_mix_channels():
    """Matrices on axis 1: rotate, run, rotate back equals the plain run."""
    plan, x = fd.solvers.ddim(VP, TS), start((4, 2, 3))
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    linear = lambda x, context, carry: (0.5 * x, carry)  # noqa: E731

    def rotated(path, w):
        name = jax.tree_util.keystr(path)
        if any(k in name for k in ("index", ".to", "level")):
            return w
        return w[..., None, None] * np.eye(2)

    rows = jax.tree_util.tree_map_with_path(rotated, plan.rows)
    begin = jax.tree.map(lambda w: w[..., None, None] * np.eye(2), plan.start)
    eye = dataclasses.replace(plan, rows=rows, start=begin, matrix=True)
    want = fd.sample(plan, linear, x)
    np.testing.assert_allclose(fd.sample(eye, linear, x), want, rtol=1e-12)
    last = {n: getattr(rows, n).copy() for n in ("registers", "predictions")}
    for weights in last.values():
        weights[-1] = turn @ weights[-1]
    turned = dataclasses.replace(eye, rows=rows._replace(**last))
    np.testing.assert_allclose(
        fd.sample(turned, linear, x), np.einsum("ij,bjd->bid", turn, want), rtol=1e-12
    )


def test_several_predictions():
    """D from the first, E from the second; equal ones are plain DDIM."""
    x = start()
    plan = fd.solvers.ddim(VP, TS, second_noise=True)
    assert plan.predictions == 2
    same = lambda x, c, k: ((net(x, c, k)[0],) * 2, k)  # noqa: E731
    same = fd.models.giving(same, "data", "direction")
    want = fd.sample(fd.solvers.ddim(VP, TS), net, x)
    np.testing.assert_allclose(fd.sample(plan, same, x), want, rtol=1e-12)
    wrong = fd.models.giving(net, "data", "direction")
    with pytest.raises(ValueError, match="integrates 2 predictions.*tuple of 2 trees"):
        fd.sample(plan, wrong, x)


@pytest.mark.parametrize(
    ("denoiser", "message"),
    [
        (net, r"reads \(data, direction\); the denoiser gives what it does not name"),
        (
            fd.models.giving(net, "residual", "noise"),
            r"reads \(data, direction\); the denoiser gives \(residual, noise\)",
        ),
        (fd.models.gaussian(), r"the denoiser gives data.*transforms.clip"),
    ],
)
def test_a_plan_reads_what_the_denoiser_gives(denoiser, message):
    plan = fd.solvers.ddim(VP, TS, second_noise=True)
    with pytest.raises(ValueError, match=message):
        fd.sample(plan, denoiser, start())
    with pytest.raises(ValueError, match=message):
        fd.run(plan, denoiser, fd.init(plan, start()))


def test_names_of_predictions_pass_through_transforms():
    gives = lambda d: fd.hooks.gives_of(d)  # noqa: E731
    model = fd.models.gaussian()
    assert gives(fd.transforms.clip(model)) == ("data",)
    assert gives(fd.transforms.clip(model, outputs=True)) == ("data", "direction")
    pair = fd.models.giving(net, "residual", "noise")
    assert gives(fd.transforms.dual_fast(pair)) == ("residual", "noise")
    assert gives(fd.transforms.stitch([pair, pair])) == ("residual", "noise")
    plan = fd.solvers.ddim(VP, TS, second_noise=True)
    clipped = fd.transforms.clip(model, -9.0, 9.0, outputs=True)
    want = fd.sample(fd.solvers.ddim(VP, TS), model, start())
    np.testing.assert_allclose(fd.sample(plan, clipped, start()), want, rtol=1e-12)


def test_registers_compose_noise_and_biases():
    """A register of noise, n <- 0.8 n + 0.6 z, read before and after its write."""
    n, one = 3, np.ones(3)
    level = fd.plan.Level(one / 2, one, one)
    x, kept, z = fd.plan.register(0), fd.plan.register(1), fd.plan.NOISE
    carried = 0.8 * kept + 0.6 * one * z
    plan = fd.plan.build(
        level,
        fd.plan.Level(*np.ones(3)),
        [(0, x + 0.5 * kept + 2.0 * carried + 0.1 * fd.plan.ONE), (1, carried)],
    )
    draws = np.random.default_rng(1).normal(size=(n, 4))
    got = fd.sample(plan, net, jnp.zeros(4), noise=draws)
    y, register = np.zeros(4), np.zeros(4)
    for i in range(n):
        old, register = register, 0.8 * register + 0.6 * draws[i]
        y = y + 0.5 * old + 2 * register + 0.1
    np.testing.assert_allclose(got, y, rtol=1e-12)
    want = fd.plan.replay(plan, lambda x, _: 0 * x, np.zeros(4), draws)
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.slow
def test_the_start_shifts_churns_and_stores():
    one = np.ones(1)
    x, kept, z = fd.plan.register(0), fd.plan.register(1), fd.plan.NOISE
    plan = fd.plan.build(
        fd.plan.Level(one, one, one),
        fd.plan.Level(*np.ones(3)),
        [(0, x + 3.0 * kept)],
        start={0: 2.0 * x + 0.1 * z + 7.0 * fd.plan.ONE, 1: 0.5 * x},
    )
    x, z = start((4,)), start((2, 4), 3)
    got = fd.sample(plan, net, x, noise=z)
    np.testing.assert_allclose(got, 2 * x + 0.1 * z[0] + 7 + 1.5 * x, rtol=1e-12)
    assert plan.stochastic
    drawn = fd.sample(plan, net, x, key=jax.random.key(0))
    assert not np.allclose(drawn, got)
    padded = fd.plan.pad(plan, 3)
    np.testing.assert_array_equal(
        fd.sample(padded, net, x, key=jax.random.key(0)), drawn
    )


def test_a_slice_that_needs_older_registers_does_not_start_from_x():
    x = start()
    many = fd.plan.slice_rows(fd.solvers.dpmpp_2m(VP, TS), 2)
    with pytest.raises(ValueError, match="goes on from what other rows left"):
        fd.sample(many, net, x)
    steps = fd.solvers.edm_heun(VP, TS)
    with pytest.raises(ValueError, match="goes on from what other rows left"):
        fd.sample(fd.plan.slice_rows(steps, 3), net, x)  # inside a step
    halves = [fd.plan.slice_rows(steps, *at) for at in ((0, 4), (4, None))]
    got = fd.sample(halves[1], net, fd.sample(halves[0], net, x))
    np.testing.assert_allclose(got, fd.sample(steps, net, x), rtol=1e-12)


@pytest.mark.slow
def test_gradients_with_and_without_checkpoint_agree():
    plan, x = fd.solvers.unipc(VP, TS), start()

    def loss(x, checkpoint):
        return jnp.sum(fd.sample(plan, net, x, checkpoint=checkpoint) ** 2)

    plain = jax.grad(lambda v: loss(v, False))(x)
    np.testing.assert_allclose(jax.grad(lambda v: loss(v, True))(x), plain, rtol=1e-12)
    h = 1e-6
    bump = np.zeros(x.shape)
    bump[1, 2] = h
    slope = (loss(x + bump, False) - loss(x - bump, False)) / (2 * h)
    np.testing.assert_allclose(plain[1, 2], slope, rtol=1e-6)


def test_progress_and_preview_are_ordered_and_absent_when_off():
    plan, x = fd.solvers.ddim(VP, TS), start()
    seen, shown = [], []
    fd.sample(
        plan,
        net,
        x,
        progress=lambda i, n: seen.append((i, n)),
        preview=lambda i, n, d: shown.append((i, np.shape(d))),
    )
    jax.effects_barrier()
    assert seen == [(i, 5) for i in range(1, 6)]
    assert shown == [(i, (4, 3)) for i in range(1, 6)]
    text = str(jax.make_jaxpr(lambda x: fd.sample(plan, net, x))(x))
    assert "callback" not in text


def test_a_bf16_model_keeps_a_float32_state():
    seen = []

    def half(x, t):
        seen.append(x.dtype)
        return jnp.tanh(x)

    model = fd.models.denoiser(half, VP, prediction="noise", dtype=jnp.bfloat16)
    x = start(dtype=jnp.float32)
    out, kept = fd.sample(
        fd.solvers.unipc(VP, TS), model, x, collect=lambda s, i: i.sample
    )
    assert seen[0] == jnp.bfloat16
    assert out.dtype == kept.dtype == jnp.float32
    narrow = fd.sample(fd.solvers.unipc(VP, TS), model, x.astype(jnp.bfloat16))
    assert narrow.dtype == jnp.float32


def test_complex_state():
    plan, x = fd.solvers.dpmpp_2m(VP, TS), jax.lax.complex(start(), start(seed=2))
    linear = lambda x, context, carry: (0.5 * x, carry)  # noqa: E731
    got = fd.sample(plan, linear, x)
    np.testing.assert_allclose(got.real, fd.sample(plan, linear, x.real), rtol=1e-12)
    np.testing.assert_allclose(got.imag, fd.sample(plan, linear, x.imag), rtol=1e-12)


@pytest.mark.slow
def test_prior_has_the_processes_scale_and_takes_trees():
    edm = fd.processes.edm()
    x = fd.prior(edm, jax.random.key(0), (4000,))
    assert abs(float(x.std()) / 80 - 1) < 0.05
    like = {"a": jnp.zeros((3, 2)), "b": jax.ShapeDtypeStruct((3,), jnp.float32)}
    tree = fd.prior(edm, jax.random.key(0), like, start=1.0)
    assert tree["a"].shape == (3, 2) and tree["b"].dtype == jnp.float32


def test_legacy_keys_are_taken():
    plan, x = fd.solvers.ddim(VP, TS, eta=1.0), start()
    new = fd.sample(plan, net, x, key=jax.random.key(7))
    old = fd.sample(plan, net, x, key=jax.random.PRNGKey(7))
    np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda p, x: fd.sample(p, lambda x, c, k: (x[:, :2], k), x),
            r"returned shape \(4, 2\) for x of shape \(4, 3\)",
        ),
        (
            lambda p, x: fd.sample(p, lambda x, c, k: ({"a": x}, k), x),
            "returned a tree",
        ),
        (
            lambda p, x: fd.sample(p, lambda x, c, k: x, x),
            r"must return \(prediction, carry\)",
        ),
        (lambda p, x: fd.sample(p, net, jnp.arange(4)), "must be floating, got int"),
        (
            lambda p, x: fd.sample(
                fd.solvers.ddim(VP, TS, eta=1.0),
                net,
                x,
                key=jax.random.split(jax.random.key(0), 3),
            ),
            r"one per sample of shape \(4,\); got shape \(3,\)",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(fd.solvers.ddim(VP, TS), start())


def test_a_move_changes_the_state_after_each_row_and_knows_the_level():
    plan, x = fd.solvers.ddim(VP, TS), start()
    seen = []

    def move(state, info, row, reached):
        jax.debug.callback(lambda t, n: seen.append((float(t), float(n))), *(
            reached.time, info.time))  # fmt: skip
        return state.at(state.point + reached.sigma)

    got = fd.sample(plan, net, x, move=move)
    jax.effects_barrier()
    np.testing.assert_allclose(sorted(t for t, _ in seen), sorted(TS[1:]))
    np.testing.assert_allclose(sorted(n for _, n in seen), sorted(TS[:-1]))
    want = x
    for i in range(plan.length):
        part = fd.plan.slice_rows(plan, i, i + 1)
        want = fd.sample(part, net, want) + VP.sigma(TS[i + 1])
    np.testing.assert_allclose(got, want, rtol=1e-13)


def test_a_move_or_noise_that_is_a_pytree_does_not_recompile():
    traces = []

    @pytree
    class Shift:
        by: float

        def __call__(self, state, info, row, reached):
            traces.append(1)
            return state.at(state.point + self.by)

    @pytree
    class Table:
        values: object

        def __call__(self, row, like):
            return self.values[row]

    plan, x = fd.solvers.ddim(VP, TS, eta=1.0), start()
    outs = []
    for k in range(3):
        table = Table(jnp.full((5, 4, 3), float(k)))
        outs.append(fd.sample(plan, net, x, noise=table, move=Shift(0.0 * k)))
    assert len(traces) == 1
    np.testing.assert_array_equal(
        outs[1], fd.sample(plan, net, x, noise=np.ones((5, 4, 3)))
    )
    assert np.abs(outs[1] - outs[0]).max() > 0.1


def test_side_noise_is_a_stream_of_its_own():
    key = jax.random.split(jax.random.key(0), 4)
    x = start()
    parts = [
        fd.noise.normal(key, 3, x),
        fd.noise.side_noise(key, 3, x),
        fd.noise.side_noise(key, 3, x, stream=1),
        fd.noise.side_noise(key, 4, x),
    ]
    for i, a in enumerate(parts):
        for b in parts[:i]:
            assert not np.allclose(a, b)
    one = fd.noise.side_noise(key[2], 3, x[2])
    np.testing.assert_array_equal(parts[1][2], one)


def test_a_move_leaves_padding_alone():
    plan, x = fd.solvers.ddim(VP, TS), start()
    key = jax.random.key(0)

    def move(state, info, row, reached):
        drawn = fd.noise.side_noise(state.key, row.index, state.point)
        return state.at(state.point + drawn)

    got = fd.sample(fd.plan.pad(plan, 9), net, x, key=key, move=move)
    want = fd.sample(plan, net, x, key=key, move=move)
    np.testing.assert_allclose(got, want, rtol=1e-13)
