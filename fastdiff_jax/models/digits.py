"""The embedded model: class-conditional 8 x 8 digits, for every command offline.

Model card
    Data: the UCI handwritten digits that ship with scikit-learn (1797 real images,
        8 x 8, 10 classes), scaled to [-1, 1]; 1297 train, 500 held out.
    Network: 446k parameters, residual 3 x 3 convolutions on 2 x 2 patches, conditioned
        on the noise angle and the label (label 10 = none). It knows alpha and sigma,
        not a process: one set of weights serves VP, VE, EDM and flow paths alike.
    Training: `scripts/train_digits`, EDM loss, EMA, label dropout, 5 minutes on two
        cores, seeded. Weights: float16 safetensors, 0.9 MB, checked by SHA-256.
    Measured (`scripts/eval_digits`; figures in weights/digits.json): an SVC trained on
        real digits agrees with the requested label on more than 99 % of guided samples
        at 5 and 10 evaluations; unguided samples are as close to held-out digits as
        training digits are, within 10 %, and not memorised.
    Use: tests, examples, comparisons of samplers. Not a digit generator for anything
        else.
"""

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..files import read_bytes, read_json, short
from ..guards import checked
from ..trees import pytree
from ..typing import Array, ArrayLike, Context, PyTree

__all__ = ["NULL_LABEL", "SHAPE", "Digits", "load"]

NULL_LABEL = 10
SHAPE = (8, 8, 1)
_WEIGHTS = Path(__file__).parent / "weights" / "digits.safetensors"
_MOST_BYTES = 2**24  # eight times the network in float32


@pytree
class Digits:
    """The digits network as a denoiser; x is (B, 8, 8, 1), labels (B,) or None."""

    params: PyTree
    labels: PyTree
    graph: Any = dataclasses.field(metadata={"static": True})

    def __call__(
        self, x: Array, context: Context, carry: PyTree
    ) -> tuple[Array, PyTree]:
        """E[x_0 | x, label]."""
        from flax import nnx

        from ._digits_net import data_prediction

        labels = self.labels if context.condition is None else context.condition
        labels = jnp.asarray(NULL_LABEL if labels is None else labels, jnp.int32)
        labels = jnp.broadcast_to(labels, x.shape[:1])
        net = nnx.merge(self.graph, self.params)
        return data_prediction(net, x, context.alpha, context.sigma, labels), carry


@checked
def load(labels: ArrayLike | None = None, path: str | Path | None = None) -> Digits:
    """The embedded digits model as a denoiser.

    Args:
        labels: digits 0..9 (10 = unconditional), a scalar or (B,); None: all
            unconditional. Guidance gives its own.
        path: other weights of the same network, a safetensors file; read at every
            call, so that weights replaced on disk are the ones that run.

    Returns:
        A denoiser for `fd.sample`.

    Raises:
        ValueError: a label out of range, or weights that are damaged, of another
            network, of whole numbers, or not finite.
        OSError: a path that cannot be read.
        ImportError: safetensors is missing.

    Example:
        >>> import jax, fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> plan = fd.solvers.unipc(process, fd.grids.log_snr(process, 5))
        >>> x = fd.prior(process, jax.random.key(0), (2, 8, 8, 1))
        >>> fd.sample(plan, load(labels=[3, 8]), x).shape
        (2, 8, 8, 1)
    """
    if labels is not None:
        labels = check_labels(labels)
    path = _WEIGHTS if path is None else path
    data = read_bytes(path, _MOST_BYTES)
    try:
        _check_card(data, Path(path).with_suffix(".json"))
        graph, params = _network(data)
    except ValueError as error:
        raise ValueError(f"weights file {path} {error}") from error
    return Digits(params, labels, graph)


def check_labels(labels: ArrayLike) -> np.ndarray:
    """Labels as int32.

    Raises:
        ValueError: not whole numbers in 0..10.
    """
    found = np.asarray(labels)
    if found.dtype.kind not in "iu" or ((found < 0) | (found > NULL_LABEL)).any():
        bad = found if found.dtype.kind not in "iu" else found[found > NULL_LABEL]
        bad = found[found < 0] if np.size(bad) == 0 else bad
        raise ValueError(
            f"labels must be whole numbers 0..9 (or {NULL_LABEL} for none), got "
            f"{np.ravel(bad)[0]!r}."
        )
    return found.astype(np.int32)


def _check_card(data: bytes, card: Path) -> None:
    """The weights are those that the description beside them was written for."""
    try:
        said = read_json(card, _MOST_BYTES)
    except FileNotFoundError:
        return
    want = said.get("sha256") if isinstance(said, dict) else None
    got = hashlib.sha256(data).hexdigest()
    if want not in (None, got):  # a JSON of another kind says nothing of them
        raise ValueError(
            f"is damaged: SHA-256 {got[:12]}... is not the {short(want, 15)} of "
            f"{card.name}. Reinstall the package, or train anew."
        )


@functools.lru_cache(maxsize=4)
def _network(data: bytes) -> tuple[Any, PyTree]:
    """Graph and parameters of a file's content, checked."""
    try:
        from safetensors.numpy import load as parse
    except ImportError as error:
        raise ImportError(
            "the embedded model needs safetensors; install it with "
            '`pip install "fastdiff-jax[cli]"`.'
        ) from error
    from flax import nnx

    from ._digits_net import DigitsNet, from_flat, to_flat

    try:
        flat = parse(data)
    except Exception as error:  # whatever the parser trips over in foreign bytes
        raise ValueError(f"is damaged: {short(error)}.") from error
    net = DigitsNet(rngs=nnx.Rngs(0))
    want_shapes = {k: v.shape for k, v in to_flat(nnx.state(net)).items()}
    shapes = {k: v.shape for k, v in flat.items()}
    if shapes != want_shapes:
        name = next(
            k for k in {**want_shapes, **shapes} if shapes.get(k) != want_shapes.get(k)
        )
        raise ValueError(
            f"is of another network: {short(name)} has shape {shapes.get(name)}, "
            f"expected {want_shapes.get(name)}."
        )
    for name, array in flat.items():
        if array.dtype.kind != "f":
            raise ValueError(
                f"must hold floating weights, got {array.dtype} in {name}."
            )
        with np.errstate(over="ignore"):
            finite = np.isfinite(array.astype(np.float32)).all()
        if not finite:
            raise ValueError(f"must hold finite weights in float32; {name} does not.")
    nnx.update(net, from_flat(flat))
    return nnx.split(net)
