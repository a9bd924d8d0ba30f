"""The command line, as a user runs it: files, messages, exit codes."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import jax
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


def loaded(tmp_path, plan, *more):
    out = str(tmp_path / "o")
    return ("sample", "--num", "4", "--out", out, "--plan", str(plan), *more)


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
    assert run(capsys, *loaded(tmp_path, plan, "--force"))[0] == 0
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
        (["--num", "0"], "--num must be a whole number in 1..1000000, got 0"),
        (["--nfe", "0"], "--nfe must be a whole number in 1..10000, got 0"),
        (["--nfe", "many"], "Invalid value for '--nfe'"),
        (["--order", "9"], "--order of 'unipc' must be one of"),
        (["--solver", "ddim", "--order", "2"], "'ddim' has no option --order"),
        (["--eta", "0.5"], "'unipc' has no option --eta"),
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
    code, _, err = run(capsys, *loaded(tmp_path, plan))
    assert code == 1 and "p.json must have format" in err
    code, _, err = run(capsys, *loaded(tmp_path, "/nowhere/p.json"))
    assert code == 1 and "No such file or directory: '/nowhere/p.json'" in err


# ------------------------------------------------ refused before the first network call


@pytest.fixture
def no_network(monkeypatch):
    def draw(*_):
        raise AssertionError("the network was called")

    monkeypatch.setattr("fastdiff_jax.cli.sample.draw", draw)


@pytest.fixture
def drawn(monkeypatch):
    """Samples without a network."""

    def draw(table, labels, guidance, seed):
        rng = np.random.default_rng(seed)
        return rng.uniform(-1, 1, (len(labels), 8, 8, 1)).astype(np.float32), 0.1

    monkeypatch.setattr("fastdiff_jax.cli.sample.draw", draw)


def one_line(code, err, message):
    assert code in (1, 2)
    assert err.startswith("error: ") and message in err
    assert len(err.strip().splitlines()) == 1 and "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", "-1"], "--seed must be a whole number in 0..18446744073709551615"),
        (["--seed", str(2**70)], "--seed must be a whole number in 0.."),
        (["--guidance", "nan"], "--guidance must be a finite number, got nan"),
        (["--guidance", "-inf"], "--guidance must be a finite number, got -inf"),
        (["--num", "1000001"], "--num must be a whole number in 1..1000000"),
        (["--nfe", "1000000000"], "--nfe must be a whole number in 1..10000"),
        (["--solver", "ddim", "--eta", "nan"], "--eta must be in 0.0..inf, got nan"),
        (["--solver", "ddim", "--eta", "-1"], "--eta must be in 0.0..inf, got -1.0"),
        (["--solver", "ddim", "--eta", "1e9"], "--solver ddim: eta must lie in [0, 1]"),
        (["--solver", "er_sde", "--eta", "inf"], "--solver er_sde: "),
        (["--grid", "karras", "--process", "flow"], "--grid karras on flow: sigma"),
        (["--grid", "leading"], "--grid leading on vp_linear: library spacings"),
        (["--out", ""], "'--out': it must name a file or a folder, got ''"),
        (["--plan", ""], "'--plan': it must name a file or a folder, got ''"),
        (["--out", "/proc/x"], "cannot make the folder"),
        (["--out", "/dev/null"], "a file has its name: '/dev/null'"),
        (["--force", "--out", "/dev/null/x"], "a file has its name: '/dev/null/x'"),
    ],
)
def test_refused_before_the_network_is_asked(
    words, message, tmp_path, capsys, no_network
):
    code, _, err = run(capsys, *small(tmp_path, *words))
    one_line(code, err, message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--solver", "heun", "--nfe", "99"], "--solver, --nfe"),
        (["--order", "2"], "--order"),
        (["--grid", "log_snr"], "--grid"),  # the default, too, was asked for
        (["--process", "ve"], "--process"),
        (["--eta", "0"], "--eta"),
        (["--to-zero"], "--to-zero"),
    ],
)
def test_options_that_a_plan_would_drop_are_refused_by_name(
    words, names, tmp_path, capsys, no_network
):
    code, _, err = run(capsys, *loaded(tmp_path, "any.json", *words))
    one_line(code, err, f"table, which {names} cannot change")


def odd_plans():
    process = fd.processes.vp_linear()
    ts = fd.grids.log_snr(process, 4)
    unipc = fd.solvers.unipc(process, ts)
    wide = fd.solvers.ddim(process, np.stack([ts, ts], 1))
    pair = fd.solvers.ddim(process, ts, second_noise=True)
    return {
        "a slice": (fd.plan.slice_rows(unipc, 2), "goes on from the registers"),
        "by element": (wide, "by the element"),
        "of two predictions": (pair, "it reads data, direction"),
    }


@pytest.mark.parametrize("case", odd_plans())
def test_plans_for_something_else_are_refused(case, tmp_path, capsys, no_network):
    plan, message = odd_plans()[case]
    fd.plan.save(plan, tmp_path / "p.json")
    code, _, err = run(capsys, *loaded(tmp_path, tmp_path / "p.json"))
    one_line(code, err, message)
    assert "p.json does not draw digits" in err


def test_hostile_plans_are_one_line(tmp_path, capsys, no_network):
    path = tmp_path / "deep.json"
    for words, message in (
        ("[" * 100_000, "deep.json is damaged: more than 64 lists"),
        ('{"format": 1' + "0" * 5000, "deep.json is not valid JSON"),
        ('{"a": 1, "a": 1}', "stands twice"),
    ):
        path.write_text(words)
        one_line(*run(capsys, *loaded(tmp_path, path))[::2], message)
    one_line(*run(capsys, *loaded(tmp_path, tmp_path))[::2], "Is a directory")
    assert not (tmp_path / "o").exists()


def test_what_is_no_file_is_never_replaced(tmp_path, capsys, no_network):
    (tmp_path / "o" / "samples.png").mkdir(parents=True)
    code, _, err = run(capsys, *small(tmp_path, "--force"))
    one_line(code, err, "samples.png is a folder, and only regular files")
    for path in ("/dev/full", str(tmp_path)):
        words = ("plan", "ddim", "--nfe", "3", "--json", path, "--force")
        one_line(*run(capsys, *words)[::2], f"{path} is a ")


def test_plan_refuses_before_it_computes(tmp_path, capsys, monkeypatch):
    for words, message in (
        (["--plot", "x.png"], "--plot is drawn by --analyze only"),
        (
            ["--analyze", "--plot", "x.jpg"],
            "--plot: path must end in .png, got 'x.jpg'",
        ),
        (["--analyze", "--plot", ""], "it must name a file or a folder, got ''"),
        (["--json", ""], "it must name a file or a folder, got ''"),
        (["--digits", "0"], "--digits must be a whole number in 1..17"),
        (["--json", str(tmp_path / "file" / "a.json")], "a file has its name"),
    ):
        (tmp_path / "file").write_text("x")
        one_line(*run(capsys, "plan", "ddim", "--nfe", "3", *words)[::2], message)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = tmp_path / "new" / "p.png"
    words = ("plan", "ddim", "--nfe", "3", "--analyze", "--plot", str(out))
    one_line(*run(capsys, *words)[::2], "figures need matplotlib")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_samples_need_no_matplotlib(tmp_path, capsys, monkeypatch, drawn):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        assert run(capsys, *small(tmp_path))[0] == 0
    from matplotlib import image

    from fastdiff_jax.cli.images import grid_of

    picture = image.imread(tmp_path / "o" / "samples.png")
    x = np.load(tmp_path / "o" / "samples.npz")["x"]
    want = (1 - grid_of(x, 4)) / 2
    assert picture.shape == want.shape == (80, 320)
    np.testing.assert_allclose(picture, want, atol=0.51 / 255)


def test_a_large_number_is_drawn_in_full_and_pictured_in_part(tmp_path, capsys, drawn):
    code, out, _ = run(capsys, *small(tmp_path, "--num", "1500"))
    assert code == 0 and "(the first 1000)" in out
    assert len(np.load(tmp_path / "o" / "samples.npz")["x"]) == 1500


def test_a_file_that_appears_meanwhile_is_kept(tmp_path, capsys, monkeypatch):
    def draw(table, labels, guidance, seed):
        (tmp_path / "o" / "samples.npz").write_text("finished by another")
        return np.zeros((len(labels), 8, 8, 1), np.float32), 0.1

    monkeypatch.setattr("fastdiff_jax.cli.sample.draw", draw)
    one_line(*run(capsys, *small(tmp_path))[::2], "exists; pass --force")
    assert (tmp_path / "o" / "samples.npz").read_text() == "finished by another"


def test_seeds_of_64_bits_differ():
    """jax alone drops the upper half of a seed where it counts in 32 bits."""
    from fastdiff_jax.cli.sample import key_of

    seeds = (0, 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1, 2**32 - 1)
    found = [tuple(np.asarray(jax.random.key_data(key_of(s)))) for s in seeds]
    assert len(set(found)) == len(seeds)
    with jax.enable_x64(False):
        again = [tuple(np.asarray(jax.random.key_data(key_of(s)))) for s in seeds]
    assert again == found


# ------------------------------------------------------------ any error is one line


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("a\nb"), 1, "error: a b"),
        (ValueError(), 1, "error: ValueError"),
        (OSError(28, "No space left", "f"), 1, "error: No space left: 'f'."),
        (RecursionError("deep"), 1, "error: RecursionError: deep (FASTDIFF_TRACEBACK"),
        (MemoryError(), 1, "error: out of memory"),
        (OverflowError("int"), 1, "error: OverflowError: int"),
        (KeyError("k"), 1, "error: KeyError: 'k'"),
        (RuntimeError("x\x1b[31m"), 1, "error: RuntimeError: x?[31m"),
        (KeyboardInterrupt(), 130, "error: stopped; every file is whole, old or new."),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_any_error_is_one_line(error, code, message, tmp_path, capsys, monkeypatch):
    def draw(*_):
        raise error

    monkeypatch.setattr("fastdiff_jax.cli.sample.draw", draw)
    found, _, err = run(capsys, *small(tmp_path))
    assert found == code and err.startswith(message)
    assert len(err.splitlines()) == bool(message)
    assert list(tmp_path.iterdir()) == []  # the folder made for it is gone
    monkeypatch.setenv("FASTDIFF_TRACEBACK", "1")
    with pytest.raises(type(error)):
        main(list(small(tmp_path)))


def test_samples_that_are_not_finite_say_why(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        fd, "sample", lambda plan, model, x, **_: x.at[0, 0].set(np.inf)
    )
    code, _, err = run(capsys, *small(tmp_path, "--guidance", "1e30"))
    one_line(code, err, "not finite at --guidance 1e+30; try a smaller one")
    assert list(tmp_path.iterdir()) == []


def test_version(capsys):
    code, out, err = run(capsys, "--version")
    assert code == 0 and err == ""
    assert out.startswith(f"fastdiff {fd.__version__} (jax {jax.__version__}, Python")


# a job in the background of a shell is born deaf to Ctrl-C
HEARS = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("fastdiff_jax.cli", run_name="__main__")
"""


