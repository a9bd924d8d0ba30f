"""Exponential solvers in diffrax: orders, exactness, error control, dense output."""

import diffrax
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import optimistix
import pytest

import fastdiff_jax as fd

from .oracles import etd
from .spectral import AllenCahn, Kuramoto, join, split

continuous = fd.continuous
SOLVERS = {
    "etd1": (continuous.etd1(), 1),
    "etdrk2": (continuous.etdrk2(), 2),
    "res_2": (continuous.res_2(0.4), 2),
    "res_3": (continuous.res_3(), 3),
    "res_3 free": (continuous.res_3(0.4, 0.9), 3),
    "etdrk4": (continuous.etdrk4(), 4),
    "krogstad": (continuous.krogstad(), 4),
    "exp_adams 1": (continuous.exp_adams(1), 1),
    "exp_adams 2": (continuous.exp_adams(2), 2),
    "exp_adams 3": (continuous.exp_adams(3), 3),
    "exp_adams 4": (continuous.exp_adams(4), 4),
}
RATES = np.array([-12.0, -1.0, 0.5])
START = np.array([1.0, 0.5, 0.2])


def logistic(t, y, args):
    """N of w' = L w - w^2 for y = w + sin t: closed form, not autonomous."""
    del args
    return -RATES * jnp.sin(t) - (y - jnp.sin(t)) ** 2 + jnp.cos(t)


def logistic_exact(t):
    t = jnp.asarray(t)[..., None]
    rates, start = (v.reshape((1,) * (t.ndim - 1) + (3,)) for v in (RATES, START))
    grown = start * jnp.exp(rates * t) * rates
    return grown / (rates + start * jnp.expm1(rates * t)) + jnp.sin(t)


TERM = continuous.SemilinearTerm(RATES, logistic)


def march(term, solver, exact=None, t0=0.0, t1=1.0):
    """A jitted walk of n equal steps: the end, and the RMS inside (at 0.37 of each)."""

    @jax.jit
    def run(n, y0):
        h = (t1 - t0) / n

        def body(i, held):
            y, state, miss = held
            t = t0 + i * h
            y, _, dense, state, _ = solver.step(term, t, t + h, y, None, state, False)
            if exact is not None:
                at = t + 0.37 * h
                path = solver.interpolation_cls(t0=t, t1=t + h, **dense)
                miss = miss + ((path.evaluate(at) - exact(at)) ** 2).mean()
            return y, state, miss

        state = solver.init(term, t0, t0 + h, y0, None)
        y, _, miss = jax.lax.fori_loop(0, n, body, (y0, state, jnp.asarray(0.0)))
        return y, jnp.sqrt(miss / n)

    return lambda n, y0: run(n, jax.tree.map(jnp.asarray, y0))


def slopes(errors):
    errors = np.asarray(errors)
    return np.log2(errors[:-1] / errors[1:])


def controlled(term, solver, y0, tol, t0=0.0, t1=1.0, **options):
    return diffrax.diffeqsolve(
        term,
        solver,
        t0,
        t1,
        None,
        y0,
        stepsize_controller=diffrax.PIDController(rtol=tol, atol=tol),
        max_steps=20_000,
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVERS)
def test_order_at_the_end_and_inside_the_steps(name):
    solver, order = SOLVERS[name]
    run = march(TERM, solver, logistic_exact)
    ends, inside = zip(*(run(n, START) for n in (160, 320)), strict=True)
    end = slopes([np.abs(y - logistic_exact(1.0)).max() for y in ends])
    assert abs(end[-1] - order) < 0.25, end
    assert abs(slopes(inside)[-1] - order) < 0.35, slopes(inside)


def test_a_planted_coefficient_is_seen():
    """One weight of G off by 2 %: the order is gone."""
    good = continuous.krogstad().tableau
    planted = (good.final[0], (-3.0, 2.0, 2.04, -1.04), good.final[2])
    wrong = continuous.ExponentialRungeKutta(good._replace(final=planted))
    run = march(TERM, wrong)
    errors = [np.abs(run(n, START)[0] - logistic_exact(1.0)).max() for n in (80, 160)]
    assert slopes(errors)[-1] < 2.5


