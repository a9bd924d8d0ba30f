"""The contract of every solver: jit, vmap, trees, dtypes, no retrace, keys, JSON."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd

VP = fd.processes.vp_linear()
SOLVERS = fd.solvers.SOLVERS
NAMES = sorted(SOLVERS)


def grid(steps):
    lam = np.linspace(-3, 3, steps + 1)
    return VP.half_log_snr_inverse(lam)


def build(name, steps=6, **options):
    """A solver's plan; one that draws noise by default has it turned off here."""
    return SOLVERS[name].build(VP, grid(steps), **{**quiet(name), **options})


def quiet(name):
    return dict.fromkeys(SOLVERS[name].stochastic, 0.0)


def square(x, context, carry):
    """A nonlinear denoiser on any tree."""
    return jax.tree.map(lambda v: jnp.tanh(v) * 0.5, x), carry


def batch(shape=(4, 3), dtype=jnp.float64):
    return jax.random.normal(jax.random.key(1), shape, dtype)


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_evaluations(name):
    """nfe is what the denoiser is really asked."""
    calls = []

    def counting(x, context, carry):
        jax.debug.callback(lambda i: calls.append(int(i)), context.index)
        return square(x, context, carry)

    for steps in (1, 2, 6):
        calls.clear()
        plan = build(name, steps)
        jax.block_until_ready(fd.sample(plan, counting, batch()))
        jax.effects_barrier()
        assert sorted(calls) == list(range(plan.nfe))
        assert plan.nfe >= steps


@pytest.mark.parametrize("name", NAMES)
def test_every_legal_order_builds(name):
    for order in SOLVERS[name].orders:
        for steps in (1, 3, 8):
            plan = build(name, steps, order=order)
            assert np.isfinite(fd.sample(plan, square, batch())).all()


def uniform(plan, length=48, slots=8):
    """Any plan in one structure: the same rows, slots and writes."""
    return fd.plan.pad(plan, length, slots=slots, writes=2)


run = jax.jit(lambda plan, x: fd.sample(plan, square, x))
run_each = jax.jit(lambda plan, x: jax.vmap(lambda v: fd.sample(plan, square, v))(x))
one_step = jax.jit(lambda state, row: fd.step(state, row, square))


