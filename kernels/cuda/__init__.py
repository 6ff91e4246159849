"""Kernels for NVIDIA GPUs, in ``numba.cuda``: the functions of the contract, from and to arrays on the device.

Functions take NumPy arrays or device arrays (`DeviceArray`), and return device arrays. Kernels need a GPU, or the
simulator: see ``device``.
"""

from kernels import lazy_exports

_FILES = {
    "is_available": "device",
    "is_deterministic": "device",
    "require": "device",
    "use_deterministic": "device",
    "to_device": "array",
    "to_host": "array",
    "transfers": "array",
    "release_memory": "array",
    "sending": "staging",
    "fetching": "staging",
    "DeviceArray": "array",
}

__getattr__, __dir__ = lazy_exports(__name__, _FILES)
