#!/usr/bin/env python
"""Does a video lose accuracy when its frames run at times of their own?

    python experiments/per_element_time/run.py [--quick]

Eight correlated Gaussian frames, whose exact joint denoiser at any set of noise levels
is known: the law of the samples is computed, not estimated. Writes result.json and
figure.png beside this file, in about a minute.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import runner  # noqa: E402

import fastdiff_jax as fd  # noqa: E402

# ---------------------------------------------------------------------------- settings
SETTINGS: dict[str, Any] = {
    "steps": (10, 20, 40, 80, 160),
    "shares": (0.0, 0.1, 0.25, 0.5, 1.0),  # lag over steps; 1: autoregressive
}
QUICK = {"steps": (10, 20, 40), "shares": (0.0, 0.5)}
FRAMES = 8
CORRELATION = 0.9  # of neighbouring frames, AR(1)
MEAN = np.linspace(-1, 1, FRAMES)
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


def measure(share: float, steps: int) -> list[dict]:
    """One line per way of building."""
    lines = []
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


def high_order(order: int, share: float, steps: int) -> float:
    """The error of order 3 or 4, from shrunk first steps on."""
    lam = LOW + (HIGH - LOW) * np.linspace(0, 1, steps + 1) ** 2
    base = PROCESS.half_log_snr_inverse(lam)
    lag = round(share * steps)
    ts = fd.grids.block_lagged(PROCESS, base, blocks=FRAMES, lag=lag)
    solver = fd.solvers.exp_adams
    return error(fd.plan.per_element(solver, PROCESS, ts, order=order))[1]


def high_orders(run: runner.Run) -> dict[str, list[float]]:
    """Errors at the last three numbers of steps, orders 3 and 4."""
    s, out = run.settings, {}
    cases = [(order, share) for order in (3, 4) for share in s.shares]
    for order, share in run.track(cases, "exp_adams, order and lag: {}".format):
        out[f"order {order}, lag {share:g} S"] = [
            run.store.once(
                f"order {order}, lag {share:g}, {n} steps",
                lambda order=order, share=share, n=n: high_order(order, share, n),
            )
            for n in s.steps[-3:]
        ]
    return out


def curve(lines: list[dict], build: str, share: float) -> list[dict]:
    """The lines of one curve."""
    return [v for v in lines if v["build"] == build and v["share"] == share]


def slopes(lines: list[dict], s: SimpleNamespace) -> dict[str, dict[str, float]]:
    """Observed order between the last two numbers of steps."""
    out: dict[str, dict[str, float]] = {}
    for build in ("joined", "direct"):
        for share in s.shares:
            *_, a, b = (v["covariance_error"] for v in curve(lines, build, share))
            out.setdefault(build, {})[str(share)] = float(np.log2(a / b))
    return out


def figure(result: dict, run: runner.Run) -> Any:
    """Error against steps per frame, and against evaluations."""
    del run
    plt, lines = runner.pyplot(), result["lines"]
    steps, shares = (sorted({v[k] for v in lines}) for k in ("steps", "share"))
    drawn, axes = plt.subplots(
        1, 2, figsize=(10, 4.2), sharey=True, layout="constrained"
    )
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(shares)))
    for ax, key in zip(axes, ("steps", "nfe"), strict=True):
        for share, colour in zip(shares, colours, strict=True):
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
    runner.whole_ticks(axes[0], steps)
    axes[1].set(xlabel="evaluations of the video model")
    runner.whole_ticks(axes[1], (10, 20, 50, 100, 200, 500, 1000))
    most = max(v["nfe"] for v in lines)
    axes[1].set_xlim(8, 1.2 * most)
    axes[0].plot([], [], "ko-", markersize=4, label="per_element")
    axes[0].plot([], [], "kx:", markersize=4, label="solver given the same times")
    axes[0].legend()
    return drawn


def main() -> None:
    """Measure what is missing, then write result.json and figure.png."""
    run = runner.start(__doc__, __file__, SETTINGS, QUICK, figure)
    s, lines = run.settings, []
    cases = [(share, n) for share in s.shares for n in s.steps]
    with run.held():
        for share, n in run.track(cases, "lag and steps: {}".format):
            made = lambda share=share, n=n: measure(share, n)  # noqa: E731
            lines += run.store.once(f"lag {share:g}, {n} steps", made)
        high = high_orders(run)
        found = {
            "settings": vars(s)
            | {
                "frames": FRAMES,
                "correlation": CORRELATION,
                "half_log_snr": (LOW, HIGH),
                "solver": "dpmpp_2m",
            },
            "slopes": slopes(lines, s),
            "exp_adams_errors_at_last_three_steps": high,
            "lines": lines,
        }
        run.write(found)
    for build, each in found["slopes"].items():
        print(build, {k: round(v, 2) for k, v in each.items()})
    for name, errors in high.items():
        slope = np.log2(np.divide(errors[:-1], errors[1:])).round(2).tolist()
        print(name, [float(f"{e:.2e}") for e in errors], slope)


if __name__ == "__main__":
    main()
