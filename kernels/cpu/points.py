"""What the convolutions whose kernels do not overlap share: plans, tasks and weights in tiles.

Such a convolution is a product of a matrix of weights with the pixels of a picture (see ``point_convolution`` and
``point_spread``). Lanes are pixels. A task packs a block of them as panels, [panel][channel][pixels of a register
tile], which it then reads from end to end for every tile of output channels. Where there are few channels, packing
would cost more than it saves, and the pixels are read where they are.
"""

from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np
from numba import prange

from kernels.cpu import packing
from kernels.cpu.native import address_of, call
from kernels.cpu.pair_vectors import pack_weight_columns, pack_weight_rows
from kernels.cpu.tiling import NARROW, WIDE, lanes
from kernels.cpu.vector import clear
from kernels.jit import jit

#: Packed pixels of a task leave room for weights in a core's second-level cache.
_PACKED_BYTES = 600_000
#: Vectors of a block at most.
_BLOCK_VECTORS = 384
#: Terms of the sums that are packed and multiplied at a time: the weights of a tile stay in the nearest cache, and a
#: block has enough vectors for each of them to be read seldom.
_TERMS = 512
#: Tiles of output channels, and input channels, up to which pixels are read where they are.
_DIRECT_TILES, _DIRECT_CHANNELS = 2, 512
#: Terms whose weights a task packs: what it reads at once stays in the nearest cache, whatever the distances.
_PACKED_TERMS = 8
#: What it costs to pack one vector, in multiplications of a vector.
_PACKING_COST = 6

# ---- planning --------------------------------------------------------------------------------------------------------


class Sizes(NamedTuple):
    """What a task must know of the shapes; pixels and vectors are those of one picture of the output."""

    tasks: int
    channels: int
    rows: int  # of the product
    in_channels: int
    depth: int  # terms of a sum
    group: int  # input channels whose terms are packed at a time
    chunk: int  # how many terms these are
    tiles: int  # of output channels
    tile_channels: int
    tile_rows: int
    narrow: int
    pixels: int
    vectors: int
    lanes: int
    panel_vectors: int
    blocks: int
    parts: int
    width: int  # of the output
    in_width: int
    row_step: int  # between pixels of x that are neighbours in the output
    col_step: int
    plane: int  # of x
    kernel_rows: int
    kernel_cols: int
    lines: int  # in scratch: where a line of pixels waits, and how long it is
    line_size: int
    direct: int
    add: int = 0  # whether a residual is added, and a ReLU applied
    relu: int = 0


class Tables(NamedTuple):
    """Arrays of int64: per vector where it reads, where it writes, how many lanes it writes."""

    x_offsets: np.ndarray  # in the input, and in the packed block
    in_offsets: np.ndarray
    out_offsets: np.ndarray
    counts: np.ndarray


class Plan(NamedTuple):
    """How one shape of correlation is computed."""

    workers: int
    scratch_size: int
    tables: Tables
    taps: np.ndarray  # of int64: where each channel starts
    sizes: Sizes


def point_tile(channels):
    """Return the tile for so many output channels: if all are in few tiles, each pixel comes from memory but once."""
    return NARROW if channels <= _DIRECT_TILES * NARROW.rows else WIDE


