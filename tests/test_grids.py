"""Grids: published numbers, ends, and what each refuses."""

import numpy as np
import pytest

import fastdiff_jax as fd

G, P = fd.grids, fd.processes
VP, FLOW, EDM, SD = P.vp_linear(), P.flow(), P.edm(), P.vp_discrete()
GENERAL = ("uniform", "quadratic", "log_snr", "karras", "exponential", "beta")


@pytest.mark.parametrize("name", GENERAL)
@pytest.mark.parametrize("process", [VP, EDM, SD], ids=["vp", "edm", "sd"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_ends_count_and_decrease(name, process, steps):
    ts = G.GRIDS[name](process, steps)
    assert ts.shape == (steps + 1,) and ts.dtype == np.float64
    assert ts[0] == process.start and ts[-1] == process.end
    assert (np.diff(ts) < 0).all()
    clean = G.GRIDS[name](process, steps, to_zero=True)
    assert clean.shape == (steps + 1,)
    assert process.sigma(clean[-1]) == 0.0
    if steps > 1:
        assert clean[-2] == process.end


def test_log_snr_is_uniform_in_half_log_snr():
    gaps = np.diff(VP.half_log_snr(G.log_snr(VP, 9)))
    np.testing.assert_allclose(gaps, gaps[0], rtol=1e-12)


def test_log_snr_starts_exactly_at_infinite_noise():
    ts = G.log_snr(FLOW, 6)
    assert ts[0] == 1.0 and len(ts) == 7
    gaps = np.diff(FLOW.half_log_snr(ts[1:]))
    np.testing.assert_allclose(gaps, gaps[0], rtol=1e-12)


def test_karras_is_the_papers_formula():
    i = np.arange(18) / 17
    want = (80 ** (1 / 7) + i * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(G.edm(EDM, 18)[:-1], want, rtol=1e-12)
    assert G.edm(EDM, 18)[-1] == 0.0


def test_polynomial_and_exponential():
    want = (1 + np.linspace(0, 1, 6) * (1e-3 ** (1 / 3) - 1)) ** 3
    np.testing.assert_allclose(G.polynomial(VP, 5, power=3.0), want, rtol=1e-12)
    ramp = np.linspace(1, 0, 6) ** 1.7
    span = np.log(80.0) - np.log(0.002)
    want = np.exp(np.log(0.002) + ramp * span)
    np.testing.assert_allclose(G.exponential(EDM, 5, power=1.7), want, rtol=1e-11)


def test_flow_shift_static_dynamic_terminal():
    t = np.linspace(1, 0, 5)
    np.testing.assert_allclose(
        G.flow_shift(FLOW, 4, shift=3.0), 3 * t / (1 + 2 * t), rtol=1e-14
    )
    g = np.exp(0.5 + (1024 - 256) * 0.65 / 3840)
    np.testing.assert_allclose(
        G.flow_shift(FLOW, 4, tokens=1024), g * t / (1 + (g - 1) * t), rtol=1e-13
    )
    ts = G.flow_shift(FLOW, 4, shift=3.0, terminal=0.05)
    assert ts[0] == 1.0 and ts[-1] == 0.0
    np.testing.assert_allclose(ts[-2], 0.05, rtol=1e-12)


def test_ays_table_and_interpolation():
    path = P.edm(0.002, 700.0)
    ts = G.ays(path, 10, model="svd")
    np.testing.assert_allclose(ts[:3], [700.0, 54.5, 15.886], rtol=1e-12)
    assert ts[-1] == 0.0 and len(ts) == 11
    assert len(G.ays(path, 25, model="svd")) == 26
    with pytest.raises(ValueError, match="starts at sigma/alpha=700"):
        G.ays(SD, 10, model="svd")


def test_library_spacings():
    np.testing.assert_array_equal(G.trailing(SD, 4), [999, 749, 499, 249, -1])
    np.testing.assert_array_equal(G.linspace(SD, 4), [999, 749, 500, 250, -1])
    np.testing.assert_array_equal(
        G.linspace(SD, 4, multistep=False, final="zero"), [999, 666, 333, 0, -1]
    )
    np.testing.assert_array_equal(
        G.leading(SD, 4, multistep=False, offset=1), [751, 501, 251, 1, -1]
    )
    np.testing.assert_array_equal(
        G.leading(SD, 4, offset=1, final="sigma_min"), [801, 601, 401, 201, 0]
    )


def test_from_sigmas_and_custom():
    np.testing.assert_allclose(
        np.exp(-VP.half_log_snr(G.from_sigmas(VP, [10.0, 1.0, 0.1]))),
        [10.0, 1.0, 0.1],
        rtol=1e-12,
    )
    assert G.from_sigmas(EDM, [10.0, 0.0])[-1] == 0.0
    np.testing.assert_array_equal(G.custom(FLOW, [1, 0.25, 0]), [1, 0.25, 0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: G.log_snr(VP, 0), "steps must be >= 1, got 0"),
        (lambda: G.uniform(VP, 2.5), "steps must be a whole number, got 2.5"),
        (lambda: G.karras(VP, 5, rho=0.0), "must be finite and > 0, got 0.0"),
        (lambda: G.uniform(VP, 5, start=0.1, end=0.5), "must decrease strictly"),
        (lambda: G.uniform(VP, 5, start=1.5), r"lie in \[0, 1\].*got 1.5"),
        (lambda: G.uniform(VP, 5, start=np.nan), "start must be a finite"),
        (lambda: G.custom(FLOW, [1.0, 0.5, 0.5]), r"\[1\]=0.5 is followed by .*repeat"),
        (lambda: G.custom(FLOW, [0.2, 0.5]), "Sort them downwards"),
        (
            lambda: G.custom(FLOW, [1.0, np.nan]),
            "real numbers without NaN",
        ),
        (lambda: G.custom(FLOW, [1.0]), "at least 2 entries"),
        (lambda: G.karras(FLOW, 5), "sigma / alpha is infinite at t=1"),
        (lambda: G.exponential(VP, 5, end=0.0), "half log-SNR is infinite at t=0"),
        (lambda: G.beta(FLOW, 5), "sigma / alpha is infinite"),
        (lambda: G.flow_shift(FLOW, 5, shift=-1.0), "shift must be finite and > 0"),
        (lambda: G.flow_shift(EDM, 5), r"times in \[0, 1\]"),
        (lambda: G.flow_shift(FLOW, 5, mu=1.0, tokens=9), "mu or tokens, not both"),
        (lambda: G.flow_shift(FLOW, 5, terminal=1.5), r"terminal must be in \(0, 1\)"),
        (lambda: G.ays(EDM, 1), "steps must be >= 2"),
        (lambda: G.ays(EDM, 9, model="sd3"), "one of .*got 'sd3'"),
        (lambda: G.trailing(VP, 5), "need processes.vp_discrete"),
        (lambda: G.trailing(SD, 1001), "steps must be <= 1000"),
        (lambda: G.linspace(SD, 5, final="one"), "'zero' or 'sigma_min', got 'one'"),
        (
            lambda: G.from_sigmas(VP, [1.0, -1.0]),
            "sigmas must be two or more numbers >= 0",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()
