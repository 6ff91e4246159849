"""The GPU: whether there is one, how kernels are compiled and started. The one file that imports ``cuda``.

A kernel is written once, as a plain function, for both floating types (see `kernel`). It is compiled for a type when
it is first started with arrays of that type.

``NUMBA_ENABLE_CUDASIM=1``, set before Python starts, replaces the GPU by Numba's simulator, where each GPU thread is a
Python thread: right, and very slow. So few threads are started there, and tiles are small; every kernel goes through
its work in strides of the whole grid and gives the same numbers with any number of threads.
"""

import functools
import operator
import os
import warnings
from typing import NamedTuple

import numpy as np
from numba import config, cuda, types

#: Whether kernels run in the simulator.
SIMULATED = bool(config.ENABLE_CUDASIM)
#: Threads of a block in kernels that treat every element alone, and blocks at most for each multiprocessor.
THREADS, BLOCKS_PER_PROCESSOR = 256, 32

_SIMULATED_GRID = 2, 4  # blocks, and threads of each
_SIMULATED_ROWS = (1, 2), (2, 2)
_MOST_BLOCKS_DOWN = 65_535  # CUDA's limit for all axes of a grid but the first
_NON_BLOCKING = 1  # CUDA's flag for streams
_FLOATS = {np.dtype(np.float32): types.float32, np.dtype(np.float64): types.float64}
_NO_FLOATS = np.dtype(np.float32)


def is_available():
    """Return whether kernels can run: on a GPU, or in the simulator.

    Returns
    -------
    bool
    """
    return why_not() is None


@functools.cache
def why_not():
    """Return why no kernel can run here, in words, or None if they can.

    Returns
    -------
    str or None
    """
    if SIMULATED:
        return None
    try:
        if cuda.is_available():
            return None
        if cuda.cuda_error() is None:
            reason = "NVVM, NVIDIA's compiler for GPUs, was not found"
        else:
            reason = "no NVIDIA GPU with its driver was found"
    except Exception as error:  # a broken driver may raise anything
        reason = f"the NVIDIA driver does not work ({error})"
    return reason


def require():
    """Check that kernels can run.

    Raises
    ------
    RuntimeError
        If they cannot.
    """
    reason = why_not()
    if reason is not None:
        raise RuntimeError(
            f"the cuda backend cannot run: {reason}; install the driver and 'tinyseg[cuda]', or set the environment "
            "variable NUMBA_ENABLE_CUDASIM=1 before Python starts, for a slow simulator"
        )


# ---- whether sums are the same in every run -------------------------------------------------------------------------

_deterministic = True


def use_deterministic(flag):
    """Choose how the gradients of roi_pool and roi_align are added up on the GPU. All else has one way.

    Parameters
    ----------
    flag : bool
        True, as it is at first: each cell of the map collects its sum in a fixed order, and results are the same in
        every run, bit for bit. False: outputs add to cells by atomic operations, in any order, so that sums may differ
        in their last digits from run to run.

    Raises
    ------
    TypeError
        If ``flag`` is no bool.
    """
    global _deterministic
    if not isinstance(flag, bool | np.bool_):
        raise TypeError(f"flag is {flag!r}; expected True or False")
    _deterministic = bool(flag)


def is_deterministic():
    """Return what `use_deterministic` chose.

    Returns
    -------
    bool
    """
    return _deterministic


# ---- kernels ---------------------------------------------------------------------------------------------------------

#: Every kernel that `kernel` and `typed_kernel` made, in the order of import.
KERNELS: list = []


class Kernel:
    """A function that runs on the GPU once for each thread, for both floating types.

    Parameters
    ----------
    source : callable
        Takes a floating type of Numba's and returns the function, as plain Python.
    signature : callable
        Takes a floating type and returns the types of the arguments.
    name : str
        File and function: ``"relu.relu_kernel"``.
    threads : int
        Threads of a block that it is started with on a GPU, at most.
    """

    def __init__(self, source, signature, name, threads=THREADS):
        self.source, self.signature, self.name, self.threads = source, signature, name, threads
        self._compiled: dict = {}
        KERNELS.append(self)

    def __repr__(self):
        return f"Kernel({self.name})"

    def run(self, grid, block, *arguments, dtype=None):
        """Start ``grid`` blocks of ``block`` threads each: numbers or tuples of up to three.

        The floating type is that of the first argument that has one, or ``dtype``; where nobody has one, float32.
        """
        if dtype is None:
            dtype = next((dtype for a in arguments if (dtype := getattr(a, "dtype", None)) in _FLOATS), _NO_FLOATS)
        if dtype not in self._compiled:
            require()
            self._compiled[dtype] = cuda.jit(self.source(_FLOATS[dtype]))
        if not SIMULATED:
            self._compiled[dtype][grid, block](*arguments)
            return
        with warnings.catch_warnings():  # a GPU computes NaN and inf in silence
            warnings.simplefilter("ignore", RuntimeWarning)
            self._compiled[dtype][grid, block](*arguments)

    def over(self, count, *arguments):
        """Start as many threads as are good for ``count`` elements, none for 0.

        The kernel goes through the elements in strides: ``for i in range(cuda.grid(1), count, cuda.gridsize(1))``.
        """
        if count:
            self.run(*grid_for(count, self.threads), *arguments)

    def over_rows(self, rows, columns, *arguments):
        """Start as many threads as are good for the elements of ``rows`` rows, none for 0: neighbours along a row.

        The kernel goes through both in strides: ``column, row = cuda.grid(2)``, steps ``cuda.gridsize(2)``. Loops with
        ``while`` are faster here: a ``range`` with a step divides to know its length.
        """
        if rows * columns:
            self.run(*grid_for_rows(rows, columns, self.threads), *arguments)


