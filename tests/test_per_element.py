"""Plans with a time per element: each element is its own plan, whoever it waits for."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.analysis import transfer
from fastdiff_jax.plan.forms import every_line

from . import mixture as m
from .oracles import elements as loops
from .table import spoiled, with_rows

VP, FLOW, EDM = m.PROCESSES["vp"], m.PROCESSES["flow"], m.PROCESSES["edm"]
S, G = fd.solvers, fd.grids
per_element = fd.plan.per_element
RNG = np.random.default_rng(7)


def staggered(grids, rows, seed=0):
    """Each grid as a column of `rows` + 1 times that moves at rows of its own."""
    rng = np.random.default_rng(seed)
    columns = []
    for grid in grids:
        moves = np.zeros(rows, int)
        moves[rng.choice(rows, len(grid) - 1, replace=False)] = 1
        columns.append(grid[np.append(0, np.cumsum(moves))])
    return np.stack(columns, axis=1)


def moving(ts):
    """Which element moves in each row, without the rows in which none does."""
    moves = ts[1:] < ts[:-1]
    return moves[moves.any(axis=1)]


def own_times(ts, e):
    return np.append(ts[:-1, e][ts[1:, e] < ts[:-1, e]], ts[-1, e])


GRIDS = [
    m.times_between(VP, 6, 1.3),
    m.times_between(VP, 9),
    np.append(m.times_between(VP, 5), 0.0),  # exact end
    m.times_between(VP, 6, 1.3),  # as the first, at other rows
    m.times_between(VP, 1),
]
TS = staggered(GRIDS, 15)
V = np.array([0.3, 1.0, 2.0, 0.1, 0.7])

ONE_CALL = {
    "adams": {},
    "dc_solver": {},
    "ddim": {},
    "deis_tab": {},
    "dpmpp_2m": {},
    "dpmpp_2m_hb": {},
    "dpmpp_3m": {},
    "er_sde": {},
    "euler": {},
    "euler_ancestral": {},
    "euler_maruyama": {},
    "exp_adams": {"order": 4},
    "ghvb": {},
    "hb": {},
    "ipndm": {},
    "ipndm_v": {},
    "nt": {},
    "sa_solver": {},
    "sde_dpmpp_2m": {},
    "sde_dpmpp_3m": {},
    "unipc": {"order": 3},
}


# ---------------------------------------------------- each element is its own plan


CASES = [(name, False) for name in sorted(ONE_CALL)]
CASES += [(name, True) for name in sorted(ONE_CALL) if S.SOLVERS[name].stochastic]


@pytest.mark.parametrize(("name", "noisy"), CASES)
def test_the_response_of_each_element_is_that_of_its_own_plan(name, noisy):
    solver, options = S.SOLVERS[name], dict(ONE_CALL[name])
    for option in solver.stochastic:
        options[option] = 0.8 * noisy
    found = transfer(per_element(solver.build, VP, TS, **options), V)
    moves = moving(TS)
    for e, v in enumerate(V):
        want = transfer(solver.build(VP, own_times(TS, e), **options), v)
        for part in ("state", "mean", "constant"):
            got = getattr(found, part)[e]
            np.testing.assert_allclose(got, getattr(want, part)[0], 0, 1e-13)
        if noisy:
            draws = found.noise[:, e]
            np.testing.assert_allclose(
                draws[moves[:, e]], want.noise[:, 0], rtol=0, atol=1e-13
            )
            assert (draws[~moves[:, e]] == 0).all()  # waits draw nothing


@pytest.mark.parametrize("name", ["dpmpp_3m", "unipc", "sa_solver"])
def test_a_wrong_wait_shows(name):
    """Tampered waiting rows change the response: the test above sees them."""
    plan = per_element(S.SOLVERS[name].build, VP, TS, **ONE_CALL[name])
    base = transfer(plan, V).state
    at = np.flatnonzero(~moving(TS)[:, 1])[-1]
    registers = plan.rows.registers.copy()
    registers[at, 1:-1, :, 1] *= 1.5  # what it stores, not its point
    changed = transfer(with_rows(plan, registers=registers), V).state - base
    assert abs(changed[1]) > 1e-6 and (np.delete(changed, 1) == 0).all()


def keeps_no_noise(process, ts):
    """A step goes on from what the point was before it was moved by z."""
    lv = fd.plan.levels(process, ts)
    keep = lv.sigma[1:] / lv.sigma[:-1]
    first = (np.arange(lv.steps) == 0).astype(float)
    before = first * fd.plan.register(0) + (1 - first) * fd.plan.register(1)
    d = fd.plan.prediction()
    ahead = keep * before + (lv.alpha[1:] - keep * lv.alpha[:-1]) * d
    return fd.plan.build(
        lv.starts,
        lv.end,
        [(0, ahead + 0.3 * lv.sigma[1:] * fd.plan.NOISE), (1, ahead)],
        sample=ahead,
    )


def test_a_point_whose_noise_is_forgotten_waits_where_it_is():
    """No step that comes later knows the z again: the point itself has to stay."""
    found, moves = transfer(per_element(keeps_no_noise, VP, TS), V), moving(TS)
    for e, v in enumerate(V):
        want = transfer(keeps_no_noise(VP, own_times(TS, e)), v)
        np.testing.assert_allclose(found.state[e], want.state[0], 0, 1e-13)
        np.testing.assert_allclose(found.mean[e], want.mean[0], 0, 1e-13)
        draws = found.noise[:, e]
        np.testing.assert_allclose(draws[moves[:, e]], want.noise[:, 0], 0, 1e-13)
        assert (draws[~moves[:, e]] == 0).all()
    assert abs(found.noise).max() > 1e-3


ENGINE = {
    "ddim": {},
    "dpmpp_3m": {},
    "exp_adams": {"order": 4},
    "unipc": {"order": 3},
    "sde_dpmpp_2m": {},
    "sa_solver": {},
}


@pytest.mark.parametrize("name", ENGINE)
def test_separable_gaussian_in_the_engine(name):
    """Injected noise goes to each element by its own steps."""
    build, options = S.SOLVERS[name].build, ENGINE[name]
    mean, ts = np.linspace(-1, 2, 5), TS
    plan = per_element(build, VP, ts, **options)
    x, moves = RNG.normal(size=(4, 5)), moving(ts)
    z = RNG.normal(size=(plan.length, 4, 5)) if plan.stochastic else None
    got = fd.sample(plan, fd.models.gaussian(mean, V), jnp.asarray(x), noise=z)
    for e in range(5):
        one = build(VP, own_times(ts, e), **options)
        gains = transfer(one, V[e])
        want = gains.state * x[:, e] + gains.mean * mean[e]
        if z is not None:
            want = want + gains.noise[:, 0] @ z[moves[:, e], :, e]
        np.testing.assert_allclose(got[:, e], want, rtol=0, atol=1e-13)


# ------------------------------------------------------------------- equal columns

SAME = {
    "ddim": {"eta": 1.0},
    "dpmpp_2m": {},
    "unipc": {"order": 3},
    "sde_dpmpp_2m": {},
    "sa_solver": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAME)
def test_equal_columns_are_the_scalar_plan(name):
    """But for roundings: two compiled programs."""
    build, options = S.SOLVERS[name].build, SAME[name]
    times = np.append(m.times_between(VP, 7), 0.0)
    one = build(VP, times, **options)
    each = per_element(build, VP, np.stack([times] * 3, axis=1), **options)
    assert each.rows.level.time.shape == (8, 3)
    noise = one.rows.noise  # of the lines that draw; side by side, of all
    if noise is not None:
        noise = every_line(noise, each.rows.noise.shape[1])
    one = dataclasses.replace(one, rows=one.rows._replace(noise=noise))
    alike = each.rows._replace(level=one.rows.level)
    assert jax.tree.structure(alike) == jax.tree.structure(one.rows)
    jax.tree.map(np.testing.assert_array_equal, alike, one.rows)
    x, key = jnp.asarray(RNG.normal(size=(4, 3))), jax.random.key(3)

    def net(x, context, carry):
        alpha = jnp.broadcast_to(context.alpha, (3,))[None]
        return jnp.tanh(x * alpha) + alpha, carry

    wide, want = (fd.sample(plan, net, x, key=key) for plan in (each, one))
    np.testing.assert_allclose(wide, want, rtol=1e-14, atol=1e-15)


def test_rows_in_which_nothing_moves_are_left_out():
    times = m.times_between(VP, 5)
    ts = np.stack([np.repeat(times, 3)] * 2, axis=1)
    plan = per_element(S.dpmpp_2m, VP, ts)
    assert plan.length == 5
    np.testing.assert_array_equal(
        transfer(plan, [1.0, 1.0]).state[:1],
        transfer(S.dpmpp_2m(VP, times), 1.0).state,
    )


def test_shared_weights_stay_numbers():
    plan = per_element(S.dpmpp_2m, VP, TS)
    assert plan.rows.basis.shape == (plan.length, 2)
    assert plan.rows.registers.shape == (plan.length, plan.writes + 1, 2, 5)
    together = G.block_lagged(VP, GRIDS[0], blocks=2, lag=0)
    plan = per_element(S.sde_dpmpp_3m, VP, together)
    assert plan.rows.to.shape == (6, 2) and plan.rows.registers.shape == (6, 3, 3)


def test_one_column_and_no_column_axis():
    times = m.times_between(VP, 5)
    one, want = per_element(S.unipc, VP, times), S.unipc(VP, times)
    jax.tree.map(np.testing.assert_array_equal, one, want)


# ----------------------------------------------------------- elements that interact

MEAN = np.array([0.5, -1.0])
COVARIANCE = np.array([[1.0, 0.75], [0.75, 0.8]])


def joint(x, alpha, sigma):
    """E[x_0 | x] of two correlated frames, each at its own level."""
    alpha, sigma = np.broadcast_to(alpha, 2), np.broadcast_to(sigma, 2)
    total = alpha[:, None] * COVARIANCE * alpha + np.diag(sigma**2)
    gain = COVARIANCE * alpha @ np.linalg.inv(total)
    return MEAN + (x - alpha * MEAN) @ gain.T


def replayed(plan, x, z=None):
    a, s = plan.rows.level.alpha, plan.rows.level.sigma
    return fd.plan.replay(plan, lambda y, i: joint(y, a[i], s[i]), x, z)


TWO = [m.times_between(VP, 17, 1.3), m.times_between(VP, 20)]


@pytest.mark.parametrize("seed", range(3))
def test_correlated_frames_equal_the_naive_loops(seed):
    ts = staggered(TWO, 30, seed)
    ts = ts[np.append((ts[1:] < ts[:-1]).any(1), True)]
    x, z = RNG.normal(size=(5, 2)), RNG.normal(size=(len(ts) - 1, 5, 2))
    want = loops.ddim(VP, ts, joint, x, 0.7, z)
    plan = per_element(S.ddim, VP, ts, eta=0.7)
    np.testing.assert_allclose(replayed(plan, x, z), want, rtol=0, atol=1e-12)
    want = loops.dpmpp_2m(VP, ts, joint, x)
    plan = per_element(S.dpmpp_2m, VP, ts)
    np.testing.assert_allclose(replayed(plan, x), want, rtol=0, atol=1e-12)
    direct = S.dpmpp_2m(VP, ts)  # falls to order 1 wherever an element waits
    assert np.abs(replayed(direct, x) - want).max() > 1e-3


def law(plan):
    """Mean and covariance of the samples from the exact law of the start."""

    def target(level):
        a, s = (np.broadcast_to(w, 2) for w in level[1:])
        return a * MEAN, a[:, None] * COVARIANCE * a + np.diag(s**2)

    first = fd.plan.Level(*(w[0] for w in plan.rows.level))
    mean, covariance = target(first)
    base, *units = replayed(plan, np.concatenate([mean[None], mean + np.eye(2)]))
    gains = np.stack(units) - base
    want_mean, want = target(plan.end)
    return base - want_mean, gains.T @ covariance @ gains - want


def law_error(steps, share, broken=1.0):
    base = m.times_between(VP, steps)
    ts = G.block_lagged(VP, base, blocks=2, lag=round(steps * share))
    plan = per_element(S.dpmpp_2m, VP, ts, variant="exact")
    mean, covariance = law(spoiled(plan, older=broken))
    return np.abs(mean).max(), np.abs(covariance).max()


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_every_lag_converges_to_the_joint_law(share):
    """Synchronous to autoregressive: the same law, in second order."""
    (mean, coarse), (_, fine) = (law_error(n, share) for n in (40, 80))
    assert mean < 1e-12  # a constant prediction is integrated exactly
    assert abs(np.log2(coarse / fine) - 2) < 0.25
    wrong = [law_error(n, share, broken=1.05)[1] for n in (40, 80)]
    assert np.log2(wrong[0] / wrong[1]) < 1.5


@pytest.mark.parametrize(("order", "power"), [(2, 1.0), (3, 2.0)])
def test_order_is_kept_under_lag(order, power):
    """On a mixture; the solver given the same times itself falls to order 1."""

    def error(build, steps):
        base = m.times_between(VP, steps, power)
        _, x, end = m.problem("vp")
        plan = build(VP, G.block_lagged(VP, base, blocks=2, lag=steps // 2))
        a, s = plan.rows.level.alpha[..., None], plan.rows.level.sigma[..., None]
        start = np.repeat(x, 2, axis=1)
        got = fd.plan.replay(plan, lambda y, i: m.predict(y, a[i], s[i]), start)
        return np.sqrt(np.mean((got - end) ** 2))

    def slope(build):
        return np.log2(error(build, 80) / error(build, 160))

    def joined(process, ts):
        return per_element(S.exp_adams, process, ts, order=order)

    assert abs(slope(joined) - order) < 0.25
    assert slope(lambda process, ts: S.exp_adams(process, ts, order=order)) < 1.3


# ----------------------------------------------------------------------- schedules


@pytest.mark.parametrize(
    ("steps", "blocks", "lag"), [(5, 4, 2), (5, 3, 0), (5, 3, 5), (1, 3, 1), (6, 1, 3)]
)
@pytest.mark.parametrize("frames", [1, 3])
def test_block_lagged_is_the_naive_recurrence(steps, blocks, lag, frames):
    base = G.uniform(FLOW, steps, end=0.0)
    ts = G.block_lagged(FLOW, base, blocks=blocks, lag=lag, frames=frames)
    assert ts.shape == (steps + (blocks - 1) * lag + 1, blocks * frames)
    rows = loops.block_rows(steps, blocks, lag)
    np.testing.assert_array_equal(ts, np.repeat(base[rows], frames, axis=1))


def test_known_blocks_are_no_lag():
    base = G.uniform(FLOW, 5, end=0.0)
    ts = G.block_lagged(FLOW, base, blocks=3, lag=2)
    ts = G.known_prefix(FLOW, ts, 2)
    np.testing.assert_array_equal(ts, base[loops.block_rows(5, 5, 2, ready=2)])


def test_lag_ends():
    base = G.uniform(FLOW, 4, end=0.0)
    together = G.block_lagged(FLOW, base, blocks=3, lag=0)
    np.testing.assert_array_equal(together, np.stack([base] * 3, axis=1))
    after = G.block_lagged(FLOW, base, blocks=3, lag=4)
    moves = after[1:] < after[:-1]
    np.testing.assert_array_equal(moves, np.repeat(np.eye(3, dtype=bool), 4, axis=0))


@pytest.mark.parametrize("u", [0.0, 0.5, 1.0, 2.7])
def test_pyramid_is_the_naive_count_down(u):
    base = G.karras(EDM, 6)
    ts = G.pyramid(EDM, base, frames=5, uncertainty=u)
    np.testing.assert_array_equal(ts, base[6 - loops.pyramid_rows(6, 5, u)])
    assert len(ts) == 6 + int(4 * u) + 1


def test_offset_is_semantic_first():
    base = G.uniform(FLOW, 10, end=0.0)
    ts = G.offset(FLOW, base)  # 13 rows: the offset is 3 of the 10 steps
    np.testing.assert_array_equal(ts, G.pyramid(FLOW, base, frames=2, uncertainty=3.0))
    ts = G.offset(FLOW, base, offsets=(0.25, 0.0, 1.0), rows=7)
    t = 2 * np.arange(8) / 7
    for k, o in enumerate((0.25, 0.0, 1.0)):
        np.testing.assert_allclose(ts[:, k], 1 - np.clip(t - o, 0, 1), atol=1e-14)
    ve = fd.processes.ve()
    clean = G.offset(ve, G.karras(ve, 5, to_zero=True), offsets=(0.0, 0.2))
    assert clean.shape == (7, 2) and ve.sigma(clean[-1]).tolist() == [0.0, 0.0]


def test_align():
    ts = np.ones((4, 3))
    assert G.align(ts, 1, 2).shape == (4, 3)
    assert G.align(ts, -1, 5).shape == (4, 3)
    assert G.align(ts, 1, 5).shape == (4, 3, 1, 1, 1)
    assert G.align(ts, -2, 4).shape == (4, 3, 1)


def test_frames_of_a_video():
    ts = G.block_lagged(VP, GRIDS[0], blocks=3, lag=2)
    aligned = G.align(ts, axis=1, ndim=4)
    x = RNG.normal(size=(2, 3, 2, 4))
    mean = np.array([1.0, 2.0, 3.0])
    video = fd.models.gaussian(mean[:, None, None] * np.ones((3, 2, 4)), 0.3)
    got = fd.sample(per_element(S.unipc, VP, aligned), video, jnp.asarray(x))
    plan = per_element(S.unipc, VP, ts)
    gains = transfer(plan, np.full(3, 0.3))
    want = np.moveaxis(gains.state * np.moveaxis(x, 1, -1) + gains.mean * mean, -1, 1)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-13)


def test_known_elements_keep_their_bits_under_noise():
    ts = G.block_lagged(FLOW, G.uniform(FLOW, 5, end=0.0), blocks=2, lag=2)
    for time in (None, 0.07):
        held = G.known_prefix(FLOW, ts, 2, time=time)
        assert held.shape == (8, 4)
        assert (held[:, :2] == (0.0 if time is None else time)).all()
        plan = per_element(S.sde_dpmpp_2m, FLOW, held)
        x = jnp.asarray(RNG.normal(size=(3, 4)))
        out = fd.sample(plan, fd.models.gaussian(1.0, 0.1), x, key=jax.random.key(0))
        np.testing.assert_array_equal(out[:, :2], x[:, :2])
        assert (out[:, 2:] != x[:, 2:]).all()


# ---------------------------------------------------------------------- modalities


def modalities(x, context, carry):
    """Two correlated modalities under names, each at its own level."""
    a = jnp.stack([context.alpha["image"], context.alpha["text"]])
    s = jnp.stack([context.sigma["image"], context.sigma["text"]])
    both = jnp.stack([x["image"], x["text"]], axis=-1)
    total = a[:, None] * COVARIANCE * a[None, :] + jnp.diag(s**2)
    gain = (COVARIANCE * a[None, :]) @ jnp.linalg.inv(total)
    found = MEAN[None] + (both - (a * MEAN)[None]) @ gain.T
    return {"image": found[:, 0], "text": found[:, 1]}, carry


def test_one_joint_model_gives_joint_conditional_and_marginal_samples():
    """From x = 0 at alpha = 0 a plan's end is the mean of the law it samples."""
    base = G.uniform(FLOW, 6, end=0.0)
    text = jnp.asarray([0.0, 1.5, -2.0])
    slope = COVARIANCE[0, 1] / COVARIANCE[1, 1]
    want = {
        "sample": np.full(3, MEAN[0]),
        "clean": MEAN[0] + slope * (text - MEAN[1]),
        "noise": np.full(3, MEAN[0]),
    }
    for role, mean in want.items():
        ts = G.per_modality(FLOW, base, {"image": "sample", "text": role})
        plan = per_element(S.dpmpp_2m, FLOW, ts)
        assert plan.rows.level.time["text"].shape == (6,)
        x = {"image": jnp.zeros(3), "text": text if role == "clean" else jnp.zeros(3)}
        out = fd.sample(plan, modalities, x)
        np.testing.assert_allclose(out["image"], mean, rtol=0, atol=1e-12)
        end = np.full(3, MEAN[1]) if role == "sample" else x["text"]
        np.testing.assert_allclose(out["text"], end, rtol=0, atol=1e-12)


