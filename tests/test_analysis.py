"""The analysis says of a plan what the engine does with it."""

import builtins
import dataclasses
import functools
import json
import re
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax import analysis
from fastdiff_jax.reports import plots

from .table import with_rows

S = fd.solvers
VP, EDM, FLOW = fd.processes.vp_linear(), fd.processes.edm(), fd.processes.flow()
VARIANCE = np.array([0.0, 1e-3, 0.2, 1.0, 5.0])


def grid(process, steps, power=1.0, low=-3.0, high=3.0):
    lam = low + (high - low) * np.linspace(0, 1, steps + 1) ** power
    return np.asarray(process.half_log_snr_inverse(lam))


def _cases():
    found = {}
    plain = {name: line for name, line in S.SOLVERS.items() if not line.needs}
    for name, solver in sorted(plain.items()):
        for order in solver.orders or (None,):
            option = {} if order is None else {"order": order}
            label = name if order is None else f"{name} {order}"
            found[label] = functools.partial(
                solver.build, VP, grid(VP, 7, 1.3), **option
            )
    found["ddim eta=1"] = lambda: S.ddim(VP, grid(VP, 7, 1.3), eta=1.0)
    found["ddim eta=1/2 on EDM"] = lambda: S.ddim(EDM, grid(EDM, 6), eta=0.5)
    found["ddim to clean"] = lambda: S.ddim(FLOW, [1.0, 0.7, 0.2, 0.0], eta=1.0)
    found["heun to clean"] = lambda: S.heun(FLOW, [1.0, 0.7, 0.2, 0.0])
    found["unipc to clean"] = lambda: S.unipc(FLOW, [1.0, 0.7, 0.4, 0.2, 0.1, 0.0])
    found["churn"] = churned
    return found


def churned():
    """Two Euler steps on EDM; the start and the first point get noise of their own."""
    p = fd.plan
    level = p.Level(*(np.array(v) for v in ([5.0, 1.5], [1.0, 1.0], [5.0, 1.5])))
    ratio = np.array([1.0 / 5.0, 0.1 / 1.5])
    sample = ratio * p.register(0) + (1 - ratio) * p.prediction()
    raised = np.array([np.sqrt(1.5**2 - 1.0**2), 0.0])
    return p.build(
        level,
        p.Level(np.float64(0.1), np.float64(1.0), np.float64(0.1)),
        [(0, sample + raised * p.NOISE)],
        sample=sample,
        start={0: p.register(0) + np.array([3.0]) * p.NOISE},
    )


CASES = _cases()


@functools.cache
def compiled():
    """Gains of every case, measured on unit inputs: one program, no Monte Carlo."""
    plans = {label: build() for label, build in CASES.items()}
    stack = fd.plan.stack(list(plans.values()))
    rows = stack.rows.index.shape[1]
    first = 1  # the churned case has a start draw, so all of the stack do
    width = 2 + first + rows
    means = jnp.zeros((width, 1)).at[1].set(1.0)

    def denoiser(x, context, carry):
        v = jnp.asarray(VARIANCE)
        total = context.alpha**2 * v + context.sigma**2
        k = context.alpha * v / jnp.where(total == 0, 1.0, total)
        return means + k[None] * (x - context.alpha * means), carry

    x = jnp.zeros((width, len(VARIANCE))).at[0].set(1.0)
    z = np.zeros((first + rows, width, len(VARIANCE)))
    z[np.arange(first + rows), 2 + np.arange(first + rows)] = 1.0
    run = jax.jit(jax.vmap(lambda plan: fd.sample(plan, denoiser, x, noise=z)))
    found = np.asarray(run(stack))
    return {
        label: (plan, y[0], y[1], y[2:])
        for (label, plan), y in zip(plans.items(), found, strict=True)
    }


