"""What every transform passes through to the denoiser inside it."""

from typing import Any

from ..typing import PyTree

__all__ = ["carry_of", "check_inner"]


def carry_of(inner: Any, x: PyTree) -> PyTree:
    """The inner denoiser's initial carry, None if it has none."""
    start = getattr(inner, "initial_carry", None)
    return None if start is None else start(x)


def check_inner(inner: Any, plan: Any) -> None:
    """Let the inner denoiser refuse a plan."""
    check = getattr(inner, "check_plan", None)
    if check is not None:
        check(plan)