def test_a_tree_of_times_is_the_array_of_them():
    """Text on a grid of its own, that ends before the image's."""
    base, other = GRIDS[1], m.times_between(VP, 4)
    ts = G.per_modality(VP, base, {"image": "sample", "text": other})
    assert ts["text"].shape == (10,) and (ts["text"][4:] == other[-1]).all()
    tree = per_element(S.sa_solver, VP, ts)
    flat = per_element(S.sa_solver, VP, np.stack([ts["image"], ts["text"]], axis=1))
    x = {"image": jnp.asarray([0.3, 2.0]), "text": jnp.asarray([-1.0, 0.5])}
    z = RNG.normal(size=(9, 2, 2))
    got = fd.sample(tree, modalities, x, noise={"image": z[..., 0], "text": z[..., 1]})
    start = np.stack([x["image"], x["text"]], axis=-1)
    want = replayed(flat, start, z)
    for k, name in enumerate(("image", "text")):
        np.testing.assert_allclose(got[name], want[:, k], rtol=0, atol=1e-12)
    back = fd.plan.from_json(fd.plan.to_json(tree))
    jax.tree.map(np.testing.assert_array_equal, back, tree)


def test_roles():
    base = np.array([1.0, 0.5, 0.0])
    roles = {"a": "sample", "b": "noise", "c": 0.2, "d": [0.8, 0.6, 0.4, 0.1]}
    ts = G.per_modality(FLOW, base, roles)
    np.testing.assert_array_equal(ts["a"], [1.0, 0.5, 0.0, 0.0])
    np.testing.assert_array_equal(ts["b"], np.ones(4))
    np.testing.assert_array_equal(ts["c"], np.full(4, 0.2))
    np.testing.assert_array_equal(ts["d"], roles["d"])


