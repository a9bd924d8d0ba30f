"""The published library's own grids: levels, network labels and their quirks.

Each grid follows its scheduler class, in float64: which labels or levels it picks, how
it rounds or truncates what the network is told, and which last level it appends.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from .. import processes
from ..typing import Process
from ._schedules import bend, kind, spaced, table, to_label, trained

__all__ = [
    "Grid",
    "diffusion",
    "exploding",
    "flow",
    "from_the_top",
    "karras",
    "multistep",
    "sine",
    "unipc",
]

Settings = dict[str, Any]
REPEATING = (
    "DEISMultistepScheduler",
    "SASolverScheduler",
)  # a bent grid's lowest level


class Grid(NamedTuple):
    """A scheduler's grid.

    Attributes:
        process: the path, in the coordinates that the scheduler integrates.
        ts: times of the levels, (N + 1,).
        labels: what the network is told at each level but the last, (N,).
        initial: the library's `init_noise_sigma`.
        lands: times at which the steps end, (N,), where the library's differ from the
            next level; else None.
    """

    process: Process
    ts: np.ndarray
    labels: np.ndarray
    initial: float = 1.0
    lands: np.ndarray | None = None


def _at(path: Process, rho: np.ndarray, labels: np.ndarray, last: str) -> Grid:
    """From levels rho; the last is zero, the lowest trained one, or a repeat."""
    times = path.half_log_snr_inverse(-np.log(rho))
    times = np.where(rho == table(path)[0], 0.0, times)  # the level of label 0
    ends = {"zero": path.clean, "sigma_min": 0.0, "repeat": times[-1]}
    return Grid(path, np.append(times, ends[last]), labels)


def _flow(settings: Settings, sigma: np.ndarray, last: float) -> Grid:
    """A flow grid whose labels are truncated."""
    count = settings["num_train_timesteps"]
    process = processes.flow(float(count))
    return Grid(process, np.append(sigma, last), np.trunc(sigma * count))


def multistep(name: str, settings: Settings, steps: int, options: Settings) -> Grid:
    """DPM-Solver (both classes), DEIS and SA-Solver."""
    path = trained(settings)
    known, curve = table(path), kind(settings)
    ends = settings.get("final_sigmas_type", "sigma_min")
    zero, repeats = ends == "zero", name in REPEATING
    if settings["use_flow_sigmas"]:
        count, mu = settings["num_train_timesteps"], options.get("mu")
        g = settings["flow_shift"] if mu is None else math.exp(mu)
        sigma = 1.0 - np.linspace(1, 1 / count, steps + 1)
        sigma = np.flip(g * sigma / (1 + (g - 1) * sigma))[:-1]
        # the DPM classes end at the trained path's lowest rho, read as a flow time
        low = sigma[-1] if repeats else 0.0 if zero else known[0]
        return _flow(settings, sigma, low)
    if curve is not None:
        rho = bend(curve, known[0], known[-1], steps)
        labels = to_label(rho, known)
        keeps = name == "DPMSolverMultistepScheduler"
        keeps = keeps and settings["beta_schedule"] == "squaredcos_cap_v2"
        if curve in ("karras", "lu") and not keeps:
            labels = np.round(labels)
        return _at(path, rho, np.trunc(labels), "repeat" if repeats else ends)
    labels = options.get("timesteps")
    if labels is None:
        low = settings.get("lambda_min_clipped", -math.inf)
        last = len(known) - int((-np.log(known) < low).sum())
        labels = np.round(spaced(settings, steps, last, 1))
    labels = np.asarray(labels, np.float64)
    return Grid(path, np.append(labels, path.clean if zero else 0.0), labels)


def unipc(name: str, settings: Settings, steps: int, options: Settings) -> Grid:
    """UniPC: where the last level is not zero, curves and flows repeat the lowest."""
    del name
    path = trained(settings)
    known, curve = table(path), kind(settings)
    count, zero = settings["num_train_timesteps"], settings["final_sigmas_type"]
    zero = zero == "zero"
    if curve is not None:
        low, high = settings["sigma_min"], settings["sigma_max"]
        low, high = low or known[0], high or known[-1]
        rho = bend(curve, low, high, steps)
        if settings["use_flow_sigmas"]:
            sigma = rho / (rho + 1)
            return _flow(settings, sigma, 0.0 if zero else sigma[-1])
        labels = to_label(rho, known)
        labels = np.round(labels) if curve == "karras" else np.trunc(labels)
        return _at(path, rho, labels, "zero" if zero else "repeat")
    if settings["use_flow_sigmas"]:
        sigma = options.get("sigmas")
        if sigma is None:
            sigma = np.linspace(1, 1 / count, steps + 1)[:-1]
        sigma = _shifted(np.asarray(sigma, np.float64), settings, options)
        if abs(sigma[0] - 1) < 1e-6:  # so that the library's log-SNR is finite
            sigma[0] -= 1e-6
        return _flow(settings, sigma, 0.0 if zero else sigma[-1])
    labels = np.round(spaced(settings, steps, count, 1))
    return Grid(path, np.append(labels, path.clean if zero else 0.0), labels)


def _shifted(sigma: np.ndarray, settings: Settings, options: Settings) -> np.ndarray:
    """Static or dynamic flow shift, then the stretch to `shift_terminal`."""
    g = settings["shift"] if "shift" in settings else settings["flow_shift"]
    if settings.get("use_dynamic_shifting"):
        mu = options["mu"]
        g = mu if settings["time_shift_type"] == "linear" else math.exp(mu)
        with np.errstate(divide="ignore"):
            sigma = g / (g + (1 / sigma - 1))
    else:
        sigma = g * sigma / (1 + (g - 1) * sigma)
    terminal = settings.get("shift_terminal")
    if terminal is None:
        return sigma
    rest = 1 - sigma
    return 1 - rest / (rest[-1] / (1 - terminal))


def exploding(name: str, settings: Settings, steps: int, options: Settings) -> Grid:
    """Euler (both classes), Heun, LMS, KDPM2: they integrate x / alpha, time = rho."""
    path = trained(settings)
    known, curve = table(path), kind(settings)
    last = known[0] if settings.get("final_sigmas_type") == "sigma_min" else 0.0
    if options.get("sigmas") is not None:
        levels = np.asarray(options["sigmas"], np.float64)
        rho, last = levels[:-1], levels[-1]
        labels = to_label(rho, known)
    else:
        labels = options.get("timesteps")
        if labels is None:
            labels = spaced(settings, steps, settings["num_train_timesteps"])
        labels = np.asarray(labels, np.float64)
        rho = np.interp(labels, np.arange(len(known)), known)
        if settings.get("interpolation_type") == "log_linear":
            rho = bend("exponential", known[0], known[-1], steps + 1)
        if curve is not None:
            low, high = settings.get("sigma_min"), settings.get("sigma_max")
            rho = bend(curve, low or rho[-1], high or rho[0], steps)
            labels = to_label(rho, known)
            if name.startswith("KDPM2") and curve == "karras":
                labels = np.round(labels)
    if settings.get("timestep_type") == "continuous":
        if settings["prediction_type"] == "v_prediction":
            labels = 0.25 * np.log(rho)
    if len(rho) > len(labels):  # log_linear: the last level is never stepped to
        rho, last = rho[:-1], rho[-1]
    leading = settings["timestep_spacing"] == "leading"
    initial = math.hypot(rho[0], 1.0) if leading else float(rho[0])
    process = processes.edm(float(known[0]), float(known[-1]))
    return Grid(process, np.append(rho, last), labels, initial)


def karras(name: str, settings: Settings, steps: int, options: Settings) -> Grid:
    """EDM's classes: the network is told log(sigma) / 4, or 2 atan(sigma) / pi."""
    del options
    low, high = settings["sigma_min"], settings["sigma_max"]
    sigma = bend(settings["sigma_schedule"], low, high, steps, settings["rho"])
    zero = settings["final_sigmas_type"] == "zero"
    last = sigma[-1] if name == "EDMEulerScheduler" else low
    sigma = np.append(sigma, 0.0 if zero else min(last, sigma[-1]))
    process = processes.edm(float(low), float(high))
    labels = np.log(sigma[:-1]) / 4
    if name.startswith("Cosine"):
        labels = np.arctan(sigma[:-1]) * 2 / math.pi
    return Grid(process, sigma, labels, math.hypot(high, 1.0))


