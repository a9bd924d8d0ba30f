"""What every experiment's run.py shares: arguments, a store, one owner, whole files.

    run = runner.start(__doc__, __file__, SETTINGS, QUICK, figure)
    with run.held():
        for n in run.track(run.settings.steps):
            rows.append(run.store.once(f"{n} steps", lambda: measure(n)))
        run.write({"rows": rows})

`--quick` takes QUICK's settings and writes to out/quick, `--out DIR` to a folder of
one's own; what is committed beside run.py is written by a full run alone. Finished
records stand in a folder that bears the settings' hash, so that a killed run continues
and other settings never mix in.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import hashlib
import importlib.machinery
import importlib.util
import io
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from fastdiff_jax import files  # noqa: E402

T = TypeVar("T")
FOLLOW = "FASTDIFF_ENDS_WITH_STDIN"  # set for workers: their stdin is the parent's pipe
PATIENCE = 5.0  # seconds that a dying owner is given to let go of its store
_WRITING = threading.RLock()


# ------------------------------------------------------------------------- whole files


def write_whole(*parts: tuple[Path, bytes]) -> None:
    """Files that belong together, all or nothing; who is told to end finishes first."""
    with _WRITING:
        files.write_together([(p, lambda file, d=d: file.write(d)) for p, d in parts])


def write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """An npz file of named arrays."""
    buffer = io.BytesIO()
    np.savez(buffer, **{k: np.asarray(v) for k, v in arrays.items()})
    write_whole((path, buffer.getvalue()))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """What write_arrays wrote; one line if it is something else."""
    try:
        return files.read_arrays(path)
    except ValueError as error:
        raise SystemExit(f"{error} Remove it to measure again.") from error


class Store:
    """Records by key in a JSON-lines file, replaced whole with every new record."""

    def __init__(self, path: Path):
        self.path, self.rows = path, {}
        lines = path.read_bytes().splitlines() if path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                self.rows[row["key"]] = row
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise SystemExit(
                    f"{path}: line {number} is not a record; remove the line or the "
                    "file to measure again."
                ) from error

    def put(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add records, each with its `key`, and write the file."""
        new = self.rows | {row["key"]: row for row in rows}
        text = "".join(json.dumps(row) + "\n" for row in new.values())
        write_whole((self.path, text.encode()))
        self.rows = new

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """The value of a key, made and kept if it is not there yet."""
        if key not in self.rows:
            self.put([{"key": key, "value": make()}])
        return self.rows[key]["value"]


def plain(value: Any) -> Any:
    """A tree as strict JSON knows it: what is not finite is null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def dumps(value: Any, indent: int = 0) -> str:
    """Strict JSON; what fits on a line of 88 columns stands on one."""
    line = json.dumps(value, allow_nan=False)
    if not isinstance(value, (dict, list)) or indent + len(line) < 87:
        return line
    pad = " " * (indent + 1)
    if isinstance(value, list):
        inner = [pad + dumps(v, indent + 1) for v in value]
    else:
        heads = {k: f"{pad}{json.dumps(k)}: " for k in value}
        inner = [h + dumps(value[k], indent + 1) for k, h in heads.items()]
    ends = "[]" if isinstance(value, list) else "{}"
    return f"{ends[0]}\n" + ",\n".join(inner) + f"\n{' ' * indent}{ends[1]}"


# --------------------------------------------------------------- one owner, clean stops


def _lock(file: Any) -> bool:
    """Take the system's lock on an open file; it goes with the process."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(1 << 30)  # beyond the text, which others must be able to read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def hold(path: Path, patience: float = PATIENCE) -> Iterator[None]:
    """Be the only process that writes beside `path`, or say in one line who is.

    The lock is the system's: one left by a dead process is no lock.
    """
    with path.open("a+b") as file:
        end = time.monotonic() + patience
        while not _lock(file):
            if time.monotonic() > end:
                owner = path.read_text(errors="replace").strip() or "another process"
                raise SystemExit(
                    f"{path.parent} is in use by {owner}: wait for its end, stop it, "
                    "or name another folder with --out."
                )
            time.sleep(0.1)
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n"
                   .encode())  # fmt: skip
        file.flush()
        yield