ORACLES = {
    "etdrk4": etd.cox_matthews,
    "krogstad": etd.krogstad,
    "res_3 free": lambda *a: etd.res_3(*a, 0.4, 0.9),
}
STIFF = {"Kuramoto-Sivashinsky": Kuramoto(), "Allen-Cahn": AllenCahn()}


def spectral_term(problem):
    return continuous.SemilinearTerm(
        problem.linear, lambda t, y, args: split(problem.rest(join(y)))
    )


@pytest.mark.slow
@pytest.mark.parametrize("problem", STIFF)
def test_equals_the_naive_loop_and_keeps_its_order_on_stiff_equations(problem):
    problem = STIFF[problem]
    term, y0 = spectral_term(problem), split(problem.start, np)
    runs = {
        name: march(term, SOLVERS[name][0], t1=1.0)
        for name in (*ORACLES, "res_2", "exp_adams 4")
    }
    for name, oracle in ORACLES.items():
        expected = oracle(
            problem.linear, lambda t, c: problem.rest(c, np), problem.start, 1 / 8, 8
        )
        found = join(np.asarray(runs[name](8, y0)[0]))
        np.testing.assert_allclose(found, expected, atol=1e-12)
    truth = runs["krogstad"](1000, y0)[0]
    for name, run in runs.items():
        errors = [float(jnp.abs(run(n, y0)[0] - truth).max()) for n in (20, 40, 80)]
        assert abs(slopes(errors)[-1] - SOLVERS[name][1]) < 0.5, (name, slopes(errors))


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVERS)
def test_a_constant_rest_is_exact_at_any_step(name):
    solver, _ = SOLVERS[name]
    linear = np.array([-60.0, 0.0, 3.0])
    y0, constant = np.array([1.0, 2.0, -1.0]), np.array([3.0, -1.0, 0.0])
    safe = np.where(linear == 0, 1.0, linear)

    def exact(t):
        grown = jnp.where(linear == 0, t, jnp.expm1(safe * t) / safe)
        return jnp.exp(linear * t) * y0 + grown * constant

    term = continuous.SemilinearTerm(linear, lambda t, y, args: constant)
    end, inside = march(term, solver, exact)(5, y0)
    np.testing.assert_allclose(end, exact(1.0), rtol=1e-12)
    assert inside < 1e-13


def test_trees_and_diagonals_that_broadcast():
    y0 = {"a": jnp.ones((2, 3)), "b": jnp.ones(2)}
    linear = {"a": np.array([-1.0, 0.5, -40.0]), "b": -2.0}
    term = continuous.SemilinearTerm(linear, lambda t, y, args: {"a": 0.0, "b": 1.0})
    end, _ = march(term, continuous.krogstad())(3, y0)
    np.testing.assert_allclose(end["a"], np.exp(linear["a"]) * np.ones((2, 3)))
    np.testing.assert_allclose(end["b"], 0.5 + 0.5 * np.exp(-2.0) * np.ones(2))
    slope = term.vf(0.0, y0, None)
    np.testing.assert_allclose(slope["a"], linear["a"] * np.ones((2, 3)))
    np.testing.assert_allclose(slope["b"], -np.ones(2))


ESTIMATES = ["etdrk2", "res_3", "etdrk4", "krogstad", "exp_adams 3", "exp_adams 4"]


@pytest.mark.parametrize("name", ESTIMATES)
def test_error_estimate_has_its_order(name):
    """The estimate of the last of five equal steps."""
    solver, _ = SOLVERS[name]

    @jax.jit
    def estimate(h):
        def body(i, held):
            y, state, _ = held
            t = 0.5 + i * h
            y, error, _, state, _ = solver.step(TERM, t, t + h, y, None, state, False)
            return y, state, error

        y = logistic_exact(0.5)
        state = solver.init(TERM, 0.5, 0.5 + h, y, None)
        return jax.lax.fori_loop(0, 5, body, (y, state, y))[2]

    found = np.abs([estimate(2.0**-k) for k in (8, 9, 10)])
    np.testing.assert_allclose(slopes(found)[-1], solver.error_order(None), atol=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["res_3", "krogstad", "exp_adams 4"])
def test_error_control_reaches_the_tolerance(name):
    solver, _ = SOLVERS[name]
    solve = jax.jit(lambda tol: controlled(TERM, solver, jnp.asarray(START), tol).ys[0])
    errors = [np.abs(solve(tol) - logistic_exact(1.0)).max() for tol in (1e-4, 1e-7)]
    assert errors[0] < 20 * 1e-4 and errors[1] < 20 * 1e-7
    assert errors[1] < errors[0] / 20


