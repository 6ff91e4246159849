"""Cutting a picture into overlapping tiles whose results join without a seam.

A U-Net's output pixel depends on a window of its input only: the receptive field. A tile's inner pixels, whose window
lies inside the tile, are therefore exactly those of the whole picture; the rest of the tile is thrown away. Where a
tile ends at the picture's own border, nothing is thrown away there: the network sees the same border either way.
Tiles start at multiples of the network's stride, so that max-pooling groups the same pixels.
"""

import functools


def _reads(first, last, depth, level=0):
    """Return the first and last pixel of level ``level``'s input that its output pixels ``first..last`` depend on.

    A level of the U-Net: two 3x3 convolutions, then (but for the deepest) 2x2 max-pooling, the next level, 2x2
    transposed convolution, concatenation with what went into the pooling, and two 3x3 convolutions.
    """
    if level == depth - 1:
        return first - 2, last + 2
    first, last = first - 2, last + 2  # what the two convolutions after the concatenation read
    below_first, below_last = _reads(first // 2, last // 2, depth, level + 1)
    first, last = min(first, 2 * below_first), max(last, 2 * below_last + 1)
    return first - 2, last + 2


@functools.cache
def _reach(depth):
    """Return how far the output pixels reach back and forth, one (before, after) per position in the stride."""
    reach = []
    for p in range(2 ** (depth - 1)):
        first, last = _reads(p - 1, p + 1, depth)  # the last 3x3 convolution
        reach.append((p - first, last - p))
    return reach


def receptive_field(depth):
    """Return how far a U-Net looks.

    Parameters
    ----------
    depth : int
        Number of resolutions: the length of the U-Net's ``widths``.

    Returns
    -------
    before, after : int
        The largest distance in pixels, over all positions, from an output pixel to the first and to the last input
        pixel of its row (or column) that it depends on.

    Raises
    ------
    ValueError
        If ``depth`` is below 1.

    Examples
    --------
    >>> receptive_field(1)
    (3, 3)
    >>> receptive_field(5)
    (108, 108)
    """
    if depth < 1:
        raise ValueError(f"depth is {depth}; expected at least 1")
    reach = _reach(depth)
    return max(before for before, _ in reach), max(after for _, after in reach)


def smallest_tile(depth):
    """Return the side of the smallest tile, in pixels, that always has an inner part: a multiple of the stride."""
    stride = 2 ** (depth - 1)
    before, after = receptive_field(depth)
    return -(-before // stride) * stride + -(-after // stride) * stride + stride


def automatic_tile(widths, budget=512 * 2**20):
    """Return the tile that `predict` takes when none is asked for.

    The U-Net's memory is nearly all at full resolution, where about eight arrays of ``widths[0]`` float32 channels
    live at a time (the input, convolved, normalised and concatenated maps of the last level): 32 ``widths[0]`` bytes
    a pixel. The tile is the largest square of whole strides for which that stays within ``budget``, but never less
    than twice the smallest possible tile, below which most of the work would be thrown away.

    Parameters
    ----------
    widths : sequence of int
        The U-Net's channels per resolution.
    budget : int
        Bytes for the intermediate arrays of one tile.

    Returns
    -------
    int
        Side of the tile in pixels.

    Examples
    --------
    >>> automatic_tile((8, 16, 32, 64, 128)), automatic_tile((64, 128, 256, 512, 1024))
    (1440, 512)
    """
    depth = len(widths)
    stride = 2 ** (depth - 1)
    side = int((budget / (32 * widths[0])) ** 0.5) // stride * stride
    return max(side, 2 * smallest_tile(depth))


def tiles_along(length, tile, depth):
    """Cut one axis of a picture into overlapping tiles.

    Parameters
    ----------
    length : int
        Size of the picture along this axis, padded to whole strides.
    tile : int
        Size of a tile, in whole strides.
    depth : int
        Number of resolutions of the U-Net; its stride is ``2 ** (depth - 1)``.

    Returns
    -------
    list of (start, stop, keep_start, keep_stop)
        The tile covers the pixels ``start..stop - 1``; of its result the pixels ``keep_start..keep_stop - 1`` of the
        picture are kept. The kept parts follow each other without gap or overlap.

    Raises
    ------
    ValueError
        If a size is no multiple of the stride, or the tile is too small to have an inner part.
    """
    stride = 2 ** (depth - 1)
    if length % stride or tile % stride or length < 0 or tile < 1:
        raise ValueError(f"length is {length} and tile is {tile}; expected multiples of the network's stride {stride}")
    if tile >= length:
        return [(0, length, 0, length)]
    if tile < smallest_tile(depth):
        raise ValueError(
            f"tile is {tile}; expected at least {smallest_tile(depth)}: a network of {depth} resolutions looks "
            f"{max(receptive_field(depth))} pixels around each pixel"
        )
    reach = _reach(depth)
    tiles, keep_start = [], 0
    while keep_start < length:
        start = max(0, (keep_start - reach[keep_start % stride][0]) // stride * stride)
        start = min(start, length - tile)
        stop = start + tile
        keep_stop = stop
        while stop < length and keep_stop - 1 + reach[(keep_stop - 1) % stride][1] >= stop:
            keep_stop -= 1
        tiles.append((start, stop, keep_start, keep_stop))
        keep_start = keep_stop
    return tiles
