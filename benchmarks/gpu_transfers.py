"""What it costs to bring the arrays of an operator to the GPU and its result back, apart from computing."""

import math
import time

import numpy as np

from benchmarks.gpu_clock import unwatched
from kernels import cuda as kernels
from kernels.cuda.array import empty, to_device, to_host
from kernels.cuda.device import SIMULATED, cuda, synchronize

_CALLS = 5
#: A batch of pictures to send, the channels that are computed of it, and how many batches follow each other.
_BATCH, _CHANNELS, _BATCHES = ((1, 1, 1, 2), 1, 1) if SIMULATED else ((8, 3, 512, 512), 16, 20)


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


# ---- beside the kernels ----------------------------------------------------------------------------------------------


def overlap():
    """Measure what it costs to send batches one after another, in line with what is computed of them or beside it.

    Returns
    -------
    dict
        ``bytes`` of a batch; and medians of seconds for each batch by the processor's clock: ``computed`` (from one
        that is on the device: as many convolutions as take about twice the time of sending in line), ``sent`` in line
        and nothing else, ``waited`` (sent in line and computed), and ``hidden`` (sent while the one before is
        computed, see ``kernels.cuda.staging``).
    """
    batch = np.random.default_rng(0).random(_BATCH, np.float32)
    weight = to_device(np.full((_CHANNELS, _BATCH[1], 1, 1), 0.1, np.float32))
    there = to_device(batch)
    once, sent = (_each(call, 2) for call in (lambda _: kernels.conv2d_forward(there, weight), lambda _: _sent(batch)))
    times = 1 if SIMULATED else math.ceil(2 * sent / once)

    def compute(x):
        for _ in range(times):
            kernels.conv2d_forward(x, weight)

    def hidden(_):
        x = under_way.pop()()
        under_way.append(kernels.sending(batch))  # first: it need not wait for this one's work
        compute(x)

    under_way = [kernels.sending(batch)]
    calls = {
        "computed": lambda _: compute(there),
        "sent": lambda _: _sent(batch),
        "waited": lambda _: compute(to_device(batch)),
        "hidden": hidden,
    }
    return {"bytes": batch.nbytes, **{name: _each(call, _BATCHES) for name, call in calls.items()}}


def _sent(batch):
    """Copy a batch in line, and wait until it is there."""
    to_device(batch)
    synchronize()


def _each(call, times):
    """Return the seconds of each of so many calls in a row, until the last has run: the median of some rows."""
    found = []
    with unwatched():
        for _ in range(1 if SIMULATED else _CALLS):
            call(0)  # compiles, and asks for memory
            synchronize()
            begun = time.perf_counter()
            for number in range(times):
                call(number)
            synchronize()
            found.append((time.perf_counter() - begun) / times)
    return float(np.median(found))
