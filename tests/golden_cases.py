"""From a golden case's own specification to a plan of this library.

A case names an oracle, its sampler and the oracle's options, and lists the levels of
its grid. `build` maps that to one of our solvers; what has no solver yet raises NotYet.
"""

import functools
import importlib
import json
import os
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np

import fastdiff_jax as fd
from fastdiff_jax.processes import VPLinear

FOLDER = Path(
    os.environ.get("FASTDIFF_GOLDEN")
    or Path(__file__).parents[1] / ".." / "shared" / "golden"
).resolve()


class NotYet(Exception):
    """The case needs a sampler or an option that is not in the library yet."""


class Golden:
    """The folder's cases and arrays."""

    def __init__(self, folder: Path):
        self.spec = json.loads((folder / "cases.json").read_text())
        self.data = np.load(folder / "arrays.npz")["data"]

    def get(self, ref: list) -> np.ndarray:
        offset, shape = ref
        return self.data[offset : offset + int(np.prod(shape))].reshape(shape)

    def arrays(self, case: dict) -> dict[str, np.ndarray]:
        return {k: self.get(v) for k, v in case["arrays"].items()}

    def options(self, case: dict) -> dict[str, Any]:
        """The oracle's defaults under the case's own options."""
        defaults = self.spec.get("option_defaults", {}).get(case["sampler"], {})
        return {**defaults, **case["options"]}


def path(case: dict, arrays: dict) -> tuple[Any, np.ndarray]:
    """A process known at the case's levels, and its times."""
    process = fd.processes.tabulated(arrays["grid_alpha"], arrays["grid_sigma"])
    return process, np.arange(len(arrays["grid_alpha"]))[::-1].astype(float)


def continuous(case: dict, arrays: dict) -> tuple[Any, np.ndarray]:
    """A process with a clock of its own, and the case's levels in it."""
    sigma = arrays["grid_sigma"]
    if case["state_space"] == "flow":
        return fd.processes.flow(), sigma
    if case["state_space"] == "ve":
        return fd.processes.edm(), sigma
    if case["process"] == "vp_linear":
        process = fd.processes.vp_linear()
        with np.errstate(divide="ignore"):
            lam = np.log(arrays["grid_alpha"]) - np.log(sigma)
        return process, process.half_log_snr_inverse(lam)
    raise NotYet("no continuous clock for this process")


class VPClock:
    """alpha = 1 with the clock of a VP-linear path: sigma^2 = e^{b t^2 / 2 + a t} - 1.

    a and b put sigma_min at t = 1e-3 and sigma_max at t = 1 (diff-sampler).
    """

    domain = (0.0, 1.0)

    def __init__(self, sigma_max: float, sigma_min: float):
        top, low = np.log1p(sigma_max**2), np.log1p(sigma_min**2)
        span = 2 * (low / 1e-3 - top) / (1e-3 - 1)
        low_rate = top - span / 2
        # not vp_linear(): beta may be slightly negative at t = 0 here
        self.vp = VPLinear(low_rate, low_rate + span)

    def times(self, sigma):
        return self.vp.half_log_snr_inverse(-np.log(sigma))

    def alpha(self, t):
        return np.ones_like(np.asarray(t, float))

    def sigma(self, t):
        return np.exp(-self.vp.half_log_snr(t))

    def rates(self, t):
        alpha, sigma = self.vp.alpha(t), self.vp.sigma(t)
        d_alpha, d_sigma = self.vp.rates(t)
        return np.zeros_like(t), (d_sigma * alpha - sigma * d_alpha) / alpha**2

    def half_log_snr(self, t):
        return self.vp.half_log_snr(t)

    def half_log_snr_inverse(self, lam):
        return self.vp.half_log_snr_inverse(lam)


def refuse(options: dict, *names: str) -> None:
    for name in names:
        if options.get(name):
            raise NotYet(f"option {name}")


def steps(arrays: dict) -> int:
    return len(arrays["grid_alpha"]) - 1


@functools.cache
def families() -> dict[str, Any]:
    """FAMILIES of every module in tests/parity: golden family -> builder."""
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent / "parity")]):
        part = importlib.import_module(f".parity.{module.name}", __package__)
        found.update(part.FAMILIES)
    return found


@functools.cache
def direct_families() -> dict[str, Any]:
    """FAMILIES_DIRECT of those modules: what is not a plan, run by the module."""
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent / "parity")]):
        part = importlib.import_module(f".parity.{module.name}", __package__)
        found.update(getattr(part, "FAMILIES_DIRECT", {}))
    return found


@functools.cache
def noise_rows() -> dict[str, Any]:
    """NOISE_ROWS of those modules: (case, plan) -> the bank's draw of each row."""
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent / "parity")]):
        part = importlib.import_module(f".parity.{module.name}", __package__)
        found.update(getattr(part, "NOISE_ROWS", {}))
    return found


def build(case: dict, options: dict, arrays: dict) -> fd.Plan:
    """The plan of a case.

    Raises:
        NotYet: no solver of this library for it yet.
    """
    known = families()
    if case["family"] not in known:
        raise NotYet(f"family {case['family']}")
    return known[case["family"]](case, options, arrays)


def threshold(options: dict, case: dict) -> tuple[float, float, float] | None:
    """(quantile, floor, ceiling) of dynamic thresholding, or None."""
    if case["oracle"] == "diff-sampler" and options.get("no_threshold") is False:
        return 0.995, 1.0, np.inf
    found = options.get("thresholding")
    if isinstance(found, list):
        return found[0], found[1], np.inf
    if found:
        return (
            options["dynamic_thresholding_ratio"],
            1.0,
            options["sample_max_value"],
        )
    return None
