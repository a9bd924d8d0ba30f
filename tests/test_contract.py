"""The contract of every solver: jit, vmap, trees, dtypes, no retrace, keys, JSON."""

import functools
import queue

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.plan.combine import dense

from .contract_cases import (
    DRAWS,
    NAMES,
    NEEDY,
    ONE,
    PLAIN,
    SOLVERS,
    STARTED,
    VP,
    batch,
    build,
    denoiser,
    grid,
    highest,
    host,
    loud,
    padded,
    quiet,
    run,
    square,
    start,
)
from .oracles import rows as rows_oracle

close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-14)
CALLS = queue.SimpleQueue()
QUIET = [n for n in ONE if not build(n).stochastic]  # with their noise turned off


def counting(x, context, carry):
    jax.debug.callback(lambda i: CALLS.put(int(i)), context.index)
    return square(x, context, carry)


def asked(plan, x):
    """The sample, and the rows that asked the denoiser."""
    out = jax.block_until_ready(fd.sample(plan, counting, x))
    jax.effects_barrier()
    return out, sorted(CALLS.get() for _ in range(CALLS.qsize()))


def wide(plan, noise=True):
    return padded(plan, noise)


@pytest.mark.parametrize("name", ONE)
def test_rows_are_evaluations_and_padding_changes_nothing(name):
    """nfe is what the denoiser is really asked; the padded run is the plan's own."""
    x = batch()
    for steps in (1, 2, 6):
        plan = build(name, steps)
        if plan.stochastic:  # draws whatever its options
            continue
        out, rows = asked(wide(plan, noise=False), x)
        assert rows == list(range(plan.nfe))
        assert plan.nfe >= steps
        close(out, rows_oracle.run(plan, host(plan), x), rtol=1e-11, atol=1e-13)
    assert wide(plan).nfe == plan.nfe and wide(plan).length == 48


