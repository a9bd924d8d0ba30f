"""Imports flow one way, extras stay out of the import, functions fit a screen."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "fastdiff_jax"
GROUND = ("typing", "guards", "trees", "programs", "hooks", "files", "states")
# The house, floor by floor: a room may import rooms of lower lines only, and of those
# only what its line names. A room that is not here may not be.
FLOORS = {
    "typing": (),
    "guards": ("typing",),
    "trees": ("guards",),
    "programs": ("trees",),
    "files": (),
    "hooks": ("typing",),
    "states": ("typing", "guards"),
    "numerics": ("typing", "guards"),
    "processes": (*GROUND, "numerics"),
    "grids": (*GROUND, "numerics"),
    "plan": (*GROUND, "numerics", "grids"),
    "noise": (*GROUND, "numerics", "plan"),
    "starts": (*GROUND, "numerics", "plan", "noise"),
    "solvers": (*GROUND, "numerics", "plan"),
    "models": (*GROUND, "numerics"),
    "transforms": (*GROUND, "numerics"),
    "guidance": (*GROUND, "numerics"),
    "engine": (*GROUND, "numerics", "plan", "noise"),
    "moves": (*GROUND, "numerics", "plan", "noise", "engine"),
    "policy": (*GROUND, "numerics", "plan", "noise", "engine"),
    "analysis": (*GROUND, "numerics", "processes", "plan"),
    "augmented": (*GROUND, "numerics", "processes", "plan", "starts", "solvers"),
    "continuous": (
        *(*GROUND, "numerics", "processes", "plan", "noise", "solvers"),
        *("models", "engine"),
    ),
    "restore": (
        *(*GROUND, "numerics", "processes", "plan", "starts", "solvers", "models"),
        "engine",
    ),
    "interop": (
        *(*GROUND, "numerics", "processes", "grids", "plan", "solvers", "models"),
        *("transforms", "engine"),
    ),
    "tune": (
        *(*GROUND, "numerics", "processes", "grids", "plan", "noise", "starts"),
        *("solvers", "models", "transforms", "guidance", "engine", "analysis"),
    ),
    "reports": (*GROUND, "numerics", "plan", "analysis"),
}
ANYWHERE = ("__init__", "cli")  # the door and the command line see all rooms
SCREEN, SUBJECT = 60, 500


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """(room, module) of every import of the package in a file."""
    here = ["fastdiff_jax", *path.relative_to(PACKAGE).with_suffix("").parts]
    if path.name == "__init__.py":
        here = [*here[:-1], "__init__"]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = here[: -node.level] if node.level else []
            name = [*base, *(node.module or "").split(".")] if node.module else base
            targets = [name] if len(name) > 1 else [[*name, a.name] for a in node.names]
            for target in targets:
                if target[0] == "fastdiff_jax":
                    yield target[1] if len(target) > 1 else "", target[1:]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "fastdiff_jax":
                    yield "fastdiff_jax", alias.name.split(".")


def test_a_room_imports_what_its_line_allows():
    below = {name: list(FLOORS)[:i] for i, name in enumerate(FLOORS)}
    for name, allowed in FLOORS.items():
        assert set(allowed) <= set(below[name]), f"{name} would import a higher floor"
    wrong = []
    for path in modules():
        room = room_of(path)
        if room in ANYWHERE:
            continue
        assert room in FLOORS, f"{room} has no line in FLOORS"
        wrong += [
            f"{path.relative_to(PACKAGE)} imports {target}"
            for target, _ in imports(path)
            if target not in (*FLOORS[room], room)
        ]
    assert wrong == []


def test_nothing_else_stands_in_the_root():
    found = {p.stem for p in PACKAGE.glob("*.py")}
    assert found == {"__init__", *GROUND, "starts"} - {"guards"}  # a room of its own


def test_no_solver_imports_another_family():
    """Helpers that a room shares begin with an underscore."""
    for path in (PACKAGE / "solvers").rglob("*.py"):
        if path.name == "__init__.py":
            continue
        family = path.parent.name
        for target, full in imports(path):
            if target != "solvers":
                continue
            assert full[-1].startswith("_") or full[-1] == "registry", (
                f"{path.name} imports {'.'.join(full)}"
            )
            assert len(full) == 2 or full[1] == family, (
                f"{path.name} imports {'.'.join(full)} of another room"
            )


def test_importing_the_package_loads_no_extra():
    code = (
        "import sys, fastdiff_jax; "
        "bad = {'matplotlib', 'typer', 'rich', 'sklearn', 'optuna', 'safetensors', "
        "'torch', 'flax', 'diffrax', 'optax'} & set(sys.modules); "
        "print(sorted(bad))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


def test_no_pytree_forgets_its_class():
    """See `trees.register`: jax's own registration makes classes equal."""
    for path in modules():
        text = path.read_text()
        assert path.name == "trees.py" or "register_dataclass" not in text, path


def body_lines(node):
    """Lines of a function without its docstring."""
    first = node.body[0]
    doc = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    lines = node.end_lineno - node.lineno + 1
    return lines - (first.end_lineno - first.lineno + 1 if doc else 0)


def test_functions_fit_a_screen_and_files_hold_one_subject():
    long = []
    for path in modules():
        text = path.read_text()
        if len(text.splitlines()) > SUBJECT:
            long.append(f"{path.relative_to(PACKAGE)} {len(text.splitlines())}")
        long += [
            f"{path.relative_to(PACKAGE)} {node.name} {body_lines(node)}"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef) and body_lines(node) > SCREEN
        ]
    assert long == []


def test_every_room_says_its_rule():
    for path in PACKAGE.rglob("__init__.py"):
        text = ast.get_docstring(ast.parse(path.read_text()))
        assert text and len(text) > 40, f"{path} does not say what it is"


def test_every_solver_is_documented():
    import fastdiff_jax as fd

    assert fd.augmented  # its builders are in the registry, too
    for name, solver in fd.solvers.SOLVERS.items():
        text = solver.build.__doc__ or ""
        for part in ("Args:", "Returns:", "Example:"):
            assert part in text, f"{name} lacks {part}"