def diffusion(name: str, settings: Settings, steps: int, options: Settings) -> Grid:
    """DDIM, DDPM, PNDM and CogVideoX: whole labels.

    DDIM and PNDM step down by T // N from wherever they are, which is the next label
    only if the labels are spaced so; `lands` says where they do arrive.
    """
    path = trained(settings, exact=True)  # PNDM has no such setting
    count = settings["num_train_timesteps"]
    if steps > count:
        raise ValueError(f"{name} takes at most {count} steps, got {steps}.")
    labels = options.get("timesteps")
    if labels is None:
        labels = np.round(spaced(settings, steps, count))
    labels = np.asarray(labels, np.float64)
    if name == "DDPMScheduler":
        return Grid(path, np.append(labels, path.clean), labels)
    lands = labels - count // steps
    final = path.clean if settings["set_alpha_to_one"] else 0.0
    lands = np.where(lands < 0, final, lands)
    ts = np.append(labels, lands[-1])
    same = np.array_equal(lands, ts[1:])
    return Grid(path, ts, labels, lands=None if same else lands)


def from_the_top(name: str, settings: Settings, steps: int, options: Settings) -> Grid:
    """The flax Euler: 'linspace' labels from the noise down, also where it is one."""
    if steps == 1 and settings["timestep_spacing"] == "linspace":
        options = {**options, "timesteps": [settings["num_train_timesteps"] - 1]}
    return exploding(name, settings, steps, options)


