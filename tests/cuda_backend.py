"""The functions of ``kernels.cuda`` for the shared tests: every result is copied back, and errors of the GPU show."""

import functools

import numpy as np

from kernels import cuda


def __getattr__(name):
    function = getattr(cuda, name)

    @functools.wraps(function)
    def call(*arguments, **parameters):
        return _on_host(function(*arguments, **parameters))

    return call


def _on_host(value):
    """Return a result with NumPy arrays in place of device arrays."""
    if isinstance(value, tuple | list):
        return type(value)(_on_host(part) for part in value)
    assert not isinstance(value, np.ndarray), "a kernel of the cuda backend returned an array of the host"
    return cuda.to_host(value) if isinstance(value, cuda.DeviceArray) else value