# ------------------------------------------------------------------------ contract


def test_one_trace_jit_vmap_pad_and_json():
    bases = [m.times_between(VP, 6), m.times_between(VP, 6, 1.5)]
    lagged = [G.block_lagged(VP, b, blocks=3, lag=2) for b in bases]
    plans = [per_element(S.unipc, VP, ts) for ts in lagged]
    x, calls = jnp.asarray(RNG.normal(size=(4, 3))), []

    def net(x, context, carry):
        return jnp.tanh(x + context.alpha[None]), carry

    @jax.jit
    def draw(plan):
        calls.append(1)
        return fd.sample(plan, net, x)

    want = [draw(plan) for plan in plans]
    assert len(calls) == 1
    both = jax.vmap(draw)(fd.plan.stack(plans))
    np.testing.assert_allclose(both, jnp.stack(want), rtol=1e-13, atol=1e-14)
    padded = fd.sample(fd.plan.pad(plans[0], plans[0].length + 3), net, x)
    np.testing.assert_allclose(padded, want[0], rtol=1e-13, atol=1e-14)
    back = fd.plan.from_json(fd.plan.to_json(plans[0]))
    jax.tree.map(np.testing.assert_array_equal, back, plans[0])
    narrow = fd.sample(plans[0], net, x.astype(jnp.float32))
    assert narrow.dtype == jnp.float32 and "row" in str(plans[0])


