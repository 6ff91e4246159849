"""Tensor: an array, its gradient, and the operator that made it; and the tape, which walks the operators back.

Each operator that takes part in a gradient leaves a node (a ``tinyseg.function.Function``) behind. A node knows the
nodes that made its inputs, so the nodes form a graph; ``Tensor.backward`` visits them from the last made to the first
and hands each the gradient of its output.
"""

import functools
import heapq
import inspect
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyseg.backend import default_device, device_of, is_on_device, kernel, moved

_mode = threading.local()


def is_grad_enabled():
    """Return whether operators are recorded on the tape (in this thread)."""
    return getattr(_mode, "recording", True)


class no_grad:  # a switch, named as in PyTorch
    """Record nothing: for a ``with`` block, or for a function decorated with ``@no_grad()`` or ``@no_grad``.

    What an operator would have saved for backward is freed at once. The results do not require gradients.

    Parameters
    ----------
    function : callable, optional
        Given by ``@no_grad`` itself.

    Examples
    --------
    >>> import tinyseg
    >>> x = tinyseg.Tensor([1.0, 2.0], requires_grad=True)
    >>> with tinyseg.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """

    def __new__(cls, function=None):
        switch = super().__new__(cls)
        return switch if function is None else switch(function)

    def __enter__(self):
        self._before = [*getattr(self, "_before", ()), is_grad_enabled()]
        _mode.recording = False
        return self

    def __exit__(self, *exc):
        _mode.recording = self._before.pop()

    def __call__(self, function):
        @functools.wraps(function)
        def without_tape(*args, **kwargs):
            with no_grad():
                return function(*args, **kwargs)

        if inspect.isgeneratorfunction(function):  # its body would run later, with the tape on again
            raise TypeError(f"no_grad decorates the generator {function.__name__}; use a with block inside it")
        return without_tape


class Memory:
    """What the tensors over one piece of memory share: how often it was changed in place, and whether views exist."""

    __slots__ = ("changes", "viewed")

    def __init__(self):
        self.changes = 0
        self.viewed = False


def _as_array(data, dtype):
    """Return ``data`` as an array of native byte order; Python's floats become float32, as in PyTorch."""
    if is_on_device(data):
        return data if dtype is None else data.astype(dtype, copy=False)
    known = isinstance(data, np.ndarray | np.generic) or hasattr(data, "__array__")
    array = np.asarray(data)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"data has dtype {array.dtype}; expected floating-point numbers, integers or booleans")
    if dtype is None:
        dtype = np.float32 if array.dtype == np.float64 and not known else array.dtype.newbyteorder("=")
    return array if array.dtype == dtype and array.dtype.isnative else np.asarray(array, dtype=dtype)


def _sum(a, b):
    """Return the sum of two gradients: a new array, as either may be shared."""
    if a.size > 1 << 16 and a.dtype == b.dtype and a.shape == b.shape:
        return kernel("add_forward")(a, b)
    return whole_array(a + b)  # so few that starting a kernel takes longer, or NumPy's scalars


def whole_array(value):
    """Return what NumPy's arithmetic gave as an array: it turns arrays without axes into scalars."""
    return value if isinstance(value, np.ndarray) or is_on_device(value) else np.asarray(value)


def array_of(value):
    """Return the array of a tensor, where it lies; an array as it is; and anything else as an array of the host."""
    return value.array if isinstance(value, Tensor) else value if is_on_device(value) else np.asarray(value)


def tensor_beside(tensor, data, dtype=None):
    """Return data of the host as a tensor that lies where another does; a number goes there without a transfer."""
    if tensor.device == "cpu":
        return tensor_over(_as_array(data, dtype))
    array = _as_array(data, dtype)
    return tensor_over(moved(array, "cuda") if array.ndim else np.full_like(tensor.array, array, array.dtype, shape=()))


def tensor_over(array):
    """Return a tensor that shares an array, and lies where it does."""
    tensor = Tensor.__new__(Tensor)
    tensor._take(array, Memory())
    return tensor


