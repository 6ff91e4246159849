"""How work on RoIs is divided: forward by outputs, backward by outputs too, or by tiles of the map.

By outputs: a thread computes one bin of one RoI for `QUAD` neighbouring channels, so that what it finds out about the
bin is good for all of them. Neighbouring threads take neighbouring bins along x, then along y, then the next channels:
a warp writes 32 neighbouring numbers. What it reads are a few rows of one channel's map, each in a piece, since bins
side by side touch cells side by side; in NCHW order the channels of a cell lie a whole map apart, and threads along
channels would read from 32 places. The pieces of a RoI's next rows overlap, and come from the first-level cache.
Blocks that run at the same time take the same channels of different RoIs, so that these maps stay in the second level.

By tiles: a block owns `TILE_X` x `TILE_Y` cells of one picture in `DEPTH` channels, a thread one cell of those. It adds
up what each RoI gives to its cell, RoI after RoI: nobody else writes there, and the order of the sum is always the
same. Words of `WORD` bits, one bit for each RoI, say which RoIs touch a tile, so that the others cost nothing. A warp
is a row of cells: vertically, all of its threads take the same way.
"""

import numpy as np
from numba.types import int32, int64, uint32

from kernels.cuda import device
from kernels.cuda.array import empty
from kernels.cuda.device import SIMULATED, cuda, device_function, tile, typed_kernel

QUAD = 4
THREADS = tile(128, 4)
TILE_X, TILE_Y, DEPTH = tile(32, 4), tile(8, 2), 8
WORD = 32
#: Blocks to start for each multiprocessor, where there is so much to do.
_BLOCKS = 32


def grid_of_outputs(rois, channels, bins):
    """Return blocks and threads for the bins of RoIs: a block along the first axis is a RoI, along the second a part.

    The kernel goes through all in strides.
    """
    if SIMULATED:
        return (2, 2), THREADS
    items = -(-channels // QUAD) * bins
    parts = min(-(-items // THREADS), max(1, _BLOCKS * device.properties().processors // rois), 65_535)
    return (rois, parts), THREADS


@device_function
def bin_and_channels(item, bins, across):
    """Return the first channel of an item of `grid_of_outputs`, and its bin: its number, its row and its column."""
    quad = int64(uint32(item) // uint32(bins))  # a GPU divides numbers of 32 bits several times faster
    b = item - quad * bins
    py = int64(uint32(b) // uint32(across))
    return quad * QUAD, b, py, b - py * across


def grid_of_tiles(shape):
    """Return blocks and threads for a map: a block along the first axis is a tile, along the second some channels."""
    _, channels, _, _ = shape
    return (tiles_of(shape), min(-(-channels // DEPTH), 65_535)), (TILE_X, TILE_Y)


def tiles_of(shape):
    """Return the number of tiles of all pictures."""
    pictures, _, height, width = shape
    return pictures * -(-height // TILE_Y) * -(-width // TILE_X)


def touching(rois, first, after, output_size, shape):
    """Return which RoIs touch each tile.

    Parameters
    ----------
    rois : DeviceArray, shape (K, 5)
        Batch index and corners.
    first, after : DeviceArray of int32, shape (K, oH + oW)
        First cell of each row of bins, then of each column of bins, and the one after the last.
    output_size : (int, int)
        oH and oW.
    shape : (int, int, int, int)
        Shape of the maps.

    Returns
    -------
    DeviceArray of uint32, shape (tiles, words)
        Bit i of word w is set if RoI ``WORD * w + i`` touches the tile. Tiles run along x, then y, then pictures.
    """
    words = -(-len(rois) // WORD)
    masks = empty((tiles_of(shape), words), np.uint32)
    _touching_kernel.run(
        min(words, 2) if SIMULATED else words, THREADS,
        masks.raw, rois.raw, first.raw, after.raw, len(rois), words, *output_size, shape[0], *shape[2:],
    )  # fmt: skip
    return masks


@device_function
def place_of_tile(tile_number, height, width):
    """Return picture, row and column of the first cell of a tile."""
    across = (width + TILE_X - 1) // TILE_X
    down = (height + TILE_Y - 1) // TILE_Y
    n = tile_number // (across * down)
    rest = tile_number - n * across * down
    return n, rest // across * TILE_Y, rest % across * TILE_X


@typed_kernel(
    lambda T: (uint32[::1], T[::1], int32[::1], int32[::1], int64, int64, int64, int64, int64, int64, int64),
    threads=THREADS,
)
def _touching_kernel(T):
    def touching_kernel(masks, rois, first, after, K, words, down, across, pictures, height, width):
        # a block takes a word: it finds out what each RoI spans, then goes through the tiles
        span = cuda.shared.array((WORD, 5), int32)
        B = down + across
        tiles = pictures * ((height + TILE_Y - 1) // TILE_Y) * ((width + TILE_X - 1) // TILE_X)
        for word in range(cuda.blockIdx.x, words, cuda.gridDim.x):
            for i in range(cuda.threadIdx.x, WORD, cuda.blockDim.x):
                k = word * WORD + i
                span[i, 0] = int32(rois[5 * k]) if k < K else int32(-1)
                span[i, 1], span[i, 2], span[i, 3], span[i, 4] = height, 0, width, 0
            cuda.syncthreads()
            for at in range(word * WORD * B + cuda.threadIdx.x, min((word + 1) * WORD, K) * B, cuda.blockDim.x):
                i, low, end = at // B - word * WORD, first[at], after[at]
                if low < end:
                    axis = 1 if at % B < down else 3
                    cuda.atomic.min(span, (i, axis), low)
                    cuda.atomic.max(span, (i, axis + 1), end)
            cuda.syncthreads()
            for number in range(cuda.threadIdx.x, tiles, cuda.blockDim.x):
                n, y, x = place_of_tile(number, height, width)
                bits = uint32(0)
                for i in range(WORD):
                    inside_y = span[i, 1] < y + TILE_Y and span[i, 2] > y
                    inside_x = span[i, 3] < x + TILE_X and span[i, 4] > x
                    if span[i, 0] == n and inside_y and inside_x:
                        bits = uint32(bits | (uint32(1) << uint32(i)))
                masks[number * words + word] = bits
            cuda.syncthreads()  # before the spans of the next word

    return touching_kernel
