"""Colours for objects: neighbours look different, and an object's colour depends on those before it only."""

import numpy as np

#: Beyond this many objects the colours just take turns: comparing all pairs would take too long.
_MOST_COMPARED = 4000


def object_colours(boxes, palette, near):
    """Choose a colour for each object.

    Object ``i`` takes colour ``i`` of the palette, in turn, or the next one that no earlier object near it has; where
    neighbours have all of them, the one whose nearest owner is farthest away.

    Parameters
    ----------
    boxes : ndarray
        (K, 4): x1, y1, x2, y2.
    palette : sequence of (red, green, blue)
        Colours.
    near : float
        Up to which gap between two boxes, in pixels, they are neighbours.

    Returns
    -------
    ndarray
        (K,) int64: numbers of colours.
    """
    count, colours = len(boxes), len(palette)
    chosen = np.arange(count) % colours
    if count > _MOST_COMPARED:
        return chosen
    for i in range(1, count):
        across = np.maximum(boxes[:i, 0] - boxes[i, 2], boxes[i, 0] - boxes[:i, 2])
        down = np.maximum(boxes[:i, 1] - boxes[i, 3], boxes[i, 1] - boxes[:i, 3])
        gap = np.full(colours, np.inf)
        np.minimum.at(gap, chosen[:i], np.maximum(across, down))
        in_turn = (i + np.arange(colours)) % colours
        free = gap[in_turn] > near
        chosen[i] = in_turn[free.argmax() if free.any() else gap[in_turn].argmax()]
    return chosen