def test_exact_ends():
    """alpha = 0 at the start and sigma = 0 at the end, at different rows."""
    ts = G.block_lagged(FLOW, np.linspace(1, 0, 6), blocks=2, lag=3)
    for build in (S.dpmpp_3m, S.unipc, S.sde_dpmpp_2m, S.sa_solver):
        found = transfer(per_element(build, FLOW, ts), [0.5, 0.5])
        one = transfer(build(FLOW, np.linspace(1, 0, 6)), 0.5)
        np.testing.assert_allclose(found.state, one.state[0], rtol=0, atol=1e-13)
        np.testing.assert_allclose(found.mean, one.mean[0], rtol=0, atol=1e-13)


# ---------------------------------------------------------------------------- FoPP


def sequences(levels, frames):
    return list(itertools.combinations_with_replacement(range(levels), frames))


@pytest.mark.parametrize("pivot", [True, False])
def test_fopp_has_the_counted_probabilities(pivot):
    levels, frames, samples = 4, 3, 40_000
    found = G.fopp(np.random.default_rng(1), levels, frames, samples, pivot=pivot)
    every = sequences(levels, frames)
    assert len(every) == math.comb(levels + frames - 1, frames)
    want = np.full(len(every), 1 / len(every))
    if pivot:
        alike = np.zeros((frames, levels))
        for s in every:
            alike[np.arange(frames), s] += 1
        want = np.array([np.mean(1 / alike[np.arange(frames), s]) for s in every])
        want /= levels
    assert abs(want.sum() - 1) < 1e-12
    counts = np.array([(found == np.array(s)).all(1).sum() for s in every])
    assert counts.sum() == samples
    chi2 = ((counts - samples * want) ** 2 / (samples * want)).sum()
    assert chi2 < 45  # 19 degrees of freedom, p = 7e-4