@pytest.mark.slow
def test_dense_output_events_and_backward_time():
    sol = controlled(
        TERM,
        continuous.res_3(),
        jnp.asarray(logistic_exact(1.0)),
        1e-9,
        t0=1.0,
        t1=0.6,
        saveat=diffrax.SaveAt(dense=True, t1=True),
    )
    ts = np.linspace(0.6, 0.99, 9)
    inside = jax.vmap(sol.evaluate)(ts)
    np.testing.assert_allclose(inside, logistic_exact(ts), atol=2e-6)
    np.testing.assert_allclose(inside[0], sol.ys[0], rtol=1e-14)
    slope = sol.derivative(0.8)
    expected = TERM.vf(0.8, jnp.asarray(logistic_exact(0.8)), None)
    np.testing.assert_allclose(slope, expected, atol=1e-4)

    event = diffrax.Event(
        lambda t, y, args, **_: y[1] - 0.9, optimistix.Newton(1e-10, 1e-10)
    )
    stopped = controlled(
        TERM, continuous.krogstad(), jnp.asarray(START), 1e-9, event=event
    )
    at = float(stopped.ts[0])
    assert 0.1 < at < 0.9
    assert abs(logistic_exact(at)[1] - 0.9) < 1e-6


@pytest.mark.parametrize("name", ["krogstad", "exp_adams 4"])
def test_a_jump_starts_afresh(name):
    """What the solver kept from before a jump has no say after it."""
    solver, _ = SOLVERS[name]
    y = logistic_exact(0.5)
    fresh = solver.init(TERM, 0.5, 0.6, y, None)
    stale = jax.tree.map(lambda v: v + 5, fresh)

    @jax.jit
    def step(state, jump):
        return solver.step(TERM, 0.5, 0.6, y, None, state, jump)[:2]

    for ours, theirs in zip(step(stale, True), step(fresh, False), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-14)
    assert np.abs(step(stale, False)[0] - step(fresh, False)[0]).max() > 1e-3


@pytest.mark.slow
def test_vmap_and_gradients():
    def solve(scale, y0):
        term = continuous.SemilinearTerm(
            scale * RATES, lambda t, y, args: args * jnp.sin(y[::-1])
        )
        return (
            diffrax.diffeqsolve(
                term, continuous.krogstad(), 0.0, 1.0, 0.25, y0, args=scale, max_steps=4
            )
            .ys[0]
            .sum()
        )

    scales, starts = jnp.array([1.0, 0.5]), jnp.stack([START, -START])
    both = jax.jit(jax.vmap(jax.value_and_grad(solve)))
    value, slope = both(scales, starts)
    ahead, behind = both(scales + 1e-4, starts)[0], both(scales - 1e-4, starts)[0]
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-4, rtol=1e-6)
    term = continuous.SemilinearTerm(
        0.5 * RATES, lambda t, y, args: 0.5 * jnp.sin(y[::-1])
    )
    one = march(term, continuous.krogstad())(4, starts[1])[0]
    np.testing.assert_allclose(value[1], one.sum(), rtol=1e-12)


@pytest.mark.slow
def test_gradients_and_vmap_of_the_multistep_method():
    """Its branches run both under vmap: the unused one must not poison gradients."""
    solver, h = continuous.exp_adams(3), 0.2

    def solve(scale, y):
        term = continuous.SemilinearTerm(
            scale * RATES, lambda t, y, args: scale * jnp.sin(y[::-1])
        )

        def body(held, t):
            y, state = held
            y, _, _, state, _ = solver.step(term, t, t + h, y, None, state, False)
            return (y, state), None

        state = solver.init(term, 0.0, h, y, None)
        return jax.lax.scan(body, (y, state), jnp.arange(5.0) * h)[0][0].sum()

    scales, starts = jnp.array([1.0, 0.5]), jnp.stack([START, -START])
    both = jax.jit(jax.vmap(jax.value_and_grad(solve)))
    value, slope = both(scales, starts)
    ahead, behind = both(scales + 1e-4, starts)[0], both(scales - 1e-4, starts)[0]
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-4, rtol=1e-6)


