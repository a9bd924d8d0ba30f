"""What a plan may hold: refused when read, and when it is run, in one line."""

import dataclasses
import json
import pickle
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastdiff_jax as fd
from fastdiff_jax.plan.validity import valid

from . import contract_cases as cases

VP = fd.processes.vp_linear()
TS = VP.half_log_snr_inverse(np.linspace(-3, 3, 6))
UNIPC = fd.solvers.unipc(VP, TS)
NOISY = fd.solvers.ddim(VP, TS, eta=1.0)
PADDED = fd.plan.pad(UNIPC, 7)
MODEL = fd.models.gaussian(1.0, 0.1)
X = jnp.ones((4, 3))
NAN = np.nan


def rows(plan=UNIPC, **fields):
    return dataclasses.replace(plan, rows=plan.rows._replace(**fields))


def level(plan=UNIPC, **fields):
    return rows(plan, level=plan.rows.level._replace(**fields))


def end(**fields):
    return dataclasses.replace(UNIPC, end=UNIPC.end._replace(**fields))


def start(**fields):
    return dataclasses.replace(UNIPC, start=UNIPC.start._replace(**fields))


def put(array, at, value):
    array = np.array(array)
    array[at] = value
    return array


ROWS, LEVEL, END, START = UNIPC.rows, UNIPC.rows.level, UNIPC.end, UNIPC.start
DAMAGED = {
    "rows are a dict": (
        lambda: dataclasses.replace(UNIPC, rows=ROWS._asdict()),
        "rows must be a Row",
    ),
    "level None": (lambda: rows(level=None), r"rows\.level must be a Level"),
    "level a row": (lambda: rows(level=ROWS), r"rows\.level must be a Level, got Row"),
    "end None": (
        lambda: dataclasses.replace(UNIPC, end=None),
        "end must be a Level",
    ),
    "end a row": (lambda: dataclasses.replace(UNIPC, end=ROWS), "end must be a Level"),
    "start a level": (
        lambda: dataclasses.replace(UNIPC, start=LEVEL),
        "start must be a Start",
    ),
    "start.x None": (lambda: start(x=None), r"start\.x must hold a weight"),
    "start.x short": (lambda: start(x=START.x[:2]), r"start\.x must have 4 rows"),
    "start.x nan": (lambda: start(x=START.x * NAN), r"start\.x must be finite"),
    "start.x int": (
        lambda: start(x=START.x.astype(int)),
        r"start\.x must be float64 or float32",
    ),
    "start.noise inf": (
        lambda: start(noise=START.x + np.inf),
        r"start\.noise must be finite",
    ),
    "reads a list": (
        lambda: dataclasses.replace(UNIPC, reads=["data"]),
        "reads must be a ",
    ),
    "reads nothing": (lambda: dataclasses.replace(UNIPC, reads=()), "reads must be"),
    "reads twice": (
        lambda: dataclasses.replace(UNIPC, reads=("data", "data")),
        "each once",
    ),
    "reads a number": (lambda: dataclasses.replace(UNIPC, reads=(1,)), "reads must be"),
    "reads two": (
        lambda: dataclasses.replace(UNIPC, reads=("data", "noise")),
        "as many predictions as it reads: 2",
    ),
    "matrix no": (
        lambda: dataclasses.replace(UNIPC, matrix="no"),
        "matrix must be True or False",
    ),
    "matrix 1": (lambda: dataclasses.replace(UNIPC, matrix=1), "matrix must be"),
    "index float": (
        lambda: rows(index=ROWS.index + 0.0),
        r"rows\.index must be whole numbers on 1 axes, got float64",
    ),
    "index negative": (
        lambda: rows(index=ROWS.index - 1),
        r"rows\.index must be whole numbers >= 0, got -1 to 3",
    ),
    "index large": (
        lambda: rows(index=ROWS.index.astype(np.int64) + 2**31),
        r"rows\.index must be whole numbers >= 0",
    ),
    "index None": (lambda: rows(index=None), "must have at least one row"),
    "index twice": (
        lambda: rows(NOISY, index=np.zeros(5, np.int32)),
        "two rows of one number would draw the same",
    ),
    "to 99": (lambda: rows(to=put(ROWS.to, (2, 1), 99)), "0..3, got 0 to 99"),
    "to -5": (lambda: rows(to=put(ROWS.to, (2, 1), -5)), "0..3, got -5 to 2"),
    "to float": (lambda: rows(to=ROWS.to + 0.0), r"rows\.to must be whole numbers"),
    "to None": (lambda: rows(to=None), r"rows\.to must be whole numbers"),
    "to empty": (lambda: rows(to=ROWS.to[:, :0]), "lines|first write"),
    "registers nan": (
        lambda: rows(registers=put(ROWS.registers, (1, 0, 0), NAN)),
        "registers must be finite, got nan at row 1",
    ),
    "registers None": (lambda: rows(registers=None), "a plan needs registers"),
    "registers complex": (
        lambda: rows(registers=ROWS.registers + 0j),
        "registers must be float64 or float32",
    ),
    "registers half": (
        lambda: rows(registers=ROWS.registers.astype(np.float16)),
        "registers must be float64 or float32.*float16",
    ),
    "registers int8": (
        lambda: rows(registers=ROWS.registers.astype(np.int8)),
        "registers must be float64 or float32.*int8",
    ),
    "predictions None": (lambda: rows(predictions=None), "and 0 predictions"),
    "predictions list": (
        lambda: rows(predictions=ROWS.predictions.tolist()),
        "predictions.* must have 5 rows",
    ),
    "noise scalar": (lambda: rows(noise=1.0), "noise must have 5 rows"),
    "bias lines": (
        lambda: rows(bias=np.zeros((5, 2))),
        r"bias must have 3 lines .*got shape \(5, 2\)",
    ),
    "basis": (lambda: rows(basis=np.ones((5, 3))), "basis must have 2 entries"),
    "time nan": (
        lambda: level(time=LEVEL.time * NAN),
        r"level\.time must be finite, or -inf where it is clean, got nan",
    ),
    "time inf": (
        lambda: level(time=put(LEVEL.time, 0, np.inf)),
        r"level\.time must be finite, or -inf.* got inf",
    ),
    "alpha -1": (
        lambda: level(alpha=put(LEVEL.alpha, 2, -1)),
        r"level\.alpha must be >= 0, got -1.0 at row 2",
    ),
    "sigma -1": (
        lambda: level(sigma=put(LEVEL.sigma, 2, -1)),
        r"level\.sigma must be >= 0, got -1.0 at row 2",
    ),
    "both 0": (
        lambda: level(alpha=put(LEVEL.alpha, 2, 0), sigma=put(LEVEL.sigma, 2, 0)),
        "alpha > 0 or sigma > 0, got both 0 at row 2",
    ),
    "alpha text": (
        lambda: level(alpha=np.array(["1"] * 5)),
        r"level\.alpha must be a number, got <U1",
    ),
    "alpha (5, 3)": (
        lambda: dataclasses.replace(
            level(alpha=np.ones((5, 3))), end=END._replace(alpha=np.ones(3))
        ),
        "time, alpha and sigma of one shape",
    ),
    "end nan": (lambda: end(sigma=np.float64(NAN)), r"end\.sigma must be finite"),
    "end inf": (lambda: end(alpha=np.inf), r"end\.alpha must be finite"),
    "end negative": (lambda: end(sigma=-0.1), r"end\.sigma must be >= 0, got -0.1"),
    "end (3,)": (lambda: end(time=np.ones(3)), r"end\.time must have shape \(\)"),
    "end.time None": (lambda: end(time=None), r"end\.time must be a level"),
    "end all 0": (
        lambda: end(alpha=0.0, sigma=0.0),
        "alpha > 0 or sigma > 0, got both 0 at the end",
    ),
    "active none": (
        lambda: rows(PADDED, active=np.zeros(7, bool)),
        "at least one row that runs",
    ),
    "active int": (
        lambda: rows(PADDED, active=np.ones(7, int)),
        "active must be one truth value per row, got int64",
    ),
    "active scalar": (lambda: rows(PADDED, active=True), "active must be one truth"),
    "no rows": (
        lambda: dataclasses.replace(
            UNIPC, rows=jax.tree.map(lambda w: w[:0], UNIPC.rows)
        ),
        "must have at least one row",
    ),
    "a stack": (lambda: fd.plan.stack([UNIPC, NOISY]), "is a stack of 2 plans"),
    "controls text": (
        lambda: rows(controls={"model": np.array(["a"] * 5)}),
        "controls.*must be numbers",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_plans_are_refused_wherever_they_come_in(case):
    make, message = DAMAGED[case]
    try:
        plan = make()
    except ValueError as error:  # it cannot even be made
        assert re.search(message, str(error)) and "\n" not in str(error)
        return
    calls = [
        lambda: fd.plan.validate(plan),
        lambda: fd.sample(plan, MODEL, X, key=jax.random.key(0)),
        lambda: fd.init(plan, X, jax.random.key(0)),
        lambda: fd.run(plan, MODEL, fd.init(UNIPC, X)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message) as found:
            call()
        assert "\n" not in str(found.value) and len(str(found.value)) < 400


@pytest.mark.parametrize("name", cases.NAMES)
def test_what_solvers_make_is_valid(name):
    """Each registered solver, quiet and with noise, padded, sliced, on a device."""
    for plan in (cases.build(name), cases.loud(name)):
        for made in (plan, cases.padded(plan), fd.plan.slice_rows(plan, 0, 2)):
            fd.plan.validate(made)
            fd.plan.validate(jax.tree.map(jnp.asarray, made))
    jax.jit(lambda p: (fd.plan.validate(p), 0.0)[1])(cases.build(name))


def test_levels_may_go_up_and_be_pinned_at_the_start():
    churned = fd.solvers.edm_churn(VP, TS, s_churn=2.0)
    assert (np.diff(churned.rows.level.time) > 0).any()
    fd.plan.validate(churned)
    bridge = cases.build("two_endpoint")
    assert bridge.rows.level.alpha[0] == bridge.rows.level.sigma[0] == 0
    fd.plan.validate(bridge)


def test_a_plan_is_checked_once_and_quickly():
    plan = fd.solvers.unipc(VP, TS)
    begin = time.perf_counter()
    for _ in range(200):
        fd.plan.validate(plan)
    each = (time.perf_counter() - begin) / 200
    valid(plan)
    begin = time.perf_counter()
    for _ in range(200):
        valid(plan)
    again = (time.perf_counter() - begin) / 200
    assert each < 2e-3 and again < 1e-4  # 5e-5 and 3e-7 on an idle machine
    assert again < each / 5


def test_a_copy_is_checked_anew():
    """The memory of good plans is of objects: no copy inherits a good name."""
    plan = valid(fd.solvers.unipc(VP, TS))
    for copy in (dataclasses.replace(plan), pickle.loads(pickle.dumps(plan))):
        copy.rows.to[0, 1] = 99
        with pytest.raises(ValueError, match="0..3, got"):
            fd.sample(copy, MODEL, X)


def test_single_rows_and_states_of_other_plans():
    state, step = fd.init(UNIPC, X), fd.step
    row = jax.tree.map(lambda w: w[0], UNIPC.rows)
    step(state, row, MODEL)
    with pytest.raises(ValueError, match="row must be one Row of a plan, got several"):
        step(state, UNIPC.rows, MODEL)
    with pytest.raises(ValueError, match="row must be a Row, got a Plan"):
        step(state, UNIPC, MODEL)
    with pytest.raises(ValueError, match="0..3, got 0 to 9"):
        step(state, row._replace(to=np.array([0, 9])), MODEL)
    with pytest.raises(ValueError, match="predictions must be finite"):
        step(state, row._replace(predictions=row.predictions * NAN), MODEL)
    other = fd.init(fd.solvers.ddim(VP, TS), X)
    with pytest.raises(ValueError, match="keeps 4 registers and the state holds 1"):
        step(other, row, MODEL)
    with pytest.raises(ValueError, match="keeps 4 registers and the state holds 1"):
        fd.run(UNIPC, MODEL, other)


def test_a_slice_that_needs_older_rows_does_not_start():
    for plan in (UNIPC, fd.solvers.dpmpp_2m(VP, TS), NOISY):
        part = fd.plan.slice_rows(plan, 3)
        if plan is NOISY:  # one-step methods may
            fd.sample(part, MODEL, X, key=jax.random.key(0))
            continue
        with pytest.raises(ValueError, match="goes on from what other rows left"):
            fd.sample(part, MODEL, X)


STACK = fd.plan.stack([UNIPC, NOISY])
TOOLS = {
    "pad 7.5": (lambda: fd.plan.pad(UNIPC, 7.5), "length must be a whole number"),
    "pad '8'": (lambda: fd.plan.pad(UNIPC, "8"), "length must be a whole number"),
    "pad nan": (
        lambda: fd.plan.pad(UNIPC, NAN),
        "whole number or None, got nan",
    ),
    "pad 10**12": (lambda: fd.plan.pad(UNIPC, 10**12), "length must be in 5..1000000"),
    "pad True": (lambda: fd.plan.pad(UNIPC, True), "length"),
    "pad registers": (
        lambda: fd.plan.pad(UNIPC, registers=10**9),
        "registers must be in 0..10000",
    ),
    "pad writes": (lambda: fd.plan.pad(UNIPC, writes=2.5), "writes must be a whole"),
    "pad a stack": (lambda: fd.plan.pad(STACK, 9), "is a stack of 2 plans"),
    "pad rows": (lambda: fd.plan.pad(ROWS, 9), "plan must be a plan, got a Row"),
    "stack a stack": (lambda: fd.plan.stack([STACK, UNIPC]), "is a stack of 2 plans"),
    "stack a plan": (lambda: fd.plan.stack(UNIPC), "plans must be a sequence"),
    "stack None": (lambda: fd.plan.stack([UNIPC, None]), "each a plan"),
    "slice 1.5": (lambda: fd.plan.slice_rows(UNIPC, 1.5), "start must be a whole"),
    "slice 'a'": (lambda: fd.plan.slice_rows(UNIPC, 0, "a"), "stop must be a whole"),
    "slice a stack": (lambda: fd.plan.slice_rows(STACK, 0, 1), "is a stack of 2"),
    "digits -3": (lambda: fd.plan.table(UNIPC, -3), "digits must be in 1..17"),
    "digits 'a'": (lambda: fd.plan.table(UNIPC, "a"), "digits must be a whole"),
    "table of a stack": (lambda: fd.plan.table(STACK), "is a stack of 2 plans"),
    "json of a stack": (lambda: fd.plan.to_json(STACK), "is a stack of 2 plans"),
    "json of text": (lambda: fd.plan.to_json("a"), "plan must be a plan, got 'a'"),
    "nfe of a stack": (lambda: STACK.nfe, "of one plan outside jit, got a stack"),
    "sample None": (lambda: fd.sample(None, MODEL, X), "plan must be a plan"),
    "from_json None": (lambda: fd.plan.from_json(None), "text must be text, got None"),
}


@pytest.mark.parametrize("case", TOOLS)
def test_tools_refuse_in_one_line(case):
    call, message = TOOLS[case]
    with pytest.raises(ValueError, match=message) as found:
        call()
    assert "\n" not in str(found.value) and len(str(found.value)) < 400


def test_a_stack_knows_its_sizes_and_runs_under_vmap():
    sizes = (STACK.length, STACK.registers, STACK.writes)
    assert sizes == (5, UNIPC.registers, UNIPC.writes)
    out = jax.vmap(lambda p: fd.sample(p, MODEL, X, key=jax.random.key(0)))(STACK)
    for got, plan in zip(out, (UNIPC, NOISY), strict=True):
        want = fd.sample(plan, MODEL, X, key=jax.random.key(0))
        np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda p: p.nfe, "nfe is the number of one plan outside jit, got a traced"),
        (str, "a printed plan needs a plan of numbers, got a traced one"),
        (fd.plan.columns, "needs a plan of numbers"),
        (fd.plan.spell, "needs a plan of numbers"),
        (fd.plan.to_json, "to_json needs a plan of numbers, got a traced one"),
    ],
)
def test_traced_plans_are_named(use, message):
    with pytest.raises(ValueError, match=message):
        jax.jit(lambda p: (use(p), 0.0)[1])(PADDED)
    if use not in (str,):
        use(PADDED)