@pytest.mark.parametrize("name", NAMES)
def test_every_legal_order_builds(name):
    for order in SOLVERS[name].orders:
        for steps in (2, 3, 8):
            plan = build(name, steps, order=order)
            x = start(plan)
            want = fd.plan.replay(plan, host(plan), x)
            assert np.isfinite(want).all()
            if name in ONE and not plan.stochastic:
                close(run(wide(plan, False), x), want, rtol=1e-11, atol=1e-13)
                loop = rows_oracle.run(plan, host(plan), x)
                close(want, loop, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", STARTED)
def test_a_graded_start_gives_a_plan_like_any_other(name, tmp_path):
    """More rows, one evaluation each: padded, dense, stacked, saved, one sample."""
    plan = build(name, start="graded", **highest(name))
    x = start(plan)
    want = fd.plan.replay(plan, host(plan), x)
    plain = build(name, **highest(name))
    assert plan.nfe == plan.length > plain.nfe
    near = functools.partial(close, rtol=1e-10, atol=1e-12)
    near(fd.plan.replay(dense(plan), host(plan), x), want)
    near(run(padded(plan), x, jax.random.key(0)), want)
    both = fd.plan.stack([plan, plain])
    one = jax.tree.map(lambda w: w[0], both)
    near(fd.sample(one, denoiser(plan.reads), x), want)
    fd.plan.save(plan, tmp_path / "plan.json")
    near(fd.plan.replay(fd.plan.load(tmp_path / "plan.json"), host(plan), x), want)
    if name in ONE:
        near(rows_oracle.run(plan, host(plan), x), want)
        assert asked(wide(plan, False), x)[1] == list(range(plan.nfe))


injected = jax.jit(lambda plan, x, z: fd.sample(plan, square, x, noise=z))


@pytest.mark.parametrize("name", [n for n in DRAWS if n in ONE])
def test_recorded_noise_goes_where_the_rows_say(name):
    plan, x = loud(name), np.asarray(batch())
    first = plan.start.noise is not None
    z = np.random.default_rng(3).normal(size=(plan.length + first, *x.shape))
    want = rows_oracle.run(plan, host(plan), x, z)
    rest = np.zeros((48 - plan.length + (not first), *x.shape))
    z = np.concatenate([z, rest] if first else [rest[:1], z, rest[1:]])
    out = injected(wide(plan), x, z)
    close(out, want, rtol=1e-11, atol=1e-13)


run_each = jax.jit(lambda plan, x: jax.vmap(lambda v: fd.sample(plan, square, v))(x))
one_step = jax.jit(lambda state, row: fd.step(state, row, square))


def row_of(plan, i):
    return jax.tree.map(lambda w: w[i], plan.rows)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_dtype_in_is_dtype_out(name, dtype):
    plan, key = build(name), jax.random.key(2)
    plan = padded(plan, True) if name in ONE else plan
    x = start(plan).astype(dtype)
    out = run(plan, x, key)
    assert out.dtype == dtype and out.shape == x.shape
    exact = run(plan, x.astype(jnp.float64), key)
    single = dtype == jnp.float32
    if single and build(name).stochastic:
        return  # the draws themselves differ by dtype
    close(out, exact, atol=2e-4 if single else 1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUIET)
def test_a_tree_is_its_leaves(name):
    plan = wide(build(name), False)
    x = {"a": batch((3, 2)), "b": batch(())}
    out = run(plan, x)
    chex.assert_trees_all_equal_structs(out, x)
    for k in x:
        close(out[k], run(plan, x[k]))


@pytest.mark.slow
@pytest.mark.parametrize("name", QUIET)
def test_vmap_jit_and_steps_by_hand_agree(name):
    plan, x = wide(build(name), False), batch()
    whole = run(plan, x)
    close(run_each(plan, x), whole)
    state = fd.init(plan, x)
    for i in range(plan.nfe + 1):
        state, info = one_step(state, row_of(plan, i))
        assert int(info.index) == i
    close(state.point, whole)


def plans_of(name):
    """A solver's plans without noise, on other processes, grids and lengths."""
    if name in NEEDY:
        return [build(name, steps) for steps in (2, 4, 7)]
    out = []
    for steps, beta in ((4, 20.0), (9, 12.0)):
        process = fd.processes.vp_linear(0.1, beta)
        ts = fd.grids.log_snr(process, steps)
        out.append(SOLVERS[name].build(process, ts, **quiet(name)))
    return out


@pytest.mark.parametrize("kind", ["still", "noisy", "both"])
def test_one_program_serves_every_solver(kind):
    """Plans of one padded size have one structure, but for whether they draw."""
    x, key = batch(), jax.random.key(0)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(plan, x, key):
        return fd.sample(plan, square, x, key=key)

    count = 0
    for name in ONE:
        quiet_ones = [p for p in plans_of(name) if not p.stochastic]
        loud_ones = [loud(name)] if name in DRAWS else []
        plans = {"still": quiet_ones, "noisy": loud_ones}
        for plan in plans.get(kind, quiet_ones + loud_ones):
            assert np.isfinite(run(padded(plan, kind == "both"), x, key)).all()
            count += 1
    assert count > 15


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
    # once to see that the condition is read, once to trace
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
        close(one, fd.sample(plan, square, x))


def test_stacked_stochastic_and_deterministic():
    plans = [build("ddim", 5), build("ddim", 4, eta=1.0)]
    x, key = batch(), jax.random.key(3)
    together = jax.vmap(lambda p: fd.sample(p, square, x, key=key))(
        fd.plan.stack(plans)
    )
    for one, plan in zip(together, plans, strict=True):
        close(one, fd.sample(plan, square, x, key=key), atol=1e-13)


@pytest.mark.parametrize("name", ["dpmpp_3m", "unipc", "edm_heun", "seeds"])
@pytest.mark.parametrize("cut", [1, 3])
def test_a_sliced_run_continues(name, cut):
    plan, x, key = loud(name), batch(), jax.random.key(5)
    state = fd.init(plan, x, key)
    state, _ = fd.run(fd.plan.slice_rows(plan, 0, cut), square, state)
    state, _ = fd.run(fd.plan.slice_rows(plan, cut), square, state)
    close(state.point, fd.sample(plan, square, x, key=key))


@pytest.mark.parametrize("name", NAMES)
def test_json_is_bit_exact(name, tmp_path):
    plan = loud(name)
    fd.plan.save(plan, tmp_path / "plan.json")
    back = fd.plan.load(tmp_path / "plan.json")
    assert jax.tree.structure(back) == jax.tree.structure(plan)
    for a, b in zip(jax.tree.leaves(plan), jax.tree.leaves(back), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN)
def test_traced_times_give_the_same_weights_and_gradients(name):
    """Weights are functions of the times: traced equals host, and differentiates."""
    ts = grid(5)
    make = SOLVERS[name].build
    host_plan = make(VP, ts)
    numbers = lambda plan: [  # noqa: E731
        w for w in jax.tree.leaves(plan) if jnp.issubdtype(w.dtype, jnp.floating)
    ]
    total = lambda t: sum(  # noqa: E731
        jnp.sum(jnp.sin(jnp.asarray(w))) for w in numbers(make(VP, t))
    )
    bump = np.asarray(np.arange(6) == 2, float)
    value, slope = jax.jvp(total, (jnp.asarray(ts),), (jnp.asarray(bump),))
    want = sum(np.sum(np.sin(w)) for w in numbers(host_plan))
    np.testing.assert_allclose(value, want, rtol=1e-9)
    up, down = (
        sum(np.sum(np.sin(w)) for w in numbers(make(VP, ts + s * 1e-6 * bump)))
        for s in (1, -1)
    )
    np.testing.assert_allclose(slope, (up - down) / 2e-6, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWS)
def test_sample_i_is_the_same_at_any_batch_size(name):
    plan, key = loud(name), jax.random.key(5)
    plan = padded(plan) if name in ONE else plan
    shape = (2, 3) if plan.matrix else (3,)
    x = fd.prior(VP, jax.random.key(2), (6, *shape))
    many = run(plan, x, key)
    few = run(plan, x[:2], key)
    # products of matrices may round differently in batches of another size
    same = close if plan.matrix else np.testing.assert_array_equal
    same(many[:2], few)
    np.testing.assert_array_equal(fd.prior(VP, jax.random.key(2), (2, *shape)), x[:2])
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(6))
    own = run(plan, x[4:], keys[4:])
    same(own, many[4:])
    with pytest.raises(ValueError, match="this plan draws noise; pass key="):
        fd.sample(plan, denoiser(plan.reads), x)


SIZES = {  # registers and writes per row: what a run keeps, and touches
    "ddim": (1, 1),
    "dpmpp_2m": (2, 2),
    "dpmpp_3m": (3, 2),
    "edm_heun": (2, 2),
    "dpm_solver_3": (3, 2),
    "etdrk4": (4, 2),
    "unipc": (4, 2),
    "sa_solver": (4, 2),
    "seeds": (2, 2),
    "hb": (3, 3),
    "f_pndm": (6, 2),
}


@pytest.mark.parametrize("name", SIZES)
def test_a_plan_keeps_no_more_than_its_method_needs(name):
    for plan in (build(name, 8), loud(name, 8)):
        assert (plan.registers, plan.writes) == SIZES[name]


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_that_reads_something_else_is_refused_by_name(name):
    plan = build(name)
    other = fd.models.giving(square, "score")
    with pytest.raises(ValueError, match=r"this plan reads .*the denoiser gives score"):
        fd.sample(plan, other, start(plan), key=jax.random.key(0))
