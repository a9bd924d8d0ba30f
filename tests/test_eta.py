"""docs/eta.md: each argument's rate tau^2, read off the weights of a short step."""

import re
from pathlib import Path

import numpy as np
import pytest

import fastdiff_jax as fd

VP = fd.processes.vp_linear()
S = fd.solvers
H = 1e-3


def rate(build, lam=-0.5):
    """-log(share of the noise level that one short step keeps) / h."""
    ts = VP.half_log_snr_inverse(np.array([lam, lam + H]))
    plan = build(VP, ts)
    kept = fd.plan.replay(plan, lambda x, _: 0 * x, 1.0)
    return -np.log(kept * VP.sigma(ts[0]) / VP.sigma(ts[1])) / H


def phi(rho):
    return rho**2.5


CASES = {
    "ddim": (lambda p, t: S.ddim(p, t, eta=0.6), 0.36),
    "ddim, eta 1": (lambda p, t: S.ddim(p, t, eta=1.0), 1.0),
    "ddpm": (lambda p, t: S.ddpm(p, t), 1.0),
    "sde_dpmpp_1": (lambda p, t: S.sde_dpmpp_1(p, t, tau2=0.6), 0.6),
    "sde_dpmpp_2m": (lambda p, t: S.sde_dpmpp_2m(p, t, tau2=0.6), 0.6),
    "sde_dpmpp_3m": (lambda p, t: S.sde_dpmpp_3m(p, t, tau2=0.6), 0.6),
    "euler_ancestral": (lambda p, t: S.euler_ancestral(p, t, eta=0.6), 0.36),
    "dpm2_ancestral": (lambda p, t: S.dpm2_ancestral(p, t, eta=0.6), 0.36),
    "dpmpp_2s_ancestral": (lambda p, t: S.dpmpp_2s_ancestral(p, t, eta=0.6), 0.36),
    "dpm_solver_fast": (
        lambda p, t: S.dpm_solver_fast(
            p, [*t, 0.2], orders=[1, 1], inner="log_snr", eta=0.6
        ),
        None,  # its first step is followed by another: see below
    ),
    "dpmpp_sde": (lambda p, t: S.dpmpp_sde(p, t, tau2=0.6), 0.6),
    "dpmpp_sde, compat": (lambda p, t: S.dpmpp_sde(p, t, tau2=0.6, compat=True), 0.6),
    "seeds": (lambda p, t: S.seeds(p, t, tau2=0.6), 0.6),
    "sa_solver": (lambda p, t: S.sa_solver(p, t, tau2=0.36), 0.36),
    "er_sde": (lambda p, t: S.er_sde(p, t, phi=phi, eta=1.0), 1.5),
    "er_sde, eta": (lambda p, t: S.er_sde(p, t, phi=phi, eta=0.5), 0.75),
    "reverse_diffusion": (
        lambda p, t: S.reverse_diffusion(p, t, tau2=0.6, denoise=False),
        0.6,
    ),
    "predictor_corrector": (
        lambda p, t: S.predictor_corrector(
            p, t, corrector=None, tau2=0.6, denoise=False
        ),
        0.6,
    ),
    "score_sde_ancestral": (
        lambda p, t: S.score_sde_ancestral(p, t, denoise=False),
        1.0,
    ),
    "euler_maruyama": (lambda p, t: S.euler_maruyama(p, t, tau2=0.6), 0.6),
}


@pytest.mark.parametrize("name", CASES)
def test_rate(name):
    build, want = CASES[name]
    if want is None:
        ts = VP.half_log_snr_inverse(np.array([-0.5, -0.5 + H, 1.0]))
        plan = fd.plan.slice_rows(build(VP, ts[:2]), 0, 1)
        kept = fd.plan.replay(plan, lambda x, _: 0 * x, 1.0)
        found = -np.log(kept * VP.sigma(ts[0]) / VP.sigma(ts[1])) / H
        assert abs(found - 0.36) < 0.01
        return
    assert abs(rate(build) - want) < 0.01


def test_every_stochastic_solver_of_the_registry_is_listed():
    text = (Path(__file__).parents[1] / "docs" / "eta.md").read_text()
    plain = {name: line for name, line in S.SOLVERS.items() if not line.needs}
    for name, solver in plain.items():
        if solver.stochastic or solver.draws:
            stem = re.sub(r"_\d+m?$", "", name)  # orders share a line
            assert stem in text, f"docs/eta.md does not say what {name}'s noise means"
