"""Files that appear whole or not at all, and that are read within limits.

A write goes to a hidden neighbour, `.name.XXXXXXXX.tmp`, which takes the file's place
by a rename once it is on the disk. What a killed writer left behind is removed by the
next write of the same file.

Limits of what is read: JSON up to 256 MiB and 64 levels deep, npz archives up to 4 GiB
unpacked.
"""

import contextlib
import errno
import json
import os
import secrets
import stat
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

try:
    import fcntl
except ImportError:  # no locks on this system: nothing is cleaned up, either
    fcntl = None

__all__ = ["folder_of", "parse_json", "read_arrays", "read_bytes", "read_json", "short"]
__all__ += ["target_of", "write_together", "write_whole"]

StrPath = str | os.PathLike[str]
Write = Callable[[BinaryIO], Any]

MOST_TEXT = 2**28  # bytes of JSON: parsed, they take some ten times as much
MOST_ARRAYS = 2**32  # bytes of an archive's arrays
_DEPTH = 64  # of lists and records inside one another
_TMP = ".tmp"


# ----------------------------------------------------------------------------- writing


def write_whole(path: StrPath, write: Write) -> None:
    """Write through a hidden neighbour and rename it: a kill leaves the old file.

    A link stays a link and its target is replaced; an existing file keeps its mode, a
    new one gets the umask's. The bytes are on the disk before the name is.

    Args:
        path: where; its folder exists.
        write: gets the open binary file.

    Raises:
        ValueError: the path is there and is no regular file.
        OSError: what the system refuses, under the given path's name.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "a.txt"
        ...     write_whole(path, lambda f: f.write(b"whole"))
        ...     path.read_text()
        'whole'
    """
    write_together([(path, write)])


def write_together(parts: Sequence[tuple[StrPath, Write]]) -> None:
    """Write files that belong together: never one of this run beside one of another.

    All are written in full before the first is renamed. The first, which the others can
    be made from again, is there at every moment, old or new; the old others go before
    it changes, and the new ones come after.

    Args:
        parts: (path, write) as in `write_whole`, the data before its pictures.

    Raises:
        ValueError: one file named twice; else as `write_whole`.
        OSError: as `write_whole`; the old files are still there.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     at = pathlib.Path(folder)
        ...     data, picture = at / "data", at / "picture"
        ...     write_together([(data, lambda f: f.write(b"1")),
        ...                     (picture, lambda f: f.write(b"one"))])
        ...     sorted(p.name for p in at.iterdir())
        ['data', 'picture']
    """
    ready: list[tuple[StrPath, Path, Path]] = []
    with contextlib.ExitStack() as stack:
        for path, write in parts:
            target = target_of(path)
            if any(target == other for _, other, _ in ready):
                raise ValueError(f"{path} is to be written twice. Give each its own.")
            scratch = stack.enter_context(_scratch(path, target, write))
            ready.append((path, target, scratch))
        folders = sorted({target.parent for _, target, _ in ready})
        handles = [stack.enter_context(_folder(folder)) for folder in folders]
        for path, target, _ in ready[1:]:
            with _named(path, target):
                target.unlink(missing_ok=True)
        _sync(handles if ready[1:] else [])
        for path, target, scratch in ready:
            with _named(path, scratch):
                os.replace(scratch, target)
        _sync(handles)


def folder_of(path: StrPath) -> Path:
    """The folder of a file, made if it is not there.

    Raises:
        OSError: it cannot be made, such as one below a file.
    """
    folder = Path(path).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        there = isinstance(error, FileExistsError | NotADirectoryError)
        why = "a file has its name" if there else error.strerror
        reason = f"cannot make the folder: {why}"
        raise OSError(error.errno, reason, str(folder)) from error
    return folder


def target_of(path: StrPath) -> Path:
    """The file that a path means, links followed.

    Raises:
        ValueError: an empty path, or one that is there and is no regular file.
        OSError: a folder that is not there, or a file that may not be written.
    """
    if not os.fspath(path):
        raise ValueError("a path to write to must name a file, got ''.")
    target = Path(os.path.realpath(path))
    with _named(path, target):
        try:
            mode = target.lstat().st_mode
        except FileNotFoundError:
            if not target.parent.is_dir():
                reason = "its folder is not there"
                raise FileNotFoundError(errno.ENOENT, reason) from None
            return target
        if not stat.S_ISREG(mode):
            kind = next((n for n, test in _KINDS.items() if test(mode)), "special file")
            raise ValueError(
                f"{path} is a {kind}, and only regular files are written whole. Give "
                "the path of a file."
            )
        if not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, "the file is read-only")
    return target


_KINDS = {
    "folder": stat.S_ISDIR,
    "device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
    "pipe": stat.S_ISFIFO,
    "socket": stat.S_ISSOCK,
    "loop of links": stat.S_ISLNK,
}


@contextlib.contextmanager
def _named(path: StrPath, *ours: Path) -> Iterator[None]:
    """Errors of the system, under the name that the caller knows."""
    try:
        yield
    except OSError as error:
        if error.filename is not None and str(error.filename) not in map(str, ours):
            raise
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"cannot write: {reason}", str(path)) from error


@contextlib.contextmanager
def _scratch(path: StrPath, target: Path, write: Write) -> Iterator[Path]:
    """A hidden neighbour of the target with what is written, gone at the end."""
    with contextlib.suppress(OSError):  # a folder that may not be listed
        _sweep(target)
    scratch, handle = _opened(path, target)
    try:
        with os.fdopen(handle, "wb") as file:
            with _named(path, scratch):
                write(file)
                file.flush()
                os.fsync(file.fileno())
            if fcntl is None:  # where an open file cannot be renamed
                file.close()
            yield scratch  # open, and so locked
    finally:
        scratch.unlink(missing_ok=True)


