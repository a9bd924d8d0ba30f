"""Plans: build checks, the self-check, JSON damage, stacking, the printed table."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest

import fastdiff_jax as fd

VP = fd.processes.vp_linear()
TS = VP.half_log_snr_inverse(np.linspace(-3, 3, 6))
ONE = np.ones(3)
LEVEL = fd.plan.Level(ONE * 0.5, ONE, ONE)
END = fd.plan.Level(*np.ones(3))
X, D = fd.plan.register(0), fd.plan.prediction()


def build(*writes, **options):
    return fd.plan.build(LEVEL, END, writes or [(0, X + ONE * D)], **options)


def test_weights_are_float64_numpy():
    for leaf in jax.tree.leaves(fd.solvers.unipc(VP, TS)):
        assert isinstance(leaf, np.ndarray | np.generic)
        assert leaf.dtype in (np.float64, np.int32)


def damaged(**fields):
    plan = fd.solvers.unipc(VP, TS)
    rows = plan.rows._replace(**fields)
    fd.plan.validate(dataclasses.replace(plan, rows=rows))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: build((0, np.array([1, np.nan, 1]) * X)),
            "registers must be finite, got nan at row 1",
        ),
        (lambda: build((0, np.ones(2) * X)), "could not be broadcast|broadcast"),
        (
            lambda: build((1, X)),
            "first write must go to register 0 in every row",
        ),
        (
            lambda: build((0, X), (1, X), (1, D)),
            "two writes of row 0 go to one register",
        ),
        (
            lambda: damaged(to=np.full((5, 2), [0, 9], np.int32)),
            r"go to registers 0..3, got 0 to 9",
        ),
        (
            lambda: damaged(predictions=np.ones((5, 2, 1))),
            r"predictions must have 3 lines .*got shape \(5, 2, 1\)",
        ),
        (
            lambda: damaged(noise=np.ones((4, 3))),
            r"noise must have 5 rows, got shape \(4, 3\)",
        ),
        (lambda: fd.plan.Ring(1, 2)[2], "holds 2 rows, asked for 2"),
        (
            lambda: fd.plan.basis_of(LEVEL, "epsilon"),
            "must be 'data' or 'noise', got 'epsilon'",
        ),
        (lambda: fd.plan.basis_of(LEVEL, "velocity"), "needs the process"),
        (lambda: fd.plan.pad(build(), 2), "length must be >= 3, .*got 2"),
        (
            lambda: fd.plan.pad(fd.solvers.unipc(VP, TS), registers=1),
            "registers must be >= 4",
        ),
        (
            lambda: fd.plan.pad(fd.solvers.unipc(VP, TS), writes=1),
            "writes must be 2, what the plan has, to ",
        ),
        (
            lambda: fd.plan.pad(fd.solvers.unipc(VP, TS), writes=5),
            "its registers .* got 5",
        ),
        (lambda: fd.plan.slice_rows(build(), 2, 2), "0 <= start < stop <= 3"),
        (lambda: fd.plan.stack([]), "plans must not be empty"),
    ],
)
def test_bad_plans(make, message):
    with pytest.raises((ValueError, IndexError), match=message):
        make()


def test_forms_are_what_they_say():
    """All writes see the registers before the row; rings turn; the start is a form."""
    past = fd.plan.Ring(1, 2)
    plan = build(
        (0, 2.0 * X - ONE * past[1] + 0.5 * D),
        (past, X + 3.0 * D),
        start={0: -1.0 * X, 2: 4.0 * X},
    )
    predict = lambda x, i: np.cos(x + i)  # noqa: E731
    x, ring = -0.7, [4 * 0.7, 0.0]  # newest first: register 2, then 1
    for i in range(3):
        d = np.cos(x + i)
        x, ring = 2 * x - ring[1] + 0.5 * d, [x + 3 * d, ring[0]]
    np.testing.assert_allclose(fd.plan.replay(plan, predict, 0.7), x, rtol=1e-13)
    assert (plan.registers, plan.writes, plan.predictions) == (3, 2, 1)


def churned():
    edm = fd.processes.edm()
    return fd.solvers.edm_churn(edm, fd.grids.edm(edm, 6), s_churn=20.0)


def first_written():
    made = fd.solvers.dpmpp_2m(VP, TS)
    return fd.plan.analytic_first_step(made, "data", mean=0.7)


@pytest.mark.parametrize("make", [churned, first_written])
def test_replay_is_sample(make):
    """The start's draw and bias included."""
    plan, rng = make(), np.random.default_rng(0)
    x = rng.normal(size=(3, 2)) * plan.rows.level.sigma[0]
    z = rng.normal(size=(plan.length + 1, 3, 2)) if plan.stochastic else None
    got = fd.plan.replay(plan, lambda x, _: np.tanh(x), x, z)
    want = fd.sample(plan, lambda x, c, k: (jax.numpy.tanh(x), k), x, noise=z)
    np.testing.assert_allclose(got, want, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("make", [churned, lambda: fd.solvers.ddim(VP, TS, eta=1.0)])
def test_replay_refuses_draws_of_another_number(make):
    plan = make()
    right = plan.length + (plan.start.noise is not None)
    text = f"z must be {right} draws .one per row(, the start first)?., got "
    for count in (right - 1, right + 1):
        with pytest.raises(ValueError, match=text):
            fd.plan.replay(plan, lambda x, _: x, 1.0, np.zeros(count))
    padded = fd.plan.pad(plan, right + 2)
    assert fd.plan.replay(padded, lambda x, _: x, 1.0, np.zeros(right + 2)) is not None


def test_plans_that_cannot_stack_say_so():
    plan = fd.solvers.ddim(VP, TS)
    rows = plan.rows._replace(controls={"gain": np.ones(5)})
    with pytest.raises(ValueError, match="cannot be stacked: their controls"):
        fd.plan.stack([plan, dataclasses.replace(plan, rows=rows)])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "not valid JSON.*cut short"),
        (lambda text: "[]", "must have format"),
        (lambda text: text.replace("plan/2", "plan/9"), "must have format.*plan/9"),
        (lambda text: text.replace('"to"', '"too"'), "is damaged"),
        (lambda text: text.replace('"shape": [5]', '"shape": [4]', 1), "is damaged"),
        (
            lambda text: re.sub(
                r'("registers": .*?"data": )\[[^,]*,', r'\1["nan",', text, count=1
            ),
            "is damaged",
        ),
        (lambda text: text.replace("float64", "object", 1), "is damaged"),
    ],
)
def test_damaged_json_is_named(damage, message, tmp_path):
    path = tmp_path / "plan.json"
    text = damage(fd.plan.to_json(fd.solvers.unipc(VP, TS)))
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        fd.plan.load(path)
    assert "plan.json" in str(caught.value)


