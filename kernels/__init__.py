"""Array kernels: the contract that every backend keeps.

A backend is a subpackage (``kernels.naive``, ``kernels.cpu``, ``kernels.cuda``) that exports the functions of
``CONTRACT``, one file per operator under the same file name. What holds for all of them:

- Arrays are NumPy arrays (``kernels.cuda``: or those in the GPU's memory, which it returns) in NCHW order,
  float32 or float64, all floating arrays of one call of the same type.
  Inputs may be read-only, non-contiguous or of foreign byte order: they are copied where a kernel needs it so.
- Functions take inputs, then parameters, and return new arrays. ``running_mean`` and ``running_var`` of
  ``batch_norm_forward`` are the only arrays ever written to, but for the parameters and states of ``IN_PLACE``.
- ``dy`` is the gradient of the loss with respect to the output ``y``; ``dx`` with respect to ``x``.
- Parameters such as ``stride`` are an int or a pair (vertical, horizontal) wherever PyTorch takes both.
- All checks live in ``kernels.checks`` and run before a kernel starts; they raise TypeError for a wrong type and
  ValueError for a wrong value, in one sentence that names the argument.
- A batch of none gives a result of none.
- Results do not depend on the number of threads.
"""

import importlib
from functools import cache

#: File name of each operator, and the functions it holds. No function is named as its file: in the package, a file
#: that has been imported would hide it.
CONTRACT = {
    "conv2d": ("conv2d_forward", "conv2d_backward"),
    "conv_transpose2d": ("conv_transpose2d_forward", "conv_transpose2d_backward"),
    "batch_norm": ("batch_norm_forward", "batch_norm_backward"),
    "max_pool2d": ("max_pool2d_forward", "max_pool2d_backward"),
    "roi_pool": ("roi_pool_forward", "roi_pool_backward"),
    "roi_align": ("roi_align_forward", "roi_align_backward"),
    "upsample2d": ("upsample2d_forward", "upsample2d_backward"),
    "linear": ("linear_forward", "linear_backward"),
    "relu": ("relu_forward", "relu_backward"),
    "sigmoid": ("sigmoid_forward", "sigmoid_backward"),
    "softmax": ("softmax_forward", "softmax_backward"),
    "add": ("add_forward", "add_backward"),
    "concat": ("concat_forward", "concat_backward"),
    "binary_cross_entropy": (
        "binary_cross_entropy_forward",
        "binary_cross_entropy_backward",
        "binary_cross_entropy_with_logits_forward",
        "binary_cross_entropy_with_logits_backward",
    ),
    "cross_entropy": ("cross_entropy_forward", "cross_entropy_backward"),
    "smooth_l1": ("smooth_l1_forward", "smooth_l1_backward"),
    "sigmoid_focal": ("sigmoid_focal_forward", "sigmoid_focal_backward"),
    "dice": ("dice_forward", "dice_backward"),
    "iou": ("box_iou",),
    "suppression": ("nms",),
    "pasting": ("paste_masks",),
}

#: Functions that change arrays instead of returning new ones, or measure them: for lists of parameters.
IN_PLACE = {"optimizer_steps": ("sgd_step", "adam_step", "sum_of_squares", "scale_arrays")}

#: Functions that a backend may have beyond the contract, only for speed: several operators in one, or less than one.
#: The operators one after the other give the same. `has` tells whether a backend has one.
EXTRA = {
    "cpu": {
        "batch_norm_relu": ("batch_norm_relu_forward", "batch_norm_relu_backward"),
        "maxima": ("max_pool2d_maxima",),
        "conv_relu": ("conv2d_relu_forward", "conv_transpose2d_relu_forward"),
        "conv_joined": ("conv2d_joined_backward",),
    },
    "cuda": {
        "batch_norm_relu": ("batch_norm_relu_forward", "batch_norm_relu_backward"),
        "conv_relu": ("conv2d_relu_forward", "conv_transpose2d_relu_forward"),
        "conv_joined": ("conv2d_joined_backward",),
        "folding": ("folded_batch_norm",),
    },
}

#: Backends that run everywhere, and all.
BACKENDS = ("naive", "cpu")
ALL_BACKENDS = (*BACKENDS, "cuda")


def get(backend):
    """Return the backend of that name.

    Parameters
    ----------
    backend : {"naive", "cpu", "cuda"}
        Name of a subpackage of ``kernels``.

    Returns
    -------
    module
        Has every function of ``CONTRACT`` as an attribute. A function's file is imported when it is first asked for.

    Raises
    ------
    ValueError
        If there is no such backend.
    """
    if backend not in ALL_BACKENDS:
        raise ValueError(f"backend is {backend!r}; expected one of {', '.join(map(repr, ALL_BACKENDS))}")
    return _module(backend)


@cache
def _module(backend):
    """Return the package of a backend."""
    return importlib.import_module(f"kernels.{backend}")


def has(backend, name):
    """Return whether a backend has a function of that name, of the contract or of ``EXTRA``.

    Parameters
    ----------
    backend : {"naive", "cpu", "cuda"}
        Name of a subpackage of ``kernels``.
    name : str
        The function's name, such as ``"batch_norm_relu_forward"``.

    Returns
    -------
    bool

    Raises
    ------
    ValueError
        If there is no such backend.
    """
    get(backend)  # or ValueError
    return name in _files(backend)


@cache
def _files(backend):
    """Return the name of the file of each function of a backend."""
    files = CONTRACT | IN_PLACE | EXTRA.get(backend, {})
    return {name: file for file, names in files.items() for name in names}


def lazy_exports(package, more=None):
    """Return the module-level ``__getattr__`` and ``__dir__`` of a backend: import an operator's file on first use.

    ``more`` names the files of what a backend exports beyond the tables above.
    """
    file_of = _files(package.removeprefix("kernels.")) | (more or {})

    def __getattr__(name):
        if name not in file_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{file_of[name]}"), name)

    def __dir__():
        return sorted(file_of)

    return __getattr__, __dir__
