"""What a denoiser (or a noise source, or a move) may define beside its call.

initial_carry(x)   what a stateful denoiser starts from
gives              names of what it returns, ("data",) if it says nothing
check_plan(plan)   raises where it cannot serve a plan
"""

from typing import Any

from .typing import PyTree

__all__ = ["Wrapped", "accepts", "answer", "carry_of", "check_reads", "gives_of"]

_FIX = {
    "degraded": "restore.with_endpoint(denoiser, y) gives (data, degraded)",
    "residual": "restore.residual_model(fn, process, y) gives (residual, noise)",
    "other_end": "models.from_velocity(fn, process) gives (data, other_end)",
    "direction": "transforms.clip(denoiser, outputs=True) gives (data, direction)",
}


def carry_of(inner: Any, x: PyTree) -> PyTree:
    """The denoiser's `initial_carry(x)`, None if it has none."""
    start = getattr(inner, "initial_carry", None)
    return None if start is None else start(x)


def answer(denoiser: Any, x: PyTree, context: Any, carry: PyTree) -> tuple[Any, Any]:
    """What a denoiser returns at x: (prediction, carry).

    Raises:
        ValueError: no pair.
    """
    out = denoiser(x, context, carry)
    if not (isinstance(out, tuple) and len(out) == 2):
        raise ValueError(
            "denoiser must return (prediction, carry), got "
            f"{type(out).__name__}. Wrap a plain network with models.denoiser(...)."
        )
    return out


def gives_of(denoiser: Any) -> tuple[str, ...] | None:
    """Names of a denoiser's predictions, None for one that says nothing."""
    return getattr(denoiser, "gives", None)


def accepts(part: Any, plan: Any) -> None:
    """Let a part refuse a plan by its `check_plan`, if it has one."""
    check = getattr(part, "check_plan", None)
    if check is not None:
        check(plan)


def check_reads(denoiser: Any, reads: tuple[str, ...]) -> None:
    """A plan reads what the denoiser gives.

    Raises:
        ValueError: other predictions, or several from one that does not name them.
    """
    gives = gives_of(denoiser)
    if gives is None and len(reads) == 1:
        gives = ("data",)  # a plain function: the shapes will tell
    if gives == tuple(reads):
        return
    wants, has = ", ".join(reads), "what it does not name"
    if gives is not None:
        has = f"({', '.join(gives)})" if len(gives) > 1 else "".join(gives)
    fix = next((_FIX[name] for name in reads if name in _FIX and name != "data"), None)
    if fix is None:
        fix = "unwrap the denoiser, or build the plan that reads it"
    raise ValueError(
        f"this plan reads ({wants}); the denoiser gives {has}. Use the denoiser made "
        f"for it ({fix}), or name a function's own outputs with "
        f"models.giving(fn, {', '.join(map(repr, reads))})."
    )


class Wrapped:
    """What a denoiser around another one (`inner`) says in its place."""

    inner: Any

    @property
    def gives(self) -> tuple[str, ...] | None:
        """As the inner denoiser."""
        return gives_of(self.inner)

    def initial_carry(self, x: PyTree) -> PyTree:
        """The inner denoiser's."""
        return carry_of(self.inner, x)

    def check_plan(self, plan: Any) -> None:
        """As the inner denoiser."""
        accepts(self.inner, plan)
