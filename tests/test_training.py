"""Training: checkpoints without pickles, checked when read; a killed run continues."""

import importlib.util
import json
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("training", ROOT / "scripts/training.py")
training = importlib.util.module_from_spec(spec)
sys.modules["training"] = training
path = list(sys.path)
spec.loader.exec_module(training)
sys.path[:] = path

CFG = {
    "steps": 6,
    "batch": 4,
    "learning_rate": 1e-2,
    "warmup_steps": 1,
    "weight_decay": 0.02,
    "ema_decay": 0.9,
    "chunk": 2,
    "seed": 0,
}


@pytest.fixture(autouse=True)
def promotion():
    """As the scripts run: optax's own arithmetic is not strict."""
    with jax.numpy_dtype_promotion("standard"):
        yield


class Line(nnx.Module):
    def __init__(self, rngs):
        self.a = nnx.Param(jax.random.normal(rngs.params(), (3, 2), jnp.float32))
        self.b = nnx.Param(jnp.zeros((2,), jnp.float32))


def losses(graph, cfg):
    def loss(params, key):
        net = nnx.merge(graph, params)
        x = jax.random.normal(key, (cfg["batch"], 3), jnp.float32)
        out = x @ net.a[...] + net.b[...][None]
        return jnp.square(out - x[:, :2]).mean()

    return loss, lambda params: loss(params, jax.random.key(7))


RECIPE = training.Recipe(
    "line", CFG, lambda seed: Line(nnx.Rngs(seed)), losses, Path("."), {}
)


def fresh():
    _, params = nnx.split(RECIPE.network(0))
    opt = training.make_optimizer(CFG).init(params)
    return training.TrainState(params, params, opt, jnp.asarray(0, jnp.int32))


def same(a, b):
    for u, v in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(u), np.asarray(v))


def test_a_cut_run_ends_as_a_whole_one(tmp_path, monkeypatch):
    whole, metrics = training.train(RECIPE, CFG, tmp_path / "a.safetensors", True)
    keep, saved = training.save_checkpoint, []

    def cut(*args):
        keep(*args)
        saved.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "save_checkpoint", cut)
    for _ in range(2):  # twice, after a chunk each
        with pytest.raises(KeyboardInterrupt):
            training.train(RECIPE, CFG, tmp_path / "b.safetensors", True)
    monkeypatch.setattr(training, "save_checkpoint", keep)
    ended, later = training.train(RECIPE, CFG, tmp_path / "b.safetensors", True)
    same(whole, ended)
    again, kept = training.train(RECIPE, CFG, tmp_path / "b.safetensors", True)
    same(whole, again)  # ended already: nothing is trained, the metrics are there
    assert kept == later
    assert {k: later[k] for k in ("train_loss", "heldout_loss")} == {
        k: metrics[k] for k in ("train_loss", "heldout_loss")
    }


def test_a_run_that_diverges_keeps_its_last_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    training.train(RECIPE, CFG | {"steps": 2}, path, True)
    before = path.read_bytes()

    def broken(graph, cfg):
        loss, held = losses(graph, cfg)
        return lambda params, key: loss(params, key) * jnp.float32(jnp.nan), held

    with pytest.raises(ValueError, match=r"the loss is nan at step 2.*learning_rate"):
        training.train(
            RECIPE._replace(losses=broken), CFG | {"steps": 2}, path, resume=False
        )
    assert path.read_bytes() == before


