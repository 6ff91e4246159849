"""Which kernels compute, on how many threads, in what memory. The only file of tinyseg that imports ``kernels``."""

import inspect
import os
import sys
import threading
import time
from contextlib import ContextDecorator
from functools import cache, lru_cache, wraps
from importlib import import_module
from typing import Any, NamedTuple

from tinyseg import compiling

_here = threading.local()
_state: dict[str, Any] = {"backend": None, "threads": None, "winograd": None, "recorder": None, "announcing": False}


@cache
def _kernels():
    module = import_module("kernels")
    if not hasattr(module, "CONTRACT"):
        raise ImportError(
            f"the package 'kernels' at {getattr(module, '__file__', None) or list(module.__path__)} is not tinyseg's: "
            "uninstall it ('pip uninstall kernels'), then reinstall tinyseg, or put tinyseg's folder first on the path"
        )
    return module


class use_backend:  # a verb, as a call and as a context manager
    """Choose the kernels: as a call, or for the length of a ``with`` block.

    The environment variable ``TINYSEG_BACKEND`` gives the choice at start; without it, it is ``"cpu"``. It holds for
    arrays on the host. Whatever the choice, operators run where their tensors lie, on the device or the host.

    Parameters
    ----------
    name : {"naive", "cpu", "cuda"}
        ``"naive"``: textbook loops, slow and easy to follow. ``"cpu"``: the fast kernels. ``"cuda"``: those of an
        NVIDIA GPU, where new tensors and parameters lie from then on.

    Raises
    ------
    ValueError
        If there is no such backend.
    RuntimeError
        If it is ``"cuda"`` and there is no GPU, nor the simulator.

    Examples
    --------
    >>> import tinyseg
    >>> with tinyseg.use_backend("naive"):
    ...     tinyseg.current_backend()
    'naive'
    """

    def __init__(self, name):
        self._previous = _state["backend"]
        _check(name)
        _state["backend"] = name

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        _state["backend"] = self._previous


def _check(name):
    """Raise where there is no such backend, or it cannot run."""
    backend = _kernels().get(name)
    if name == "cuda":
        backend.require()


def current_backend():
    """Return the name of the backend in use."""
    if _state["backend"] is None:
        name = os.environ.get("TINYSEG_BACKEND") or "cpu"
        try:
            _check(name)
        except ValueError as error:
            raise ValueError(f"environment variable TINYSEG_BACKEND: {error}") from None
        _state["backend"] = name
    return "cpu" if _state["backend"] == "cuda" and getattr(_here, "host_work", 0) else _state["backend"]


class host_work(ContextDecorator):  # a verb's object, as a decorator and as a context manager
    """Let arrays of the host be worked on there, in this thread, where the backend in use is ``"cuda"``.

    For work on few numbers, which would take less time on the GPU than the copies there and back: the kernels of
    ``"cpu"`` do it, and new tensors lie on the host.
    """

    def __enter__(self):
        _here.host_work = getattr(_here, "host_work", 0) + 1
        return self

    def __exit__(self, *exc):
        _here.host_work -= 1


def kernel(name):
    """Return a function of the kernel contract: for arrays of the host from the backend in use.

    Parameters
    ----------
    name : str
        The function's name, such as ``"conv2d_forward"``.

    Returns
    -------
    callable
        Takes and returns arrays, all of the host or all on the device; see ``kernels``.
    """
    if _state["threads"] is None:
        set_num_threads()
    if not _state["announcing"]:
        _state["announcing"] = True
        compiling.announce()
    backend = current_backend()
    if _state["winograd"] is None and backend == "cpu":
        uses_winograd()
    if backend == "cuda" or _ARRAYS in sys.modules:  # otherwise there is no array on the device
        function = _by_device(backend, name)
    else:
        function = getattr(_kernels().get(backend), name)
    return function if _state["recorder"] is None else _recorded(name, function, _state["recorder"])


