"""The README: its solver table is what is measured, its links exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_solver_table_is_measured():
    script = ROOT / "scripts" / "solver_table"
    found = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr


def test_links_exist():
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
