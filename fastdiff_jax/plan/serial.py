"""Plans as JSON: bit-exact, checked on the way in, written whole or not at all."""

import json
import math
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..files import write_whole
from ..guards import checked
from . import core
from .checks import validate
from .core import Plan

__all__ = ["from_json", "load", "save", "to_json"]

_FORMAT = "fastdiff_jax.plan/2"
_RECORDS = {name: getattr(core, name) for name in ("Level", "Row", "Start")}
_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def _encode(tree: Any) -> Any:
    if tree is None:
        return None
    if type(tree).__name__ in _RECORDS:
        fields = {k: _encode(v) for k, v in tree._asdict().items()}
        return {"record": type(tree).__name__, "fields": fields}
    if isinstance(tree, dict):
        return {"dict": {str(k): _encode(v) for k, v in tree.items()}}
    if isinstance(tree, list | tuple):
        return {type(tree).__name__: [_encode(v) for v in tree]}
    array = np.asarray(tree)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"a plan holds real numbers, cannot save {array.dtype}.")
    # repr is exact; infinities are words
    data = [v if math.isfinite(v) else repr(v) for v in array.ravel().tolist()]
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def _decode(node: Any) -> Any:
    if node is None:
        return None
    if "record" in node:
        record = _RECORDS[node["record"]]
        return record(**{k: _decode(v) for k, v in node["fields"].items()})
    if "dict" in node:
        return {k: _decode(v) for k, v in node["dict"].items()}
    for kind in (list, tuple):
        if kind.__name__ in node:
            return kind(_decode(v) for v in node[kind.__name__])
    dtype = np.dtype(node["dtype"])
    if dtype.kind not in "fiub":
        raise ValueError(f"dtype {dtype} is not a number")
    data = [_WORDS[v] if isinstance(v, str) else v for v in node["data"]]
    return np.asarray(data, dtype).reshape(node["shape"])


@checked
def to_json(plan: Plan) -> str:
    """The plan as JSON text; `from_json` gives it back bit for bit."""
    plan = jax.tree.map(np.asarray, plan)
    return json.dumps(
        {
            "format": _FORMAT,
            "matrix": plan.matrix,
            "reads": list(plan.reads),
            "end": _encode(plan.end),
            "start": _encode(plan.start),
            "rows": _encode(plan.rows),
        },
        allow_nan=False,
    )


@checked
def from_json(text: str, source: str = "plan JSON") -> Plan:
    """A plan from JSON text.

    Raises:
        ValueError: not JSON, not a plan, or weights that fail the checks.
    """
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{source} is not valid JSON ({error}); is the file cut short?"
        ) from error
    if not isinstance(tree, dict) or tree.get("format") != _FORMAT:
        found = tree.get("format") if isinstance(tree, dict) else type(tree).__name__
        raise ValueError(f"{source} must have format {_FORMAT!r}, got {found!r}.")
    try:
        plan = Plan(
            _decode(tree["rows"]),
            _decode(tree["end"]),
            _decode(tree["start"]),
            tuple(str(name) for name in tree["reads"]),
            bool(tree["matrix"]),
        )
        validate(plan)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(
            f"{source} is damaged: {type(error).__name__}: {error}."
        ) from error
    except ValueError as error:
        raise ValueError(f"{source} is damaged: {error}") from error
    return plan


@checked
def save(plan: Plan, path: str | os.PathLike[str]) -> None:
    """Write a plan to a file; the file appears whole or not at all."""
    text = to_json(plan).encode()
    write_whole(path, lambda file: file.write(text))


@checked
def load(path: str | os.PathLike[str]) -> Plan:
    """Read a plan from a file. ValueError names the file if it is damaged."""
    return from_json(Path(path).read_text(), str(path))
