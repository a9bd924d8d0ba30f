"""What a denoiser (or a noise source, or a move) may define beside its call."""

from typing import Any

from .typing import PyTree

__all__ = ["carry_of", "check_inner"]


def carry_of(inner: Any, x: PyTree) -> PyTree:
    """The denoiser's `initial_carry(x)`, None if it has none."""
    start = getattr(inner, "initial_carry", None)
    return None if start is None else start(x)


def check_inner(inner: Any, plan: Any) -> None:
    """Let a part refuse a plan by its `check_plan`, if it has one."""
    check = getattr(inner, "check_plan", None)
    if check is not None:
        check(plan)
