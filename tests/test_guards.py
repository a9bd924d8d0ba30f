"""Arguments against annotations: one line each, nothing wrong accepted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.guards import checked, within
from fastdiff_jax.typing import ArrayLike, Extended, Key

VP = fd.processes.vp_linear()
TS = [0.9, 0.5, 0.1]
X = jnp.ones((2, 3))
PLAN, NOISY = fd.solvers.ddim(VP, TS), fd.solvers.ddpm(VP, TS)
MODEL = fd.models.gaussian(0.0, 1.0)


def complexed(x, context, carry):
    return jax.lax.complex(x, x), carry


@checked
def take(
    whole: int = 1,
    number: float = 1.0,
    extended: Extended = 1.0,
    flag: bool = False,
    array: ArrayLike = 0.0,
    pair: tuple[float, float] = (0.0, 1.0),
    either: float | None = None,
    key: Key | None = None,
):
    return whole, number, extended, flag, array, pair, either, key


LEGAL = {
    "whole": [3, -1, np.int64(3), jnp.int32(3), np.array(3)],
    "number": [3, 0.5, np.float32(0.5), jnp.float32(0.5), np.array(0.5)],
    "extended": [np.inf, -np.inf, 0.0],
    "flag": [True, np.bool_(False)],
    "array": [[1, 2], np.inf, jnp.ones(3), (0.5, 1.0), np.ones((2, 2))],
    "pair": [(1, 2.0), (np.float64(1), 0.5)],
    "either": [None, 2.0],
    "key": [jax.random.key(0), jax.random.PRNGKey(0), None],
}
WRONG = {
    "whole": [2.5, "3", None, True, np.nan, 1j, [3], 10**400, jax.random.key(0)],
    "number": [np.nan, np.inf, "1", None, True, 1j, [1.0], 10**400, np.ones(2)],
    "extended": [np.nan, "inf", None],
    "flag": ["no", "false", 0, 1, None, np.nan, []],
    "array": [None, "a", {}, [1, [2]], np.nan, [1.0, np.nan], 1j, np.array(["a"])],
    "pair": [(1.0,), 1.0, None, ("a", 1.0), (1.0, np.nan)],
    "either": ["a", np.nan, object()],
    "key": [0, 0.5, np.int64(1), jnp.ones(2), "key"],
}


@pytest.mark.parametrize("name", LEGAL)
def test_what_is_legal_passes(name):
    for value in LEGAL[name]:
        take(**{name: value})


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_ends_in_one_line(name):
    for value in [*WRONG[name], np.ma.masked_array([1.0], [True]), lambda: 0]:
        with pytest.raises(ValueError, match=f"^{name} must be ") as error:
            take(**{name: value})
        assert "\n" not in str(error.value)


def test_concrete_jax_numbers_become_numpy_and_traced_ones_pass():
    assert type(take(number=jnp.float64(0.1))[1]) is np.float64
    assert isinstance(take(array=jnp.ones(2))[4], np.ndarray)
    assert jax.jit(lambda v: take(number=v)[1])(2.0) == 2.0


def test_within():
    within("(0, 1]", a=1.0, b=None, c=np.array([0.1, 1.0]))
    for bad in (0.0, 1.1, np.nan, [0.5, 2.0]):
        with pytest.raises(ValueError, match=r"a must be in \(0, 1\], got "):
            within("(0, 1]", a=bad)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: fd.sample(fd.solvers.dpm2, MODEL, X), "Call the solver first"),
        (lambda: fd.sample(PLAN, lambda x, t: x, X), "Wrap a plain f"),
        (lambda: fd.sample(PLAN, X, MODEL), "denoiser must be a denoiser"),
        (lambda: fd.sample(None, MODEL, X), "plan must be a plan, got None"),
        (lambda: fd.sample(PLAN, MODEL, None), "x must be an array"),
        (lambda: fd.sample(PLAN, MODEL, {}), "x must be an array"),
        (lambda: fd.sample(PLAN, MODEL, [[1.0, 2.0]]), "x must be an array"),
        (lambda: fd.sample(PLAN, MODEL, X, collect=3), "collect must be a function"),
        (lambda: fd.sample(PLAN, MODEL, X, checkpoint="no"), "checkpoint must be True"),
        (lambda: fd.sample(NOISY, MODEL, X, key=0), "key must be a random key"),
        (
            lambda: fd.sample(NOISY, MODEL, X, noise=np.ones(3)),
            "noise must have a lead",
        ),
        (
            lambda: fd.sample(NOISY, MODEL, X, noise=np.ones((2, 3))),
            r"noise must be one draw per row, float\d+ of shape \(2, 2, 3\)",
        ),
        (
            lambda: fd.sample(NOISY, MODEL, X, noise=np.ones((2, 1, 1))),
            r"noise must be one draw per row, float\d+ of shape \(2, 2, 3\)",
        ),
        (
            lambda: fd.sample(PLAN, lambda x, c, k: (jax.lax.complex(x, x), k), X),
            "Return its real",
        ),
        (lambda: fd.sample(PLAN, lambda x, c, k: (x > 0, k), X), "Return floats"),
        (lambda: fd.sample(PLAN, lambda x, c, k: (x, 1.0), X), "carry like the one"),
        (lambda: fd.sample(PLAN, MODEL, X, move=lambda *a: None), "move must be"),
        (
            lambda: fd.models.denoiser(
                lambda x, t: x, prediction="data", dtype="int32"
            ),
            "dtype must be a floating type",
        ),
        (lambda: fd.solvers.ddim("vp", TS), "process must be a process, got 'vp'"),
        (lambda: fd.solvers.ddim(fd.processes.vp_linear, TS), "Call it first"),
        (lambda: fd.solvers.ddim(VP, jnp.array([0.1, 0.5])), "must decrease"),
        (lambda: fd.solvers.ddim(VP, jnp.array([2.0, 0.5])), "must lie in"),
        (lambda: fd.solvers.ddim(VP, jnp.array([0.5, jnp.nan])), "without NaN"),
        (lambda: fd.guidance.cfg(MODEL, np.nan, condition=X, null=0.0), "without NaN"),
        (lambda: fd.transforms.clip(MODEL, 1.0, 1.0), "high must be above low"),
    ],
)
def test_mistakes_are_named(call, text):
    with pytest.raises(ValueError, match=text) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["progress", "preview"])
def test_a_host_function_that_raises_is_named(name):
    def fails(*_):
        raise ZeroDivisionError("mine")

    with pytest.raises(ValueError, match=f"{name} must not raise, it raised ZeroDiv"):
        fd.sample(PLAN, MODEL, X, **{name: fails})
    fd.sample(PLAN, MODEL, X)