@pytest.mark.slow
def test_single_precision():
    """z = -3e4 h in float32, under error control."""
    linear = np.array([-3e4, -1.0])
    term = continuous.SemilinearTerm(linear, lambda t, y, args: jnp.cos(y))
    y0 = jnp.array([0.5, 0.5], jnp.float32)
    ends = jnp.float32(0.0), jnp.float32(1.0)
    sol = controlled(
        term,
        continuous.res_3(),
        y0,
        1e-5,
        *ends,
        saveat=diffrax.SaveAt(dense=True, t1=True),
    )
    exact, _ = march(term, continuous.krogstad())(2000, y0.astype(float))
    for found in (sol.ys[0], sol.evaluate(ends[1])):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, exact, rtol=1e-4)


def test_complex_diagonals():
    spin = np.array([3j, -1 + 40j])
    y0 = np.array([1.0 + 0j, 1j])
    constant = np.array([1.0 - 2j, 0.5j])
    term = continuous.SemilinearTerm(spin, lambda t, y, args: constant)
    end, _ = march(term, continuous.krogstad())(3, y0)
    expected = np.exp(spin) * y0 + np.expm1(spin) / spin * constant
    np.testing.assert_allclose(end, expected, rtol=1e-12)


PROCESS = fd.processes.vp_linear()


VARIANCE = np.array([0.04, 0.5, 2.0])
NOISY = np.array([1.0, -2.0, 0.5])


def gaussian_path(t):
    """The diffusion ODE's solution for Gaussian data, x(0.9) = NOISY."""
    spread, start = (
        jnp.sqrt(PROCESS.alpha(s) ** 2 * VARIANCE + PROCESS.sigma(s) ** 2)
        for s in (jnp.asarray(t), 0.9)
    )
    return NOISY * spread / start


def gaussian_term(prediction):
    def rest(t, x, args):
        alpha, sigma = PROCESS.alpha(t), PROCESS.sigma(t)
        denoised = alpha * VARIANCE * x / (alpha**2 * VARIANCE + sigma**2)
        return denoised if prediction == "data" else -(x - alpha * denoised) / sigma

    linear = -1.0 if prediction == "data" else 1.0
    clock = continuous.ProcessClock(PROCESS, prediction)
    return continuous.SemilinearTerm(linear, rest, clock)


@pytest.mark.slow
@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_process_clock_gives_the_diffusion_ode(prediction):
    term = gaussian_term(prediction)
    x, slope = jax.jvp(gaussian_path, (0.4,), (1.0,))
    np.testing.assert_allclose(term.vf(0.4, x, None), slope, rtol=1e-10)
    clock = continuous.ProcessClock(PROCESS, prediction)
    same = continuous.FunctionClock(clock.forward, clock.inverse, clock.scale)
    np.testing.assert_allclose(same.rates(0.4), clock.rates(0.4), rtol=1e-10)
    run = march(term, continuous.res_3(), gaussian_path, 0.9, 0.3)
    ends, inside = zip(*(run(n, NOISY) for n in (40, 80)), strict=True)
    errors = [np.abs(x - gaussian_path(0.3)).max() for x in ends]
    assert abs(slopes(errors)[0] - 3) < 0.3 and errors[1] < 1e-5, errors
    assert abs(slopes(inside)[0] - 3) < 0.3, inside


@pytest.mark.slow
def test_diffusion_ode_under_error_control_with_dense_output():
    sol = controlled(
        gaussian_term("data"),
        continuous.krogstad(),
        jnp.asarray(NOISY),
        1e-7,
        0.9,
        0.01,
        saveat=diffrax.SaveAt(ts=jnp.array([0.7, 0.01]), dense=True),
    )
    expected = [gaussian_path(t) for t in (0.7, 0.01)]
    np.testing.assert_allclose(sol.ys, np.stack(expected), rtol=1e-5)
    np.testing.assert_allclose(sol.evaluate(0.03), gaussian_path(0.03), rtol=1e-5)


