"""Imports flow one way, extras stay out of the import, files stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "fastdiff_jax"
CORE = {"typing", "numerics", "files", "hooks", "trees"}
# layer -> what it may import from the package (design: data flows one way)
MAY = {
    "typing": set(),
    "files": set(),
    "hooks": {"typing"},
    "trees": set(),
    "numerics": {"typing", "numerics"},
    "processes": CORE | {"processes"},
    "grids": CORE | {"grids"},
    "plan": CORE | {"plan"},
    "solvers": CORE | {"plan"},
    "engine": CORE | {"plan", "engine"},
    "brownian": CORE | {"plan", "engine", "_ou_tree"},
    "_ou_tree": set(),
    "guidance": CORE | {"guidance"},
    "models": CORE | {"models"},
    "data": set(),
    "analysis": CORE | {"plan", "processes", "analysis"},
    "moves": CORE | {"plan", "engine", "moves"},
    "policy": CORE | {"plan", "engine", "_policy", "_windows"},
    "_policy": CORE | {"plan", "engine"},
    "_windows": CORE | {"plan"},
    "plots": {"analysis", "plan", "files"},
    "augmented": CORE | {"plan", "processes", "engine", "augmented"},
    "continuous": CORE
    | {"plan", "processes", "solvers", "models", "engine", "continuous"},
    "restore": CORE | {"engine", "models", "plan", "solvers", "restore"},
}
BELOW_CLI = set(MAY) | {"adaptive", "interop", "statistics", "compensate"}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def layer(path):
    part = path.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py")


def imports(path):
    """(layer, module) of every import of the package in a file."""
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


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_layers(path):
    own = layer(path)
    if own in ("__init__", "cli"):
        return
    for target, _ in imports(path):
        assert target != "cli", f"{path} imports the command line"
        if own in MAY:
            allowed = MAY[own] | ({own} if own == "plan" else set())
            assert target in allowed or (own in ("solvers",) and target == own), (
                f"{path.name} imports {target}"
            )


def test_no_solver_imports_a_sibling_family():
    for path in (PACKAGE / "solvers").glob("*.py"):
        if path.name == "__init__.py":
            continue
        for target, full in imports(path):
            if target == "solvers":
                assert full[1].startswith("_"), f"{path.name} imports {full[1]}"


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


def test_files_stay_small():
    """House rule: about 300 lines a file; nothing over 330."""
    lines = {p: len(p.read_text().splitlines()) for p in modules()}
    assert {str(p): n for p, n in lines.items() if n > 330} == {}


def test_every_solver_is_documented():
    import fastdiff_jax as fd

    for name, solver in fd.solvers.SOLVERS.items():
        text = solver.build.__doc__ or ""
        for part in ("Args:", "Returns:", "Example:"):
            assert part in text, f"{name} lacks {part}"
