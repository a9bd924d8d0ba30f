"""The adjoint's gradients: their order, their memory, what they reach, refusals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import fastdiff_jax as fd
from fastdiff_jax.continuous import adjoint_plan, adjoint_run, adjoint_sample
from fastdiff_jax.continuous._adjoint_tables import METHODS

PROCESS = fd.processes.vp_linear()
FLOW = fd.processes.flow()
MODEL = fd.models.gaussian_mixture(
    [0.4, 0.6], [[-1.0, 0.3], [1.2, 0.0]], [[0.2, 0.4], [0.3, 0.1]]
)
X = np.linspace(-2, 2, 10).reshape(5, 2)
ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "kutta3": 3, "rk4": 4}


def times(steps, process=PROCESS):
    return process.half_log_snr_inverse(np.linspace(-3, 3, steps + 1))


def flat(tree):
    return np.concatenate([np.ravel(v) for v in jax.tree.leaves(tree)])


@jax.jit
def slope(made, model, x):
    """Loss, and its gradient in the model and x by the adjoint."""

    def loss(model, x):
        return (adjoint_run(made, model, x) ** 2).sum()

    return jax.value_and_grad(loss, (0, 1))(model, x)


@jax.jit
def plain(plan, model, x):
    """The same by reverse mode through the scan."""

    def loss(model, x):
        return (fd.sample(plan, model, x) ** 2).sum()

    return jax.value_and_grad(loss, (0, 1))(model, x)


@pytest.fixture(scope="module")
def exact():
    plan = fd.solvers.rho_rk(PROCESS, times(400), variant="rk4")
    return flat(plain(plan, MODEL, X)[1])


def padded(made):
    """One shape, and so one compiled program, for every method and step count."""
    plans = [
        fd.plan.pad(p, 320, registers=4, writes=2)
        for p in (made.forward, made.backward)
    ]
    return dataclasses.replace(made, forward=plans[0], backward=plans[1])


@pytest.mark.slow
@pytest.mark.parametrize("method", ORDERS)
def test_gradients_have_the_order_of_the_method(method, exact):
    """In x, means, variances and weights of a mixture; two-sided."""
    gaps = []
    for steps in (40, 80):
        made = padded(adjoint_plan(PROCESS, times(steps), method=method))
        gaps.append(np.sqrt(np.mean((flat(slope(made, MODEL, X)[1]) - exact) ** 2)))
    assert abs(np.log2(gaps[0] / gaps[1]) - ORDERS[method]) < 0.35
    assert gaps[1] < {1: 0.3, 2: 3e-2, 3: 1e-3, 4: 1e-5}[ORDERS[method]]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["heun", "rk4"])
def test_value_and_gradient_against_reverse_mode_through_the_table(method):
    ts = times(40)
    table = {"heun": "heun2"}.get(method, method)
    plan = fd.plan.pad(fd.solvers.rho_rk(PROCESS, ts, variant=table), 320, registers=4)
    want, of = plain(plan, MODEL, X)
    got, by = slope(padded(adjoint_plan(PROCESS, ts, method=method)), MODEL, X)
    assert_allclose(got, want, rtol=1e-12)
    scale = np.abs(flat(of)).max()
    assert_allclose(
        flat(by), flat(of), atol=scale * {"heun": 3e-3, "rk4": 1e-5}[method]
    )


def closed(ts, process):
    """The exact flow of Gaussian data, of the model's mean and variance and x."""
    a, s = process.alpha(np.asarray(ts)), process.sigma(np.asarray(ts))

    def end(model, x):
        m, v = model.means[0], model.spectrum[0]
        ratio = (a[-1] ** 2 * v + s[-1] ** 2) / (a[0] ** 2 * v + s[0] ** 2)
        return a[-1] * m[None] + jnp.sqrt(ratio)[None] * (x - a[0] * m[None])

    return lambda model, x: (end(model, x) ** 2).sum()


@pytest.mark.slow
@pytest.mark.parametrize("prediction", ["noise", "data"])
def test_gaussian_data_with_exact_ends(prediction):
    """Clean end in both forms; the start at alpha = 0 in data prediction only."""
    model = fd.models.gaussian([0.5, -1.0], [0.3, 0.8])
    last = 1.0 if prediction == "data" else 0.98
    gaps = []
    for steps in (30, 60):
        ts = np.linspace(last, 0.0, steps + 1)
        made = adjoint_plan(FLOW, ts, method="heun", prediction=prediction)
        want = jax.grad(closed(ts, FLOW), (0, 1))(model, jnp.asarray(X))
        got = slope(made, model, X)[1]
        gaps.append(np.abs(flat(got) - flat(want)).max())
    assert abs(np.log2(gaps[0] / gaps[1]) - 2) < 0.4
    assert gaps[1] < 3e-2


