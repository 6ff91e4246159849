"""Convolutions of 2x2 with a stride of 2 between few channels: input gradients of a U-Net's transposed convolutions.

Pixels are read where they are, and parted into even and odd columns in registers: for few output channels this takes
less time than to write packed pixels and to read them again. All output channels meet a register tile of pixels while
it is in the nearest cache. A task computes some vectors of one picture. A vector may take its two halves from two rows;
where it would end beyond its map, or with rows of no whole number of halves, beyond its row, it begins earlier.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kernels.cpu import packing, tasks
from kernels.cpu.pair_vectors import PAIR_COLUMNS, gather_pairs
from kernels.cpu.tiling import WIDE, lanes
from kernels.jit import jit

#: Vectors of a task at most.
_TASK_VECTORS = 32
#: Output channels up to which this is faster than packed pixels.
_CHANNELS = 64
#: How many elements ahead of those that are read pixels are fetched.
_AHEAD = 256

# ---- public within the backend ---------------------------------------------------------------------------------------


def pays(dtype, channels, out_size, rows, cols):
    """Return whether `pair_correlate` is faster than `point_correlate`, for what that can compute."""
    strides = rows.stride, cols.stride
    taps = len(rows.pieces[0].offsets), len(cols.pieces[0].offsets)
    return strides == taps == (2, 2) and channels <= _CHANNELS and _vector_places(out_size, lanes(dtype)) is not None


def pair_correlate(x, weight, bias, out_size, scale=None, residual=None, relu=False):
    """Return the correlation of ``x`` with ``weight``, (out, in, 2, 2); see ``point_convolution.point_correlate``."""
    channels, in_channels = weight.shape[:2]
    tiles = -(-channels // WIDE.rows)
    matrix = weight.reshape(channels, -1) if scale is None else weight.reshape(channels, -1) * scale[:, None]
    weights = packing.pack_weights(matrix[None, :, :, None, None], (((0,), (0,)),), WIDE.rows)
    tile_bias = np.zeros(tiles * WIDE.rows, x.dtype)
    if bias is not None:
        tile_bias[:channels] = bias
    out = packing.new_array((x.shape[0], channels, *out_size), x.dtype)
    places = _places(out_size, x.shape[3], lanes(x.dtype))
    vectors = places.size // 3
    blocks = -(-vectors // _TASK_VECTORS)
    sizes = _Sizes(
        channels=channels,
        in_channels=in_channels,
        out_size=out_size[0] * out_size[1],
        x_size=x.shape[2] * x.shape[3],
        x_width=x.shape[3],
        vectors=vectors,
        blocks=blocks,
        add=int(residual is not None),
        relu=int(relu),
    )
    tasks.run(_pair_task, x.shape[0] * blocks, tuple(sizes), out, x, weights, tile_bias, residual, places=places)
    return out


# ---- planning --------------------------------------------------------------------------------------------------------


class _Sizes(NamedTuple):
    """What a task must know of the shapes."""

    channels: int
    in_channels: int
    out_size: int  # pixels of a map
    x_size: int
    x_width: int
    vectors: int  # of a map of the output
    blocks: int
    add: int  # whether there is a residual
    relu: int


def _vector_places(size, lane_count):
    """Return where in a map of the output the vectors begin; None if it is too small for them.

    Where two overlap, both write the same numbers.
    """
    height, width = size
    if width % (lane_count // 2) == 0 and height * width >= lane_count:
        return np.minimum(np.arange(0, height * width, lane_count), height * width - lane_count)
    if width < lane_count:
        return None
    cols = np.minimum(np.arange(0, width, lane_count), width - lane_count)
    return (np.arange(height)[:, None] * width + cols).ravel()


@lru_cache(maxsize=1024)
def _places(out_size, x_width, lane_count):
    """Return where vectors begin in a map of the output, and where their first and second halves do in the input."""
    starts = _vector_places(out_size, lane_count)
    pixels = starts + np.array([[0], [lane_count // 2]])
    inside = pixels // out_size[1] * 2 * x_width + pixels % out_size[1] * 2
    return np.concatenate([starts, *inside]).astype(np.int64)


# ---- kernels ---------------------------------------------------------------------------------------------------------


@jit
def _pair_task(arrays, sizes, number):
    """Compute all channels of some vectors of one picture."""
    size = _Sizes(*sizes[:9])
    picture, block = number // size.blocks, number % size.blocks
    first, last = block * size.vectors // size.blocks, (block + 1) * size.vectors // size.blocks
    x_start, out_start = picture * size.in_channels * size.x_size, picture * size.channels * size.out_size
    for vector in range(first, last, PAIR_COLUMNS):
        for channel in range(0, size.channels, WIDE.rows):
            to = out_start + channel * size.out_size
            ahead = _AHEAD + (channel // WIDE.rows % 2) * size.x_width
            # fmt: off
            gather_pairs(
                arrays.out, to, size.out_size, size.channels - channel, arrays.a, x_start, size.x_size,
                size.in_channels, size.x_width, arrays.places, size.vectors, vector, last - vector, ahead,
                arrays.b, channel * 4 * size.in_channels, arrays.c, channel, arrays.d, size.add, size.relu,
            )
            # fmt: on
