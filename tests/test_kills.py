"""A few of scripts/kills' kills: nothing half, nothing lost, nobody left behind."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "kills"


@pytest.mark.slow
def test_killed_writers_leave_whole_files(tmp_path):
    also = tmp_path / "also.json"
    code = "import sys, time; time.sleep(2); open(sys.argv[1], 'w').write('[1]')"
    words = f'["{sys.executable}", "-c", "{code}", "{{out}}/x.json"]'
    also.write_text(f'[{{"name": "mine", "command": {words}}}]')
    names = ["plan.save", "ems.save", "ems.estimate", "mine"]
    found = subprocess.run(
        [sys.executable, SCRIPT, "--kills", "8", "--also", also, *names],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert {line.split()[0] for line in found.stdout.splitlines()[1:]} == {
        *names,
        "all",
    }


@pytest.mark.slow
def test_a_writer_that_is_not_whole_is_found_out(tmp_path):
    """The script itself: a file written in place is half a file."""
    also = tmp_path / "also.json"
    code = (
        "import sys, time; f = open(sys.argv[1], 'w'); f.write('[1'); f.flush(); "
        "time.sleep(2); f.write(']')"
    )
    words = f'["{sys.executable}", "-c", "{code}", "{{out}}/x.json"]'
    also.write_text(f'[{{"name": "bad", "command": {words}}}]')
    found = subprocess.run(
        [sys.executable, SCRIPT, "--kills", "2", "--also", also, "bad"],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 1, found.stdout
