"""Every experiment runs to its figure with --quick, and its committed files hold."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = [p for p in sorted((ROOT / "experiments").iterdir()) if p.is_dir()]
NAMES = [p.name for p in FOLDERS if p.name not in ("__pycache__", "out")]


def committed(name):
    """The files beside run.py, as they are."""
    found = (ROOT / "experiments" / name).iterdir()
    return {p.name: p.read_bytes() for p in found if p.is_file()}


def strict(text):
    """JSON without NaN and infinities, which other readers refuse."""

    def refuse(word):
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


def start(name, out, *options):
    """run.py --quick in a folder of its own."""
    file = str(ROOT / "experiments" / name / "run.py")
    return subprocess.run(
        [sys.executable, file, "--quick", "--out", str(out), *options],
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_quick_ends_with_its_figure(name, tmp_path):
    import matplotlib.image

    before = committed(name)
    done = start(name, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    result = strict((tmp_path / "result.json").read_text())
    assert set(result) == set(strict(before["result.json"])) | {"seconds"} & set(result)
    image = matplotlib.image.imread(tmp_path / "figure.png")
    assert image.std() > 0.01
    assert committed(name) == before


@pytest.mark.parametrize("name", NAMES)
def test_committed_files_belong_together(name):
    found = committed(name)
    assert {"run.py", "note.md", "result.json", "figure.png"} <= set(found)
    strict(found["result.json"])
    note = found["note.md"].decode()
    assert f"experiments/{name}/run.py" in note or name == "restoration"
    assert "(figure.png)" in note


def test_a_second_start_measures_nothing_again(tmp_path):
    first = start("per_element_time", tmp_path)
    assert first.returncode == 0, first.stderr
    (store,) = tmp_path.rglob("records.jsonl")
    stamp, result = store.stat().st_mtime_ns, (tmp_path / "result.json").read_bytes()
    assert start("per_element_time", tmp_path).returncode == 0
    assert store.stat().st_mtime_ns == stamp
    assert (tmp_path / "result.json").read_bytes() == result


def test_claims_follow_from_the_records(monkeypatch):
    """The note of solvers_at_low_nfe says what result.json's figures give."""
    here = ROOT / "experiments" / "solvers_at_low_nfe"
    monkeypatch.setattr(sys, "path", [str(here), str(here.parent), *sys.path])
    import claims

    result = json.loads((here / "result.json").read_text())
    rows = []
    for case, solvers in result["cases"].items():
        for name, columns in solvers.items():
            for i, nfe in enumerate(result["nfe"]):
                row = {k: v[i] for k, v in columns.items()}
                if row["spent"] is not None:
                    rows.append(row | {"case": case, "solver": name, "nfe": nfe})
    found = claims.claims(claims.Table(rows))
    assert found == result["claims"]
    note = re.sub(r"\s+", " ", (here / "note.md").read_text())
    for text in found.values():
        assert text in note


def test_contestants_are_deterministic_and_need_nothing(monkeypatch):
    import fastdiff_jax as fd

    here = ROOT / "experiments" / "solvers_at_low_nfe"
    monkeypatch.setattr(sys, "path", [str(here), str(here.parent), *sys.path])
    from contest import contestants, plan_for

    made = {k: plan_for(b, calls, 8) for k, (b, calls) in contestants().items()}
    assert not [k for k, plan in made.items() if plan is not None and plan.stochastic]
    assert {"ddim", "unipc-2", "dpmpp_2m"} <= set(made)
    needy = {k for k, entry in fd.solvers.SOLVERS.items() if entry.needs}
    assert not needy & {name.split("-")[0] for name in made}
