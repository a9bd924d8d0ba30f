"""Moves after a row: Langevin by norms, known parts; classifier guidance."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd

from . import mixture as m
from .oracles import score_sde as loop

S, M = fd.solvers, fd.moves
VP, SUB, VE = fd.processes.vp_linear(), fd.processes.sub_vp(), fd.processes.ve()
PATHS = {"vp": VP, "sub-vp": SUB, "ve": VE}
KEY = jax.random.key(3)


def grid(process, steps=6, clean=False):
    ts = np.asarray(process.half_log_snr_inverse(np.linspace(-2, 2, steps + 1)))
    return np.append(ts, process.clean) if clean else ts


def close(got, want, tol=1e-12):
    np.testing.assert_allclose(got, want, rtol=tol, atol=tol)


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# ------------------------------------------------------------------------- langevin


def predictor(process):
    return lambda x, t: m.predict(x, *loop.level(process, t))


@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize("path", PATHS)
def test_langevin_equals_the_naive_loop(path, per_sample):
    """Independent elements: the mixture's prediction per element, events (2, 2)."""
    process = PATHS[path]
    ts, x = grid(process), draw((3, 2, 2))
    z = draw((18, 3, 2, 2), 1)
    plan = S.predictor_corrector(process, ts, corrections=2, snr=0.2)
    move = M.langevin(per_sample=per_sample)
    got = fd.sample(plan, each_element, jnp.asarray(x), noise=z, move=move)
    correct = functools.partial(loop.langevin_step, snr=0.2, per_sample=per_sample)
    want = loop.predictor_corrector(
        *(process, ts, predictor(process), x, z),
        *(loop.reverse_diffusion_step, correct, 2),
    )
    close(got, want, 1e-11)
    ald = fd.sample(plan, each_element, jnp.asarray(x), noise=z)
    assert abs(np.asarray(got) - ald).max() > 1e-3


def each_element(x, context, carry):
    def leaf(v):
        flat = v.reshape(-1, 1)
        return m.MODEL(flat, context, None)[0].reshape(v.shape)

    return jax.tree.map(leaf, x), carry


def test_langevin_norms_are_over_the_whole_tree():
    ts, z = grid(VP), draw((12, 3, 4))
    plan = S.predictor_corrector(VP, ts, snr=0.2)
    x = jnp.asarray(draw((3, 4), 2))
    whole = fd.sample(plan, each_element, x, noise=z, move=M.langevin())
    tree = lambda v: {"a": v[..., :1], "b": v[..., 1:]}  # noqa: E731
    parts = fd.sample(plan, each_element, tree(x), noise=tree(z), move=M.langevin())
    close(parts["a"], whole[:, :1])
    close(parts["b"], whole[:, 1:])


@pytest.mark.slow
def test_langevin_sample_i_is_the_same_at_any_batch_size():
    plan = S.predictor_corrector(VP, grid(VP), snr=0.2)
    x = fd.prior(VP, jax.random.key(1), (5, 3))
    run = functools.partial(fd.sample, plan, each_element, key=KEY)
    many, few = (run(v, move=M.langevin()) for v in (x, x[:2]))
    close(many[:2], few, 1e-13)
    batch = M.langevin(per_sample=False)
    assert abs(run(x, move=batch)[:2] - run(x[:2], move=batch)).max() > 1e-4


def test_langevin_one_step_moments():
    """E|x'|^2 on N(0, V) data of d elements: eps is random but its law is known.

    With r = |z| / |x|, eps = c V^2 r^2: x' = x (1 - c V r^2) + sqrt(2 c) V r z, so
    |x'|^2 has mean |x|^2 E[(1 - c V r^2)^2 + 2 c V^2 / V ...]; here by quadrature.
    """
    d, snr, total = 16, 0.2, 40_000
    ts = np.array([0.3, 0.3])
    plan = S.predictor_corrector(VP, ts, snr=snr, denoise=False)
    alpha, sigma = loop.level(VP, 0.3)
    v = alpha**2 * 0.5 + sigma**2
    x = jnp.sqrt(v) * jax.random.normal(jax.random.key(0), (total, d))
    out = fd.sample(plan, fd.models.gaussian(0.0, 0.5), x, key=KEY, move=M.langevin())
    # |z|^2, |x|^2 / v are chi^2(d) and the angle is uniform: condition on them
    rng = np.random.default_rng(5)
    zz, xx = rng.chisquare(d, 400_000), v * rng.chisquare(d, 400_000)
    eps = 2 * snr**2 * zz / (xx / v**2)
    want = xx * (1 - eps / v) ** 2 + 2 * eps * zz
    found = np.asarray((out**2).sum(1))
    spread = np.hypot(found.std() / np.sqrt(total), want.std() / np.sqrt(len(want)))
    assert abs(found.mean() - want.mean()) < 4 * spread
    assert abs(found.mean() - np.mean(xx)) > 8 * spread  # the size does matter