def test_process_clock_is_exact_for_constant_data():
    data = np.array([0.3, -1.0])
    term = continuous.SemilinearTerm(
        -1.0, lambda t, x, args: data, continuous.ProcessClock(PROCESS)
    )
    noise = np.array([0.7, 2.0])

    def exact(t):
        return PROCESS.alpha(t) * data + PROCESS.sigma(t) * noise

    for name in ("etd1", "res_3", "exp_adams 2"):
        run = march(term, SOLVERS[name][0], exact, 1.0, 1e-3)
        end, inside = run(3, exact(1.0))
        np.testing.assert_allclose(end, exact(1e-3), rtol=1e-11)
        assert inside < 1e-12


def test_driven_linear_part():
    """y' = -(1 + 2t) y + N: exact for N = 0 at any step, in order for another."""

    def make(rest):
        return continuous.driven_term(
            lambda t: -1 - 2 * t,
            lambda t: -t - t**2,
            lambda s: (jnp.sqrt(1 - 4 * s) - 1) / 2,
            rest,
        )

    free = make(lambda t, y, args: jnp.zeros_like(y))
    end, _ = march(free, continuous.res_2())(1, np.array([2.0]))
    np.testing.assert_allclose(end, 2 * np.exp(-2.0), rtol=1e-13)
    # y = exp(-t - t^2) w with w' = sin t.
    pushed = make(lambda t, y, args: y * 0 + jnp.sin(t) * jnp.exp(-t - t**2))
    run = march(pushed, continuous.res_3())
    truth = np.exp(-2.0) * (2 + 1 - np.cos(1.0))
    errors = [abs(float(run(n, np.array([2.0]))[0][0]) - truth) for n in (20, 40, 80)]
    assert abs(slopes(errors)[-1] - 3) < 0.3, slopes(errors)


def single(solver, term, increment, h, y0=1.0):
    """One step of a stochastic solver with a given Brownian increment."""
    noise = diffrax.ControlTerm(lambda t, y, args: y * 0 + 0.7, lambda a, b: increment)
    terms = diffrax.MultiTerm(term, noise)
    return solver.step(terms, 0.0, h, jnp.asarray(y0), None, None, False)[0]


@pytest.mark.parametrize("h", [0.01, 3.0])
def test_stochastic_euler_has_the_exact_ornstein_uhlenbeck_law(h):
    """dy = (-2 y + 3) dt + 0.7 dW: mean and variance of a step of any length."""
    term = continuous.SemilinearTerm(-2.0, lambda t, y, args: 0 * y + 3.0)
    solver = continuous.StochasticExponentialEuler()
    mean = single(solver, term, 0.0, h)
    np.testing.assert_allclose(mean, 1.5 - 0.5 * np.exp(-2 * h), rtol=1e-13)
    per_unit = single(solver, term, 1.0, h) - mean
    exact = 0.49 * -np.expm1(-4 * h) / 4
    np.testing.assert_allclose(per_unit**2 * h, exact, rtol=1e-12)
    path = continuous.StochasticExponentialEuler("path")
    gain = single(path, term, 1.0, h) - single(path, term, 0.0, h)
    np.testing.assert_allclose(gain, 0.7 * -np.expm1(-2 * h) / (2 * h), rtol=1e-12)


def test_weak_order_of_the_stochastic_euler():
    """dy = (-y + y/2) dt + 0.6 y dW: both moments of T = 1 from one step's, order 1."""
    solver = continuous.StochasticExponentialEuler()
    term = continuous.SemilinearTerm(-1.0, lambda t, y, args: 0.5 * y)

    @jax.jit
    def moments(h):
        def one(w):
            noise = diffrax.ControlTerm(lambda t, y, args: 0.6 * y, lambda a, b: w)
            terms = diffrax.MultiTerm(term, noise)
            y = jnp.asarray(1.0)
            return solver.step(terms, 0.0, h, y, None, None, False)[0]

        up, down = one(jnp.sqrt(h)), one(-jnp.sqrt(h))
        return (up + down) / 2, (up**2 + down**2) / 2

    exact = np.exp([-0.5, -1 + 0.36])
    errors = [np.abs(np.array(moments(1 / n)) ** n - exact) for n in (20.0, 40.0, 80.0)]
    np.testing.assert_allclose(slopes(errors)[-1], 1.0, atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("additive", "order"), [(False, 0.5), (True, 1.0)])
