"""A CUDA kernel run on the CPU with every access to memory noted: for lessons, and for finding mistakes."""

import itertools
import linecache
import math

import numpy as np

from tinyseg.explain.cuda.analysis import analyse
from tinyseg.explain.cuda.arrays import WARP_BARRIERS, Log, Memory, TooMany, TracedArray
from tinyseg.explain.cuda.emulator import Grid
from tinyseg.explain.cuda.report import CudaTrace
from tinyseg.explain.cuda.rewriter import Rewriter, plain_function
from tinyseg.explain.cuda.threads import GpuThread, Workers, resolver

_MOST_THREADS = 1024  # of a block, on every GPU
_PASSED = (bool, int, float, complex, np.generic, type(None))


def cuda_trace(kernel, grid, block, *arguments, shared_bytes=0, by_address=None, limit=4_000_000):
    """Run a CUDA kernel without a GPU, thread by thread, and say how it uses memory.

    Nothing but the kernel's Python source is needed: neither a GPU nor Numba's simulator. The arrays are read and
    written as the kernel would; the trace tells of each line how many pieces of memory its warps touch, which threads
    get into each other's way, and what lies outside.

    Parameters
    ----------
    kernel : callable
        A plain function that uses ``cuda.grid``, ``cuda.threadIdx``, ``cuda.shared.array``, ``cuda.syncthreads``, ...,
        or what ``cuda.jit`` made of one, or a ``Kernel`` of ``kernels.cuda``. What it calls may be plain functions or
        ``cuda.jit(device=True)`` ones.
    grid, block : int or tuple of int
        Blocks of the grid, and threads of a block: up to three numbers.
    *arguments : ndarray, number, or tuple of them
        What the kernel takes. Arrays that it writes to are changed.
    shared_bytes : int
        Size of the dynamic shared memory, which is ``cuda.shared.array(0, dtype)``.
    by_address : dict of str to ndarray, optional
        Further arrays, with their names, that the kernel finds by an address among its numbers, and has no argument
        for: under the trace ``cuda.at_address(address)`` is the one that begins there.
    limit : int
        The most accesses that are noted; each takes 48 bytes.

    Returns
    -------
    CudaTrace
        ``print`` shows it as a table. ``rows`` has a `CudaTraceRow` for each line and array, ``problems`` a
        `CudaTraceProblem` for each thing to look into, none for a clean kernel; ``figure(line)`` draws which thread
        touches what, ``to_json()`` gives all of it as text.

    Raises
    ------
    TypeError
        If the kernel is not Python, or does not take these arguments.
    ValueError
        If grid or block are no sizes that a GPU takes.
    RuntimeError
        If the kernel raises, or makes more than ``limit`` accesses: an endless loop may be the reason.

    Notes
    -----
    Threads run one after the other, each up to its next barrier, always in the same order; what the trace finds does
    not depend on that order, but for results of kernels with races. A warp is 32 threads in order; what they do at the
    same place in the source, in the same rounds of all ``for ... in range(...)`` around it, counts as one instruction
    of the warp, and in ``while`` loops what each of them does there for the k-th time. Global memory is fetched in
    sectors of 32 bytes, four to a line of 128, and arrays begin at a line; shared memory has 32 banks of 4 bytes, and
    types of 8 bytes are read in two halves of a warp. Reading one place together is free; atomic operations are no
    races among themselves. Where a shared array is declared with an alignment (``cuda.shared.array(n, T,
    alignment=16)``), neighbours within an aligned piece that a thread reads in a loop, with no other access between,
    are one wide read, of four quarters of a warp for 16 bytes: the compiler unrolls such a loop and joins its reads. It
    does so where it can tell that the first index is a multiple of the piece, as of ``4 * i + j`` with ``j`` from 0.

    Not modelled: caches, registers and time; wide reads of global memory, which the compiler does not make, as Numba
    does not tell it how arrays are aligned there; what order fences and atomic operations give to accesses of different
    threads (a block that waits for another one by them is reported as a race); grid-wide barriers. Local arrays are
    checked but not counted. Numbers are computed as NumPy computes them, where Numba's rules differ in the types of
    mixed expressions. A thread takes some microseconds for an access and some tens for a barrier, so a million accesses
    take several seconds.

    Examples
    --------
    >>> import numpy as np
    >>> import tinyseg
    >>> def double(y, x):
    ...     i = cuda.grid(1)
    ...     y[i] = 2 * x[i]
    >>> y = np.zeros(64, np.float32)
    >>> trace = tinyseg.explain.cuda_trace(double, 3, 32, y, np.ones(64, np.float32))
    >>> print(y.sum(), [(problem.kind, problem.line, problem.array) for problem in trace.problems])
    128.0 [('out of bounds', 3, 'x'), ('out of bounds', 3, 'y')]
    """
    function = _function(kernel, arguments)
    grid, block = _sizes("grid", grid), _sizes("block", block)
    if math.prod(block) > _MOST_THREADS:
        raise ValueError(f"block is {block}, {math.prod(block)} threads; expected at most {_MOST_THREADS}")
    names = _argument_names(function, arguments)
    log = Log(limit)
    log.kernel_code = function.__code__
    roots: dict = {}
    traced = tuple(_traced(log, name, value, roots) for name, value in zip(names, arguments, strict=True))
    found = {a.ctypes.data: _traced(log, name, a, roots) for name, a in (by_address or {}).items()}
    barriers = _run(function, grid, block, traced, shared_bytes, found, log)
    findings = analyse(log, math.prod(block), grid, block, barriers)
    return CudaTrace(function.__name__, grid, block, findings)


