"""Which algorithm computes a convolution: the one that should take the least time.

``winograd`` (``winograd.py``)
    3x3 without stride, in float32: a quarter of the products, for transforms of input, kernel and output. Best nearly
    everywhere; with few channels the transforms outweigh what they save.
``channels`` (``panel_convolution.py``)
    Lanes are output channels: small, deep maps, whatever their width and stride.
``points`` (``point_convolution.py``, ``point_pairs.py``, ``point_spread.py``)
    1x1, and 2x2 with a stride of 2, transposed or not: lanes are pixels, whatever rows they are in.
``rows`` (``row_convolution.py``), ``thin`` (``thin_convolution.py``)
    3x3 without stride, few input channels or few output channels, or both in each group: lanes are pixels of a row,
    which are read where they are.
``pixels`` (``correlation.py``)
    Lanes are pixels of a row: everything else, and all groups.

The weight gradient has five of its own: ``winograd_gradient.py``, ``panel_gradient.py``, ``point_gradient.py``,
``thin_gradient.py`` and ``weight_gradient.py``.

Each estimate is a number of nanoseconds on one core: how often the innermost steps run, times what they were measured
to take on a machine with AVX-512. On another machine all are wrong by about the same factor, which does not change the
order. The number of threads must not enter: the choice would change the result.
"""

import math
from functools import lru_cache

import numpy as np

from kernels.cpu import (
    panel_convolution,
    panel_gradient,
    point_convolution,
    point_gradient,
    point_spread,
    row_convolution,
    thin_convolution,
    thin_gradient,
    winograd,
)
from kernels.cpu.points import point_tile
from kernels.cpu.tiling import DOT, PANEL, WIDE, lanes, multiply_tiling, panel_width

#: A multiplication and addition of vectors in a register tile; what the narrow tile, which loads more, costs more.
_PRODUCT, _NARROW = 0.3, 1.25
#: Winograd: one channel of sixteen tiles, forth or back; one kernel of 3x3; arranging a call.
_TRANSFORM, _KERNEL, _CALL = 165, 8, 20_000
#: Lanes of channels: a weight is packed into panels at every call; an output is written a second time, apart from its
#: neighbours, where these belong to other pieces.
_PANEL_WEIGHT, _APART = 1.0, 1.5
#: A vector of the input or the output is packed or turned; a weight is packed, and read for every block, in tiles.
_VECTOR, _TILE_WEIGHT, _POINT_WEIGHT = 4, 2.0, 0.7
#: Pixels that are read where they are; and a vector of the input or the output, which comes from afar or goes there.
_THIN_PRODUCT, _ROW_PRODUCT, _FAR_VECTOR = 0.34, 0.28, 1.5
#: The same for weight gradients, whose operands come from farther; per kernel, lanes are added up and transformed.
_GRADIENT_PRODUCT, _GRADIENT_TRANSFORM, _GRADIENT_KERNEL = 0.34, 150, 50
_DOT_PRODUCT, _PANEL_PRODUCT = 0.45, 0.35
#: And where both operands are read from where they are, with the reading of one vector.
_POINT_PRODUCT, _POINT_VECTOR = 0.4, 2.4
#: And where rows are read where they are; for each row, the sums are loaded and stored.
_THIN_GRADIENT, _ROW = 0.33, 60

_state = {"winograd": True}


def allow_winograd(allowed):
    """Allow or forbid Winograd's method, whose rounding errors are larger; return what held before."""
    before, _state["winograd"] = _state["winograd"], bool(allowed)
    return before


def choose(dtype, x_shape, weight_shape, out_size, rows, cols):
    """Return the name of the algorithm for a correlation.

    Parameters
    ----------
    dtype : dtype
        Of all arrays.
    x_shape : (N, C, H, W)
        Shape of the input.
    weight_shape : (groups, out, in, kH, kW)
        Shape of the weights.
    out_size : (int, int)
        Height and width of the output.
    rows, cols : packing.Axis
        Which input rows and columns each output row and column meets.

    Returns
    -------
    str
        "winograd", "channels", "points", "rows", "thin" or "pixels".
    """
    estimates = estimate(np.dtype(dtype), x_shape, weight_shape, out_size, rows, cols, _state["winograd"])
    return min(estimates, key=estimates.get)


