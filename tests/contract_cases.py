"""Every registered builder with small data, and one shape for all of their plans."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np

import fastdiff_jax as fd

VP, FLOW = fd.processes.vp_linear(), fd.processes.flow()
SOLVERS = dict(fd.solvers.SOLVERS)
fd.augmented.gddim  # noqa: B018  (its line is in the registry once the room is loaded)
SOLVERS = dict(fd.solvers.SOLVERS)
PLAIN = sorted(n for n, s in SOLVERS.items() if not s.needs)
NEEDY = sorted(n for n, s in SOLVERS.items() if s.needs)
NAMES = sorted(SOLVERS)
ONE = [n for n in NAMES if n not in ("two_endpoint", "residual_noise", "interpolant")]
ONE = [n for n in ONE if n != "gddim"]  # those whose plans have one structure
STARTED = [
    n for n in NAMES if "start" in inspect.signature(SOLVERS[n].build).parameters
]
LENGTH, REGISTERS, WRITES = 48, 8, 4


def grid(steps):
    lam = np.linspace(-3, 3, steps + 1)
    return VP.half_log_snr_inverse(lam)


def _needs(name, ts, options):
    """A plan of a builder with data of its own."""
    S, steps = fd.solvers, len(ts) - 1
    linear = np.linspace(1, 0.05, steps + 1)
    if name == "dpm_solver_v3":
        rng = np.random.default_rng(1)
        table = fd.tune.ems.from_arrays(-3.2, 3.2, *(rng.normal(size=(3, 30)) * 0.3))
        return S.dpm_solver_v3(VP, ts, table, **options)
    if name == "usf":
        schedule = S.usf_schedule(ts, order=2, corrector="pseudo")
        if steps > 2:
            schedule = schedule.change(2, prediction="noise")
        return S.usf(VP, schedule, **options)
    if name == "olss":
        return S.olss(VP, *S.unroll(S.dpmpp_2m(VP, ts)), **options)
    if name == "bespoke":
        known = S.euler(FLOW, linear)
        table = S.unroll(known, FLOW, prediction="velocity")
        return S.bespoke(FLOW, *table, **options)
    if name == "flow_grpo":
        return S.flow_grpo(FLOW, linear, **options)
    if name == "two_endpoint":
        return S.two_endpoint(fd.processes.sb_ve(), linear, **options)
    if name == "residual_noise":
        labels = np.linspace(900, 9, steps + 1)
        return S.residual_noise(fd.processes.rddm(1000), labels, **options)
    if name == "interpolant":
        bridge = fd.processes.interpolant(scale=0.5)
        return S.interpolant(bridge, np.linspace(1, 0, steps + 1), **options)
    assert name == "gddim", f"{name} needs small data: add them here"
    lam = {"order": 2} if not options.get("tau2") else {"order": 1}
    return fd.augmented.gddim(fd.augmented.cld(), linear**2, **(lam | options))


def highest(name):
    """The option of the highest legal order, where there is one."""
    return {"order": SOLVERS[name].orders[-1]} if SOLVERS[name].orders else {}


def quiet(name):
    """Options that turn a solver's noise off."""
    return dict.fromkeys(SOLVERS[name].stochastic, 0.0)


def build(name, steps=6, **options):
    """A solver's plan; one that draws noise by default has it turned off here."""
    options = {**quiet(name), **options}
    if name in PLAIN:
        return SOLVERS[name].build(VP, grid(steps), **options)
    return _needs(name, grid(steps), options)


def loud(name, steps=6):
    """The plan with its noise on."""
    noise = SOLVERS[name].stochastic[:1]
    return build(name, steps, **dict.fromkeys(noise, 1.0))


DRAWS = [n for n in NAMES if SOLVERS[n].stochastic or SOLVERS[n].draws]


def square(x, context, carry):
    """A nonlinear denoiser on any tree."""
    return jax.tree.map(lambda v: jnp.tanh(v) * 0.5, x), carry


def pair(x, context, carry):
    return (square(x, context, carry)[0], jax.tree.map(jnp.cos, x)), carry


@functools.cache
def denoiser(reads):
    """A denoiser that gives what a plan reads."""
    return square if reads == ("data",) else fd.models.giving(pair, *reads)


def host(plan):
    """The same in NumPy, for `fd.plan.replay`."""

    def predict(x, i):
        first = np.tanh(x) * 0.5
        return first if plan.predictions == 1 else (first, np.cos(x))

    return predict


def batch(shape=(4, 3), dtype=jnp.float64):
    return jax.random.normal(jax.random.key(1), shape, dtype)


def start(plan):
    """A state for the plan: with the channel axis for matrix weights."""
    return batch((4, 2, 3)) if plan.matrix else batch()


def padded(plan, noise=False, length=LENGTH):
    """Any plan in one structure: the same rows, registers and writes."""
    return fd.plan.pad(plan, length, registers=REGISTERS, writes=WRITES, noise=noise)


@jax.jit
def run(plan, x, key=None):
    """One program per structure."""
    return fd.sample(plan, denoiser(plan.reads), x, key=key)
