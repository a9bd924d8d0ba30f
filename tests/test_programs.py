"""Compiled runs never hold stale constants: sampled every epoch, however written."""

import functools
import threading
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fastdiff_jax as fd

VP = fd.processes.vp_linear()
TS = fd.grids.log_snr(VP, 3)
PLAN, NOISY = fd.solvers.ddim(VP, TS), fd.solvers.ddpm(VP, TS)
X = jnp.ones((2, 3), jnp.float32)


class Net(nnx.Module):
    """Answers with its bias."""

    def __init__(self):
        self.bias = nnx.Param(jnp.zeros(3, jnp.float32))

    def __call__(self, x, t):
        return 0 * x + self.bias[None]


NET, HOLDER, SCALE = Net(), {}, [0.0]


def of_global(x, context, carry):
    return NET(x, context.time), carry


def of_holder(x, context, carry):
    return HOLDER["net"](x, context.time), carry


def with_net(net, x, context, carry):
    return net(x, context.time), carry


class Denoiser:
    def __init__(self, net):
        self.net = net

    def __call__(self, x, context, carry):
        return self.net(x, context.time), carry

    def method(self, x, context, carry):
        return self.net(x, context.time), carry


def ways(net):
    """The same network as a denoiser, in the ways in which people write it."""
    HOLDER["net"] = net
    return {
        "closure": lambda x, c, k: (net(x, c.time), k),
        "attribute": Denoiser(net),
        "method": Denoiser(net).method,
        "partial": functools.partial(with_net, net),
        "dict": of_holder,
        "default": lambda x, c, k, net=net: (net(x, c.time), k),
        "adapter": fd.models.denoiser(lambda x, t: net(x, t), VP, prediction="data"),
        "nnx": fd.models.from_nnx(net, VP, prediction="data"),
        "wrapped": fd.transforms.clip(lambda x, c, k: (net(x, c.time), k), -99, 99),
    }


def train(net, value):
    net.bias[...] = jnp.full(3, value, jnp.float32)


@pytest.mark.filterwarnings("ignore:what a function of this run captures")
@pytest.mark.parametrize("way", [*ways(NET), "global"])
def test_every_epoch_samples_the_weights_of_that_epoch(way):
    net = NET if way == "global" else Net()
    denoiser = of_global if way == "global" else ways(net)[way]
    end = float(VP.sigma(TS[-1]) / VP.sigma(TS[0]))
    for epoch in (0.0, 7.0, 3.0):
        train(net, epoch)
        out = fd.sample(PLAN, denoiser, X)
        exact = VP.alpha(TS[-1]) * epoch + end * (1 - VP.alpha(TS[0]) * epoch)
        np.testing.assert_allclose(out, jnp.full_like(X, exact), rtol=1e-5)


class Base:
    scale = 0.0

    @property
    def first(self):
        return SCALE[0]

    @staticmethod
    def of_module():
        return LEVEL


class OfBase(Base):
    def __call__(self, x, context, carry):
        return 0 * x + self.scale, carry


class OfProperty(Base):
    def __call__(self, x, context, carry):
        return 0 * x + self.first, carry


class OfStatic(Base):
    def __call__(self, x, context, carry):
        return 0 * x + self.of_module(), carry


LEVEL = 0.0


def helper(x):
    return 0 * x


def of_helper(x, context, carry):
    return helper(x), carry


def of_keyword(x, context, carry, *, options={"level": 0.0}):  # noqa: B006
    return 0 * x + options["level"], carry


def of_cell():
    """A number of the function around it, and how to change it."""
    level = 0.0

    def change(value):
        nonlocal level
        level = value

    return lambda x, c, k: (0 * x + level, k), change


def places():
    """Denoisers that answer with a number from somewhere, and how to change it."""
    this = globals()
    return {
        "cell": of_cell(),
        "base class": (OfBase(), lambda v: setattr(Base, "scale", v)),
        "property": (OfProperty(), lambda v: SCALE.__setitem__(0, v)),
        "static method": (OfStatic(), lambda v: this.update(LEVEL=v)),
        "helper": (of_helper, lambda v: this.update(helper=lambda x: 0 * x + v)),
        "keyword": (
            of_keyword,
            lambda v: of_keyword.__kwdefaults__["options"].update(level=v),
        ),
    }