@lru_cache(maxsize=4096)
def estimate(dtype, x_shape, weight_shape, out_size, rows, cols, with_winograd=True):
    """Return the nanoseconds that each possible algorithm should take on one core, by name; see ``choose``."""
    pictures = x_shape[0]
    groups, channels, in_channels = weight_shape[:3]
    height, width = out_size
    kernels = channels * in_channels
    taps = in_channels * sum(len(p.kernel) for p in rows.pieces) * sum(len(p.kernel) for p in cols.pieces)
    taps /= rows.step * cols.step  # of one output
    tile = multiply_tiling(channels)
    piece_width = (width + cols.step - 1) // cols.step
    vectors = pictures * groups * height * cols.step * -(-piece_width // lanes(dtype))
    products = vectors * taps * -(-channels // tile.rows) * tile.rows
    weights = kernels * taps / max(in_channels, 1) * rows.step * cols.step
    inputs = x_shape[0] * x_shape[1] * x_shape[2] * x_shape[3] / lanes(dtype)
    estimates = {"pixels": products * _PRODUCT * (1 if tile.columns <= 4 else _NARROW)}
    moved = (inputs + vectors * channels) * _FAR_VECTOR
    estimates["pixels"] += weights * _TILE_WEIGHT + inputs * _VECTOR + moved
    if thin_convolution.possible(weight_shape, rows, cols):
        outputs = pictures * groups * channels * thin_convolution.vectors_of(out_size, dtype)
        estimates["thin"] = outputs * taps * _THIN_PRODUCT + moved
    if row_convolution.possible(x_shape, weight_shape, out_size, rows, cols):
        outputs = pictures * groups * height * row_convolution.row_vectors(width, dtype)
        estimates["rows"] = outputs * taps * -(-channels // WIDE.rows) * WIDE.rows * _ROW_PRODUCT + moved
    if panel_convolution.possible(groups, rows, cols):
        panels = -(-channels // panel_width(dtype))
        outputs = pictures * channels * height * width
        products = pictures * height * width * taps * panels * PANEL.columns
        apart = outputs * _APART if rows.step * cols.step > 1 else 0
        turning = (inputs + outputs / lanes(dtype)) * _VECTOR
        estimates["channels"] = products * _PRODUCT + weights * _PANEL_WEIGHT + turning + apart
    if point_convolution.possible(x_shape, groups, out_size, rows, cols):
        vectors, tile = pictures * point_convolution.vectors_of(height * width, channels, dtype), point_tile(channels)
        products = vectors * taps * -(-channels // tile.rows) * tile.rows
        packing = vectors * taps * _VECTOR + weights * _POINT_WEIGHT
        estimates["points"] = products * _PRODUCT * (1 if tile.columns <= 4 else _NARROW) + packing
        del estimates["pixels"]  # the same, with vectors cut short
    if point_spread.spread_possible(x_shape, groups, out_size, rows, cols):
        vectors = pictures * x_shape[2] * -(-x_shape[3] // lanes(dtype))
        products = vectors * in_channels * -(-4 * channels // WIDE.rows) * WIDE.rows
        estimates["points"] = products * _PRODUCT + vectors * in_channels * _VECTOR + 4 * kernels * _POINT_WEIGHT
        del estimates["pixels"]
    if with_winograd and winograd.possible(dtype, groups, rows, cols):
        vectors = winograd.vectors_of(pictures, out_size)
        products = vectors * winograd.POINTS * in_channels * -(-channels // 8) * 8
        transforms = vectors * (in_channels + channels) * _TRANSFORM
        estimates["winograd"] = products * _PRODUCT + transforms + kernels * _KERNEL + moved + _CALL
    return estimates


def choose_gradient(dtype, dy_shape, x_shape, groups, rows, cols):
    """Return the name of the algorithm for the weight gradient of a correlation; parameters as for ``choose``.

    Parameters
    ----------
    dtype : dtype
        Of all arrays.
    dy_shape, x_shape : tuple of int
        Shapes of the output's gradient and of the input.
    groups : int
        Number of groups.
    rows, cols : packing.Axis
        Which input rows and columns each output row and column met.

    Returns
    -------
    str
        "winograd", "channels", "points", "thin" or "pixels".
    """
    allowed = _state["winograd"]
    estimates = estimate_gradient(np.dtype(dtype), dy_shape, x_shape, groups, rows, cols, allowed)
    return min(estimates, key=estimates.get)


@lru_cache(maxsize=4096)
def estimate_gradient(dtype, dy_shape, x_shape, groups, rows, cols, with_winograd=True):
    """Return the nanoseconds that each possible algorithm should take on one core, by name; see ``choose_gradient``."""
    pictures, channels, height, width = dy_shape
    in_channels = x_shape[1] // groups
    taps = len(rows.pieces[0].kernel) * len(cols.pieces[0].kernel)
    vectors = pictures * height * -(-width // lanes(dtype))
    products = groups * _whole(channels // groups, DOT.rows) * _whole(in_channels * taps, DOT.columns)
    estimates = {"pixels": vectors * (products * _DOT_PRODUCT + x_shape[1] * _VECTOR)}
    if panel_convolution.possible(groups, rows, cols):
        if panel_gradient.gradient_pays(dtype, dy_shape, x_shape, rows, cols):
            lane_products = -(-channels // panel_width(dtype)) * PANEL.columns * x_shape[1]
            panels = pictures * height * width * taps * lane_products * _PANEL_PRODUCT
            panels += (math.prod(dy_shape) + math.prod(x_shape)) / lanes(dtype) * _VECTOR
            estimates["channels"] = min(panels, estimates["pixels"] * 0.99)
    if thin_gradient.possible(dy_shape, x_shape, groups, rows, cols):
        count, vectors = thin_gradient.rows_of(dy_shape, x_shape, dtype)
        estimates["thin"] = count * (vectors * 3 * thin_gradient.TILE * _THIN_GRADIENT + _ROW)
    if point_gradient.gradient_possible(dy_shape, x_shape, groups, rows, cols):
        vectors = point_gradient.vectors_of(dy_shape, rows.stride, dtype)
        reading = (channels + in_channels * taps) * _POINT_VECTOR
        estimates["points"] = vectors * (products * _POINT_PRODUCT + reading)
        del estimates["pixels"]
    if with_winograd and winograd.possible(dtype, groups, rows, cols):
        vectors = winograd.vectors_of(pictures, (height, width))
        kernels = _whole(channels, DOT.rows) * _whole(in_channels, DOT.columns)
        products = vectors * winograd.POINTS * kernels * _GRADIENT_PRODUCT
        transforms = vectors * (in_channels + channels) * _GRADIENT_TRANSFORM
        estimates["winograd"] = products + transforms + kernels * _GRADIENT_KERNEL + _CALL
    return estimates


def _whole(count, tile):
    """Return ``count``, rounded up to whole tiles."""
    return -(-count // tile) * tile