@pytest.mark.slow
@pytest.mark.parametrize("label", CASES)
def test_transfer_is_what_the_engine_does(label):
    plan, state, mean, noise = compiled()[label]
    found = analysis.transfer(plan, VARIANCE)
    size = 1 + np.abs(noise).max()
    np.testing.assert_allclose(found.state, state, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-10, atol=1e-10)
    wanted = np.sqrt((noise**2).sum(0))
    have = np.sqrt((found.noise**2).sum(0))
    np.testing.assert_allclose(have, wanted, atol=1e-10 * size)
    law = analysis.gaussian_error(plan, 0.7, VARIANCE)
    sigma = analysis.start_level(plan)[1]
    np.testing.assert_allclose(law.mean, 0.7 * mean, atol=1e-10)
    want = (state * sigma) ** 2 + (noise**2).sum(0)
    np.testing.assert_allclose(law.variance, want, rtol=1e-9, atol=1e-10)


@pytest.mark.slow
def test_noise_gains_are_in_the_order_of_the_draws():
    plan, _, _, noise = compiled()["ddim eta=1"]
    found = analysis.transfer(plan, VARIANCE).noise
    assert found.shape == (7, 5)
    np.testing.assert_allclose(
        found, noise[1:8], atol=1e-10
    )  # no start draw of its own
    plan, _, _, noise = compiled()["churn"]
    found = analysis.transfer(plan, VARIANCE).noise
    assert found.shape == (3, 5)
    np.testing.assert_allclose(found, noise[:3], atol=1e-10)


def test_full_covariance_is_diagonalised():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4))
    covariance, mean = root @ root.T / 4, rng.normal(size=4)
    plan = S.ddim(VP, grid(VP, 6), eta=1.0)
    model = fd.models.gaussian(mean, covariance=covariance)
    basis = jnp.concatenate([jnp.zeros((1, 4)), jnp.eye(4)])
    outs = [np.asarray(fd.sample(plan, model, basis, noise=np.zeros((6, 5, 4))))]
    want_mean, want = outs[0][0], np.zeros((4, 4))
    sigma = float(plan.rows.level.sigma[0])
    want += sigma**2 * (outs[0][1:] - want_mean).T @ (outs[0][1:] - want_mean)
    for i in range(6):
        z = np.zeros((6, 5, 4))
        z[i, 1:] = np.eye(4)
        y = np.asarray(fd.sample(plan, model, jnp.zeros((5, 4)), noise=z))[1:]
        want += (y - want_mean).T @ (y - want_mean)
    law = analysis.gaussian_error(plan, mean, covariance=covariance)
    np.testing.assert_allclose(law.mean, want_mean, atol=1e-10)
    np.testing.assert_allclose(law.covariance, want, atol=1e-10)
    np.testing.assert_allclose(law.target_mean, mean, atol=1e-12)
    root_of = lambda m: (lambda w, u: (u * np.sqrt(w)) @ u.T)(*np.linalg.eigh(m))  # noqa: E731
    cross = root_of(root_of(want) @ covariance @ root_of(want))
    w2 = ((want_mean - mean) ** 2).sum() + np.trace(want + covariance - 2 * cross)
    np.testing.assert_allclose(law.w2, np.sqrt(w2), atol=1e-7)


def test_per_element_weights_act_on_their_own_variance():
    ts = np.stack([grid(VP, 6), grid(VP, 6, 1.5)], axis=1)
    plan = S.dpmpp_2m(VP, ts)
    found = analysis.transfer(plan, [0.3, 2.0])
    for j, v in enumerate((0.3, 2.0)):
        one = analysis.transfer(S.dpmpp_2m(VP, ts[:, j]), v)
        np.testing.assert_allclose(found.state[j], one.state[0], atol=1e-14)


def test_biases_are_the_constant():
    plan = S.ddim(VP, grid(VP, 4))
    bias = np.zeros((4, 2))  # of the point and of the sample
    bias[-1] = 0.25
    biased = with_rows(plan, bias=bias)
    bare, found = (analysis.transfer(p, VARIANCE) for p in (plan, biased))
    np.testing.assert_allclose(found.constant, 0.25, atol=1e-15)
    np.testing.assert_allclose(found.state, bare.state, atol=1e-15)
    law = analysis.gaussian_error(biased, 1.0, VARIANCE)
    np.testing.assert_allclose(law.mean, bare.mean + 0.25, atol=1e-14)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_padding_changes_nothing(eta):
    plan = S.ddim(VP, grid(VP, 5), eta=eta)
    padded = fd.plan.pad(plan, 9, registers=3)
    a, b = (analysis.gaussian_error(p, 1.0, VARIANCE) for p in (plan, padded))
    np.testing.assert_allclose(a.variance, b.variance, atol=1e-15)
    assert analysis.report(padded, VP).nfe == 5