def test_json_keeps_infinite_times_and_controls(tmp_path):
    ve = fd.processes.ve()
    plan = fd.solvers.ddim(ve, [1.0, 0.5, -np.inf])
    rows = plan.rows._replace(controls={"scale": np.ones(2), "pair": (np.zeros(2),)})
    plan = dataclasses.replace(plan, rows=rows)
    fd.plan.save(plan, tmp_path / "p.json")
    json.loads((tmp_path / "p.json").read_text())
    back = fd.plan.load(tmp_path / "p.json")
    assert back.end.time == -np.inf
    np.testing.assert_array_equal(back.rows.controls["pair"][0], np.zeros(2))
    assert [p.name for p in tmp_path.iterdir()] == ["p.json"]


def test_table_shows_the_papers_columns():
    text = fd.plan.table(fd.solvers.dpmpp_2m(VP, TS, lower_order_final=False))
    lines = text.splitlines()
    assert lines[0].split() == ["row", "t", "alpha", "sigma", "x", "m0", "m1"]
    assert len(lines) == 7 and lines[-1].startswith("end")
    padded = fd.plan.pad(fd.solvers.dpmpp_2m(VP, TS), 9, registers=5, writes=3)
    assert str(padded) == str(fd.solvers.dpmpp_2m(VP, TS))