@lru_cache(maxsize=1024)
def plan_points(dtype, x_shape, channels, out_size, strides, kernel, threads, spread):
    """Return the plan for arrays of these shapes."""
    pictures, in_channels, height, width = x_shape
    plane, depth = height * width, in_channels * kernel[0] * kernel[1]
    rows = 4 * channels if spread else channels  # of the product
    tile, lane_count = WIDE if spread else point_tile(channels), lanes(dtype)
    tiles = -(-rows // tile.rows)
    # a line is what vectors do not cross: a row of pixels, or all of them
    lines, line = (height, width) if spread else (1, out_size[0] * out_size[1])
    row, col = (a.ravel() for a in np.meshgrid(range(lines), np.arange(0, line, lane_count), indexing="ij"))
    pixels, vectors = lines * line, row.size
    group = -(-in_channels // -(-depth // _TERMS))
    chunk = group * kernel[0] * kernel[1]
    panel_size = tile.columns * lane_count * chunk
    few = tiles <= _DIRECT_TILES * (2 if spread else 1) and in_channels <= _DIRECT_CHANNELS
    direct = few and pixels == plane and line >= lane_count
    panels, fit = -(-vectors // tile.columns), _BLOCK_VECTORS // tile.columns
    if not direct:
        fit = min(fit, _PACKED_BYTES // (panel_size * dtype.itemsize))
    fewest = -(-panels // max(fit, 1))

    def cost(cut):  # every part packs, or reads, the same pixels once more
        blocks, parts = cut
        panel_cost = _PACKING_COST + -(-tiles // parts) * tile.rows
        return -(-pictures * blocks * parts // threads) * -(-panels // blocks) * panel_cost

    cuts = [
        (b, p) for p in (1, 2, 4, 8, 16, 32) if p <= tiles for b in range(fewest, min(panels, fewest + threads) + 1)
    ]
    blocks, parts = min(cuts, key=cost)
    if direct:  # the last vector of a line begins earlier instead of reading beyond the end
        col = np.minimum(col, line - lane_count)
        in_offsets, taps = row * line + col, np.arange(in_channels) * plane
    else:
        panel, place = np.divmod(np.arange(vectors), tile.columns)
        starts = np.arange(blocks) * panels // blocks
        panel -= starts[np.searchsorted(starts, panel, "right") - 1]
        in_offsets = panel * panel_size + place * lane_count
        taps = np.arange(chunk) * tile.columns * lane_count
    most = -(-panels // blocks)
    line_size = (most * tile.columns + 1) * lane_count if kernel[1] == strides[1] == 2 else 0
    x_offsets, counts = row * line + col, np.minimum(line - col, lane_count)
    out_offsets = 4 * row * line + 2 * col if spread else col
    sizes = Sizes(
        tasks=pictures * blocks * parts,
        channels=channels,
        rows=rows,
        in_channels=in_channels,
        depth=depth,
        group=group,
        chunk=chunk,
        tiles=tiles,
        tile_channels=tile.rows // 4 if spread else tile.rows,
        tile_rows=tile.rows,
        narrow=int(tile == NARROW),
        pixels=pixels,
        vectors=vectors,
        lanes=lane_count,
        panel_vectors=tile.columns,
        blocks=blocks,
        parts=parts,
        width=out_size[1],
        in_width=width,
        row_step=strides[0] * width,
        col_step=strides[1],
        plane=plane,
        kernel_rows=kernel[0],
        kernel_cols=kernel[1],
        lines=most * panel_size,
        line_size=line_size,
        direct=int(direct),
    )
    arrays = (x_offsets, in_offsets, out_offsets, counts, taps)
    *tables, taps = (np.ascontiguousarray(a, np.int64) for a in arrays)
    scratch_size = 0 if direct else most * panel_size + 2 * line_size
    return Plan(min(threads, sizes.tasks), -(-scratch_size // 64) * 64, Tables(*tables), taps, sizes)


@jit
def share_of(sizes, task):
    """Return what a task computes: its picture, the first tile and the last, the first vector and the last."""
    part, block = task % sizes.parts, task // sizes.parts % sizes.blocks
    picture = task // (sizes.parts * sizes.blocks)
    tiles = part * sizes.tiles // sizes.parts, (part + 1) * sizes.tiles // sizes.parts
    panels = (sizes.vectors + sizes.panel_vectors - 1) // sizes.panel_vectors
    first, last = block * panels // sizes.blocks, (block + 1) * panels // sizes.blocks
    return picture, tiles, (first * sizes.panel_vectors, min(last * sizes.panel_vectors, sizes.vectors))


class Arrays(NamedTuple):
    """The flat arrays that all tasks share."""

    out: np.ndarray
    x: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    residual: np.ndarray


# ---- running ---------------------------------------------------------------------------------------------------------


def run_points(task, plan, out, x, matrix, bias, scale, residual, relu):
    """Fill ``out`` by running ``task``; the weights are a matrix, (rows of the product, terms of its sums)."""
    dtype, rows = x.dtype, plan.sizes.tiles * plan.sizes.tile_rows
    tile_bias = np.zeros(rows + plan.sizes.tile_rows, dtype)  # what later chunks of a sum start at comes last
    if bias is not None:
        tile_bias[: bias.size] = bias
    weights = _pack_weights(plan, matrix, scale)
    scratch = packing.scratch(plan.workers, plan.scratch_size, dtype)
    add = packing.flat(x if residual is None else residual)  # without one, any array: it is not read
    arrays = Arrays(packing.flat(out), packing.flat(x), weights, tile_bias, add)
    sizes = plan.sizes._replace(add=int(residual is not None), relu=int(relu))
    _launch(task, arrays, scratch, plan, sizes)
    return out


def _launch(task, arrays, scratch, plan, sizes):
    """Run all tasks on as many workers as there are rows of scratch."""
    address = address_of(task, arrays.out.dtype, (arrays, scratch[0], plan.tables, plan.taps, sizes, 0))
    _point_kernel(address, tuple(arrays), scratch, tuple(plan.tables), plan.taps, tuple(sizes))


@jit(parallel=True)
def _point_kernel(address, arrays, scratch, tables, taps, sizes):
    """Share the tasks out to as many workers as there are rows of scratch."""
    # named here: Numba takes long to recognise a named tuple that comes from Python
    named_arrays, named_tables, named_sizes = Arrays(*arrays), Tables(*tables), Sizes(*sizes)
    workers, tasks = scratch.shape[0], named_sizes.tasks
    for worker in prange(workers):
        first = np.int64(worker) * tasks // workers
        last = (np.int64(worker) + 1) * tasks // workers
        for task in range(first, last):
            call(address, named_arrays, scratch[worker], named_tables, taps, named_sizes, task)


# ---- weights ---------------------------------------------------------------------------------------------------------


def _pack_weights(plan, matrix, scale):
    """Return the weights of each tile, term by term, multiplied by the scale of their row."""
    sizes, dtype = plan.sizes, matrix.dtype
    if sizes.narrow:  # there are few
        matrix = matrix if scale is None else matrix * scale[:, None]
        return packing.pack_weights(matrix[None, :, :, None, None], (((0,), (0,)),), sizes.tile_rows)
    factors = np.zeros(sizes.tiles * sizes.tile_rows, dtype)
    factors[: matrix.shape[0]] = 1 if scale is None else scale
    packed = packing.scratch(1, factors.size * sizes.depth, dtype, "weights")[0]
    if matrix.T.flags.c_contiguous:
        line, task, tasks = matrix.T, _pack_columns_task, -(-sizes.depth // _PACKED_TERMS)
    else:
        line, task, tasks = np.ascontiguousarray(matrix), _pack_rows_task, sizes.tiles
    arrays = Arrays(packed, packing.flat(line), packed, factors, packed)
    workers = min(numba.get_num_threads(), tasks)
    _launch(task, arrays, packing.scratch(workers, 0, dtype, "none"), plan, sizes._replace(tasks=tasks))
    return packed


@jit
def _pack_rows_task(arrays, scratch, tables, taps, sizes, tile):
    """Pack the weights of one tile, whose terms stand side by side."""
    first, to = tile * sizes.tile_rows, tile * sizes.tile_rows * sizes.depth
    rows = min(sizes.tile_rows, sizes.rows - first)
    source = first * sizes.depth
    if rows == sizes.tile_rows:
        pack_weight_rows(arrays.out, to, arrays.x, source, sizes.depth, sizes.depth, arrays.bias, first)
        return
    clear(arrays.out, to, sizes.tile_rows * sizes.depth)
    for m in range(rows):
        for t in range(sizes.depth):
            arrays.out[to + t * sizes.tile_rows + m] = arrays.x[source + m * sizes.depth + t] * arrays.bias[first + m]


@jit
def _pack_columns_task(arrays, scratch, tables, taps, sizes, task):
    """Pack some terms of the weights of every tile, whose rows stand side by side."""
    first = task * _PACKED_TERMS
    terms = min(_PACKED_TERMS, sizes.depth - first)
    for tile in range(sizes.tiles):
        row = tile * sizes.tile_rows
        source, to = first * sizes.rows + row, (tile * sizes.depth + first) * sizes.tile_rows
        rows = min(sizes.tile_rows, sizes.rows - row)
        pack_weight_columns(arrays.out, to, arrays.x, source, sizes.rows, terms, rows, arrays.bias, row)