# ------------------------------------------------------------------ order conditions

EXACT = {  # builder -> basis and variable it interpolates in, degrees of settled steps
    "ddim": (S.ddim, "data", "half_log_snr", 1, {}),
    "ddim noise": (S.ddim, "noise", "half_log_snr", 1, {"prediction": "noise"}),
    "2m exact": (S.dpmpp_2m, "data", "half_log_snr", 2, {"variant": "exact"}),
    "3m exact": (S.dpmpp_3m, "data", "half_log_snr", 3, {"variant": "exact"}),
    "3m noise": (
        S.dpmpp_3m,
        "noise",
        "half_log_snr",
        3,
        {"variant": "exact", "prediction": "noise"},
    ),
    "unipc 2": (
        S.unipc,
        "data",
        "half_log_snr",
        3,
        {"order": 2, "variant": "exact"},
    ),
    "unip 3": (
        S.unipc,
        "data",
        "half_log_snr",
        3,
        {"order": 3, "variant": "exact", "corrector": False},
    ),
    "adams 3": (S.adams, "noise", "rho", 3, {"order": 3}),
    "deis 2": (S.deis_tab, "noise", "time", 3, {"order": 2}),
    "edm_heun": (S.edm_heun, "noise", "rho", 2, {}),
    "euler": (S.euler, "velocity", "time", 1, {}),
    "heun": (S.heun, "velocity", "time", 2, {}),
}


@pytest.mark.parametrize("process", [VP, EDM, FLOW], ids=["vp", "edm", "flow"])
@pytest.mark.parametrize("name", EXACT)
def test_order_conditions_hold_up_to_the_order(name, process):
    build, basis, variable, order, options = EXACT[name]
    plan = build(process, grid(process, 18, 1.2), **options)
    found = analysis.order_conditions(plan, process, basis=basis, variable=variable)
    assert len(found.degrees) == 18
    assert (found.degrees[order:-1] == order).all(), found.degrees
    # the same, as numbers: they vanish below the order, and not at it
    ends = found.step[~np.isnan(found.step[:, 0])][order + 1 : -1]
    assert np.abs(ends[:, :order]).max() < 1e-10
    assert np.abs(ends[:, order]).max() > 1e-4
    whole = {"edm_heun": 2, "heun": 2, "unipc 2": 2}  # what the warm-up leaves of it
    assert found.holds() == whole.get(name, 1)


