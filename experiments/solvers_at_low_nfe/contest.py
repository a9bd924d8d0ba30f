"""The solvers that are compared, their plans, and what their samples are judged by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from cases import END, PROCESS, Case
from judge import Classifier

import fastdiff_jax as fd
from fastdiff_jax.models.data import digits_data

# ------------------------------------------------------------------------------- plans


def plan_for(build: Callable[[np.ndarray], Any], calls: int, nfe: int) -> Any:
    """The plan of most steps that spends at most `nfe` evaluations, or None."""
    for steps in range(nfe // calls + 1, 0, -1):
        try:
            plan = build(fd.grids.log_snr(PROCESS, steps, end=END))
        except ValueError:
            continue
        if plan.nfe <= nfe:
            return plan
    return None


def contestants() -> dict[str, tuple[Callable[[np.ndarray], Any], int]]:
    """Name -> (times -> plan, calls per step): the registry and a few variants.

    Without solvers that need data of their own and, as the error is that of the ODE's
    solution on the same noises, without those that draw noise.
    """
    found: dict[str, tuple[Callable[[np.ndarray], Any], int]] = {}

    def add(name: str, solver: str, **options: Any) -> None:
        entry = fd.solvers.SOLVERS[solver]
        found[name] = (lambda ts: entry.build(PROCESS, ts, **options), entry.calls)

    for solver, entry in fd.solvers.SOLVERS.items():
        if entry.needs or _draws(entry):
            continue
        if not entry.orders:
            add(solver, solver)
        for order in entry.orders:
            # order 1 is DDIM or Euler again; above 4 nothing is meant for 20 steps
            if 2 <= entry.order(order) and order <= 4:
                add(f"{solver}-{order}", solver, order=order)
    for whole in [k for k in found if k[:-2] in ("ghvb", "hb", "nt")]:
        del found[whole]  # without momentum it is equal-step Adams: `ipndm`
    for momentum in ("ghvb", "hb", "nt"):
        for order in (1.8, 2.8, 3.8):
            add(f"{momentum}-{order}", momentum, order=order)
    for order in (2, 3):
        add(f"unip-{order}", "unipc", order=order, corrector=False)
        add(f"unipc-{order}-noise", "unipc", order=order, prediction="noise")
        add(f"unip-{order}-noise", "unipc", order=order, prediction="noise",
            corrector=False)  # fmt: skip
    add("dpmpp_2m-noise", "dpmpp_2m", prediction="noise")
    return found


def _draws(entry: fd.solvers.Solver) -> bool:
    """Whether a solver's default draws noise, by a plan of it."""
    return entry.build(PROCESS, fd.grids.log_snr(PROCESS, 8, end=END)).stochastic


V3_VARIANTS: dict[str, dict[str, Any]] = {
    "v3-3": {"order": 3},
    "v3-3-pp": {"order": 3, "p_pseudo": True},
    "v3-3-half": {"order": 3, "half": True},
    "v3-3-pp-half": {"order": 3, "p_pseudo": True, "half": True},
    "v3-3-cp": {"order": 3, "c_pseudo": True},
    "v3-3-nocorr": {"order": 3, "corrector": False},
    "v3-2": {"order": 2},
    "v3-2-cp": {"order": 2, "c_pseudo": True},
    "v3-2-half": {"order": 2, "half": True},
    "v3-2-cp-half": {"order": 2, "c_pseudo": True, "half": True},
    "v3-2-nocorr": {"order": 2, "corrector": False},
}


# ---------------------------------------------------------------------------- measuring


class Judge:
    """Figures of a set of samples of one case."""

    def __init__(self, case: Case, reference: np.ndarray):
        self.case, self.reference = case, reference
        self.agreement = None
        if case.labels is not None:
            self.agreement = Classifier(digits_data()).agreement

    def __call__(self, samples: np.ndarray) -> dict[str, float | None]:
        """RMS per pixel to the reference, SVC agreement, share that diverged."""
        x = np.asarray(samples, np.float64)
        gap = ((x - self.reference) ** 2).reshape(len(x), -1).mean(1)
        out: dict[str, float | None] = {
            "rms": _round(np.sqrt(gap.mean())),
            "median": _round(np.sqrt(np.median(gap))),
            "outside": _round((np.abs(x).reshape(len(x), -1).max(1) > 2).mean()),
            "agreement": None,
        }
        if self.agreement is not None:
            out["agreement"] = _round(self.agreement(x, self.case.labels))
        return out


def _round(value: Any) -> float | None:
    """Four significant digits; None for a number that is not finite."""
    return float(f"{value:.4g}") if np.isfinite(value) else None


def reference(case: Case, s: dict[str, Any]) -> dict[str, np.ndarray]:
    """The same noises at 1000 evaluations by two solvers."""
    ts = fd.grids.log_snr(PROCESS, s["reference_steps"], end=END)
    plans = {
        "reference": fd.solvers.dpmpp_3m(PROCESS, ts),
        "unipc": fd.solvers.unipc(PROCESS, ts, order=3),
    }
    plans = dict(zip(plans, same_shape(list(plans.values())), strict=True))
    return {
        k: np.asarray(fd.sample(p, case.model, case.noise)) for k, p in plans.items()
    }


def same_shape(plans: list[Any]) -> list[Any]:
    """Plans of one structure, so that one compiled program runs all of them."""
    stacked = fd.plan.stack(plans)
    return [jax.tree.map(lambda w, i=i: w[i], stacked) for i in range(len(plans))]


def measure(
    name: str,
    plans: dict[int, Any],
    runner: Callable[[Any], Any],
    case: str,
    judge: Judge,
    spent: dict[int, int],
) -> list[dict[str, Any]]:
    """A record per NFE of one solver."""
    rows = []
    for nfe, plan in plans.items():
        samples = np.asarray(runner(plan))
        row = {"key": f"{case}|{name}|{nfe}", "case": case, "solver": name, "nfe": nfe}
        rows.append(row | {"spent": spent[nfe]} | judge(samples))
    return rows
