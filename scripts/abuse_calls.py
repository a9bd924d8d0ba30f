"""A good call of every public function, for `scripts/abuse` to spoil."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fastdiff_jax as fd

HERE = Path(tempfile.mkdtemp(prefix="abuse-"))

VP, FLOW = fd.processes.vp_linear(), fd.processes.flow()
TS = np.array([0.9, 0.6, 0.3, 0.1])
KEY, X = jax.random.key(0), jnp.ones((2, 3))
MODEL = fd.models.gaussian(mean=0.5, variance=1.0)
PLAN, NOISY = fd.solvers.ddim(VP, TS), fd.solvers.ddpm(VP, TS)
LV = fd.plan.levels(VP, TS)


def velocity(x: Any, *_: Any) -> Any:
    """A network."""
    return 0 * x


def restored(x: Any, y: Any, *_: Any) -> Any:
    """A network that is told the degraded input."""
    return 0 * x + y


def ones(t: Any) -> Any:
    """A drift of one channel."""
    return np.ones((len(t), 1, 1))


@functools.cache
def path() -> Any:
    """A recorded path of a noisy plan."""
    return fd.policy.rollout(NOISY, MODEL, X, key=KEY).path


@functools.cache
def paired() -> Any:
    """The path between two ends."""
    return fd.processes.interpolant(scale=0.5)


@functools.cache
def config() -> dict:
    """A published config."""
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": 20,
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "beta_schedule": "linear",
    }


@functools.cache
def statistics() -> Any:
    """Statistics of a network."""
    return fd.tune.ems.from_arrays(-3.2, 3.2, *np.zeros((3, 30)))


@functools.cache
def saved(kind: str) -> Path:
    """A file that can be read."""
    to = HERE / f"good.{kind}"
    if kind == "json":
        fd.plan.save(PLAN, to)
    else:
        fd.tune.ems.save(statistics(), to)
    return to


@functools.cache
def cloud() -> Any:
    """A Gaussian of data."""
    return fd.starts.fit_gaussian(np.eye(4, 3))


@functools.cache
def brownian() -> Any:
    """A Brownian path."""
    return fd.continuous.brownian(VP, KEY, X)


GOOD: dict[str, Any] = {
    "process": VP,
    "ts": TS,
    "times": TS,
    "base": TS,
    "steps": 4,
    "plan": PLAN,
    "known": PLAN,
    "plans": [PLAN, PLAN],
    "denoiser": MODEL,
    "x": X,
    "y": X,
    "like": X,
    "key": KEY,
    "row": 0,
    "shape": (2, 3),
    "fn": velocity,
    "prediction": "noise",
    "variance": 1.0,
    "axis": 0,
    "ndim": 2,
    "name": "unipc",
    "level": LV.starts,
    "end": LV.end,
    "lv": LV,
    "build": fd.solvers.ddim,
    "solver": fd.solvers.ddim,
    "mean": 0.5,
    "data": np.arange(12.0).reshape(4, 3),
    "text": fd.plan.to_json(PLAN),
}
"""By name of the parameter; only where the function has no default."""

CHAIN = fd.processes.vp_discrete(steps=50)
MR, RDDM = fd.processes.mean_reverting(), fd.processes.rddm(10)
SB, OUVE = fd.processes.sb_ve(), fd.processes.ouve()
LOSSES = jnp.zeros((3, 2))
KEEP = LV.sigma[1:] / LV.sigma[:-1]
STEP = LV.alpha[1:] - KEEP * LV.alpha[:-1]
LEG = fd.plan.Leg(LV.starts, np.ones(3), (np.ones(3),))

OWN: dict[str, Callable[[], dict[str, Any]]] = {
    "engine.init": lambda: {"plan": NOISY},
    "engine.run": lambda: {"state": fd.init(PLAN, X)},
    "engine.step": lambda: {"state": fd.init(PLAN, X), "row": row_of(PLAN)},
    "grids.align": lambda: {"ts": np.stack([TS, TS], 1), "ndim": 3, "axis": 1},
    "grids.block_lagged": lambda: {"blocks": 2, "lag": 1},
    "grids.pyramid": lambda: {"frames": 2},
    "grids.fopp": lambda: {
        **{"rng": np.random.default_rng(0), "levels": 4, "frames": 2, "samples": 3}
    },
    "grids.flow_shift": lambda: {"process": FLOW},
    "grids.from_sigmas": lambda: {"sigmas": [2.0, 1.0, 0.0]},
    "grids.known_prefix": lambda: {"ts": np.stack([TS, TS], 1), "known": 1},
    "grids.leading": lambda: {"process": CHAIN},
    "grids.linspace": lambda: {"process": CHAIN},
    "grids.trailing": lambda: {"process": CHAIN},
    "grids.per_modality": lambda: {"roles": {"a": "sample", "b": 0.5}},
    "guidance.cfg": lambda: {"condition": jnp.ones(2), "null": jnp.zeros(2)},
    "guidance.classifier": lambda: {"log_prob": lambda x, *_: -(x**2).sum(1)},
    "models.gaussian_mixture": lambda: {
        **{"weights": [0.5, 0.5], "means": [[-1.0], [1.0]], "variances": 0.1}
    },
    "models.gaussian_ends": lambda: {
        **{"process": paired(), "means": [2.0, -1.0], "variances": [0.5, 1.0]}
    },
    "models.from_velocity": lambda: {"process": paired()},
    "models.from_nnx": lambda: {"module": dense(), "prediction": "data"},
    "models.from_flax": lambda: {"module": dense(), "prediction": "data"},
    "models.from_linen": lambda: linen(),
    "models.giving": lambda: {"names": ("data",)},
    "moves.inpaint": lambda: {"known": [0.5, 0.0], "mask": [1, 0]},
    "moves.colourise": lambda: {"grey": np.zeros((4, 4, 1))},
    "moves.linear_part": lambda: {"known": [0.3], "rows": [[0.6, 0.8]]},
    "moves.chain": lambda: {"moves": (fd.moves.langevin(),)},
    "noise.ou_path": lambda: {"plan": NOISY},
    "plan.basis_of": lambda: {"kind": "noise"},
    "plan.between": lambda: {"rows": np.arange(3), "lam": LV.lam[1:]},
    "plan.build": lambda: {"writes": [(0, fd.plan.register(0))]},
    "plan.corrected": lambda: {
        **{"keep": KEEP, "predict": STEP[:, None], "steps": np.arange(3) < 2},
        "correct": np.stack([STEP, STEP], 1) / 2,
    },
    "plan.multistep": lambda: {"keep": KEEP, "weights": STEP[:, None]},
    "plan.replay": lambda: {"predict": lambda x, _: 0 * x, "x": np.ones(3)},
    "plan.walk": lambda: {"predict": lambda x, _: 0 * x, "x": np.ones(3)},
    "plan.self_check": lambda: {"basis": "data"},
    "plan.ends_step": lambda: {"rows": PLAN.rows},
    "plan.per_element": lambda: {"ts": np.stack([TS, TS], 1)},
    "plan.register": lambda: {"k": 0},
    "plan.load": lambda: {"path": saved("json")},
    "plan.save": lambda: {"path": HERE / "made.json"},
    "plan.stages": lambda: {"groups": [(np.arange(3), [LEG])]},
    "policy.log_prob": lambda: {"plan": NOISY, "path": path()},
    "policy.noise_of": lambda: {"plan": NOISY, "path": path()},
    "policy.rollout": lambda: {"plan": NOISY},
    "policy.ppo_loss": lambda: {"new": LOSSES, "old": LOSSES, "advantage": jnp.ones(2)},
    "policy.ratio": lambda: {"new": LOSSES, "old": LOSSES},
    "policy.window": lambda: {"first": 1, "width": 2, "tau2": 0.5},
    "policy.window_at": lambda: {"iteration": 3, "steps": 25},
    "processes.tabulated": lambda: {"alpha": [0.9, 0.5], "sigma": [0.1, 0.8]},
    "solvers.bespoke": lambda: linear_table(fd.solvers.euler, FLOW, "velocity"),
    "solvers.olss": lambda: linear_table(fd.solvers.dpmpp_2m, VP),
    "solvers.unroll": lambda: {"known": fd.solvers.dpmpp_2m(VP, TS)},
    "solvers.usf": lambda: {"schedule": fd.solvers.usf_schedule(TS)},
    "solvers.repair": lambda: {"schedule": fd.solvers.usf_schedule(TS)},
    "solvers.dpm_solver_v3": lambda: {
        **{"statistics": statistics(), "ts": [0.7, 0.6, 0.3, 0.1]}
    },
    "solvers.flow_grpo": lambda: {"process": FLOW},
    "solvers.two_endpoint": lambda: {"process": SB},
    "solvers.residual_noise": lambda: {"process": RDDM, "ts": [9.0, 5.0, 2.0]},
    "solvers.interpolant": lambda: {"process": paired()},
    "solvers.tau2_from_diffusion": lambda: {"process": FLOW, "eps": 0.1},
    "starts.centre_of": lambda: {"process": MR},
    "starts.first_state": lambda: {"process": MR},
    "starts.jump": lambda: {"gaussian": cloud()},
    "starts.teleport": lambda: {"gaussian": cloud(), "t_from": 0.9, "t_to": 0.5},
    "transforms.dual_fast_schedule": lambda: {"rows": 4, "coefficient": 0.5},
    "transforms.stitch": lambda: {"models": [MODEL, MODEL]},
    "transforms.stitch_schedule": lambda: {"ratios": 0.5},
    "transforms.time_shift": lambda: {"window": 0.03, "cutoff": 0.3},
    "transforms.velocity_refiner": lambda: {"refiner": velocity, "process": FLOW},
    "analysis.fit_order": lambda: {
        **{"steps": np.array([10, 20, 40]), "errors": np.array([1.0, 0.5, 0.25])}
    },
    "analysis.guidance_growth": lambda: {"scale": 2.0},
    "analysis.measured_order": lambda: {"steps": (10, 20, 40)},
    "analysis.measured_weak_order": lambda: {
        **{"build": fd.solvers.ddpm, "steps": (5, 10)}
    },
    "analysis.posterior_slope": lambda: {"alpha": 0.8, "sigma": 0.6},
    "augmented.denoiser": lambda: {"prediction": "score"},
    "augmented.gaussian": lambda: {"mean": [1.0, 0.0], "covariance": np.eye(2)},
    "augmented.gddim": lambda: {"process": fd.augmented.cld()},
    "augmented.lift": lambda: {"inner": MODEL},
    "augmented.linear_sde": lambda: {"drift": ones, "diffusion": ones},
    "augmented.markov_approximation": lambda: {"hurst": 0.7},
    "augmented.prior": lambda: {"process": fd.augmented.cld(), "shape": (5, 2, 3)},
    "continuous.adjoint_run": lambda: {"made": fd.continuous.adjoint_plan(VP, TS)},
    "continuous.bits_per_dim": lambda: {"log_prob": np.zeros(2)},
    "continuous.driven_term": lambda: {
        **{"rate": jnp.cos, "integral": jnp.sin, "inverse": jnp.arcsin},
        "vector_field": lambda _t, y, _args: y,
    },
    "continuous.reverse_sde": lambda: {"control": brownian()},
    "continuous.dpm_solver_adaptive": lambda: {"rtol": 0.5, "atol": 0.5},
    "continuous.log_likelihood": lambda: {"steps": 2},
    "interop.from_scheduler_config": lambda: {"config": config(), "steps": 3},
    "interop.read": lambda: {"config": config()},
    "models.digits.check_labels": lambda: {"labels": [1, 2]},
    "models.digits.load": lambda: {},
    "reports.plots.plot_analysis": lambda: {
        "reports": {"ddim": fd.analysis.report(PLAN, VP)},
        "path": HERE / "made.png",
    },
    "restore.centred": lambda: {"process": MR},
    "restore.denoiser": lambda: {"fn": restored, "process": MR, "prediction": "data"},
    "restore.first_state": lambda: {"process": MR},
    "restore.mr_sampler": lambda: {"process": MR, "ts": None},
    "restore.rddm": lambda: {"process": RDDM},
    "restore.rddm_times": lambda: {"process": RDDM},
    "restore.residual_model": lambda: {"fn": restored, "process": RDDM},
    "restore.resfusion": lambda: {"process": fd.processes.resfusion(), "ts": None},
    "restore.resnoise_denoiser": lambda: {
        **{"fn": restored, "process": fd.processes.resfusion()}
    },
    "restore.resshift": lambda: {"process": fd.processes.resshift(), "ts": None},
    "restore.sample": lambda: {
        **{"plan": fd.restore.mr_sampler(MR, [100.0, 50.0, 1.0]), "process": MR}
    },
    "restore.sb_ve": lambda: {"process": SB, "ts": None},
    "restore.sgmse": lambda: {"process": OUVE},
    "restore.steps": lambda: {"process": MR},
    "tune.dc_ratios.fit_cascade": lambda: {
        "table": [(7.5, [1, 1, 0.9, 0.8]), (7.5, [1, 1, 0.9, 0.8, 0.7])]
    },
    "tune.dc_ratios.predict_ratios": lambda: {"theta": cascade()},
    "tune.dc_ratios.reference": lambda: {"refine": 2, "solver": fd.solvers.ddim},
    "tune.dc_ratios.search": lambda: {"target": targets(), "iterations": 1},
    "tune.ems.degenerated": lambda: {"nodes": 5},
    "tune.ems.estimate": lambda: {"nodes": 4},
    "tune.ems.from_arrays": lambda: {
        **{"low": -3.0, "high": 3.0, "l": np.zeros(4), "s": np.zeros(4)},
        "b": np.zeros(4),
    },
    "tune.ems.load": lambda: {"path": saved("npz")},
    "tune.ems.save": lambda: {"statistics": statistics(), "path": HERE / "made.npz"},
}
"""By function: beside or instead of GOOD."""


def row_of(plan: Any) -> Any:
    """The first row of a plan."""
    return jax.tree.map(lambda v: v[0], plan.rows)


def linear_table(build: Any, process: Any, prediction: str = "noise") -> dict:
    """What a plan unrolls to."""
    unrolled = fd.solvers.unroll(build(process, TS), process, prediction=prediction)
    names = ("process", "ts", "state", "weights")
    return dict(zip(names, (process, *unrolled), strict=True))


@functools.cache
def dense() -> Any:
    """A flax module."""
    from flax import nnx

    return nnx.Linear(3, 3, rngs=nnx.Rngs(0))


def linen() -> dict:
    """A linen module and its variables."""
    from flax import linen as nn

    module = nn.Dense(3)
    return {
        "module": module,
        "variables": module.init(KEY, X),
        "prediction": "data",
    }


@functools.cache
def cascade() -> Any:
    """Coefficients of a cascade."""
    return fd.tune.dc_ratios.fit_cascade(OWN["tune.dc_ratios.fit_cascade"]()["table"])


@functools.cache
def targets() -> Any:
    """States at the times of a plan."""
    return fd.tune.dc_ratios.reference(
        MODEL, VP, TS, X, refine=2, solver=fd.solvers.ddim
    )