def network(params, x, t, condition):
    """A small network with a label, which has no gradient, and a vector."""
    hidden = x @ params["a"] + condition["shift"] + t
    hidden = jnp.tanh(hidden + params["table"][condition["label"]])
    return hidden @ params["b"]


def small(width=8, batch=5, seed=0):
    draw = np.random.default_rng(seed)
    params = {
        "a": draw.normal(size=(2, width)) / 2,
        "b": draw.normal(size=(width, 2)) / 4,
        "table": draw.normal(size=(3, width)),
    }
    condition = {
        "label": np.arange(batch) % 3,
        "shift": draw.normal(size=(batch, width)),
    }
    return fd.models.denoiser(
        network, PROCESS, prediction="noise", params=params, condition=condition
    )


@pytest.mark.slow
def test_parameters_condition_labels_and_guidance():
    made = adjoint_plan(PROCESS, times(40), method="rk4")
    inner = small()
    condition = inner.condition
    null = {"label": condition["label"], "shift": 0 * condition["shift"]}
    model = fd.guidance.cfg(inner, scale=2.0, condition=condition, null=null)

    def by_adjoint(model):
        return (adjoint_run(made, model, X) ** 2).sum()

    got = jax.jit(jax.grad(by_adjoint, allow_int=True))(model)
    assert got.condition["label"].dtype == jax.dtypes.float0

    def through_the_table(params, shift, scale):
        other = dataclasses.replace(
            model,
            inner=dataclasses.replace(inner, params=params),
            condition={**condition, "shift": shift},
            scale=scale,
        )
        return (fd.sample(made.forward, other, X) ** 2).sum()

    slope = jax.jit(jax.grad(through_the_table, (0, 1, 2)))
    want = slope(inner.params, condition["shift"], 2.0)
    got = (got.inner.params, got.condition["shift"], got.scale)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert_allclose(a, b, atol=2e-5 * np.abs(b).max())


def test_a_function_that_closes_over_what_is_differentiated():
    made = adjoint_plan(PROCESS, times(20))
    model = small()

    def by_closure(params):
        other = dataclasses.replace(model, params=params)
        return adjoint_run(made, lambda x, c, k: other(x, c, k), X).sum()

    def by_leaf(params):
        other = dataclasses.replace(model, params=params)
        return adjoint_run(made, other, X).sum()

    got, want = jax.grad(by_closure)(model.params), jax.grad(by_leaf)(model.params)
    assert_allclose(flat(got), flat(want), rtol=1e-12)


def temp(function, *args):
    found = jax.jit(function).lower(*args).compile().memory_analysis()
    return found.temp_size_in_bytes


@pytest.mark.slow
def test_memory_does_not_grow_with_the_steps():
    model, x = small(width=32, batch=400), np.zeros((400, 2))

    def size(kind, steps):
        ts = times(steps)
        made = adjoint_plan(PROCESS, ts)

        def loss(params, made, x):
            other = dataclasses.replace(model, params=params)
            run = adjoint_run if kind == "adjoint" else fd.sample
            return (run(made, other, x) ** 2).sum()

        tables = made if kind == "adjoint" else made.forward
        return temp(jax.grad(loss), model.params, tables, x)

    few, many = size("adjoint", 10), size("adjoint", 100)
    assert many <= 1.2 * few
    assert size("plain", 100) > 5 * many


def test_any_plan_goes_forward(exact):
    ts = times(60)
    forward = fd.solvers.unipc(PROCESS, ts, order=3)
    made = adjoint_plan(PROCESS, ts, method="rk4", forward=forward)
    value, got = slope(padded(made), MODEL, X)
    assert_allclose(value, (fd.sample(forward, MODEL, X) ** 2).sum(), rtol=1e-12)
    assert np.abs(flat(got) - exact).max() < 2e-3 * np.abs(exact).max()
    assert made.forward.nfe == 60


