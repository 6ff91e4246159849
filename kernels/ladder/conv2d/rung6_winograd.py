"""Rung 6 of conv2d: fewer multiplications (Winograd; Lavin and Gray, arXiv:1509.09308).

**The idea, along one axis.** Take the product of two polynomials, g(x) with three coefficients and e(x) with four. Its
six coefficients are sums of 3 * 4 = 12 products. But a polynomial of degree 5 is known from its values at six points,
and each value takes one multiplication, g(p) e(p): 6 products do. What it takes to get from coefficients to values and
back is linear: sums of numbers times constants.

Here four neighbouring outputs are wanted, from a kernel of three and six pixels. They are sums of the same 12 products:
where the polynomials' product sends g[k] e[i] to coefficient k + i, here pixel k + i sends g[k] d[k + i] to output i.
That is the transposed map, so it can be done with the same 6 products, and the transposed constants.

**The matrices.** With the points 0, 1, -1, 2, -2 and "infinity" (the coefficient of the highest power):

    outputs = A^T [(G g) * (B^T d)]        * element by element

- G, (6, 3): the values of g at the points, one row (1, p, p^2) each; for infinity (0, 0, 1);
- A^T, (4, 6): the same of e, transposed: the powers of the points in columns;
- B^T, (6, 6): back from values to coefficients (Lagrange's interpolation), transposed. Row p has the coefficients of
  the product of (x - q) over the other points q, row infinity those of the product over all. Lagrange divides the
  former by the product of (p - q): that is put into G, where it costs nothing.

What this takes is shared: pixels are transformed once for all output channels, weights once for all pixels, sums once
for all input channels.

**In the plane** the same is done along both axes, Y = A^T [(G g G^T) * (B^T d B)] A: 36 products for 4x4 outputs that
took 144. The price is rounding: the entries of the matrices grow with the points, and so do the errors, to about
1e-5 of the largest output in float32.
"""

import numpy as np
from numba import prange

from kernels.cpu.native import native
from kernels.jit import RELAXED, jit
from kernels.ladder.conv2d.arguments import prepare, refuse_strides
from kernels.ladder.conv2d.register_tile import ROWS, register_tile, tile_width

POINTS = (0, 1, -1, 2, -2)  # and infinity
OUT, KERNEL, IN = 4, 3, 6  # along one axis, of one patch: outputs, kernel cells, pixels read


def transform_matrices(points=POINTS, out=OUT, kernel=KERNEL):
    """Return A^T, (out, in), G, (in, kernel), and B^T, (in, in); in = out + kernel - 1, one more than the points."""
    others = [[q for q in points if q != p] for p in points]
    denominators = [np.prod([p - q for q in rest]) for p, rest in zip(points, others, strict=True)]
    a = np.zeros((len(points) + 1, out))
    a[:-1], a[-1, -1] = np.vander(points, out, increasing=True), 1
    g = np.zeros((len(points) + 1, kernel))
    g[:-1], g[-1, -1] = np.vander(points, kernel, increasing=True) / np.reshape(denominators, (-1, 1)), 1
    b = np.zeros((len(points) + 1, len(points) + 1))
    for row, roots in zip(b, [*others, points], strict=True):
        row[: len(roots) + 1] = np.poly(roots)[::-1]  # the polynomial with these roots, constant term first
    return a.T, g, b


