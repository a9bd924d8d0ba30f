"""Plans as JSON: bit-exact, checked on the way in, written whole or not at all."""

import hashlib
import json
import math
import os
from typing import Any

import jax
import numpy as np

from ..files import MOST_TEXT, parse_json, read_json, short, write_whole
from ..guards import checked
from . import core
from .core import Plan
from .validity import readable, validate

__all__ = ["from_json", "load", "save", "to_json"]

_FORMAT = "fastdiff_jax.plan/2"
_RECORDS = {name: getattr(core, name) for name in ("Level", "Row", "Start")}
_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_KEYS = ("format", "matrix", "reads", "end", "start", "rows")
_DIGEST = "sha256"  # of the rest; a file edited by hand does without
_DTYPES = {
    name: np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"),
    )
}
_ENTRIES = {"b": (bool,), "i": (int,), "u": (int,), "f": (float, int, str)}


def _encode(tree: Any) -> Any:
    if tree is None:
        return None
    if type(tree) in _RECORDS.values():
        fields = {k: _encode(v) for k, v in tree._asdict().items()}
        return {"record": type(tree).__name__, "fields": fields}
    if isinstance(tree, dict | list | tuple):
        kind = type(tree)
        named = not isinstance(tree, dict) or all(isinstance(k, str) for k in tree)
        if kind not in (dict, list, tuple) or not named:
            raise ValueError(
                "controls are saved as dicts with names as keys, lists or tuples; "
                f"cannot save {short(tree)} of {kind.__name__}."
            )
        if isinstance(tree, dict):
            return {"dict": {k: _encode(v) for k, v in tree.items()}}
        return {kind.__name__: [_encode(v) for v in tree]}
    array = np.asarray(tree)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"a plan holds real numbers, cannot save {array.dtype}.")
    # repr is exact; infinities are words
    data = [v if math.isfinite(v) else repr(v) for v in array.ravel().tolist()]
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def _decode(node: Any) -> Any:
    if node is None:
        return None
    if not isinstance(node, dict):
        raise ValueError(f"a record was expected, got {short(node)!r}.")
    kinds = {"record", "dict", "list", "tuple", "dtype"} & node.keys()
    if len(kinds) != 1:
        raise ValueError(f"a record of keys {short(sorted(node))} is of no known kind.")
    kind = kinds.pop()
    if kind == "dtype":
        return _array(**_exactly(node, "dtype", "shape", "data"))
    if kind == "record":
        name, fields = _exactly(node, "record", "fields").values()
        record = _RECORDS.get(name) if isinstance(name, str) else None
        if record is None or not isinstance(fields, dict):
            raise ValueError(f"there is no record {short(name)!r} in a plan.")
        _exactly(fields, *record._fields)
        return record(**{k: _decode(v) for k, v in fields.items()})
    inside = _exactly(node, kind)[kind]
    if not isinstance(inside, dict if kind == "dict" else list):
        raise ValueError(f"a {kind} was expected, got {short(inside)!r}.")
    if isinstance(inside, dict):
        return {k: _decode(v) for k, v in inside.items()}
    return (list if kind == "list" else tuple)(_decode(v) for v in inside)


def _exactly(node: dict, *keys: str) -> dict[str, Any]:
    """The node in the order of the keys, which are all that it may have."""
    if set(node) != set(keys):
        raise ValueError(
            f"a record must have the keys {', '.join(keys)}; got {short(sorted(node))}."
        )
    return {k: node[k] for k in keys}


