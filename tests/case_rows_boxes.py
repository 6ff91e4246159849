"""Rows of the table of cases: operators on boxes, which have no gradient."""

import numpy as np
from case_builders import WIDTHS, case


def random_boxes(rng, count, dtype, size=100):
    """Return boxes inside and partly outside a picture of that size, a fifth of them without area."""
    low = rng.uniform(-size / 5, size, (count, 2))
    extent = rng.uniform(1, size / 2, (count, 2))
    extent[::5, 0] = 0
    return np.concatenate([low, low + extent], axis=1).astype(dtype)


def _iou_rows():
    def row(name, n, m):
        return case(
            "box_iou", name, lambda rng, dtype: {"a": random_boxes(rng, n, dtype), "b": random_boxes(rng, m, dtype)}
        )

    for width in WIDTHS:
        yield row(f"width{width}", 3, width)
    yield row("several_tasks", 40, 2000)
    yield row("more_boxes_than_a_task_has_pairs", 2, 40_000)
    yield row("no_a", 0, 3)
    yield row("no_b", 3, 0)


def _nms_rows():
    def row(name, count, iou_threshold=0.5, levels=None, size=100):
        def inputs(rng, dtype):
            boxes = random_boxes(rng, count, dtype, size)
            scores = rng.standard_normal(count) if levels is None else rng.integers(0, levels, count)
            return {"boxes": boxes, "scores": scores.astype(dtype)}

        return case("nms", name, inputs, iou_threshold=iou_threshold)

    for width in WIDTHS:
        yield row(f"width{width}", width, 0.3)
    yield row("a_block_and_one", 257)
    yield row("many_tiles", 1500, 0.3)
    yield row("few_suppressed", 1500, size=10_000)
    yield row("equal_scores", 600, levels=1)
    yield row("ties", 600, 0.2, levels=5)
    yield row("threshold0", 300, 0)
    yield row("threshold1", 300, 1)
    yield row("empty", 0)


def _pasting_rows():
    def row(name, count, size, image_size, picture=50):
        def inputs(rng, dtype):
            masks = rng.uniform(0, 1, (count, 1, size, size)).astype(dtype)
            return {"masks": masks, "boxes": random_boxes(rng, count, dtype, picture)}

        return case("paste_masks", name, inputs, image_size=image_size)

    yield row("one_value", 3, 1, (20, 31))
    yield row("odd", 6, 7, (50, 49))
    yield row("usual", 5, 28, (60, 64))
    yield row("small_picture", 9, 14, 3)
    yield row("far_larger_than_the_mask", 2, 4, (90, 200), 300)
    yield row("empty", 0, 28, (4, 5))


def rows():
    """Return the rows of this file."""
    yield from _iou_rows()
    yield from _nms_rows()
    yield from _pasting_rows()