def test_strong_order_of_the_stochastic_euler(additive, order):
    """On the same Brownian paths, 1000 of them: RMS distance to 1024 steps."""
    solver = continuous.StochasticExponentialEuler()
    drift = continuous.SemilinearTerm(-1.0, lambda t, y, args: 0.5 * jnp.sin(2 * y))
    fine = jax.random.normal(jax.random.key(3), (1024, 1000)) / 32

    @jax.jit
    def run(increments):
        count = increments.shape[0]

        def body(y, now):
            i, dw = now

            def kick(t, y, args):
                return 0.8 * dw * (jnp.ones_like(y) if additive else y)

            noise = diffrax.ControlTerm(kick, lambda a, b: jnp.asarray(1.0))
            terms = diffrax.MultiTerm(drift, noise)
            t = i / count
            y = solver.step(terms, t, t + 1 / count, y, None, None, False)[0]
            return y, None

        y0 = jnp.ones(increments.shape[1])
        return jax.lax.scan(body, y0, (jnp.arange(count), increments))[0]

    truth = run(fine)
    coarse = [run(fine.reshape(n, 1024 // n, 1000).sum(axis=1)) for n in (8, 64)]
    errors = [float(jnp.sqrt(((y - truth) ** 2).mean())) for y in coarse]
    assert abs(slopes(errors)[0] / 3 - order) < 0.15, slopes(errors) / 3


@pytest.mark.slow
def test_stochastic_euler_runs_in_diffrax():
    """A Brownian tree of diffrax: the variance of dy = -2 y dt + dW at T = 2."""
    drift = continuous.SemilinearTerm(-2.0, lambda t, y, args: 0 * y)
    path = diffrax.VirtualBrownianTree(0.0, 2.0, 1e-2, (4000,), jax.random.key(1))
    noise = diffrax.ControlTerm(
        lambda t, y, args: lineax.DiagonalLinearOperator(jnp.ones_like(y)), path
    )
    sol = diffrax.diffeqsolve(
        diffrax.MultiTerm(drift, noise),
        continuous.StochasticExponentialEuler(),
        0.0,
        2.0,
        0.25,
        jnp.zeros(4000),
        saveat=diffrax.SaveAt(ts=jnp.array([1.0, 2.0])),
    )
    expected = -np.expm1(np.array([-4.0, -8.0])) / 4
    np.testing.assert_allclose(sol.ys.var(axis=1), expected, rtol=0.08)


def test_bad_input_is_named():
    y = jnp.ones((2, 3))
    rest = lambda t, y, args: y  # noqa: E731
    with pytest.raises(ValueError, match=r"linear has shape \(2,\), which does not"):
        continuous.SemilinearTerm(np.ones(2), rest).vf(0.0, y, None)
    with pytest.raises(ValueError, match="linear must be one array or a tree like y"):
        continuous.SemilinearTerm((1.0, 2.0), rest).vf(0.0, y, None)
    with pytest.raises(ValueError, match="linear is complex but the state is real"):
        continuous.SemilinearTerm(1j, rest).vf(0.0, y, None)
    with pytest.raises(ValueError, match="must return a tree like y"):
        continuous.SemilinearTerm(1.0, lambda t, y, a: (y, y)).vf(0.0, y, None)
    with pytest.raises(ValueError, match="returned complex128 for a state of float64"):
        continuous.SemilinearTerm(1.0, lambda t, y, a: y.astype(complex)).vf(
            0.0, y, None
        )
    with pytest.raises(ValueError, match="res_2 needs 0 < c2 <= 1, got c2=0"):
        continuous.res_2(0)
    with pytest.raises(ValueError, match="res_3 needs 0 < c3 <= 1, got c3=1.5"):
        continuous.res_3(0.5, 1.5)
    with pytest.raises(ValueError, match="c2 != 2/3 and c2 != c3"):
        continuous.res_3(2 / 3, 1.0)
    with pytest.raises(ValueError, match=r"exp_adams needs order in 1..4, got 5"):
        continuous.exp_adams(5)
    with pytest.raises(ValueError, match="prediction 'data' or 'noise', got 'v'"):
        continuous.ProcessClock(PROCESS, "v")
    with pytest.raises(ValueError, match="weight 'law' or 'path', got 'both'"):
        continuous.StochasticExponentialEuler("both")
    with pytest.raises(TypeError, match="needs a SemilinearTerm .* got ODETerm"):
        diffrax.diffeqsolve(diffrax.ODETerm(rest), continuous.res_2(), 0.0, 1.0, 0.1, y)