def has_kernel(name, like=None):
    """Return whether there is a function: all backends have those of the contract, some have fused ones as well.

    Parameters
    ----------
    name : str
        The function's name, such as ``"batch_norm_relu_forward"``.
    like : Tensor or array, optional
        What it shall run on: on the host, the backend in use does.

    Returns
    -------
    bool
    """
    return _kernels().has("cuda" if is_on_device(getattr(like, "array", like)) else current_backend(), name)


# ---- the device ------------------------------------------------------------------------------------------------------

#: The file that makes arrays on the device: until it is loaded there are none.
_ARRAYS = "kernels.cuda.array"


def is_on_device(array):
    """Return whether an array lies in the memory of a GPU.

    Parameters
    ----------
    array : object
        Of any kind.

    Returns
    -------
    bool
    """
    return getattr(type(array), "on_device", False)


def device_of(array):
    """Return where an array lies.

    Parameters
    ----------
    array : ndarray or DeviceArray
        Any array.

    Returns
    -------
    str
        ``"cpu"`` or ``"cuda"``.
    """
    return "cuda" if is_on_device(array) else "cpu"


def default_device():
    """Return where new tensors lie: ``"cuda"`` if that is the backend in use, else ``"cpu"``."""
    return "cuda" if current_backend() == "cuda" else "cpu"


def moved(array, device):
    """Return an array on a device: itself, where it lies there already, or else a copy.

    Parameters
    ----------
    array : ndarray or DeviceArray
        Any array.
    device : {"cpu", "cuda"}
        Where to.

    Returns
    -------
    ndarray or DeviceArray

    Raises
    ------
    RuntimeError
        If there is no GPU, nor the simulator.
    MemoryError
        If the GPU's memory is full.
    """
    if device_of(array) == device:
        return array
    cuda = _kernels().get("cuda")
    return cuda.to_device(array) if device == "cuda" else cuda.to_host(array)


def moving(array, device):
    """Begin to copy an array to a device, while what was started before computes on.

    Parameters
    ----------
    array : ndarray or DeviceArray
        Any array. One of the host may be changed when this returns; one on the device must not be until it has arrived.
    device : {"cpu", "cuda"}
        Where to.

    Returns
    -------
    callable
        Without arguments; gives what `moved` does.

    Raises
    ------
    RuntimeError, MemoryError
        As `moved`.
    """
    if device_of(array) == device:
        return lambda: array
    cuda = _kernels().get("cuda")
    return cuda.sending(array) if device == "cuda" else cuda.fetching(array)


@cache
def _by_device(backend, name):
    """Return a kernel that runs where the arrays of a call lie."""
    kernels = _kernels()
    # a GPU cannot change arrays of the host in place
    changing = {each for names in kernels.IN_PLACE.values() for each in names}
    of_host = "cpu" if backend == "cuda" and name in changing else backend
    host = getattr(kernels.get(of_host), name, None) or _of_device(name)  # the device alone may have it

    @wraps(host)
    def call(*args, **kwargs):
        if _any_on_device(args) or (kwargs and _any_on_device(kwargs.values())):
            return _of_device(name)(*args, **kwargs)
        result = host(*args, **kwargs)
        return _on_host(result) if of_host == "cuda" else result

    return call


@cache
def _of_device(name):
    return getattr(_kernels().get("cuda"), name)


def _any_on_device(values):
    """Return whether an array on the device is among values, or in lists among them."""
    for value in values:
        kind = type(value)
        if getattr(kind, "on_device", False) or (kind is list and _any_on_device(value)):
            return True
    return False


def _on_host(result):
    """Return what a kernel of the device returned for arrays of the host: as arrays of the host."""
    if isinstance(result, tuple | list):
        return type(result)(map(_on_host, result))
    return moved(result, "cpu") if is_on_device(result) else result


