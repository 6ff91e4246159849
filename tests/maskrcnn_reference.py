"""torchvision's maskrcnn_resnet50_fpn, stage by stage, in stored numbers, and our network with the same weights.

Two pictures: A at 96x128, which every stage is stored for in full, and B at 221x320, of which the large arrays are
stored as 2000 sampled values. Then a training step with the normalisation frozen or not.
"""

import json
import math
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from tolerances import assert_close

from tinyseg import models

PATH = Path(__file__).parent / "reference" / "maskrcnn_resnet50_fpn.npz"


@lru_cache
def arrays():
    """Return every stored array by name, ``meta`` as a dictionary."""
    with np.load(PATH, allow_pickle=False) as file:
        stored = {key: file[key] for key in file.files}
    return {**stored, "meta": json.loads(str(stored["meta"]))}


def meta():
    """Return the notes on the stored arrays."""
    return arrays()["meta"]


@lru_cache
def state():
    """Return the weights; the large ones are drawn anew, as ``meta["state_recipe"]`` says."""
    weights = {}
    for name, shape in meta()["state_names"].items():
        if f"state/{name}" in arrays():
            weights[name] = arrays()[f"state/{name}"]
        else:
            gain = 2 if name.startswith("backbone.body") else 1
            draw = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
            weights[name] = (draw * np.sqrt(gain / math.prod(shape[1:]))).astype(np.float32)
    return weights


def network(picture, **options):
    """Return our network with the settings for picture ``"A"`` or ``"B"``, in training mode."""
    settings = {key: value for key, value in meta()[picture]["kwargs"].items() if value is not None}
    model = models.maskrcnn_resnet50_fpn(**settings, **options)
    model.load_state_dict(state())
    return model


def positions(size):
    """Return which 2000 values of a flattened array were stored."""
    return np.random.RandomState(size % 2**31).randint(0, size, 2000)


def check(picture, name, actual, fraction=2e-5):
    """Compare one result with what is stored for it: all of it, the first rows, or sampled values with their shape.

    A value may differ by three times the difference of float32 and float64 at torchvision's, since ours and its own
    are both so far from the truth, and by ``fraction`` of the largest value, since sums are in another order.
    """
    actual = np.asarray(getattr(actual, "array", actual))
    prefix = "" if picture == "A" else "B/"
    expected = arrays().get(prefix + name)
    if expected is None:
        expected = arrays()[f"{prefix}{name}_sample"]
        assert actual.shape == tuple(arrays()[f"{prefix}{name}_shape"]), f"{name} has shape {actual.shape}"
        actual = actual.reshape(-1)[positions(actual.size)]
    if expected.dtype.kind == "i":
        np.testing.assert_array_equal(actual, expected, name, strict=True)
        return
    spread = meta()[picture]["err"].get(name.split("_first")[0], 0) if picture in meta() else 0
    scale = float(np.abs(expected).max())
    assert_close(actual, expected, fraction + 3 * spread / scale, 0, f"{picture} {name}")


def unpacked(name, shape):
    """Return bits that were stored eight to a byte."""
    bits = np.unpackbits(arrays()[name])
    return bits[: math.prod(shape)].reshape(shape).astype(bool)


def nearest(found, wanted):
    """Return for each wanted box the index of the found one whose corners differ least, and by how much they do."""
    distance = np.abs(wanted[:, None] - found[None]).max(axis=2)
    return distance.argmin(axis=1), distance.min(axis=1)