def planted(plan, factor=1.01, everywhere=False):
    """The plan with one weight (or all on the rows' own evaluations) a little off.

    It is the sample's; a point that goes on from the sample goes on from the wrong one.
    """
    registers = np.array(plan.rows.registers)
    predictions = np.array(plan.rows.predictions)
    keep = registers[:, 0, 0] / registers[:, -1, 0]  # of the sample, in the point
    rows = range(plan.length) if everywhere else [plan.length // 2]
    for row in rows:
        stored = registers[row, :, 1:]
        older = not everywhere and stored.size and np.abs(stored[-1]).max() > 0
        weights = stored if older else predictions[row]
        change = (factor - 1) * weights[-1]
        weights[-1] += change
        weights[0] += keep[row] * change
    return with_rows(plan, registers=registers, predictions=predictions)


@pytest.mark.parametrize("name", ["ddim", "2m exact", "unipc 2", "adams 3"])
def test_a_planted_wrong_weight_shows(name):
    build, basis, variable, order, options = EXACT[name]
    plan = build(VP, grid(VP, 18), **options)
    look = functools.partial(analysis.order_conditions, process=VP)
    look = functools.partial(look, basis=basis, variable=variable)
    good, bad = look(plan), look(planted(plan))
    assert np.abs(bad.total - good.total).max() > 1e-5
    wrong = np.flatnonzero(good.degrees != bad.degrees)
    assert wrong.size == 1 and bad.degrees[wrong[0]] == 0
    assert max(map(abs, analysis.constant(plan))) < 1e-12
    assert max(map(abs, analysis.constant(planted(plan)))) > 1e-6


def test_step_residuals_fall_with_the_order_where_they_are_not_zero():
    sizes = []
    for n in (20, 40):  # the midpoint weights are of order 2 only asymptotically
        plan = S.dpmpp_2m(VP, grid(VP, n), lower_order_final=False)
        found = analysis.order_conditions(plan, VP)
        sizes.append(np.abs(found.step[n // 2, 1]))
    assert 1e-8 < sizes[1] < sizes[0]
    assert abs(np.log2(sizes[0] / sizes[1]) - 3) < 0.3


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_stochastic_steps_meet_the_conditions_of_their_own_sde(eta):
    plan = S.ddim(VP, grid(VP, 8), eta=eta)
    found = analysis.order_conditions(plan, VP)
    assert found.degrees.tolist() == [1] * 8
    assert np.abs(found.step[:, 1]).min() > 1e-6
    assert max(map(abs, analysis.constant(plan))) < 1e-12


def test_churn_is_undone_where_the_sample_stands():
    plan = churned()
    found = analysis.order_conditions(plan, EDM)
    assert found.degrees.tolist() == [1, 1]
    np.testing.assert_allclose(analysis.start_level(plan), (1.0, 4.0))
    assert max(map(abs, analysis.constant(plan))) < 1e-12


def test_infinite_ends_are_left_out():
    plan = S.dpmpp_2m(FLOW, [1.0, 0.7, 0.4, 0.2, 0.1, 0.0], variant="exact")
    found = analysis.order_conditions(plan, FLOW)
    assert len(found.degrees) == 3 and (found.degrees >= 1).all()
    assert np.isfinite(found.total).all()


# ----------------------------------------------------------- model error and guidance


@pytest.mark.slow
@pytest.mark.parametrize("label", ["unipc 3", "heun", "ddim eta=1", "adams 4"])
@pytest.mark.parametrize("variance", [0.0, 0.5])
def test_amplification_is_the_derivative(label, variance):
    plan = compiled()[label][0]
    model = fd.models.gaussian(0.0, 0.5)
    z = np.zeros((plan.length, 1, 1))

    def sample(errors):
        def denoiser(x, context, carry):
            d = model(x, context, None)[0] if variance else jnp.zeros_like(x)
            return d + errors[context.index], carry

        noise = z if plan.stochastic else None
        return fd.sample(plan, denoiser, jnp.ones((1, 1)), noise=noise)[0, 0]

    want = jax.grad(sample)(jnp.zeros(plan.length))
    size = np.linspace(1, 2, plan.length)
    found = analysis.amplification(plan, variance, size)
    np.testing.assert_allclose(found.gain[:, 0], want, atol=1e-12)
    total = np.sqrt(((want * size) ** 2).sum())
    np.testing.assert_allclose(found.total, total, rtol=1e-10)


def test_guidance_limit_is_where_the_growth_passes_the_bound():
    limits = {}
    for n in (8, 16):
        plan = S.ddim(VP, grid(VP, n))
        limits[n] = limit = analysis.guidance_limit(plan)
        growth = analysis.guidance_growth(plan, [0.0, limit, limit * 1.001])
        assert growth[0] <= 1 + 1e-12
        assert growth[1] <= 2.0 < growth[2] and growth[1] > 1.99
    assert limits[16] > 1.3 * limits[8]
    # D = g k x with k = -1 at a step of e^{-h}: |e^{-h} - g (1 - e^{-h})| per step
    plan = S.ddim(EDM, np.exp(-np.linspace(-3, 3, 13)))
    limit = analysis.guidance_limit(plan, slopes=(0.0, -1.0), variance=1e-9, bound=1.5)
    step = np.exp(-0.5)
    growth = np.abs((step - limit * (1 - step)) / step) ** np.arange(1, 13)
    np.testing.assert_allclose(growth.max(), 1.5, rtol=1e-5)


def test_an_accurate_plan_bears_more_guidance_than_it_is_asked_for():
    plan = S.ddim(VP, grid(VP, 400))
    g = np.array([0.0, 1.0, 2.0, 5.0])
    assert (analysis.guidance_growth(plan, g, conditional=0.3) < 1.01).all()
    # an exact run at g = 2 with a wider condition grows, and is not called unstable
    assert (analysis.guidance_growth(plan, g, conditional=3.0) < 1.01).all()
    assert analysis.guidance_limit(plan, upper=20.0) == np.inf


# -------------------------------------------------------------------- measured orders


@pytest.mark.parametrize(
    "build, order, power",
    [
        (S.ddim, 1, 1.0),
        (S.dpmpp_2m, 2, 1.0),
        (functools.partial(S.unipc, order=3), 4, 2.5),
    ],
)
def test_measured_order(build, order, power):
    found = analysis.measured_order(build, FLOW, (48, 96), power=power)
    assert abs(found.order - order) < 0.2
    wrong = lambda *a: planted(build(*a), 1.05, everywhere=True)  # noqa: E731
    bad = analysis.measured_order(wrong, FLOW, (48, 96), power=power)
    assert bad.order < order - 0.5


def test_the_order_problem_is_the_same_on_every_path():
    fits = [
        analysis.measured_order(S.edm_heun, p, (24, 48)).errors for p in (VP, EDM, FLOW)
    ]
    np.testing.assert_allclose(fits[0], fits[1], rtol=1e-6)
    np.testing.assert_allclose(fits[0], fits[2], rtol=1e-6)


def test_weak_order_of_ancestral_sampling():
    ancestral = functools.partial(S.ddim, eta=1.0)
    assert abs(analysis.measured_weak_order(ancestral, EDM).order - 1) < 0.2


def test_errors_below_the_floor_are_left_out():
    steps = np.array([10, 20, 40])
    assert analysis.fit_order(steps, np.array([4.0, 1.0, 1e-14])).order == 2.0
    assert np.isnan(analysis.fit_order(steps, np.array([1.0, 0.0, 0.0])).order)


# ------------------------------------------------------------------- report and plots


def test_report_prints_and_is_json():
    plan = S.unipc(VP, grid(VP, 8))
    made = analysis.report(plan, VP)
    text = str(made)
    assert text.startswith("8 evaluations, deterministic") and "guidance limit" in text
    data = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    assert data["nfe"] == 8 and len(data["variance"]) == len(made.variance)


@pytest.mark.slow
def test_plot_is_written_whole(tmp_path):
    pytest.importorskip("matplotlib")
    ts = grid(VP, 5)
    made = {"ddim": S.ddim(VP, ts, eta=1.0), "unipc": S.unipc(VP, ts)}
    reports = {k: analysis.report(p, VP) for k, p in made.items()}
    target = plots.plot_analysis(reports, tmp_path / "new" / "figure")
    assert target == tmp_path / "new" / "figure.png"
    assert target.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [p.name for p in target.parent.iterdir()] == ["figure.png"]


def test_plot_without_matplotlib_says_what_to_install(monkeypatch, tmp_path):
    real = builtins.__import__

    def refuse(name, *rest, **options):
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError(name)
        return real(name, *rest, **options)

    report = analysis.report(S.ddim(VP, grid(VP, 3)), VP)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ModuleNotFoundError, match=r"fastdiff-jax\[cli\]"):
        plots.plot_analysis({"ddim": report}, tmp_path / "a.png")


def test_solver_table_compares_with_a_tolerance():
    script = Path(__file__).parents[1] / "scripts" / "solver_table"
    table = runpy.run_path(str(script))
    row = ["`a`", "f", "1, 2", "1, 2", "1, 2", "1.0, 1.98", "1.0, 2.00", "0.99 (weak)"]
    row += ["1", "paper"]
    cells = [table["HEAD"], row]
    assert table["parse"](table["markdown"](cells)) == cells
    changed = lambda i, v: [cells[0], [*row[:i], v, *row[i + 1 :]]]  # noqa: E731
    for i, value, same in (
        (5, "1.0, 2.07", True),
        (5, "1.0, 2.09", False),
        (5, "1.0", False),
        (7, "1.08 (weak)", True),
        (7, "0.99", False),
        (2, "2", False),
        (4, "1, 1", False),
        (9, "other", False),
    ):
        assert (table["difference"](cells, changed(i, value)) is None) is same
    assert "missing" in table["difference"](cells[:1], cells)
    assert "not a solver" in table["difference"](cells, cells[:1])


# ------------------------------------------------------------------------- bad inputs


def _plan():
    return S.ddim(VP, grid(VP, 4))


BAD = {
    "another process": (
        lambda: analysis.report(_plan(), fd.processes.flow()),
        "plan must be built for process: at row 0 it has alpha",
    ),
    "matrix": (
        lambda: analysis.transfer(dataclasses.replace(_plan(), matrix=True), 1.0),
        "matrices",
    ),
    "tree": (
        lambda: analysis.transfer(
            with_rows(_plan(), registers={"a": _plan().rows.registers}), 1.0
        ),
        "one array per weight",
    ),
    "elements": (
        lambda: analysis.order_conditions(
            S.ddim(VP, np.stack([grid(VP, 4)] * 2, 1)), VP
        ),
        "one number per weight",
    ),
    "variance": (lambda: analysis.transfer(_plan(), -1.0), "variance must be finite"),
    "both": (
        lambda: analysis.gaussian_error(_plan(), 0, 1.0, covariance=np.eye(2)),
        "not both",
    ),
    "target": (
        lambda: analysis.gaussian_error(_plan(), target="x"),
        "'data' or 'level', got 'x'",
    ),
    "square": (
        lambda: analysis.gaussian_error(_plan(), covariance=np.ones((2, 3))),
        r"\(d, d\), got shape \(2, 3\)",
    ),
    "symmetric": (
        lambda: analysis.gaussian_error(_plan(), covariance=np.triu(np.ones((2, 2)))),
        "symmetric",
    ),
    "negative": (
        lambda: analysis.gaussian_error(_plan(), covariance=-np.eye(2)),
        "negative eigenvalue",
    ),
    "axes": (
        lambda: analysis.gaussian_error(
            S.ddim(VP, np.stack([grid(VP, 4)] * 2, 1)), covariance=np.eye(2)
        ),
        "per-element weights",
    ),
    "basis": (
        lambda: analysis.order_conditions(_plan(), VP, basis="x"),
        "basis must be one of",
    ),
    "variable": (
        lambda: analysis.order_conditions(_plan(), VP, variable="x"),
        "variable must be one of",
    ),
    "stochastic basis": (
        lambda: analysis.order_conditions(
            S.ddim(VP, grid(VP, 4), eta=1.0), VP, basis="noise"
        ),
        "basis='data'",
    ),
    "levels": (
        lambda: analysis.order_conditions(S.ddim(FLOW, [1.0, 0.5, 0.0]), FLOW),
        "two levels of finite half log-SNR",
    ),
    "size": (
        lambda: analysis.amplification(_plan(), size=[1.0, 2.0]),
        r"one per row, \(4,\)",
    ),
    "guided variance": (
        lambda: analysis.guidance_growth(_plan(), 1.0, variance=0.0),
        "variance > 0",
    ),
    "bound": (lambda: analysis.guidance_limit(_plan(), bound=1.0), "bound > 1"),
    "steps": (lambda: analysis.measured_order(S.ddim, VP, (8,)), "two or more"),
    "draws": (
        lambda: analysis.measured_order(functools.partial(S.ddim, eta=1.0), VP, (4, 8)),
        "deterministic plan",
    ),
    "no reports": (lambda: plots.plot_analysis({}, "a.png"), "1 to 7 of them, got"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    call, text = BAD[name]
    with pytest.raises(ValueError, match=text):
        call()


def test_plots_are_png(tmp_path):
    pytest.importorskip("matplotlib")
    figure = plots.pyplot().figure()
    with pytest.raises(ValueError, match=re.escape("must end in .png")):
        plots.save(figure, tmp_path / "a.pdf")
    plots.pyplot().close(figure)