class Stopped(BaseException):
    """A request to end, by SIGTERM."""


@contextlib.contextmanager
def stopping(words: str) -> Iterator[None]:
    """End by Ctrl-C or SIGTERM with one line, scratch files removed, workers ended."""

    def stop(number: int, frame: Any) -> None:
        del number, frame
        raise Stopped

    def lost(event: Any) -> None:
        # raised inside a destructor or a callback of the garbage collector, where
        # Python drops exceptions: end all the same
        if isinstance(event.exc_value, (Stopped, KeyboardInterrupt)):
            os._exit(143)
        hook(event)

    hook, sys.unraisablehook = sys.unraisablehook, lost
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (Stopped, KeyboardInterrupt) as error:
        print(f"stopped; {words}", file=sys.stderr)
        code = 143 if isinstance(error, Stopped) else 130
        raise SystemExit(code) from None
    finally:
        signal.signal(signal.SIGTERM, before)
        sys.unraisablehook = hook


def end_with_parent() -> None:
    """In a worker: end when the parent's pipe closes, which it does however it ends."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        _WRITING.acquire(timeout=10)
        os._exit(1)

    if os.environ.get(FOLLOW):
        threading.Thread(target=watch, daemon=True).start()


class Workers:
    """Processes that end with this one; a context manager."""

    def __init__(self) -> None:
        self.running: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> Workers:
        return self

    def start(self, name: str, command: list[str], log: Path) -> None:
        """Run a command whose output goes to a file."""
        with log.open("wb") as file:
            self.running[name] = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                env=os.environ | {FOLLOW: "1"},
            )

    def finished(self) -> dict[str, int]:
        """Exit codes of what has ended since the last call."""
        codes = {k: p.poll() for k, p in self.running.items()}
        done = {k: code for k, code in codes.items() if code is not None}
        for name in done:
            self._close(name)
        return done

    def _close(self, name: str) -> None:
        process = self.running.pop(name)
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __exit__(self, *_: object) -> None:
        for name in list(self.running):
            self._close(name)


# ------------------------------------------------------------------------------ a run


def compile_quickly() -> None:
    """For runs that spend more on compiling than on computing."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)


