#!/usr/bin/env python
"""What does sampling cost over its network, and noise of the path over plain noise?

    python experiments/overhead/run.py [--quick]

Runs the parts of scripts/bench, writes result.json and figure.png beside this file; a
killed run continues.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import runner  # noqa: E402

SETTINGS: dict[str, Any] = {"overhead": 120, "noise": 30, "batch": 16}  # repeats
QUICK = {"overhead": 4, "noise": 2, "batch": 2}


def bars(axis: Any, values: dict[str, float], unit: str, title: str) -> None:
    """Bars with their values written on them."""
    drawn = axis.bar(list(values), list(values.values()), 0.6, color=["0.7", "C0"])
    axis.bar_label(drawn, fmt="%.3g", padding=2)
    axis.set(ylabel=unit, title=title)
    axis.margins(y=0.12)


def figure(result: dict, run: runner.Run) -> Any:
    """Sampling, compilation, import, and sources of noise."""
    del run
    drawn, axes = runner.pyplot().subplots(
        1, 4, figsize=(14, 3.8), width_ratios=(1, 1, 1, 1.8), layout="constrained"
    )
    a, b, c = (result[k] for k in ("overhead", "compile_time", "import_time"))
    bars(axes[0], {"network alone": a["bare_scan_ms"], "sample": a["sample_ms"]}, "ms",
         f"ten evaluations: {a['ratio']:.3f} times")  # fmt: skip
    bars(axes[1], {"10 rows": b["compile_10_s"], "100 rows": b["compile_100_s"]}, "s",
         f"compilation: {b['ratio']:.2f} times")  # fmt: skip
    seconds = {"jax": c["import_jax_s"], "fastdiff_jax": c["import_fastdiff_jax_s"]}
    bars(axes[2], seconds, "s", f"import: {c['over_s']:.2f} s more")
    kinds = {
        "by_row_ms": ("by the row", "0.7"),
        "path_ms": ("of the path", "C0"),
        "virtual_brownian_tree_ms": ("VirtualBrownianTree", "C1"),
    }
    for k, (key, (label, colour)) in enumerate(kinds.items()):
        values = [result["noise_source"][n][key] for n in ("network", "no_network")]
        place = [n + 0.28 * (k - 1) for n in range(2)]
        made = axes[3].bar(place, values, 0.26, color=colour, label=label)
        axes[3].bar_label(made, fmt="%.3g", padding=2)
    axes[3].set_xticks(range(2), ["with the network", "one multiplication instead"])
    axes[3].set(ylabel="ms", yscale="log", title="ten evaluations, noise drawn")
    axes[3].margins(y=0.3)
    axes[3].legend(loc="upper center", ncols=3, frameon=False)
    return drawn


def main() -> None:
    """Measure what is missing, then write result.json and figure.png."""
    run = runner.start(__doc__, __file__, SETTINGS, QUICK, figure)
    bench, s = runner.script("bench"), run.settings
    parts = [(what, part) for what, parts in bench.PARTS.items() for part in parts]
    with run.held():
        result = run.store.once("machine", bench.machine)
        for what, part in run.track(parts, lambda pair: pair[1].__name__):
            args = SimpleNamespace(repeats=getattr(s, what), batch=s.batch)
            made = lambda part=part, args=args: part(args)  # noqa: E731
            result = result | {part.__name__: run.store.once(part.__name__, made)}
        run.write(result)
    print(runner.dumps(result))


if __name__ == "__main__":
    main()