# ------------------------------------------------------------------------------- JSON


def edited(change, plan=UNIPC):
    """The JSON text of a plan after a change of its tree, its digest left out."""
    tree = json.loads(fd.plan.to_json(plan))
    del tree["sha256"]
    found = change(tree)
    return json.dumps(tree if found is None else found)


def field(tree, *names):
    for name in names:
        tree = tree["fields"][name] if "fields" in tree else tree[name]
    return tree


def setting(*names, **values):
    return lambda tree: field(tree, *names).update(values)


def putting(names, value):
    *path, last = names

    def change(tree):
        at = field(tree, *path)
        (at["fields"] if "fields" in at else at)[last] = value

    return change


NUMBERS = {"dtype": "float64", "shape": [5], "data": [1.0] * 5}
JSON = {
    "start null array": (putting(("start", "x"), None), "start.x must hold"),
    "anchor 1e300": (
        lambda tree: field(tree, "rows", "registers")["data"].__setitem__(0, 1e999),
        "Infinity is not a JSON number",
    ),
    "registers int8": (setting("rows", "registers", dtype="int8"), "entry 0 of int8"),
    "registers bool": (setting("rows", "registers", dtype="bool"), "entry 0 of bool"),
    "registers float16": (
        setting("rows", "registers", dtype="float16"),
        "registers must be float64 or float32",
    ),
    "to of shape (5, 0)": (
        putting(("rows", "to"), {"dtype": "int32", "shape": [5, 0], "data": []}),
        "lines|first write",
    ),
    "sigma negative": (
        setting("rows", "level", "sigma", data=[-1.0] * 5),
        "level.sigma must be >= 0",
    ),
    "end null": (putting(("end",), None), "end must be a Level"),
    "end a row": (
        lambda tree: tree.update(end=tree["rows"]),
        "end must be a Level, got a Row",
    ),
    "end.time (3,)": (
        putting(("end", "time"), NUMBERS | {"shape": [3], "data": [1.0] * 3}),
        "end.time must have shape",
    ),
    "matrix no": (lambda tree: tree.update(matrix="no"), "True or False, got 'no'"),
    "reads text": (lambda tree: tree.update(reads="data"), "reads must be a list"),
    "reads numbers": (lambda tree: tree.update(reads=[1]), "reads must be a"),
    "index negative": (
        setting("rows", "index", data=[-1, 0, 1, 2, 3]),
        "index must be whole numbers >= 0",
    ),
    "index float": (setting("rows", "index", dtype="float64"), "index must be whole"),
    "shape -1": (setting("rows", "index", shape=[-1]), "a shape of whole numbers"),
    "shape true": (setting("end", "time", shape=[True]), "a shape of whole numbers"),
    "shape huge": (
        setting("rows", "index", shape=[10**400]),
        "shape .* needs .* entries",
    ),
    "10**400": (
        setting("rows", "level", "time", data=[10**400] * 5),
        "float64 data is out of range",
    ),
    "uint8 300": (
        setting("rows", "index", dtype="uint8", data=[300, 1, 2, 3, 4]),
        "uint8 data is out of range",
    ),
    "float32 1e300": (
        setting("rows", "level", "sigma", dtype="float32", data=[1e300] * 5),
        "level.sigma must be finite",
    ),
    "data text": (setting("rows", "index", data=["a"] * 5), "entry 0 of int32"),
    "data word in ints": (setting("rows", "index", data=["nan"] * 5), "entry 0 of"),
    "data null": (setting("rows", "index", data=[None] * 5), "entry 0 of int32"),
    "data nested": (setting("rows", "index", data=[[1]] * 5), "entry 0 of int32"),
    "dtype object": (setting("rows", "index", dtype="object"), "'object' is not one"),
    "dtype list": (setting("rows", "index", dtype=["int32"]), "is not one of bool"),
    "dtype structured": (setting("rows", "index", dtype="f8,f8"), "is not one of"),
    "record unknown": (
        lambda tree: tree["rows"].update(record="Plan"),
        "no record 'Plan'",
    ),
    "record list": (lambda tree: tree["rows"].update(record=[]), "there is no record"),
    "a field more": (
        putting(("rows", "extra"), None),
        "must have the keys index, level",
    ),
    "a key more": (lambda tree: tree.update(extra=1), "must have the keys format"),
    "fields null": (lambda tree: tree["rows"].update(fields=None), "no record 'Row'"),
    "rows a number": (lambda tree: tree.update(rows=3), "a record was expected, got"),
    "two kinds": (lambda tree: tree["end"].update(dict={}), "of no known kind"),
    "controls a number": (putting(("rows", "controls"), 3), "a record was expected"),
    "no object": (lambda tree: [tree], "must have format"),
    "format a list": (lambda tree: tree.update(format=[1]), "must have format"),
    "no rows": (lambda tree: tree.__delitem__("rows"), "must have the keys"),
}