def sine(name: str, settings: Settings, steps: int, options: Settings) -> Grid:
    """IPNDM: sigma = sin^2(pi s / 2) for s from 1 to 0, or `trained_betas` as sigma."""
    del name, options
    sigma = settings["trained_betas"]
    if sigma is None:
        sigma = np.sin(np.linspace(1, 0, steps + 1) * math.pi / 2) ** 2
    sigma = np.asarray(sigma, np.float64)
    if len(sigma) != steps + 1:
        raise ValueError(
            f"trained_betas are IPNDM's noise levels: {steps} steps need {steps + 1} "
            f"of them, got {len(sigma)}. Use null for its own schedule."
        )
    alpha = np.sqrt((1 - sigma) * (1 + sigma))
    process = processes.tabulated(alpha, sigma)
    labels = np.arctan2(sigma, alpha)[:-1] * 2 / math.pi
    return Grid(process, np.arange(steps + 1.0)[::-1], labels)


def flow(name: str, settings: Settings, steps: int, options: Settings) -> Grid:
    """FlowMatchEuler and -Heun: given only a step count, the shift acts twice."""
    del name
    count, g = settings["num_train_timesteps"], settings["shift"]
    sigma, labels = options.get("sigmas"), options.get("timesteps")
    own = labels  # told as they are, while the levels are shifted
    if sigma is None and labels is None:
        low = 1 / count  # the ends are shifted once already when the class is made
        once = g if not settings.get("use_dynamic_shifting") else 1.0
        low = once * low / (1 + (once - 1) * low)
        labels = np.linspace(1.0 * count, low * count, steps)
    if sigma is None:
        sigma = np.asarray(labels, np.float64) / count
    sigma = _shifted(np.asarray(sigma, np.float64), settings, options)
    curve = kind(settings)
    if curve is not None:
        if not sigma[-1] > 0:
            raise ValueError(
                f"use_{curve}_sigmas=true needs a last level above 0, got "
                f"{sigma[-1]:g}. Leave the 0 out: the last step ends there anyway."
            )
        sigma = bend(curve, sigma[-1], sigma[0], steps)
    process = processes.flow(float(count))
    turned = settings.get("invert_sigmas")  # the library then counts 1 - sigma
    told = (1 - sigma if turned else sigma) * count
    told = told if own is None or turned else np.asarray(own, np.float64)
    return Grid(process, np.append(sigma, 0.0), told)
