"""Seconds on a GPU, by its own events, and what is done so that they can be believed.

Starting a kernel from Python takes longer than many kernels run. So the GPU is held by a kernel that sleeps, until all
launches of a measurement wait in line behind it: what passes between two events is then the GPU's work alone. A call
that waits for the GPU before it goes on cannot be lined up: its seconds count the host's work too, and it says so.
Arrays are kept in several copies, which calls take in turn, so that none is found in the cache.

In the simulator the processor's clock stands in for events, and times mean nothing.
"""

import itertools
import math
import time
from contextlib import contextmanager
from functools import cache

import numpy as np
from numba.types import int64, uint32

from kernels.cuda.device import SIMULATED, Kernel, cuda, kernel, properties, synchronize

#: Copies of the arrays take so many times the room of the cache, and are so many at most, and at least.
_CACHES, _MOST, _LEAST = 2, 64, 2
#: Seconds of launches that may wait in line: a GPU takes about a thousand, each of which takes some microseconds.
_LINE = 2.5e-3
_NAP = 1000  # nanoseconds
_TRIES = 3
_ONE_LAUNCH = 2e-4  # seconds in which one launch between its events is surely in line


class Stopwatch:
    """Times the calls of one entrant.

    Parameters
    ----------
    copies : int
        Calls after which all its memory has been asked for: asking would stop the line.

    Attributes
    ----------
    waits : bool
        Whether a call waits for the GPU by itself. Known once something was timed.
    """

    def __init__(self, copies=1):
        self.waits = False
        self._copies = copies
        self._launching = 0.0  # seconds in which a call starts its kernels; 0 before the first

    def seconds(self, call, times):
        """Return the mean seconds on the GPU of so many calls in a row."""
        if SIMULATED:
            return self.seconds_called(call, times)
        if not self._launching:
            self._look_at(call)
        batch = times if self.waits else max(1, min(times, int(_LINE / self._launching)))
        sizes = [min(batch, times - start) for start in range(0, times, batch)]
        return sum(self._events(call, size) for size in sizes) / times

    def seconds_called(self, call, times):
        """Return the mean seconds of so many calls in a row by the processor's clock, until the last has run."""
        with unwatched():
            synchronize()
            start = time.perf_counter()
            for _ in range(times):
                call()
            synchronize()
            return (time.perf_counter() - start) / times

    def _look_at(self, call):
        """Find out how long a call takes to start its kernels, and whether it waits for them."""
        for _ in range(self._copies + 1):
            call()
        synchronize()
        start = time.perf_counter()
        call()
        self._launching = max(time.perf_counter() - start, 1e-6)
        held = hold(4 * self._launching + 1e-3)
        start = time.perf_counter()
        call()
        self.waits = time.perf_counter() - start > 0.9 * held
        synchronize()

    def _events(self, call, times):
        """Return the seconds between two events around so many calls."""
        best = math.inf
        for _ in range(_TRIES):
            start, end = cuda.event(), cuda.event()
            held = 0.0 if self.waits else hold(1.5 * times * self._launching + 2e-4)
            begun = time.perf_counter()
            start.record()
            for _ in range(times):
                call()
            end.record()
            took = time.perf_counter() - begun
            end.synchronize()
            best = min(best, cuda.event_elapsed_time(start, end) / 1e3)
            if self.waits or took < 0.9 * held:
                break
            self._launching = max(self._launching, took / times)  # the line began to move before it was complete
        return best


def hold(seconds):
    """Keep the GPU busy for at least so long; return for how long it will be."""
    naps = math.ceil(seconds / _nap())
    _sleep_kernel.run(1, 1, naps)
    return naps * _nap()


@cache
def _nap():
    """Return the seconds of a nap on this GPU, the shorter of two measurements."""
    naps, seconds = 2000, []
    for _ in range(3):  # the first compiles
        start, end = cuda.event(), cuda.event()
        start.record()
        _sleep_kernel.run(1, 1, naps)
        end.record()
        end.synchronize()
        seconds.append(cuda.event_elapsed_time(start, end) / 1e3 / naps)
    return min(seconds[1:])


@kernel(lambda T: (int64,), threads=1)
def _sleep_kernel(naps):
    """One thread, which sleeps."""
    for _ in range(naps):
        cuda.nanosleep(uint32(_NAP))


# ---- copies ----------------------------------------------------------------------------------------------------------


def copies(size):
    """Return how many copies of arrays of ``size`` bytes calls shall take in turn."""
    return min(_MOST, max(_LEAST, -(-_CACHES * cache_bytes() // max(size, 1))))


def in_cache(size):
    """Return whether all the copies of arrays of ``size`` bytes find room in the cache."""
    return copies(size) * size <= cache_bytes()


@cache
def cache_bytes():
    """Return the bytes of the GPU's second-level cache; 0 in the simulator."""
    properties()  # raises where there is no GPU
    return 0 if SIMULATED else int(cuda.get_current_device().L2_CACHE_SIZE)


def taken_in_turn(calls):
    """Return a call that makes one of ``calls`` after the other, and keeps each result until that call's next turn."""
    results = [None] * len(calls)
    places = itertools.cycle(range(len(calls)))

    def call():
        place = next(places)
        results[place] = None  # its memory is free for the new one
        results[place] = calls[place]()
        return results[place]

    return call


# ---- what is started -------------------------------------------------------------------------------------------------


@contextmanager
def watching(start):
    """Have ``start(kernel, run)`` start every kernel for a while, which ``run()`` does."""
    original = Kernel.run

    def run(self, *arguments, **how):
        if self is _sleep_kernel:
            original(self, *arguments, **how)
        else:
            start(self, lambda: original(self, *arguments, **how))

    Kernel.run = run
    try:
        yield
    finally:
        Kernel.run = original


_run = Kernel.run


@contextmanager
def unwatched():
    """Start kernels as if nobody watched, for a while: watching takes time too."""
    watched = Kernel.run
    Kernel.run = _run
    try:
        yield
    finally:
        Kernel.run = watched


@contextmanager
def noting_compilations(found):
    """Put into ``found``, by the kernel's name, the seconds of a start that compiled."""

    def start(kernel, run):
        known = len(kernel._compiled)
        begun = time.perf_counter()
        run()
        if len(kernel._compiled) > known:
            found[kernel.name] = found.get(kernel.name, 0.0) + time.perf_counter() - begun

    with watching(start):
        yield


def by_kernel(call, calls=3):
    """Return the seconds of each kernel within a call, by its name, in the order of the first launches.

    The median of some calls. Events stand around every launch: a kernel of less than two microseconds seems longer.
    """
    found: dict = {}
    for _ in range(calls):
        launches: list = []
        with watching(_with_events(launches)):
            call()
        synchronize()
        once: dict = {}
        for name, seconds in launches:
            once[name] = once.get(name, 0.0) + seconds()
        for name, seconds in once.items():
            found.setdefault(name, []).append(seconds)
    return {name: float(np.median(seconds)) for name, seconds in found.items()}


def _with_events(launches):
    """Return what starts kernels between two events, and puts name and a function that gives the seconds in a list."""

    def start(kernel, run):
        if SIMULATED:
            begun = time.perf_counter()
            run()
            took = time.perf_counter() - begun
            launches.append((kernel.name, lambda: took))
            return
        before, after = cuda.event(), cuda.event()
        hold(_ONE_LAUNCH)
        before.record()
        run()
        after.record()
        launches.append((kernel.name, lambda: cuda.event_elapsed_time(before, after) / 1e3))

    return start