@pytest.mark.slow
def test_vmap_trees_and_single_precision():
    made = adjoint_plan(PROCESS, times(20))

    def loss(x):
        return (adjoint_run(made, MODEL, x[None]) ** 2).sum()

    got = jax.jit(jax.vmap(jax.grad(loss)))(jnp.asarray(X))
    want = slope(padded(made), MODEL, X)[1][1]
    assert_allclose(got, want, rtol=1e-9)
    low = jax.grad(lambda x: (adjoint_run(made, MODEL, x) ** 2).sum())(
        jnp.asarray(X, jnp.float32)
    )
    assert low.dtype == jnp.float32
    assert_allclose(low, want, rtol=2e-4, atol=1e-4)

    def halves(x, context, carry):
        return jax.tree.map(lambda v: v / 2, x), carry

    tree = {"a": jnp.asarray(X), "b": jnp.ones(5, jnp.float32)}
    short = adjoint_plan(PROCESS, times(4), method="euler")

    def total(tree):
        return sum(
            v.sum().astype(float)
            for v in jax.tree.leaves(adjoint_run(short, halves, tree))
        )

    out = jax.grad(total)(tree)
    assert out["a"].shape == (5, 2) and out["b"].dtype == jnp.float32
    assert_allclose(out["a"], float(out["b"][0]), rtol=1e-5)


def test_new_numbers_do_not_recompile():
    traces = []

    @jax.jit
    def run(made, model, x):
        traces.append(1)
        return jax.grad(lambda x: adjoint_run(made, model, x).sum())(x)

    run(adjoint_plan(PROCESS, times(5)), MODEL, X)
    run(adjoint_plan(FLOW, times(5, FLOW)), MODEL, X)
    assert len(traces) == 1


class Stateful:
    def initial_carry(self, x):
        return x

    def __call__(self, x, context, carry):
        return x, carry


TS = times(4)
BAD = {
    "method": ("Did you mean 'heun'", lambda: adjoint_plan(PROCESS, TS, method="hen")),
    "prediction": (
        "must be 'noise' or 'data'",
        lambda: adjoint_plan(PROCESS, TS, prediction="v"),
    ),
    "alpha": (
        "does not exist where alpha = 0",
        lambda: adjoint_plan(FLOW, [1.0, 0.5, 0.1]),
    ),
    "repeat": ("without repeats", lambda: adjoint_plan(PROCESS, [0.5, 0.5, 0.1])),
    "elements": (
        "one decreasing sequence",
        lambda: adjoint_plan(PROCESS, np.linspace([1, 0.9], [0.1, 0.2], 4)),
    ),
    "traced": (
        "ts must be concrete",
        lambda: jax.grad(lambda t: adjoint_sample(PROCESS, MODEL, X, t).sum())(
            jnp.asarray(TS)
        ),
    ),
    "one clean step": (
        "step before the clean",
        lambda: adjoint_plan(PROCESS, [0.5, 0]),
    ),
    "stochastic": (
        "forward must be deterministic",
        lambda: adjoint_plan(PROCESS, TS, forward=fd.solvers.sde_dpmpp_1(PROCESS, TS)),
    ),
    "clean forward": (
        "before the clean time",
        lambda: adjoint_plan(PROCESS, [*TS, 0.0], forward=fd.solvers.ddim(PROCESS, TS)),
    ),
    "other ends": (
        "forward must go from",
        lambda: adjoint_plan(PROCESS, TS, forward=fd.solvers.ddim(PROCESS, TS[1:])),
    ),
    "controls": (
        "no controls",
        lambda: adjoint_plan(PROCESS, TS, forward=controlled()),
    ),
    "stateful": (
        "stateless",
        lambda: adjoint_sample(PROCESS, Stateful(), X, TS),
    ),
}


def controlled():
    plan = fd.solvers.ddim(PROCESS, TS)
    rows = plan.rows._replace(controls=np.ones(4))
    return dataclasses.replace(plan, rows=rows)


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    match, call = BAD[name]
    with pytest.raises(ValueError, match=match):
        call()


def test_a_noise_model_is_refused_where_alpha_is_zero():
    model = fd.models.denoiser(lambda x, t: x, FLOW, prediction="noise")
    with pytest.raises(ValueError, match="alpha = 0"):
        adjoint_sample(FLOW, model, X, [1.0, 0.5, 0.1], prediction="data")


def test_methods_are_consistent():
    for nodes, moves in METHODS.values():
        assert len(nodes) == len(moves)
        ends = [*nodes[1:], 1]
        assert_allclose([sum(line) for line in moves], ends, atol=1e-15)