def conv2d_forward(x, weight, bias=None, stride=1, padding=0):
    """Convolve with a quarter of the multiplications: Winograd's F(4x4, 3x3); kernel 3x3, stride 1.

    Changes: outputs are computed in patches of 4x4, from 6x6 pixels each. A task takes as many patches as a register
    tile is wide. It transforms the pixels of each input channel, which leaves 36 matrix products, one per place in the
    patch: (O, C) weights by (C, patches) pixels, done by the tile of rung 5. Transforming the sums gives the outputs.

    Why: rung 5 is near what the core can multiply and add. From there on, only fewer operations help: 36 products
    instead of 144, plus the transforms, whose lanes are neighbouring patches.

    Measured: 170 GFLOP/s per core, counted in the direct method's operations: more than the core can do of those. With
    16 channels the transforms cost more than the products save. Without the JIT it cannot run. Parameters: see
    `kernels.ladder.conv2d`.
    """
    x, weight, bias, g = prepare(x, weight, bias, stride, padding)
    refuse_strides(g, "winograd")
    if (g.kH, g.kW) != (KERNEL, KERNEL):
        raise ValueError(f"the kernel is {g.kH}x{g.kW}; expected 3x3: the rung 'winograd' has no other")
    y = np.empty((g.N, g.O, g.oH, g.oW), x.dtype)
    a, g_matrix, b = transform_matrices()
    weights = np.zeros((IN, IN, -(-g.O // ROWS), g.C, ROWS), x.dtype)  # as the register tile reads them
    _transform_weights(weights, weight, g_matrix)
    a, b = a.astype(x.dtype), b.astype(x.dtype)
    arguments = weights, bias, a, b, g.pH, g.pW, tile_width(x.dtype)
    if y.size:
        convolve_patches = native(_convolve_patches, x.dtype, (y[0], x[0], 0, 0, *arguments))
        _winograd_kernel(convolve_patches, y, x, *arguments)
    return y


@jit
def _transform_weights(weights, weight, g):
    """Write ``G w G^T`` of each pair of channels."""
    half = np.empty((IN, KERNEL))
    for o in range(weight.shape[0]):
        for c in range(weight.shape[1]):
            w = weight[o, c]
            for i in range(IN):
                for k in range(KERNEL):
                    half[i, k] = g[i, 0] * w[0, k] + g[i, 1] * w[1, k] + g[i, 2] * w[2, k]
            for i in range(IN):
                for j in range(IN):
                    value = half[i, 0] * g[j, 0] + half[i, 1] * g[j, 1] + half[i, 2] * g[j, 2]
                    weights[i, j, o // ROWS, c, o % ROWS] = value


@jit(parallel=True)
def _winograd_kernel(convolve_patches, y, x, weights, bias, a, b, pad_y, pad_x, width):
    """Share out the patches of each picture, numbered row by row: ``width`` to a task."""
    patches = ((y.shape[2] + OUT - 1) // OUT) * ((y.shape[3] + OUT - 1) // OUT)
    blocks = (patches + width - 1) // width
    for task in prange(y.shape[0] * blocks):
        n, first = np.int64(task) // blocks, np.int64(task) % blocks * width
        end = min(first + width, patches)
        convolve_patches(y[n], x[n], first, end, weights, bias, a, b, pad_y, pad_x, width)


@jit
def _convolve_patches(y, x, first, end, weights, bias, a, b, pad_y, pad_x, width):
    """Compute the patches from ``first`` to ``end`` of all channels of one picture."""
    C, O, across = x.shape[0], y.shape[0], (y.shape[2] + OUT - 1) // OUT
    half, line = np.empty((IN, IN, width), x.dtype), np.empty(OUT * width + KERNEL - 1, x.dtype)
    patch, pixels = np.zeros((IN, IN, 1, width), x.dtype), np.empty((IN, IN, C, width), x.dtype)
    for c in range(C):
        _gather_patches(patch, line, x[c], first, end, across, pad_y, pad_x)
        _sandwich(pixels, c, half, b, patch, 0)
    taps = np.arange(C) * width
    sums, outputs = np.empty((IN, IN, ROWS, width), x.dtype), np.empty((OUT, OUT, 1, width), x.dtype)
    for channel in range(0, O, ROWS):  # tiles of output channels
        for k in range(IN * IN):
            start = (k * weights.shape[2] * ROWS + channel) * C
            register_tile(sums, k * ROWS * width, width, pixels, k * C * width, taps, C, weights, start)
        for o in range(channel, min(channel + ROWS, O)):
            _sandwich(outputs, 0, half, a, sums, o - channel)
            _spread_patches(y[o], line, outputs, bias[o], first, end, across)


@jit
def _gather_patches(patch, line, x, first, end, across, pad_y, pad_x):
    """Write the 6x6 pixels of patches of one channel, (H, W), to ``patch``, (6, 6, 1, patches)."""
    for row in range(first // across, (end - 1) // across + 1):  # the rows of patches that the task has a part of
        left, right = max(first - row * across, 0), min(end - row * across, across)
        place, x_first = row * across + left - first, left * OUT - pad_x
        x_start = max(x_first, 0)
        x_end = max(x_start, min(right * OUT + KERNEL - 1 - pad_x, x.shape[1]))
        for i in range(IN):
            y = row * OUT + i - pad_y
            line[:] = 0
            if 0 <= y < x.shape[0]:
                line[x_start - x_first : x_end - x_first] = x[y, x_start:x_end]
            for j in range(IN):
                for p in range(right - left):
                    patch[i, j, 0, place + p] = line[p * OUT + j]


@jit(fastmath=RELAXED)
def _sandwich(out, to, half, matrix, d, of):
    """Write ``matrix d matrix^T`` for each patch: from channel ``of`` of d, (6, 6, channels, patches), to ``to``."""
    for i in range(matrix.shape[0]):
        f0, f1, f2, f3, f4, f5 = matrix[i]
        for j in range(IN):
            for p in range(half.shape[2]):
                left = f0 * d[0, j, of, p] + f1 * d[1, j, of, p] + f2 * d[2, j, of, p]
                half[i, j, p] = left + f3 * d[3, j, of, p] + f4 * d[4, j, of, p] + f5 * d[5, j, of, p]
    for j in range(matrix.shape[0]):
        f0, f1, f2, f3, f4, f5 = matrix[j]
        for i in range(matrix.shape[0]):
            for p in range(half.shape[2]):
                left = f0 * half[i, 0, p] + f1 * half[i, 1, p] + f2 * half[i, 2, p]
                out[i, j, to, p] = left + f3 * half[i, 3, p] + f4 * half[i, 4, p] + f5 * half[i, 5, p]


@jit
def _spread_patches(y, line, patches, bias, first, end, across):
    """Write the 4x4 outputs of patches to one output channel, (oH, oW), as far as they lie on it."""
    for row in range(first // across, (end - 1) // across + 1):
        left, right = max(first - row * across, 0), min(end - row * across, across)
        place, x_first = row * across + left - first, left * OUT
        for i in range(min(OUT, y.shape[0] - row * OUT)):
            for p in range(right - left):
                line[p * OUT] = patches[i, 0, 0, place + p] + bias
                line[p * OUT + 1] = patches[i, 1, 0, place + p] + bias
                line[p * OUT + 2] = patches[i, 2, 0, place + p] + bias
                line[p * OUT + 3] = patches[i, 3, 0, place + p] + bias
            for q in range(x_first, min(right * OUT, y.shape[1])):
                y[row * OUT + i, q] = line[q - x_first]
