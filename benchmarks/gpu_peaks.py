"""What a GPU can do at best, measured there: multiply-adds in float32, and copies through its memory."""

import numpy as np
from numba.types import int64

from benchmarks.gpu_clock import Stopwatch
from kernels.cuda.array import empty, to_device
from kernels.cuda.device import SIMULATED, THREADS, cuda, kernel, properties

_COPIED = 64 if SIMULATED else 2**29  # bytes: beyond any cache
_CHAINS, _UNROLLED = 8, 16
_STEPS = 1 if SIMULATED else 256
_TURNS = 1 if SIMULATED else 15


def peaks():
    """Measure the peaks of this GPU in float32.

    Returns
    -------
    dict
        ``flops``: multiplications and additions per second, the best of some runs. ``bytes``: bytes read and written
        per second, by the faster of a kernel that copies and the driver's own copy, medians.
    """
    source = to_device(np.random.default_rng(0).standard_normal(_COPIED // 4, np.float32))
    target = empty(source.shape, source.dtype)
    copied = [
        np.median(_seconds(call))
        for call in (
            lambda: _copy_kernel.over(source.size, target.raw, source.raw, source.size),
            lambda: target.raw[: source.size].copy_to_device(source.raw[: source.size]),
        )
    ]
    blocks, threads = (1, 2) if SIMULATED else (32 * properties().processors, THREADS)
    numbers = to_device(np.full(blocks * threads, 0.5, np.float32))
    multiplied = _seconds(lambda: _multiply_add_kernel.run(blocks, threads, numbers.raw, _STEPS))
    flops = 2 * _CHAINS * _UNROLLED * _STEPS * blocks * threads
    return {"flops": flops / min(multiplied), "bytes": float(2 * source.nbytes / min(copied))}


def _seconds(call):
    """Return the seconds of some calls, after one that may compile."""
    watch = Stopwatch()
    call()
    return [watch.seconds(call, 3) for _ in range(_TURNS)]


@kernel(lambda T: (T[::1], T[::1], int64))
def _copy_kernel(target, source, count):
    for i in range(cuda.grid(1), count, cuda.gridsize(1)):
        target[i] = source[i]


@kernel(lambda T: (T[::1], int64))
def _multiply_add_kernel(numbers, steps):
    """A thread works on eight chains of multiply-adds, which do not wait for each other."""
    place = cuda.grid(1)
    factor = numbers[place]
    a = factor
    b, c, d, e = a + factor, a - factor, -a, a * factor
    f, g, h = b * factor, b + factor, b * b
    for _ in range(steps):
        for _ in range(_UNROLLED):
            a = a * factor + factor
            b = b * factor + factor
            c = c * factor + factor
            d = d * factor + factor
            e = e * factor + factor
            f = f * factor + factor
            g = g * factor + factor
            h = h * factor + factor
    numbers[place] = a + b + c + d + e + f + g + h