class TestCheckpoint:
    def test_round_trip(self, tmp_path):
        path = tmp_path / "a.safetensors"
        training.save_checkpoint(path, fresh(), CFG, {"train_loss": 0.5})
        state, metrics = training.load_checkpoint(path, fresh(), CFG)
        same(state, fresh())
        assert jax.tree.structure(state) == jax.tree.structure(fresh())
        assert metrics == {"train_loss": 0.5}

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda f: f | {".step": np.float32(0)}, "float32.*at .step, expected int"),
            (lambda f: f | {".step": np.int32(3)}, "ends at step 3, inside a chunk"),
            (lambda f: f | {".step": np.int32(-2)}, "ends at step -2"),
            (lambda f: f | {"more": np.zeros(1)}, r"holds float64\(1,\) at more"),
            (lambda f: {k: v for k, v in f.items() if k != ".step"}, "holds nothing"),
            (
                lambda f: {k: v * np.array(np.nan, v.dtype) if "ema" in k else v
                           for k, v in f.items()},
                "is not finite at .ema",
            ),
            (
                lambda f: {k: v[:1] if "params" in k else v for k, v in f.items()},
                "at .params.*expected float32",
            ),
        ],
    )  # fmt: skip
    def test_other_tensors_are_refused(self, tmp_path, change, words):
        path = tmp_path / "a.safetensors"
        head = {
            "format": training.FORMAT,
            "settings": json.dumps(CFG),
            "metrics": "{}",
        }
        flat = {k: np.asarray(v) for k, v in change(training._flat(fresh())).items()}
        path.write_bytes(save(flat, metadata=head))
        with pytest.raises(ValueError, match=words) as error:
            training.load_checkpoint(path, fresh(), CFG)
        assert "\n" not in str(error.value) and str(path) in str(error.value)

    def test_other_settings_are_refused(self, tmp_path):
        path = tmp_path / "a.safetensors"
        training.save_checkpoint(path, fresh(), CFG, {})
        with pytest.raises(
            ValueError, match="with steps=6, this run has steps=8; give"
        ):
            training.load_checkpoint(path, fresh(), CFG | {"steps": 8})

    def test_other_files_are_refused(self, tmp_path):
        path = tmp_path / "a.safetensors"
        training.save_checkpoint(path, fresh(), CFG, {})
        data = path.read_bytes()
        pickled = pickle.dumps((CFG, []))
        for bad in (b"", data[:-5], data[:50], pickled, save({"x": np.zeros(2)})):
            path.write_bytes(bad)
            with pytest.raises(ValueError, match="is no checkpoint: .*--no-resume"):
                training.load_checkpoint(path, fresh(), CFG)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("dropouts=1", "no setting 'dropouts'; known: steps, batch"),
        ("batch=2.5", "batch needs a number like 4"),
        ("batch", "batch needs a number"),
        ("learning_rate=nan", "learning_rate must be finite"),
        ("weight_decay=-1", "weight_decay must be finite and not negative"),
        ("chunk=4", "steps=6 must be a positive multiple of chunk=4"),
        ("chunk=0", "must be a positive multiple"),
    ],
)
def test_settings_are_checked(change, words):
    with pytest.raises(ValueError, match=words):
        training.changed(CFG, [change])


def test_no_pickles():
    for folder in ("scripts", "experiments"):
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and file.suffix in ("", ".py"):
                text = file.read_text()
                assert "import pickle" not in text, file
                assert "allow_pickle=True" not in text, file


@pytest.mark.slow
def test_scripts_train_and_evaluate(tmp_path):
    """What train_digits writes, eval_digits reads; both in their quick version."""

    def call(name, *options):
        command = [sys.executable, str(ROOT / "scripts" / name), "--quick", *options]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    committed = (ROOT / "experiments" / "restoration" / "restoration.json").read_bytes()
    for name in ("digits", "restoration"):
        call(f"train_{name}", "--out", str(tmp_path / name))
        card = json.loads((tmp_path / name / f"{name}.json").read_text())
        assert card["settings"]["steps"] == training.QUICK["steps"]
        assert np.isfinite(card["metrics"]["heldout_loss"])
    weights = tmp_path / "digits" / "digits.safetensors"
    found = json.loads(
        call("eval_digits", "--weights", str(weights), "--png", str(tmp_path / "a.png"))
    )
    assert found["svc_heldout_accuracy"] > 0.95
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    where = ROOT / "experiments" / "restoration" / "restoration.json"
    assert where.read_bytes() == committed
