"""What the training scripts share: settings, a checkpoint, the loop, the weights.

A script gives a Recipe and calls `main`. A killed run continues from its checkpoint, a
safetensors file that appears whole, with the settings it belongs to inside; nothing is
unpickled. The weights are the running mean (EMA) in float16, with a description that
holds their SHA-256.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import safetensors
from flax import nnx
from safetensors.numpy import save

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "experiments")]

import runner  # noqa: E402

from fastdiff_jax.models import _digits_net as dn  # noqa: E402
from fastdiff_jax.models.data import SPLIT_SEED  # noqa: E402

FORMAT = "fastdiff_jax training 1"
QUICK = {"steps": 4, "chunk": 2, "batch": 8, "warmup_steps": 1}
Params = Any


class Recipe(NamedTuple):
    """One network and its training.

    Attributes:
        name: of the weights' file.
        settings: numbers that `--set` may change; `steps` is a multiple of `chunk`.
        network: seed -> nnx module.
        losses: (graph, settings) -> (training loss of params and key, held-out loss of
            params).
        out: folder of the weights.
        info: goes into their description.
    """

    name: str
    settings: dict[str, Any]
    network: Callable[[int], nnx.Module]
    losses: Callable[[Any, dict[str, Any]], tuple[Callable, Callable]]
    out: Path
    info: dict[str, Any]


class TrainState(NamedTuple):
    """All that a resumed run needs."""

    params: Params
    ema: Params
    opt: Any
    step: jax.Array


# ------------------------------------------------------------------------- checkpoints


def _flat(state: TrainState) -> dict[str, np.ndarray]:
    """Every array by its path in the state."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def save_checkpoint(
    path: Path, state: TrainState, cfg: dict[str, Any], metrics: dict[str, float]
) -> None:
    """Write state, settings and metrics as one safetensors file, all or nothing."""
    words = {"format": FORMAT, "settings": json.dumps(cfg, sort_keys=True)}
    words["metrics"] = json.dumps(metrics)
    runner.write_whole((path, save(_flat(state), metadata=words)))


def load_checkpoint(
    path: Path, like: TrainState, cfg: dict[str, Any]
) -> tuple[TrainState, dict[str, float]]:
    """The stored state and metrics, checked against a fresh state and the settings.

    Raises:
        ValueError: damaged, of another format, network or settings, or not finite.
    """
    anew = "give --no-resume to start anew, or --checkpoint another file"
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            words = file.metadata() or {}
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if words.get("format") != FORMAT:
            raise ValueError(f"its format is {words.get('format')!r}, not {FORMAT!r}")
        stored, metrics = (json.loads(words[k]) for k in ("settings", "metrics"))
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is no checkpoint: {error}; {anew}.") from error
    want = json.loads(json.dumps(cfg))
    for name in sorted({*stored, *want}):
        a, b = stored.get(name), want.get(name)
        if a != b:
            raise ValueError(
                f"{path} was trained with {name}={a}, this run has {name}={b}; {anew}."
            )
    expected = _flat(like)
    for name in sorted({*found, *expected}):
        a, b = (f"{v[name].dtype}{v[name].shape}" if name in v else "nothing"
                for v in (found, expected))  # fmt: skip
        if a != b:
            raise ValueError(f"{path} holds {a} at {name}, expected {b}; {anew}.")
        if not np.isfinite(found[name]).all():
            raise ValueError(f"{path} is not finite at {name}; {anew}.")
    leaves = [jnp.asarray(found[name]) for name in expected]
    state = jax.tree.unflatten(jax.tree.structure(like), leaves)
    if int(state.step) not in range(0, cfg["steps"] + 1, cfg["chunk"]):
        raise ValueError(
            f"{path} ends at step {int(state.step)}, inside a chunk; {anew}."
        )
    return state, metrics


# ---------------------------------------------------------------------------- the loop


def make_optimizer(cfg: dict[str, Any]) -> optax.GradientTransformation:
    """AdamW with warm-up and cosine decay; only matrices decay."""
    rate = optax.warmup_cosine_decay_schedule(
        0.0, cfg["learning_rate"], cfg["warmup_steps"], cfg["steps"]
    )
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(
            rate,
            b2=0.99,
            weight_decay=cfg["weight_decay"],
            mask=lambda p: jax.tree.map(lambda a: a.ndim > 1, p),
        ),
    )