@pytest.mark.filterwarnings("ignore:what a function of this run captures")
@pytest.mark.parametrize("place", places())
def test_a_number_from_anywhere_is_the_latest(place):
    denoiser, change = places()[place]
    found = []
    for value in (0.0, 4.0):
        change(value)
        found.append(float(fd.sample(PLAN, denoiser, X)[0, 0]))
    change(0.0)
    assert found[1] - found[0] > 3


@pytest.mark.filterwarnings("ignore:what a function of this run captures")
def test_numbers_lists_arrays_and_moves():
    array = np.zeros(3, np.float32)
    for denoiser, change in (
        (lambda x, c, k: (0 * x + SCALE[0], k), lambda v: SCALE.__setitem__(0, v)),
        (lambda x, c, k: (0 * x + array[None], k), lambda v: array.__setitem__(..., v)),
    ):
        found = []
        for value in (0.0, 4.0):
            change(value)
            found.append(float(fd.sample(PLAN, denoiser, X)[0, 0]))
        assert found[1] - found[0] > 3
    shift = [0.0]
    for value in (0.0, 2.0):
        shift[0] = value
        move = lambda s, i, r, l: s.at(0 * s.point + shift[0])  # noqa: E731, E741, B023
        kept = fd.sample(PLAN, fd.models.gaussian(0.0, 1.0), X, move=move)
        assert float(kept[0, 0]) == value


def test_a_change_is_told_and_nothing_else_compiles_again():
    net, traces = Net(), []

    def denoiser(x, context, carry):
        traces.append(0)
        return net(x, context.time), carry

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fd.sample(PLAN, denoiser, X)
        once = len(traces)
        fd.sample(PLAN, denoiser, X + 1)
        fd.sample(fd.solvers.ddim(VP, TS * 0.9), denoiser, X)
    assert len(traces) == once
    train(net, 1.0)
    with pytest.warns(UserWarning, match="it is compiled again. Give weights as arg"):
        fd.sample(PLAN, denoiser, X)
    assert len(traces) == 2 * once


def test_host_randomness_is_refused():
    rng, model = np.random.default_rng(0), fd.models.gaussian(0.0, 1.0)
    for noise in (
        lambda row, like: np.random.normal(size=like.shape).astype("float32"),
        lambda row, like: rng.normal(size=like.shape).astype("float32"),
    ):
        with pytest.raises(ValueError, match="draws random numbers on the host"):
            fd.sample(NOISY, model, X, noise=noise)
    with pytest.raises(ValueError, match="draws random numbers on the host"):
        fd.sample(PLAN, lambda x, c, k: (x + np.random.rand(), k), X)
    fd.sample(NOISY, model, X, noise=lambda row, like: jnp.zeros_like(like))


@pytest.mark.parametrize("own", [False, True])
def test_what_another_thread_draws_meanwhile_is_not_the_functions_own(own):
    done = threading.Event()

    def loader():  # as one that shuffles data
        while not done.is_set():
            np.random.rand()
            time.sleep(1e-4)

    def denoiser(x, context, carry):
        time.sleep(0.01)  # the other one draws here
        noise = np.random.rand() if own else 0.5
        return jax.jit(lambda v: v * jnp.cos(noise))(x), carry

    thread = threading.Thread(target=loader)
    thread.start()
    try:
        if own:
            with pytest.raises(ValueError, match="draws random numbers on the host"):
                fd.sample(PLAN, denoiser, X)
        else:
            assert np.isfinite(fd.sample(PLAN, denoiser, X)).all()
    finally:
        done.set()
        thread.join()


def test_what_is_traced_outside_goes_in():
    def loss(bias):
        return fd.sample(PLAN, lambda x, c, k: (0 * x + bias, k), X).sum()

    slope = jax.grad(loss)(jnp.float32(1.0))
    exact = VP.alpha(TS[-1]) - VP.sigma(TS[-1]) / VP.sigma(TS[0]) * VP.alpha(TS[0])
    np.testing.assert_allclose(slope, 6 * exact, rtol=1e-5)