def test_table_columns_are_the_weights():
    """Golden weights of the sheet: 2M midpoint from .5 to .43 with .62 before."""
    ts = np.array([0.62, 0.5, 0.43])
    cols = fd.plan.columns(fd.solvers.dpmpp_2m(VP, ts, lower_order_final=False))
    np.testing.assert_allclose(cols["x"][1], 0.9594879925, rtol=1e-9)
    np.testing.assert_allclose(cols["m0"][1], 0.1517371755, rtol=1e-9)
    np.testing.assert_allclose(cols["m1"][1], -0.03143865732, rtol=1e-9)


REFERENCE = {  # published reference weights of the step .5 -> .43, newest first
    ("data", 1): [0.1202985181],
    ("data", 2): [0.1536648636, -0.03336634549],
    ("data", 3): [0.1696929817, -0.05815851014, 0.008764046552],
    ("noise", 1): [-0.4105690151],
    ("noise", 2): [-0.511287542, 0.1007185269],
    ("noise", 3): [-0.558907631, 0.174376899, -0.02603828311],
}


@pytest.mark.parametrize(("prediction", "count"), REFERENCE)
def test_exponential_weights_are_the_reference_numbers(prediction, count):
    from fastdiff_jax.numerics import exponential_weights, levels

    lv = levels(VP, np.array([0.8, 0.62, 0.5, 0.43]))
    got = exponential_weights(lv, np.array([2]), count, prediction)[0]
    np.testing.assert_allclose(got, REFERENCE[prediction, count], rtol=2e-9)


def test_ahead_and_adams_weights_are_the_reference_numbers():
    from fastdiff_jax.numerics import exponential_weights, levels

    lv = levels(VP, np.array([0.95, 0.8, 0.62, 0.5, 0.43]))
    got = exponential_weights(lv, np.array([3]), 4, "data", ahead=True)[0]
    want = [0.05436656998, 0.07161473211, -0.006083371933, 0.0004005879919]
    np.testing.assert_allclose(got, want, rtol=3e-9)
    cols = fd.plan.columns(fd.solvers.adams(VP, lv.time, order=4))
    want = [-0.4872783844, 0.0797227627, -0.003051584953, 3.819155295e-05]
    got = np.array([cols[f"m{k}"][3] for k in range(4)])
    # m0 is E = (x - alpha D) / sigma: the table's column is its own weight
    np.testing.assert_allclose(got, want, rtol=3e-9)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_phi_functions(k):
    from math import factorial

    from scipy.integrate import quad

    from fastdiff_jax.numerics import phi

    for z in (-30.0, -1.0, -0.99, -1e-3, -1e-9, 0.0, 1e-6, 0.5, 1.0, 4.0):
        f = lambda u, z=z: np.exp((1 - u) * z) * u ** (k - 1) / factorial(k - 1)  # noqa: E731
        np.testing.assert_allclose(
            phi(k, z), quad(f, 0, 1, epsabs=1e-15)[0], rtol=3e-13
        )


def test_a_killed_write_leaves_the_old_file(tmp_path):
    from fastdiff_jax.files import write_whole

    target = tmp_path / "plan.json"
    write_whole(target, lambda f: f.write(b"old"))

    def killed(file):
        file.write(b"ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(target, killed)
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


def test_a_plan_with_times_by_modality_prints():
    process = fd.processes.flow()
    base = fd.grids.uniform(process, 4)
    ts = fd.grids.per_modality(process, base, {"image": "sample", "text": "clean"})
    text = str(fd.plan.per_element(fd.solvers.dpmpp_2m, process, ts))
    assert "t['image']" in text and "sigma['text']" in text
    assert len(text.splitlines()) == 6