def make_chunk(loss: Callable, held: Callable, cfg: dict[str, Any]) -> Any:
    """Compile ``cfg["chunk"]`` optimiser steps and the held-out loss as one call."""
    opt, root = make_optimizer(cfg), jax.random.key(cfg["seed"])

    def step(state: TrainState, _: None) -> tuple[TrainState, jax.Array]:
        key = jax.random.fold_in(root, state.step)
        value, grad = jax.value_and_grad(loss)(state.params, key)
        updates, opt_state = opt.update(grad, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        # The ramp forgets the random start quickly.
        n = state.step.astype(jnp.float32)
        decay = jnp.minimum(cfg["ema_decay"], (n + 1.0) / (n + 10.0))
        ema = jax.tree.map(lambda e, p: e + (1.0 - decay) * (p - e), state.ema, params)
        return TrainState(params, ema, opt_state, state.step + 1), value

    @functools.partial(jax.jit, donate_argnums=0)
    def chunk(state: TrainState) -> tuple[TrainState, jax.Array, jax.Array]:
        state, losses = jax.lax.scan(step, state, None, length=cfg["chunk"])
        return state, losses.mean(), held(state.ema)

    return chunk


def train(
    recipe: Recipe, cfg: dict[str, Any], checkpoint: Path, resume: bool
) -> tuple[Params, dict[str, float]]:
    """Run the training and return the EMA weights and the final losses."""
    graph, params = nnx.split(recipe.network(cfg["seed"]))
    # A copy: the chunk donates its input, which must not hold a buffer twice.
    ema = jax.tree.map(jnp.copy, params)
    opt = make_optimizer(cfg).init(params)
    state, metrics = TrainState(params, ema, opt, jnp.asarray(0, jnp.int32)), {}
    if resume and checkpoint.exists():
        state, metrics = load_checkpoint(checkpoint, state, cfg)
    chunk = make_chunk(*recipe.losses(graph, cfg), cfg)
    began = time.monotonic() - metrics.get("seconds", 0.0)
    with runner.progress(cfg["steps"]) as tick:
        tick(f"from step {int(state.step)}", advance=int(state.step))
        while int(state.step) < cfg["steps"]:
            state, loss, test = chunk(state)
            metrics = {"train_loss": float(loss), "heldout_loss": float(test)}
            metrics["seconds"] = round(time.monotonic() - began, 1)
            if not np.isfinite([loss, test]).all():
                raise ValueError(
                    f"the loss is {loss} at step {int(state.step)} (held out: {test}); "
                    f"lower learning_rate={cfg['learning_rate']}. {checkpoint} is that "
                    "of the steps before."
                )
            save_checkpoint(checkpoint, state, cfg, metrics)
            tick(f"loss {loss:.4f}, held out {test:.4f}", advance=cfg["chunk"])
    return state.ema, metrics


def write_weights(
    recipe: Recipe, out: Path, ema: Params, cfg: dict[str, Any], metrics: dict
) -> None:
    """The weights as float16, then their description, which holds their hash."""
    # Half precision halves the file; the rounding is far below the model's error.
    flat = {k: v.astype(np.float16) for k, v in dn.to_flat(ema).items()}
    blob = save(flat)
    info = recipe.info | {
        "sha256": hashlib.sha256(blob).hexdigest(),
        "parameters": sum(v.size for v in flat.values()),
        "split_seed": SPLIT_SEED,
        "settings": cfg,
        "metrics": metrics,
    }
    runner.write_whole((out / f"{recipe.name}.safetensors", blob))
    text = json.dumps(info, indent=2, sort_keys=True) + "\n"
    runner.write_whole((out / f"{recipe.name}.json", text.encode()))


# ------------------------------------------------------------------------ the command


def changed(settings: dict[str, Any], changes: list[str]) -> dict[str, Any]:
    """The settings with `NAME=VALUE` changes.

    Raises:
        ValueError: an unknown name, or a value that is not a number of its kind.
    """
    out = dict(settings)
    for change in changes:
        name, _, text = change.partition("=")
        if name not in settings:
            known = ", ".join(settings)
            raise ValueError(f"--set {change}: no setting {name!r}; known: {known}.")
        kind = type(settings[name])
        try:
            out[name] = kind(text)
        except ValueError:
            raise ValueError(
                f"--set {change}: {name} needs a number like {settings[name]}."
            ) from None
        if not (np.isfinite(out[name]) and out[name] >= 0):
            raise ValueError(f"--set {change}: {name} must be finite and not negative.")
    if out["chunk"] < 1 or out["steps"] < 1 or out["steps"] % out["chunk"]:
        raise ValueError(
            f"steps={out['steps']} must be a positive multiple of chunk={out['chunk']}."
        )
    return out


def arguments(doc: str | None, recipe: Recipe) -> argparse.Namespace:
    """The command's arguments; `cfg` holds the settings."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=doc, formatter_class=formatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a few steps, into build/NAME-quick"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="of the weights")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE",
        help="default: checkpoint.safetensors in --out, or in build/NAME",
    )  # fmt: skip
    args = parser.parse_args()
    if args.quick:
        runner.compile_quickly()
    settings = recipe.settings | (QUICK if args.quick else {})
    if args.steps is not None:
        settings["steps"] = args.steps
    try:
        args.cfg = changed(settings, args.set) | {"seed": args.seed}
    except ValueError as error:
        parser.error(str(error))
    build = ROOT / "build" / (f"{recipe.name}-quick" if args.quick else recipe.name)
    args.checkpoint = args.checkpoint or (args.out or build) / "checkpoint.safetensors"
    args.out = args.out or (build if args.quick else recipe.out)
    for folder in (args.out, args.checkpoint.parent):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"{folder}: {error.strerror}; name a folder that can be made.")
    return args


def main(doc: str | None, recipe: Recipe) -> None:
    """Train, then write the weights and their description."""
    args = arguments(doc, recipe)
    folder = args.checkpoint.parent
    words = f"the steps so far are in {args.checkpoint}: the same command continues."
    with runner.stopping(words), runner.hold(folder / "training.lock"):
        try:
            ema, metrics = train(recipe, args.cfg, args.checkpoint, args.resume)
        except ValueError as error:
            raise SystemExit(f"{recipe.name}: {error}") from error
        write_weights(recipe, args.out, ema, args.cfg, metrics)
    print(f"wrote {recipe.name}.safetensors, {recipe.name}.json in {args.out}")
