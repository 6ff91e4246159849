"""What it costs to bring the arrays of an operator to the GPU and its result back, apart from computing."""

import time

import numpy as np

from kernels.cuda.array import empty, to_device, to_host
from kernels.cuda.device import SIMULATED, cuda, synchronize

_CALLS = 5


def transfers(arrays, result):
    """Measure copies from and to the host: its ordinary memory, and pinned memory, which the GPU reads by itself.

    Parameters
    ----------
    arrays : list of ndarray
        What an operator reads.
    result : int
        Bytes that it writes.

    Returns
    -------
    dict
        ``to_device`` and ``to_host``: bytes. ``seconds``: the medians of ``to_device``, ``to_device_pinned``,
        ``to_host`` and ``to_host_pinned``.
    """
    pinned = [_pinned(a) for a in arrays]
    back = empty((result,), np.uint8)
    place = cuda.pinned_array((max(result, 1),), np.uint8)
    calls = {
        "to_device": lambda: [to_device(a) for a in arrays],
        "to_device_pinned": lambda: [to_device(a) for a in pinned],
        "to_host": lambda: to_host(back),
        "to_host_pinned": lambda: back.raw[: max(result, 1)].copy_to_host(place),
    }
    seconds = {name: float(np.median([_seconds(call) for _ in range(_CALLS + 1)][1:])) for name, call in calls.items()}
    return {"to_device": sum(a.nbytes for a in arrays), "to_host": result, "seconds": seconds}


def _pinned(a):
    """Return a copy of an array in pinned memory."""
    copy = cuda.pinned_array(max(a.size, 1), a.dtype)[: a.size].reshape(a.shape)
    copy[...] = a
    return copy


def _seconds(call):
    """Return the seconds of a call by events, in the simulator by the clock."""
    synchronize()
    if SIMULATED:
        begun = time.perf_counter()
        call()
        return time.perf_counter() - begun
    start, end = cuda.event(), cuda.event()
    start.record()
    call()
    end.record()
    end.synchronize()
    return cuda.event_elapsed_time(start, end) / 1e3