def set_num_threads(threads=None):
    """Set how many threads the kernels use.

    Numba keeps the number per Python thread: kernels called from another Python thread use its default. The results
    are the same, bit for bit, whatever the number.

    Parameters
    ----------
    threads : int, optional
        From 1 to the number of processors. Without it, the environment variable ``TINYSEG_NUM_THREADS``, or else
        Numba's choice (one per processor, or ``NUMBA_NUM_THREADS``).

    Raises
    ------
    ValueError
        If the number is not one that this machine has.
    """
    import numba  # half a second: not at import of tinyseg

    limit = numba.config.NUMBA_NUM_THREADS
    source = "threads"
    if threads is None:
        text = os.environ.get("TINYSEG_NUM_THREADS")
        if not text:
            if _state["threads"] is not None:  # as it was before somebody set it
                numba.set_num_threads(limit)
            _state["threads"] = numba.get_num_threads()
            return
        source = "environment variable TINYSEG_NUM_THREADS"
        threads = int(text) if text.isdecimal() else text
    if not isinstance(threads, int) or not 1 <= threads <= limit:
        raise ValueError(f"{source} is {threads!r}; expected a whole number from 1 to {limit} (what this machine has)")
    numba.set_num_threads(threads)
    _state["threads"] = threads


def get_num_threads():
    """Return how many threads the kernels use."""
    if _state["threads"] is None:
        set_num_threads()
    return _state["threads"]


class use_winograd:  # a verb, as a call and as a context manager
    """Allow or forbid Winograd's method for convolutions: as a call, or for the length of a ``with`` block.

    It needs a quarter of the multiplications of a 3x3 convolution, and rounds more: in float32 results are off by up to
    about 1e-5 of the largest value, against 3e-7 of direct convolution. In float64 it is never used. Results that it
    makes infinite or NaN are computed again directly, so these values spread exactly as in the textbook's loops. The
    ``"cpu"`` kernels use it where it is fastest, if allowed; the others never do. The environment variable
    ``TINYSEG_WINOGRAD`` (0 or 1) gives the choice at start; without it, it is allowed.

    Parameters
    ----------
    allowed : bool
        False keeps to direct convolution.

    Raises
    ------
    TypeError
        If ``allowed`` is no bool.

    Examples
    --------
    >>> import tinyseg
    >>> with tinyseg.use_winograd(False):
    ...     tinyseg.uses_winograd()
    False
    """

    def __init__(self, allowed):
        if not isinstance(allowed, bool):
            raise TypeError(f"allowed is {allowed!r}; expected True or False")
        self._previous = uses_winograd()
        _allow_winograd(allowed)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        _allow_winograd(self._previous)


def uses_winograd():
    """Return whether Winograd's method is allowed: see `use_winograd`."""
    if _state["winograd"] is None:
        text = os.environ.get("TINYSEG_WINOGRAD") or "1"
        if text not in ("0", "1"):
            raise ValueError(f"environment variable TINYSEG_WINOGRAD is {text!r}; expected 0 or 1")
        _allow_winograd(text == "1")
    return _state["winograd"]


def _allow_winograd(allowed):
    _cpu_file("planner").allow_winograd(allowed)
    _state["winograd"] = allowed


def _cpu_file(name):
    """Return a file of the ``"cpu"`` kernels, which is not loaded before it is needed."""
    _kernels()  # which makes sure that they are ours
    return import_module(f"kernels.cpu.{name}")


# ---- for readers: tinyseg.explain ------------------------------------------------------------------------------------


class KernelCall(NamedTuple):
    """One call of a kernel, as `record_kernels` hands it over.

    Attributes
    ----------
    name : str
        Of the function: ``"conv2d_forward"``.
    arguments : dict
        By name, defaults included.
    result : ndarray or tuple
        What it returned.
    seconds : float
        How long it took.
    """

    name: str
    arguments: dict
    result: Any
    seconds: float


