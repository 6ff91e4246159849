"""What this machine can do at best: multiply-adds in registers, and copies through memory.

No kernel can run faster than the larger of two times: its arithmetic at the peak rate, and the bytes that it must read
and write at the rate of a copy (Williams, Waterman and Patterson, "Roofline", 2009). Two things beat the roof: Winograd
convolution needs fewer multiplications than the textbook's that are counted here, and what stays in the cache never
crosses memory.
"""

import time

import numpy as np
from numba import prange
from numba.extending import intrinsic

from kernels.cpu.tiling import WIDE, lanes
from kernels.cpu.vector import copy
from kernels.cpu.vector_writer import signature_of, write_with
from kernels.jit import jit

#: Accumulators in registers: as many as a convolution has, enough to hide how long one multiply-add takes.
_CHAINS = WIDE.rows * WIDE.columns
_STEPS = 200_000
_COPIED = 64 * 2**20 // 4  # numbers per thread: beyond any cache


def peaks(threads, seconds=1.0):
    """Measure the peaks of this machine in float32.

    Parameters
    ----------
    threads : int
        Threads to use.
    seconds : float
        How long to try for, each.

    Returns
    -------
    dict
        ``flops``: multiplications and additions per second, the best of many short runs. ``bytes``: bytes read and
        written per second by copying, the median.
    """
    numbers = np.full((threads, 64), 0.5, np.float32)
    source, target = np.ones((threads, _COPIED), np.float32), np.empty((threads, _COPIED), np.float32)
    multiply = _seconds(lambda: _multiply_all(numbers, _STEPS), seconds)
    copied = _seconds(lambda: _copy_all(target, source), seconds)
    return {
        "flops": 2.0 * lanes(np.float32) * _CHAINS * _STEPS * threads / min(multiply),
        "bytes": 2.0 * source.nbytes / float(np.median(copied)),
    }


def bound(flops, size, peaks):
    """Return the least seconds that so many operations and bytes can take, and which of the two it is."""
    arithmetic, memory = (flops or 0) / peaks["flops"], size / peaks["bytes"]
    return max(arithmetic, memory), "arithmetic" if arithmetic > memory else "memory"


def _seconds(call, limit):
    """Return the seconds of each call until the limit, after one that may compile; at least five."""
    call()
    times: list[float] = []
    end = time.perf_counter() + limit
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


@intrinsic
def _multiply_add_in_registers(typing_context, numbers, start, steps):
    """Multiply and add ``steps`` times in each of ``_CHAINS`` accumulators, and store their sum."""
    return signature_of(numbers, start, steps), write_with(_write_multiply_add)


def _write_multiply_add(w, numbers, start, steps):
    place = w.at(numbers, start)
    factor = w.load(place, 0)  # read at run time: the compiler must not know the answer

    def step(i, totals):
        return [w.multiply_add(total, factor, factor) for total in totals]

    total, *others = w.loop(steps, [w.zero] * _CHAINS, step)
    for other in others:
        total = w.builder.fadd(total, other)
    w.store(total, w.at(place, w.lanes))


@jit(parallel=True)
def _multiply_all(numbers, steps):
    """One row of numbers per thread."""
    for thread in prange(numbers.shape[0]):
        _multiply_row(numbers[np.int64(thread)], steps)


@jit
def _multiply_row(numbers, steps):
    _multiply_add_in_registers(numbers, 0, steps)


@jit(parallel=True)
def _copy_all(target, source):
    """One row per thread."""
    for thread in prange(source.shape[0]):
        _copy_row(target[np.int64(thread)], source[np.int64(thread)])


@jit
def _copy_row(target, source):
    copy(target, 0, source, 0, source.size)
