"""Statistics of the channels of pictures, for batch normalisation: sums in parts, a block each, then brought together.

How many parts there are follows from the shape alone, and all sums are taken in a fixed order: no GPU gives other
numbers than another.

The statistics take one pass. Each thread sums up differences d from the first value that it meets, and their squares,
in float64: with n values, ``squares - sum(d)^2 / n`` are its squared deviations from its own mean. What loses digits
in this subtraction is a first value far from all others, but then that value is itself most of the variance. Threads,
and then parts, are brought together as Chan, Golub and LeVeque do (1983): two groups of a and b values with the
means p and q have, together, the squared deviations of both and another ``(p - q)^2 * a * b / (a + b)``.
"""

import math
from functools import lru_cache
from typing import NamedTuple

from numba.types import NamedUniTuple, boolean, float64, int64

from kernels.cuda.device import cuda, device_function, kernel, tile, typed_kernel

#: Threads of a block that takes sums: a power of two.
THREADS = tile(256, 4)
#: Values of a part at least, and parts of all channels at most: what keeps a large GPU busy.
_VALUES, _PARTS = tile(2048, 6), tile(2048, 12)
#: Numbers kept of each channel: centre, scale, shift, one over the deviation, gamma.
ROWS = 5


class Cut(NamedTuple):
    """How the values of a channel are cut into parts: groups of pictures, strips of their planes."""

    pictures: int
    pixels: int
    pictures_each: int
    pixels_each: int
    strips: int


CUT = NamedUniTuple(int64, len(Cut._fields), Cut)


