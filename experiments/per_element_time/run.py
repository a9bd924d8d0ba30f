#!/usr/bin/env python
"""Does a video lose accuracy when its frames run at times of their own?

    python experiments/per_element_time/run.py

Eight correlated Gaussian frames, whose exact joint denoiser at any set of noise levels
is known: the law of the samples is computed, not estimated. Writes result.json and
figure.png beside this file, in about a minute.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import fastdiff_jax as fd  # noqa: E402

# ---------------------------------------------------------------------------- settings
FRAMES = 8
CORRELATION = 0.9  # of neighbouring frames, AR(1)
MEAN = np.linspace(-1, 1, FRAMES)
STEPS = (10, 20, 40, 80, 160)
SHARES = (0.0, 0.1, 0.25, 0.5, 1.0)  # lag as a share of the steps; 1: autoregressive
LOW, HIGH = -3.0, 3.0  # half log-SNR

FAR = np.abs(np.subtract.outer(np.arange(FRAMES), np.arange(FRAMES)))
COVARIANCE = CORRELATION**FAR
PROCESS = fd.processes.vp_linear()


def law(level: fd.plan.Level) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the frames at their levels."""
    a, s = np.broadcast_to(level.alpha, FRAMES), np.broadcast_to(level.sigma, FRAMES)
    return a * MEAN, a[:, None] * COVARIANCE * a + np.diag(s**2)


def denoise(x: np.ndarray, level: fd.plan.Level) -> np.ndarray:
    """E[x_0 | x], every frame at its own level."""
    mean, total = law(level)
    gain = np.linalg.solve(total, (COVARIANCE * level.alpha).T)
    return MEAN + (x - mean) @ gain


def error(plan: fd.Plan) -> tuple[float, float]:
    """Error of the mean, and of the covariance relative to the true one (Frobenius)."""
    levels = [fd.plan.Level(*(w[i] for w in plan.rows.level)) for i in range(plan.nfe)]
    mean, covariance = law(levels[0])
    x = np.concatenate([mean[None], mean + np.eye(FRAMES)])
    base, *units = fd.plan.replay(plan, lambda y, i: denoise(y, levels[i]), x)
    gains = np.stack(units) - base
    want_mean, want = law(plan.end)
    off = gains.T @ covariance @ gains - want
    return float(np.abs(base - want_mean).max()), float(
        np.linalg.norm(off) / np.linalg.norm(want)
    )


def measure() -> list[dict]:
    """One line per way of building, lag and number of steps."""
    lines = []
    for share in SHARES:
        for steps in STEPS:
            lam = np.linspace(LOW, HIGH, steps + 1)
            base = PROCESS.half_log_snr_inverse(lam)
            lag = round(share * steps)
            ts = fd.grids.block_lagged(PROCESS, base, blocks=FRAMES, lag=lag)
            options = {"lower_order_final": False}
            solver = fd.solvers.dpmpp_2m
            for build, plan in (
                ("joined", fd.plan.per_element(solver, PROCESS, ts, **options)),
                ("direct", solver(PROCESS, ts, **options)),
            ):
                mean, covariance = error(plan)
                lines.append(
                    {
                        "build": build,
                        "share": share,
                        "steps": steps,
                        "nfe": plan.nfe,
                        "mean_error": mean,
                        "covariance_error": covariance,
                    }
                )
    return lines


def high_order() -> dict[str, list[float]]:
    """Errors at 40, 80, 160 steps of orders 3 and 4, from shrunk first steps on."""
    out = {}
    for order in (3, 4):
        for share in SHARES:
            found = []
            for steps in STEPS[-3:]:
                lam = LOW + (HIGH - LOW) * np.linspace(0, 1, steps + 1) ** 2
                base = PROCESS.half_log_snr_inverse(lam)
                lag = round(share * steps)
                ts = fd.grids.block_lagged(PROCESS, base, blocks=FRAMES, lag=lag)
                solver = fd.solvers.exp_adams
                plan = fd.plan.per_element(solver, PROCESS, ts, order=order)
                found.append(error(plan)[1])
            out[f"order {order}, lag {share:g} S"] = found
    return out


def curve(lines: list[dict], build: str, share: float) -> list[dict]:
    """The lines of one curve."""
    return [v for v in lines if v["build"] == build and v["share"] == share]


def slopes(lines: list[dict]) -> dict[str, dict[str, float]]:
    """Observed order between the last two numbers of steps."""
    out: dict[str, dict[str, float]] = {}
    for build in ("joined", "direct"):
        for share in SHARES:
            *_, a, b = (v["covariance_error"] for v in curve(lines, build, share))
            out.setdefault(build, {})[str(share)] = float(np.log2(a / b))
    return out


def draw(lines: list[dict], path: Path) -> None:
    """Error against steps per frame, and against evaluations."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4), sharey=True)
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(SHARES)))
    for ax, key in zip(axes, ("steps", "nfe"), strict=True):
        for share, colour in zip(SHARES, colours, strict=True):
            for build, style in (("joined", "o-"), ("direct", "x:")):
                found = curve(lines, build, share)
                label = f"lag {share:g} S" if build == "joined" else None
                ax.loglog(
                    [v[key] for v in found],
                    [v["covariance_error"] for v in found],
                    style,
                    color=colour,
                    label=label,
                    markersize=4,
                )
        ax.grid(alpha=0.3)
    axes[0].set(xlabel="steps per frame S", ylabel="relative error of the covariance")
    axes[1].set(xlabel="evaluations of the video model")
    axes[0].plot([], [], "k-", label="per_element")
    axes[0].plot([], [], "k:", label="solver given the same times")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measure, save, print."""
    lines = measure()
    found = {
        "settings": {
            "frames": FRAMES,
            "correlation": CORRELATION,
            "steps": STEPS,
            "shares": SHARES,
            "half_log_snr": (LOW, HIGH),
            "solver": "dpmpp_2m",
        },
        "slopes": slopes(lines),
        "exp_adams_errors_at_40_80_160": high_order(),
        "lines": lines,
    }
    (HERE / "result.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(lines, HERE / "figure.png")
    for build, each in found["slopes"].items():
        print(build, {k: round(v, 2) for k, v in each.items()})
    for name, errors in found["exp_adams_errors_at_40_80_160"].items():
        slope = np.log2(np.divide(errors[:-1], errors[1:])).round(2).tolist()
        print(name, [float(f"{e:.2e}") for e in errors], slope)


if __name__ == "__main__":
    main()
