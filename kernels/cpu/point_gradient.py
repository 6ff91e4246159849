"""Weight gradients of convolutions whose kernels do not overlap: of 1x1, and of 2x2 with a stride of 2.

The gradient of one weight is the dot product of an output channel's gradient with the pixels that its tap met. Both are
read where they are; 2x2 pixels are parted into even and odd columns in registers. Vectors run over the ends of rows
where that is possible; the last one of a line may be cut short.

What a block of lines reads of one input channel stays in the nearest cache until all tiles of output channels have met
it, and what the next block reads is fetched meanwhile. Blocks are dealt out to slots with sums of their own, which are
added up in order: neither depends on the number of threads.
"""

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np

from kernels.cpu import packing, tasks
from kernels.cpu.pair_vectors import dot_pairs, dot_points
from kernels.cpu.point_convolution import possible
from kernels.cpu.tiling import DOT, VECTOR_BYTES, dot_size, lanes
from kernels.cpu.vector import clear
from kernels.jit import jit

#: Pixels of a block, and bytes of the output's gradient there: they stay in a core's second-level cache.
_BLOCK_PIXELS, _BLOCK_BYTES = 1024, 600_000
#: Slots at most, and the memory that all partial sums may take.
_SLOTS, _SUMS_BYTES = 32, 8_000_000

# ---- public within the backend ---------------------------------------------------------------------------------------


def gradient_possible(dy_shape, x_shape, groups, rows, cols):
    """Return whether `point_weight_gradient` can compute the weight gradient of a correlation."""
    taps = len(rows.pieces[0].offsets), len(cols.pieces[0].offsets)
    fits = (rows.stride, cols.stride) == taps and taps in ((1, 1), (2, 2))
    return fits and possible(x_shape, groups, dy_shape[2:], rows, cols)


