"""Bad calls of every public function: each is refused in one line, or right."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def abuse(*options):
    """The script's last lines; it fails unless every outcome is clear or right."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, ROOT / "scripts" / "abuse", *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


def test_bad_calls_of_a_room():
    assert "bad calls" in abuse("--only", "grids", "--share", "0.05")


@pytest.mark.slow
def test_a_sample_of_all_bad_calls():
    """Every public function has a good call, and a share of its bad ones is run."""
    said = abuse("--share", "0.02")
    assert int(said.split()[-5]) > 500, said[-500:]


def test_what_is_silent_or_raw_is_found():
    """The script sees functions that accept, or fail on, what they should refuse."""
    code = """
import importlib.machinery, importlib.util, sys
loader = importlib.machinery.SourceFileLoader("abuse", sys.argv[1])
spec = importlib.util.spec_from_loader("abuse", loader)
abuse = importlib.util.module_from_spec(spec)
loader.exec_module(abuse)
def lax(count: int = 1, size: float = 1.0) -> float:
    return len([None] * count) + float(size)
kinds = {call().kind for call in abuse.bad_calls("grids.lax", lax)}
assert {"raw", "silent"} <= kinds, kinds
"""
    script = str(ROOT / "scripts" / "abuse")
    done = subprocess.run(
        [sys.executable, "-c", code, script], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