def test_langevin_leaves_other_rows_and_padding_alone():
    ts, z = grid(VP), draw((12, 3, 2))
    plan = S.predictor_corrector(VP, ts, snr=0.2)
    x = jnp.asarray(draw((3, 2)))
    whole = fd.sample(plan, each_element, x, noise=z, move=M.langevin())
    noise = np.concatenate([z, z])
    padded = fd.plan.pad(plan, 24)
    close(fd.sample(padded, each_element, x, noise=noise, move=M.langevin()), whole)
    zero = S.predictor_corrector(VP, np.array([0.5, 0.5, 0.2]), snr=0.2)
    flat = fd.sample(
        zero, lambda v, c, k: (v / c.alpha, k), x, noise=z[:4], move=M.langevin()
    )
    assert np.isfinite(flat).all()  # a score of norm 0 keeps the row's own size


# ----------------------------------------------------------------------- inpainting


@pytest.mark.parametrize("path", PATHS)
def test_inpainting_equals_the_naive_loop(path):
    """The engine's own noise, replayed: side_noise for the known part."""
    process = PATHS[path]
    ts, x = grid(process, clean=True), draw((3, 4))
    known, mask = draw((4,), 2), np.array([1.0, 0.0, 0.25, 0.0])
    plan = S.reverse_diffusion(process, ts)
    z = draw((7, 3, 4), 4)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(3))
    want = x
    for i in range(7):
        want = loop.reverse_diffusion_step(
            process, predictor(process), want, ts[i], ts[i + 1], z[i] * (i < 6)
        )
        alpha, sigma = loop.level(process, ts[i + 1])
        side = np.asarray(fd.noise.side_noise(keys, i, jnp.zeros((3, 4))))
        want = mask * (alpha * known + sigma * side) + (1 - mask) * want
    move = M.inpaint(known, mask)
    got = fd.sample(plan, each_element, jnp.asarray(x), key=KEY, noise=z, move=move)
    close(got, want, 1e-11)
    assert (np.asarray(got)[:, 0] == known[0]).all()


COVARIANCE = np.array([[1.0, 0.8], [0.8, 1.0]])


def conditional(plan, move, number=4000):
    """Samples of x_1 where x_0 = 1.5, of N(0, COVARIANCE)."""
    model = fd.models.gaussian(0.0, covariance=COVARIANCE)
    x = fd.prior(VP, jax.random.key(0), (number, 2))
    out = np.asarray(fd.sample(plan, model, x, key=KEY, move=move))
    assert (out[:, 0] == 1.5).all()
    return out[:, 1].mean(), out[:, 1].var()


@pytest.mark.slow
def test_inpainting_draws_from_the_conditional_law():
    """Mean 1.2, variance 0.36: far off without correctors, near with many."""
    ts = fd.grids.log_snr(VP, 40, to_zero=True)
    move = M.inpaint([1.5, 0.0], [1, 0])
    plain = S.predictor_corrector(VP, ts, corrector=None)
    more = S.predictor_corrector(VP, ts, corrections=5, snr=0.5)
    first, second = (conditional(p, move) for p in (plain, more))
    assert abs(second[0] - 1.2) < 0.12 and abs(second[1] - 0.36) < 0.06
    assert 0.5 < first[0] < 0.9 and 0.45 < first[1] < 0.8  # the right direction


@pytest.mark.slow
def test_inpainting_works_with_a_deterministic_multistep_plan_and_a_tree():
    plan = S.dpmpp_2m(VP, fd.grids.log_snr(VP, 8, to_zero=True))
    x = {"a": jnp.ones((3, 2)), "b": jnp.ones((3, 4, 4, 1))}
    known = {"a": np.full(2, 0.3), "b": draw((3, 4, 4, 1))}
    mask = {"a": np.array([True, False]), "b": np.ones((4, 1, 1))}
    out = fd.sample(plan, each_element, x, key=KEY, move=M.inpaint(known, mask))
    close(out["b"], known["b"], 0)
    assert (out["a"][:, 0] == 0.3).all() and (out["a"][:, 1] != 0.3).all()
    with pytest.raises(ValueError, match="inpaint draws noise in each row; pass"):
        fd.sample(plan, each_element, x, move=M.inpaint(known, mask))