def fastdiff(*words, shell="", **env):
    """The command in a process of its own: (status, stdout, stderr)."""
    line = f"{sys.executable} -c {shlex.quote(HEARS)} {' '.join(words)} {shell}"
    found = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        env=os.environ | env,
        cwd=Path(__file__).parents[1],
    )
    return found.returncode, found.stdout, found.stderr


@pytest.mark.slow
def test_odd_terminals():
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for env in (plain, {"COLUMNS": "20"}, {"TERM": "dumb"}):
        code, out, err = fastdiff("solvers", **env)
        assert (code, err) == (0, "")
        assert all(f" {name} " in out for name in fd.solvers.SOLVERS)  # none is cut
    code, _, err = fastdiff("solvers", shell="> /dev/full")
    assert code == 1 and err == "error: [Errno 28] No space left on device\n"
    code, _, err = fastdiff("solvers", shell=">&-")
    assert (code, err) == (0, "")
    code, out, err = fastdiff("solvers", shell="| true; echo ${PIPESTATUS[0]}")
    assert out == "141\n" and err == ""


@pytest.mark.parametrize("module", ["jax", "typer"])
def test_ctrl_c_while_modules_load(module, tmp_path):
    """A module that is interrupted while it loads, also one that drops exceptions."""
    own = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)"
    (tmp_path / f"{module}.py").write_text(own)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    code, out, err = fastdiff("solvers", PYTHONPATH=path)
    assert (code, out, len(err.splitlines())) == (130, "", 1)
    assert err.startswith("error: stopped")


def test_ctrl_c_that_python_drops():
    """Raised in a destructor, as in jax's callback of the garbage collector."""
    code = """
from fastdiff_jax.cli.stop import heard
class Dies:
    def __del__(self):
        raise KeyboardInterrupt
with heard():
    Dies()
print("goes on")
"""
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert (found.returncode, found.stdout) == (130, "")
    assert found.stderr.startswith("error: stopped")
