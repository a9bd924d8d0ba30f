"""A plan as text: one line per evaluation, weights newest first as in the papers.

The registers are worked out of it again: each row's lines are followed back to the
sample as it stood, the evaluations in the method's own terms and the draws.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from ..guards import bounded, checked
from .core import Plan
from .forms import Form, lines_of
from .validity import readable

__all__ = ["Spelled", "columns", "spell", "table"]

_ROUNDING = 1e-13  # of weights that cancel when registers are worked out


@checked
def columns(plan: Plan) -> dict[str, np.ndarray]:
    """Named columns of numbers, each (rows,), zero ones left out.

    `x` is the weight of the sample as it stood before the row, `m0` this row's
    evaluation in the terms of the method, `m1`, `m2`... the ones before it, `z` this
    row's draw; `p:` marks the next point where it is not the sample. Weights by the
    element are means; plans of matrices or trees have the levels only.

    Raises:
        ValueError: a traced plan, or a stack of plans.
    """
    readable(plan, "a printed plan")
    out: dict[str, np.ndarray] = {}
    for name, level in zip(("t", "alpha", "sigma"), plan.rows.level, strict=True):
        for path, leaf in jax.tree_util.tree_leaves_with_path(level):
            values = np.asarray(leaf, np.float64).reshape(plan.length, -1)
            out[name + jax.tree_util.keystr(path)] = values.mean(-1)
    if plan.matrix or not isinstance(plan.rows.registers, np.ndarray):
        return out
    found: dict[str, np.ndarray] = {}
    for i, line in enumerate(spell(plan)):
        for prefix, words in (("", line.sample), ("p:", line.point or {})):
            for name, weight in words.items():
                column = found.setdefault(prefix + name, np.zeros(plan.length))
                column[i] = np.mean(weight)
    return out | {k: found[k] for k in sorted(found, key=_place) if np.any(found[k])}


def _place(name: str) -> tuple:
    """Order of the columns: the sample's first, then x, m, z by age."""
    word = name.removeprefix("p:")
    return (name != word, "xmz".index(word[0]), len(word), word)


class Spelled(NamedTuple):
    """A row in the terms of the paper: names as in `columns` -> weights.

    Attributes:
        sample: the sample after the row, in terms of the one before it.
        point: where the network is asked next, in terms of the sample after the row;
            None where it is the sample.
        moved: whether the row moves the sample.
    """

    sample: dict[str, Any]
    point: dict[str, Any] | None
    moved: bool


@checked
def spell(plan: Plan) -> list[Spelled]:
    """Every row of a plan of array weights in the terms of the paper.

    Raises:
        ValueError: a traced plan, or a stack of plans.
    """
    readable(plan, "a plan in words")
    x = Form({("x", 0): np.ones((1, *plan.rows.registers.shape[3:]))})
    held, sample, out = [x], x, []
    if plan.start is not None:
        held = [w[None] * x if np.any(w) else Form({}) for w in plan.start.x]
    held += [Form({})] * (plan.registers - len(held))
    for i in range(plan.length):
        if plan.rows.active is not None and not plan.rows.active[i]:
            out.append(Spelled({"x": np.ones(())}, None, False))
            continue
        lines, before = _lines(plan, i, held), sample
        after = lines[-1]
        moved = not _same(after, before)
        if moved:
            sample = Form({("x", i + 1): next(iter(x.parts.values()))})
            lines = [_again(form, after, sample) for form in lines]
            held = [_again(form, after, sample) for form in held]
        point = None if _same(lines[0], sample) else _named(lines[0], i)
        out.append(Spelled(_named(after if moved else before, i), point, moved))
        for number, k in enumerate(plan.rows.to[i]):
            held[int(k)] = lines[number]
    return out


def _lines(plan: Plan, i: int, held: list[Form]) -> list[Form]:
    """The lines of a row in words: the registers and predictions written out."""
    row = jax.tree.map(lambda w: w[i : i + 1], plan.rows)
    known = {("register", k): form for k, form in enumerate(held)}
    known |= {("noise",): Form({("z", i): 1.0}), ("one",): Form({})}
    for p in range(plan.predictions):
        known["prediction", p] = Form({(f"m{chr(39) + str(p) if p else ''}", i): 1.0})
    if plan.predictions == 1:  # D = (m - basis_0 x) / basis_1
        shift, scale = row.basis[:, 0], row.basis[:, 1]
        safe = np.where(scale == 0, 1.0, scale)
        known["prediction", 0] = np.where(scale == 0, 0.0, 1.0 / safe) * (
            known["prediction", 0] - shift * held[0]
        )
    return [_clean(line.put(known)) for line in lines_of(*row[3:5], *row[6:8])]


def _clean(form: Form) -> Form:
    """Without the weights that only rounding left."""
    most = max((np.max(np.abs(w)) for w in form.parts.values()), default=0.0)
    keep = {k: w for k, w in form.parts.items() if np.any(np.abs(w) > _ROUNDING * most)}
    return Form(keep)


def _same(one: Form, two: Form) -> bool:
    return one.parts.keys() == two.parts.keys() and all(
        np.allclose(w, two.parts[k], rtol=1e-12, atol=0) for k, w in one.parts.items()
    )


def _again(form: Form, sample: Form, fresh: Form) -> Form:
    """A form in terms of the new sample, in place of the one before it."""
    if _same(form, sample):
        return fresh
    old = [k for k in sample.parts if k[0] == "x"]
    if len(old) != 1 or old[0] not in form.parts or np.any(sample.parts[old[0]] == 0):
        return form
    share = form.parts[old[0]] / sample.parts[old[0]]
    rest = form - share * sample
    del rest.parts[old[0]]
    return _clean(rest + share * fresh)


def _named(form: Form, row: int) -> dict[str, Any]:
    """Column names: ages in place of row numbers."""
    out: dict[str, Any] = {}
    for (kind, at), weight in form.parts.items():
        letter, mark = kind[0], kind[1:]
        age = "" if letter == "x" or (letter == "z" and at == row) else str(row - at)
        name = f"{letter}{age}{mark}"
        out[name] = out.get(name, 0.0) + weight[0]
    return out


@checked
def table(plan: Plan, digits: int = 5) -> str:
    """The printable table.

    Args:
        plan: one plan of numbers.
        digits: significant digits, 1 to 17.

    Raises:
        ValueError: a traced plan, a stack, or other digits.

    Example:
        >>> import fastdiff_jax as fd
        >>> flow = fd.processes.flow()
        >>> print(fd.plan.table(fd.solvers.ddim(flow, [1.0, 0.5, 0.0])))
        row          t      alpha      sigma          x         m0
          0          1          0          1        0.5        0.5
          1        0.5        0.5        0.5          0          1
        end          0          1          0
    """
    digits, cols = bounded("digits", digits, 1, 17), columns(plan)
    active = plan.rows.active
    keep = np.ones(plan.length, bool) if active is None else np.asarray(active)
    width = {name: max(digits + 6, len(name) + 2) for name in cols}

    def line(head: str, values: list[float]) -> str:
        names = list(cols)[: len(values)]
        cells = [
            f"{v:{width[n]}.{digits}g}" for n, v in zip(names, values, strict=True)
        ]
        return f"{head:>3}" + "".join(cells)

    head = "row" + "".join(f"{n:>{width[n]}}" for n in cols)
    body = [
        line(str(int(plan.rows.index[i])), [float(c[i]) for c in cols.values()])
        for i in np.flatnonzero(keep)
    ]
    end = [float(np.mean(v)) for v in jax.tree.leaves(plan.end)]
    return "\n".join([head, *body, line("end", end)])
