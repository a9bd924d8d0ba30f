"""Model statistics: closed forms, resuming, files, errors, and what they buy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd

PROCESS = fd.processes.vp_linear()
MEAN, VARIANCE = np.array([0.5, -1.0, 2.0]), np.array([0.2, 1.0, 0.05])
GAUSSIAN = fd.models.gaussian(MEAN, VARIANCE)
DATA = MEAN + np.sqrt(VARIANCE) * np.random.default_rng(0).normal(size=(20, 3))
KEY = jax.random.key(0)


def gaussian_tables(lam):
    l = 1 / (1 + VARIANCE * np.exp(2 * lam[:, None]))  # noqa: E741
    return l, 0 * l, 2 * MEAN * l * (1 - l)


@pytest.mark.slow
@pytest.mark.parametrize(
    "process",
    [PROCESS, fd.processes.edm(), fd.processes.vp_discrete()],
    ids=["vp", "edm", "discrete"],
)
def test_gaussian_data_have_closed_forms(process):
    found = fd.tune.ems.estimate(GAUSSIAN, process, DATA, key=KEY, nodes=239, batch=8)
    l, s, b = gaussian_tables(found.nodes)  # noqa: E741
    np.testing.assert_allclose(found.l, l, atol=1e-13)
    np.testing.assert_array_equal(found.s, s)
    np.testing.assert_allclose(found.b, b, atol=2e-3)  # differences of l over nodes


@pytest.mark.slow
def test_a_mixture_against_independent_formulas():
    """One level of a one-dimensional mixture, by quadrature over x."""
    w, m, v = np.array([0.4, 0.6]), np.array([-1.0, 1.2]), 0.25
    model = fd.models.gaussian_mixture(w, m[:, None], v)
    rng = np.random.default_rng(0)
    data = (m[rng.choice(2, 4000, p=w)] + np.sqrt(v) * rng.normal(size=4000))[:, None]
    found = fd.tune.ems.estimate(
        model, PROCESS, data, key=KEY, nodes=40, batch=4000, smooth=0
    )
    lam = found.nodes

    def predict(x, lam):  # variance-exploding clock: alpha = 1, sigma = e^{-lam}
        total = v + np.exp(-2 * lam)
        r = w[:, None] * np.exp(-((x - m[:, None]) ** 2) / 2 / total)
        density = r.sum(0) / np.sqrt(2 * np.pi * total)
        mean = m[:, None] + v / total * (x - m[:, None])
        return (r * mean).sum(0) / r.sum(0), density

    x = np.linspace(-9, 9, 20001)
    half = 2e-4
    i = 24
    assert -0.6 < lam[i] < 1.5
    gain = []
    for at in lam[i - 1 : i + 2]:
        d, density = predict(x, at)
        p = density / density.sum()
        gain.append((p * np.gradient(d, x)).sum())
    rate = (gain[2] - gain[0]) / (lam[i + 1] - lam[i - 1])
    d, density = predict(x, lam[i])
    p = density / density.sum()
    flow = d - x
    moved = [predict(x + q * flow, lam[i] + q)[0] for q in (-half, half)]
    f = gain[1] * x - d
    df = gain[1] * flow + rate * x - (moved[1] - moved[0]) / (2 * half)
    mean = lambda value: (p * value).sum()  # noqa: E731
    cov = mean(f * df) - mean(f) * mean(df)
    s = cov / (mean(f * f) - mean(f) ** 2)
    want = (1 - gain[1], s, mean(df) - s * mean(f))
    got = (found.l[i, 0], found.s[i, 0], found.b[i, 0])
    np.testing.assert_allclose(got, want, atol=0.03)


@pytest.mark.slow
def test_batches_change_rounding_only():
    whole = fd.tune.ems.estimate(GAUSSIAN, PROCESS, DATA, key=KEY, nodes=6, batch=20)
    parts = fd.tune.ems.estimate(GAUSSIAN, PROCESS, DATA, key=KEY, nodes=6, batch=6)
    for name in "lsb":
        np.testing.assert_allclose(
            getattr(whole, name), getattr(parts, name), atol=1e-12
        )


class Stop(Exception):
    pass


@pytest.mark.slow
def test_a_killed_run_continues(tmp_path):
    path = tmp_path / "run.npz"
    options = dict(key=KEY, nodes=6, batch=8)
    whole = fd.tune.ems.estimate(GAUSSIAN, PROCESS, DATA, **options)

    def kill(done, total):
        assert total == 6
        if done == 4:
            raise Stop

    with pytest.raises(Stop):
        fd.tune.ems.estimate(
            GAUSSIAN, PROCESS, DATA, path=path, progress=kill, **options
        )
    seen = []
    again = fd.tune.ems.estimate(
        GAUSSIAN,
        PROCESS,
        DATA,
        path=path,
        progress=lambda done, _: seen.append(done),
        **options,
    )
    assert seen == [5, 6]
    for name in "lsb":
        np.testing.assert_array_equal(getattr(whole, name), getattr(again, name))
    assert list(tmp_path.iterdir()) == [path]  # no temporary file is left
    with pytest.raises(ValueError, match="belongs to a run with other"):
        fd.tune.ems.estimate(GAUSSIAN, PROCESS, DATA + 1, path=path, **options)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is damaged or not an npz file"):
        fd.tune.ems.estimate(GAUSSIAN, PROCESS, DATA, path=path, **options)


def test_files_keep_every_bit(tmp_path):
    path = tmp_path / "table.npz"
    rng = np.random.default_rng(0)
    table = fd.tune.ems.from_arrays(-3.0, 2.0, *rng.normal(size=(3, 5, 2, 2)))
    fd.tune.ems.save(table, path)
    back = fd.tune.ems.load(path)
    jax.tree.map(np.testing.assert_array_equal, table, back)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="is damaged"):
        fd.tune.ems.load(path)
    np.savez(path, l=np.ones(3))
    with pytest.raises(ValueError, match="does not hold"):
        fd.tune.ems.load(path)
    np.savez(path, format="fastdiff_jax.statistics/1", low=0.0)
    with pytest.raises(ValueError, match="is damaged: it holds"):
        fd.tune.ems.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": np.ones(3)}, "low and high must be numbers"),
        ({"low": "a"}, "low and high must be numbers"),
        ({"l": np.ones((3, 2), complex)}, "floating tables"),
        ({"l": np.ones((3, 2), int)}, "floating tables"),
        ({"l": np.full((3, 2), np.nan)}, "table.npz is damaged: l must be real"),
        ({"l": np.ones((4, 2))}, "table.npz is damaged: l, s and b must have one"),
        ({"high": -9.0}, "table.npz is damaged: statistics need finite low < high"),
        ({"more": 1.0}, "is damaged: it holds"),
        ({"format": "x"}, "does not hold"),
    ],
)
def test_hostile_tables_are_one_line(tmp_path, change, message):
    good = {"format": "fastdiff_jax.statistics/1", "low": -3.0, "high": 2.0}
    good |= {name: np.ones((3, 2)) for name in "lsb"}
    np.savez(tmp_path / "table.npz", **(good | change))
    with pytest.raises(ValueError, match=message) as found:
        fd.tune.ems.load(tmp_path / "table.npz")
    assert "\n" not in str(found.value) and len(str(found.value)) < 400


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"done": -1}, "done is int64"),
        ({"gain": np.full((7, 3), np.nan)}, "gain is float64"),
        ({"gain": np.zeros((7, 2))}, r"gain is float64 of shape \(7, 2\)"),
        ({"done": 1.5}, "done is float64"),
    ],
)
def test_a_damaged_run_is_not_continued(tmp_path, change, message):
    from fastdiff_jax.tune import ems

    path = tmp_path / "run.npz"
    ems._write(path, format=ems._RUN, **(ems._resume(None, "m", 7, (3,)) | change))
    with pytest.raises(ValueError, match=f"run.npz is damaged: {message}"):
        ems._resume(path, "m", 7, (3,))


@pytest.mark.slow
def test_statistics_make_few_steps_better():
    w, v = np.array([0.4, 0.6]), 0.1
    m = np.array([[-1.0, 0.5], [1.2, -0.8]])
    model = fd.models.gaussian_mixture(w, m, v)
    rng = np.random.default_rng(0)
    data = m[rng.choice(2, 512, p=w)] + np.sqrt(v) * rng.normal(size=(512, 2))
    table = fd.tune.ems.estimate(model, PROCESS, data, key=KEY, nodes=60, batch=512)
    x = jnp.asarray(rng.normal(size=(64, 2)))
    exact = fd.tune.dc_ratios.reference(
        model, PROCESS, np.array([1.0, 1e-3]), x, refine=200
    )[-1]

    def error(plan):
        return float(((fd.sample(plan, model, x) - exact) ** 2).mean())

    ts = fd.grids.log_snr(PROCESS, 6)
    v3 = error(fd.solvers.dpm_solver_v3(PROCESS, ts, table))
    assert v3 < 0.7 * error(fd.solvers.unipc(PROCESS, ts, order=2))
    assert v3 < 0.7 * error(fd.solvers.unipc(PROCESS, ts, order=3))


def test_bad_input():
    make = fd.tune.ems.from_arrays
    one = np.ones((3, 2))
    with pytest.raises(ValueError, match="finite low < high"):
        make(1.0, 1.0, one, one, one)
    with pytest.raises(ValueError, match="must have one shape"):
        make(0.0, 1.0, one, one, one[:, :1])
    with pytest.raises(ValueError, match="s must be real numbers without NaN"):
        make(0.0, 1.0, one, one * np.nan, one)
    with pytest.raises(ValueError, match="Step off the exact ends"):
        fd.tune.ems.degenerated(fd.processes.flow())
    with pytest.raises(ValueError, match="nodes must be >= 1, got 0"):
        fd.tune.ems.degenerated(PROCESS, nodes=0)
    with pytest.raises(ValueError, match="data must be at least 2 clean samples"):
        fd.tune.ems.estimate(GAUSSIAN, PROCESS, np.ones((1, 3)), key=KEY)