@lru_cache(maxsize=1000)
def parts_of(shape):
    """Return into how many parts each channel of pictures is cut, the threads of their blocks, and the cut.

    Threads stand side by side along a plane; where planes are small, a block takes several pictures at once.
    """
    pictures, channels, pixels = shape[0], shape[1], shape[2] * shape[3]
    wanted = max(1, min(pictures * pixels // _VALUES, -(-_PARTS // channels)))
    pictures_each = -(-pictures // min(wanted, pictures))
    groups = -(-pictures // pictures_each)
    pixels_each = -(-pixels // min(-(-wanted // groups), -(-pixels // _VALUES)))
    strips = -(-pixels // pixels_each)
    across = min(THREADS, 1 << (pixels_each - 1).bit_length())
    return groups * strips, (across, THREADS // across), Cut(pictures, pixels, pictures_each, pixels_each, strips)


# ---- sums over channels ----------------------------------------------------------------------------------------------


@device_function
def _deviations(count, total, squares, other_count, other_total, other_squares):
    """Return the squared deviations of two groups of values together."""
    if other_count == 0:
        return squares
    if count == 0:
        return other_squares
    apart = total / count - other_total / other_count
    return squares + other_squares + apart * apart * (count * (other_count / (count + other_count)))


@device_function
def _fold(counts, totals, squares, thread):
    """Bring the statistics of all threads of a block together, in the first place: halves onto halves."""
    half = THREADS // 2
    while half > 0:
        cuda.syncthreads()
        if thread < half:
            i, j = thread, thread + half
            squares[i] = _deviations(counts[i], totals[i], squares[i], counts[j], totals[j], squares[j])
            totals[i] += totals[j]
            counts[i] += counts[j]
        half //= 2


@device_function
def fold_sums(a, b, thread):
    """Add up two sums of all threads of a block, into the first place: halves onto halves."""
    half = THREADS // 2
    while half > 0:
        cuda.syncthreads()
        if thread < half:
            a[thread] += a[thread + half]
            b[thread] += b[thread + half]
        half //= 2


@device_function
def place_of(parts, cut):
    """Return the channel and the part that a block sums up, its pictures and pixels from first to end."""
    channel, part = cuda.blockIdx.x // parts, cuda.blockIdx.x % parts
    group, strip = part // cut.strips, part % cut.strips
    first_picture, first_pixel = group * cut.pictures_each, strip * cut.pixels_each
    end_picture = min(first_picture + cut.pictures_each, cut.pictures)
    return channel, part, first_picture, end_picture, first_pixel, min(first_pixel + cut.pixels_each, cut.pixels)


@kernel(lambda T: (float64[::1], T[::1], int64, int64, CUT), threads=THREADS)
def statistics_kernel(sums, x, channels, parts, cut):
    """A block: how many values one part of one channel has, their sum and their squared deviations."""
    counts = cuda.shared.array(THREADS, float64)
    totals = cuda.shared.array(THREADS, float64)
    squares = cuda.shared.array(THREADS, float64)
    channel, part, picture, end_picture, first, end = place_of(parts, cut)
    across, thread = cuda.blockDim.x, cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    picture, first = picture + cuda.threadIdx.y, first + cuda.threadIdx.x
    near, total, square, n = float64(0), float64(0), float64(0), 0
    if picture < end_picture and first < end:
        near = float64(x[(picture * channels + channel) * cut.pixels + first])
        if not math.isfinite(near):  # nothing can be told from it
            near = float64(0)
    while picture < end_picture:
        plane = (picture * channels + channel) * cut.pixels
        i, beyond = plane + first, plane + end
        while i + 3 * across < beyond:  # four at a time: all are on their way before the first is needed
            a, b, c, d = x[i], x[i + across], x[i + 2 * across], x[i + 3 * across]
            da, db, dc, dd = float64(a) - near, float64(b) - near, float64(c) - near, float64(d) - near
            total += (da + db) + (dc + dd)
            square += (da * da + db * db) + (dc * dc + dd * dd)
            n += 4
            i += 4 * across
        while i < beyond:
            alone = float64(x[i]) - near
            total += alone
            square += alone * alone
            n += 1
            i += across
        picture += cuda.blockDim.y
    counts[thread], totals[thread], squares[thread] = n, 0, 0
    if n > 0:
        square -= total * (total / n)
        totals[thread] = total + n * near
        if square < 0:  # by rounding; not so for NaN
            square = float64(0)
        squares[thread] = square
    _fold(counts, totals, squares, thread)
    if thread == 0:
        at = channel * parts + part
        sums[at], sums[channels * parts + at], sums[2 * channels * parts + at] = counts[0], totals[0], squares[0]


@typed_kernel(
    lambda T: (
        *(T[::1], T[::1], T[::1]), *(T[::1], T[::1], boolean), float64[::1], *(T[::1], T[::1], boolean, boolean),
        *(float64, float64), *(int64, int64, int64),
    ),
    threads=THREADS,
)  # fmt: skip
def merge_statistics_kernel(T):
    def merge_statistics(
        mean, inv_std, constants, running_mean, running_var, keep, sums, gamma, beta, has_gamma, has_beta,
        momentum, eps, channels, count, parts,
    ):  # fmt: skip
        """A block: one channel, all parts brought together, and what normalises it."""
        counts = cuda.shared.array(THREADS, float64)
        totals = cuda.shared.array(THREADS, float64)
        squares = cuda.shared.array(THREADS, float64)
        channel, thread = cuda.blockIdx.x, cuda.threadIdx.x
        n, total, square = float64(0), float64(0), float64(0)
        for at in range(channel * parts + thread, (channel + 1) * parts, THREADS):
            of_part, total_of_part = sums[at], sums[channels * parts + at]
            square = _deviations(n, total, square, of_part, total_of_part, sums[2 * channels * parts + at])
            total += total_of_part
            n += of_part
        counts[thread], totals[thread], squares[thread] = n, total, square
        _fold(counts, totals, squares, thread)
        if thread == 0:
            average, variance = totals[0] / count, squares[0] / count
            scale = float64(gamma[channel]) if has_gamma else float64(1)
            shift = float64(beta[channel]) if has_beta else float64(0)
            inv = _constants(constants, channel, channels, average, variance, eps, scale, shift, float64(T(average)))
            mean[channel], inv_std[channel] = average, inv
            if keep:
                unbiased = squares[0] / (count - 1)
                running_mean[channel] = (1 - momentum) * float64(running_mean[channel]) + momentum * average
                running_var[channel] = (1 - momentum) * float64(running_var[channel]) + momentum * unbiased

    return merge_statistics


@kernel(
    lambda T: (T[::1], T[::1], T[::1], T[::1], T[::1], T[::1], T[::1], boolean, boolean, float64, int64),
)
def given_statistics_kernel(
    mean, inv_std, constants, running_mean, running_var, gamma, beta, has_gamma, has_beta, eps, channels
):
    """A thread: what normalises one channel, from given statistics."""
    for channel in range(cuda.grid(1), channels, cuda.gridsize(1)):
        average = float64(running_mean[channel])
        scale = float64(gamma[channel]) if has_gamma else float64(1)
        shift = float64(beta[channel]) if has_beta else float64(0)
        variance = float64(running_var[channel])
        inv = _constants(constants, channel, channels, average, variance, eps, scale, shift, average)
        mean[channel], inv_std[channel] = running_mean[channel], inv


@device_function
def _constants(constants, channel, channels, average, variance, eps, scale, shift, centre):
    """Keep the numbers of a channel, ``y = (x - centre) * scale + shift``; return 1 over the deviation.

    What the mean lost when it was rounded to the centre is put into the shift.
    """
    inv = float64(1) / float64(math.sqrt(variance + eps))
    lost = float64(0)
    if math.isfinite(centre):
        lost = centre - average
    constants[channel] = centre
    constants[channels + channel] = scale * inv
    constants[2 * channels + channel] = lost * (scale * inv) + shift
    constants[3 * channels + channel], constants[4 * channels + channel] = inv, scale
    return inv