@pytest.mark.parametrize("case", JSON)
def test_damaged_files_are_one_line_with_their_name(case, tmp_path):
    change, message = JSON[case]
    path = tmp_path / "p.json"
    path.write_text(edited(change))
    with pytest.raises(ValueError, match=message) as found:
        fd.plan.load(path)
    line = str(found.value)
    assert "p.json" in line and "\n" not in line and len(line) < 400


def test_any_single_change_of_a_file_is_noticed():
    """Whatever the checks cannot know, the digest of the content does."""
    text = fd.plan.to_json(NOISY)
    plain = json.loads(text)
    rng, changed = np.random.default_rng(0), 0
    for _ in range(150):
        at = int(rng.integers(len(text)))
        other = text[:at] + "0123456789"[rng.integers(10)] + text[at + 1 :]
        try:
            if json.loads(other) == plain:
                continue
        except ValueError:
            pass
        changed += 1
        with pytest.raises(ValueError):
            fd.plan.from_json(other)
    assert changed > 100


def test_a_file_edited_by_hand_says_how_to_be_read():
    tree = json.loads(fd.plan.to_json(UNIPC))
    tree["rows"]["fields"]["level"]["fields"]["time"]["data"][0] = 0.9
    with pytest.raises(ValueError, match="remove the entry 'sha256'"):
        fd.plan.from_json(json.dumps(tree))
    del tree["sha256"]
    assert fd.plan.from_json(json.dumps(tree)).rows.level.time[0] == 0.9
    assert fd.plan.from_json(json.dumps(tree, indent=2)).nfe == 5


@pytest.mark.parametrize("name", cases.NAMES)
def test_every_plan_survives_a_file(name):
    plan = cases.padded(cases.loud(name))
    back = fd.plan.from_json(fd.plan.to_json(plan))
    jax.tree.map(np.testing.assert_array_equal, plan, back)
    assert (back.reads, back.matrix) == (plan.reads, plan.matrix)


def test_controls_that_would_not_come_back_are_not_saved():
    class Own(dict):
        pass

    for controls in ({1: np.ones(5)}, Own(model=np.ones(5))):
        jax.tree_util.register_pytree_node(
            Own, lambda d: ((d["model"],), None), lambda _, v: Own(model=v[0])
        ) if isinstance(controls, Own) else None
        with pytest.raises(ValueError, match="dicts with names as keys"):
            fd.plan.to_json(rows(controls=controls))
    with pytest.raises(ValueError, match="registers must be finite"):
        fd.plan.to_json(rows(registers=ROWS.registers * NAN))
