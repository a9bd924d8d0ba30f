"""The command line, as a user runs it: files, messages, exit codes."""

import json

import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.cli import main


def run(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    out = capsys.readouterr()
    return stop.value.code, out.out, out.err


def small(tmp_path, *more):
    return ("sample", "--num", "4", "--nfe", "3", "--out", str(tmp_path / "o"), *more)


@pytest.mark.slow
def test_sample_writes_images_and_arrays(tmp_path, capsys):
    code, out, err = run(capsys, *small(tmp_path, "--labels", "1,3-4"))
    assert code == 0 and err == ""
    with np.load(tmp_path / "o" / "samples.npz") as found:
        assert found["x"].shape == (4, 8, 8, 1) and found["x"].dtype == np.float32
        assert np.abs(found["x"]).max() <= 1
        assert found["labels"].tolist() == [1, 3, 4, 1]
        assert np.issubdtype(found["labels"].dtype, np.integer)
    assert (tmp_path / "o" / "samples.png").read_bytes()[:4] == b"\x89PNG"
    assert "3 evaluations" in out and "ms per sample" in out
    assert {p.name for p in (tmp_path / "o").iterdir()} == {
        "samples.png",
        "samples.npz",
    }


@pytest.mark.slow
def test_nothing_is_overwritten_without_force(tmp_path, capsys):
    folder = tmp_path / "o"
    folder.mkdir()
    (folder / "samples.png").write_text("mine")
    code, _, err = run(capsys, *small(tmp_path))
    assert code == 1 and "exists; pass --force" in err
    assert (folder / "samples.png").read_text() == "mine"
    assert not (folder / "samples.npz").exists()
    assert run(capsys, *small(tmp_path, "--force"))[0] == 0
    assert (folder / "samples.png").read_bytes()[:4] == b"\x89PNG"


def test_a_saved_plan_draws_the_same(tmp_path, capsys):
    plan = str(tmp_path / "p.json")
    code, out, _ = run(capsys, "plan", "unipc", "--nfe", "3", "--json", plan)
    assert code == 0 and out.splitlines()[0].startswith("row")
    assert fd.plan.load(plan).nfe == 3
    run(capsys, *small(tmp_path))
    direct = np.load(tmp_path / "o" / "samples.npz")["x"]
    assert run(capsys, *small(tmp_path, "--plan", plan, "--force"))[0] == 0
    np.testing.assert_array_equal(np.load(tmp_path / "o" / "samples.npz")["x"], direct)
    assert run(capsys, "plan", "unipc", "--json", plan)[0] == 1


def test_analyze_prints_and_draws(tmp_path, capsys):
    figure = tmp_path / "a" / "plan.png"
    words = ("plan", "dpmpp_2m", "--nfe", "4", "--analyze", "--plot", str(figure))
    code, out, _ = run(capsys, *words)
    assert code == 0 and "guidance limit" in out and "W2" in out
    assert figure.read_bytes()[:4] == b"\x89PNG"
    assert run(capsys, *words)[0] == 1


@pytest.mark.slow
def test_sample_i_does_not_depend_on_the_number(tmp_path, capsys):
    run(capsys, *small(tmp_path))
    few = np.load(tmp_path / "o" / "samples.npz")["x"]
    run(capsys, *small(tmp_path, "--force", "--num", "7"))
    many = np.load(tmp_path / "o" / "samples.npz")["x"]
    np.testing.assert_allclose(many[:4], few, atol=1e-5)


def test_solvers_lists_the_registry(capsys):
    code, out, _ = run(capsys, "solvers")
    assert code == 0
    for name in fd.solvers.SOLVERS:
        assert name in out


@pytest.mark.parametrize("solver", ["heun", "edm_heun", "ddim", "euler"])
@pytest.mark.parametrize("nfe", [1, 2, 5, 10])
def test_nfe_is_never_exceeded(solver, nfe):
    from fastdiff_jax.cli.common import make_plan

    calls = fd.solvers.SOLVERS[solver].calls
    if nfe < calls:
        with pytest.raises(ValueError, match="needs at least"):
            make_plan(solver, nfe=nfe)
        return
    plan = make_plan(solver, nfe=nfe)
    assert nfe - calls < plan.nfe <= nfe


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--solver", "unipcc"], "unknown solver 'unipcc'. Did you mean 'unipc'?"),
        (["--grid", "karas"], "unknown grid 'karas'. Did you mean 'karras'?"),
        (["--process", "vp"], "unknown process 'vp'"),
        (["--labels", "0-12"], "--labels must be digits 0..9"),
        (["--labels", "x"], "--labels must be digits 0..9"),
        (["--num", "0"], "--num must be >= 1"),
        (["--nfe", "0"], "--nfe must be >= 1"),
        (["--nfe", "many"], "Invalid value for '--nfe'"),
        (["--order", "9"], "--order of 'unipc' must be one of"),
        (["--solver", "ddim", "--order", "2"], "'ddim' has no option --order"),
        (["--eta", "0.5"], "'unipc' has no option --eta"),
        (["--plan", "/nowhere/p.json"], "No such file"),
        (["--wrong"], "No such option"),
    ],
)
def test_errors_are_one_line(words, message, tmp_path, capsys):
    code, _, err = run(capsys, *small(tmp_path, *words))
    assert code in (1, 2)
    assert err.startswith("error: ") and message in err
    assert len(err.strip().splitlines()) == 1 and "Traceback" not in err
    assert not (tmp_path / "o").exists()


def test_a_damaged_plan_is_one_line(tmp_path, capsys):
    plan = tmp_path / "p.json"
    plan.write_text(json.dumps({"format": "x"}))
    code, _, err = run(capsys, *small(tmp_path, "--plan", str(plan)))
    assert code == 1 and "p.json must have format" in err