def _prefix(target: Path) -> str:
    return f".{target.name[:40]}."  # a longer name might not be legal


def _opened(path: StrPath, target: Path) -> tuple[Path, int]:
    """A new hidden neighbour, locked as long as it is open, with the target's mode."""
    try:
        old = target.stat()
    except FileNotFoundError:
        old = None
    while True:
        name = f"{_prefix(target)}{secrets.token_hex(4)}{_TMP}"
        scratch = target.with_name(name)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
        with _named(path, scratch):
            handle = os.open(scratch, flags, 0o666 if old is None else 0o600)
        if not _lock(handle) or not scratch.exists():  # swept before it was locked
            os.close(handle)
            continue
        if old is not None:
            with contextlib.suppress(OSError, AttributeError):  # not ours to give away
                os.chown(scratch, old.st_uid, old.st_gid)
            with contextlib.suppress(OSError):  # else it stays private
                os.chmod(scratch, stat.S_IMODE(old.st_mode))
        return scratch, handle


def _lock(handle: int) -> bool:
    """Whether nobody else holds the open file; it is held until it is closed."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _sweep(target: Path) -> None:
    """Remove what killed writers of the file left: what nobody has locked."""
    if fcntl is None:
        return
    head = _prefix(target)
    for name in os.listdir(target.parent):
        middle = name[len(head) : -len(_TMP)]
        if not (name.startswith(head) and name.endswith(_TMP) and len(middle) == 8):
            continue
        left = target.with_name(name)
        with contextlib.suppress(OSError):
            handle = os.open(left, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
            finally:
                os.close(handle)


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[int | None]:
    """A folder, locked: files that belong together change places one run at a time."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # a folder that may not be listed, or no such thing
        yield None
        return
    try:
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def _sync(handles: Sequence[int | None]) -> None:
    """The folders' new names on the disk, where the file system can say so."""
    for handle in handles:
        if handle is not None:
            with contextlib.suppress(OSError):
                os.fsync(handle)


# ----------------------------------------------------------------------------- reading


def read_bytes(path: StrPath, most: int = MOST_TEXT) -> bytes:
    """A file's bytes.

    Raises:
        ValueError: it holds more than `most` bytes, or an empty path.
        OSError: it cannot be read.
    """
    if not os.fspath(path):
        raise ValueError("a path to read must name a file, got ''.")
    with open(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(
            f"{path} holds more than {most} bytes, the most that is read. Is it the "
            "right file?"
        )
    return data


def read_json(path: StrPath, most: int = MOST_TEXT) -> Any:
    """What a JSON file holds, see `parse_json`."""
    try:
        text = read_bytes(path, most).decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not valid JSON: byte {error.start} is not UTF-8."
        ) from error
    return parse_json(text, str(path))


def parse_json(text: str, source: str) -> Any:
    """What a JSON text holds; numbers that JSON has not, and keys given twice, are not.

    Args:
        text: the JSON.
        source: what to call it in an error message.

    Raises:
        ValueError: not JSON, a key twice in one record, NaN or infinity as a number,
            or more than 64 lists and records inside one another.

    Example:
        >>> parse_json('{"a": [1, 2.5]}', "example")
        {'a': [1, 2.5]}
    """
    try:
        tree = json.loads(text, object_pairs_hook=_record, parse_constant=_constant)
        deep = _deeper([tree], _DEPTH)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{source} is not valid JSON ({error}); is the file cut short?"
        ) from error
    except RecursionError:
        tree, deep = None, True
    except MemoryError as error:
        raise ValueError(f"{source} does not fit into the memory.") from error
    except ValueError as error:
        raise ValueError(f"{source} is not valid JSON ({short(error)}).") from error
    if deep:
        raise ValueError(
            f"{source} is damaged: more than {_DEPTH} lists and records stand inside "
            "one another."
        ) from None
    return tree


def _record(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {short(name)!r} stands twice in one record")
        found[name] = value
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _deeper(tree: Any, most: int) -> bool:
    """Whether lists and records stand deeper inside one another than `most`."""
    for value in tree.values() if type(tree) is dict else tree:
        if type(value) in (dict, list) and (not most or _deeper(value, most - 1)):
            return True
    return False


def short(value: Any, most: int = 80) -> str:
    """A value in one line of at most `most` characters, for a message."""
    text = " ".join(str(value).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def read_arrays(path: StrPath, most: int = MOST_ARRAYS) -> dict[str, np.ndarray]:
    """The arrays of an npz file; nothing is unpickled.

    Raises:
        ValueError: damaged, not an npz file, or arrays of more than `most` bytes.
        OSError: it cannot be opened.
    """
    if not os.fspath(path):
        raise ValueError("a path to read must name a file, got ''.")
    with open(path, "rb") as raw:
        try:
            with zipfile.ZipFile(raw) as archive:
                size = sum(part.file_size for part in archive.infolist())
            if size > most:
                raise ValueError(f"it unpacks to {size} bytes, more than {most}")
            raw.seek(0)
            with np.load(raw, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except Exception as error:  # whatever parsers trip over in foreign bytes
            raise ValueError(
                f"{path} is damaged or not an npz file: {short(error)}."
            ) from error
