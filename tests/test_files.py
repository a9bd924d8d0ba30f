"""Writing: links, modes, devices, a full disk, kills. Reading: hostile bytes."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

from fastdiff_jax import files
from fastdiff_jax.files import parse_json, read_arrays, write_together, write_whole


def text(words):
    return lambda f: f.write(words.encode())


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "plan.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    write_whole(link, text("new"))
    assert link.is_symlink() and target.read_text() == "new"
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "there" / "made")
    write_whole(dangling, text("made"))
    assert dangling.is_symlink() and (tmp_path / "there" / "made").exists()


@pytest.mark.parametrize("bits", [0o600, 0o644, 0o664, 0o755])
def test_an_existing_file_keeps_its_mode(tmp_path, bits):
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(bits)
    seen = []

    def watch(file):
        seen.append(stat.S_IMODE(os.fstat(file.fileno()).st_mode))

    write_whole(path, watch)
    assert mode(path) == bits and seen == [bits]  # never wider, even while written


@pytest.mark.parametrize(("umask", "bits"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_new_file_has_the_umasks_mode(tmp_path, umask, bits):
    old = os.umask(umask)
    try:
        write_whole(tmp_path / "a", text("x"))
    finally:
        os.umask(old)
    assert mode(tmp_path / "a") == bits


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    cases = [(tmp_path, "folder"), (tmp_path / "pipe", "pipe"), ("/dev/null", "device")]
    for path, kind in cases:
        with pytest.raises(ValueError, match=f"is a {kind}, and only regular") as found:
            write_whole(path, text("x"))
        assert str(path) in str(found.value)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises((ValueError, OSError), match="loop"):
        write_whole(tmp_path / "loop", text("x"))
    with pytest.raises(ValueError, match="must name a file"):
        write_whole("", text("x"))
    assert {p.name for p in tmp_path.iterdir()} == {"pipe", "loop"}


def test_errors_name_the_users_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    for path in ("nowhere/a.json", "file/a.json"):
        with pytest.raises(OSError, match="cannot write") as found:
            write_whole(path, text("x"))
        assert found.value.filename == path and ".tmp" not in str(found.value)

    def full(_):
        raise OSError(28, "No space left on device")

    (tmp_path / "a.json").write_text("old")
    with pytest.raises(OSError, match="No space left on device: 'a.json'"):
        write_whole("a.json", full)
    assert (tmp_path / "a.json").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "file"]


def test_a_failing_writer_of_something_else_keeps_its_own_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        write_whole(tmp_path / "a", lambda _: open("absent"))


def test_temporary_names_are_hidden_and_of_another_suffix(tmp_path):
    path, seen = tmp_path / f"{'long' * 60}.npz", []
    write_whole(path, lambda _: seen.extend(p.name for p in tmp_path.iterdir()))
    (name,) = seen
    assert name.startswith(".long") and name.endswith(".tmp") and len(name) < 60
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path):
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); "
        "from fastdiff_jax.files import write_whole\n"
        "def slow(f):\n    f.write(b'half'); f.flush(); print(1, flush=True)\n"
        "    time.sleep(60)\n"
        f"write_whole({str(tmp_path / 'a.npz')!r}, slow)"
    )
    root = str(files.Path(files.__file__).parents[1])
    child = subprocess.Popen(
        [sys.executable, "-c", code, root], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "1\n"
    write_whole(tmp_path / "a.npz", text("mine"))  # a living writer is left alone
    assert len(list(tmp_path.glob(".*.tmp"))) == 1
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert len(list(tmp_path.glob(".*.tmp"))) == 1
    (tmp_path / ".a.npz.mine.tmp").write_text("not one of ours")
    write_whole(tmp_path / "a.npz", text("again"))
    assert {p.name for p in tmp_path.iterdir()} == {"a.npz", ".a.npz.mine.tmp"}


def test_many_writers_of_one_file_leave_one_whole_one(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    path = tmp_path / "a"
    with ThreadPoolExecutor(8) as pool:
        jobs = [
            pool.submit(write_whole, path, text(f"{i % 10}" * 5000)) for i in range(80)
        ]
        for job in jobs:
            job.result()
    found = path.read_text()
    assert len(found) == 5000 and set(found) == {found[0]}
    assert list(tmp_path.iterdir()) == [path]


def pair(folder, run, after=None):
    def picture(file):
        file.write(run.encode())
        if after is not None:
            after()

    write_together([(folder / "data", text(run)), (folder / "picture", picture)])


def test_files_that_belong_together_are_of_one_run(tmp_path, monkeypatch):
    """Stopped before each step of the exchange: what stands there is of one run."""
    steps = ["unlink", "replace", "fsync"]
    seen = set()
    for stop in range(8):
        for old in tmp_path.iterdir():
            old.unlink()
        pair(tmp_path, "old")
        count = [0]

        def stopping(original, count=count, stop=stop):
            def step(*args, **kwargs):
                count[0] += 1
                if count[0] > stop:  # nothing happens any more, as after a kill
                    raise KeyboardInterrupt
                return original(*args, **kwargs)

            return step

        with monkeypatch.context() as patch:
            for name in steps:
                owner = files.Path if name == "unlink" else os
                patch.setattr(owner, name, stopping(getattr(owner, name)))
            try:
                pair(tmp_path, "new")
            except KeyboardInterrupt:
                pass
        names = {p.name: p.read_text() for p in tmp_path.glob("[!.]*")}
        assert len(set(names.values())) == 1 and "data" in names, names
        seen.add(tuple(sorted(names.items())))
    assert {len(s) for s in seen} == {1, 2}
    assert (("data", "old"), ("picture", "old")) in seen
    assert (("data", "new"), ("picture", "new")) in seen


def test_a_pair_that_cannot_be_written_leaves_the_old_pair(tmp_path):
    pair(tmp_path, "old")

    def full():
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="picture"):
        pair(tmp_path, "new", full)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "data": "old",
        "picture": "old",
    }
    with pytest.raises(ValueError, match="written twice"):
        write_together([(tmp_path / "a", text("x")), (tmp_path / "a", text("y"))])


# ----------------------------------------------------------------------------- reading

HOSTILE_JSON = {
    "deep lists": ("[" * 100_000, "more than 64 lists"),
    "deep records": ('{"a":' * 100_000, "more than 64 lists"),
    "deep but closed": ("[" * 200 + "]" * 200, "more than 64 lists"),
    "a key twice": ('{"a": 1, "a": 2}', "'a' stands twice"),
    "not a number": ('{"a": NaN}', "NaN is not a JSON number"),
    "infinite": ("[Infinity]", "Infinity is not a JSON number"),
    "too many digits": ("1" * 5000, "not valid JSON"),
    "cut": ('{"a": [1, 2', "is the file cut short"),
    "empty": ("", "not valid JSON"),
    "zeros": ("\0" * 100, "not valid JSON"),
}


@pytest.mark.parametrize("case", HOSTILE_JSON)
def test_hostile_json_is_one_line(case, tmp_path):
    words, message = HOSTILE_JSON[case]
    path = tmp_path / "p.json"
    path.write_text(words)
    with pytest.raises(ValueError, match=message) as found:
        files.read_json(path)
    line = str(found.value)
    assert "p.json" in line and "\n" not in line and len(line) < 400


def test_a_long_key_does_not_flood_the_message():
    key = json.dumps("k" * 10_000)
    with pytest.raises(ValueError) as found:
        parse_json(f"{{{key}: 1, {key}: 2}}", "x")
    assert len(str(found.value)) < 300


def test_bytes_that_are_no_text_and_files_that_are_too_long(tmp_path):
    path = tmp_path / "p.json"
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ValueError, match="p.json.*byte 7 is not UTF-8"):
        files.read_json(path)
    with pytest.raises(ValueError, match="p.json holds more than 5 bytes"):
        files.read_bytes(path, 5)
    with pytest.raises(ValueError, match="/dev/zero holds more than 1000 bytes"):
        files.read_bytes("/dev/zero", 1000)


def archive(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)


def header(shape, dtype="<f8"):
    words = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}\n"
    return b"\x93NUMPY\x01\x00" + len(words).to_bytes(2, "little") + words.encode()


@pytest.mark.parametrize(
    "data",
    [
        header((10**15,)),  # a petabyte that is not there
        header((3,)) + b"\0" * 8,
        header((-1,)) + b"\0" * 8,
        header((1,), "|O") + b"cos\nsystem\n(S'false'\ntR.",
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
        b"nothing",
    ],
    ids=["huge", "short", "negative", "pickle", "brackets", "no header"],
)
def test_hostile_arrays_are_one_line(tmp_path, data):
    path = tmp_path / "t.npz"
    archive(path, l=data)
    try:
        found = read_arrays(path)
    except ValueError as error:
        line = str(error)
        assert "t.npz is damaged" in line and "\n" not in line and len(line) < 300
    else:  # older NumPy gives what is no array as bytes
        assert found["l"] == b"nothing"


def test_archives_that_unpack_too_large_are_refused(tmp_path):
    path = tmp_path / "t.npz"
    archive(path, l=header((10**6,), "|u1") + b"\0" * 10**6)
    assert path.stat().st_size < 10_000 and read_arrays(path)["l"].size == 10**6
    begin = time.perf_counter()
    with pytest.raises(ValueError, match="unpacks to .* more than 100000"):
        read_arrays(path, 10**5)
    assert time.perf_counter() - begin < 1
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match="is damaged"):
        read_arrays(path)
    np.savez(path, a=np.arange(3))
    np.testing.assert_array_equal(read_arrays(path)["a"], [0, 1, 2])