def _array(dtype: Any, shape: Any, data: Any) -> np.ndarray:
    """Numbers in their own dtype, where every entry is of its kind and range."""
    kind = _DTYPES.get(dtype) if isinstance(dtype, str) else None
    if kind is None:
        raise ValueError(f"dtype {short(dtype)!r} is not one of {', '.join(_DTYPES)}.")
    known = isinstance(shape, list) and isinstance(data, list)
    if not known or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(
            f"an array needs a shape of whole numbers >= 0 and a list of data, got "
            f"shape {short(shape)}."
        )
    if math.prod(shape) != len(data):
        raise ValueError(
            f"shape {short(shape)} needs {short(math.prod(shape))} entries, got "
            f"{len(data)}."
        )
    legal = _ENTRIES[kind.kind]
    for i, value in enumerate(data):
        if type(value) not in legal or (type(value) is str and value not in _WORDS):
            raise ValueError(f"entry {i} of {dtype} data is {short(repr(value))}.")
    try:
        words = [_WORDS[v] if type(v) is str else v for v in data]
        with np.errstate(over="ignore"):  # an infinity, which the checks will name
            return np.asarray(words, kind).reshape(shape)
    except OverflowError as error:
        raise ValueError(f"{dtype} data is out of range: {short(error)}.") from error


@checked
def to_json(plan: Plan) -> str:
    """The plan as JSON text; `from_json` gives it back bit for bit.

    Raises:
        ValueError: a traced plan, or one that `validate` refuses.
    """
    readable(plan, "to_json")
    plan = jax.tree.map(np.asarray, plan)
    validate(plan)
    tree = {
        "format": _FORMAT,
        "matrix": plan.matrix,
        "reads": list(plan.reads),
        "end": _encode(plan.end),
        "start": _encode(plan.start),
        "rows": _encode(plan.rows),
    }
    return json.dumps(tree | {_DIGEST: _digest(tree)}, allow_nan=False)


def _digest(tree: dict[str, Any]) -> str:
    """SHA-256 of the content, whatever its layout."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@checked
def from_json(text: str, source: str = "plan JSON") -> Plan:
    """A plan from JSON text.

    Args:
        text: from `to_json`.
        source: what to call it in an error message.

    Raises:
        ValueError: not JSON, not a plan, or weights that fail the checks.
    """
    if not isinstance(text, str):
        raise ValueError(f"{source} must be text, got {type(text).__name__}.")
    return _plan_of(parse_json(text, source), source)


def _plan_of(tree: Any, source: str) -> Plan:
    if not isinstance(tree, dict) or tree.get("format") != _FORMAT:
        found = tree.get("format") if isinstance(tree, dict) else type(tree).__name__
        raise ValueError(
            f"{source} must have format {_FORMAT!r}, got {short(found)!r}."
        )
    try:
        said = tree.pop(_DIGEST, None)
        _exactly(tree, *_KEYS)
        if not isinstance(tree["reads"], list):
            raise ValueError(f"reads must be a list, got {short(tree['reads'])!r}.")
        rows, end, start = (_decode(tree[name]) for name in ("rows", "end", "start"))
        plan = Plan(rows, end, start, tuple(tree["reads"]), tree["matrix"])
        validate(plan)
        if said not in (None, _digest(tree)):
            raise ValueError(
                f"its content is not what was written. If you changed it on purpose, "
                f"remove the entry {_DIGEST!r}."
            )
    except ValueError as error:
        raise ValueError(f"{source} is damaged: {error}") from error
    return plan


@checked
def save(plan: Plan, path: str | os.PathLike[str]) -> None:
    """Write a plan to a file; the file appears whole or not at all.

    Raises:
        ValueError: as `to_json`, or a text longer than `load` reads (256 MiB).
    """
    text = to_json(plan).encode()
    if len(text) > MOST_TEXT:
        raise ValueError(
            f"the plan takes {len(text)} bytes as JSON, more than the {MOST_TEXT} that "
            "are read back. Save its arrays with numpy.savez."
        )
    write_whole(path, lambda file: file.write(text))


@checked
def load(path: str | os.PathLike[str]) -> Plan:
    """Read a plan from a file.

    Raises:
        ValueError: a damaged file, by its name, or one of more than 256 MiB.
        OSError: it cannot be read.
    """
    return _plan_of(read_json(path), str(path))
