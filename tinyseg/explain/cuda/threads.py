"""The threads of a block, one running at a time and always in the same order, for `cuda_trace`.

A thread runs until it meets a barrier; then the next one runs. Each is a call of a plain function, which cannot be left
and resumed, so a thread that waits keeps a Python thread of its own; threads that meet no barrier share one.
"""

import threading
from collections import deque

import numpy as np

WARP = 32


class Stopped(BaseException):
    """The launch was given up: all threads end."""


class GpuThread:
    """A thread of the grid.

    Attributes
    ----------
    number : int
        Its place in the grid, block after block.
    index, block : (int, int, int)
        ``threadIdx`` and ``blockIdx``.
    lane, warp : int
        Its place in its warp, and the warp's in the block.
    order : int
        How many barriers it has passed: see `tinyseg.explain.cuda.arrays.WARP_BARRIERS`.
    rounds : int
        Stands for the rounds of the loops that it is in.
    waits : Barrier or None
        What it waits at.
    """

    def __init__(self, number, place, index, block):
        self.number, self.index, self.block = number, index, block
        self.warp, self.lane = divmod(place, WARP)
        self.order, self.rounds, self.waits, self.answer, self.done = 0, 0, None, None, False
        self.turn = threading.Lock()
        self.turn.acquire()


class Barrier:
    """What a thread waits at.

    Parameters
    ----------
    scope : {"block", "warp"}
        Who has to come.
    place : tuple
        Where in the source: file, line, column.
    mask : int
        For warps: the lanes that have to come, one bit for each.
    name : str
        ``"syncthreads"``, ``"shfl_down_sync"``, ...
    value : object
        What the thread brings.
    answer : callable
        Takes the threads that came and what each brought; returns what each gets.
    """

    def __init__(self, scope, place, mask, name, value, answer):
        self.scope, self.place, self.mask, self.name = scope, place, mask, name
        self.value, self.answer = value, answer


class Workers:
    """The Python threads that threads of the grid run on."""

    def __init__(self, log):
        self._log = log
        self._main = threading.Lock()  # the caller waits here while a thread of the grid runs
        self._main.acquire()
        self._idle: list[threading.Lock] = []
        self._all: list[threading.Thread] = []
        self._fresh: deque[GpuThread] = deque()  # have not run yet
        self._released: deque[GpuThread] = deque()  # may go on
        self._waiting: dict[int, GpuThread] = {}
        self._stop = False
        self.failure = None

    def run(self, threads, function, resolve):
        """Run ``function`` once in each thread of a block; ``resolve(threads)`` says who may go on past a barrier."""
        self._function = function
        self._fresh.extend(threads)
        self._run_all()
        while any(not thread.done for thread in threads):
            self._released.extend(resolve(threads))
            self._run_all()

    def wait(self, barrier):
        """Let the thread that runs now wait at a barrier; return what it gets there."""
        thread = self._log.thread
        thread.waits = barrier
        self._waiting[thread.number] = thread
        self._pass_on()
        thread.turn.acquire()
        if self._stop:
            raise Stopped
        return thread.answer

    def close(self):
        """End all Python threads."""
        self._stop = True
        self._log.left = -1  # a thread that runs, because the caller was interrupted, ends at its next access
        for lock in [*self._idle, *(thread.turn for thread in self._waiting.values())]:
            lock.release()
        for worker in self._all:
            worker.join(1)

    def _run_all(self):
        """Let all threads that may run do so, and wait until each has come to a barrier or its end."""
        self._pass_on()
        self._main.acquire()
        if self.failure is not None:
            raise self.failure[1]

    def _pass_on(self):
        """Let the next thread run, or the caller where there is none."""
        try:
            if self._stop or self.failure is not None:
                self._main.release()
            elif self._released:
                thread = self._log.thread = self._released.popleft()
                thread.waits = None
                del self._waiting[thread.number]
                thread.turn.release()
            elif self._fresh:
                self._wake_worker()
            else:
                self._main.release()
        except RuntimeError as error:  # no room for another worker
            self.failure = self._log.thread, error
            self._main.release()

    def _wake_worker(self):
        """Let an idle worker, or a new one, run fresh threads."""
        if self._idle:
            self._idle.pop().release()
            return
        worker = threading.Thread(target=self._work, daemon=True)
        try:
            worker.start()
        except RuntimeError:
            raise RuntimeError(
                f"this machine has no room for more than {len(self._all)} threads that wait at a barrier; "
                "trace a smaller block"
            ) from None
        self._all.append(worker)

    def _work(self):
        """Run fresh threads as long as there are any, in a loop."""
        rest = threading.Lock()
        rest.acquire()
        with np.errstate(all="ignore"):  # arithmetic on a GPU gives no warnings
            while not self._stop:
                while self._fresh and not self._stop and self.failure is None:
                    thread = self._log.thread = self._fresh.popleft()
                    try:
                        self._function()
                    except Stopped:
                        return
                    except BaseException as error:
                        self.failure = thread, error
                    thread.done = True
                if self._stop:
                    return
                self._idle.append(rest)
                self._pass_on()
                rest.acquire()