def _run(function, grid, block, arguments, shared_bytes, by_address, log):
    """Run a kernel, block after block; return what was wrong with its barriers."""
    wrong: dict = {}
    workers = Workers(log)
    cuda = Grid(log, workers, grid, block, shared_bytes, by_address)
    copy = Rewriter(cuda).function(function)
    resolve = resolver(lambda kind, place, text: wrong.setdefault((kind, place), text), _next, _next_in_warp)
    indices = [index[::-1] for index in itertools.product(*map(range, block[::-1]))]
    try:
        for number, place in enumerate(itertools.product(*map(range, grid[::-1]))):
            first = number * len(indices)
            threads = [GpuThread(first + i, i, index, place[::-1]) for i, index in enumerate(indices)]
            cuda.shared.new_block()
            workers.run(threads, lambda: copy(*arguments), resolve)
    except TooMany:
        raise RuntimeError(
            f"the kernel {function.__name__!r} made more than {log.limit} accesses to arrays; "
            "trace smaller arrays, or look for a loop that does not end"
        ) from None
    except Exception as error:
        if workers.failure is None:  # not the kernel's
            raise
        raise RuntimeError(_what_failed(function, *workers.failure)) from error
    finally:
        workers.close()
    return wrong


def _next(thread):
    """A thread has passed a barrier of its block."""
    thread.order = (thread.order // WARP_BARRIERS + 1) * WARP_BARRIERS


def _next_in_warp(thread):
    """A thread has passed something that its warp waits at: syncwarp orders memory, shuffles do not."""
    if thread.waits.name == "syncwarp":
        thread.order += 1


def _what_failed(function, thread, error):
    """Return a sentence that says which thread raised what, and where."""
    line, frames = "", error.__traceback__
    while frames is not None:
        if frames.tb_frame.f_code.co_filename == function.__code__.co_filename:
            source = linecache.getline(function.__code__.co_filename, frames.tb_lineno).strip()
            line = f", line {frames.tb_lineno}: {source}"
        frames = frames.tb_next
    where = f"block {thread.block}, thread {thread.index}"
    return f"the kernel {function.__name__!r} failed in {where}{line}: {type(error).__name__}: {error}"


# ---- arguments -------------------------------------------------------------------------------------------------------


def _function(kernel, arguments):
    """Return the Python function of a kernel."""
    if hasattr(kernel, "source") and hasattr(kernel, "signature"):  # a Kernel of kernels.cuda: one for each type
        from numba import types

        floats = [a.dtype for a in arguments if getattr(a, "dtype", None) in (np.float32, np.float64)]
        kernel = kernel.source(getattr(types, floats[0].name if floats else "float32"))
    function = plain_function(kernel)
    if function is None:
        raise TypeError(f"kernel is a {type(kernel).__name__}; expected a Python function or what cuda.jit made of one")
    return function


def _sizes(name, sizes):
    """Return three sizes."""
    given = tuple(sizes) if isinstance(sizes, tuple | list) else (sizes,)
    if not all(isinstance(size, int | np.integer) and not isinstance(size, bool) for size in given):
        raise TypeError(f"{name} is {sizes!r}; expected whole numbers")
    if not 1 <= len(given) <= 3 or min(given) < 1:
        raise ValueError(f"{name} is {sizes!r}; expected one to three numbers, each at least 1")
    return (*map(int, given), *(1,) * (3 - len(given)))


def _argument_names(function, arguments):
    """Return what a kernel calls its arguments."""
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    least = len(names) - len(function.__defaults__ or ())
    if not least <= len(arguments) <= len(names):
        raise TypeError(
            f"the kernel {function.__name__!r} takes {len(names)} arguments ({', '.join(names)}), "
            f"but is given {len(arguments)}"
        )
    return names[: len(arguments)]


def _traced(log, name, value, roots):
    """Return an argument as the kernel is to see it. Arrays over the same memory share a `Memory` of ``roots``."""
    if isinstance(value, tuple):
        fields = getattr(value, "_fields", None)
        names = [f"{name}[{i}]" for i in range(len(value))] if fields is None else [f"{name}.{f}" for f in fields]
        parts = (_traced(log, part_name, part, roots) for part_name, part in zip(names, value, strict=True))
        return tuple(parts) if fields is None else type(value)(*parts)
    if isinstance(value, _PASSED):
        return value
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} is a {type(value).__name__}; expected a NumPy array, a number or a tuple of them")
    root = value
    while isinstance(root.base, np.ndarray):
        root = root.base
    start, _ = np.lib.array_utils.byte_bounds(root)
    memory = roots.setdefault(id(root), Memory(name, "global", value.itemsize))
    return TracedArray(log, memory, value.view(np.ndarray), name, value.__array_interface__["data"][0] - start)
