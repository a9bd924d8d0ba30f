#!/usr/bin/env python
"""Every solver at 4 to 20 evaluations, against a 1000-evaluation reference.

    python experiments/solvers_at_low_nfe/run.py            # all of it, resumable
    python experiments/solvers_at_low_nfe/run.py --quick    # a small smoke version

Writes result.json, figure.png and note.md beside this file (with --quick: into
out/quick). Finished measurements are kept under out/ and are not repeated; remove that
folder to start over.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]  # the checkout, and report.py

import report  # noqa: E402
from cases import digits_case, patches_case  # noqa: E402
from contest import Judge, reference_of  # noqa: E402
from stages import Run, run_case  # noqa: E402
from store import Store  # noqa: E402

from fastdiff_jax.files import write_whole  # noqa: E402

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
    "nfe": (5, 8),
    "guidance": (4.0,),
    "noises": 20,
    "reference_steps": 100,
    "components": 4,
    "patches": 1000,
    "v3_nodes": 20,
    "v3_data": 20,
    "v3_batch": 20,
    "dc_nfe": {"digits_g4": (5,)},
    "dc_iterations": 5,
}


def one_case(name: str, s: dict[str, Any], folder: Path) -> None:
    """Measure what is missing of one case, in this process."""
    begun = time.time()
    store = Store(folder / f"{name}.jsonl")

    def tick(text: str) -> None:
        print(f"{time.time() - begun:6.1f} s  {text}", flush=True)

    scale = name.removeprefix("digits_g")
    tick(f"{name}: reference")
    made = name == "patches"
    case = patches_case(s, folder) if made else digits_case(float(scale), s)
    found = reference_of(case, s, folder / f"reference_{name}.npz")
    judge = Judge(case, found["reference"])
    checks = {k: judge(v) for k, v in found.items()}
    store.put([{"key": "checks", "checks": checks}])
    run_case(Run(name, case, judge, s, folder, store, tick))
    before = store.rows.get("seconds", {"value": 0.0})["value"]
    store.put([{"key": "seconds", "value": round(before + time.time() - begun, 1)}])


# -------------------------------------------------------------------------------- main


def launch(names: list[str], folder: Path, quick: bool) -> None:
    """Run the cases in processes of their own, two at a time."""
    waiting, running, seen = list(names), {}, 0
    with progress() as tick:
        while waiting or running:
            while waiting and len(running) < 2:
                name = waiting.pop(0)
                command = [sys.executable, __file__, "--case", name]
                log = (folder / f"{name}.log").open("w")
                running[name] = subprocess.Popen(
                    command + ["--quick"] * quick, stdout=log, stderr=log
                )
            time.sleep(0.5)
            for name, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[name]
                if process.returncode:
                    raise SystemExit(
                        f"{name} failed, see {folder / name}.log. What it measured is "
                        "kept; run again to continue."
                    )
            rows = sum(len(read(folder / f"{name}.jsonl")) for name in names)
            if rows != seen:
                tick(f"{rows} records; running: {', '.join(running)}")
                seen = rows


def read(path: Path) -> dict[str, Any]:
    """A store's records, none if there is no file yet."""
    return Store(path).rows


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A live line if rich is installed, else a line now and then."""
    try:
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    except ImportError:
        yield lambda text: print(text, flush=True)
        return
    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda text: bar.update(task, description=text)


def write_report(names: list[str], folder: Path, s: dict, target: Path) -> None:
    """result.json, note.md and figure.png from the records that are there."""
    stores = {name: read(folder / f"{name}.jsonl") for name in names}
    records = [row for store in stores.values() for row in store.values()]
    rows = [r for r in records if "solver" in r]
    missing = [r["missing"] for r in records if "missing" in r]
    checks = {k: v["checks"]["checks"] for k, v in stores.items() if "checks" in v}
    spent = {k: v["seconds"]["value"] for k, v in stores.items() if "seconds" in v}
    result = report.summarise(rows, checks, s, missing, spent)
    texts = {"result.json": report.compact(result), "note.md": report.note(result)}
    for name, text in texts.items():
        write_whole(target / name, lambda f, text=text: f.write(text.encode()))
    report.figure(result, target / "figure.png")
    print("\n".join(result["claims"].values()))
    print(f"wrote {target}/result.json, figure.png, note.md")


def main() -> None:
    """Measure what is missing, then write the result, the figure and the note."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small smoke version")
    parser.add_argument("--case", help="measure one case only, write no report")
    parser.add_argument("--report", action="store_true", help="from what is there")
    arguments = parser.parse_args()
    quick = arguments.quick
    s = SETTINGS | (QUICK if quick else {})
    mark = hashlib.sha256(json.dumps(s, sort_keys=True).encode()).hexdigest()[:10]
    folder = HERE / "out" / mark
    folder.mkdir(parents=True, exist_ok=True)
    if arguments.case:
        one_case(arguments.case, s, folder)
        return
    names = [f"digits_g{g:g}" for g in s["guidance"]] + ["patches"]
    names.sort(key=["digits_g4", "digits_g1", "patches", "digits_g8"].index)
    if not arguments.report:
        launch(names, folder, quick)
    target = HERE / "out" / "quick" if quick else HERE
    target.mkdir(exist_ok=True)
    write_report(names, folder, s, target)


if __name__ == "__main__":
    main()