def vectors_of(dy_shape, kernel, dtype):
    """Return how many vectors the gradients of one output channel are read in."""
    pictures, _, height, width = dy_shape
    lines, width = _lines(height, width, kernel, lanes(dtype))
    return pictures * lines * -(-width // lanes(dtype))


def point_weight_gradient(dy, x, rows, cols):
    """Return the gradient (out, in, kH, kW) of the weights of a correlation; see ``weight_gradient``."""
    dtype, kernel, channels, in_channels = dy.dtype, rows.stride, dy.shape[1], x.shape[1]
    sizes, places = _plan(dtype, dy.shape, x.shape, kernel, numba.get_num_threads())
    sums = packing.new_array((sizes.slots, sizes.tiles, sizes.columns, dot_size(dtype)), dtype)
    tasks.run(_gradient_task, sizes.slots * sizes.parts, tuple(sizes), sums, dy, x, places=places)
    with np.errstate(all="ignore"):  # infinities of both signs make NaN, silently
        total = sums.sum(axis=0)
    taps = _taps(kernel)
    total = total[..., : DOT.rows * taps].reshape(sizes.tiles, sizes.columns, DOT.rows, taps).swapaxes(1, 2)
    total = total.reshape(sizes.tiles * DOT.rows, sizes.columns * taps)
    return total[:channels, : in_channels * kernel**2].reshape(channels, in_channels, kernel, kernel)


# ---- planning --------------------------------------------------------------------------------------------------------


class _Sizes(NamedTuple):
    """What a task must know of the shapes."""

    slots: int
    parts: int  # into which the tiles of a slot are divided
    pictures: int
    channels: int
    in_channels: int
    tiles: int  # of output channels
    columns: int  # tiles of taps
    lines: int  # of a map of the output, and their pixels
    width: int
    x_size: int  # of a map of the input
    x_step: int  # from line to line
    block_pictures: int  # 1, unless a block holds all lines of a picture
    block_lines: int
    x_width: int  # 0 if the kernel is 1x1, otherwise from row to row


def _taps(kernel):
    """Return how many taps a tile has: those of one input channel, or one of each of several."""
    return 4 if kernel == 2 else DOT.columns


def _lines(height, width, kernel, lane_count):
    """Return the number of lines that a map of the output is read as, each of so many pixels: with the fewest vectors.

    Lines are some rows each. Of pairs of pixels, a vector reads half of its own from the next row.
    """
    if kernel == 2 and width % (lane_count // 2):
        return height, width
    choices = [n for n in range(1, height + 1) if height % n == 0 and (n == 1 or n * width <= _BLOCK_PIXELS // 2)]
    rows = min(choices, key=lambda n: height // n * -(-n * width // lane_count))
    return height // rows, rows * width


@lru_cache(maxsize=1024)
def _plan(dtype, dy_shape, x_shape, kernel, threads):
    """Return sizes and places for arrays of these shapes.

    Places are those of a block's whole vectors in ``dy``, in ``x`` and of the second half in ``x``, then the same of
    those cut short.
    """
    pictures, channels, height, row = dy_shape
    in_channels, *x_map = x_shape[1:]
    lines, width = _lines(height, row, kernel, lanes(dtype))
    fit = min(_BLOCK_PIXELS, _BLOCK_BYTES // (channels * dtype.itemsize))
    block_lines = min(lines, max(1, fit // width))
    blocks = -(-lines // block_lines)
    block_lines = -(-lines // blocks)  # of about equal size
    block_pictures = 1 if blocks > 1 else max(1, min(pictures, fit // (lines * width)))
    blocks *= -(-pictures // block_pictures)
    tiles, columns = -(-channels // DOT.rows), -(-in_channels * kernel**2 // _taps(kernel))
    slots = max(1, min(blocks, _SLOTS, _SUMS_BYTES // (tiles * columns * dot_size(dtype) * dtype.itemsize)))
    choices = (p for p in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32) if p <= tiles)
    parts = min(choices, key=lambda p: -(-slots * p // threads) * -(-tiles // p))
    sizes = _Sizes(
        slots=slots,
        parts=parts,
        pictures=pictures,
        channels=channels,
        in_channels=in_channels,
        tiles=tiles,
        columns=columns,
        lines=lines,
        width=width,
        x_size=x_map[0] * x_map[1],
        x_step=height // lines * kernel * x_map[1],
        block_pictures=block_pictures,
        block_lines=block_lines,
        x_width=x_map[1] if kernel == 2 else 0,
    )
    picture, line = (a.reshape(-1, 1) for a in np.meshgrid(range(block_pictures), range(block_lines), indexing="ij"))
    places = []
    for pixels in np.split(np.arange(0, width, lanes(dtype)), [width // lanes(dtype)]):
        places.append(picture * channels * lines * width + line * width + pixels)
        for pixel in (pixels, pixels + lanes(dtype) // 2):
            spots = picture * in_channels * sizes.x_size + line * sizes.x_step
            places.append(spots + kernel * (pixel // row * x_map[1] + pixel % row))
    return sizes, np.concatenate([a.ravel() for a in places]).astype(np.int64)


# ---- kernels ---------------------------------------------------------------------------------------------------------


@jit
def _gradient_task(arrays, sizes, number):
    """Sum over the blocks of one slot, for some tiles of output channels."""
    size = _Sizes(*sizes)
    part, slot = number % size.parts, number // size.parts
    tiles = part * size.tiles // size.parts, (part + 1) * size.tiles // size.parts
    line_blocks = (size.lines + size.block_lines - 1) // size.block_lines
    blocks = line_blocks * ((size.pictures + size.block_pictures - 1) // size.block_pictures)
    tile_size = size.columns * _sums_size(arrays)
    sums = slot * size.tiles * tile_size
    clear(arrays.out, sums + tiles[0] * tile_size, (tiles[1] - tiles[0]) * tile_size)
    for block in range(slot * blocks // size.slots, (slot + 1) * blocks // size.slots):
        line, picture = block % line_blocks * size.block_lines, block // line_blocks * size.block_pictures
        pictures = min(size.block_pictures, size.pictures - picture)
        lines = pictures * min(size.block_lines, size.lines - line)
        here, following = _block_starts(size, line_blocks, block), _block_starts(size, line_blocks, block + 1)
        _add_block(arrays, size, sums, tiles, lines, here, following)


@jit
def _block_starts(size, line_blocks, block):
    """Return where a block starts in the output's gradient and in the input."""
    line, picture = block % line_blocks * size.block_lines, block // line_blocks * size.block_pictures
    start = (picture * size.channels * size.lines + line) * size.width
    return start, picture * size.in_channels * size.x_size + line * size.x_step


@jit
def _add_block(arrays, size, sums, tiles, lines, here, following):
    """Add the dot products over some lines to the sums of a slot; fetch what the following block reads."""
    in_line, cut = size.width // _lanes(arrays), size.width % _lanes(arrays)
    most, plane = size.block_pictures * size.block_lines, size.lines * size.width
    spots = most * in_line, most * min(cut, 1)  # places of vectors in the block, whole and cut
    for column in range(size.columns):
        for tile in range(tiles[0], tiles[1]):
            to = sums + (tile * size.columns + column) * _sums_size(arrays)
            channel, number = tile * DOT.rows, min(tile - tiles[0], 3)
            # each tile fetches a channel of its own at the first columns, and at each a part of the column
            next_dy = following[0] + min(channel + min(column, DOT.rows - 1), size.channels - 1) * plane
            dy = arrays.a, here[0] + channel * plane, plane, size.channels - channel
            # fmt: off
            if size.x_width:
                next_x = following[1] + column * size.x_size + number * lines * size.width
                dot_pairs(
                    arrays.out, to, *dy, arrays.b, here[1] + column * size.x_size, size.x_width, 2, arrays.places,
                    0, spots[0], lines * in_line, 3 * spots[0], spots[1], lines * min(cut, 1), cut, next_dy, next_x,
                )
            else:
                first = column * DOT.columns
                next_x = following[1] + min(first + number, size.in_channels - 1) * size.x_size
                dot_points(
                    arrays.out, to, *dy, arrays.b, here[1] + first * size.x_size, size.x_size,
                    size.in_channels - first, arrays.places,
                    0, spots[0], lines * in_line, 3 * spots[0], spots[1], lines * min(cut, 1), cut, next_dy, next_x,
                )
            # fmt: on


@jit
def _lanes(arrays):
    """Return how many numbers a vector holds."""
    return VECTOR_BYTES // arrays.out.itemsize


@jit
def _sums_size(arrays):
    """Return what ``dot_size`` does."""
    return (DOT.rows * DOT.columns + _lanes(arrays) - 1) // _lanes(arrays) * _lanes(arrays)
