"""Batches split over a mesh of eight devices: no error, no collective, same numbers."""

import re

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import fastdiff_jax as fd

from .contract_cases import DRAWS, NAMES, ONE, batch, build, denoiser, loud, padded

COLLECTIVES = re.compile(
    r"all-reduce|all-gather|all-to-all|reduce-scatter|collective|permute|ragged|send"
)
MODES = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
PROGRAMS = {}


def mesh(mode):
    return jax.make_mesh((8,), ("samples",), axis_types=(MODES[mode],))


def program(plan, x, key, mode):
    """Compiled for the plan's structure; refused if devices would have to talk."""
    shapes = tuple((v.shape, v.dtype) for v in jax.tree.leaves((plan, x)))
    kind = (jax.tree.structure(plan), shapes, mode)
    if kind not in PROGRAMS:
        go = jax.jit(lambda p, x, k: fd.sample(p, denoiser(p.reads), x, key=k))
        made = go.lower(plan, x, key).compile()
        assert not COLLECTIVES.findall(made.as_text())
        PROGRAMS[kind] = made
    return PROGRAMS[kind]


def check(plan, mode):
    shape = (16, 2, 3) if plan.matrix else (16, 3)
    x = batch(shape)
    over = mesh(mode)
    place = NamedSharding(over, P("samples"))
    key = jax.random.key(7) if plan.stochastic else None
    want = fd.sample(plan, denoiser(plan.reads), x, key=key)
    with jax.set_mesh(over):
        split = jax.device_put(x, place)
        keys = key if key is None else jax.device_put(key, NamedSharding(over, P()))
        out = program(plan, split, keys, mode)(plan, split, keys)
    assert out.sharding.is_equivalent_to(place, out.ndim)
    np.testing.assert_allclose(out, want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ONE)
def test_padded_plans(name, mode):
    check(padded(build(name), noise=False), mode)
    if name in DRAWS:
        check(padded(loud(name)), mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_every_solver(name, mode):
    check(loud(name) if name in DRAWS else build(name), mode)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["sde_dpmpp_2m", "sa_solver", "two_endpoint"])
def test_some_solvers(name, mode):
    check(loud(name), mode)


def test_the_check_sees_a_collective():
    def mean(x, context, carry):
        return x.mean(0, keepdims=True) + 0 * x, carry

    plan, x = build("ddim"), batch((16, 3))
    with jax.set_mesh(mesh("auto")):
        split = jax.device_put(x, NamedSharding(mesh("auto"), P("samples")))
        made = jax.jit(lambda p, x: fd.sample(p, mean, x)).lower(plan, split).compile()
    assert COLLECTIVES.findall(made.as_text())
