"""Orders of convergence of the Runge-Kutta and exponential Adams families."""

import functools

import numpy as np
import pytest

from . import mixture as m
from .oracles import exp_rk as exp_loop
from .table import spoiled
from .test_rk_families import EXP_RK, METHODS, VARIANTS, S, ours, predictor


def graded(process, steps, power):
    """Uniform in half log-SNR but for the first steps, which start like s^power."""
    s, turn = np.linspace(0, 1, steps + 1), 0.3
    early = turn / power * np.minimum(s / turn, 1) ** power
    ramp = early + np.maximum(s - turn, 0)
    return process.half_log_snr_inverse(m.LOW + ramp / ramp[-1] * (m.HIGH - m.LOW))


def errors(build, counts, power=1.0, spoil=None):
    process, x, end = m.problem("vp")
    found = []
    for n in counts:
        plan = build(process, graded(process, n, power))
        plan = plan if spoil is None else spoil(plan)
        got = ours(plan, x[:, 0], length=330)
        found.append(np.sqrt(np.mean((got - end[:, 0]) ** 2)))
    return found


def slope(build, counts=(24, 48), **options):
    coarse, fine = errors(build, counts, **options)
    return np.log(coarse / fine) / np.log(counts[1] / counts[0])


@pytest.mark.parametrize("method", METHODS)
def test_order_of_rho_rk(method):
    build = functools.partial(S.rho_rk, variant=method)
    assert abs(slope(build) - METHODS[method][0]) < 0.25


@pytest.mark.parametrize("r", [0.5, 0.7, 1.0])
def test_order_of_dpm2(r):
    assert abs(slope(functools.partial(S.dpm2, r=r)) - 2) < 0.25


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_order_of_exp_rk(name, options, prediction):
    build = functools.partial(getattr(S, name), prediction=prediction, **options)
    assert abs(slope(build) - EXP_RK[name][0]) < 0.25


@pytest.mark.slow
@pytest.mark.parametrize("corrector", [False, True])
@pytest.mark.parametrize(
    ("order", "prediction"),
    [(p, kind) for p in (1, 2, 3, 4) for kind in ("data", "noise")]
    + [(5, "data"), (6, "noise")],
)
def test_order_of_exp_adams(order, corrector, prediction):
    """Steps graded at the start, where the warm-up is of low order."""
    build = functools.partial(
        S.exp_adams,
        order=order,
        corrector=corrector,
        prediction=prediction,
        lower_order_final=False,
    )
    want = order + corrector
    counts = (40, 80) if want < 4 else (160, 320)
    found = slope(build, counts, power=(order + 1) / 2)
    # five and more: asymptotic only where float64 is nearly used up
    assert abs(found - want) < (0.25 if want < 5 else 0.6)


@pytest.mark.parametrize(
    "build", [S.rho_rk, S.dpm2, S.res_2, S.ho_3, S.krogstad, S.exp_adams, S.deis_logrho]
)
def test_a_wrong_weight_costs_the_order(build):
    """The newest evaluation weighs 2 % too much."""
    assert slope(build, spoil=functools.partial(spoiled, own=1.02)) < 1


def test_the_printed_gamma_of_res_3_is_of_order_two():
    """Papers print 3 c3^3 - 2 c3; the order condition needs 3 c3^2 - 2 c3."""
    process, x, end = m.problem("vp")

    def error(steps, printed):
        ts = m.times_between(process, steps)
        got = exp_loop.loop(
            exp_loop.res_3,
            process,
            ts,
            predictor(process),
            x[:, 0],
            c2=1 / 3,
            c3=0.8,
            printed=printed,
        )
        return np.sqrt(np.mean((got - end[:, 0]) ** 2))

    assert np.log2(error(16, False) / error(32, False)) > 2.75
    assert np.log2(error(16, True) / error(32, True)) < 2.3


@pytest.mark.parametrize("order", [2, 3])
def test_published_vary_is_of_order_one(order):
    build = functools.partial(S.unipc, order=order, variant="vary", compat=True)
    assert abs(slope(build, (80, 160), power=2.0) - 1) < 0.25
