"""A thousand random RoIs for the RoI microscope: around the map, tiny, without size, reversed, huge, on the grid."""

from typing import NamedTuple

import numpy as np

RATIOS = (-1, 0, 1, 2, 3)
#: RoIPool, and RoIAlign in all its modes.
MODES = [("roi_pool", {})] + [
    ("roi_align", {"sampling_ratio": ratio, "aligned": aligned}) for aligned in (False, True) for ratio in RATIOS
]
KINDS = ("inside", "across", "outside", "around", "tiny", "no size", "reversed", "huge", "on the grid", "not finite")


class Group(NamedTuple):
    """RoIs on one batch of maps."""

    x: np.ndarray  # (2, 2, H, W)
    rois: np.ndarray  # (K, 5)
    kinds: list  # of KINDS, one for each RoI
    how: dict  # output_size and spatial_scale


def groups(dtype, rois=1000, seed=0, signs=True):
    """Return groups with so many RoIs in all; ``signs`` makes maps of both signs, otherwise all values are positive."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(20):
        height, width = (int(n) for n in rng.integers(1, 14, 2))
        shape = (2, 2, height, width)
        x = np.asarray(rng.standard_normal(shape) if signs else rng.uniform(0.5, 2, shape), dtype)
        kinds = [KINDS[k % len(KINDS)] for k in range(rois // 20)]
        boxes = np.array([_box(rng, kind, width, height, dtype) for kind in kinds])
        how = {
            "output_size": tuple(int(n) for n in rng.integers(1, 8, 2)),
            "spatial_scale": float(rng.choice([1, 0.5, 1 / 16, 0.3])),
        }
        corners = boxes / how["spatial_scale"]
        rois_ = np.column_stack([rng.integers(0, 2, len(boxes)), corners]).astype(dtype)
        made.append(Group(x, rois_, kinds, how))
    return made


def _box(rng, kind, width, height, dtype):
    """Return x1, y1, x2, y2 in cells."""
    size = np.array([width, height])
    low, high = np.sort(rng.uniform(0, 1, (2, 2)), axis=0) * size
    if kind == "across":
        low, high = low - rng.uniform(0, 5, 2), high + rng.uniform(0, 5, 2) * rng.integers(0, 2, 2)
    elif kind == "outside":
        away = (size + 1) * rng.choice([-1, 1], 2) * rng.uniform(0.9, 3, 2)
        low, high = low + away, high + away
    elif kind == "around":
        low, high = low - size - 2, high + size + 2
    elif kind == "tiny":
        high = low + rng.uniform(0, 0.02, 2)
    elif kind == "no size":
        high = np.where(rng.integers(0, 3) == np.arange(2), high, low)
    elif kind == "reversed":
        swapped = rng.integers(0, 3) != np.arange(2)
        low, high = np.where(swapped, high, low), np.where(swapped, low, high)
    elif kind == "huge":
        far = 10 ** rng.uniform(2, 30 if dtype == np.float32 else 250)
        low, high = -rng.uniform(0, 1, 2) * far, rng.uniform(0, 1, 2) * far * 10.0 ** -rng.integers(0, 3, 2)
    elif kind == "on the grid":
        low, high = np.floor(2 * low) / 2, np.ceil(2 * high) / 2
    box = np.concatenate([low, high])
    if kind == "not finite":
        box[rng.integers(0, 4)] = rng.choice([np.nan, np.inf, -np.inf])
    return box
