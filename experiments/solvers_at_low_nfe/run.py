#!/usr/bin/env python
"""Every solver at 4 to 20 evaluations, against a 1000-evaluation reference.

    python experiments/solvers_at_low_nfe/run.py            # all of it, resumable
    python experiments/solvers_at_low_nfe/run.py --quick    # a small smoke version

Writes result.json, figure.png and note.md beside this file. Finished measurements are
kept under out/ and are not repeated; remove that folder to start over.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]  # runner.py, judge.py; report.py and more

import report  # noqa: E402
import runner  # noqa: E402
from cases import digits_case, patches_case  # noqa: E402
from contest import Judge, reference  # noqa: E402
from stages import Stage, run_case  # noqa: E402

# ---------------------------------------------------------------------------- settings
SETTINGS: dict[str, Any] = {
    "nfe": (4, 5, 6, 8, 10, 15, 20),
    "guidance": (1.0, 4.0, 8.0),  # scales of the digits network
    "noises": 60,  # divisible by the 10 classes
    "reference_steps": 1000,
    "seed": 0,
    "components": 30,  # of the mixture fitted to patches
    "patches": 8000,  # that it is fitted to
    "v3_nodes": 60,  # of the statistics' tables
    "v3_data": 320,  # real samples behind the statistics, divisible by 10
    "v3_batch": 160,
    "dc_nfe": {  # each search compiles for about 20 s: all of them where it matters
        "digits_g1": (5, 8, 6, 10),
        "digits_g4": (5, 8, 10, 6, 4, 15, 20),
        "digits_g8": (5, 10),
        "patches": (5, 8, 6, 10),
    },
    "contestants": None,  # all, or the names of some
    "v3_variants": None,
    "dc_order": {"digits_g1": 3, "digits_g4": 2, "digits_g8": 2, "patches": 3},
    "partial": {  # cases with some contestants only
        "digits_g8": (
            "ddim",
            "dpm_solver_2",
            "dpm_solver_fast-2",
            "dpmpp_2m",
            "dpmpp_2m-noise",
            "unipc-2-noise",
            "dpmpp_2s",
            "deis_tab-1",
            "deis_tab-3",
            "plms-4",
            "ipndm-4",
            "ghvb-2.8",
            "ghvb-3.8",
            "unipc-2",
            "unipc-3",
            "unip-2",
        ),
    },
    "dc_samples": 10,  # as published
    "dc_iterations": 30,
    "dc_refine": 20,
    "shift_window": 0.02,  # of time 0..1: 20 of 1000 labels
    "shift_cutoff": 0.3,
}
QUICK = {
    "nfe": (5, 6, 8, 10),
    "guidance": (4.0,),
    "noises": 20,
    "reference_steps": 100,
    "components": 4,
    "patches": 1000,
    "v3_nodes": 20,
    "v3_data": 20,
    "v3_batch": 20,
    "contestants": (
        "ddim", "dpm_solver_2", "dpm_solver_fast-3", "deis_tab-3", "dpmpp_2m",
        "dpmpp_2m-noise", "ipndm-4", "plms-4", "ghvb-2.8", "ghvb-3.8", "unip-2",
        "unipc-2", "unip-3", "unipc-3",
    ),
    "v3_variants": ("v3-3", "v3-2"),
    "partial": {"digits_g4": ("ddim", "dpmpp_2m", "dpmpp_2m-noise", "unipc-2")},
    "dc_nfe": {"patches": (5,)},
    "dc_iterations": 3,
    "dc_refine": 4,
}  # fmt: skip
ORDER = ("digits_g4", "digits_g1", "patches", "digits_g8")  # the longest first


def one_case(name: str, run: runner.Run) -> None:
    """Measure what is missing of one case, in this process."""
    began, s = time.time(), vars(run.settings)

    def tick(text: str) -> None:
        print(f"{time.time() - began:6.1f} s  {text}", flush=True)

    tick(f"{name}: reference")
    if name == "patches":
        case = patches_case(s, run)
    else:
        case = digits_case(float(name.removeprefix("digits_g")), s)
    found = run.arrays(f"reference_{name}", lambda: reference(case, s))
    judge = Judge(case, found["reference"])
    checks = {k: judge(v) for k, v in found.items()}
    run.store.put([{"key": "checks", "checks": checks}])
    run_case(Stage(name, case, judge, s, run, tick))
    run.clock(began)


# -------------------------------------------------------------------------------- main


def launch(names: list[str], run: runner.Run) -> None:
    """Run the cases in processes of their own, two at a time."""
    waiting, seen = list(names), -1
    own = [sys.executable, __file__, *["--quick"] * run.quick, "--out", str(run.out)]
    with runner.Workers() as workers, runner.progress() as tick:
        while waiting or workers.running:
            while waiting and len(workers.running) < 2:
                name = waiting.pop(0)
                command = [*own, "--case", name]
                workers.start(name, command, run.folder / f"{name}.log")
            time.sleep(0.5)
            for name, code in workers.finished().items():
                if code:
                    raise SystemExit(
                        f"{name} failed, see {run.folder / name}.log. What it measured "
                        "is kept; run again to continue."
                    )
            rows = sum(len(stored(name, run)) for name in names)
            if rows != seen:
                tick(f"{rows} records; running: {', '.join(workers.running)}")
                seen = rows


def stored(name: str, run: runner.Run) -> dict[str, Any]:
    """A case's records, none if there is no file yet."""
    return runner.Store(run.folder / f"{name}.jsonl").rows


def write_report(names: list[str], run: runner.Run) -> None:
    """result.json, note.md and figure.png from the records that are there."""
    stores = {name: stored(name, run) for name in names}
    records = [row for store in stores.values() for row in store.values()]
    rows = [r for r in records if "solver" in r]
    missing = [r["missing"] for r in records if "missing" in r]
    checks = {k: v["checks"]["checks"] for k, v in stores.items() if "checks" in v}
    spent = {k: v["seconds"]["value"] for k, v in stores.items() if "seconds" in v}
    result = report.summarise(rows, checks, vars(run.settings), missing, spent)
    run.write(result, note=report.note(result, run.quick))
    print("\n".join(result["claims"].values()))


def more(parser: argparse.ArgumentParser) -> None:
    """Arguments of this experiment alone."""
    parser.add_argument(
        "--case", choices=ORDER, help="measure one case only, write no report"
    )
    parser.add_argument("--report", action="store_true", help="from what is there")


def main() -> None:
    """Measure what is missing, then write the result, the figure and the note."""
    run = runner.start(__doc__, __file__, SETTINGS, QUICK, report.figure, more=more)
    if run.args.case:
        with run.held(run.args.case):
            one_case(run.args.case, run)
        return
    names = [f"digits_g{g:g}" for g in run.settings.guidance] + ["patches"]
    with run.held():
        if not run.args.report:
            launch(sorted(names, key=ORDER.index), run)
        write_report(sorted(names, key=ORDER.index), run)


if __name__ == "__main__":
    main()
