"""Rows of the table of cases: pooling over regions of interest."""

import numpy as np
from case_builders import case

#: Boxes on a map of 9x11 cells, by what is special about them; picture 0 or 1, then corners in cells.
SPECIAL = {
    "full": (0, 0, 0, 11, 9),
    "beyond_top_left": (1, -4.3, -3.1, 3.6, 2.2),
    "beyond_bottom_right": (0, 7.7, 5.2, 15.1, 12.9),
    "outside_after": (1, 14, 12, 19, 18.5),
    "outside_before": (0, -9, -8, -3.5, -2.5),
    "around": (1, -6, -7, 20, 17),
    "tiny": (0, 4.31, 3.27, 4.34, 3.29),
    "point": (1, 5.5, 2.5, 5.5, 2.5),
    "line": (0, 3.25, 1.5, 3.25, 6.5),
    "halves": (1, 0.5, 1.5, 4.5, 6.5),
    "margin": (0, -1, -1, 0, 0),
    "end": (1, 10, 8, 11, 9),
}
REVERSED = {"both": (0, 8.3, 7.1, 2.2, 3.4), "x": (1, 9.1, 2.2, 3.9, 6.6), "y": (0, 2.6, 7.7, 6.5, 3.3)}


def _inputs(shape, boxes=None, count=6, scale=1.0, ties=False, spoiled=()):
    """Return a builder of x and rois: the given boxes, in cells, and ``count`` random ones."""

    def make(rng, dtype):
        n, _, h, w = shape
        x = rng.integers(-2, 3, shape) if ties else rng.standard_normal(shape)
        corners = rng.uniform(-1, 1, (count, 4)) + rng.uniform(0, 1, (count, 4)) * [w, h, w, h]
        corners = np.concatenate(
            [np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], 1
        )
        rois = np.column_stack([rng.integers(0, max(n, 1), count), corners])
        rois = np.concatenate([rois, np.array(boxes or np.empty((0, 5)), float).reshape(-1, 5)])
        rois[:, 1:] /= scale
        x = np.asarray(x, dtype)
        for index, value in spoiled:
            x[index] = value
        return {"x": x, "rois": np.asarray(rois, dtype)}

    return make


def _roi_pool_rows():
    def row(name, output_size, scale=1.0, shape=(2, 3, 9, 11), **how):
        return case("roi_pool", name, _inputs(shape, scale=scale, **how), output_size=output_size, spatial_scale=scale)

    special = [*SPECIAL.values(), *REVERSED.values()]
    yield row("o2", 2, boxes=special)
    yield row("o7", 7, boxes=special)
    yield row("o5x3_ties", (5, 3), boxes=special, ties=True)
    yield row("scale4", [2, 3], boxes=special, scale=0.25)
    yield row("scale16", 7, boxes=special, scale=1 / 16)
    yield row("one_bin", 1, boxes=special)
    yield row("map_1x1", 3, shape=(1, 2, 1, 1), boxes=[(0, 0, 0, 1, 1), (0, 0.4, 0.4, 0.6, 0.6), (0, 3, 3, 4, 4)])
    spoiled = [((0, 0, slice(0, 4)), np.nan), ((0, 1, slice(2, 9)), -np.inf), ((1, 0, 3, 3), np.inf)]
    yield row("not_finite", 3, boxes=special, spoiled=spoiled)
    yield row("no_rois", 2, count=0)
    yield row("no_pictures", 2, count=0, shape=(0, 3, 9, 11))
    yield row("no_channels", 2, shape=(1, 0, 9, 11))
    for channels in (1, 7, 15, 16, 17, 33, 64, 65, 130):
        yield row(f"channels{channels}", (3, 2), shape=(2, channels, 5, 6), count=4)


def _roi_align_rows():
    def row(name, output_size, scale=1.0, shape=(2, 3, 9, 11), ratio=2, aligned=True, boxes=None, **how):
        make = _inputs(shape, boxes, scale=scale, **how)
        parameters = {"output_size": output_size, "spatial_scale": scale, "sampling_ratio": ratio, "aligned": aligned}
        return case("roi_align", name, make, **parameters)

    for aligned in (False, True):
        for ratio in (-1, 0, 1, 2, 3, 9):
            # the reversed ones are an error where the number of samples would follow from their size
            boxes = [*SPECIAL.values(), *(() if aligned and ratio <= 0 else REVERSED.values())]
            label = f"{'aligned' if aligned else 'unaligned'}_ratio{ratio}"
            how = {"ratio": ratio, "aligned": aligned, "boxes": boxes}
            yield row(f"{label}_o2", 2, **how)
            yield row(f"{label}_o5x3_scale4", (5, 3), scale=0.25, **how)
            yield row(f"{label}_o7_scale16", [7, 7], scale=1 / 16, **how)
    yield row("large_adaptive", 2, boxes=[(0, -300, -200, 500, 700), (1, -1e4, 2, 1e4, 5)], ratio=0)
    yield row("map_1x1", 3, shape=(1, 2, 1, 1), boxes=[(0, 0, 0, 1, 1), (0, -1, -1, 2, 2), (0, 3, 3, 4, 4)])
    yield row("map_1x6", 3, shape=(1, 2, 1, 6), aligned=False)
    nan = [((0, 0, slice(0, 4)), np.nan), ((1, 1, 3, 3), np.nan)]
    yield row("nan", 3, boxes=list(SPECIAL.values()), spoiled=nan)
    yield row("no_rois", 2, count=0)
    yield row("no_pictures", 2, count=0, shape=(0, 3, 9, 11))
    yield row("no_channels", 2, shape=(1, 0, 9, 11))
    for channels in (1, 7, 15, 16, 17, 33, 64, 65, 130):
        yield row(f"channels{channels}", (3, 2), shape=(2, channels, 5, 6), count=4)


def rows():
    """Return the rows of this file."""
    yield from _roi_pool_rows()
    yield from _roi_align_rows()
