"""A block of sums kept in vector registers: what the upper rungs of conv2d are built around.

The compiler vectorises a loop, but it does not keep a block of sums in registers across one. So the instructions are
written by hand, as LLVM IR: `kernels.cpu.vector_writer` has one method per instruction.
"""

from typing import Any

import numpy as np
from numba import extending

from kernels.cpu.tiling import WIDE, lanes
from kernels.cpu.vector_writer import signature_of, write_with

intrinsic: Any = extending.intrinsic  # to a type checker, callers would have to pass the typing context

#: Output channels of a tile.
ROWS = WIDE.rows


def tile_width(dtype):
    """Return how many numbers a row of the tile has: some vectors of them."""
    return WIDE.columns * lanes(dtype)


@intrinsic
def register_tile(
    typing_context, out, out_start, out_step, pixels, pixel_start, taps, tap_count, weights, weight_start
):
    """Write a tile of weighted sums: ``ROWS`` output channels by ``tile_width`` neighbouring places.

    For each row m and place p of the tile:

        out[out_start + m * out_step + p] = sum over t < tap_count of
            weights[weight_start + t * ROWS + m] * pixels[pixel_start + taps[t] + p]

    Each step loads some vectors of pixels, and for each row one weight, and multiplies all with all: 24 multiply-adds
    for 11 loads on a CPU with AVX-512. Indices count from the first element; nothing checks them.
    """
    signature = signature_of(out, out_start, out_step, pixels, pixel_start, taps, tap_count, weights, weight_start)
    return signature, write_with(_write_tile)


def _write_tile(w, out, out_start, out_step, pixels, pixel_start, taps, tap_count, weights, weight_start):
    pixels, weights = w.at(pixels, pixel_start), w.at(weights, weight_start)

    def add_tap(t, sums):
        here = w.at(pixels, w.get(taps, t))
        vectors = [w.load(here, v * w.lanes) for v in range(WIDE.columns)]
        factors = w.at(weights, w.builder.mul(t, w.int(ROWS)))
        added = []
        for m in range(ROWS):
            factor = w.splat(w.get(factors, m))
            old = sums[m * WIDE.columns : (m + 1) * WIDE.columns]
            added += [w.multiply_add(factor, vector, total) for vector, total in zip(vectors, old, strict=True)]
        return added

    sums = w.loop(tap_count, [w.zero] * (ROWS * WIDE.columns), add_tap)
    for m in range(ROWS):
        row = w.at(out, w.builder.add(out_start, w.builder.mul(out_step, w.int(m))))
        for v in range(WIDE.columns):
            w.store(sums[m * WIDE.columns + v], w.at(row, v * w.lanes))


def pack_weights(weight):
    """Return weights, (O, T), as (tiles, T, ROWS): what one step reads lies side by side.

    The last tile is filled up with zeros.
    """
    channels, taps = weight.shape
    tiles = -(-channels // ROWS)
    packed = np.zeros((tiles * ROWS, taps), weight.dtype)
    packed[:channels] = weight
    return np.ascontiguousarray(packed.reshape(tiles, ROWS, taps).swapaxes(1, 2))