@pytest.mark.slow
def test_inpainting_sample_i_is_the_same_at_any_batch_size():
    plan = S.sde_dpmpp_2m(VP, grid(VP))
    x = fd.prior(VP, jax.random.key(1), (5, 3))
    move = M.inpaint(np.ones(3), np.array([1, 0, 1]))
    many, few = (
        fd.sample(plan, each_element, v, key=KEY, move=move) for v in (x, x[:2])
    )
    close(many[:2], few, 1e-13)


def test_new_masks_do_not_recompile_and_float32_stays():
    traces = []

    def net(x, context, carry):
        traces.append(1)
        return jnp.tanh(x), carry

    x = jnp.ones((2, 3), jnp.float32)
    plan = S.reverse_diffusion(VP, grid(VP))
    for k in range(3):
        mask = np.array([k % 2, 1, 0], np.float32)
        move = M.chain(M.inpaint(np.full(3, float(k)), mask), M.inpaint(mask, mask))
        out = fd.sample(plan, net, x, key=KEY, move=move)
        assert out.dtype == jnp.float32 and len(traces) <= 2


@pytest.mark.slow
def test_moves_in_a_chain_have_their_own_noise_and_may_be_functions():
    plan, x = S.ddim(VP, grid(VP)), jnp.zeros((2, 2))
    first = M.inpaint(np.zeros(2), [1, 0])
    second = M.inpaint(np.zeros(2), [0, 1])
    both = M.chain(M.chain(first, second), lambda state, *_: state)
    assert [move.stream for move in both.moves[:2]] == [0, 1]
    out = fd.sample(plan, each_element, x, key=KEY, move=both)
    own = fd.sample(plan, each_element, x, key=KEY, move=M.chain(first, second))
    close(out, own, 0)
    sigma = float(VP.sigma(grid(VP)[-1]))
    assert (abs(out / sigma) < 5).all() and len(np.unique(out)) == 4


# --------------------------------------------------------------------- colourisation


@pytest.mark.slow
def test_colourising_equals_the_naive_loop():
    ts, x = grid(VP, clean=True), draw((2, 3, 3, 3))
    grey = draw((3, 3, 1), 2)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(2))
    z, want = draw((7, 2, 3, 3, 3), 4), x
    basis = loop.colour_basis()
    close(basis.T @ basis, np.eye(3))
    close(basis[:, 0], np.full(3, 1 / np.sqrt(3)))
    for i in range(7):
        want = loop.reverse_diffusion_step(
            VP, predictor(VP), want, ts[i], ts[i + 1], z[i] * (i < 6)
        )
        side = np.asarray(fd.noise.side_noise(keys, i, jnp.zeros((2, 3, 3, 1))))
        level = loop.level(VP, ts[i + 1])
        want = loop.colour_step(want, np.broadcast_to(grey, side.shape), *level, side)
    plan, move = S.reverse_diffusion(VP, ts), M.colourise(grey)
    got = fd.sample(plan, each_element, jnp.asarray(x), key=KEY, noise=z, move=move)
    close(got, want, 1e-11)
    close(got.mean(-1, keepdims=True), np.broadcast_to(grey, (2, 3, 3, 1)), 1e-14)
    with pytest.raises(ValueError, match="one array with 3 channels on its last axis"):
        fd.sample(plan, each_element, jnp.ones((2, 3)).T, key=KEY, move=move)


def test_known_mixtures_of_channels():
    q = np.linalg.qr(draw((4, 4)))[0][:2]
    y = draw((5, 2), 3)
    plan = S.ddim(VP, grid(VP, clean=True))
    out = fd.sample(
        plan, each_element, jnp.zeros((5, 4)), key=KEY, move=M.linear_part(y, q)
    )
    close(np.asarray(out) @ q.T, y)


# --------------------------------------------------------------- classifier guidance

MEANS, VARIANCES = (
    np.array([[-1.0, 0.5], [1.2, 0.0]]),
    np.array([[0.2, 0.4], [0.3, 0.1]]),
)
WEIGHTS = np.array([0.4, 0.6])


