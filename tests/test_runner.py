"""The experiments' runner: whole records, one owner, workers that end with it."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


def module(path):
    """A file as a module, without its folder on the path."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    found = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = found  # dataclasses look their module up
    spec.loader.exec_module(found)
    return found


runner = module(ROOT / "experiments" / "runner.py")

TOY = """
import sys, time
from pathlib import Path
sys.path.insert(0, {experiments!r})
import runner

SETTINGS = {{"count": 400}}

def figure(result, run):
    fig, ax = runner.pyplot().subplots()
    ax.plot(result["values"])
    return fig

def more(parser):
    parser.add_argument("--case")

run = runner.start(__doc__, __file__, SETTINGS, {{"count": 6}}, figure, more=more)
if run.args.case:
    with run.held(run.args.case):
        while True:
            run.store.put([{{"key": str(time.time_ns()), "value": "x" * 5000}}])
with run.held(), runner.Workers() as workers:
    if not run.quick:
        own = [sys.executable, __file__, "--out", str(run.out), "--case", "worker"]
        workers.start("worker", own, run.folder / "log")
    values = []
    for n in run.track(range(run.settings.count)):
        values.append(run.store.once(str(n), lambda: [n, time.time_ns()]))
        time.sleep(0.0 if run.quick else 0.05)
    run.write({{"values": [v[0] for v in values]}})
"""


@pytest.fixture
def toy(tmp_path):
    """An experiment of no time, with a worker in its full version."""
    file = tmp_path / "toy" / "run.py"
    file.parent.mkdir()
    file.write_text(TOY.format(experiments=str(ROOT / "experiments")))
    return file


def begin(file, *options):
    command = [sys.executable, str(file), *options]
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # of a background job
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def group_is_gone(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


class TestStore:
    def test_once(self, tmp_path):
        calls = []
        store = runner.Store(tmp_path / "a.jsonl")
        for _ in range(2):
            assert store.once("k", lambda: calls.append(1) or [1.5, None]) == [
                1.5,
                None,
            ]
        again = runner.Store(tmp_path / "a.jsonl")
        assert again.once("k", lambda: 1 / 0) == [1.5, None]
        assert len(calls) == 1

    @pytest.mark.parametrize(
        "line", ['{"key": "a", "val', "[1]", '"a"', "{}", "[" * 9999]
    )
    def test_damaged(self, tmp_path, line):
        path = tmp_path / "a.jsonl"
        path.write_text('{"key": "a", "value": 1}\n' + line + "\n")
        with pytest.raises(SystemExit, match="line 2 is not a record; remove") as error:
            runner.Store(path)
        assert "\n" not in str(error.value)

    def test_a_failed_write_changes_nothing(self, tmp_path, monkeypatch):
        store = runner.Store(tmp_path / "a.jsonl")
        store.put([{"key": "a", "value": 1}])

        def full(*parts):
            raise OSError("no space")

        monkeypatch.setattr(runner, "write_whole", full)
        with pytest.raises(OSError, match="no space"):
            store.put([{"key": "b", "value": 2}])
        assert set(store.rows) == {"a"}
        assert set(runner.Store(tmp_path / "a.jsonl").rows) == {"a"}


class TestArrays:
    def test_round_trip(self, tmp_path):
        runner.write_arrays(tmp_path / "a.npz", {"x": [1.0, 2.0], "names": ["a", "bc"]})
        found = runner.read_arrays(tmp_path / "a.npz")
        np.testing.assert_array_equal(found["x"], [1.0, 2.0])
        assert found["names"].tolist() == ["a", "bc"]

    def test_damaged_or_pickled(self, tmp_path):
        path = tmp_path / "a.npz"
        runner.write_arrays(path, {"x": np.arange(1000.0)})
        for data in (path.read_bytes()[:900], b"", b"text"):
            path.write_bytes(data)
            with pytest.raises(SystemExit, match=r"a\.npz is damaged .* Remove it"):
                runner.read_arrays(path)
        np.savez(path, x=np.array([{}], object))
        with pytest.raises(SystemExit, match="is damaged"):
            runner.read_arrays(path)


def test_json_is_strict_and_fits_a_line():
    value = {
        "a": np.float32(0.5),
        3: (np.inf, np.int64(2), None, True),
        "long": [{"name": "x" * 30, "values": list(range(20))} for _ in range(3)],
        "empty": [[], {}],
    }
    text = runner.dumps(runner.plain(value))
    found = json.loads(text)
    assert found["a"] == 0.5 and found["3"] == [None, 2, None, True]
    assert found == runner.plain(value)
    assert max(map(len, text.splitlines())) <= 88


class TestOwner:
    def test_a_second_start_says_who(self, tmp_path):
        with runner.hold(tmp_path / "lock"):
            with pytest.raises(SystemExit, match=f"in use by process {os.getpid()} on"):
                with runner.hold(tmp_path / "lock", patience=0.1):
                    pass
        with runner.hold(tmp_path / "lock", patience=0.1):  # free again
            pass

    def test_a_dead_owner_is_none(self, tmp_path):
        (tmp_path / "lock").write_text("process 1 on elsewhere since ever\n")
        with runner.hold(tmp_path / "lock", patience=0.1):
            assert f"process {os.getpid()} on" in (tmp_path / "lock").read_text()


@pytest.mark.slow
class TestKilled:
    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_nothing_lost_and_nobody_left(self, toy, number):
        kept = {}
        for _ in range(2):
            for store, rows in self.kill(toy, number).items():
                assert rows.items() >= kept.get(store, {}).items()
                kept[store] = rows
        assert len(kept) == 2 and all(kept.values())

    @staticmethod
    def kill(toy, number):
        """Start, wait for records, send a signal; the records left, by store."""

        def stores():
            found = toy.parent.rglob("*.jsonl")
            return [p for p in found if p.stat().st_mtime_ns > started]

        started = time.time_ns()
        process = begin(toy)
        wait_for(lambda: len(stores()) == 2)
        time.sleep(0.3)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
        assert process.returncode in (-number, 128 + number)
        if number != signal.SIGKILL:
            assert error.splitlines()[-1].startswith("stopped; what is finished is")
            assert "Traceback" not in error
        wait_for(lambda: group_is_gone(process.pid))
        return {store: runner.Store(store).rows for store in stores()}

    def test_second_start_beside_the_first(self, toy):
        first = begin(toy)
        try:
            wait_for(lambda: list(toy.parent.rglob("records.jsonl")))
            second = begin(toy)
            _, error = second.communicate(timeout=60)
            assert second.returncode == 1
            assert f"is in use by process {first.pid} on" in error.splitlines()[-1]
            assert len(error.splitlines()) == 1
        finally:
            first.kill()
            first.communicate()

    def test_quick_and_redraw(self, toy):
        for options in (["--quick"], ["--quick", "--redraw"]):
            done = subprocess.run([sys.executable, str(toy), *options], text=True)
            assert done.returncode == 0
        out = toy.parent / "out" / "quick"
        assert json.loads((out / "result.json").read_text())["values"] == [*range(6)]
        assert (out / "figure.png").read_bytes()[:4] == b"\x89PNG"
        assert {p.name for p in toy.parent.iterdir()} == {"run.py", "out"}

    def test_out_that_cannot_be_made(self, toy):
        done = subprocess.run(
            [sys.executable, str(toy), "--out", str(toy)],
            text=True,
            capture_output=True,
        )
        assert done.returncode == 2
        assert "name a folder that can be made" in done.stderr.splitlines()[-1]
