"""Times that can be compared: results checked first, everyone in turns within one run, medians with their spread.

A busy machine slows whoever is running. Taken in turns (A, B, A, B, ...), it slows all alike, and the ratio of two
times of the same turn stays true when neither time does.
"""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

#: A turn lasts at least so many seconds: shorter calls are repeated in it.
TURN = 0.01
#: The same on a GPU, whose clock is finer.
GPU_TURN = 0.003
#: Calls shorter than this are made once untimed at the start of a turn: caches are cold, and the threads of whoever
#: was before may still spin.
SETTLE = 0.1


class Effort(NamedTuple):
    """How long a row is measured: so many turns, or fewer (at least 3) when the seconds are used up."""

    turns: int = 15
    seconds: float = 10.0


class Entrant(NamedTuple):
    """One who takes part: what is timed, and how to turn its result into a list of arrays to check.

    What runs on a GPU has a `gpu_clock.Stopwatch`.
    """

    call: Callable[[], Any]
    collect: Callable[[Any], list]
    stopwatch: Any = None


class Timing(NamedTuple):
    """Seconds of the first call, with whatever it compiled, and per call of each turn.

    Those on a GPU are the GPU's own; ``called`` are then those that the caller waits, launches included, and
    ``waits`` tells whether the call itself waits for the GPU, so that its seconds count the host's work too.
    """

    first: float
    seconds: list
    error: str | None = None  # then there are no seconds
    called: list | None = None
    waits: bool = False


class Spread(NamedTuple):
    """A median, and the quartiles around it."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values):
        """Return the spread of numbers."""
        return cls(*map(float, np.percentile(values, (25, 50, 75))))

    def overlaps(self, other):
        """Return whether the middle halves of two spreads share a value."""
        return self.low <= other.high and other.low <= self.high


def ratio(ours, others):
    """Return the spread of how many times our seconds the others took, turn by turn."""
    return Spread.of(np.divide(others, ours))


def measure(entrants, reference, tolerance, effort):
    """Check what each entrant computes, then time those who are right in turns.

    Parameters
    ----------
    entrants : dict of str to callable
        Each prepares itself when called, and returns an `Entrant`.
    reference : callable
        Takes the results of those who are being checked, by name, as lists of arrays; returns a list of pairs (part
        of a result, what it must be) for each of them. Where it raises, the measurement fails.
    tolerance : float
        How far a result may be off, relative to the largest number expected.
    effort : Effort
        How long to measure.

    Returns
    -------
    dict of str to Timing
        In the order of the entrants. Who is wrong, or fails, has an error and is not timed.
    int
        Bytes of the result.
    """
    timings, ready, results = {}, {}, {}
    for name, prepare in entrants.items():
        try:
            entrant = prepare()
            start = time.perf_counter()
            result = entrant.call()
            first = time.perf_counter() - start
            results[name] = entrant.collect(result)
        except Exception as error:  # another's library may raise anything: it is told in the table
            timings[name] = Timing(math.nan, [], f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        else:
            ready[name] = entrant
            timings[name] = Timing(first, [])
    size = max((sum(part.nbytes for part in result) for result in results.values()), default=0)
    for name, pairs in reference(results).items():
        problem = difference(pairs, tolerance)
        if problem:
            timings[name] = Timing(timings[name].first, [], f"wrong result: {problem}")
            del ready[name]
    results.clear()
    watches = {name: entrant.stopwatch for name, entrant in ready.items() if entrant.stopwatch}
    clocks = {name: watch.seconds for name, watch in watches.items()}
    for name, seconds in in_turns({name: entrant.call for name, entrant in ready.items()}, effort, clocks).items():
        timings[name] = timings[name]._replace(seconds=seconds)
    clocks = {name: watch.seconds_called for name, watch in watches.items()}
    some = Effort(min(5, effort.turns), effort.seconds / 3)
    for name, called in in_turns({name: ready[name].call for name in watches}, some, clocks).items():
        timings[name] = timings[name]._replace(called=called, waits=watches[name].waits)
    return timings, size


def difference(pairs, tolerance):
    """Return in words how far results are from what they must be, or None if they are near enough."""
    for found, wanted in pairs:
        found, wanted = np.asarray(found), np.asarray(wanted)
        if found.shape != wanted.shape:
            return f"shape {found.shape}, expected {wanted.shape}"
        if not wanted.size:
            continue
        found, wanted = found.astype(np.float64), wanted.astype(np.float64)
        if not np.array_equal(np.isfinite(found), np.isfinite(wanted)):
            return "NaN or infinite where the reference is not, or the other way round"
        scale = np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0)
        off = np.abs(found - wanted)[np.isfinite(wanted)].max(initial=0.0)
        if off > tolerance * scale:
            return f"off by {off:.3g}, allowed {tolerance * scale:.3g}"
    return None


def in_turns(calls, effort, clocks=None):
    """Return the seconds per call of each turn, by name: every turn runs all the calls, one after the other.

    ``clocks`` has those who are not timed by the processor's clock: ``clocks[name](call, times)`` gives the seconds.
    """
    seconds: dict[str, list] = {name: [] for name in calls}
    if not calls:
        return seconds
    timed = {name: (clocks or {}).get(name, _timed) for name in calls}
    often = {}
    for name, call in calls.items():
        took = timed[name](call, 1)  # the second call: nothing is left to compile
        turn = TURN if timed[name] is _timed else GPU_TURN
        often[name] = (max(1, math.ceil(turn / max(took, 1e-7))), took < SETTLE)
    end = time.perf_counter() + effort.seconds
    for turn in range(effort.turns):
        if turn >= min(3, effort.turns) and time.perf_counter() > end:
            break
        for name, call in calls.items():
            times, settle = often[name]
            if settle:
                call()
            seconds[name].append(timed[name](call, times))
    return seconds


def _timed(call, times):
    """Return the mean seconds of so many calls in a row."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times