class Tensor:
    """An array that remembers how it was computed.

    Parameters
    ----------
    data : array_like or Tensor
        The values. A NumPy array is shared, not copied, unless its type or byte order has to change, or the backend in
        use is ``"cuda"``: then it is copied to the device. Python numbers and lists become float32, int64 or bool.
    requires_grad : bool
        Whether ``backward`` shall leave a gradient in ``grad``. Only for float32 and float64.
    dtype : numpy.dtype, optional
        Type to convert to.

    Attributes
    ----------
    array : numpy.ndarray or kernels.cuda.DeviceArray
        The values, on the host or the device.
    grad : Tensor or None
        After ``backward``, the gradient of a tensor that was made with ``requires_grad=True``; later backward passes
        add to it until it is set to None. Results of operators get none, unless ``retain_grad`` was called.
    creator : Function or None
        The node on the tape that made this tensor. None for a leaf: a tensor that no recorded operator made.

    Raises
    ------
    TypeError
        If the data are no numbers, or gradients are required of integers.

    Notes
    -----
    Operators save some of their inputs for backward. Changing one of those in place (``x += 1``, ``x[0] = 2``, an
    optimiser's step) is noticed by ``backward``, which raises a RuntimeError. A write through the NumPy array
    (``x.numpy()[0] = 2``) cannot be seen: call ``mark_changed`` after it.

    A tensor lies on the host or on the device, and operators run there; nothing moves but by ``to``, and the arrays in
    ``x[numbers]``. ``item``, ``float`` and printing copy what they show. On the device, indexing, transposing and
    repeating copy: only ``reshape`` and ``detach`` share memory.
    """

    # NumPy's functions would take the array and lose the tape: let array * tensor come to Tensor.__rmul__ instead.
    __array_ufunc__ = None

    # The operators, given to the class by tinyseg.ops.
    __add__: Callable[..., "Tensor"]
    __radd__: Callable[..., "Tensor"]
    __iadd__: Callable[..., "Tensor"]
    __sub__: Callable[..., "Tensor"]
    __rsub__: Callable[..., "Tensor"]
    __isub__: Callable[..., "Tensor"]
    __mul__: Callable[..., "Tensor"]
    __rmul__: Callable[..., "Tensor"]
    __imul__: Callable[..., "Tensor"]
    __truediv__: Callable[..., "Tensor"]
    __rtruediv__: Callable[..., "Tensor"]
    __itruediv__: Callable[..., "Tensor"]
    __pow__: Callable[..., "Tensor"]
    __neg__: Callable[..., "Tensor"]
    __matmul__: Callable[..., "Tensor"]
    __lt__: Callable[..., "Tensor"]
    __le__: Callable[..., "Tensor"]
    __gt__: Callable[..., "Tensor"]
    __ge__: Callable[..., "Tensor"]
    __getitem__: Callable[..., "Tensor"]
    __setitem__: Callable[..., None]
    exp: Callable[..., "Tensor"]
    log: Callable[..., "Tensor"]
    sum: Callable[..., "Tensor"]
    mean: Callable[..., "Tensor"]
    reshape: Callable[..., "Tensor"]
    flatten: Callable[..., "Tensor"]
    transpose: Callable[..., "Tensor"]
    permute: Callable[..., "Tensor"]
    astype: Callable[..., "Tensor"]
    _move: Callable[..., "Tensor"]

    def __init__(self, data, requires_grad=False, dtype=None):
        if isinstance(data, Tensor):
            array = _as_array(data.array, dtype)
            self._take(array, data.memory if array is data.array else Memory())
        else:
            self._take(moved(_as_array(data, dtype), default_device() if not is_on_device(data) else "cuda"), Memory())
        if requires_grad:
            self.requires_grad = True

    def _take(self, array, memory):
        """Begin as a leaf over an array."""
        self.array: Any = array
        self.memory = memory
        self.grad: Tensor | None = None
        self.creator: Any = None
        self._requires_grad = False

    # ---- what it is ------------------------------------------------------------------------------------------------

    @property
    def requires_grad(self):
        """Whether gradients flow to this tensor."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value):
        if value and self.array.dtype not in (np.float32, np.float64):
            raise TypeError(f"requires_grad is True for dtype {self.dtype}; expected float32 or float64")
        if not value and self.creator is not None:
            raise RuntimeError("requires_grad is False for the result of an operator; use detach() instead")
        self._requires_grad = bool(value)

    def requires_grad_(self, requires_grad=True):
        """Set ``requires_grad`` and return the tensor itself."""
        self.requires_grad = requires_grad
        return self

    @property
    def is_leaf(self):
        """Whether no recorded operator made this tensor."""
        return self.creator is None

    @property
    def shape(self):
        """The size of each axis, a tuple."""
        return self.array.shape

    @property
    def dtype(self):
        """The NumPy type of the values."""
        return self.array.dtype

    @property
    def ndim(self):
        """The number of axes."""
        return self.array.ndim

    @property
    def size(self):
        """The number of values."""
        return self.array.size

    @property
    def device(self):
        """Where the values lie: ``"cpu"`` or ``"cuda"``."""
        return device_of(self.array)

    @property
    def data(self):
        """The same values off the tape, as ``detach()`` gives them."""
        return self.detach()

    @property
    def T(self):
        """The tensor with its axes in reverse order."""
        return self.transpose()

    def __len__(self):
        return len(self.array)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __bool__(self):
        return bool(self.array)

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __hash__(self):
        return id(self)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.numpy(), dtype=dtype) if copy else np.asarray(self.numpy(), dtype=dtype)

    def __repr__(self):
        name = type(self).__name__
        values = np.array2string(moved(self.array, "cpu"), separator=", ", prefix=f"{name}(", threshold=200)
        extra = "" if self.dtype in (np.float32, np.int64, np.bool_) else f", dtype={self.dtype}"
        extra += "" if self.device == "cpu" else f", device={self.device!r}"
        if self.creator is not None:
            extra += f", creator={self.creator.operator_name()}"
        elif self.requires_grad:
            extra += ", requires_grad=True"
        return f"{name}({values}{extra})"

    # ---- off the tape ----------------------------------------------------------------------------------------------

    def numpy(self):
        """Return the values as a NumPy array that shares memory with the tensor, also where gradients are required.

        Raises
        ------
        TypeError
            If the tensor lies on the device.
        """
        if is_on_device(self.array):
            raise TypeError(f'numpy() of a tensor of shape {self.shape} on the device: copy it by .to("cpu") first')
        return self.array

    def item(self):
        """Return the only value as a Python number."""
        if self.size != 1:
            raise ValueError(f"item() of a tensor of shape {self.shape}; expected exactly one value")
        return self.array.item()

    def detach(self):
        """Return the same values, sharing memory, as a tensor that does not require gradients."""
        return Tensor(self)

    def clone(self):
        """Return a copy that stays on the tape."""
        return self.astype(self.dtype)

    def to(self, device=None, dtype=None):
        """Return the tensor on a device, as another type, or both; itself where nothing has to change.

        Parameters
        ----------
        device : {"cpu", "cuda"}, optional
            Where the values shall lie. A NumPy type is taken as ``dtype``.
        dtype : numpy.dtype, optional
            Type of the values.

        Returns
        -------
        Tensor

        Raises
        ------
        ValueError
            If there is no such device.
        RuntimeError
            If there is no GPU, nor the simulator.
        MemoryError
            If the GPU's memory is full.
        """
        device, dtype = device_and_dtype(device, dtype)
        tensor = self if dtype is None or dtype == self.dtype else self.astype(dtype)
        return tensor if device in (None, tensor.device) else tensor._move(device)

    def mark_changed(self):
        """Tell the tape that the values were changed in place, after a write through ``numpy()``."""
        self.memory.changes += 1

    # ---- the tape --------------------------------------------------------------------------------------------------

    def retain_grad(self):
        """Ask ``backward`` to leave the gradient in ``grad`` although this tensor is the result of an operator."""
        if self.creator is not None:
            self.creator.keep_gradient_in(self)

    def backward(self, gradient=None, retain_graph=False):
        """Add to ``grad`` of every leaf the gradient of this tensor with respect to it.

        Parameters
        ----------
        gradient : Tensor or array_like, optional
            The gradient of the loss with respect to this tensor, of its shape. Not needed for a single value: 1.
        retain_graph : bool
            Keep what the operators saved, so that ``backward`` can run once more. Otherwise it is freed on the way.

        Raises
        ------
        RuntimeError
            If this tensor does not depend on any that requires gradients, if it has several values and no
            ``gradient`` is given, if ``backward`` ran before, or if something saved was changed in place.
            No ``grad`` has changed then.
        ValueError
            If ``gradient`` has another shape.
        """
        if not self.requires_grad:
            raise RuntimeError("backward() of a tensor that does not require gradients: nothing on the tape made it")
        if gradient is None:
            if self.size != 1:
                raise RuntimeError(
                    f"backward() of a tensor of shape {self.shape} needs a gradient; or take sum() first"
                )
            gradient = np.ones_like(self.array)
        elif isinstance(gradient, Tensor):
            gradient = gradient.array
        gradient = _as_array(gradient, self.dtype)
        if device_of(gradient) != self.device:
            raise ValueError(f"gradient lies on {device_of(gradient)!r}; expected {self.device!r}, as the tensor does")
        if gradient.shape != self.shape:
            raise ValueError(f"gradient has shape {gradient.shape}; expected {self.shape}, the tensor's")

        # A leaf waits for its gradient just as a node does. A node is made after the nodes that made its inputs: when
        # it is the youngest one waiting, all that depends on it has been visited, and its gradient is complete.
        start: Any = self if self.creator is None else self.creator
        gradients: dict[Any, np.ndarray] = {start: gradient}
        waiting = [] if self.creator is None else [(-start.serial, start)]
        own = set()  # leaves whose gradient shares no memory with anything else
        while waiting:
            _, node = heapq.heappop(waiting)
            onto = gradients.get(node.sources[0]) if node.adds_up else None
            results = node.gradients(gradients.pop(node), retain_graph, onto)
            for place, (source, dx) in enumerate(zip(node.sources, results, strict=True)):
                if source is None or dx is None:
                    continue
                if source in gradients:  # one tensor, used several times: its gradients add up
                    is_sum = place == 0 and onto is not None
                    gradients[source] = dx if is_sum else _sum(gradients[source], dx)
                    own.add(source)
                else:
                    gradients[source] = whole_array(dx)
                    if not isinstance(source, Tensor):
                        heapq.heappush(waiting, (-source.serial, source))
                    elif node.gradients_are_new:
                        own.add(source)
        for leaf, dx in gradients.items():
            leaf.add_gradient(dx, leaf in own)

    def add_gradient(self, gradient, own=False):
        """Add an array to ``grad``; a first one is copied, as others may share its memory, unless it is its ``own``."""
        if self.grad is None:
            self.grad = tensor_over(gradient.astype(self.dtype, "C", copy=not own))
        else:
            self.grad.array += gradient
            self.grad.mark_changed()


def device_and_dtype(device, dtype):
    """Sort out the arguments of ``to``: a type may come first."""
    is_type = device in ("float32", "float64") if isinstance(device, str) else device is not None
    if is_type and dtype is None:
        device, dtype = None, device
    if device not in (None, "cpu", "cuda", "cuda:0"):
        raise ValueError(f"device is {device!r}; expected 'cpu' or 'cuda'")
    return None if device is None else device.split(":")[0], None if dtype is None else np.dtype(dtype)