def kernel(signature, threads=THREADS):
    """Make a kernel of a function that reads the same for both floating types.

    Parameters
    ----------
    signature : callable
        Takes a floating type T of Numba's and returns the types of the arguments:
        ``lambda T: (T[::1], T[::1], int64)``.
    threads : int
        Threads of a block on a GPU, at most.

    Returns
    -------
    callable
        A decorator, which returns a `Kernel`.
    """

    def decorate(function):
        return Kernel(lambda T: function, signature, _name(function), threads)

    return decorate


def typed_kernel(signature, threads=THREADS):
    """Make a kernel of a function that takes a floating type T and returns the function for it.

    For kernels with arrays in shared or local memory, whose type must be known: ``cuda.shared.array(64, T)``.

    Parameters
    ----------
    signature, threads
        As for `kernel`.

    Returns
    -------
    callable
        A decorator, which returns a `Kernel`.
    """

    def decorate(make):
        return Kernel(functools.cache(make), signature, _name(make), threads)

    return decorate


def _name(function):
    return f"{function.__module__.rpartition('.')[2]}.{function.__name__.strip('_')}"


def device_function(function):
    """Make a function that kernels may call: its body is copied into theirs."""
    return cuda.jit(device=True, inline="always")(function)


def tile(size, simulated):
    """Return ``size``, the edge of a tile or the threads of a block, or in the simulator the small size for it."""
    return simulated if SIMULATED else size


def grid_for(count, threads=THREADS):
    """Return blocks and threads for ``count`` elements that are treated one by one, in strides of the grid."""
    if SIMULATED:
        return _SIMULATED_GRID
    return min(-(-count // threads), BLOCKS_PER_PROCESSOR * properties().processors), threads


def grid_for_rows(rows, columns, threads=THREADS):
    """Return blocks and threads for rows of elements.

    Narrow rows share a block. A thread takes up to four elements of a row, as long as all processors have work: what
    it finds out about its row serves them all.
    """
    if SIMULATED:
        return _SIMULATED_ROWS
    processors = properties().processors
    across = min(threads, 1 << (columns - 1).bit_length())
    down = threads // across
    most = BLOCKS_PER_PROCESSOR * processors
    each = max(1, min(4, rows * columns // (2048 * processors)))
    blocks_across = min(-(-columns // (across * each)), most)
    blocks_down = min(-(-rows // down), max(1, most // blocks_across), _MOST_BLOCKS_DOWN)
    return (blocks_across, blocks_down), (across, down)


def rounded_product(T):
    """Return the function that multiplies two numbers of type T and rounds the product, whatever follows.

    A product and a sum behind it are otherwise one operation on a GPU, which rounds once: better, but where a position
    is computed, whether a pixel takes part may hang on that last digit.
    """
    if SIMULATED:
        return operator.mul
    from numba.cuda import libdevice  # which the simulator does not have

    return {types.float32: libdevice.fmul_rn, types.float64: libdevice.dmul_rn}[T]


class Properties(NamedTuple):
    """What a GPU is.

    Attributes
    ----------
    name : str
        ``"NVIDIA H100 80GB HBM3"``; ``"simulator"``.
    processors : int
        Streaming multiprocessors.
    capability : (int, int)
        Compute capability, such as (9, 0).
    """

    name: str
    processors: int
    capability: tuple


@functools.cache
def properties():
    """Return what the GPU in use is.

    Returns
    -------
    Properties
    """
    require()
    if SIMULATED:
        return Properties("simulator", 1, (0, 0))
    gpu = cuda.get_current_device()
    name = gpu.name.decode() if isinstance(gpu.name, bytes) else str(gpu.name)
    return Properties(name, gpu.MULTIPROCESSOR_COUNT, tuple(gpu.compute_capability))


def synchronize():
    """Wait until all that was started has run; what went wrong there is raised here."""
    require()
    cuda.synchronize()


def copy_stream():
    """Return a stream for copies, which waits for others where an event says so, and for nothing by itself."""
    require()
    if SIMULATED:
        return cuda.stream()
    # one of cuda.stream() waits for the default stream, and that for it
    from numba.cuda.cudadrv.driver import driver

    attach_thread()
    return cuda.external_stream(int(driver.cuStreamCreate(_NON_BLOCKING)))


@functools.cache
def default_stream():
    """Return the stream that kernels run on, for copies: given 0, which stands for it elsewhere, the host waits."""
    return cuda.stream() if SIMULATED else cuda.default_stream()


def attach_thread():
    """Let the thread that runs use the GPU, if it is the first time that it does."""
    if not SIMULATED:
        cuda.current_context()


if not SIMULATED and "NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS" not in os.environ:
    config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # small pictures make small grids