def log_posterior(x, context, which=0):
    """log p(c | x_t) of a component of the mixture."""
    alpha, sigma = context.alpha, context.sigma
    total = alpha**2 * VARIANCES + sigma**2
    gap = x[:, None, :] - (alpha * MEANS)[None]
    energy = (gap**2 / total[None] + jnp.log(total)[None]).sum(-1) / 2
    return jax.nn.log_softmax(jnp.log(WEIGHTS)[None] - energy, axis=-1)[:, which]


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("path", ["vp", "sub-vp", "ve"])
def test_classifier_guidance_gives_the_component(path, which):
    process = PATHS[path]
    model = fd.models.gaussian_mixture(WEIGHTS, MEANS, VARIANCES)
    own = fd.models.gaussian(MEANS[which], VARIANCES[which])
    log_prob = lambda p, x, c: p * log_posterior(x, c, which)  # noqa: E731
    guided = fd.guidance.classifier(model, log_prob, params=jnp.float64(1.0))
    x = jnp.asarray(draw((6, 2)))
    half = fd.guidance.classifier(model, log_prob, jnp.full(6, 0.5), params=1.0)

    @jax.jit
    def all_of(t, alpha, sigma):
        context = fd.Context(0, t, alpha, sigma)
        told = context._replace(controls={"classifier_scale": 0.0})
        pairs = [(f, context) for f in (guided, own, model, half)] + [(guided, told)]
        return [f(x, c, None)[0] for f, c in pairs]

    for t in grid(process):
        full, want, without, middle, off = all_of(t, *loop.level(process, t))
        close(full, want, 1e-10)
        close(middle, (without + want) / 2, 1e-10)
        close(off, without, 0)
        assert abs(full - without).max() > 1e-3


def test_classifier_guidance_in_a_run():
    ts = grid(VP, 12)
    guided = fd.guidance.classifier(
        fd.models.gaussian_mixture(WEIGHTS, MEANS, VARIANCES), log_posterior
    )
    own = fd.models.gaussian(MEANS[0], VARIANCES[0])
    x = jnp.asarray(draw((6, 2)))
    plan = S.dpmpp_2m(VP, ts)
    close(fd.sample(plan, guided, x), fd.sample(plan, own, x), 1e-10)


@pytest.mark.slow
def test_classifier_guidance_at_alpha_0():
    flow = fd.processes.flow()
    plan = S.ddim(flow, np.array([1.0, 0.5, 0.1]))
    model = fd.models.gaussian_mixture(WEIGHTS, MEANS, VARIANCES)
    guided = fd.guidance.classifier(model, log_posterior)
    x = jnp.asarray(draw((3, 2)))
    with pytest.raises(ValueError, match="classifier guidance needs alpha > 0.*row 0"):
        fd.sample(plan, guided, x)
    context = fd.Context(0, 1.0, jnp.float64(0.0), jnp.float64(1.0))
    close(guided(x, context, None)[0], model(x, context, None)[0], 0)
    with pytest.raises(ValueError, match="log_prob must be a function"):
        fd.guidance.classifier(model, 3.0)


# ------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("name", ["heun", "unipc", "sa_solver", "dpmpp_2s", "olss"])
def test_plans_with_stages_or_predictions_are_refused(name):
    ts, x = grid(VP), jnp.ones((2, 3))
    plan = S.olss(VP, ts, *S.unroll(S.ddim(VP, ts))[1:]) if name == "olss" else None
    plan = plan or S.SOLVERS[name].build(VP, ts)
    moves = {
        "inpaint": M.inpaint(np.zeros(3), np.zeros(3)),
        "colourise": M.chain(M.colourise(np.zeros(1))),
        "langevin": M.langevin(),
    }
    for label, move in moves.items():
        with pytest.raises(
            ValueError, match=f"{label} needs rows that each end a step"
        ):
            fd.sample(plan, each_element, x, key=KEY, move=move)


def test_bad_input():
    x, plan = jnp.ones((2, 3)), S.ddim(VP, grid(VP))

    def run(move):
        return fd.sample(plan, each_element, x, key=KEY, move=move)

    cases = [
        (lambda: run(M.langevin()), "this plan has none. Make it with fd.solvers"),
        (lambda: M.inpaint(np.zeros(3), [0, 2, 0]), r"mask must lie in \[0, 1\]"),
        (lambda: M.inpaint([np.nan, 0.0], [0, 1]), "known must be finite"),
        (lambda: run(M.inpaint(np.zeros(4), np.zeros(3))), "known of shape .4,. does"),
        (lambda: run(M.inpaint(np.zeros(3), np.zeros((3, 3)))), "mask of shape .3, 3."),
        (lambda: run(M.inpaint({"a": 0.0}, 1.0)), "known must be one array or a tree"),
        (lambda: M.colourise(np.zeros((4, 4))), "grey must have a last axis of 1"),
        (lambda: M.colourise(np.full((4, 1), np.inf)), "known must be finite"),
        (lambda: M.linear_part(np.zeros(2), np.ones((2, 3))), "must be orthonormal"),
        (
            lambda: M.linear_part(np.zeros(3), np.eye(2)),
            r"rows must be \(k, channels\)",
        ),
        (lambda: M.chain(), "at least one move"),
        (lambda: M.chain(3), "moves must be a function"),
        (lambda: M.chain(M.inpaint(0.0, 0), M.langevin()), "langevin must come first"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