class record_kernels:  # a verb, as a context manager
    """Have a function called after every call of a kernel, for the length of a ``with`` block.

    Within a block in a block, only the inner function is called. Calls in other threads are recorded too, and may come
    at the same time. A program that does not record pays nothing but a look at whether it does.

    Parameters
    ----------
    callback : callable
        Takes a `KernelCall`, whose arrays it must not change.

    Examples
    --------
    >>> import tinyseg
    >>> from tinyseg.backend import record_kernels
    >>> calls = []
    >>> with record_kernels(calls.append):
    ...     y = tinyseg.ops.relu(tinyseg.Tensor([-1.0, 1.0]))
    >>> calls[0].name
    'relu_forward'
    """

    def __init__(self, callback):
        self._callback = callback

    def __enter__(self):
        self._previous, _state["recorder"] = _state["recorder"], self._callback
        return self

    def __exit__(self, *exc):
        _state["recorder"] = self._previous


def _recorded(name, function, callback):
    """Return a kernel that tells of each of its calls."""

    @wraps(function)
    def call(*args, **kwargs):
        start = time.perf_counter()
        result = function(*args, **kwargs)
        seconds = time.perf_counter() - start
        bound = _signature(function).bind(*args, **kwargs)
        bound.apply_defaults()
        callback(KernelCall(name, bound.arguments, result, seconds))
        return result

    return call


_signature = lru_cache(inspect.signature)


def checked_arguments(operator, *arguments):
    """Return the arguments of an operator as its kernels take them, after the checks that all backends share.

    Parameters
    ----------
    operator : str
        ``"roi_align"``, ``"conv2d"``, ...: the name of its checks in ``kernels.checks``.
    *arguments : object
        All arguments of the forward function, in order.

    Returns
    -------
    tuple
        Arrays contiguous, sizes as pairs, ``spatial_scale`` in the type of the map.

    Raises
    ------
    TypeError, ValueError
        As the kernels do.
    """
    _kernels()  # which makes sure that they are ours
    return getattr(import_module("kernels.checks"), operator)(*arguments)


def cuda_runs_on():
    """Return what runs CUDA kernels here.

    Returns
    -------
    {"GPU", "simulator", None}
        None where neither is there.
    """
    if not _kernels().get("cuda").is_available():
        return None
    return "simulator" if import_module("kernels.cuda.device").SIMULATED else "GPU"


class atomic_gradients:  # a context manager, named for what it allows
    """Let the GPU add up gradients of the RoI operators by atomic operations, for the length of a ``with`` block.

    They come in any order then, and sums may differ in their last digits from run to run.
    """

    def __enter__(self):
        cuda = _kernels().get("cuda")
        self._previous = cuda.is_deterministic()
        cuda.use_deterministic(False)
        return self

    def __exit__(self, *exc):
        _kernels().get("cuda").use_deterministic(self._previous)


def planned_algorithms(call):
    """Return by which algorithm the ``"cpu"`` kernels compute each result of a call.

    Parameters
    ----------
    call : KernelCall
        Any call of a kernel.

    Returns
    -------
    dict of str to str
        ``{"y": "winograd"}``, or for a backward call ``{"dx": "channels", "dweight": "winograd"}``; empty where there
        is but one algorithm.
    """
    return _cpu_file("planned").algorithms(call.name, call.arguments)


def machine_peaks(seconds=0.3):
    """Measure what this machine can do at best in float32, on the threads in use.

    Parameters
    ----------
    seconds : float
        How long to try for, for each of both.

    Returns
    -------
    dict of str to float
        ``flops``: multiplications and additions per second; ``bytes``: bytes read and written per second by copying.
    """
    return _cpu_file("peaks").peaks(get_num_threads(), seconds)


# ---- memory ----------------------------------------------------------------------------------------------------------


def release_memory():
    """Give the memory that the kernels keep for their next results back to the system.

    The ``"cpu"`` kernels use the memory of results that are gone again: hardly more than was in use at once. Worth a
    call where a program goes on to something else that needs much memory.
    """
    memory = sys.modules.get("kernels.cpu.memory")
    if memory is not None:  # otherwise no kernel has run
        memory.release()


def peak_memory():
    """Return the most memory that this process has had in use so far.

    Returns
    -------
    float or None
        In MiB, of all that was resident at once. None on Windows, where Python has no name for it.
    """
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