def row_of(plan, i):
    return jax.tree.map(lambda w: w[i], plan.rows)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtype_in_is_dtype_out(name, dtype):
    x, plan = batch().astype(dtype), uniform(build(name))
    out = run(plan, x)
    assert out.dtype == dtype and out.shape == (4, 3)
    wide = run(plan, x.astype(jnp.float64))
    single = dtype == jnp.float32
    np.testing.assert_allclose(out, wide, rtol=1e-12, atol=2e-4 if single else 1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_a_tree_is_its_leaves(name):
    plan = uniform(build(name))
    x = {"a": batch((3, 2)), "b": batch(())}
    out = run(plan, x)
    assert jax.tree.structure(out) == jax.tree.structure(x)
    for k in x:
        np.testing.assert_allclose(out[k], run(plan, x[k]), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_vmap_jit_and_steps_by_hand_agree(name):
    plan, x = uniform(build(name)), batch()
    whole = run(plan, x)
    np.testing.assert_allclose(run_each(plan, x), whole, rtol=1e-12, atol=1e-14)
    state = fd.init(plan, x)
    for i in range(plan.nfe + 1):
        state, info = one_step(state, row_of(plan, i))
        assert int(info.index) == i
    np.testing.assert_allclose(state.point, whole, rtol=1e-12, atol=1e-14)


def test_one_trace_for_every_solver_grid_and_length():
    traces = []

    @jax.jit
    def run(plan, x):
        traces.append(1)
        return fd.sample(plan, square, x)

    x = batch()
    for name in NAMES:
        for steps, beta in ((4, 20.0), (9, 12.0)):
            process = fd.processes.vp_linear(0.1, beta)
            ts = fd.grids.log_snr(process, steps)
            plan = SOLVERS[name].build(process, ts, **quiet(name))
            padded = uniform(plan)
            got = run(padded, x)
            assert np.isfinite(got).all()
    assert len(traces) == 1


def test_sample_itself_compiles_once_per_denoiser_and_shape():
    traces = []

    def counting(x, context, carry):
        traces.append(1)
        return square(x, context, carry)

    x = batch()
    fd.sample(build("dpmpp_2m"), counting, x)
    first = len(traces)
    fd.sample(fd.solvers.dpmpp_2m(VP, fd.grids.quadratic(VP, 6)), counting, x)
    assert len(traces) == first


def test_new_guidance_scale_and_process_do_not_recompile_the_model():
    traces = []

    def net(x, t, y):
        traces.append(1)
        return x * y[:, None] + t

    x, y = batch(), jnp.arange(4.0)
    for scale, beta in ((2.0, 20.0), (5.0, 20.0), (5.0, 10.0)):
        process = fd.processes.vp_linear(0.1, beta)
        plan = fd.solvers.unipc(process, grid(6))
        model = fd.models.denoiser(net, process, prediction="noise")
        guided = fd.guidance.cfg(model, scale, condition=y, null=0.0)
        fd.sample(plan, guided, x)
    # once to check, once to trace
    assert len(traces) <= 2


def test_four_solvers_in_one_vmap():
    plans = [
        build("ddim", 7),
        build("dpmpp_3m", 7),
        build("unipc", 5),
        build("edm_heun", 4),
    ]
    x = batch()
    stacked = fd.plan.stack(plans)
    together = jax.vmap(lambda p: fd.sample(p, square, x))(stacked)
    for one, plan in zip(together, plans, strict=True):
        np.testing.assert_allclose(
            one, fd.sample(plan, square, x), rtol=1e-12, atol=1e-14
        )


def test_stacked_stochastic_and_deterministic():
    plans = [build("ddim", 5), build("ddim", 4, eta=1.0)]
    x, key = batch(), jax.random.key(3)
    together = jax.vmap(lambda p: fd.sample(p, square, x, key=key))(
        fd.plan.stack(plans)
    )
    for one, plan in zip(together, plans, strict=True):
        np.testing.assert_allclose(
            one, fd.sample(plan, square, x, key=key), rtol=1e-12, atol=1e-13
        )


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing_and_costs_no_evaluation(name):
    calls = []

    def counting(x, context, carry):
        jax.debug.callback(lambda: calls.append(1))
        return square(x, context, carry)

    plan, x = build(name), batch()
    padded = uniform(plan)
    assert padded.nfe == plan.nfe and padded.length == 48
    got = jax.block_until_ready(fd.sample(padded, counting, x))
    jax.effects_barrier()
    assert len(calls) == plan.nfe
    np.testing.assert_allclose(got, fd.sample(plan, square, x), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("name", ["dpmpp_3m", "unipc", "edm_heun"])
@pytest.mark.parametrize("cut", [1, 3])
def test_a_sliced_run_continues(name, cut):
    plan, x = build(name), batch()
    state = fd.init(plan, x)
    state, _ = fd.run(fd.plan.slice_rows(plan, 0, cut), square, state)
    state, _ = fd.run(fd.plan.slice_rows(plan, cut), square, state)
    whole = fd.sample(plan, square, x)
    np.testing.assert_allclose(state.point, whole, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_json_is_bit_exact(name, tmp_path):
    plan = build(name)
    fd.plan.save(plan, tmp_path / "plan.json")
    back = fd.plan.load(tmp_path / "plan.json")
    assert jax.tree.structure(back) == jax.tree.structure(plan)
    for a, b in zip(jax.tree.leaves(plan), jax.tree.leaves(back), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_traced_times_give_the_same_weights_and_gradients(name):
    """Weights are functions of the times: traced equals host, and differentiates."""
    ts = grid(5)
    make = SOLVERS[name].build
    host = make(VP, ts)
    numbers = lambda plan: [  # noqa: E731
        w for w in jax.tree.leaves(plan) if jnp.issubdtype(w.dtype, jnp.floating)
    ]
    total = lambda t: sum(  # noqa: E731
        jnp.sum(jnp.sin(jnp.asarray(w))) for w in numbers(make(VP, t))
    )
    bump = np.asarray(np.arange(6) == 2, float)
    forward = jax.jit(lambda t, v: jax.jvp(total, (t,), (v,)))
    value, slope = forward(jnp.asarray(ts), jnp.asarray(bump))
    want = sum(np.sum(np.sin(w)) for w in numbers(host))
    np.testing.assert_allclose(value, want, rtol=1e-9)
    up, down = (
        sum(np.sum(np.sin(w)) for w in numbers(make(VP, ts + s * 1e-6 * bump)))
        for s in (1, -1)
    )
    np.testing.assert_allclose(slope, (up - down) / 2e-6, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in NAMES if SOLVERS[n].stochastic])
def test_sample_i_is_the_same_at_any_batch_size(name):
    option = {SOLVERS[name].stochastic[0]: 1.0}
    plan, key = build(name, **option), jax.random.key(5)
    x = fd.prior(VP, jax.random.key(2), (6, 3))
    many = fd.sample(plan, square, x, key=key)
    few = fd.sample(plan, square, x[:2], key=key)
    np.testing.assert_array_equal(many[:2], few)
    np.testing.assert_array_equal(fd.prior(VP, jax.random.key(2), (2, 3)), x[:2])
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(6))
    own = fd.sample(plan, square, x[4:], key=keys[4:])
    np.testing.assert_array_equal(own, many[4:])
    with pytest.raises(ValueError, match="this plan draws noise; pass key="):
        fd.sample(plan, square, x)