@contextlib.contextmanager
def progress(total: int | None = None) -> Iterator[Callable[..., None]]:
    """A live bar on a terminal, else a line per text.

    It yields `tick(text=None, advance=0)`.
    """
    done = 0

    def line(text: str | None = None, advance: int = 0) -> None:
        nonlocal done
        done += advance
        if text is not None:
            print(f"{done}/{total}  {text}" if total else text, flush=True)

    try:
        from rich.progress import Progress, SpinnerColumn, TimeElapsedColumn
    except ImportError:
        Progress = None
    if Progress is None or not sys.stdout.isatty():
        yield line
        return
    columns = (SpinnerColumn(), *Progress.get_default_columns(), TimeElapsedColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("starting", total=total)
        yield lambda text=None, advance=0: bar.update(
            task, description=text, advance=advance
        )


def pyplot() -> Any:
    """Matplotlib without a window."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams["figure.dpi"] = 110
    plt.rcParams["legend.fontsize"] = 8
    return plt


def script(name: str) -> Any:
    """A file of scripts/ as a module."""
    path = str(ROOT / "scripts" / name)
    loader = importlib.machinery.SourceFileLoader(name, path)
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def whole_ticks(axis: Any, values: Iterable[int], which: str = "x") -> None:
    """Plain numbers at places of a logarithmic axis, as far as it reaches."""
    own = getattr(axis, f"{which}axis")
    low, high = own.get_view_interval()
    shown = [v for v in values if 0.99 * low <= v <= 1.01 * high]
    own.set_ticks(shown, [f"{v:g}" for v in shown])
    own.set_ticks([], minor=True)


@dataclasses.dataclass
class Run:
    """One start of an experiment.

    Attributes:
        settings: what is measured, as attributes.
        quick: whether it is the small version.
        out: folder of result.json and figure.png.
        folder: folder of the finished records of these settings.
        args: the command's own arguments.
    """

    settings: SimpleNamespace
    quick: bool
    out: Path
    folder: Path
    args: argparse.Namespace
    figure: Callable[[dict, Run], Any]
    store: Store = dataclasses.field(init=False)

    @contextlib.contextmanager
    def held(self, name: str = "records") -> Iterator[None]:
        """Own the store while it is written to."""
        end_with_parent()
        words = f"what is finished is in {self.folder}: the same command continues."
        with stopping(words), hold(self.folder / f"{name}.lock"):
            self.store = Store(self.folder / f"{name}.jsonl")
            yield

    def track(self, items: Iterable[T], words: Callable[[T], str] = str) -> Iterator[T]:
        """The items, with a bar."""
        items = list(items)
        with progress(len(items)) as tick:
            for item in items:
                tick(words(item))
                yield item
                tick(advance=1)

    def arrays(self, name: str, make: Callable[[], dict] | None = None) -> dict:
        """Named arrays of the store, made and kept if they are not there yet."""
        path = self.folder / f"{name}.npz"
        if not path.exists():
            if make is None:
                raise SystemExit(f"{path} is not there: run without --redraw first.")
            write_arrays(path, make())
        return read_arrays(path)

    def clock(self, began: float) -> float:
        """Seconds of this start and of those before that were not cut off."""
        spent = self.store.rows.get("seconds", {"value": 0.0})["value"]
        spent = round(spent + time.time() - began, 1)
        self.store.put([{"key": "seconds", "value": spent}])
        return spent

    def picture(self, result: dict[str, Any]) -> bytes:
        """The figure of a result as PNG."""
        drawn, buffer = self.figure(result, self), io.BytesIO()
        drawn.savefig(buffer, format="png", metadata={"Software": None})
        pyplot().close(drawn)
        return buffer.getvalue()

    def write(self, result: dict[str, Any], **texts: str) -> None:
        """result.json, figure.png and other texts by name ("note.md" as `note`)."""
        found = plain(result)
        made = {"result.json": f"{dumps(found)}\n".encode()}
        made |= {"figure.png": self.picture(found)}
        made |= {f"{name}.md": text.encode() for name, text in texts.items()}
        write_whole(*((self.out / name, data) for name, data in made.items()))
        print(f"wrote {', '.join(made)} in {self.out}")


def start(
    doc: str | None,
    file: str,
    settings: dict[str, Any],
    quick: dict[str, Any],
    figure: Callable[[dict, Run], Any],
    *,
    more: Callable[[argparse.ArgumentParser], Any] | None = None,
    sources: Iterable[Path] = (),
) -> Run:
    """Read the arguments of an experiment.

    Args:
        doc, file: run.py's.
        settings, quick: its settings, and what --quick changes in them.
        figure: (result as JSON, run) -> a matplotlib figure.
        more: adds arguments of the experiment's own.
        sources: files whose content belongs to the settings.
    """
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=formatter)
    parser.add_argument("--quick", action="store_true", help="a small smoke version")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where results and records go"
    )
    parser.add_argument(
        "--redraw", action="store_true", help="figure.png from result.json alone"
    )
    if more is not None:
        more(parser)
    args = parser.parse_args()
    if args.quick:
        compile_quickly()
    unknown = set(quick) - set(settings)
    assert not unknown, f"--quick changes settings that are not there: {unknown}"
    chosen = settings | (quick if args.quick else {})
    mark = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode())
    for source in sources:
        mark.update(source.read_bytes())
    here = Path(file).resolve().parent
    out = args.out or (here / "out" / "quick" if args.quick else here)
    folder = out / "out" / mark.hexdigest()[:10]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {out}: {error.strerror}: name a folder that can be made.")
    run = Run(SimpleNamespace(**chosen), args.quick, out, folder, args, figure)
    if args.redraw:
        path = out / "result.json"
        if not path.exists():
            raise SystemExit(f"{path} is not there: run without --redraw first.")
        with run.held():
            picture = run.picture(json.loads(path.read_text()))
            write_whole((out / "figure.png", picture))
        print(f"wrote figure.png in {out}")
        raise SystemExit(0)
    return run