def test_fopp_of_a_long_video_does_not_overflow():
    found = G.fopp(np.random.default_rng(0), 1000, 200, 3)
    assert (np.diff(found, axis=1) >= 0).all()
    assert found.min() >= 0 and found.max() < 1000


# ----------------------------------------------------------------------- bad input


def starts(process, ts):
    made = S.ddim(process, ts)
    return dataclasses.replace(made, start=fd.plan.Start(np.ones(1), np.ones(1)))


PAIR = np.array([[1.0, 1.0], [0.5, 1.0], [0.25, 0.5], [0.0, 0.25]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: per_element(S.heun, VP, TS), "heun makes 12 rows for 6 steps"),
        (
            lambda: per_element(S.ddim, FLOW, PAIR[::-1]),
            r"ts\[0\]=0 is followed by ts\[1\]=0.25. Sort them downwards",
        ),
        (lambda: per_element(S.ddim, FLOW, PAIR[:1]), "at least 2 times"),
        (
            lambda: per_element(S.ddim, FLOW, PAIR[:, :0]),
            "ts must be one real number or more",
        ),
        (lambda: per_element(S.ddim, FLOW, np.ones((3, 2))), "no element moves"),
        (
            lambda: per_element(S.ddim, FLOW, {"a": PAIR, "b": PAIR[:3]}),
            r"same number of times; got shapes \[\(4, 2\), \(3, 2\)\]",
        ),
        (
            lambda: per_element(S.ddim, FLOW, {"a": PAIR, "b": PAIR[::-1]}),
            r"ts\['b'\] must decrease",
        ),
        (
            lambda: jax.jit(lambda t: per_element(S.ddim, FLOW, t).rows.index)(PAIR),
            "per_element needs ts as numbers",
        ),
        (
            lambda: jax.jit(
                lambda e: per_element(S.ddim, FLOW, PAIR, eta=e).rows.index
            )(0.5),
            "per_element needs ddim's options as numbers",
        ),
        (lambda: per_element(starts, FLOW, PAIR), "with a start move, as starts"),
        (lambda: G.block_lagged(FLOW, [1.0, 0.0], blocks=2, lag=2), r"lag .* 0..1"),
        (lambda: G.block_lagged(FLOW, [1.0, 0.0], blocks=2, lag=-1), "lag must be >="),
        (lambda: G.block_lagged(FLOW, [1.0, 0.0], blocks=0, lag=0), "blocks must be"),
        (lambda: G.block_lagged(FLOW, [1.0, 0.0], blocks=2, lag=0.5), "whole number"),
        (lambda: G.block_lagged(FLOW, [0.0, 1.0], blocks=2, lag=1), "base must decr"),
        (lambda: G.pyramid(FLOW, PAIR, frames=2), r"base must be 1-D .* \(4, 2\)"),
        (
            lambda: G.pyramid(FLOW, [1.0, 0.0], frames=2, uncertainty=-1.0),
            "uncertainty must be in .*, got -1.0",
        ),
        (lambda: G.offset(FLOW, [1.0, 0.0], offsets=()), "offsets must be a list"),
        (lambda: G.offset(FLOW, [1.0, 0.0], offsets=(0.1,)), "must be 0, got 0.1"),
        (lambda: G.offset(FLOW, [1.0, 0.0], rows=0), "rows must be >= 1, got 0"),
        (lambda: G.known_prefix(FLOW, PAIR, 1, time=1.5), r"time must lie in \[0, 1\]"),
        (lambda: G.known_prefix(FLOW, PAIR[0], 1), r"shape \(M \+ 1, F\), got \(2,\)"),
        (
            lambda: G.per_modality(FLOW, [1.0, 0.0], {"a": "known"}),
            "role of 'a' must be 'sample', 'clean', 'noise'.* got 'known'",
        ),
        (
            lambda: G.per_modality(FLOW, [1.0, 0.0], {"a": [0.1, 0.5]}),
            r"roles\['a'\] must decrease",
        ),
        (
            lambda: G.per_modality(FLOW, [1.0, 0.0], {"a": PAIR}),
            r"roles\['a'\] must be a time or a list of them, got shape \(4, 2\)",
        ),
        (lambda: G.align(PAIR[0], 1, 3), r"shape \(M \+ 1, F\), got \(2,\)"),
        (lambda: G.align(PAIR, 3, 3), "axis must lie in -3..2 .* got 3"),
        (lambda: G.fopp(np.random.default_rng(0), 0, 3, 2), "levels must be >= 1"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()