# ---- barriers --------------------------------------------------------------------------------------------------------


def resolver(report, next_interval, next_warp_interval):
    """Return the function that `Workers.run` asks who may go on.

    Parameters
    ----------
    report : callable
        Takes a kind, a place and a text: what was wrong with a barrier.
    next_interval, next_warp_interval : callable
        Called with a thread that has passed a barrier of its block, or one that orders memory within its warp.
    """

    def resolve(threads):
        running = [thread for thread in threads if not thread.done]
        ready = _complete_warps(running)
        if ready:
            return _pass(ready, next_warp_interval)
        if all(thread.waits.scope == "block" for thread in running):
            _check_block(threads, running, report)
            return _pass([running], next_interval)
        stuck = _by_warp([thread for thread in running if thread.waits.scope == "warp"])
        for group in stuck:
            first = group[0].waits
            report(
                "barrier", first.place,
                f"{first.name} is reached by {len(group)} threads of a warp, while others that it names wait elsewhere",
            )  # fmt: skip
        return _pass(stuck, next_warp_interval)

    return resolve


def _by_warp(threads):
    """Return threads that wait within their warp in groups that may go on together."""
    groups: dict = {}
    for thread in threads:
        groups.setdefault((thread.warp, thread.waits.mask, thread.waits.name), []).append(thread)
    return list(groups.values())


def _complete_warps(running):
    """Return the groups of threads whose warp's other threads have all come."""
    ready = []
    for group in _by_warp([thread for thread in running if thread.waits.scope == "warp"]):
        warp, mask = group[0].warp, group[0].waits.mask
        expected = sum(1 for thread in running if thread.warp == warp and mask >> thread.lane & 1)
        if len(group) == expected:
            ready.append(group)
    return ready


def _pass(groups, next_interval):
    """Give the threads of each group what they get at their barrier; return them in order."""
    for group in groups:
        values = {
            thread.lane if thread.waits.scope == "warp" else thread.number: thread.waits.value for thread in group
        }
        for thread in group:
            thread.answer = thread.waits.answer(thread, values)
            next_interval(thread)
    return sorted((thread for group in groups for thread in group), key=lambda thread: thread.number)


def _check_block(threads, running, report):
    """Report a barrier of the block that not all threads have come to."""
    first = running[0].waits
    if len(running) < len(threads):
        ended = next(thread for thread in threads if thread.done)
        report(
            "barrier", first.place,
            f"only {len(running)} of {len(threads)} threads of block {first_axes(running[0].block)} reach "
            f"{first.name}: thread {first_axes(ended.index)} has ended before",
        )  # fmt: skip
    other = next((thread for thread in running if thread.waits.place != first.place), None)
    if other is not None:
        report(
            "barrier", first.place,
            f"threads of a block wait at different barriers: thread {first_axes(running[0].index)} here, "
            f"thread {first_axes(other.index)} in line {other.waits.place[1]}",
        )  # fmt: skip


def first_axes(index):
    """Return an index of three axes as text, without the last ones where they are 0."""
    index = index[: max(1, max((axis + 1 for axis in range(3) if index[axis]), default=1))]
    return str(index[0]) if len(index) == 1 else str(tuple(index))
